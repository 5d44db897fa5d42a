"""Retrieve: bring objects here, by C-GET or by C-MOVE to a receiver inside this process.

:func:`retrieve` is the one implementation behind hook, operators and command line. What it promises:
the outcome comes from the per-instance ledger, what is held is not moved again, a retry asks for the
missing alone, and the receiver is stopped whatever happens.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import CancelledError, DestinationWriteError, DicomError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.earlier import expectation
from airflow_provider_varian.retrieval.intake import Intake, Verify
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.listing import check_keywords, list_expected
from airflow_provider_varian.retrieval.manifest import Manifest, load_manifest
from airflow_provider_varian.retrieval.method import Method, check_method
from airflow_provider_varian.retrieval.outcome import Outcome, State, outcome_of
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.transfer import Means, Progress, Transfer

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath

logger = logging.getLogger(__name__)

OnChange = Callable[[Manifest], None]

#: How long a task waits by default for the receiver of another one to finish.
PORT_WAIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalResult:
    """What became of a retrieval.

    :param outcome: judged by the ledger alone.
    :param manifest_path: path or URI of the manifest; empty after a dry run.
    :param manifest: what it says.
    :param counts: numbers by word: found, verified, missing, failed, conflict, held, duplicate,
        unexpected, and bytes.
    :param error: what went wrong on the way, if anything did; the outcome may be complete all the same.
    """

    outcome: Outcome
    manifest_path: str
    manifest: Manifest = field(repr=False)
    counts: dict[str, int]
    error: DicomError | None = None


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
    verify: Verify = "path",
    on_change: OnChange | None = None,
    on_progress: Progress | None = None,
    cancellation: Cancellation | None = None,
    dry_run: bool = False,
) -> RetrievalResult:
    """Bring what a request names to a destination, and account for each instance.

    :param peer: whom to ask.
    :param request: level, unique keys, and which instances should come.
    :param profile: the peer's habits.
    :param destination: root under which objects are filed.
    :param spool_root: where objects are received; a local folder.
    :param retrieval_id: identity of the work (:mod:`.identity`): a retry has the same.
    :param layout: where an object is filed below the root.
    :param method: ``auto``, ``get`` or ``move``; ``None``: the connection's ``retrieve_method``.
    :param port_wait_seconds: how long to wait for a receiver's port that is taken.
    :param settle_seconds: seconds of quiet after which late objects are given up; ``None``: the profile's.
    :param verify: what makes an object count as held: that it is at its final ``path``, or that it also has
        the ``hash`` of the manifest.
    :param on_change: called with the manifest each time that it was written.
    :param on_progress: called with each pending response of the peer.
    :param cancellation: stops it from outside.
    :param dry_run: list and look up what is held; move nothing and write nothing.
    :return: the judged retrieval. Outcomes other than ``complete`` are not errors here.
    :raises CancelledError: cancelled; the manifest stays ``pending``.
    :raises DicomError: when nothing could be retrieved because of it; see
        :mod:`airflow_provider_varian.errors` for the kinds.
    """
    layout = layout if isinstance(layout, Layout) else Layout(*([layout] if layout else []))
    check_keywords(layout)
    chosen: Method = method or _method(peer)
    check_method(peer, profile, chosen)
    job = _Job(
        means=Means(
            peer=peer,
            profile=profile,
            method=chosen,
            cancellation=cancellation or Cancellation(),
            port_wait_seconds=port_wait_seconds,
            settle_seconds=profile.settle_seconds if settle_seconds is None else settle_seconds,
            on_progress=on_progress,
        ),
        request=request,
        destination=destination if isinstance(destination, Destination) else Destination(destination),
        layout=layout,
        retrieval_id=retrieval_id,
        spool_root=spool_root,
        verify=verify,
        on_change=on_change,
    )
    return job.plan() if dry_run else job.run()


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
        spool_root: str | os.PathLike[str],
        verify: Verify,
        on_change: OnChange | None,
    ) -> None:
        self._means = means
        self._request = request
        self._destination = destination
        self._layout = layout
        self._spool_root = spool_root
        self._verify = verify
        self._on_change = on_change
        self._began = time.monotonic()
        means.cancellation.raise_if_cancelled()
        self._previous = load_manifest(destination, retrieval_id)
        self._manifest = self._fresh(retrieval_id)

    def plan(self) -> RetrievalResult:
        """List what should come and what is held; nothing is moved or written."""
        self._list()
        with self._intake() as intake:
            intake.mark_held(self._verify)
        return self._result(manifest_path="")

    def run(self) -> RetrievalResult:
        """Retrieve, judge, and write it down."""
        self._write()
        try:
            error = self._retrieve()
        except DicomError as problem:
            self._leave_pending(problem)
            raise
        self._judge(error)
        self._write()
        if error is not None and self._has_nothing():
            raise error
        return self._result(self._destination.uri_of(self._manifest.path), error)

    def _retrieve(self) -> DicomError | None:
        with self._timed("list"):
            self._list()
        if not self._manifest.ledger.entries:
            return None
        with self._intake() as intake:
            intake.mark_held(self._verify)
            intake.take_leftovers()
            self._write()
            with (
                self._timed("transfer"),
                Transfer(self._means, request=self._request, manifest=self._manifest, intake=intake) as transfer,
            ):
                transfer.run(settle_first=self._was_killed())
        # What came between the last look and the end of the receiver is in the spool, and claimed next time.
        return transfer.error

    def _list(self) -> None:
        """Find out which instances should come, and enter them into the ledger."""
        listed_here = self._request.expected is None
        if listed_here:
            expected, limited, warnings = list_expected(
                self._means.peer,
                self._request,
                layout=self._layout,
                profile=self._means.profile,
                cancellation=self._means.cancellation,
            )
            self._request = replace(self._request, expected=expected, limited=self._request.limited or limited)
            self._manifest.warnings += [words for words in warnings if words not in self._manifest.warnings]
        joined = expectation(
            (item.entry() for item in self._request.expected or ()),
            previous=self._previous,
            request=self._manifest.request,
            listed_here=listed_here,
            limited=self._request.limited,
        )
        self._manifest.ledger.entries = joined.entries
        self._request = replace(self._request, limited=joined.limited)
        if joined.limited:
            self._manifest.request["limited"] = True
        elif joined.kept:
            self._warn_of_kept(joined.kept)
        if joined.kept and self._request.level.unique_key not in self._request.keys:
            # A selection that finds nothing any more names nothing: what was found before is asked for by name.
            self._request = replace(self._request, level=Level.IMAGE)

    def _warn_of_kept(self, count: int) -> None:
        words = (
            f"{count} instances that an earlier try found are not listed by the peer any more; they are accounted for "
            f"all the same. Where that is not wanted, remove {self._destination.uri_of(self._manifest.path)}, or "
            "retrieve in a new run"
        )
        logger.warning("Retrieval %s: %s", self._manifest.id, words)
        self._manifest.warnings.append(words)

    @contextmanager
    def _intake(self) -> Iterator[Intake]:
        spool = Spool(self._spool_root)
        spool.reconcile()
        intake = Intake(
            spool,
            retrieval_id=self._manifest.id,
            ledger=self._manifest.ledger,
            destination=self._destination,
            layout=self._layout,
            profile=self._means.profile,
            known={item.sop_instance_uid: item.values for item in self._request.expected or ()},
            earlier=self._previous.ledger if self._previous else None,
            cancellation=self._means.cancellation,
        )
        try:
            yield intake
        finally:
            intake.close()

    def _was_killed(self) -> bool:
        return self._previous is not None and self._previous.outcome is Outcome.PENDING

    def _fresh(self, retrieval_id: str) -> Manifest:
        previous = self._previous
        manifest = Manifest(
            id=retrieval_id,
            request={**self._request.summary(), "method": self._means.method},
            peer={"ae_title": self._means.peer.called_ae_title},
            ledger=Ledger(),
            attempts=1,
            layout=self._layout.template,
            warnings=list(self._request.warnings),
            timings={"started": _now()},
        )
        if previous is not None:
            manifest.attempts = previous.attempts + 1
            # A try that finds everything held asks nobody: what is known of the peer stays known.
            manifest.peer = {**previous.peer, **manifest.peer}
            manifest.requests = previous.requests
            manifest.fallbacks = previous.fallbacks
            # Until the new list is there, the account of the earlier try stands: a kill must not lose it.
            manifest.ledger = previous.ledger.copy()
        return manifest

    def _judge(self, error: DicomError | None) -> None:
        ledger = self._manifest.ledger
        ledger.judge_missing()
        self._manifest.outcome = outcome_of(
            found=len(ledger.entries),
            verified=ledger.count(State.VERIFIED),
            minimum=self._request.minimum,
            limited=self._request.limited,
        )
        self._manifest.message = _message(self._manifest, error)
        self._manifest.timings["finished"] = _now()
        self._manifest.timings["seconds"] = round(time.monotonic() - self._began, 3)
        logger.info("Retrieval %s: %s, %s", self._manifest.id, self._manifest.outcome, self._manifest.message)

    def _has_nothing(self) -> bool:
        return not any(entry.is_here for entry in self._manifest.ledger.entries.values())

    def _leave_pending(self, problem: DicomError) -> None:
        """Write down why it was not judged, as far as that can be written."""
        self._manifest.message = "cancelled" if isinstance(problem, CancelledError) else str(problem)
        try:
            self._write()
        except DestinationWriteError as error:
            logger.warning("The manifest could not be written: %s", error)

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


def _method(peer: Peer) -> Method:
    methods: dict[str, Method] = {"auto": "auto", "get": "get", "move": "move"}
    return methods[peer.retrieve_method]


def _message(manifest: Manifest, error: DicomError | None) -> str:
    counts: dict[str, Any] = manifest.ledger.counts()
    if counts["found"]:
        words = [f"{counts['verified']} of {counts['found']} instances verified"]
    else:
        words = ["nothing was found"]
    words += [f"{counts[word]} {word}" for word in ("missing", "failed", "conflict", "unexpected") if counts[word]]
    if manifest.outcome is Outcome.SHORT:
        words.append(f"at least {manifest.request['minimum']} are expected")
    if manifest.outcome is Outcome.LIMITED:
        words.append("there may be more: a limit was hit")
    if error is not None and counts["verified"] < counts["found"]:
        words.append(str(error))
    return "; ".join(words)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
