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
class ExpectedFailure:
    """A failure to export that is known, lasting, and nobody's fault: the object is named and skipped, not waited for.

    It is recognised by what the peer says when it fails, or by what it answered of the object before; of the conditions
    below those that are set must hold, the last two being alternatives.

    :param name: what messages and overrides call it.
    :param reason: in words, for people.
    :param sop_class_uids: of the objects that it strikes; empty: any.
    :param statuses: final statuses of the C-MOVE or C-GET; empty: any failure.
    :param comment: what the peer's Error Comment (0000,0902) contains, in any case.
    :param answered: values by keyword that a C-FIND at IMAGE level answers of such an object.
    """

    name: str
    reason: str
    sop_class_uids: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()
    comment: str = ""
    answered: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def fits(
        self,
        *,
        sop_class_uid: str = "",
        status: int | None = None,
        comment: str = "",
        answered: Mapping[str, Any] | None = None,
    ) -> bool:
        """Say whether an object that failed did so for this reason.

        :param sop_class_uid: its class; empty when unknown.
        :param status: of the request that failed; None when unknown.
        :param comment: Error Comment of that request.
        :param answered: the answer of a C-FIND by keyword.
        """
        if self.sop_class_uids and sop_class_uid and sop_class_uid not in self.sop_class_uids:
            return False
        if self.statuses and status is not None and status not in self.statuses:
            return False
        said = bool(self.comment) and self.comment.casefold() in comment.casefold()
        values = answered or {}
        shown = bool(self.answered) and all(
            values.get(keyword) is not None and str(values[keyword]).strip() == value
            for keyword, value in self.answered.items()
        )
        return said or shown


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
    :param known_caps: limits seen: numbers of matches at which the peer is known to stop with success.
    :param move_over_tls: do the C-STORE sub-operations of a C-MOVE come over TLS (semantics 21)?
    :param user_identity: may a login be sent (semantics 22)?
    :param stable_counts: equal counts in a row that make a count stable (semantics 11).
    :param stable_interval_seconds: seconds between two of them.
    :param settle_seconds: seconds of quiet before a retry moves again, or late objects are given up.
    :param expected_failures: objects that the peer lists and cannot export, and how they show.
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
    expected_failures: tuple[ExpectedFailure, ...] = ()

    def expected_failure(
        self,
        *,
        sop_class_uid: str = "",
        status: int | None = None,
        comment: str = "",
        answered: Mapping[str, Any] | None = None,
    ) -> ExpectedFailure | None:
        """Return the known reason for which an object was not exported; None when there is none.

        See :meth:`ExpectedFailure.fits` for the parameters.
        """
        for each in self.expected_failures:
            if each.fits(sop_class_uid=sop_class_uid, status=status, comment=comment, answered=answered):
                return each
        return None

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


def _failures(value: Any) -> tuple[ExpectedFailure, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError("takes a list of mappings")
    return tuple(_failure(item) for item in value)


def _failure(item: Mapping[str, Any]) -> ExpectedFailure:
    unknown = sorted(set(item) - set(_FAILURE))
    if unknown:
        raise ValueError(f"has the unknown key {unknown[0]!r}; known are " + ", ".join(_FAILURE))
    lacking = [key for key in ("name", "reason") if key not in item]
    if lacking:
        raise ValueError(f"lacks {lacking[0]} in one of its mappings")
    if not item.get("comment") and not item.get("answered"):
        raise ValueError("needs comment or answered in each of its mappings: by what is the failure known?")
    read: dict[str, Any] = {}
    for key, inner in item.items():
        try:
            read[key] = _FAILURE[key](inner)
        except ValueError as error:
            raise ValueError(f"has a mapping whose {key} {error}") from None
    return ExpectedFailure(**read)


def _sentence(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("takes text that is not empty")
    return value.strip()


def _values(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("takes a mapping of DICOM keywords to values")
    return MappingProxyType({key: str(inner) for key, inner in value.items()})


_FAILURE: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "name": _sentence,
        "reason": _sentence,
        "sop_class_uids": _words,
        "statuses": _numbers,
        "comment": _sentence,
        "answered": _values,
    }
)


_BY_TYPE: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "bool": _switch,
        "int": _count,
        "float": _seconds,
        "frozenset[str]": _words,
        "frozenset[int]": _numbers,
        "Mapping[str, str]": _patterns,
        "tuple[ExpectedFailure, ...]": _failures,
    }
)
_READERS: Final = {item.name: _BY_TYPE[str(item.type)] for item in fields(Profile) if item.name != "name"}
