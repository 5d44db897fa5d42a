"""Waiting for a peer to answer, for a query to have answers, and for objects to be received."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_varian.errors import ConfigurationError, DicomError
from airflow_provider_varian.sensors.base import DicomSensor
from airflow_provider_varian.triggers.asking import (
    EchoQuestion,
    FindQuestion,
    PeerAsker,
    ReceivedQuestion,
    ReceiverAsker,
)
from airflow_provider_varian.triggers.criteria import EchoCriterion, FindCriterion, ReceivedCriterion
from airflow_provider_varian.triggers.dicom import DicomEchoTrigger, DicomFindTrigger, DicomReceivedTrigger
from airflow_provider_varian.triggers.keys_text import text_of

if TYPE_CHECKING:
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.triggers.asking import EchoAnswer, FindAnswer, PeerQuestion, ReceivedAnswer


class _PeerSensor(DicomSensor):
    """Asks a peer."""

    @cached_property
    def _asker(self) -> PeerAsker:
        return PeerAsker(self.hook.peer)

    def _ask(self, question: PeerQuestion) -> Any:
        (outcome,) = self._asker([question], self.cancellation)
        if isinstance(outcome, DicomError):
            raise outcome
        return outcome


class DicomEchoSensor(_PeerSensor):
    """Wait until a peer answers, e.g. after its nightly restart.

    Returns ``{"seconds"}``, which the C-ECHO (PS3.7 9.1.5) took.

    :param query: also an empty C-FIND has to be answered: a daemon answers C-ECHO while its database is down.
    :param dicom_conn_id: the connection (templated).
    """

    def __init__(self, *, query: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.query = query

    def check(self) -> None:
        """See that there is such a connection."""
        _ = self.hook.peer

    def look(self) -> EchoAnswer:
        """Ask once."""
        answer: EchoAnswer = self._ask(EchoQuestion(self.query))
        return answer

    def new_criterion(self) -> EchoCriterion:
        """Any answer is enough."""
        return EchoCriterion()

    def trigger(self) -> DicomEchoTrigger:
        """Return what waits in the triggerer."""
        return DicomEchoTrigger(
            dicom_conn_id=self.dicom_conn_id,
            poke_interval=self.poke_interval,
            max_transient_failures=self.max_transient_failures,
            query=self.query,
        )


class DicomFindSensor(_PeerSensor):
    """Wait until a query (C-FIND, PS3.4 C.4.1) has so many answers, and the same ones for a while.

    Returns ``{"count", "whole"}``: how many answers, and whether these are all. Without a wish for equal answers no
    more are asked for than are waited for.

    :param level: ``PATIENT``, ``STUDY``, ``SERIES`` or ``IMAGE`` (templated).
    :param keys: DICOM keywords to values, as of :class:`airflow_provider_varian.operators.dicom.DicomFindOperator`
        (templated). Deferred, they are kept encrypted with ``[core] fernet_key``.
    :param at_least: how many answers.
    :param stable_polls: how many polls in a row have to bring the same answers, value by value.
    :param stable_seconds: since when they have to be the same, at least.
    :param undecided: what to do with answers that lack a value that was matched on: ``error`` or ``keep``; those that
        are kept do not count.
    :param dicom_conn_id: the connection (templated).
    """

    template_fields: Sequence[str] = ("dicom_conn_id", "level", "keys")
    template_fields_renderers = {"keys": "json"}  # noqa: RUF012 - as BaseOperator declares it

    def __init__(
        self,
        *,
        level: str,
        keys: Mapping[str, Any],
        at_least: int = 1,
        stable_polls: int = 1,
        stable_seconds: float = 0.0,
        undecided: Literal["error", "keep"] = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.level = level
        self.keys = keys
        self.at_least = at_least
        self.stable_polls = stable_polls
        self.stable_seconds = stable_seconds
        self.undecided = undecided

    def check(self) -> None:
        """See that the query is one, before anybody is asked."""
        from airflow_provider_varian.query.query import Query

        if self.undecided not in ("error", "keep"):
            raise ConfigurationError(f"undecided is {self.undecided!r}", hint="Choose error or keep")
        self.new_criterion()
        Query.build(self.level, self.keys, timezone=self.hook.peer.timezone)

    def look(self) -> FindAnswer:
        """Ask once."""
        answer: FindAnswer = self._ask(self._question)
        return answer

    def new_criterion(self) -> FindCriterion:
        """Return what counts the answers and compares them with those of before."""
        return FindCriterion(self.at_least, self.stable_polls, self.stable_seconds, clock=self._clock)

    def trigger(self) -> DicomFindTrigger:
        """Return what waits in the triggerer."""
        return DicomFindTrigger(
            dicom_conn_id=self.dicom_conn_id,
            poke_interval=self.poke_interval,
            max_transient_failures=self.max_transient_failures,
            level=self.level,
            keys=self.keys,
            at_least=self.at_least,
            stable_polls=self.stable_polls,
            stable_seconds=self.stable_seconds,
            undecided=self.undecided,
        )

    @cached_property
    def _question(self) -> FindQuestion:
        self.check()
        from airflow_provider_varian.hooks import audit

        return FindQuestion(
            self.level,
            text_of(self.keys),
            undecided=self.undecided,
            at_least=self.at_least,
            needs_all=self.new_criterion().needs_all,
            tell=audit.asking(self.hook.peer),
        )


class DicomReceivedSensor(DicomSensor):
    """Wait until a standing receiver holds objects that nobody has claimed; none of them is claimed here.

    Returns ``{"count", "studies", "series"}``. Worker, or deferred the triggerer, has to see the receiver's spool on
    its host, or the store to which it publishes.

    :param keys: what an object has to be, from its receipt and the head of its data set: ``StudyInstanceUID``,
        ``SeriesInstanceUID``, ``SOPInstanceUID``, ``SOPClassUID``, ``Modality``, each a value or a list of which one
        has to fit (templated). Empty: any object.
    :param receiver: the receiver, a name of ``[varian] receivers``: whatever was sent to it (templated). Empty: the
        one that the connection names, and what was sent to the connection's AE title.
    :param at_least: how many objects; one that was sent twice is one.
    :param quiet_seconds: for how long no further one may have come.
    :param dicom_conn_id: the connection (templated).
    """

    template_fields: Sequence[str] = ("dicom_conn_id", "keys", "receiver")
    template_fields_renderers = {"keys": "json"}  # noqa: RUF012 - as BaseOperator declares it

    def __init__(
        self,
        *,
        keys: Mapping[str, Any] | None = None,
        receiver: str = "",
        at_least: int = 1,
        quiet_seconds: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.keys = keys
        self.receiver = receiver
        self.at_least = at_least
        self.quiet_seconds = quiet_seconds

    def check(self) -> None:
        """See that what is waited for can be told apart, and where."""
        from airflow_provider_varian.retrieval.unclaimed import wanted_of

        self.new_criterion()
        wanted_of(self.keys or {})
        self._asker.receiver()

    def look(self) -> ReceivedAnswer:
        """Look once."""
        (outcome,) = self._asker([self._question], self.cancellation)
        if isinstance(outcome, DicomError):
            raise outcome
        return outcome

    def new_criterion(self) -> ReceivedCriterion:
        """Return what counts objects, and looks at when the last one came."""
        return ReceivedCriterion(self.at_least, self.quiet_seconds)

    def trigger(self) -> DicomReceivedTrigger:
        """Return what waits in the triggerer."""
        return DicomReceivedTrigger(
            dicom_conn_id=self.dicom_conn_id,
            poke_interval=self.poke_interval,
            max_transient_failures=self.max_transient_failures,
            receiver=self.receiver,
            keys=text_of(self.keys or {}),
            at_least=self.at_least,
            quiet_seconds=self.quiet_seconds,
        )

    @cached_property
    def _peer(self) -> Peer | None:
        return None if self.receiver else self.hook.peer

    @cached_property
    def _asker(self) -> ReceiverAsker:
        return ReceiverAsker(self.receiver or (self._peer and self._peer.receiver) or "")

    @cached_property
    def _question(self) -> ReceivedQuestion:
        return ReceivedQuestion(text_of(self.keys or {}), self._peer.move_destination if self._peer else None)
