"""Matching of keys against a data set, as PS3.4 C.2.2.2 defines it, never stricter than a peer.

One implementation for the re-filter of answers and for the simulator. A peer may compare names
without case and accents, ignore padding and look at any value of several; what such a peer found
must not be thrown away here. A value that is absent or empty gives :attr:`Verdict.UNDECIDED`
(semantics 12), which a server that knows its data reads as a miss.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Final

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from airflow_provider_varian.dimse.answers import Answer, Answered
from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.temporal import TEMPORAL_VRS, key_span, value_span
from airflow_provider_varian.query.values import Value, encodings_of, read, vr_of
from airflow_provider_varian.query.verdict import Verdict, all_of, any_of

__all__ = ["Matcher", "Verdict", "match"]

#: VRs in which ``*`` and ``?`` are wildcards (PS3.4 C.2.2.2.4).
WILDCARD_VRS: Final = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
NUMBER_VRS: Final = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})

#: Elements of an identifier that steer the query and are not keys (PS3.4 C.4.1.1.3, C.4.1.3).
NOT_KEYS: Final = frozenset(
    {
        Tag(0x0008, 0x0005),  # Specific Character Set
        Tag(0x0008, 0x0052),  # Query/Retrieve Level
        Tag(0x0008, 0x0053),  # Query/Retrieve View
        Tag(0x0008, 0x0054),  # Retrieve AE Title
        Tag(0x0008, 0x0056),  # Instance Availability
        Tag(0x0008, 0x0201),  # Timezone Offset From UTC
    }
)

#: PS3.5 6.2.1: a component group has five components; more are not put in another order.
_MOST_COMPONENTS = 5
#: Verdicts that a key remembers, and how many bytes their values have at most.
_MOST_SAID: Final = 1024
_LONGEST_SAID: Final = 64

_Compare = Callable[[Value], Verdict]


@dataclass(frozen=True, slots=True)
class _Test:
    """The condition that one key sets."""

    tag: int
    compare: _Compare | None = None
    whole: tuple[str, ...] | None = None
    item: Matcher | None = None
    #: What was said of values that came before, by the encodings of their text: in a long list most come again.
    said: dict[tuple[bytes, Sequence[str]], Verdict] = field(default_factory=dict, repr=False, compare=False)

    def verdict(self, dataset: Answered, encodings: tuple[str, ...]) -> Verdict:
        if not isinstance(dataset, Answer) or dataset.vrs is not None:
            return self._verdict(dataset, encodings)
        content = dataset.contents.get(self.tag)
        if not isinstance(content, bytes) or len(content) > _LONGEST_SAID:
            return self._verdict(dataset, encodings)
        verdict = self.said.get((content, encodings))
        if verdict is None:
            verdict = self._verdict(dataset, encodings)
            if len(self.said) >= _MOST_SAID:
                self.said.clear()
            self.said[content, encodings] = verdict
        return verdict

    def _verdict(self, dataset: Answered, encodings: Sequence[str]) -> Verdict:
        values = read(dataset, self.tag, encodings)
        if self.item is not None:
            items = [value for value in values or () if isinstance(value, Answer | Dataset)]
            return any_of(self.item.match(item, encodings) for item in items) if items else Verdict.UNDECIDED
        known = [value for value in values or () if _text(value)]
        if not known:
            return Verdict.UNDECIDED
        if self.whole is not None:
            return _said(tuple(_text(value) for value in values or ()) == self.whole)
        return any_of(self.compare(value) for value in known) if self.compare else Verdict.MATCH


class Matcher:
    """Keys, read once, to be held against many data sets.

    :param keys: an identifier or an item of one; empty values are universal (PS3.4 C.2.2.2.3).
    :param literal: keywords whose value is compared as a whole and as it stands, without
        wildcards: ``ImageType``, and what :class:`~airflow_provider_varian.query.query.Exact` marks.
        Inside a sequence: ``"Sequence.Keyword"``.
    :param names_in_any_order: may the components of a person's name change places? A peer may
        find names that way (PS3.4 C.2.2.2.1), so the re-filter of answers says yes.
    :raises QueryError: when a key's value cannot be read as its VR.
    """

    def __init__(self, keys: Dataset, *, literal: Collection[str] = (), names_in_any_order: bool = False) -> None:
        self._literal = frozenset(literal)
        self._any_order = names_in_any_order
        encodings = encodings_of(keys)
        tests = ((_keyword(tag), self._test(keys, int(tag), encodings)) for tag in keys.keys())  # noqa: SIM118
        self._tests = {keyword: test for keyword, test in tests if test is not None}

    def __bool__(self) -> bool:
        """Say whether there is any condition."""
        return bool(self._tests)

    @property
    def keywords(self) -> tuple[str, ...]:
        """The keys that set a condition."""
        return tuple(self._tests)

    def match(self, dataset: Answered, inherited: Sequence[str] = ()) -> Verdict:
        """Hold the keys against a data set.

        :param dataset: an answer, an object, or an item of a sequence.
        :param inherited: Python's encodings for a data set that names no character set.
        """
        if not self._tests:
            return Verdict.MATCH
        encodings = encodings_of(dataset, inherited)
        return all_of(test.verdict(dataset, encodings) for test in self._tests.values())

    def verdicts(self, dataset: Answered, inherited: Sequence[str] = ()) -> dict[str, Verdict]:
        """Return what each key by itself says, by keyword."""
        encodings = encodings_of(dataset, inherited)
        return {keyword: test.verdict(dataset, encodings) for keyword, test in self._tests.items()}

    def _test(self, keys: Dataset, tag: int, encodings: Sequence[str]) -> _Test | None:
        if tag in NOT_KEYS or not tag & 0xFFFF:
            return None
        vr, keyword = vr_of(keys, tag), _keyword(tag)
        values = read(keys, tag, encodings) or ()
        if vr == "SQ":
            return self._sequence(tag, keyword, values)
        texts = tuple(_text(value) for value in values)
        if not any(texts):
            return None
        if keyword in self._literal or (len(texts) > 1 and vr != "UI"):
            return _Test(tag, whole=texts)
        if vr in WILDCARD_VRS and not texts[0].strip("*"):
            return None
        try:
            return _Test(tag, compare=_comparison(vr, texts, self._any_order))
        except ValueError as error:
            raise QueryError(f"the key {keyword} (VR {vr}) is {error}") from None

    def _sequence(self, tag: int, keyword: str, values: Sequence[Value]) -> _Test | None:
        items = [value for value in values if isinstance(value, Dataset)]
        if len(items) > 1:
            raise QueryError(f"the sequence key {keyword} has several items", hint="PS3.4 C.2.2.2.6 allows one")
        if not items:
            return None
        inner = {name.removeprefix(f"{keyword}.") for name in self._literal if name.startswith(f"{keyword}.")}
        matcher = Matcher(items[0], literal=inner, names_in_any_order=self._any_order)
        return _Test(tag, item=matcher) if matcher else None


def match(dataset: Answered, keys: Dataset, *, literal: Collection[str] = ()) -> Verdict:
    """Hold an identifier against a data set once; see :class:`Matcher`."""
    return Matcher(keys, literal=literal).match(dataset)


def _keyword(tag: int) -> str:
    return keyword_for_tag(tag) or f"{int(tag):08X}"


def _said(matches: bool) -> Verdict:
    return Verdict.MATCH if matches else Verdict.MISS


def _text(value: Value) -> str:
    """Return a value as comparable text: padding is not significant, nor is how accents are composed."""
    if isinstance(value, Answer | Dataset):
        return ""
    if isinstance(value, bytes):
        return value.hex()
    text = str(value).strip(" \0")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _comparison(vr: str, texts: tuple[str, ...], any_order: bool) -> _Compare:
    if vr == "UI":
        wanted = frozenset(texts)
        return lambda value: _said(_text(value) in wanted)
    if vr in TEMPORAL_VRS:
        return _temporal(vr, texts[0])
    if vr in NUMBER_VRS:
        return _number(texts[0])
    if vr == "PN":
        return _name(texts[0], any_order)
    key = texts[0]
    if vr in WILDCARD_VRS and ("*" in key or "?" in key):
        return lambda value: _said(_glob(key, _text(value)))
    return lambda value: _said(_text(value) == key)


def _temporal(vr: str, key: str) -> _Compare:
    wanted = key_span(vr, key)

    def compare(value: Value) -> Verdict:
        try:
            span = value_span(vr, _text(value))
        except ValueError:
            return Verdict.UNDECIDED
        # Which zone a time without offset is in, only the peer knows.
        return _said(wanted.touches(span)) if wanted.aware == span.aware else Verdict.UNDECIDED

    return compare


def _number(key: str) -> _Compare:
    try:
        wanted = float(key)
    except ValueError:
        raise ValueError("not a number") from None

    def compare(value: Value) -> Verdict:
        try:
            return _said(float(_text(value)) == wanted)
        except ValueError:
            return Verdict.UNDECIDED

    return compare


def _name(key: str, any_order: bool) -> _Compare:
    wanted = [forms for group in key.split("=") if any(forms := _name_forms(group))]

    def compare(value: Value) -> Verdict:
        groups = [_name_forms(group) for group in _text(value).split("=")]
        return _said(
            any(
                _same_name(pattern, name, any_order)
                for forms in wanted
                for group in groups
                for pattern, name in zip(forms, group, strict=True)
                if name
            )
        )

    return compare if wanted else lambda _: Verdict.MATCH


def _name_forms(group: str) -> tuple[str, str]:
    """Return a component group without case, and without case and accents."""
    tidy = "^".join(component.strip() for component in group.split("^")).rstrip("^")
    if tidy.isascii():
        return tidy.lower(), tidy.lower()
    bare = "".join(char for char in unicodedata.normalize("NFD", tidy) if not unicodedata.combining(char))
    return tidy.lower(), unicodedata.normalize("NFC", bare).casefold()


def _same_name(pattern: str, name: str, any_order: bool) -> bool:
    wild = "*" in pattern or "?" in pattern
    if _glob(pattern, name) if wild else pattern == name:
        return True
    if not any_order:
        return False
    if not wild:
        return sorted(filter(None, pattern.split("^"))) == sorted(filter(None, name.split("^")))
    return any(_glob(pattern, other) for other in _orders(name))


def _orders(name: str) -> Iterator[str]:
    components = [component for component in name.split("^") if component]
    if len(components) <= _MOST_COMPONENTS:
        yield from ("^".join(order) for order in permutations(components))


def _glob(pattern: str, text: str) -> bool:
    """Match ``*`` and ``?`` in time proportional to both lengths: a pattern may come from anybody."""
    star = -1
    at = position = mark = 0
    while position < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, mark = at, position
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[position]):
            at += 1
            position += 1
        elif star >= 0:
            at, mark = star + 1, mark + 1
            position = mark
        else:
            return False
    return not pattern[at:].strip("*")
