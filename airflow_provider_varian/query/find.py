"""Finding: a peer's answers, judged against the query before anybody gets them.

A peer may ignore keys or answer some of them empty. Each answer is held against the query here
(semantics 12); what stays undecided is looked up at IMAGE level, and is otherwise an error or a list
of its own. How the peer is asked is the business of :mod:`.asking`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.answers import Answered
from airflow_provider_varian.dimse.association import Negotiated
from airflow_provider_varian.dimse.available import ask_for_nothing
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.echo import EchoResult, echo
from airflow_provider_varian.dimse.lasting import LastingAssociation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.turn import TASK, Patience
from airflow_provider_varian.errors import CancelledError, PermanentDicomError, QueryError, UndecidedMatchError
from airflow_provider_varian.query.answers import AnswerReader
from airflow_provider_varian.query.asking import STEP, Asker, ending, unique_value
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.model import AT_IMAGE_LEVEL, InformationModel, model_for
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.query.query import Key, Query, unique_key
from airflow_provider_varian.query.verdict import Verdict, any_of

__all__ = ["FindResult", "FindSession", "find", "iter_find"]

OnUndecided = Literal["error", "keep"]
#: Is told of each query that is about to be put to a peer, as it was asked for: before it is taken apart for the peer's
#: habits, and not of what decides an answer that is open.
OnQuery = Callable[[Peer, Query], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindResult:
    """What a query found.

    :param answers: the matches, as JSON-ready mappings by keyword.
    :param undecided: answers that lack what would decide; empty unless they were to be kept.
    :param model: the information model that was used.
    :param warnings: sentences for a person, without identifiers.
    :param limited: the caller's limit was hit: more matches exist.
    :param found_by_pattern: the exact Patient ID found nothing, its pattern in the profile did.
    """

    answers: list[dict[str, Any]] = field(repr=False)
    undecided: list[dict[str, Any]] = field(repr=False)
    model: InformationModel
    warnings: list[str]
    limited: bool = False
    found_by_pattern: bool = False


@dataclass(frozen=True, slots=True)
class _Doubtful:
    """An answer that lacks what would decide, and the keys that do not."""

    dataset: Answered = field(repr=False)
    doubts: tuple[str, ...]


class FindSession:
    """Queries over one association, one at a time; a context manager.

    When quiet hours of the peer begin, the next query, or the next request of a long one, waits until they are over:
    the association is released meanwhile.

    :param peer: whom to ask.
    :param profile: its habits, see :func:`airflow_provider_varian.aria.profile.profile_for`.
    :param cancellation: stops it from outside.
    :param on_wait: called with the seconds that were waited before an association was opened.
    :param on_query: is told of each query.
    :param patience: how long to wait until the peer may be called.
    :param verifies: also propose Verification, for :meth:`echo`.
    :param step: what the association is for, e.g. ``"C-FIND"``: its errors say it.
    :param log_level: at which each request is logged.

    Entering raises what :func:`~airflow_provider_varian.dimse.association.associate` raises.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        profile: Profile,
        cancellation: Cancellation | None = None,
        on_wait: Callable[[float], None] | None = None,
        on_query: OnQuery | None = None,
        patience: Patience = TASK,
        verifies: bool = False,
        step: str = STEP,
        log_level: int = logging.INFO,
    ) -> None:
        self.peer = peer
        self.profile = profile
        self._on_query = on_query
        proposed = [cx for model in InformationModel for cx in contexts.find(model.find_uid)]
        if verifies:
            proposed += contexts.verification()
        self._association = LastingAssociation(
            peer, proposed, step=step, cancellation=cancellation, on_wait=on_wait, patience=patience
        )
        self._log_level = log_level
        self._open: Asker | None = None

    def __enter__(self) -> Self:
        """Open the association."""
        self._open = Asker(self._association.__enter__(), self.profile, log_level=self._log_level)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the association; what is only wrong with a query or its answers does not abort it."""
        self._open = None
        if isinstance(error, PermanentDicomError) and not isinstance(error, CancelledError):
            self._association.__exit__(None, None, None)
        else:
            self._association.__exit__(kind, error, trace)

    @property
    def _asker(self) -> Asker:
        if self._open is None:
            raise QueryError("the session is not open", step=STEP, hint="Use FindSession in a with block")
        return self._open

    @property
    def negotiated(self) -> Negotiated:
        """What the peer said when it accepted the association."""
        return self._asker.association.current.negotiated

    def echo(self) -> EchoResult:
        """Send a C-ECHO over the same association; Verification has to be proposed.

        :raises DicomError: when the answer is not success, or does not come.
        """
        return echo(self._association.next())

    def ask_for_nothing(self) -> None:
        """Put a C-FIND that finds nobody: a peer whose database is down answers a C-ECHO all the same (semantics 4).

        :raises DicomError: when it is not answered.
        """
        model = model_for(Level.STUDY, self.peer.information_model)
        ask_for_nothing(self._association.next(), model.find_uid)

    def find(self, query: Query, *, limit: int | None = None, undecided: OnUndecided = "error") -> FindResult:
        """Ask and return all matches.

        :param query: what to ask for.
        :param limit: return so many matches at most; finding one more makes the result ``limited``.
            What is undecided then is listed, not looked up.
        :param undecided: ``error`` or ``keep`` answers that stay undecided after a look at IMAGE level.
        :raises UndecidedMatchError: names the keys that such answers lack.
        :raises CroppedAnswerError: the peer holds more than it lists, or the query is too broad.
        :raises QueryError: the peer's profile or the connection's information model rules it out.
        """
        _check_limit(limit)
        asker = self._asker
        reader = AnswerReader(asker.assumed)
        noted, asker.found_by_pattern = len(asker.warnings), False
        matches: list[dict[str, Any]] = []
        doubtful: list[_Doubtful] = []
        limited = False
        with ending(self._matches(query, doubtful)) as datasets:
            for dataset in datasets:
                limited = limit is not None and len(matches) == limit
                if limited:
                    break
                # Not kept as it came: a mapping takes less, and the peer is still sending.
                matches.append(reader.read(dataset))
        if doubtful and undecided == "error" and not limited:
            raise self._undecided(query, doubtful)
        return FindResult(
            answers=matches,
            undecided=[reader.read(row.dataset) for row in doubtful],
            model=asker.model_of(query),
            warnings=asker.warnings[noted:],
            limited=limited,
            found_by_pattern=asker.found_by_pattern,
        )

    def iter_find(self, query: Query) -> Iterator[dict[str, Any]]:
        """Ask and yield the matches while they come.

        What spoils the answer as a whole, a crop or undecided answers, is raised at the end: it is
        whole only when the iterator is exhausted. Closing it early cancels the request.

        :param query: what to ask for.
        :raises UndecidedMatchError: see :meth:`find`.
        :raises CroppedAnswerError: see :meth:`find`.
        """
        doubtful: list[_Doubtful] = []
        reader = AnswerReader(self._asker.assumed)
        with ending(self._matches(query, doubtful)) as datasets:
            for dataset in datasets:
                yield reader.read(dataset)
        if doubtful:
            raise self._undecided(query, doubtful)

    def _undecided(self, query: Query, rows: Sequence[_Doubtful]) -> UndecidedMatchError:
        names = ", ".join(dict.fromkeys(name for row in rows for name in row.doubts))
        return UndecidedMatchError(
            f"{len(rows)} of the answers at {query.level} level lack a readable value of {names}, "
            "so it is open whether they match",
            peer=self.peer.name,
            step=STEP,
            hint=f"Leave {names} out of the query, or keep undecided answers and look into the objects",
        )

    def _matches(self, query: Query, doubtful: list[_Doubtful]) -> Iterator[Answered]:
        """Yield matches as they come, then those that a look at IMAGE level decided; collect what stays open."""
        if self._on_query is not None:
            self._on_query(self.peer, query)
        matcher, assumed = query.matcher(), self._asker.assumed
        with ending(self._asker.ask(query)) as datasets:
            for dataset in datasets:
                verdict = matcher.match(dataset, assumed)
                if verdict is Verdict.MATCH:
                    yield dataset
                elif verdict is Verdict.UNDECIDED:
                    verdicts = matcher.verdicts(dataset, assumed)
                    doubts = tuple(name for name, one in verdicts.items() if one is Verdict.UNDECIDED)
                    doubtful.append(_Doubtful(dataset, doubts))
        if query.level is Level.IMAGE:
            return
        # Not before the end of the answer: an association carries one request at a time.
        still_open: list[_Doubtful] = []
        for row in doubtful:
            verdict = self._from_images(query, row)
            if verdict is Verdict.MATCH:
                yield row.dataset
            elif verdict is Verdict.UNDECIDED:
                still_open.append(row)
        doubtful[:] = still_open

    def _from_images(self, query: Query, row: _Doubtful) -> Verdict:
        """Decide by the images below an answer (semantics 12)."""
        named = self._identity(query, row.dataset)
        if not named:
            return Verdict.UNDECIDED
        open_keys = [_at_image_level(key) for key in query.matching_keys if key.keyword in row.doubts]
        below = query.at(Level.IMAGE, (*named, *open_keys))
        matcher = below.matcher()
        verdicts: list[Verdict] = []
        with ending(self._asker.ask(below)) as datasets:
            for dataset in datasets:
                verdicts.append(matcher.match(dataset, self._asker.assumed))
                if verdicts[-1] is Verdict.MATCH:
                    break
        return any_of(verdicts) if verdicts else Verdict.UNDECIDED

    def _identity(self, query: Query, dataset: Answered) -> list[Key]:
        """Return the unique keys that name an answer's entity; nothing when they do not suffice to ask below it."""
        levels = [level for level in Level.PATIENT.through(query.level) if unique_value(dataset, level)]
        needed = {query.level}
        if not self.profile.relational_queries:
            needed.add(self._asker.model_of(query).top)
        if not needed <= set(levels):
            return []
        return [unique_key(level, unique_value(dataset, level)) for level in levels]


def find(
    peer: Peer,
    query: Query,
    *,
    profile: Profile,
    limit: int | None = None,
    undecided: OnUndecided = "error",
    cancellation: Cancellation | None = None,
    on_query: OnQuery | None = None,
) -> FindResult:
    """Ask one query over an association of its own; see :class:`FindSession` for parameters and errors."""
    _check_limit(limit)
    with FindSession(peer, profile=profile, cancellation=cancellation, on_query=on_query) as session:
        return session.find(query, limit=limit, undecided=undecided)


def iter_find(
    peer: Peer,
    query: Query,
    *,
    profile: Profile,
    cancellation: Cancellation | None = None,
    on_query: OnQuery | None = None,
) -> Iterator[dict[str, Any]]:
    """Ask one query over an association of its own and yield matches; see :meth:`FindSession.iter_find`."""
    with FindSession(peer, profile=profile, cancellation=cancellation, on_query=on_query) as session:
        yield from session.iter_find(query)


def _check_limit(limit: int | None) -> None:
    if limit is not None and (isinstance(limit, bool) or limit < 1):
        raise QueryError("the limit is not a whole number from 1", step=STEP)


def _at_image_level(key: Key) -> Key:
    keyword = AT_IMAGE_LEVEL.get(key.keyword)
    return Key(keyword, key.vr, key.values, key.items, key.literal) if keyword else key
