"""Retrieve: bring objects here, by C-GET, or by C-MOVE to a receiver inside this process or to a standing one.

:func:`retrieve` is the one implementation behind hook, operators and command line. What it promises:
the outcome comes from the per-instance ledger, what is held is not moved again, a retry asks for the
missing alone, and the receiver is stopped whatever happens.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.query.find import OnQuery
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.receiver.claim_lock import only_try
from airflow_provider_varian.receiver.observer import Observer
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.sweep import RETENTION_SECONDS
from airflow_provider_varian.retrieval.asked import Before, is_judged, keep_flags, put_off
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.earlier import begun, forget_fetched, is_unfinished, still_unexpected
from airflow_provider_varian.retrieval.held import Held, Verify
from airflow_provider_varian.retrieval.landing import spool_of, taking
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.listing import check_keywords
from airflow_provider_varian.retrieval.manifest import Manifest, leave_pending, load_manifest
from airflow_provider_varian.retrieval.means import Means, Progress
from airflow_provider_varian.retrieval.method import Method, check_method, method_of
from airflow_provider_varian.retrieval.missing import judge_missing
from airflow_provider_varian.retrieval.outcome import State, outcome_of
from airflow_provider_varian.retrieval.patience import patient_profile
from airflow_provider_varian.retrieval.question import Question
from airflow_provider_varian.retrieval.receivers import NamedReceiver
from airflow_provider_varian.retrieval.recheck import RECHECK_ROUNDS, check_rounds
from airflow_provider_varian.retrieval.request import Expected, RetrievalRequest
from airflow_provider_varian.retrieval.result import RetrievalResult, message_of
from airflow_provider_varian.retrieval.transfer import Transfer
from airflow_provider_varian.retrieval.versions import Refresh, Versions, check_refresh
from airflow_provider_varian.waiting import Try, Waiting

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath

__all__ = ["OnChange", "RetrievalResult", "retrieve"]

logger = logging.getLogger(__name__)

OnChange = Callable[[Manifest], None]

#: How long a task waits by default for the receiver of another one to finish.
PORT_WAIT_SECONDS = 600.0


def retrieve(
    peer: Peer,
    request: RetrievalRequest,
    *,
    profile: Profile,
    destination: str | Path | DestinationPath | Destination,
    spool_root: str | os.PathLike[str],
    retrieval_id: str,
    layout: Layout | str | None = None,
    method: Method | None = None,
    port_wait_seconds: float = PORT_WAIT_SECONDS,
    settle_seconds: float | None = None,
    stable_counts: int | None = None,
    stable_interval_seconds: float | None = None,
    verify: Verify | None = None,
    refresh: Refresh = "if_changed",
    recheck_rounds: int = RECHECK_ROUNDS,
    on_change: OnChange | None = None,
    on_progress: Progress | None = None,
    cancellation: Cancellation | None = None,
    receiver: NamedReceiver | None = None,
    spool_retention_seconds: float = RETENTION_SECONDS,
    on_query: OnQuery | None = None,
    observer: Observer | None = None,
    dry_run: bool = False,
    task_try: Try | None = None,
) -> RetrievalResult:
    """Bring what a request names to a destination, and account for each instance.

    :param peer: whom to ask.
    :param request: level, unique keys, and which instances should come.
    :param profile: the peer's habits.
    :param destination: root under which objects are filed.
    :param spool_root: where objects are received in this process; a local folder. With a standing receiver on this host
        its spool is used instead.
    :param retrieval_id: identity of the work (:mod:`.identity`): a retry has the same.
    :param layout: where an object is filed below the root.
    :param method: ``auto``, ``get`` or ``move``; ``None``: the connection's ``retrieve_method``.
    :param port_wait_seconds: how long to wait for a receiver's port that is taken; for a standing receiver that is not
        running, a minute at most.
    :param settle_seconds: seconds of quiet after which late objects are given up; ``None``: the profile's.
    :param stable_counts: equal lists in a row that make a list stable; ``None``: the profile's.
    :param stable_interval_seconds: seconds between two of them; ``None``: the profile's.
    :param verify: what makes an object count as held: that it is at its final ``path``, or that it also has
        the ``hash`` of the manifest; ``None``: ``hash`` after a try that did not finish, else ``path``.
    :param refresh: what to do about plans, structure sets and doses that are held, since they may change under their
        UID (:mod:`.versions`). Images are never fetched again.
    :param recheck_rounds: how often to ask for the list again after the transfer at most (:mod:`.recheck`); 0: never.
    :param on_change: called with the manifest each time that it was written.
    :param on_progress: called with each pending response of the peer.
    :param cancellation: stops it from outside.
    :param receiver: the standing receiver that C-MOVE sends to; ``None``: one in this process. C-GET needs none.
    :param spool_retention_seconds: for how long an object of ``spool_root`` that nobody claims is kept; 0: for ever.
    :param on_query: is told of each query.
    :param observer: is told what a receiver in this process does.
    :param dry_run: list and look up what is held; move nothing and write nothing.
    :param task_try: which try of a task it is: what was left to wait in the same one goes on, and what was judged in it
        stands.
    :return: the judged retrieval. Outcomes other than ``complete`` are not errors here.
    :raises CancelledError: cancelled; the manifest stays ``pending``.
    :raises Waiting: so it does while somebody else waits, which a peer with ``deferred_as`` asks for.
    :raises DicomError: when nothing could be retrieved because of it; see
        :mod:`airflow_provider_varian.errors` for the kinds.
    """
    layout = layout if isinstance(layout, Layout) else Layout(*([layout] if layout else []))
    check_keywords(layout)
    check_refresh(refresh)
    check_rounds(recheck_rounds)
    profile = patient_profile(
        profile,
        stable_counts=stable_counts,
        stable_interval_seconds=stable_interval_seconds,
        settle_seconds=settle_seconds,
    )
    chosen = method or method_of(peer)
    check_method(peer, profile, chosen)
    cancellation = cancellation or Cancellation()
    means = Means(
        peer=peer,
        profile=profile,
        method=chosen,
        cancellation=cancellation,
        port_wait_seconds=port_wait_seconds,
        settle_seconds=profile.settle_seconds,
        on_progress=on_progress,
        receiver=receiver,
        on_query=on_query,
        observer=observer,
    )
    job = partial(
        _Job,
        means=means,
        request=request,
        destination=destination if isinstance(destination, Destination) else Destination(destination),
        layout=layout,
        retrieval_id=retrieval_id,
        verify=verify,
        refresh=refresh,
        recheck_rounds=recheck_rounds,
        on_change=on_change,
        spool_retention_seconds=spool_retention_seconds,
        task_try=task_try,
    )
    if dry_run:
        return job().plan()
    spool = spool_of(means, spool_root)
    # Before the manifest is read: another try that is still running will have written a later one.
    with only_try(spool, retrieval_id, cancellation=cancellation):
        return job().run(spool)


class _Job:
    """One try of one retrieval."""

    def __init__(
        self,
        *,
        means: Means,
        request: RetrievalRequest,
        destination: Destination,
        layout: Layout,
        retrieval_id: str,
        verify: Verify | None,
        refresh: Refresh,
        recheck_rounds: int,
        on_change: OnChange | None,
        spool_retention_seconds: float,
        task_try: Try | None,
    ) -> None:
        self._means = means
        self._spool_retention_seconds = spool_retention_seconds
        self._destination = destination
        self._layout = layout
        self._versions = Versions(destination, refresh)
        self._recheck_rounds = recheck_rounds
        self._on_change = on_change
        self._began = time.monotonic()
        means.cancellation.raise_if_cancelled()
        self._previous = load_manifest(destination, retrieval_id)
        self._task_try = task_try
        self._judged = self._previous if is_judged(self._previous, request, task_try) else None
        if self._previous is not None and not is_unfinished(self._previous) and self._judged is None:
            forget_fetched(self._previous)
        self._before = Before.of(self._previous, task_try, retrieval_id)
        self._has_looked = False
        self._verify: Verify = verify or ("hash" if self._before.was_broken_off else "path")
        self._manifest = begun(
            retrieval_id,
            request={**request.summary(), "method": means.method},
            peer_ae_title=means.peer.called_ae_title,
            layout=layout.template,
            warnings=request.warnings,
            previous=self._previous,
            goes_on=self._before.goes_on,
        )
        self._manifest.timings.setdefault("started", _now())
        self._question = Question(
            means,
            request,
            layout=layout,
            manifest=self._manifest,
            previous=self._previous,
            written_to=destination.uri_of(self._manifest.path),
        )
        self._held = Held(
            ledger=self._manifest.ledger,
            destination=destination,
            layout=layout,
            known={},
            earlier=self._previous.ledger if self._previous else None,
            versions=self._versions,
            cancellation=means.cancellation,
        )

    def plan(self) -> RetrievalResult:
        """List what should come and what is held; nothing is moved or written."""
        self._list(spool=None)
        self._look_for_held()
        return self._result(manifest_path="")

    def run(self, spool: Spool) -> RetrievalResult:
        """Retrieve, judge, and write it down.

        :param spool: where objects are received.
        """
        if self._judged is not None:
            self._manifest = self._judged
            if self._on_change is not None:
                self._on_change(self._manifest)
            return self._result(self._destination.uri_of(self._manifest.path))
        self._write()
        try:
            error = self._retrieve(spool)
        except Waiting as waiting:
            put_off(self._manifest, waiting, self._task_try, **self._before.noted(looked=self._has_looked))
            self._write()
            raise
        except DicomError as problem:
            leave_pending(self._manifest, problem, self._write)
            raise
        self._judge(error)
        self._write()
        if error is not None and not any(entry.is_here for entry in self._manifest.ledger.entries.values()):
            raise error
        return self._result(self._destination.uri_of(self._manifest.path), error)

    def _retrieve(self, spool: Spool) -> DicomError | None:
        with self._timed("list"):
            self._list(spool)
        if not self._manifest.ledger.entries:
            return None
        landing = taking(
            self._means,
            spool,
            manifest=self._manifest,
            earlier=self._previous.ledger if self._previous else None,
            destination=self._destination,
            layout=self._layout,
            held=self._held,
            versions=self._versions,
            on_fetched=self._write,
            retention_seconds=self._spool_retention_seconds,
        )
        with landing as (arrivals, intake):
            self._look_for_held()
            intake.take_leftovers()
            self._write()
            with Transfer(
                self._means,
                request=self._question.request,
                manifest=self._manifest,
                arrivals=arrivals,
                intake=intake,
            ) as transfer:
                with self._timed("transfer"):
                    asked_for_something = bool(self._manifest.ledger.outstanding)
                    transfer.run(settle_first=self._was_ended(), has_settled=self._before.has_settled)
                # A list that was taken just now is not taken again: a rerun that finds all of it held is over.
                if asked_for_something and not transfer.broke_off and not self._question.request.limited:
                    with self._timed("recheck"):
                        self._recheck(transfer)
        if asked_for_something or self._before.goes_on:
            self._warn_of_unlisted()
        # What came between the last look and the end of the receiver is in the spool, and claimed next time.
        return transfer.error

    def _list(self, spool: Spool | None) -> None:
        self._question.list()
        self._held.know({item.sop_instance_uid: item.values for item in self._question.request.expected or ()})
        ledger = self._manifest.ledger
        ledger.unexpected = still_unexpected(ledger, destination=self._destination, spool=spool)

    def _look_for_held(self) -> None:
        self._held.mark(self._verify)
        if (self._before.was_looking or self._has_looked) and self._before.goes_on and self._previous is not None:
            keep_flags(self._manifest.ledger, self._previous.ledger)
        self._has_looked = True
        if count := self._versions.undecided:
            self._manifest.warn(
                f"{count} plans, structure sets or doses are held, and the peer does not say whether they changed: "
                "they are asked for again"
            )

    def _recheck(self, transfer: Transfer) -> None:
        """Ask for the list again, and retrieve what is new (:mod:`.recheck`)."""

        def take(new: Sequence[Expected]) -> None:
            self._write()
            self._held.know({item.sop_instance_uid: item.values for item in new})
            self._look_for_held()
            transfer.run_also(self._question.about(new))

        self._question.put_again(rounds=self._recheck_rounds, take=take)

    def _warn_of_unlisted(self) -> None:
        """Say that objects came of what was asked for as a whole which no list names: others may have stayed away."""
        if count := sum(entry.is_here for entry in self._manifest.ledger.unexpected.values()):
            self._manifest.warn(
                f"{count} instances came that the peer does not list, so its list may leave out others that did not "
                "come; run it again later, or say how many there should be (minimum)"
            )

    def _was_ended(self) -> bool:
        """Say whether an earlier try was killed, or this one has asked before: what was asked for may still come."""
        return self._before.was_killed or self._before.has_asked

    def _judge(self, error: DicomError | None) -> None:
        ledger, self._manifest.waiting = self._manifest.ledger, None
        self._manifest.judged_in = "" if self._task_try is None else self._task_try.id
        judge_missing(ledger, otherwise=error.what if error is not None else "", held=self._versions.reason)
        self._manifest.outcome = outcome_of(
            found=len(ledger.entries),
            verified=ledger.count(State.VERIFIED),
            minimum=self._question.request.minimum,
            limited=self._question.request.limited,
        )
        self._manifest.message = message_of(self._manifest, error)
        self._manifest.timings["finished"] = _now()
        self._manifest.timings["seconds"] = round(time.monotonic() - self._began, 3)
        logger.info("Retrieval %s: %s, %s", self._manifest.id, self._manifest.outcome, self._manifest.message)

    def _write(self) -> None:
        self._manifest.write(self._destination)
        if self._on_change is not None:
            self._on_change(self._manifest)

    def _result(self, manifest_path: str, error: DicomError | None = None) -> RetrievalResult:
        return RetrievalResult(
            outcome=self._manifest.outcome,
            manifest_path=manifest_path,
            manifest=self._manifest,
            counts=self._manifest.ledger.counts(),
            error=error,
        )

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._manifest.timings[f"{what}_seconds"] = round(time.monotonic() - started, 3)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
