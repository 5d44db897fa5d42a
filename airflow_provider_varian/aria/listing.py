"""Lists of a whole clinic, or of patients: asked in parts where they are too broad, and until they stand still.

Data reaches ARIA slowly, and counts wobble while it is being written (varian-daemon 1.4): the list is taken when the
peer has named the same objects several times in a row (semantics 11).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import PeerFailureError
from airflow_provider_varian.query.find import FindResult, FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.query.splitting import Split, find_whole
from airflow_provider_varian.retrieval.listing import list_until_stable
from airflow_provider_varian.retrieval.patience import patient_profile

log = logging.getLogger(__name__)

#: Objects asked for by their UID in vain, one after the other, before the others are not asked for: a peer that does
#: not answer a key does not answer it for any of them.
_IN_VAIN: Final = 5

Answer = Mapping[str, Any]


def stable_listing(
    session: FindSession,
    queries: Sequence[Query],
    *,
    by: Sequence[Split] = (),
    stable_counts: int | None = None,
    stable_interval_seconds: float | None = None,
    cancellation: Cancellation | None = None,
) -> FindResult:
    """Return what a peer lists to queries at IMAGE level; the caller judges it.

    Answers that a query's keys leave open are among ``answers``: the list must stand still as a whole.

    :param session: an open session.
    :param queries: what to ask for, one after the other; one at least.
    :param by: ways to split it where the peer finds it too broad.
    :param stable_counts: equal lists in a row that make a list stable; None: as the session's profile says.
    :param stable_interval_seconds: seconds between two of them; None: as the session's profile says.
    :param cancellation: stops the waiting between two rounds.
    :raises ConfigurationError: a number out of range.
    :raises DicomError: what :func:`~airflow_provider_varian.query.splitting.find_whole` raises.
    """
    profile = patient_profile(
        session.profile, stable_counts=stable_counts, stable_interval_seconds=stable_interval_seconds
    )

    def ask() -> FindResult:
        found = []
        for query in queries:
            if cancellation is not None:
                cancellation.raise_if_cancelled()
            found.append(find_whole(session, query, by=by, undecided="keep"))
        return replace(
            found[0],
            answers=[answer for result in found for answer in (*result.answers, *result.undecided)],
            undecided=[],
            warnings=list(dict.fromkeys(warning for result in found for warning in result.warnings)),
        )

    return list_until_stable(ask, profile=profile, cancellation=cancellation)


def ask_by_uid(
    session: FindSession,
    answers: dict[str, dict[str, Any]],
    open_uids: Iterable[str],
    keys: Mapping[str, Any],
    *,
    completed: Callable[[Answer, Answer], dict[str, Any]],
    cancellation: Cancellation | None = None,
) -> None:
    """Ask for single objects by their UID, which peers answer more to than to a list (varian-daemon 3).

    :param session: an open session.
    :param answers: by SOP Instance UID; what is learnt is put in their place.
    :param open_uids: those of which something is not known.
    :param keys: what is asked for, without values.
    :param completed: makes one answer of an earlier and a further one.
    :param cancellation: stops it between two objects.
    """
    in_vain = 0
    for uid in open_uids:
        if in_vain >= _IN_VAIN:
            log.info("%s answers no more of an object when it is asked for by its UID", session.peer.name)
            return
        if not uids.is_uid(uid):
            continue
        if cancellation is not None:
            cancellation.raise_if_cancelled()
        before = answers[uid]
        named = {name: before[name] for name in ("StudyInstanceUID", "SeriesInstanceUID") if before.get(name)}
        query = Query.build(Level.IMAGE, {**keys, **named, "SOPInstanceUID": uid})
        for answer in session.find(query, undecided="keep").answers:
            answers[uid] = completed(answers[uid], answer)
        in_vain = in_vain + 1 if answers[uid] == before else 0


def by_uid(answers: Iterable[dict[str, Any]], *, what: str, step: str) -> dict[str, dict[str, Any]]:
    """Return answers by SOP Instance UID.

    :param what: they are, for the message.
    :param step: likewise.
    :raises PeerFailureError: when one has no UID: it names nothing, and dropping it would be a loss.
    """
    found: dict[str, dict[str, Any]] = {}
    for answer in answers:
        uid = text(answer, "SOPInstanceUID")
        if not uid:
            raise PeerFailureError(f"{what} was listed without its SOP Instance UID", step=step)
        found[uid] = answer
    return found


def filled(answer: Answer, further: Answer) -> dict[str, Any]:
    """Return an answer with what it leaves empty taken from a further one."""
    return {**answer, **{name: value for name, value in further.items() if value and not answer.get(name)}}


def text(answer: Answer, keyword: str) -> str:
    """Return a single value as text; empty when there is none."""
    value = answer.get(keyword)
    return "" if value is None or isinstance(value, (list, Mapping)) else str(value).strip()
