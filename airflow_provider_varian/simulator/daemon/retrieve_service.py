"""C-MOVE and C-GET as the daemon answers them (PS3.4 C.4.2 and C.4.3, varian-daemon 1.4)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse.slices import Slice
from airflow_provider_varian.dimse.status import is_warning
from airflow_provider_varian.simulator.daemon import character_sets, encoding, harm, wire
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour, Counters
from airflow_provider_varian.simulator.daemon.faults import Kind, Step
from airflow_provider_varian.simulator.daemon.find_service import (
    CANCELLED,
    CANNOT_UNDERSTAND,
    PENDING,
    SUCCESS,
    BadIdentifierError,
)
from airflow_provider_varian.simulator.daemon.selection import Selection, select
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.daemon.turn import CutShortError, OverError, Turn
from airflow_provider_varian.simulator.holdings.tree import Export as Exportable
from airflow_provider_varian.simulator.holdings.tree import Holdings, Node

log = logging.getLogger(__name__)

#: PS3.4 C.4.2.1.5
UNABLE_TO_PERFORM: Final = 0xA702
PARTLY: Final = 0xB000
#: varian-daemon 1.4, word for word.
MOVE_EXCEPTION: Final = "Unexpected exception during MOVE"

#: Opens the association on which a C-MOVE sends, ``None`` when the destination cannot be reached;
#: takes the trusted entry and the transfer syntaxes to propose, by SOP class UID.
Outgoing = Callable[[TrustedEntity, dict[str, set[str]]], AbstractContextManager[Association | None]]


@dataclass(slots=True, kw_only=True)
class Export:
    """How objects leave the daemon.

    :param behaviour: the habits in force.
    :param character_set: of the receiving client.
    :param now: tells the time of the export, clinic-local.
    """

    behaviour: Behaviour
    character_set: str
    now: Callable[[], datetime]

    def syntaxes(self, instance: Node) -> set[str]:
        """Return the transfer syntaxes in which an instance can be sent."""
        if UID(instance.transfer_syntax).is_compressed:
            return set() if self.behaviour.implicit_only else {instance.transfer_syntax}
        implicit, explicit = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
        return {implicit} if self.behaviour.implicit_only else {implicit, explicit}

    def data_set(self, instance: Node) -> Dataset:
        """Make the data set as it goes out: export time and character set are the client's."""
        data_set = instance.fetch()
        if self.behaviour.creation_at_export:
            data_set.InstanceCreationDate, data_set.InstanceCreationTime = encoding.creation(self.now())
        return character_sets.apply(data_set, self.character_set)

    def slices(self, instance: Node, transfer_syntax: UID) -> list[Slice]:
        """Return the bytes of :meth:`data_set`, from the instance's file where it is fit to go out as it is."""
        if instance.file is not None:
            moment = self.now() if self.behaviour.creation_at_export else None
            ready = encoding.from_file(instance.file, transfer_syntax, character_set=self.character_set, moment=moment)
            if ready is not None:
                return ready
        return encoding.from_data_set(self.data_set(instance), transfer_syntax)


@dataclass(slots=True, kw_only=True)
class _Run:
    """The sub-operations of one retrieve.

    :param instances: those that are to be sent, in their order.
    :param asked: number of instances that were asked for, which are not always those that are sent (quirk 11).
    :param originated: whether they are a C-MOVE's.
    """

    turn: Turn
    export: Export
    instances: list[Node]
    counts: wire.Counts
    asked: int
    originated: bool
    failed: list[str] = field(default_factory=list)

    def over(self, instances: list[Node], assoc: Association, first: int = 1) -> None:
        """Send instances one by one.

        :param first: number of the first of them among all.
        """
        with wire.sending(assoc):
            for number, instance in enumerate(instances, start=first):
                self.turn.reach(Step.BEFORE_SUBOPERATION, number)
                if self.turn.ended:
                    break
                self.settle(instance, self.send(instance, assoc, number))
                self.turn.reach(Step.AFTER_SUBOPERATION, number)
                if self.export.behaviour.pending_responses and self.counts.remaining:
                    self.turn.respond(PENDING, counts=self.told(), remaining=True)

    def finish(self, forced: int | None = None) -> int:
        """Send the final response (PS3.4 C.4.2.3.1) and return its status.

        :param forced: the status, whatever has happened.
        """
        try:
            self.turn.reach(Step.FINAL)
        except CutShortError as cut:
            forced = cut.status
        if forced is not None:
            # Nobody shall take for delivered what was not even tried (PS3.4 C.4.2.1.4.2).
            untried = self.instances[len(self.instances) - self.counts.remaining :]
            self.failed += [instance.uid for instance in untried]
            self.counts.failed += self.counts.remaining
            self.counts.remaining = 0
        cancelled = self.counts.remaining > 0
        status = CANCELLED if cancelled else self._status()
        if forced is not None:
            status = forced
        identifier = None
        if status != SUCCESS:
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = self.failed
        self.turn.respond(status, identifier=identifier, counts=self.told(), remaining=cancelled)
        return status

    def told(self) -> wire.Counts | None:
        """Return the counts as the daemon tells them (quirk 11)."""
        manner = self.export.behaviour.move_counters if self.originated else Counters.SENT
        if manner is Counters.ABSENT:
            return None
        if manner is Counters.ZERO:
            return wire.Counts(remaining=0)
        if manner is Counters.ASKED:
            missing = self.asked - self.counts.total
            return wire.Counts(
                remaining=self.counts.remaining,
                completed=max(0, self.counts.completed + missing),
                failed=self.counts.failed,
                warning=self.counts.warning,
            )
        return self.counts

    def _status(self) -> int:
        if not self.counts.failed and not self.counts.warning:
            return SUCCESS
        return PARTLY if self.counts.completed or self.counts.warning else UNABLE_TO_PERFORM

    def send(self, instance: Node, assoc: Association, number: int) -> int | None:
        """Send one instance; return the status of its C-STORE, ``None`` when it was not answered or not sent."""
        context = _storage_context(assoc, instance, self.export.syntaxes(instance))
        if instance.export is Exportable.FAILS or context is None or not assoc.is_established:
            return None
        request = self.turn.exchange.request
        message_id = ((request.MessageID or 0) + number - 1) % 65535 + 1
        originator = (self.turn.exchange.client, request.MessageID or 0) if self.originated else None
        if self.originated:
            self._spoil(assoc, number)
        self.turn.tally.add("sub-operations")
        try:
            slices = self.export.slices(instance, context.transfer_syntax[0])
            status = wire.store(assoc, context, instance, slices, message_id=message_id, originator=originator)
        except (ValueError, OSError) as error:
            log.warning("An instance of class %s could not be sent: %s", instance.sop_class_uid, type(error).__name__)
            return None
        if status is None and self.originated and assoc.is_established:
            # Nothing came within the time of a transaction (quirk 20).
            assoc.abort()
        return status

    def _spoil(self, assoc: Association, number: int) -> None:
        """Prepare the fault that strikes while an object is being sent."""
        fault = self.turn.due(Step.OBJECT, number)
        if harm.is_spoilt(assoc):
            harm.spoil(assoc, self.turn.stopping).unlimit()
        if fault is None:
            return
        try:
            spoilt = harm.spoil(assoc, self.turn.stopping)
        except ConnectionError:
            return
        if fault.kind is not Kind.SLOW:
            patience = self.export.behaviour.transaction_seconds
            spoilt.limit(fault.bytes, fault.kind, seconds=fault.seconds, patience=patience)
        elif fault.bytes_per_second:
            spoilt.slow(fault.bytes_per_second)
        else:
            self.turn.wait(fault.seconds)

    def settle(self, instance: Node, status: int | None) -> None:
        """Count how a sub-operation ended."""
        self.counts.remaining -= 1
        if status == SUCCESS:
            self.counts.completed += 1
        elif status is not None and is_warning(status):
            self.counts.warning += 1
        else:
            self.counts.failed += 1
            self.failed.append(instance.uid)


def retrieve(
    turn: Turn,
    holdings: Holdings,
    export: Export,
    *,
    destination: TrustedEntity | None,
    associate: Outgoing,
) -> None:
    """Answer a C-MOVE or a C-GET.

    :param destination: the trusted entry of a C-MOVE's destination; ``None`` when there is none.
    :param associate: opens the C-MOVE's association.
    """
    moving = isinstance(turn.exchange.request, C_MOVE)
    none = wire.Counts(remaining=0)
    try:
        turn.reach(Step.REQUEST)
        if moving and destination is None:
            raise BadIdentifierError(export.behaviour.unknown_destination_status, "Unknown move destination")
        selection = select(turn, holdings, moving=moving)
        if selection.too_many_plans:
            raise BadIdentifierError(CANNOT_UNDERSTAND, MOVE_EXCEPTION)
    except (BadIdentifierError, CutShortError) as bad:
        comment = bad.comment if isinstance(bad, BadIdentifierError) else ""
        _note(turn, "?", (), turn.conclude(bad.status, counts=none, comment=comment), none)
        return
    counts = wire.Counts(remaining=len(selection.sent))
    run = _Run(
        turn=turn,
        export=export,
        instances=selection.sent,
        counts=counts,
        asked=selection.asked,
        originated=moving,
    )
    try:
        status = _perform(run, selection, destination, associate)
    except CutShortError as cut:
        status = run.finish(cut.status)
    _note(turn, selection.level, selection.keywords, status, run.counts)


def _perform(run: _Run, selection: Selection, destination: TrustedEntity | None, associate: Outgoing) -> int:
    if not selection.asked:
        status = run.export.behaviour.not_found_status
        return run.turn.conclude(status, counts=run.told(), comment="" if status == SUCCESS else "Unable to find")
    if not selection.sent:
        return run.finish()
    if destination is not None and run.originated:
        return _move(run, selection.sent, destination, associate)
    run.over(selection.sent, run.turn.exchange.assoc)
    return run.finish()


def _move(run: _Run, instances: list[Node], destination: TrustedEntity, associate: Outgoing) -> int:
    wanted: dict[str, set[str]] = {}
    for instance in instances:
        wanted.setdefault(instance.sop_class_uid, set()).update(run.export.syntaxes(instance))
    fault = run.turn.due(Step.OUTGOING)
    if fault is not None:
        run.turn.wait(fault.seconds)
    if fault is None or fault.kind is not Kind.UNREACHABLE:
        with ExitStack() as stack:
            opened = associate(destination, {uid: found for uid, found in wanted.items() if found})
            assoc = stack.enter_context(opened)
            if assoc is not None:
                return _send_all(run, instances, assoc, stack)
    run.counts = wire.Counts(remaining=0, failed=len(instances))
    run.failed = [instance.uid for instance in instances]
    return run.finish(run.export.behaviour.unreachable_destination_status)


def _send_all(run: _Run, instances: list[Node], assoc: Association, stack: ExitStack) -> int:
    if any(fault.step is Step.OBJECT for fault in run.turn.faults.armed):
        # Before anybody else gets hold of the socket.
        harm.spoil(assoc, run.turn.stopping)
    lead = run.export.behaviour.final_response_lead_seconds
    if not lead:
        run.over(instances, assoc)
        return run.finish()
    *first, last = instances
    run.over(first, assoc)
    if run.counts.remaining == 1:
        run.settle(last, SUCCESS)
        # The client may release now, which the thread of its association must be free to answer.
        follow_up = (run, last, assoc, len(instances), lead, stack.pop_all())
        threading.Thread(target=_send_late, args=follow_up, name="simulated-daemon-late", daemon=True).start()
    return run.finish()


def _send_late(run: _Run, instance: Node, assoc: Association, number: int, seconds: float, stack: ExitStack) -> None:
    """Send the last instance after the final response (quirk 13)."""
    with suppress(OverError), stack:
        if not run.turn.stopping.wait(seconds):
            run.send(instance, assoc, number)


def _storage_context(assoc: Association, instance: Node, syntaxes: set[str]) -> PresentationContext | None:
    fitting = (
        context
        for context in assoc.accepted_contexts
        if context.as_scu
        and context.abstract_syntax == instance.sop_class_uid
        and str(context.transfer_syntax[0]) in syntaxes
    )
    return next(fitting, None)


def _note(turn: Turn, level: str, keywords: tuple[str, ...], status: int, counts: wire.Counts) -> None:
    log.info(
        "%s %s keys=%s status=0x%04X completed=%d failed=%d warning=%d remaining=%d",
        turn.exchange.service,
        level,
        ",".join(keywords) or "none",
        status,
        counts.completed,
        counts.failed,
        counts.warning,
        counts.remaining,
    )
