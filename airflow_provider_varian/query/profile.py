"""Profiles: which of a peer's habits we allow for, as data. Standard library only.

A profile says what was seen of a kind of peer; ``profile_overrides`` of the connection say what
differs at one site. The profiles themselves are in :mod:`airflow_provider_varian.aria.profile`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final

from airflow_provider_varian.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A peer's habits.

    :param name: what the connection calls it.
    :param relational_queries: may keys of upper levels be left out (PS3.4 C.4.1.1.3.2)?
        Else the hierarchy is walked.
    :param uid_lists: may a UID key list several (PS3.4 C.2.2.2.2)? Else each is asked for by itself.
    :param patient_level: does the peer answer Patient Root at PATIENT level?
    :param patient_id_patterns: exact Patient IDs that the peer does not find exactly, and the
        pattern to ask by instead; the answers are filtered by the exact ID.
    :param unreliable_matching_keys: keywords that are asked for empty and compared here.
    :param volatile_attributes: keywords that the peer rewrites at each export (semantics 8).
    :param too_broad_statuses: C-FIND statuses that mean: too many matches, none listed.
    :param known_caps: numbers of matches at which the peer is known to stop with success.
    :param move_over_tls: do the C-STORE sub-operations of a C-MOVE come over TLS (semantics 21)?
    :param user_identity: may a login be sent (semantics 22)?
    :param stable_counts: equal counts in a row that make a count stable (semantics 11).
    :param stable_interval_seconds: seconds between two of them.
    :param settle_seconds: seconds of quiet before a retry moves again, or late objects are given up.
    """

    name: str
    relational_queries: bool = False
    uid_lists: bool = True
    patient_level: bool = True
    patient_id_patterns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    unreliable_matching_keys: frozenset[str] = frozenset()
    volatile_attributes: frozenset[str] = frozenset()
    too_broad_statuses: frozenset[int] = frozenset()
    known_caps: frozenset[int] = frozenset()
    move_over_tls: bool = False
    user_identity: bool = True
    stable_counts: int = 3
    stable_interval_seconds: float = 0.5
    settle_seconds: float = 3.0

    def overridden(self, overrides: Mapping[str, Any] | None) -> Profile:
        """Return the profile with single habits changed.

        :param overrides: names of this class' fields, ``name`` aside, to JSON values: lists for
            sets, statuses as numbers or as text like ``"0xC001"``.
        :raises ConfigurationError: for an unknown name, with the nearest, or a value of another kind.
        """
        changes: dict[str, Any] = {}
        for name, value in (overrides or {}).items():
            reader = _READERS.get(name)
            if reader is None:
                near = get_close_matches(str(name), _READERS, n=1)
                raise ConfigurationError(
                    f"profile_overrides has the unknown name {name!r}",
                    hint=f"Did you mean {near[0]}?" if near else "Known names: " + ", ".join(_READERS),
                )
            try:
                changes[name] = reader(value)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(f"profile_overrides: {name} {error}") from None
        return replace(self, **changes)


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("takes true or false")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("takes a whole number from 1")
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ValueError("takes a number of seconds from 0")
    return float(value)


def _words(value: Any) -> frozenset[str]:
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(isinstance(item, str) for item in value):
        raise ValueError("takes a list of DICOM keywords")
    return frozenset(value)


def _numbers(value: Any) -> frozenset[int]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ValueError("takes a list of numbers")
    try:
        return frozenset(int(item, 0) if isinstance(item, str) else _count(item) for item in value)
    except ValueError:
        raise ValueError("takes a list of whole numbers from 1, or text like 0xC001") from None


def _patterns(value: Any) -> Mapping[str, str]:
    known = isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)
    if not known or not all(set("*?") & set(pattern) for pattern in value.values()):
        raise ValueError("takes a mapping of exact Patient IDs to patterns with * or ?")
    return MappingProxyType(dict(value))


_BY_TYPE: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "bool": _switch,
        "int": _count,
        "float": _seconds,
        "frozenset[str]": _words,
        "frozenset[int]": _numbers,
        "Mapping[str, str]": _patterns,
    }
)
_READERS: Final = {item.name: _BY_TYPE[str(item.type)] for item in fields(Profile) if item.name != "name"}
