"""The C-MOVE requests of a third-party move, and what the peer's reports say of each instance.

A report is the peer's word, not a fact (varian-daemon 1.4); it makes an instance *reported* and no more. Where its
counters do not cover what was asked for, nothing says which instances they cover: none is reported then, and a
narrower request asks again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final

from airflow_provider_varian.dimse import contexts, status
from airflow_provider_varian.dimse.association import Negotiated, PeerAssociation
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.lasting import LastingAssociation
from airflow_provider_varian.dimse.move import move
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.suboperations import Progress, SubOperations
from airflow_provider_varian.errors import (
    CancelledError,
    DestinationWriteError,
    DicomError,
    UnknownMoveDestinationError,
)
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.model import model_for
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.asked import Asked
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest, RequestReport
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.peers_time import PeersTime
from airflow_provider_varian.retrieval.plan import Ask, Stage, asks_of
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.uids import is_uid

logger = logging.getLogger(__name__)

_VERB: Final = "C-MOVE"
_UNREACHED: Final = 0xA702


class Moves:
    """Puts the requests and keeps the account.

    :param peer: whom to ask.
    :param profile: its habits.
    :param request: what the user asked for.
    :param manifest: where requests and instances are written down.
    :param destination: AE title of the move destination.
    :param done: the states of an instance that is not asked for any more.
    :param asked: what was asked for before somebody else waited, and where it is noted what is asked for.
    :param cancellation: stops it from outside.
    :param on_progress: called with each pending response.
    :param on_answer: called after each request.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        profile: Profile,
        request: RetrievalRequest,
        manifest: Manifest,
        destination: str,
        done: Collection[State],
        asked: Asked,
        cancellation: Cancellation,
        on_progress: Progress | None,
        on_answer: Callable[[], None],
    ) -> None:
        self._peer = peer
        self._profile = profile
        self._request = request
        self._about: set[str] | None = None
        self._manifest = manifest
        self._destination = destination
        self._done = done
        self._asked = asked
        self._stage = Stage.AS_ASKED
        self._may_come = False
        self._cancellation = cancellation
        self._on_progress = on_progress
        self._on_answer = on_answer
        self._model = model_for(request.level, peer.information_model)
        #: The peer's.
        self.time = PeersTime(peer, step="C-MOVE", work="move", verb="move", clock=time.monotonic)
        self.time.begin()
        #: What the peer reported, request by request.
        self.reports: list[SubOperations] = []
        #: What went wrong last.
        self.error: DicomError | None = None
        #: Whether asking more narrowly can bring anything.
        self.is_over = False

    def take_up(self, request: RetrievalRequest) -> None:
        """Ask for the expected instances of another request from here on, and for no others."""
        self._request = request
        self._about = {item.sop_instance_uid for item in request.expected or ()}

    def asks(self, stage: Stage) -> tuple[Ask, ...]:
        """Return the requests of a stage for what is outstanding; :meth:`put` takes them next."""
        # To the plan, what is not to be asked for is here.
        entries = [
            entry for uid, entry in self._manifest.ledger.entries.items() if self._about is None or uid in self._about
        ]
        account = Ledger(
            Entry(
                sop_instance_uid=entry.sop_instance_uid,
                sop_class_uid=entry.sop_class_uid,
                study_instance_uid=entry.study_instance_uid,
                series_instance_uid=entry.series_instance_uid,
                state=State.VERIFIED if entry.state in self._done else State.FOUND,
            )
            for entry in entries
        )
        self._stage = stage
        rest = self._asked.rest(_VERB, stage, account)
        return tuple(ask for ask in asks_of(stage, self._request, rest, self._profile) if ask.brings or rest is account)

    def put(self, asks: Sequence[Ask]) -> bool:
        """Put requests, over a new association when one is lost; :attr:`error` tells what went wrong.

        :return: whether anything may come of them: not of what was never put, or refused.
        :raises CancelledError: cancelled.
        :raises DestinationWriteError: the manifest cannot be written.
        """
        reports: list[RequestReport] = []
        self._may_come = False
        try:
            self._put(deque(asks), reports)
        except (CancelledError, DestinationWriteError):
            raise
        except DicomError as error:
            if isinstance(error, UnknownMoveDestinationError):
                error.hint = (
                    f"Enter {self._destination} with its own address and port under Trusted Application Entities"
                )
            self.error, self.is_over = error, True
        if reports and all(report.status == _UNREACHED for report in reports):
            # It cannot reach the destination: asking more narrowly would not help.
            self.is_over = True
        return self._may_come

    def _put(self, queue: deque[Ask], reports: list[RequestReport]) -> None:
        while queue:
            self.time.left()
            proposed = contexts.move(self._model.move_uid)
            with LastingAssociation(
                self._peer, proposed, step="C-MOVE", cancellation=self._cancellation, on_wait=self.time.give
            ) as lasting:
                while queue and lasting.current.assoc.is_established:
                    association = lasting.next()
                    self._note_peer(association.negotiated)
                    ask = queue.popleft()
                    report = RequestReport(
                        attempt=self._manifest.attempts, method="C-MOVE", level=str(ask.level), asked=len(ask.brings)
                    )
                    self._manifest.requests.append(report)
                    reports.append(report)
                    self._ask(association, ask, report)
                    self._on_answer()

    def _ask(self, association: PeerAssociation, ask: Ask, report: RequestReport) -> None:
        self._asked.note(_VERB, self._stage, ask)
        for uid in ask.brings:
            self._manifest.ledger.entries[uid].attempts += 1
        started = time.monotonic()
        try:
            done = move(
                association,
                self._model.move_uid,
                ask.identifier(self._model),
                destination=self._destination,
                on_progress=self._on_progress,
                deadline=self.time.left(),
                # Pending responses are optional and the objects go elsewhere, so silence says nothing (semantics 11):
                # only retrieve_deadline and the loss of the association end the wait.
                idle_for=lambda: 0.0,
            )
        except DicomError as error:
            report.problem, report.status = error.what, error.status
            for uid in ask.brings:
                self._manifest.ledger.entries[uid].reason = f"the request for it failed: {error.what}"
            # 0xA900 is about the keys of this one request; other refusals are about all of them.
            if not error.transient and error.status != 0xA900:
                raise
            self.error = error
            self._may_come |= error.transient
            logger.warning("%s", error)
        else:
            self._may_come = True
            self._read(ask, done, report)
        finally:
            report.seconds = time.monotonic() - started

    def _read(self, ask: Ask, done: SubOperations, report: RequestReport) -> None:
        """Write down what the peer reports, of the request and of each instance."""
        self.reports.append(done)
        report.note(done)
        error = status.error_for("C-MOVE", done.status, peer=self._peer.name, comment=done.error_comment)
        words = status.describe("C-MOVE", done.status)
        if error is not None:
            report.problem = words
            if done.status == _UNREACHED:
                # What the peer says when it cannot reach the destination (varian-daemon 4.18).
                error.hint = (
                    f"Check that {self._destination} runs, that the peer's entry for it has the right address and "
                    "port, and the firewall between the two"
                )
            self.error = error
        self._expect_named(ask, done)
        named = set(done.failed_sop_instance_uids)
        entries = self._manifest.ledger.entries
        covered = _covers(done, [uid for uid in ask.brings if uid not in named], is_failure=error is not None)
        for uid in ask.brings:
            if uid in named:
                entries[uid].state, entries[uid].reason = State.FOUND, f"the peer names it as failed: {words}"
            elif covered:
                entries[uid].state, entries[uid].reason = State.REPORTED, ""
                report.received += 1
            else:
                entries[uid].state, entries[uid].reason = State.FOUND, _told(done, len(ask.brings), words)

    def _expect_named(self, ask: Ask, done: SubOperations) -> None:
        """Enter what the peer names as failed and did not list: it belongs to what was asked for as a whole."""
        if ask.level is Level.IMAGE:
            return
        keys = dict(ask.keys)
        for uid in done.failed_sop_instance_uids:
            if is_uid(uid) and uid not in self._manifest.ledger.entries:
                words = status.describe("C-MOVE", done.status)
                self._manifest.ledger.expect(
                    Entry(
                        sop_instance_uid=uid,
                        study_instance_uid=_only(keys.get("StudyInstanceUID", ())),
                        series_instance_uid=_only(keys.get("SeriesInstanceUID", ())),
                        attempts=1,
                        reason=f"the peer names it as failed: {words}",
                    )
                )

    def _note_peer(self, negotiated: Negotiated) -> None:
        self._manifest.peer.update(
            implementation_class_uid=negotiated.implementation_class_uid,
            implementation_version_name=negotiated.implementation_version_name,
            accepted_contexts=[list(pair) for pair in negotiated.accepted],
        )


def _covers(done: SubOperations, asked: Sequence[str], *, is_failure: bool) -> bool:
    """Say whether a report covers all that was asked for and is not named as failed.

    Counts are optional (PS3.4 C.4.2.1.6 ff.). Without any, success says it of all; 0xB000, failures or warnings, of
    those that it does not name, if it names any.
    """
    if done.completed is None and done.warning is None:
        if done.failed_sop_instance_uids:
            return not is_failure
        return done.status == status.SUCCESS and not done.failed
    sent = (done.completed or 0) + (done.warning or 0)
    return sent >= len(asked) and (done.failed or 0) <= len(done.failed_sop_instance_uids)


def _told(done: SubOperations, asked: int, words: str) -> str:
    if done.completed is None and done.warning is None:
        return f"the peer answers: {words}"
    return f"the peer reports {(done.completed or 0) + (done.warning or 0)} of {asked} as sent: {words}"


def _only(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else ""
