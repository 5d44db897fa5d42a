"""One try of a third-party move: list, look, ask, look again, judge, and write it down each time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.suboperations import SubOperations
from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.query.find import OnQuery
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.asked import Asked, Before, put_off
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.earlier import expectation, go_on, is_unfinished
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.listing import Listed, list_expected
from airflow_provider_varian.retrieval.manifest import Manifest, leave_pending, load_manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State, outcome_of
from airflow_provider_varian.retrieval.plan import Ask, stages_of
from airflow_provider_varian.retrieval.recheck import recheck
from airflow_provider_varian.retrieval.request import Expected, Relist, Relisted, RetrievalRequest
from airflow_provider_varian.retrieval.third_party_moves import Moves
from airflow_provider_varian.retrieval.third_party_proof import ListedAtPeer, Proof, Watch, may_change
from airflow_provider_varian.retrieval.third_party_result import ThirdPartyResult, message_of, sum_of, why_missing
from airflow_provider_varian.waiting import Try, Waiting

logger = logging.getLogger(__name__)

OnChange = Callable[[Manifest], None]

#: States of what went out, as far as somebody says.
_SENT: Final = (State.REPORTED, State.LISTED, State.VERIFIED)
_PROVEN: Final = (State.LISTED, State.VERIFIED)
#: How often the manifest is written while requests are answered, seconds.
_WRITE_SECONDS: Final = 5.0


class ThirdPartyJob:
    """One try of one third-party move."""

    def __init__(
        self,
        peer: Peer,
        *,
        request: RetrievalRequest,
        destination: str,
        profile: Profile,
        root: Destination | None,
        retrieval_id: str,
        proof: Proof | None,
        patients: dict[str, str],
        recheck_rounds: int,
        on_change: OnChange | None,
        on_progress: Callable[[SubOperations], None] | None,
        on_account: OnChange | None,
        on_query: OnQuery | None,
        cancellation: Cancellation,
        task_try: Try | None,
    ) -> None:
        self._peer = peer
        self._on_account = on_account
        self._on_query = on_query
        self._request = request
        self._destination = destination
        self._profile = profile
        self._root = root
        self._proof = proof
        self._patients = patients
        self._recheck_rounds = recheck_rounds
        self._on_change = on_change
        self._on_progress = on_progress
        self._cancellation = cancellation
        self._watch = (
            None
            if proof is None
            else Watch(proof=proof, quiet_seconds=profile.settle_seconds, cancellation=cancellation)
        )
        if self._watch is not None and isinstance(proof, ListedAtPeer) and root is not None:
            # A folder is read in the task: whether others can read it is not known. Without a manifest nobody could go
            # on.
            self._watch.leaves = partial(proof.left_to_others, retrieval_id)
        #: What counts as done. Something proven once is, also when nobody is asked any more.
        self._done: Collection[State] = _SENT if proof is None else (proof.state,)
        self._began = self._written = time.monotonic()
        self._previous = self._load(retrieval_id)
        self._task_try = task_try
        self._before = Before.of(self._previous, task_try, retrieval_id)
        self._has_looked = False
        self._asked = Asked(self._before.waiting)
        self._manifest = self._fresh(retrieval_id)
        self._reports: list[SubOperations] = []
        self._relist: Relist | None = request.relist

    def run(self) -> ThirdPartyResult:
        """Move, judge, and write it down."""
        for words in self._request.warnings:
            logger.warning("%s: %s", self._peer.name, words)
        self._write()
        try:
            self._list()
            error = self._move()
        except Waiting as waiting:
            left = (entry for entry in self._manifest.ledger.entries.values() if entry.state not in self._done)
            self._manifest.waiting = self._asked.to_json(Ledger(left))
            put_off(self._manifest, waiting, self._task_try, **self._before.noted(looked=self._has_looked))
            self._write()
            raise
        except DicomError as problem:
            leave_pending(self._manifest, problem, self._write)
            raise
        self._judge(error)
        self._write()
        if error is not None and not any(entry.state in _SENT for entry in self._manifest.ledger.entries.values()):
            raise error
        return self._result(error)

    def _load(self, retrieval_id: str) -> Manifest | None:
        """Return what an earlier try of the same work left; what went elsewhere, or came here, is other work."""
        found = None if self._root is None else load_manifest(self._root, retrieval_id)
        if found is None or found.request.get("move_destination") != self._destination:
            return None
        if not is_unfinished(found):
            # What a finished try sent of them is over: they may have changed since (semantics 9). Forgotten here, where
            # the ledger is written down next: else a kill would make them the proof of a try that did not finish.
            found.ledger.entries = {
                uid: entry.anew() if may_change(entry) else entry for uid, entry in found.ledger.entries.items()
            }
        return found

    def _fresh(self, retrieval_id: str) -> Manifest:
        manifest = Manifest(
            id=retrieval_id,
            request={**self._request.summary(), "method": "move", "move_destination": self._destination},
            peer={"ae_title": self._peer.called_ae_title},
            attempts=1,
            warnings=list(self._request.warnings),
            timings={"started": _now()},
        )
        if self._proof is not None:
            # Where the paths of verified instances begin; they are not below the manifest's own root.
            place = "verify_path" if self._proof.state is State.VERIFIED else "verify_peer"
            manifest.request[place] = self._proof.where
        if self._previous is not None:
            go_on(manifest, self._previous, is_same_try=self._before.goes_on)
            manifest.waiting = None
        return manifest

    def _list(self) -> None:
        """Find out which instances should go there, and what an earlier try knew of them."""
        listed_here = self._request.expected is None
        if listed_here:
            asked = self._request
            expected, limited, warnings = self._list_keys(asked)
            self._relist = partial(self._listed_again, asked)
            self._request = replace(asked, expected=expected, limited=asked.limited or limited)
            for words in warnings:
                self._manifest.warn(words)
        self._know(self._request.expected or ())
        joined = expectation(
            (item.entry() for item in self._request.expected or ()),
            previous=self._previous,
            request=self._manifest.request,
            listed_here=listed_here,
            limited=self._request.limited,
        )
        self._manifest.ledger = Ledger(joined.entries.values())
        self._request = replace(self._request, limited=joined.limited)
        if joined.limited:
            self._manifest.request["limited"] = True
        if joined.kept:
            words = (
                f"{joined.kept} instances that an earlier try found are not listed by the peer any more; they are "
                "accounted for all the same"
            )
            logger.warning("Move %s: %s", self._manifest.id, words)
            self._manifest.warnings.append(words)
            if self._request.level.unique_key not in self._request.keys:
                self._request = replace(self._request, level=Level.IMAGE)
        for uid, entry in self._manifest.ledger.entries.items():
            before = self._previous.ledger.entries.get(uid) if self._previous is not None else None
            if before is not None and self._before.was_looking:
                entry.attempts, entry.found_late, entry.reason = before.attempts, before.found_late, before.reason
            # What was proven is looked up again where that is possible, and else stands as it was.
            if before is not None and (before.state is State.REPORTED or before.state in self._done):
                kept = before if self._before.was_looking else replace(before, held=True, attempts=0)
                self._manifest.ledger.entries[uid] = (
                    kept if self._proof is None else replace(entry, state=State.REPORTED)
                )

    def _listed_again(self, asked: RetrievalRequest) -> Relisted:
        # One more than the limit tells whether it was hit.
        expected, _, warnings = self._list_keys(replace(asked, limit=asked.limit and asked.limit + 1))
        return Relisted(expected, warnings)

    def _list_keys(self, request: RetrievalRequest) -> Listed:
        return list_expected(
            self._peer,
            request,
            layout=Layout(),
            profile=self._profile,
            cancellation=self._cancellation,
            on_query=self._on_query,
        )

    def _know(self, items: Iterable[Expected]) -> None:
        self._patients.update(
            (item.sop_instance_uid, str(item.values["PatientID"])) for item in items if item.values.get("PatientID")
        )

    def _move(self) -> DicomError | None:
        entries = self._manifest.ledger.entries
        if not entries:
            return None
        self._look_first()
        self._write()
        moves = Moves(
            self._peer,
            profile=self._profile,
            request=self._request,
            manifest=self._manifest,
            destination=self._destination,
            done=self._done,
            asked=self._asked,
            cancellation=self._cancellation,
            on_progress=self._on_progress,
            on_answer=self._write_now_and_then,
        )
        self._reports = moves.reports
        self._ask(moves, self._request)
        self._recheck(moves)
        return moves.error or (self._watch.error if self._watch is not None else None)

    def _look_first(self) -> None:
        """Find out what the destination has, before anything is asked for."""
        self._has_looked = True
        if self._watch is None:
            return
        entries = self._manifest.ledger.entries
        before = self._previous.ledger.entries if self._previous is not None else {}
        known = {uid for uid, entry in before.items() if entry.state in _PROVEN}
        self._watch.proof.disregard(entry for uid, entry in entries.items() if may_change(entry) and uid not in known)

        def take(entry: Entry) -> None:
            uid = entry.sop_instance_uid
            # To a try that goes on, what it has sent itself was not there before.
            held = before[uid].held if self._before.was_looking and uid in before and before[uid].attempts else True
            entries[uid] = replace(entry, held=held)

        until = time.monotonic() + self._peer.retrieve_deadline
        if (self._before.was_killed or self._before.has_asked) and not self._before.has_settled:
            # Its sub-operations may go on (semantics 11).
            self._watch.settle(entries, take=take, until=until, may_leave=not self._before.is_late)
            if self._watch.error is not None:
                raise self._watch.error
        else:
            # One look is enough where somebody else has waited until nothing changed.
            self._watch.first(entries, take=take, until=time.monotonic() if self._before.has_settled else until)

    def _recheck(self, moves: Moves) -> None:
        """List again, and move what is new."""
        # A list that was taken just now is not taken again.
        again = self._relist
        if again is None or self._request.limited or moves.is_over or not moves.reports:
            return

        def relist() -> Sequence[Expected] | Relisted:
            began = time.monotonic()
            try:
                return again()
            finally:
                # The list is not the move's time, least of all when it had to wait for the peer.
                moves.time.give(time.monotonic() - began)

        def take(items: Sequence[Expected]) -> None:
            self._know(items)
            entries = self._manifest.ledger.entries
            if self._proof is not None:
                new = [entries[item.sop_instance_uid] for item in items]
                self._proof.disregard(entry for entry in new if may_change(entry))
            request = replace(self._request, level=Level.IMAGE, expected=tuple(items))
            moves.take_up(request)
            self._ask(moves, request)

        rechecked = recheck(
            relist, self._manifest.ledger, rounds=self._recheck_rounds, take=take, limit=self._request.limit
        )
        for words in rechecked.warnings:
            self._manifest.warn(words)
        if rechecked.limited:
            self._request = replace(self._request, limited=True)
            self._manifest.request["limited"] = True

    def _ask(self, moves: Moves, request: RetrievalRequest) -> None:
        asked: list[tuple[Ask, ...]] = []
        before = ""
        for stage in stages_of(request):
            asks = moves.asks(stage)
            if not asks or asks in asked:
                continue
            name = f"C-MOVE {stage.name.lower().replace('_', ' ')}"
            if before:
                self._note_fallback(before, name)
            asked.append(asks)
            before = name
            if moves.put(asks):
                self._prove(moves)
            self._write()
            # What was not looked for is not known to be missing.
            if moves.is_over or (self._watch is not None and self._watch.error is not None):
                return

    def _prove(self, moves: Moves) -> None:
        if self._watch is None:
            return
        entries = self._manifest.ledger.entries

        def take(entry: Entry) -> None:
            entries[entry.sop_instance_uid] = replace(entry, reason="")

        left = {uid: entry for uid, entry in entries.items() if entry.state not in self._done}
        # Nor is it the move's time while nobody may ask the destination. What went wrong is known to this process
        # alone, which has to judge by it: who goes on after a wait would ask again.
        until, may_leave = max(moves.time.end, time.monotonic()), moves.error is None
        moves.time.give(self._watch.settle(left, take=take, until=until, may_leave=may_leave))

    def _note_fallback(self, before: str, after: str) -> None:
        entries = self._manifest.ledger.entries
        reason = f"{len(entries) - self._count_done()} of {len(entries)} instances outstanding"
        logger.info("Falling back from %s to %s: %s", before, after, reason)
        self._manifest.fallbacks.append({"from": before, "to": after, "reason": reason})

    def _count_done(self) -> int:
        return sum(entry.state in self._done for entry in self._manifest.ledger.entries.values())

    def _judge(self, error: DicomError | None) -> None:
        manifest, entries = self._manifest, self._manifest.ledger.entries
        unseen = self._watch is not None and self._watch.error is not None
        for entry in entries.values():
            if entry.state not in self._done and not (unseen and entry.state is State.REPORTED):
                entry.reason = why_missing(entry, proof=self._proof, error=error)
                entry.state = State.MISSING
        outcome = outcome_of(
            found=len(entries),
            verified=self._count_done(),
            minimum=self._request.minimum,
            limited=self._request.limited,
        )
        # Without proof nothing is complete.
        unproven = outcome is Outcome.COMPLETE and self._proof is None
        manifest.outcome = Outcome.REPORTED if unproven else outcome
        manifest.message = message_of(
            manifest, done=self._count_done(), destination=self._destination, proof=self._proof, error=error
        )
        manifest.timings["finished"] = _now()
        manifest.timings["seconds"] = round(time.monotonic() - self._began, 3)
        logger.info("Move %s: %s, %s", manifest.id, manifest.outcome, manifest.message)

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._on_account is not None:
            self._on_account(self._manifest)
        if self._root is None:
            return
        self._manifest.write(self._root)
        if self._on_change is not None:
            self._on_change(self._manifest)

    def _write_now_and_then(self) -> None:
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self._write()

    def _result(self, error: DicomError | None) -> ThirdPartyResult:
        manifest = self._manifest
        return ThirdPartyResult(
            outcome=manifest.outcome,
            manifest=manifest,
            manifest_path="" if self._root is None else self._root.uri_of(manifest.path),
            counts=manifest.ledger.counts(),
            completed=sum_of(self._reports, "completed"),
            failed=sum_of(self._reports, "failed"),
            warning=sum_of(self._reports, "warning"),
            requests=tuple(self._reports),
            error=error,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
