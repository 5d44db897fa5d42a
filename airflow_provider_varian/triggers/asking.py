"""What those who wait want to know, and how it is asked for many at once.

Questions and answers are plain data, cheap to make in the triggerer's loop. What asks runs in a thread, and imports
there what asking needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from airflow_provider_varian.errors import ConfigurationError, DicomError
from airflow_provider_varian.hooks.settings import named_receiver
from airflow_provider_varian.triggers.keys_text import keys_of

if TYPE_CHECKING:
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.query.find import FindResult, FindSession, OnQuery
    from airflow_provider_varian.retrieval.receivers import NamedReceiver
    from airflow_provider_varian.retrieval.unclaimed import Place


@dataclass(frozen=True, slots=True)
class EchoQuestion:
    """Does the peer answer?

    :param query: also a query: a daemon answers C-ECHO while its database is down.
    """

    query: bool = False


@dataclass(frozen=True, slots=True)
class EchoAnswer:
    """It does.

    :param seconds: what the C-ECHO took.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class FindQuestion:
    """What does the peer find?

    :param level: query/retrieve level.
    :param keys: as :func:`.keys_text.text_of` writes them.
    :param undecided: ``error`` or ``keep``; what is undecided is not counted.
    :param at_least: so many answers are enough to know.
    :param needs_all: all answers are to be compared with those of other times.
    :param each_once: instances are counted, each once however often it is answered; all of them.
    :param tell: is told before the query is put, for the audit trail.
    """

    level: str
    keys: str = field(repr=False)
    undecided: Literal["error", "keep"] = "error"
    at_least: int = 1
    needs_all: bool = False
    each_once: bool = False
    tell: OnQuery | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FindAnswer:
    """What was found.

    :param count: how many answers.
    :param whole: whether there are no more.
    :param digest: of all answers, where it was needed: in this process alone.
    """

    count: int
    whole: bool
    digest: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ReceivedQuestion:
    """What has a standing receiver that nobody claimed?

    :param keys: as :func:`.keys_text.text_of` writes them.
    :param receiving_ae_title: only what was sent to it; ``None``: to whomever.
    """

    keys: str
    receiving_ae_title: str | None = None


@dataclass(frozen=True, slots=True)
class ReceivedAnswer:
    """What fits.

    :param count: how many objects.
    :param studies: of how many studies.
    :param series: of how many series.
    :param newest: when the last was written, in seconds since the epoch.
    :param is_arriving: another one is being received.
    :param is_running: whether a receiver takes objects there; ``None`` where that cannot be told.
    """

    count: int
    studies: int
    series: int
    newest: float
    is_arriving: bool
    is_running: bool | None = None


PeerQuestion: TypeAlias = EchoQuestion | FindQuestion
PeerAnswer: TypeAlias = EchoAnswer | FindAnswer


class PeerAsker:
    """Puts questions to a peer: all over one association, and what several ask only once.

    :param peer: the peer.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        #: Requests that ended the association when they were last put, the worst last.
        self._enders: list[Hashable] = []

    def __call__(self, questions: Sequence[PeerQuestion], cancellation: Cancellation) -> list[PeerAnswer | DicomError]:
        """Ask; return the answer to each question, or why there is none.

        :raises CancelledError: cancelled.
        """
        from airflow_provider_varian.aria.profile import profile_for
        from airflow_provider_varian.query.poll import poll

        together: dict[Hashable, list[int]] = {}
        for number, question in enumerate(questions):
            together.setdefault(_request_of(question), []).append(number)
        # Who ends the association for those after it is put last, so that it keeps nobody from being answered for ever.
        requests = sorted(together, key=lambda each: self._enders.index(each) if each in self._enders else -1)
        calls = [self._call([questions[number] for number in together[request]]) for request in requests]
        services = {"C-ECHO" if isinstance(question, EchoQuestion) else "C-FIND" for question in questions}
        done = poll(
            self._peer,
            calls,
            profile=profile_for(self._peer),
            verifies="C-ECHO" in services,
            step=" and ".join(sorted(services)),
            cancellation=cancellation,
        )
        self._note_ender(None if done.ended_by is None else requests[done.ended_by], requests)
        outcomes = dict(zip(requests, done.outcomes, strict=True))
        return [outcomes[_request_of(question)] for question in questions]

    def _note_ender(self, ender: Hashable | None, put: Sequence[Hashable]) -> None:
        self._enders = [each for each in self._enders if each in put and each != ender]
        if ender is not None:
            self._enders.append(ender)

    def _call(self, same: Sequence[PeerQuestion]) -> Callable[[FindSession], PeerAnswer]:
        def call(session: FindSession) -> PeerAnswer:
            first = same[0]
            if isinstance(first, EchoQuestion):
                echoed = session.echo()
                if first.query:
                    session.ask_for_nothing()
                return EchoAnswer(echoed.seconds)
            return self._find(session, first, [each for each in same if isinstance(each, FindQuestion)])

        return call

    def _find(self, session: FindSession, first: FindQuestion, same: Sequence[FindQuestion]) -> FindAnswer:
        from airflow_provider_varian.query.query import Query

        query = Query.build(first.level, keys_of(first.keys), timezone=self._peer.timezone)
        for question in same:
            if question.tell is not None:
                question.tell(self._peer, query)
        needs_all = any(question.needs_all for question in same)
        each_once = any(question.each_once for question in same)
        limit = None if needs_all or each_once else max(question.at_least for question in same)
        result = session.find(query, limit=limit, undecided=first.undecided)
        count = len({answer.get("SOPInstanceUID") for answer in result.answers} if each_once else result.answers)
        return FindAnswer(count, not result.limited, _digest(result) if needs_all else "")


def _request_of(question: PeerQuestion) -> Hashable:
    """Return what is the same for questions that one request answers."""
    if isinstance(question, EchoQuestion):
        return question
    return question.level, question.keys, question.undecided


def _digest(result: FindResult) -> str:
    """Return a digest of all that was answered, in whatever order."""
    rows = sorted(json.dumps(answer, sort_keys=True, default=str) for answer in result.answers)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


class ReceiverAsker:
    """Looks at what a standing receiver has: once for all questions.

    :param name: of ``[varian] receivers``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._place: Place | None = None

    def __call__(
        self, questions: Sequence[ReceivedQuestion], cancellation: Cancellation
    ) -> list[ReceivedAnswer | DicomError]:
        """Look; return the answer to each question, or why there is none."""
        from airflow_provider_varian.retrieval.unclaimed import place_of

        try:
            if self._place is None:
                self._place = place_of(self.receiver())
            look = self._place.look()
        except DicomError as error:
            return [error] * len(questions)
        answers = {question: self._answer(question, look) for question in set(questions)}
        return [answers[question] for question in questions]

    def receiver(self) -> NamedReceiver:
        """Return the receiver.

        :raises ConfigurationError: when there is none of that name.
        """
        if not self._name:
            raise ConfigurationError(
                "neither the connection nor the task names a standing receiver",
                step="receiver",
                hint="Set the connection's receiver, or the task's, to a name of [varian] receivers",
            )
        return named_receiver(self._name)

    def _answer(self, question: ReceivedQuestion, look: Any) -> ReceivedAnswer | DicomError:
        from airflow_provider_varian.retrieval.unclaimed import wanted_of

        try:
            wanted = wanted_of(keys_of(question.keys))
        except DicomError as error:
            return error
        fitting = look.fitting(wanted, question.receiving_ae_title)
        return ReceivedAnswer(
            count=len({each.sop_instance_uid for each in fitting}),  # one that was sent twice is one
            studies=len({each.study_instance_uid for each in fitting}),
            series=len({each.series_instance_uid for each in fitting}),
            newest=max((each.received for each in fitting), default=0.0),
            is_arriving=look.has_arriving(wanted, question.receiving_ae_title),
            is_running=look.is_running,
        )
