"""From a level and any keys to a retrieval request: what unique keys cannot say is selected by C-FIND first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import QueryError, UndecidedMatchError
from airflow_provider_varian.query.find import FindResult, OnQuery, find
from airflow_provider_varian.query.level import UNIQUE_KEYS, Level, deepest_level
from airflow_provider_varian.query.model import model_for
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.listing import (
    Listed,
    answered_keywords,
    check_keywords,
    expected_of,
    list_instances,
    list_until_stable,
)
from airflow_provider_varian.retrieval.request import Relisted, RetrievalRequest, texts, with_uids


def select(
    peer: Peer,
    level: Level | str | None,
    keys: Mapping[str, Any],
    *,
    profile: Profile,
    layout: Layout | None = None,
    minimum: int | None = None,
    limit: int | None = None,
    cancellation: Cancellation | None = None,
    on_query: OnQuery | None = None,
) -> RetrievalRequest:
    """Return the request that retrieves what a level and keys describe.

    When nothing fits, its ``expected`` is empty: retrieving it asks for nothing, and writes that down.

    C-MOVE and C-GET take unique keys alone (PS3.4 C.4.2.1.4.1). With other keys the peer is asked first, at the
    same level, and what it lists is retrieved.

    :param peer: whom to ask.
    :param level: the query/retrieve level; None: that of the deepest unique key, else IMAGE.
    :param keys: DICOM keywords to values, all with values; see :meth:`Query.build`.
    :param profile: the peer's habits.
    :param layout: its keywords are asked for too.
    :param minimum: how many instances must exist at least.
    :param limit: take so many instances at most.
    :param cancellation: stops it from outside.
    :param on_query: is told of each query, also when the question is put again.
    :raises QueryError: when nothing, or a whole patient unasked, is named.
    """
    layout = layout or Layout()
    check_keywords(layout)
    at = _level(level, keys)
    if _only_unique(at, keys):
        return RetrievalRequest(level=at, keys=dict(keys), minimum=minimum, limit=limit)
    asked = dict(keys)
    if model_for(at, peer.information_model).top is Level.PATIENT:
        # Patient Root needs it at each level.
        asked = {"PatientID": "", **keys}
    if at is Level.IMAGE:
        asked = {**dict.fromkeys(answered_keywords(layout)), **asked}
    query = Query.build(at, asked, timezone=peer.timezone)
    question = _Question(peer, query, profile, layout, limit, cancellation, on_query)
    # One more than the limit tells the re-check whether it was hit.
    wider = question if limit is None else replace(question, limit=limit + 1)
    return replace(question.request(), minimum=minimum, limit=limit, relist=wider.again)


@dataclass(frozen=True, slots=True)
class _Question:
    """A selection by C-FIND, put again as often as somebody wants to know."""

    peer: Peer
    query: Query
    profile: Profile
    layout: Layout
    limit: int | None
    cancellation: Cancellation | None
    on_query: OnQuery | None

    def request(self) -> RetrievalRequest:
        """Ask, and return what retrieves the answer."""
        at = self.query.level
        found = self._find()
        warnings = tuple(found.warnings)
        if at is Level.IMAGE or not found.answers:
            listed = with_uids(expected_of(found), warnings)
            return RetrievalRequest(
                level=at, expected=tuple(listed.instances), limited=found.limited, warnings=tuple(listed.warnings)
            )
        groups = self._groups(found)
        if len(groups) == 1:
            return RetrievalRequest(level=at, keys=groups[0], warnings=warnings)
        # One identifier names one entity of each upper level, so each instance is listed under its own.
        expected, limited, more = self._list(groups)
        return RetrievalRequest(
            level=at,
            keys={at.unique_key: [uid for group in groups for uid in texts(group[at.unique_key])]},
            expected=expected,
            limited=limited,
            warnings=(*warnings, *more),
        )

    def again(self) -> Relisted:
        """Ask again, and return the instances that are selected now."""
        found = self._find()
        if self.query.level is Level.IMAGE or not found.answers:
            return with_uids(expected_of(found), found.warnings)
        expected, _, warnings = self._list(self._groups(found))
        return Relisted(expected, (*found.warnings, *warnings))

    def _find(self) -> FindResult:
        # Only a list of instances says what should come; series and studies are listed by instance later.
        if self.query.level is Level.IMAGE:
            return list_until_stable(self._ask, profile=self.profile, cancellation=self.cancellation)
        return self._ask()

    def _ask(self) -> FindResult:
        limit = self.limit if self.query.level is Level.IMAGE else None
        return find(
            self.peer,
            self.query,
            profile=self.profile,
            limit=limit,
            cancellation=self.cancellation,
            on_query=self.on_query,
        )

    def _groups(self, found: FindResult) -> list[dict[str, str | list[str]]]:
        _check_named(self.peer, self.query.level, found)
        return _by_upper(self.query.level, found)

    def _list(self, groups: list[dict[str, str | list[str]]]) -> Listed:
        return list_instances(
            self.peer,
            groups,
            layout=self.layout,
            profile=self.profile,
            limit=self.limit,
            cancellation=self.cancellation,
            on_query=self.on_query,
        )


def _level(level: Level | str | None, keys: Mapping[str, Any]) -> Level:
    if not keys:
        raise QueryError("nothing says what to retrieve", hint="Give at least one key, e.g. SeriesInstanceUID")
    empty = sorted(keyword for keyword, value in keys.items() if _says_nothing(value))
    if empty:
        raise QueryError(f"{', '.join(empty)} without a value selects nothing", hint="Give a value, or leave it out")
    if level is not None:
        return Level.parse(level)
    deepest = deepest_level(keys)
    if deepest is Level.PATIENT and len(keys) == 1:
        raise QueryError(
            "PatientID alone means every object of the patient",
            hint="Set level to PATIENT if that is meant, or narrow it, e.g. by StudyInstanceUID",
        )
    return Level.IMAGE if deepest is None or deepest is Level.PATIENT else deepest


def _says_nothing(value: Any) -> bool:
    """Say whether a key would match everything: no value, also not inside a sequence."""
    if isinstance(value, Mapping):
        return all(_says_nothing(inner) for inner in value.values())
    return value is None or value in ("", [], ())


def _only_unique(level: Level, keys: Mapping[str, Any]) -> bool:
    allowed = {UNIQUE_KEYS[upper] for upper in Level.PATIENT.through(level)}
    wild = any(mark in str(value) for value in keys.values() for mark in "*?")
    return level.unique_key in keys and set(keys) <= allowed and not wild


def _check_named(peer: Peer, level: Level, found: FindResult) -> None:
    """Refuse a selection with an answer that does not say what it is about (semantics 12)."""
    lacking = sum(not answer.get(level.unique_key) for answer in found.answers)
    if lacking:
        raise UndecidedMatchError(
            f"{lacking} of {len(found.answers)} answers at {level} level lack {level.unique_key}, so what they are "
            "about cannot be retrieved",
            peer=peer.name,
            step="C-FIND",
            hint="Select at IMAGE level, where each instance is named by itself",
        )


def _by_upper(level: Level, found: FindResult) -> list[dict[str, str | list[str]]]:
    """Return the unique keys of what was found, one mapping for each entity of the levels above."""
    upper_keys = [upper.unique_key for upper in found.model.top.through(level) if upper is not level]
    own: dict[tuple[str, ...], dict[str, None]] = {}
    for answer in found.answers:
        upper = tuple(str(answer.get(keyword) or "") for keyword in upper_keys)
        own.setdefault(upper, {})[str(answer[level.unique_key])] = None
    groups: list[dict[str, str | list[str]]] = []
    for upper, names in own.items():
        group: dict[str, str | list[str]] = dict(pair for pair in zip(upper_keys, upper, strict=True) if pair[1])
        group[level.unique_key] = list(names) if len(names) > 1 else next(iter(names))
        groups.append(group)
    return groups
