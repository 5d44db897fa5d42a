"""Answers as plain mappings that survive :func:`json.dumps`, by keyword, as received."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, cast

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from airflow_provider_varian.dimse.answers import Answer, Answered, Content
from airflow_provider_varian.query.values import (
    ASCII_VRS,
    SINGLE_TEXT_VRS,
    TEXT_VRS,
    Value,
    decode,
    dictionary_vr,
    encodings_of,
    raw_values,
    read,
    vr_of,
)

#: Elements that describe the message, not what was found.
_ABOUT_THE_MESSAGE: Final = frozenset({Tag(0x0008, 0x0005), Tag(0x0008, 0x0052)})

#: A hostile peer may send any number of tags.
_ATTRIBUTES_BOUND: Final = 8192
#: Attributes whose last content is remembered, and how many bytes that may have.
_MOST_SEEN: Final = 256
_LONGEST_SEEN: Final = 64


def to_answer(
    dataset: Answered, inherited: Sequence[str] = (), *, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Return a data set as a mapping of keywords to JSON values.

    Text is decoded by the data set's character set. DS and IS become numbers where they are some;
    other values stay the text they are, dates and times too. Several values are a list, an
    empty element is None, a sequence is a list of mappings. Attributes without a keyword go by
    their tag in hexadecimal, bytes as base64.

    :param dataset: an answer of a C-FIND, or any other data set.
    :param inherited: Python's encodings when it names no character set.
    :param only: keywords to read, None for all; inside sequences all are read.
    """
    encodings = encodings_of(dataset, inherited)
    if isinstance(dataset, Answer):
        return _answered(dataset, encodings, only, {})
    named = ((tag, _ATTRIBUTES[tag][0]) for tag in sorted(dataset.keys()))
    return {name: _json(dataset, tag, encodings) for tag, name in named if name and (only is None or name in only)}


class AnswerReader:
    """Makes mappings of the answers to one query, as :func:`to_answer` does.

    What repeats from one answer to the next, as most of a list does, is read once.

    :param inherited: Python's encodings for answers that name no character set.
    """

    def __init__(self, inherited: Sequence[str] = ()) -> None:
        self._inherited = inherited
        self._encodings: Sequence[str] = ()
        self._seen: _Seen = {}

    def read(self, dataset: Answered) -> dict[str, Any]:
        """Return an answer as a mapping."""
        if not isinstance(dataset, Answer):
            return to_answer(dataset, self._inherited)
        encodings = encodings_of(dataset, self._inherited)
        if encodings != self._encodings:
            self._encodings, self._seen = encodings, {}
        return _answered(dataset, encodings, None, self._seen)


#: By tag: the content that came last, the name by which it goes, and its value.
_Seen = dict[int, tuple[Content, str, Any]]


def _answered(answer: Answer, encodings: Sequence[str], only: Collection[str] | None, seen: _Seen) -> dict[str, Any]:
    made: dict[str, Any] = {}
    contents, vrs = answer.contents, answer.vrs
    if vrs is not None:
        # The same bytes may have come with another VR.
        seen = {}
    for tag in sorted(contents):
        content = contents[tag]
        last = seen.get(tag)
        if last is not None and last[0] == content:
            made[last[1]] = last[2]
            continue
        name, convert = _ATTRIBUTES[tag]
        if not name or (only is not None and name not in only):
            continue
        if vrs is not None:
            convert = _CONVERSIONS[vr_of(answer, tag)]
        made[name] = value = convert(content, encodings)
        # A list is its mapping's own.
        if len(content) <= _LONGEST_SEEN and len(seen) < _MOST_SEEN and not isinstance(value, list):
            seen[tag] = content, name, value
    return made


def _items(content: Content, encodings: Sequence[str]) -> Any:
    return [to_answer(item, encodings) for item in content if isinstance(item, Answer)]


def _ascii(content: Any, encodings: Sequence[str]) -> Any:
    text = content.decode("ascii", "replace")
    return _parts(text) if "\\" in text else text.rstrip(" \0") or None


def _text(content: Any, encodings: Sequence[str]) -> Any:
    text = decode(content, encodings)
    return _parts(text) if "\\" in text else text.rstrip(" \0") or None


def _parts(text: str) -> list[str]:
    return [part.rstrip(" \0") for part in text.split("\\")]


def _conversion(vr: str) -> _Convert:
    """Return what reads the content of elements of a VR."""
    if vr == "SQ":
        return _items
    if vr in TEXT_VRS - SINGLE_TEXT_VRS:
        return _text
    if vr in ASCII_VRS - {"DS", "IS"} - SINGLE_TEXT_VRS:
        return _ascii
    return lambda content, encodings: _values(vr, raw_values(cast("bytes", content), vr, encodings))


class _Conversions(dict[str, "_Convert"]):
    """What reads elements, by VR."""

    def __missing__(self, vr: str) -> _Convert:
        # No more than there are VRs: others our codec does not let pass.
        self[vr] = found = _conversion(vr)
        return found


class _Attributes(dict[int, tuple[str, "_Convert"]]):
    """By tag: the name by which an attribute goes, empty when it is left out, and what reads it without VR."""

    def __missing__(self, tag: int) -> tuple[str, _Convert]:
        if len(self) >= _ATTRIBUTES_BOUND:
            self.clear()
        left_out = tag in _ABOUT_THE_MESSAGE or not tag & 0xFFFF
        name = "" if left_out else keyword_for_tag(tag) or f"{tag:08X}"
        self[tag] = found = (name, _CONVERSIONS[dictionary_vr(tag)])
        return found


_Convert = Callable[[Content, Sequence[str]], Any]
_CONVERSIONS: Final = _Conversions()
_ATTRIBUTES: Final = _Attributes()


def _json(dataset: Dataset, tag: int, encodings: Sequence[str]) -> Any:
    values = read(dataset, tag, encodings)
    vr = vr_of(dataset, tag)
    if vr == "SQ":
        return [to_answer(item, encodings) for item in values or () if isinstance(item, Dataset)]
    return _values(vr, values or ())


def _values(vr: str, values: Sequence[Value]) -> Any:
    plain = [_plain(vr, value) for value in values]
    return (plain[0] if len(plain) == 1 else plain) if plain else None


def _plain(vr: str, value: Value) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, str) and vr in ("DS", "IS"):
        return _number(vr, value)
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no such numbers.
        return str(value)
    return value


def _number(vr: str, text: str) -> int | float | str | None:
    try:
        if vr == "IS":
            return int(text)
        number = float(text)
    except ValueError:
        return text if text.strip() else None
    return number if math.isfinite(number) else text
