"""The requests of a retrieval: rounds of C-GET or C-MOVE until nothing is outstanding.

A round is one list of requests over one association. What it leaves outstanding is asked for more
narrowly, then by another method; each step is written down. Nothing here decides about the outcome:
the ledger does.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Literal

from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse import contexts, status
from airflow_provider_varian.dimse.association import PeerAssociation, associate
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.dimse.lasting import may_go_on
from airflow_provider_varian.dimse.move import move
from airflow_provider_varian.dimse.suboperations import SubOperations
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    ConfigurationError,
    ContextRejectedError,
    DestinationWriteError,
    DicomError,
    PeerTimeoutError,
    ReceiverUnavailableError,
    RefusedByPeerError,
    TransientDicomError,
    TransientRejectionError,
)
from airflow_provider_varian.query.model import InformationModel, model_for
from airflow_provider_varian.retrieval.arrivals import Arrivals
from airflow_provider_varian.retrieval.asked import Asked
from airflow_provider_varian.retrieval.intake import Intake
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.manifest import Manifest, RequestReport
from airflow_provider_varian.retrieval.means import Means
from airflow_provider_varian.retrieval.method import Verb
from airflow_provider_varian.retrieval.missing import Reasons
from airflow_provider_varian.retrieval.peers_time import PeersTime
from airflow_provider_varian.retrieval.plan import Ask, Stage, asked_whole, asks_of, stages_of
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.settling import Reports, Settling, any_completed
from airflow_provider_varian.retrieval.troubles import Troubles
from airflow_provider_varian.waiting import Waiting

logger = logging.getLogger(__name__)

#: Our own faults: another method would meet them too.
_OURS: Final = (CancelledError, ConfigurationError, ReceiverUnavailableError, DestinationWriteError)
#: What a peer may do about a proposal that is too large for it. What C-MOVE would meet too is not among them: no
#: connection, and the permanent rejections (semantics 24), which are about the names or the protocol.
_NOT_TAKEN: Final = (AssociationAbortedError, ContextRejectedError, PeerTimeoutError, TransientRejectionError)


class Transfer:
    """Asks for what is outstanding; a context manager that always stops its receiver.

    :param means: what it works with.
    :param request: what the user asked for.
    :param manifest: what is outstanding, and where each request is written down.
    :param arrivals: where what a C-MOVE sends arrives.
    :param intake: takes what arrives.

    Where the manifest says that somebody else has waited, the transfer goes on from there.
    """

    def __init__(
        self, means: Means, *, request: RetrievalRequest, manifest: Manifest, arrivals: Arrivals, intake: Intake
    ) -> None:
        self._means = means
        self._request = request
        self._manifest = manifest
        self._ledger = manifest.ledger
        self._arrivals = arrivals
        self._intake = intake
        self._model: InformationModel = model_for(request.level, means.peer.information_model)
        self._has_receiver = False
        self._time = PeersTime(
            means.peer, step="retrieve", work="retrieval", verb="retrieve", clock=lambda: time.monotonic()
        )
        self._rested = 0.0
        self._peer_noted = False
        self._troubles = Troubles(means.peer, manifest)
        self._reasons = Reasons(manifest.ledger)
        before, manifest.waiting = manifest.waiting, None
        self._asked = Asked(before)
        self._settling = Settling(
            means,
            manifest=manifest,
            arrivals=arrivals,
            intake=intake,
            troubles=self._troubles,
            time_left=self._time,
            before=before,
        )
        #: Whether it broke off, so that asking for more makes no sense.
        self.broke_off = False

    @property
    def error(self) -> DicomError | None:
        """What went wrong last, although the transfer went on."""
        return self._troubles.error

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Waiting):
                self._manifest.waiting = {**self._settling.record(), **self._asked.to_json(self._manifest.ledger)}
        finally:
            if self._has_receiver:
                self._arrivals.stop(for_now=isinstance(error, Waiting))

    def run(self, *, settle_first: bool, has_settled: bool = False) -> None:
        """Ask until nothing is outstanding or nothing is left to try; :attr:`error` tells what went wrong.

        :param settle_first: an earlier try was killed: let the stragglers of its C-MOVE come in first
            (semantics 11).
        :param has_settled: somebody else has waited until nothing came any more: look once, instead.
        :raises CancelledError: cancelled.
        :raises ConfigurationError: the connection lacks what the method needs.
        :raises ReceiverUnavailableError: the receiver's port or the spool cannot be had.
        :raises DestinationWriteError: what arrived cannot be published; it stays in the spool.
        :raises Waiting: somebody else is to wait.
        """
        self._time.begin()
        self._run(settle_first=settle_first, has_settled=has_settled)

    def run_also(self, request: RetrievalRequest) -> None:
        """Ask for instances that were entered into the ledger since, and for no others; raises as :meth:`run`.

        :param request: names them as ``expected``, at IMAGE level.
        """
        # The list of them is not the transfer's time, least of all when it had to wait for the peer.
        self._time.give(time.monotonic() - self._rested)
        entries = self._manifest.ledger.entries
        self._request = request
        self._ledger = Ledger(entries[item.sop_instance_uid] for item in request.expected or ())
        self._run(settle_first=False)

    def _run(self, *, settle_first: bool, has_settled: bool = False) -> None:
        try:
            if settle_first and self._means.can_move:
                self._start_receiver()
                self._settling.take_late(self._ledger, has_settled=has_settled)
            self._ask_by_each()
        except _OURS:
            self._troubles.say()
            raise
        except DicomError as error:
            self.broke_off = True
            self._troubles.note(error)
        finally:
            self._rested = time.monotonic()
        if len(self._outstanding()) < len(self._ledger.entries):
            self._troubles.say()

    def _ask_by_each(self) -> None:
        if not self._outstanding():
            return
        verbs = self._verbs()
        refusal: DicomError | None = None
        for position, verb in enumerate(verbs):
            if position:
                self._note_fallback(verbs[position - 1], verb, refusal)
                # What this method is refused says nothing about the next one.
                if refusal is not None:
                    self._troubles.get_over()
            try:
                self._ask_by(verb)
            except (ContextRejectedError, RefusedByPeerError) as error:
                # Another method may be allowed.
                self._troubles.note(error)
                refusal = error
            if not self._outstanding():
                return

    def _verbs(self) -> list[Verb]:
        """Return the methods to use, in order; ``auto`` is decided by what the peer accepts."""
        method = self._means.method
        if method != "auto":
            return ["C-GET" if method == "get" else "C-MOVE"]
        if not self._means.can_move:
            return ["C-GET"]
        if self._asked.has("C-MOVE"):
            return ["C-MOVE"]
        peer = self._means.peer
        proposed = [*contexts.get(self._model.get_uid, self._classes()), *contexts.move(self._model.move_uid)]
        try:
            with self._associated("association", proposed) as association:
                accepts_get = association.accepts(self._model.get_uid)
        except _NOT_TAKEN as error:
            # More than a hundred contexts with roles are too much for some; C-MOVE proposes one, without a role.
            reason = f"the peer did not take the proposal for C-GET: {error.what}"
            self._troubles.note_fallback("C-GET", "C-MOVE", reason)
            return ["C-MOVE"]
        logger.debug("%s %s C-GET", peer.name, "accepts" if accepts_get else "does not accept")
        return ["C-GET", "C-MOVE"] if accepts_get else ["C-MOVE"]

    def _ask_by(self, verb: Verb) -> None:
        if verb == "C-MOVE":
            self._start_receiver()
        done: set[tuple[Ask, ...]] = set()
        before = ""
        for stage in stages_of(self._request):
            rest = self._asked.rest(verb, stage, self._ledger)
            asks = asks_of(stage, self._request, rest, self._means.profile)
            if not asks or tuple(asks) in done:
                continue
            name = f"{verb} {stage.name.lower().replace('_', ' ')}"
            if before:
                self._note_fallback(before, name)
            done.add(tuple(asks))
            before = name
            self._round(verb, stage, asks)

    def _round(self, verb: Verb, stage: Stage, asks: Sequence[Ask]) -> None:
        """Put a list of requests, over a new association when one is lost."""
        reports: list[tuple[RequestReport, Ask]] = []
        if verb == "C-MOVE":
            self._announce(asks)
        try:
            self._put(verb, stage, deque(asks), reports)
            self._give_up_unreached(verb, reports)
            if verb == "C-MOVE" and any(self._outstanding(ask) for ask in asks):
                self._settling.wait(self._ledger, reports)
                self._settling.warn_of_silence([report for report, _ in reports])
        except Waiting:
            if (
                verb == "C-MOVE"
                and not self._arrivals.can_be_watched
                and any(self._outstanding(ask) for _, ask in reports)
            ):
                # A receiver inside the task ends here: nobody would listen to what comes late.
                self._settling.wait(self._ledger, reports)
            self._intake.take_arrived(now=True)
            raise
        except DicomError:
            self._intake.take_arrived(now=True)
            raise
        finally:
            if verb == "C-MOVE":
                self._arrivals.answered()
            for report, ask in reports:
                lacking = self._outstanding(ask)
                report.received = len(ask.brings) - len(lacking)
                self._reasons.note(report, lacking)

    def _put(self, verb: Verb, stage: Stage, queue: deque[Ask], reports: list[tuple[RequestReport, Ask]]) -> None:
        while self._drop_done(queue):
            self._time.left()
            proposed = self._contexts(verb)
            with self._associated(verb, proposed) as association:
                while self._drop_done(queue) and may_go_on(association):
                    ask = queue.popleft()
                    self._time.left()
                    report = RequestReport(
                        attempt=self._manifest.attempts, method=verb, level=str(ask.level), asked=len(ask.brings)
                    )
                    self._manifest.requests.append(report)
                    reports.append((report, ask))
                    self._asked.note(verb, stage, ask)
                    self._ask(association, verb, ask, report)

    def _ask(self, association: PeerAssociation, verb: Verb, ask: Ask, report: RequestReport) -> None:
        """Put one request and write down what the peer reports."""
        self._troubles.say()
        for uid in ask.brings:
            self._manifest.ledger.entries[uid].attempts += 1
        self._intake.whole.update(asked_whole(ask, self._ledger))
        if verb == "C-MOVE":
            self._arrivals.asking(ask.brings)
        started = time.monotonic()
        try:
            done = self._verb(association, verb, ask)
        except (DestinationWriteError, ReceiverUnavailableError):
            raise  # what came could not be taken, which says nothing about the request
        except DicomError as error:
            report.problem, report.status = error.what, error.status
            # 0xA900 is about the keys of this one request; other refusals are about all of them.
            if not isinstance(error, TransientDicomError) and error.status != 0xA900:
                raise
            self._troubles.note(error)
        else:
            self._read(report, done)
        finally:
            report.seconds = time.monotonic() - started
            self._intake.take_arrived()

    def _verb(self, association: PeerAssociation, verb: Verb, ask: Ask) -> SubOperations:
        identifier = ask.identifier(self._model)
        left, on_progress = self._time.left(), self._means.on_progress
        if verb == "C-GET":
            return get(
                association,
                self._model.get_uid,
                identifier,
                sink=self._intake.own_sink,
                on_progress=on_progress,
                deadline=left,
                meanwhile=self._intake.take_meanwhile,
            )
        return move(
            association,
            self._model.move_uid,
            identifier,
            destination=self._means.peer.move_destination,
            on_progress=on_progress,
            deadline=left,
            idle_for=self._arrivals.idle_for,
            meanwhile=self._intake.take_meanwhile,
        )

    def _read(self, report: RequestReport, done: SubOperations) -> None:
        report.note(done)
        peer = self._means.peer
        service: Literal["C-GET", "C-MOVE"] = "C-GET" if report.method == "C-GET" else "C-MOVE"
        error = status.error_for(service, done.status, peer=peer.name, comment=done.error_comment)
        if error is not None:
            report.problem = status.describe(service, done.status)
        if report.method == "C-MOVE" and error is not None and done.status == 0xA702 and not self._arrivals.heard:
            error.hint = self._arrivals.unreached_hint() or error.hint
        if error is not None:
            self._troubles.note(error)

    def _announce(self, asks: Sequence[Ask]) -> None:
        """Let those who use the same receiver know what is asked for."""
        uids = {uid for ask in asks for uid in ask.brings}
        started = time.monotonic()
        self._arrivals.announce(uids, set().union(*(asked_whole(ask, self._ledger) for ask in asks)))
        self._time.give(time.monotonic() - started)

    def _give_up_unreached(self, verb: Verb, reports: Reports) -> None:
        """Raise what the peer said when it failed to reach us each time; asking more narrowly would not help.

        One failure says little: it may be the one instance that cannot be exported.
        """
        if verb != "C-MOVE" or self.error is None or any(report.status != 0xA702 for report, _ in reports):
            return
        if not self._settling.heard and not (
            self._arrivals.lag_seconds and any_completed([report for report, _ in reports])
        ):
            raise self.error

    def _start_receiver(self) -> None:
        """Be ready to receive; that a port or a receiver has to be waited for costs the peer nothing of its time."""
        if self._has_receiver:
            return
        started = time.monotonic()
        self._arrivals.start()
        self._has_receiver = True
        self._time.give(time.monotonic() - started)
        self._settling.begin()

    @contextmanager
    def _associated(self, step: str, proposed: Sequence[PresentationContext]) -> Iterator[PeerAssociation]:
        means = self._means
        opened = associate(means.peer, proposed, step=step, cancellation=means.cancellation, on_wait=self._time.give)
        with opened as association:
            self._manifest.note_peer(association.negotiated, anew=not self._peer_noted)
            self._peer_noted = True
            yield association

    def _contexts(self, verb: Verb) -> list[PresentationContext]:
        if verb == "C-GET":
            return contexts.get(self._model.get_uid, self._classes())
        return contexts.move(self._model.move_uid)

    def _classes(self) -> list[str]:
        entries = self._ledger.outstanding
        return list(dict.fromkeys(entry.sop_class_uid for entry in entries if entry.sop_class_uid))

    def _outstanding(self, ask: Ask | None = None) -> list[str]:
        entries = self._ledger.entries
        uids = entries if ask is None else ask.brings
        return [uid for uid in uids if not entries[uid].is_here]

    def _drop_done(self, queue: deque[Ask]) -> deque[Ask]:
        """Take requests from the front whose instances are here by now; return the queue."""
        while queue and not self._outstanding(queue[0]):
            queue.popleft()
        return queue

    def _note_fallback(self, before: str, after: str, refusal: DicomError | None = None) -> None:
        left, all_of_it = len(self._outstanding()), len(self._ledger.entries)
        why = f"; {refusal.what}" if refusal is not None else ""
        self._troubles.note_fallback(before, after, f"{left} of {all_of_it} instances outstanding{why}")
