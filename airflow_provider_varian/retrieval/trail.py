"""The audit trail of tasks and commands (semantics 25): what was asked for, what came, what was sent, and for whom.

One block for each kind of work: :class:`Retrieving` here, moves to others and storing in :mod:`.trail_exports`; and
:class:`Asking` for queries. A message is on the trail, or waits for it on this host's disk, before what it announces is
done. When neither can be had the work ends with :class:`~airflow_provider_varian.errors.AuditUnavailableError`: nothing
is done in secret. Nothing of the trail is ever logged.
"""

from __future__ import annotations

import collections
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, NamedTuple, Self

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import AuditUnavailableError, CancelledError, DicomError
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.receiver.audit_message import kind_of_refusal
from airflow_provider_varian.receiver.audit_sinks import AuditSink
from airflow_provider_varian.receiver.audit_xml import UNKNOWN, AuditMessage, Us
from airflow_provider_varian.receiver.observer import Observer, Refusal
from airflow_provider_varian.retrieval import trail_messages
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.trail_messages import Node, Requestor, Way
from airflow_provider_varian.uids import is_uid
from airflow_provider_varian.waiting import Waiting

logger = logging.getLogger(__name__)

#: Addresses and reasons that are told apart when a task's receiver refuses many.
_MAXIMUM_REFUSALS: Final = 1000


class WorkTrail:
    """Where the messages of one piece of work go.

    :param sink: takes them; written to from the thread that does the work.
    :param requestor: who had it done.
    :param us: this process; its AE title is that of each peer's connection.
    """

    def __init__(self, sink: AuditSink, requestor: Requestor, *, us: Us | None = None) -> None:
        self._sink = sink
        self.requestor = requestor
        self.us = us or Us(ae_titles=())

    def write(self, messages: Sequence[AuditMessage]) -> None:
        """Write messages so that they stay.

        :raises AuditUnavailableError: when they may not have been written.
        """
        if not messages:
            return
        try:
            self._sink.write(messages)
        except (OSError, DicomError) as error:
            why = error.explanation if isinstance(error, DicomError) else (error.strerror or type(error).__name__)
            raise AuditUnavailableError(
                f"{len(messages)} messages cannot be written to {self._sink.name}: {why}",
                step="audit",
                hint="Nothing is asked for or sent without its message: see to the file or the server",
            ) from error

    def close(self) -> None:
        """End."""
        self._sink.close()


class Asking:
    """Tells of queries, each once however often it is put (:data:`airflow_provider_varian.query.find.OnQuery`).

    :param trail: where to; ``None``: nowhere.
    """

    def __init__(self, trail: WorkTrail | None) -> None:
        self._trail = trail
        self._told: set[tuple[str, Query]] = set()

    def __call__(self, peer: Peer, query: Query) -> None:
        """Tell of a query that is about to be put."""
        if self._trail is None or (peer.name, query) in self._told:
            return
        # Before it is written: what goes on in spite of an error is told by that error.
        self._told.add((peer.name, query))
        trail = self._trail
        trail.write([trail_messages.queried(trail.us, trail.requestor, now(), peer=peer, query=query)])


class Key(NamedTuple):
    """What one message is about."""

    study: str
    action: str
    failure: str


class Work(ABC):
    """One piece of work: each study is told of when it begins, and when all has ended."""

    def __init__(self, trail: WorkTrail | None, way: Way | None) -> None:
        self._trail = trail
        self._way = way
        self._begun: dict[str, None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._trail is None:
            return
        try:
            self._trail.write(self._ending(error))
        except AuditUnavailableError as problem:
            if error is None:
                raise
            # What ended the work is raised; that the trail has a gap is said all the same.
            logger.error("%s", problem)

    def _begin(self, studies: Iterable[str]) -> None:
        trail, way = self._trail, self._way
        new = [study for study in dict.fromkeys(map(known_study, studies)) if study not in self._begun]
        if trail is None or way is None or not new:
            return
        self._begun.update(dict.fromkeys(new))
        trail.write([trail_messages.begin_transferring(trail.us, way, now(), study=study) for study in new])

    def _ending(self, error: BaseException | None) -> list[AuditMessage]:
        """Return the messages about what came of it."""
        found: dict[Key, collections.Counter[str]] = {}
        for key, sop_class in self._outcomes(error):
            found.setdefault(key, collections.Counter())[sop_class if is_uid(sop_class) else UNKNOWN] += 1
        told = {key.study for key in found}
        for study in self._begun:
            if study not in told:
                # E.g. another task has filed it meanwhile. What has begun has an end.
                found[Key(study, "R", ended_by(error) or "nothing was moved")] = collections.Counter()
        return [self._message(key, classes) for key, classes in found.items()]

    @abstractmethod
    def _outcomes(self, error: BaseException | None) -> Iterable[tuple[Key, str]]:
        """Iterate over the objects that were moved, or were to be, with their SOP classes."""

    @abstractmethod
    def _message(self, key: Key, classes: collections.Counter[str]) -> AuditMessage:
        """Return what is told of so many objects of these SOP classes."""


class Retrieving(Work, Observer):
    """Tells of a retrieval: a context manager around it, and what the receiver in the task is watched by.

    :param trail: where to; ``None``: nowhere.
    :param peer: who sends.
    :param on_change: of the retrieval.
    """

    def __init__(
        self, trail: WorkTrail | None, peer: Peer, *, on_change: Callable[[Manifest], None] | None = None
    ) -> None:
        way = None
        if trail is not None:
            way = Way(
                source=Node(ae_title=peer.called_ae_title, host=peer.host),
                destination=Node(ae_title=peer.move_destination, us=True),
                requestor=trail.requestor,
            )
        super().__init__(trail, way)
        self._on_change = on_change
        self._ledger: Ledger | None = None
        self._lock = threading.Lock()
        self._refused: collections.Counter[tuple[str, str]] = collections.Counter()

    def changed(self, manifest: Manifest) -> None:
        """Note a change of the account; pass it to the retrieval as its ``on_change``."""
        self._ledger = manifest.ledger
        if self._trail is not None:
            # Those of which nothing is outstanding any more had begun before.
            self._begin(entry.study_instance_uid for entry in manifest.ledger.outstanding)
            self._trail.write(self._refusals())
        if self._on_change is not None:
            self._on_change(manifest)

    def refused(self, source: str, reason: Refusal) -> None:
        """Note that the receiver in the task let somebody not in."""
        if reason is Refusal.STOPPING:
            return
        with self._lock:
            if len(self._refused) >= _MAXIMUM_REFUSALS and (source, reason) not in self._refused:
                source = UNKNOWN
            self._refused[source, reason] += 1

    def _refusals(self) -> list[AuditMessage]:
        with self._lock:
            refused, self._refused = self._refused, collections.Counter()
        if self._trail is None:
            return []
        return [
            trail_messages.refused(
                self._trail.us,
                self._trail.requestor,
                now(),
                kind=kind_of_refusal(reason),
                source=source or UNKNOWN,
                what=f"refused: {reason}" + (f", {count} times" if count > 1 else ""),
            )
            for (source, reason), count in refused.items()
        ]

    def _ending(self, error: BaseException | None) -> list[AuditMessage]:
        return [*self._refusals(), *super()._ending(error)]

    def _outcomes(self, error: BaseException | None) -> Iterable[tuple[Key, str]]:
        ledger = self._ledger
        if ledger is None:
            return
        for entry in (*ledger.entries.values(), *ledger.unexpected.values()):
            study = known_study(entry.study_instance_uid)
            if entry.is_here and entry.sop_instance_uid in ledger.arrived:
                yield Key(study, "U" if entry.superseded else "C", ""), entry.sop_class_uid
            elif not entry.is_here and study in self._begun:
                yield Key(study, "R", ended_by(error) or f"not retrieved: {entry.state}"), entry.sop_class_uid

    def _message(self, key: Key, classes: collections.Counter[str]) -> AuditMessage:
        assert self._trail is not None
        assert self._way is not None
        return trail_messages.instances_transferred(
            self._trail.us,
            self._way,
            now(),
            study=key.study,
            sop_classes=classes,
            action=key.action,
            failure=key.failure,
        )


def known_study(uid: str) -> str:
    """Return a Study Instance UID, or nothing where it is none."""
    return uid if is_uid(uid) else ""


def ended_by(error: BaseException | None) -> str:
    """Say what ended a piece of work, without the words of an error: they may quote a peer."""
    if error is None:
        return ""
    if isinstance(error, CancelledError):
        return "cancelled"
    if isinstance(error, Waiting):
        return "put off: the task goes on later"
    status = error.status if isinstance(error, DicomError) else None
    return f"ended by {type(error).__name__}" + ("" if status is None else f", status 0x{status:04X}")


def now() -> datetime:
    """Return the time at which a message is made."""
    return datetime.now(UTC)
