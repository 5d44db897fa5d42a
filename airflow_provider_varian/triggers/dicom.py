"""The triggers behind the deferrable sensors: each waits for one thing, and all of one peer share its poll rounds.

A trigger keeps what it has seen in memory alone. After a restart of the triggerer it begins anew: a count of equal
answers, and the errors that it has borne, are counted from zero.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.triggers import sealing
from airflow_provider_varian.triggers.asking import (
    EchoQuestion,
    FindQuestion,
    PeerAsker,
    ReceivedQuestion,
    ReceiverAsker,
)
from airflow_provider_varian.triggers.criteria import Borne, Criterion, EchoCriterion, FindCriterion, ReceivedCriterion
from airflow_provider_varian.triggers.keys_text import text_of
from airflow_provider_varian.triggers.peers import peer_of
from airflow_provider_varian.triggers.rounds import FIRST_SECONDS, Several, Waiter, next_due, registry

if TYPE_CHECKING:
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.query.query import Query

#: How many transient errors in a row a wait outlives.
MAX_TRANSIENT_FAILURES = 10


class DicomTrigger(BaseTrigger):
    """Base of the triggers: asks with others in poll rounds until a criterion is met.

    Fires one event: ``{"status": "success", "message": ..., "facts": {...}}``, or ``{"status": "error", "message": ...,
    "transient": ...}``. It holds counts and names nobody.

    :param dicom_conn_id: the connection.
    :param poke_interval: seconds between two polls.
    :param max_transient_failures: so many transient errors in a row count as "not yet".
    """

    def __init__(
        self,
        *,
        dicom_conn_id: str,
        poke_interval: float = 60.0,
        max_transient_failures: int = MAX_TRANSIENT_FAILURES,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dicom_conn_id = dicom_conn_id
        self.poke_interval = poke_interval
        self.max_transient_failures = max_transient_failures
        self._waiter: Waiter | Several | None = None

    def arguments(self) -> dict[str, Any]:
        """Return what a copy of the trigger is made from: plain JSON that names nobody."""
        return {
            "dicom_conn_id": self.dicom_conn_id,
            "poke_interval": self.poke_interval,
            "max_transient_failures": self.max_transient_failures,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return import path and arguments; Airflow keeps them in its database."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments()

    @abstractmethod
    def criterion(self) -> Criterion:
        """Return what judges the answers."""

    @abstractmethod
    async def join(self, due: float) -> Waiter | Several:
        """Join the next round that begins at a time or after it.

        :raises DicomError: when it is wrong what is to be asked, or of whom.
        """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask until the criterion is met, or an error is not to be borne."""
        borne = Borne(self.max_transient_failures)
        said, due = "", next_due(min(self.poke_interval, FIRST_SECONDS))
        try:
            criterion = self.criterion()
        except DicomError as error:
            yield failed(error)
            return
        while True:
            try:
                self._waiter = await self.join(due)
                facts = criterion.met(await self._waiter.answer())
            except DicomError as error:
                if not borne.bears(error):
                    yield failed(error)
                    return
                said = self._say(logging.WARNING, f"not yet: {error}", said)
            else:
                borne.clear()
                if facts is not None:
                    yield event_of(status="success", message=criterion.seen, facts=facts)
                    return
                said = self._say(logging.INFO, f"not yet: {criterion.seen}", said)
            due = next_due(self.poke_interval)

    def _say(self, level: int, told: str, said: str) -> str:
        """Log what is new: a day has many polls."""
        if told != said:
            self.log.log(level, "%s", told)
        return told

    async def on_kill(self) -> None:
        """Leave the rounds: the task was marked or cleared. The peer is let go of with the last who waits for it."""
        self._leave()

    async def cleanup(self) -> None:
        """Leave the rounds, however the trigger ends. May be called twice."""
        self._leave()

    def _leave(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.leave()


class PeerTrigger(DicomTrigger):
    """Waits for a peer; base of those that ask one."""

    _peer: Peer | None = None

    async def peer(self) -> Peer:
        """Return the peer, as its connection was when the trigger began."""
        if self._peer is None:
            self._peer = await peer_of(self.dicom_conn_id)
        return self._peer


class DicomEchoTrigger(PeerTrigger):
    """Wait until a peer answers.

    :param query: also an empty C-FIND has to be answered: a daemon answers C-ECHO while its database is down.
    """

    def __init__(self, *, query: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.query = query

    def arguments(self) -> dict[str, Any]:
        """See :meth:`DicomTrigger.arguments`."""
        return {**super().arguments(), "query": self.query}

    def criterion(self) -> EchoCriterion:
        """See :meth:`DicomTrigger.criterion`."""
        return EchoCriterion()

    async def join(self, due: float) -> Waiter:
        """See :meth:`DicomTrigger.join`."""
        peer = await self.peer()
        return registry().join(peer, lambda: PeerAsker(peer), EchoQuestion(self.query), due)


class DicomFindTrigger(PeerTrigger):
    """Wait until a query has answers.

    :param level: ``PATIENT``, ``STUDY``, ``SERIES`` or ``IMAGE``.
    :param keys: DICOM keywords to values; or these encrypted, as the trigger itself serialises them.
    :param at_least: how many answers.
    :param stable_polls: how many polls in a row have to bring the same answers.
    :param stable_seconds: since when they have been the same, at least.
    :param undecided: what to do with answers that lack a value that was matched on: ``error`` or ``keep``; those that
        are kept do not count.
    """

    def __init__(
        self,
        *,
        level: str,
        keys: Mapping[str, Any] | str,
        at_least: int = 1,
        stable_polls: int = 1,
        stable_seconds: float = 0.0,
        undecided: Literal["error", "keep"] = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.level = level
        self.at_least = at_least
        self.stable_polls = stable_polls
        self.stable_seconds = stable_seconds
        self.undecided = undecided
        self._sealed = keys if isinstance(keys, str) else None
        self._text = None if isinstance(keys, str) else text_of(keys)
        self._question: FindQuestion | None = None
        self._is_told = False

    def arguments(self) -> dict[str, Any]:
        """See :meth:`DicomTrigger.arguments`; keys are encrypted.

        :raises DicomError: when they cannot be.
        """
        if self._sealed is None:
            self._sealed = sealing.seal(self._text or "{}")
        return {
            **super().arguments(),
            "level": self.level,
            "keys": self._sealed,
            "at_least": self.at_least,
            "stable_polls": self.stable_polls,
            "stable_seconds": self.stable_seconds,
            "undecided": self.undecided,
        }

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self.level} {self.dicom_conn_id}>"

    def criterion(self) -> FindCriterion:
        """See :meth:`DicomTrigger.criterion`."""
        return FindCriterion(self.at_least, self.stable_polls, self.stable_seconds)

    async def join(self, due: float) -> Waiter:
        """See :meth:`DicomTrigger.join`."""
        peer = await self.peer()
        if self._question is None:
            self._question = FindQuestion(
                self.level,
                sealing.unseal(self._sealed or "") if self._text is None else self._text,
                undecided=self.undecided,
                at_least=self.at_least,
                needs_all=self.criterion().needs_all,
                tell=self._tell,
            )
        return registry().join(peer, lambda: PeerAsker(peer), self._question, due)

    def _tell(self, peer: Peer, query: Query) -> None:
        """Tell the audit trail of the query, once, and for which task; called in the thread that asks."""
        if self._is_told:
            return
        from airflow_provider_varian.hooks import audit

        telling = audit.asking(peer, audit.requestor_of(self.task_instance))
        if telling is not None:
            telling(peer, query)
        self._is_told = True


class DicomReceivedTrigger(DicomTrigger):
    """Wait until a standing receiver holds objects that nobody has claimed.

    The triggerer has to see the receiver's spool on its host, or the store to which it publishes.

    :param receiver: its name in ``[varian] receivers``; empty: the one that the connection names, and only what was
        sent to the connection's AE title counts.
    :param keys: what objects have to be, as :func:`.keys_text.text_of` writes it.
    :param at_least: how many objects.
    :param quiet_seconds: for how long no further one may have come.
    """

    def __init__(
        self,
        *,
        receiver: str = "",
        keys: str = "{}",
        at_least: int = 1,
        quiet_seconds: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.receiver = receiver
        self.keys = keys
        self.at_least = at_least
        self.quiet_seconds = quiet_seconds

    def arguments(self) -> dict[str, Any]:
        """See :meth:`DicomTrigger.arguments`; keys are UIDs and modalities."""
        return {
            **super().arguments(),
            "receiver": self.receiver,
            "keys": self.keys,
            "at_least": self.at_least,
            "quiet_seconds": self.quiet_seconds,
        }

    def criterion(self) -> Criterion:
        """See :meth:`DicomTrigger.criterion`."""
        return ReceivedCriterion(self.at_least, self.quiet_seconds, clock=time.time)

    async def join(self, due: float) -> Waiter:
        """See :meth:`DicomTrigger.join`."""
        peer = None if self.receiver else await peer_of(self.dicom_conn_id)
        name = self.receiver or (peer.receiver if peer is not None else None) or ""
        question = ReceivedQuestion(self.keys, None if peer is None else peer.move_destination)
        return registry().join(("receiver", name), lambda: ReceiverAsker(name), question, due)


def failed(error: DicomError) -> TriggerEvent:
    """Return the event that tells an error."""
    return event_of(status="error", message=str(error), transient=error.transient)


def event_of(**payload: Any) -> TriggerEvent:
    """Return an event."""
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]
