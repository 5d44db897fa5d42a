"""The audit trail of a receiver (semantics 25): who sent what to whom, who was refused, what was removed.

What observers are told goes into a bounded queue and nothing else; a thread makes messages of it
(:mod:`.audit_message`) and hands them to a sink (:mod:`.audit_sinks`). There is one message for the objects of one
study that came over one association, not one for each object. A sink that is down is tried again, and never holds up
receiving: what finds no room in the meantime is counted, and the trail says so itself when it goes on.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.receiver import audit_message
from airflow_provider_varian.receiver.audit_message import AuditMessage, Outcome, Us
from airflow_provider_varian.receiver.audit_sinks import AuditSink
from airflow_provider_varian.receiver.observer import AssociationFacts, Ending, Observer, Refusal
from airflow_provider_varian.receiver.rounds import Rounds
from airflow_provider_varian.receiver.upkeep import Removed, UpkeepObserver
from airflow_provider_varian.uids import is_uid

logger = logging.getLogger(__name__)

#: Events that wait to be looked at. They are every second; more in one is a flood.
MAXIMUM_EVENTS: Final = 50_000
#: Messages that wait for their sink: some megabytes, and a day of a clinic.
MAXIMUM_MESSAGES: Final = 5_000
#: Objects of one message at most, and how long the first of them waits for the last: a long association is told of
#: while it goes on.
BATCH_OBJECTS: Final = 1_000
BATCH_SECONDS: Final = 300.0
#: Studies that are being told of at once, and SOP classes of each; an association has 128 presentation contexts.
_MAXIMUM_BATCHES: Final = 1_000
_MAXIMUM_CLASSES: Final = 128
#: Refusals of one address for one reason within so many seconds are told together, the first one at once.
_ALERT_SECONDS: Final = 60.0
_MAXIMUM_ALERTS: Final = 1_000
#: Messages that are written, and made durable, at once.
_WRITE: Final = 100
_EVERY_SECONDS: Final = 1.0
_LAST_WAIT_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 5.0
_OTHER: Final = "other"


class _Stored(NamedTuple):
    when: float
    facts: AssociationFacts
    sop_class: str
    study: str
    status: str


class _Ended(NamedTuple):
    when: float
    number: int


class _Refused(NamedTuple):
    when: float
    source: str
    reason: str


class _Swept(NamedTuple):
    when: float
    item: Removed


_Event = _Stored | _Ended | _Refused | _Swept


@dataclass(slots=True)
class _Batch:
    """Objects of one study that came over one association, or were refused."""

    facts: AssociationFacts
    study: str
    failed: bool
    since: float
    last: float
    count: int = 0
    classes: collections.Counter[str] = field(default_factory=collections.Counter)
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)


@dataclass(slots=True)
class _Alert:
    """Refusals that were not told yet, and when the last were."""

    told: float
    count: int = 0


class AuditTrail(Observer, UpkeepObserver):
    """Keeps the trail, in a thread of its own.

    :param sink: where the messages go.
    :param ae_titles: the receiver's AE titles.
    """

    def __init__(self, sink: AuditSink, *, ae_titles: Iterable[str] = ()) -> None:
        self._sink = sink
        self._us = Us(ae_titles=tuple(ae_titles))
        self._events: collections.deque[_Event] = collections.deque()
        self._messages: collections.deque[AuditMessage] = collections.deque()
        self._batches: dict[tuple[int, str, bool], _Batch] = {}
        self._alerts: dict[tuple[str, str], _Alert] = {}
        self._removed: dict[str, collections.Counter[str]] = {}
        self._rounds = Rounds(self._round, name="dicom-audit", after_error_seconds=_EVERY_SECONDS)
        self._attempt_at = 0.0
        self._wait = _EVERY_SECONDS
        self._why = ""
        self._said_lost = 0
        self._has_ended = False
        self.written = 0
        self.dropped = 0
        self.failures = 0

    def start(self) -> None:
        """Begin, with the message that the receiver has started."""
        self._add(audit_message.application_activity(self._us, _now(), started=True))
        self._rounds.start()

    def stop(self) -> None:
        """End, with the message that the receiver stops; what waits is written within seconds. May be called twice."""
        if self._has_ended:
            return
        self._has_ended = True
        if self._rounds.stop(_STOP_SECONDS):
            self._take_events()
            self._tell(everything=True)
            self._add(audit_message.application_activity(self._us, _now(), started=False))
            self._write_rest(_STOP_SECONDS)
        if self._messages:
            logger.error("Audit: %d messages could not be written to %s", len(self._messages), self._sink.name)
        self._sink.close()

    def trouble(self) -> str | None:
        """Return in words why messages wait; ``None`` when none do."""
        if not self._why:
            return None
        return f"audit messages cannot be written to {self._sink.name}, {len(self._messages)} wait: {self._why}"

    def refused(self, source: str, reason: Refusal) -> None:
        """Note a refusal; that a receiver which stops takes nobody is none."""
        if reason is not Refusal.STOPPING:
            self._note(_Refused(time.time(), source, reason))

    def stored(
        self, facts: AssociationFacts, request: StoreRequest, size: int, seconds: float, study_instance_uid: str = ""
    ) -> None:
        """Note an object."""
        self._note(_Stored(time.time(), facts, request.sop_class_uid, study_instance_uid, ""))

    def not_stored(self, facts: AssociationFacts, request: StoreRequest, status: int | None, reason: str) -> None:
        """Note an object that was not stored."""
        answered = "not answered" if status is None else f"0x{status:04X}"
        self._note(_Stored(time.time(), facts, request.sop_class_uid, "", answered))

    def ended(self, facts: AssociationFacts, how: Ending) -> None:
        """Note the end of an association."""
        self._note(_Ended(time.time(), facts.number))

    def removed(self, item: Removed) -> None:
        """Note what was swept."""
        self._note(_Swept(time.time(), item))

    def _note(self, event: _Event) -> None:
        # Not exact when many come at once, and without a lock: some more than the maximum do no harm.
        if len(self._events) >= MAXIMUM_EVENTS:
            self.dropped += 1
        else:
            self._events.append(event)

    def _round(self) -> float:
        self._take_events()
        self._tell()
        self._write()
        return _EVERY_SECONDS

    def _take_events(self) -> None:
        for _ in range(len(self._events)):
            event = self._events.popleft()
            match event:
                case _Stored():
                    self._take_object(event)
                case _Refused():
                    self._take_refusal(event)
                case _Swept():
                    classes = self._removed.setdefault(event.item.study_instance_uid, collections.Counter())
                    classes[event.item.sop_class_uid or audit_message.UNKNOWN] += 1
                case _Ended():
                    for key in [key for key in self._batches if key[0] == event.number]:
                        self._tell_batch(key)

    def _take_object(self, event: _Stored) -> None:
        failed = bool(event.status)
        study = event.study if is_uid(event.study) else ""
        key = (event.facts.number, study, failed)
        batch = self._batches.get(key)
        if batch is None:
            if len(self._batches) >= _MAXIMUM_BATCHES:
                self._tell_batch(next(iter(self._batches)))
            batch = self._batches[key] = _Batch(event.facts, study, failed, since=event.when, last=event.when)
            if not failed:
                self._add(audit_message.begin_transferring(self._us, event.facts, _at(event.when), study=study))
        sop_class = event.sop_class if is_uid(event.sop_class) else _OTHER
        if sop_class not in batch.classes and len(batch.classes) >= _MAXIMUM_CLASSES:
            sop_class = _OTHER
        batch.classes[sop_class] += 1
        batch.last = event.when
        batch.count += 1
        if failed:
            batch.statuses[event.status] += 1
        if batch.count >= BATCH_OBJECTS:
            self._tell_batch(key)

    def _take_refusal(self, event: _Refused) -> None:
        key = (event.source, event.reason)
        if key not in self._alerts and len(self._alerts) >= _MAXIMUM_ALERTS:
            key = (audit_message.UNKNOWN, event.reason)
        alert = self._alerts.get(key)
        if alert is None:
            self._alerts[key] = _Alert(told=event.when)
            self._tell_refusal(key, 1, event.when)
        else:
            alert.count += 1

    def _tell(self, *, everything: bool = False) -> None:
        """Make messages of what has waited for long enough."""
        now = time.time()
        for batch_key, batch in list(self._batches.items()):
            # A clock that was set back must not keep them for ever.
            if everything or not 0 <= now - batch.since < BATCH_SECONDS:
                self._tell_batch(batch_key)
        for key, alert in list(self._alerts.items()):
            if everything or not 0 <= now - alert.told < _ALERT_SECONDS:
                if alert.count:
                    self._tell_refusal(key, alert.count, now)
                    self._alerts[key] = _Alert(told=now)
                else:
                    del self._alerts[key]
        for study, classes in self._removed.items():
            self._add(audit_message.instances_deleted(self._us, _at(now), study=study, sop_classes=classes))
        self._removed.clear()

    def _tell_batch(self, key: tuple[int, str, bool]) -> None:
        batch = self._batches.pop(key)
        told = ", ".join(f"{status}: {number}" for status, number in sorted(batch.statuses.items()))
        self._add(
            audit_message.instances_transferred(
                self._us,
                batch.facts,
                _at(batch.last),
                study=batch.study,
                sop_classes=batch.classes,
                outcome=Outcome.MINOR_FAILURE if batch.failed else Outcome.SUCCESS,
                description=f"not stored; {told}" if batch.failed else "",
            )
        )

    def _tell_refusal(self, key: tuple[str, str], count: int, when: float) -> None:
        source, reason = key
        self._add(
            audit_message.security_alert(
                self._us,
                _at(when),
                kind=audit_message.kind_of_refusal(reason),
                subject=source or audit_message.UNKNOWN,
                description=f"refused: {reason}" + (f", {count} more times" if count > 1 else ""),
            )
        )

    def _add(self, message: AuditMessage) -> None:
        if len(self._messages) >= MAXIMUM_MESSAGES:
            self.dropped += 1
        else:
            self._messages.append(message)

    def _write(self) -> None:
        """Hand over what waits; after a failure not before its wait is over."""
        while self._messages and time.monotonic() >= self._attempt_at:
            some = [self._messages[number] for number in range(min(_WRITE, len(self._messages)))]
            try:
                self._sink.write(some)
            except (OSError, DicomError) as error:
                self._fail(error)
                return
            for _ in some:
                self._messages.popleft()
            self.written += len(some)
            self._succeed()

    def _write_rest(self, seconds: float) -> None:
        """Hand over what waits, for a last time."""
        self._attempt_at = 0.0
        end = time.monotonic() + seconds
        while self._messages and not self._attempt_at and time.monotonic() < end:
            self._write()

    def _fail(self, error: OSError | DicomError) -> None:
        self.failures += 1
        why = error.explanation if isinstance(error, DicomError) else (error.strerror or type(error).__name__)
        if not self._why:
            logger.error("Audit: %s cannot be written: %s. It is tried again; receiving goes on", self._sink.name, why)
        self._why = why
        self._attempt_at = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, _LAST_WAIT_SECONDS)

    def _succeed(self) -> None:
        if self._why:
            logger.info("Audit: %s is written again", self._sink.name)
        self._why = ""
        self._wait = _EVERY_SECONDS
        if lost := self.dropped - self._said_lost:
            self._said_lost += lost
            logger.error("Audit: %d events are not in the trail, for want of room", lost)
            self._add(
                audit_message.security_alert(
                    self._us,
                    _now(),
                    kind=audit_message.AUDIT_RECORDING_STOPPED,
                    subject=self._us.host,
                    description=f"{lost} events are not in the trail: there was no room for them",
                )
            )


def _now() -> datetime:
    return datetime.now(UTC)


def _at(when: float) -> datetime:
    return datetime.fromtimestamp(when, UTC)
