"""The query object: a level and keys, checked before any network (PS3.4 C.4.1.1.3)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import tzinfo
from difflib import get_close_matches
from typing import Any, Final

from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.key_values import Exact, several, wire_values
from airflow_provider_varian.query.level import LEVEL_OF_UNIQUE_KEY, UNIQUE_KEYS, Level
from airflow_provider_varian.query.matching import Matcher
from airflow_provider_varian.query.values import NUMBER_FORMATS
from airflow_provider_varian.query.window import clinic_zone

__all__ = ["Exact", "Key", "Query"]

#: Keys that peers read in ways of their own: asked for empty, compared here (semantics 12).
NEVER_SENT: Final = frozenset({"ImageType"})

_SET_BY_US: Final = {
    "QueryRetrieveLevel": "Give it as the level of the query",
    "SpecificCharacterSet": "It is set here when a key needs it",
    "QueryRetrieveView": "It needs extended negotiation, which is not offered",
}


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """One key of an identifier.

    :param keyword: the DICOM keyword.
    :param vr: its VR.
    :param values: what to match on, as text; empty for a return key.
    :param items: for a sequence: the keys of its one item; empty for a sequence that is returned whole.
    :param literal: compare the whole value as it stands, without wildcards.
    """

    keyword: str
    vr: str
    values: tuple[str, ...] = ()
    items: tuple[Key, ...] = ()
    literal: bool = False

    def __repr__(self) -> str:
        return f"<Key {self.keyword}{'' if self.matching else ' (returned)'}>"

    @property
    def matching(self) -> bool:
        """Does it set a condition? An item of empty keys does not (PS3.4 C.2.2.2.6)."""
        return bool(self.values) or any(item.matching for item in self.items)

    @property
    def empty(self) -> Key:
        """The same key, asked for and not matched on."""
        return replace(self, values=(), items=tuple(item.empty for item in self.items), literal=False)

    def literal_paths(self) -> Iterable[str]:
        """Yield the keywords, dotted inside sequences, that are compared as a whole."""
        if self.literal:
            yield self.keyword
        for item in self.items:
            yield from (f"{self.keyword}.{path}" for path in item.literal_paths())

    def texts(self) -> Iterable[str]:
        """Yield all values, those of items too."""
        yield from self.values
        for item in self.items:
            yield from item.texts()

    def element(self) -> DataElement:
        """Build the data element that holds the key."""
        value: Any
        if self.vr == "SQ":
            value = [_dataset(self.items)] if self.items else []
        elif self.vr in NUMBER_FORMATS and self.values:
            value = float(self.values[0]) if self.vr in ("FL", "FD") else int(self.values[0])
        else:
            value = list(self.values) if len(self.values) > 1 else "".join(self.values)
            value = value if value or self.vr not in NUMBER_FORMATS else None
        tag = Tag(tag_for_keyword(self.keyword) or 0)
        # Checked here already; pydicom knows neither ranges of its own nor ARIA's UIDs (varian-daemon 1.5).
        return DataElement(tag, self.vr, value, validation_mode=config.IGNORE)


@dataclass(frozen=True, slots=True, repr=False)
class Query:
    """What to ask a peer for; made by :meth:`build`.

    :param level: the query/retrieve level.
    :param keys: matching and return keys, unique keys among them.
    """

    level: Level
    keys: tuple[Key, ...]

    @classmethod
    def build(
        cls, level: Level | str | None, keys: Mapping[str, Any], *, timezone: str | tzinfo | None = None
    ) -> Query:
        """Check level and keys and make a query of them.

        :param level: PATIENT, STUDY, SERIES or IMAGE.
        :param keys: DICOM keywords to values. ``None`` or ``""`` asks for the attribute; text is
            matched, with wildcards where the VR knows them; :class:`Exact` marks text that holds
            ``*`` or ``?`` as it stands; UIDs may be a list; dates and times may be ``date``,
            ``datetime``, ``time``, pendulum's, ``YYYYMMDD`` or ``YYYY-MM-DD``, or a pair
            ``(from, to)`` with None for an open end; sequences take a mapping.
        :param timezone: the clinic's zone (IANA name): instants are converted to it.
        :raises QueryError: before any network, naming keyword and rule and never a value.
        :raises ConfigurationError: when the zone is unknown.
        """
        at = Level.parse(level)
        if not isinstance(keys, Mapping):
            raise QueryError("the keys are not a mapping of DICOM keywords to values")
        zone = clinic_zone(timezone) if isinstance(timezone, str) else timezone
        made = tuple(_key(keyword, value, zone) for keyword, value in keys.items())
        for key in made:
            own = LEVEL_OF_UNIQUE_KEY.get(key.keyword)
            if own is not None and own.depth > at.depth:
                raise QueryError(
                    f"the key {key.keyword} is the unique key of level {own}, below the query's level {at}",
                    hint=f"Ask at level {own}, or leave {key.keyword} out (PS3.4 C.4.1.1.3)",
                )
        return cls(at, made)._with_unique_keys()

    def _with_unique_keys(self) -> Query:
        """Ask for the UIDs of this level and of those above: an answer without them names nothing."""
        wanted = [UNIQUE_KEYS[level] for level in Level.STUDY.through(self.level)] or [UNIQUE_KEYS[self.level]]
        have = {key.keyword for key in self.keys}
        return replace(self, keys=(*self.keys, *(return_key(name) for name in wanted if name not in have)))

    def __repr__(self) -> str:
        return f"<Query {self.keyword_summary()}>"

    def keyword_summary(self) -> str:
        """Describe the query by its keywords alone, for logs and messages."""
        matched = ", ".join(key.keyword for key in self.keys if key.matching) or "nothing"
        returned = ", ".join(key.keyword for key in self.keys if not key.matching)
        return f"{self.level} by {matched}" + (f"; returning {returned}" if returned else "")

    @property
    def matching_keys(self) -> tuple[Key, ...]:
        """The keys that set a condition."""
        return tuple(key for key in self.keys if key.matching)

    @property
    def return_keys(self) -> tuple[Key, ...]:
        """The keys that are only asked for."""
        return tuple(key for key in self.keys if not key.matching)

    def get(self, keyword: str) -> Key | None:
        """Return the key of that keyword, if there is one."""
        return next((key for key in self.keys if key.keyword == keyword), None)

    def at(self, level: Level, keys: Iterable[Key]) -> Query:
        """Return a query at another level with other keys; unique keys are added."""
        return Query(level, tuple(keys))._with_unique_keys()

    def with_key(self, key: Key) -> Query:
        """Return the query with one key put in the place of its like, or added."""
        others = tuple(key if own.keyword == key.keyword else own for own in self.keys)
        return replace(self, keys=others if self.get(key.keyword) else (*others, key))

    def matcher(self) -> Matcher:
        """Return what an answer must fulfil, whatever was sent to the peer."""
        literal = [path for key in self.keys for path in key.literal_paths()]
        return Matcher(_dataset(self.matching_keys), literal=literal, names_in_any_order=True)

    def identifier(self, *, unsent: Collection[str] = ()) -> Dataset:
        """Return the identifier of the C-FIND request.

        :param unsent: keywords that the peer matches wrongly: asked for empty, compared here.
        """
        sent = tuple(key.empty if key.keyword in unsent or key.keyword in NEVER_SENT else key for key in self.keys)
        identifier = _dataset(sent)
        if not all(text.isascii() for key in sent for text in key.texts()):
            identifier.SpecificCharacterSet = "ISO_IR 192"
        identifier.QueryRetrieveLevel = str(self.level)
        return identifier


def return_key(keyword: str) -> Key:
    """Return a key that is asked for and not matched on."""
    return _key(keyword, None, None)


def unique_key(level: Level, value: str) -> Key:
    """Return the unique key of a level with a value that a peer gave, taken as it stands."""
    if level is Level.PATIENT:
        return Key("PatientID", "LO", (value,), literal=True)
    return Key(UNIQUE_KEYS[level], "UI", (value,))


def _dataset(keys: Iterable[Key]) -> Dataset:
    dataset = Dataset()
    for key in keys:
        dataset.add(key.element())
    return dataset


def _key(keyword: object, value: Any, zone: tzinfo | None) -> Key:
    name, vr = _known(keyword)
    literal = isinstance(value, Exact)
    value = value.value if isinstance(value, Exact) else value
    try:
        if vr == "SQ":
            return Key(name, vr, items=_items(value, zone))
        if name in NEVER_SENT:
            return Key(name, vr, several(vr, value), literal=True)
        if literal and not isinstance(value, str):
            raise ValueError("Exact marks text alone")
        return Key(name, vr, wire_values(vr, value, zone), literal=literal)
    except ValueError as error:
        raise QueryError(f"the key {name} (VR {vr}) is refused: {error}") from None


def _known(keyword: object) -> tuple[str, str]:
    """Return keyword and VR from the dictionary, or refuse with the nearest keyword."""
    if not isinstance(keyword, str):
        raise QueryError("a key is not text", hint="Keys are DICOM keywords such as PatientID")
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise QueryError(f"{keyword[:64]!r} is not a DICOM keyword", hint=_nearest(keyword))
    if keyword in _SET_BY_US:
        raise QueryError(f"the key {keyword} cannot be given", hint=_SET_BY_US[keyword])
    if tag >> 16 in (0x0000, 0x0002) or tag & 0xFFFF == 0:
        raise QueryError(f"{keyword} is no attribute of a patient, study, series or instance")
    return keyword, str(dictionary_VR(tag)).split(" or ")[0]


def _nearest(keyword: str) -> str:
    by_lower = {known.lower(): known for known in keyword_dict if known}
    near = get_close_matches(keyword.strip().replace(" ", "").lower(), by_lower, n=1, cutoff=0.7)
    if not near:
        return "Keywords are listed in PS3.6, e.g. PatientID, AcquisitionDate"
    return f"Did you mean {by_lower[near[0]]}?"


def _items(value: Any, zone: tzinfo | None) -> tuple[Key, ...]:
    if isinstance(value, (list, tuple)):
        if len(value) > 1:
            raise ValueError("a sequence key has one item (PS3.4 C.2.2.2.6)")
        value = value[0] if value else None
    if value is None or value == "":
        return ()
    if not isinstance(value, Mapping):
        raise ValueError("it takes a mapping of keywords to values")
    return tuple(_key(keyword, inner, zone) for keyword, inner in value.items())
