"""C-MOVE and C-GET as the daemon answers them (PS3.4 C.4.2 and C.4.3, varian-daemon 1.4)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse.status import is_warning
from airflow_provider_varian.query.level import UNIQUE_KEYS, Level
from airflow_provider_varian.simulator.daemon import character_sets, wire
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.find_service import (
    CANCELLED,
    IDENTIFIER_MISMATCH,
    PENDING,
    SUCCESS,
    BadIdentifierError,
    build_search,
    never_matches,
    read_identifier,
)
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.tree import Holdings, Node, Search, instances_below, unique_values, walk

log = logging.getLogger(__name__)

#: PS3.4 C.4.2.1.5
UNABLE_TO_PERFORM: Final = 0xA702
DESTINATION_UNKNOWN: Final = 0xA801
PARTLY: Final = 0xB000


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
            moment = self.now()
            data_set.InstanceCreationDate = moment.strftime("%Y%m%d")
            data_set.InstanceCreationTime = moment.strftime("%H%M%S.%f")
        return character_sets.apply(data_set, self.character_set)


@dataclass(slots=True, kw_only=True)
class _Run:
    """The sub-operations of one retrieve."""

    exchange: wire.Exchange
    export: Export
    counts: wire.Counts
    failed: list[str] = field(default_factory=list)

    def over(self, instances: list[Node], assoc: Association, *, originated: bool) -> int:
        """Send the instances one by one; return the final status, which is also answered."""
        for number, instance in enumerate(instances, start=1):
            if self.exchange.cancelled or self.exchange.broken:
                break
            self._settle(instance, self._send(instance, assoc, number, originated=originated))
            if self.export.behaviour.pending_responses and self.counts.remaining:
                self.exchange.respond(PENDING, counts=self.counts, remaining=True)
        return self.finish()

    def finish(self) -> int:
        """Send the final response (PS3.4 C.4.2.3.1)."""
        cancelled = self.counts.remaining > 0
        status = CANCELLED if cancelled else self._status()
        identifier = None
        if status != SUCCESS:
            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = self.failed
        self.exchange.respond(status, identifier=identifier, counts=self.counts, remaining=cancelled)
        return status

    def _status(self) -> int:
        if not self.counts.failed and not self.counts.warning:
            return SUCCESS
        return PARTLY if self.counts.completed or self.counts.warning else UNABLE_TO_PERFORM

    def _send(self, instance: Node, assoc: Association, number: int, *, originated: bool) -> int | None:
        context = _storage_context(assoc, instance, self.export.syntaxes(instance))
        if context is None or not assoc.is_established:
            return None
        request = self.exchange.request
        message_id = ((request.MessageID or 0) + number - 1) % 65535 + 1
        originator = (self.exchange.client, request.MessageID or 0) if originated else None
        try:
            data_set = self.export.data_set(instance)
            return wire.store(assoc, context, data_set, message_id=message_id, originator=originator)
        except (ValueError, OSError) as error:
            log.warning("An instance of class %s could not be sent: %s", instance.sop_class_uid, type(error).__name__)
            return None

    def _settle(self, instance: Node, status: int | None) -> None:
        self.counts.remaining -= 1
        if status == SUCCESS:
            self.counts.completed += 1
        elif status is not None and is_warning(status):
            self.counts.warning += 1
        else:
            self.counts.failed += 1
            self.failed.append(instance.uid)


def retrieve(
    exchange: wire.Exchange,
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
    moving = isinstance(exchange.request, C_MOVE)
    if moving and destination is None:
        exchange.respond(DESTINATION_UNKNOWN, counts=wire.Counts(remaining=0), comment="Unknown move destination")
        _note(exchange, "?", (), DESTINATION_UNKNOWN, wire.Counts(remaining=0))
        return
    try:
        level, search = _read(exchange, export.behaviour)
        instances = _instances(search, holdings, export.behaviour)
    except BadIdentifierError as bad:
        exchange.respond(bad.status, counts=wire.Counts(remaining=0), comment=bad.comment)
        _note(exchange, "?", (), bad.status, wire.Counts(remaining=0))
        return
    run = _Run(exchange=exchange, export=export, counts=wire.Counts(remaining=len(instances)))
    if not instances:
        status = export.behaviour.not_found_status
        exchange.respond(status, counts=run.counts, comment="" if status == SUCCESS else "Unable to find")
    elif moving and destination is not None:
        status = _move(run, instances, destination, associate)
    else:
        status = run.over(instances, exchange.assoc, originated=False)
    _note(exchange, level, search.keywords(), status, run.counts)


def _read(exchange: wire.Exchange, behaviour: Behaviour) -> tuple[Level, Search]:
    """Read a retrieve's identifier; only unique keys count, unless a switch says otherwise (quirk 15)."""
    level, keys = read_identifier(exchange)
    present = [each for each in UNIQUE_KEYS if unique_values(keys, each)]
    if not present:
        raise BadIdentifierError(IDENTIFIER_MISMATCH, "No unique key with a value")
    if behaviour.move_unique_keys_only:
        unique = Dataset()
        for each in present:
            unique.add(keys[UNIQUE_KEYS[each]])
        keys = unique
    # A unique key below the level asked for would be ignored, and far too much be sent.
    deepest = max(level.depth, *(each.depth for each in present))
    return level, build_search(list(UNIQUE_KEYS)[deepest], keys)


def _instances(search: Search, holdings: Holdings, behaviour: Behaviour) -> list[Node]:
    if never_matches(search, behaviour):
        return []
    return [below[-1] for chain in walk(holdings, search) for below in instances_below(chain)]


def _move(run: _Run, instances: list[Node], destination: TrustedEntity, associate: Outgoing) -> int:
    wanted: dict[str, set[str]] = {}
    for instance in instances:
        wanted.setdefault(instance.sop_class_uid, set()).update(run.export.syntaxes(instance))
    with associate(destination, {uid: found for uid, found in wanted.items() if found}) as assoc:
        if assoc is not None:
            return run.over(instances, assoc, originated=True)
    run.counts = wire.Counts(remaining=0, failed=len(instances))
    run.failed = [instance.uid for instance in instances]
    return run.finish()


def _storage_context(assoc: Association, instance: Node, syntaxes: set[str]) -> PresentationContext | None:
    fitting = (
        context
        for context in assoc.accepted_contexts
        if context.as_scu
        and context.abstract_syntax == instance.sop_class_uid
        and str(context.transfer_syntax[0]) in syntaxes
    )
    return next(fitting, None)


def _note(exchange: wire.Exchange, level: str, keywords: tuple[str, ...], status: int, counts: wire.Counts) -> None:
    log.info(
        "%s %s keys=%s status=0x%04X completed=%d failed=%d warning=%d remaining=%d",
        exchange.service,
        level,
        ",".join(keywords) or "none",
        status,
        counts.completed,
        counts.failed,
        counts.warning,
        counts.remaining,
    )
