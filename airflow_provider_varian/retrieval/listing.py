"""Which instances should come: an IMAGE level C-FIND, asked until its answer stands still.

Counts wobble while data is being written (varian-daemon 1.4), so the list is taken when the peer has
given the same one several times in a row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.find import FindResult, FindSession, OnQuery
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.request import Expected, RetrievalRequest, texts, with_uids
from airflow_provider_varian.retrieval.revision import REVISION_KEYWORDS

logger = logging.getLogger(__name__)

#: Rounds after which a list that never stands still is taken as it is, with a warning.
MAX_ROUNDS: Final = 20
#: Warning of such a list.
UNSTABLE: Final = "the peer's list of instances did not stand still; data is still being written to it"
_NO_TEXT: Final = frozenset({"SQ", "OB", "OW", "OD", "OF", "OL", "OV", "UN"})

Listed = tuple[tuple[Expected, ...], bool, list[str]]


def list_expected(
    peer: Peer,
    request: RetrievalRequest,
    *,
    layout: Layout,
    profile: Profile,
    cancellation: Cancellation | None = None,
    on_query: OnQuery | None = None,
) -> Listed:
    """Ask the peer what it holds of a request.

    :param peer: whom to ask.
    :param request: level and unique keys.
    :param layout: its keywords are asked for too, to tell paths before objects are here.
    :param profile: how many equal answers make a list stable, and how far apart.
    :param cancellation: stops it from outside.
    :param on_query: is told of each query.
    :return: the instances, whether the request's limit was hit, and warnings.
    """
    return list_instances(
        peer,
        [request.keys],
        layout=layout,
        profile=profile,
        limit=request.limit,
        cancellation=cancellation,
        on_query=on_query,
    )


def list_instances(
    peer: Peer,
    named: Sequence[Mapping[str, str | Sequence[str]]],
    *,
    layout: Layout,
    profile: Profile,
    limit: int | None = None,
    cancellation: Cancellation | None = None,
    on_wait: Callable[[float], None] | None = None,
    on_query: OnQuery | None = None,
) -> Listed:
    """Ask the peer for the instances below some entities.

    :param peer: whom to ask.
    :param named: unique keys, asked for one after the other: a query names one entity of each level above its own
        where the hierarchy is walked (PS3.4 C.4.1.2.1).
    :param layout: its keywords are asked for too, to tell paths before objects are here.
    :param profile: how many equal answers make a list stable, and how far apart.
    :param limit: list so many at most.
    :param cancellation: stops it from outside.
    :param on_wait: called with the seconds that were waited before the peer could be called.
    :param on_query: is told of each query.
    :return: the instances, whether the limit was hit, and warnings.
    """
    cancellation = cancellation or Cancellation()
    queries = [_query(keys, layout) for keys in named]

    def ask() -> FindResult:
        with FindSession(
            peer, profile=profile, cancellation=cancellation, on_wait=on_wait, on_query=on_query
        ) as session:
            return _joined(session, queries, limit)

    result = list_until_stable(ask, profile=profile, cancellation=cancellation)
    listed = with_uids(expected_of(result), result.warnings)
    expected = {item.sop_instance_uid: item for item in listed.instances}
    return tuple(expected.values()), result.limited, list(listed.warnings)


def expected_of(found: FindResult) -> tuple[Expected, ...]:
    """Return the instances that an IMAGE level C-FIND lists."""
    return tuple(Expected.from_answer(answer, found_by_pattern=found.found_by_pattern) for answer in found.answers)


def list_until_stable(
    ask: Callable[[], FindResult], *, profile: Profile, cancellation: Cancellation | None = None
) -> FindResult:
    """Ask for a list of instances until the same ones are named several times in a row (semantics 11).

    A list that never stands still is returned after :data:`MAX_ROUNDS` rounds, with a warning.

    :param ask: puts the question; compared are the sets of SOPInstanceUIDs that it answers.
    :param profile: ``stable_counts`` equal answers, ``stable_interval_seconds`` apart.
    :param cancellation: stops it from outside.
    :return: the last answer.
    :raises CancelledError: cancelled between two rounds.
    """
    cancellation = cancellation or Cancellation()
    result = ask()
    equal, rounds = 1, 1
    while equal < profile.stable_counts and rounds < MAX_ROUNDS:
        cancellation.pause(profile.stable_interval_seconds)
        following = ask()
        equal = equal + 1 if _uids(following) == _uids(result) else 1
        result, rounds = following, rounds + 1
    if equal >= profile.stable_counts:
        return result
    return replace(result, warnings=[*result.warnings, UNSTABLE])


def answered_keywords(layout: Layout) -> tuple[str, ...]:
    """Return what is asked for of each instance beside its unique keys: its class, its path, its revision."""
    return ("SOPClassUID", "Modality", *layout.keywords, *REVISION_KEYWORDS)


def check_keywords(layout: Layout) -> None:
    """Refuse a layout that names what is no attribute, or none that can stand in a path.

    :raises ConfigurationError: names the keyword, and the nearest known one.
    """
    for keyword in layout.keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            near = get_close_matches(keyword, keyword_dict, n=1)
            raise ConfigurationError(
                f"layout {layout.template!r} names {keyword!r}, which is no DICOM keyword",
                step="layout",
                hint=f"Did you mean {near[0]}?" if near else "Keywords are listed in PS3.6, e.g. Modality",
            )
        if not _NO_TEXT.isdisjoint(str(dictionary_VR(tag)).split(" or ")):
            raise ConfigurationError(
                f"layout {layout.template!r} names {keyword!r}, whose values cannot stand in a path",
                step="layout",
                hint="Name attributes that hold a short text, a date, a number or a UID",
            )


def _joined(session: FindSession, queries: Sequence[Query], limit: int | None) -> FindResult:
    """Ask several queries and return one answer to all of them."""
    joined = session.find(queries[0], limit=limit)
    for query in queries[1:]:
        if joined.limited:
            break
        left = None if limit is None else limit - len(joined.answers)
        # With nothing left to list one more is asked for: it tells whether the limit cut anything off.
        result = session.find(query, limit=left if left is None else max(left, 1))
        joined = replace(
            joined,
            answers=[*joined.answers, *result.answers[:left]],
            warnings=[*joined.warnings, *result.warnings],
            limited=result.limited or (left == 0 and bool(result.answers)),
            found_by_pattern=joined.found_by_pattern or result.found_by_pattern,
        )
    return joined


def _query(named: Mapping[str, str | Sequence[str]], layout: Layout) -> Query:
    keys: dict[str, str | list[str]] = dict.fromkeys(answered_keywords(layout), "")
    for keyword, value in named.items():
        values = texts(value)
        keys[keyword] = list(values) if len(values) > 1 else values[0]
    return Query.build(Level.IMAGE, keys)


def _uids(result: FindResult) -> frozenset[str]:
    return frozenset(str(row.get("SOPInstanceUID")) for row in result.answers)
