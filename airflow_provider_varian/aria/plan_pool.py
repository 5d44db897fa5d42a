"""What one run of exports retrieves, once: several plans of a patient share images and structure sets.

The pool is a folder of the destination, ``.dicom/pool/{run}/{SOPInstanceUID}.dcm``, filled by ordinary retrievals with
their ledgers and manifests. Each plan's own folder gets its copies from it (:mod:`.plan_folder`). So:

- What is at its path in the pool is whole and not asked for again, by no other plan of the run and by no retry.
- What is in the plan's own folder from an earlier run is held: images and records never change and are not looked at
  again. Plans, structure sets and doses may change under their UID, so they are put into the pool as they are, and the
  retrieval judges by what the peer answers whether to fetch them again (semantics 9).
- What an earlier run only read, to know whose it is, is taken from that run's pool and judged in the same way: a plan
  that is never exported is not transferred anew each week.
- Tasks that want objects of the same patient take turns (:mod:`.turns`), and the later one finds what the earlier one
  brought. Without a lock both transfer it, and one file stands.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol

from pydicom import dcmread

from airflow_provider_varian.aria.copies import copy_once
from airflow_provider_varian.aria.plan_set import Role
from airflow_provider_varian.errors import (
    DicomError,
    OutOfResourcesError,
    PeerFailureError,
    PermanentDicomError,
    RefusedByPeerError,
)
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.request import Expected, RetrievalRequest
from airflow_provider_varian.uids import CHANGING_STORAGE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from airflow_provider_varian.retrieval.result import RetrievalResult
    from airflow_provider_varian.retrieval.retrieve import OnChange

logger = logging.getLogger(__name__)

#: Where an object lies in a pool.
POOL_LAYOUT: Final = "{SOPInstanceUID}.dcm"
#: From so many wanted instances of a series on it is asked for as a whole: one request instead of hundreds.
_WHOLE_SERIES: Final = 4
#: What a peer says of single objects. Anything else is about the connection, us, or the whole of a request.
ABOUT_OBJECTS: Final = (PeerFailureError, OutOfResourcesError, RefusedByPeerError)


#: Waits for this task's turn, for as long as a block runs.
Turn = Callable[[], AbstractContextManager[None]]


class Retrieve(Protocol):
    """Brings objects into the pool; raises what :func:`airflow_provider_varian.retrieval.retrieve.retrieve` raises."""

    def __call__(self, request: RetrievalRequest, *, part: str, layout: str, on_change: OnChange) -> RetrievalResult:
        """Retrieve.

        :param request: what.
        :param part: names this retrieval among those of the task: a retry has the same names.
        :param layout: where objects are filed below the pool.
        :param on_change: called with the manifest each time that it was written.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What became of an object that was asked for.

    :param is_here: it is whole on storage.
    :param reason: why not, in words without identifiers.
    :param path: where it is, below the destination's root.
    :param bytes: size of its file.
    :param sha256: of its file; empty when nobody has taken it yet.
    :param held: it was there before this task asked for anything.
    :param conflicts: other contents under its UID, which came too and lie beside it.
    :param entry: its line in the ledger of the retrieval; None when nothing had to be asked.
    """

    is_here: bool
    reason: str = ""
    path: PurePosixPath | None = None
    bytes: int = 0
    sha256: str = ""
    held: bool = False
    conflicts: tuple[PurePosixPath, ...] = ()
    entry: Entry | None = None


@dataclass(slots=True)
class _Seen:
    """The last manifest of a retrieval, also of one that ended in an error."""

    manifest: Manifest | None = None

    def __call__(self, manifest: Manifest) -> None:
        self.manifest = manifest


@dataclass(slots=True, kw_only=True)
class PlanPool:
    """The pool as one plan's task uses it; what the plan-set resolver calls a fetcher.

    :param destination: the destination of the exports.
    :param folder: the pool, below its root.
    :param own: what the plan's own folder holds, by SOP Instance UID, below the root.
    :param retrieve: brings objects into the pool.
    :param patient_id: whose objects; a peer with Patient Root alone needs it.
    :param turn: makes tasks that want objects of this patient take turns.
    :param known_failure: says why an object that did not come can not come, by what the peer answered of it; empty
        when that is not known.
    :param former: pools of earlier runs with the same peer, below the root, the latest first.
    """

    destination: Destination
    folder: PurePosixPath
    own: Mapping[str, PurePosixPath]
    retrieve: Retrieve
    patient_id: str = field(repr=False)
    turn: Turn
    known_failure: Callable[[Expected], str] = lambda item: ""
    former: Sequence[PurePosixPath] = ()
    manifests: list[Manifest] = field(default_factory=list)
    _got: dict[str, Got] = field(default_factory=dict)
    _parts: Counter[str] = field(default_factory=Counter)
    _pooled_before: dict[str, PurePosixPath] | None = None

    def fetch(self, expected: Sequence[Expected], part: str) -> dict[str, Got]:
        """Bring objects here, those that are here already not again; return what became of each.

        What the peer does not export is no error here: it is not here, for a reason.

        :param expected: what; the values hold what the peer answered of plans, structure sets and doses, by which a
            held version is judged.
        :param part: names this batch among those of the task.
        :raises DicomError: when the peer, or our own storage, cannot be used.
        """
        wanted = {item.sop_instance_uid: item for item in expected}
        open_ones = [item for uid, item in wanted.items() if uid not in self._got and not self._is_own(item)]
        if open_ones:
            with self.turn():
                self._bring(open_ones, part)
        return {uid: self._got[uid] for uid in wanted}

    def read(self, uid: str) -> Dataset:
        """Return an object that is here, without its pixels.

        :raises KeyError: when it was not fetched, or is not here.
        """
        path = self._got[uid].path
        if path is None:
            raise KeyError(uid)
        with self.destination.local_copy(path) as local:
            return dcmread(local, stop_before_pixels=True)

    def _is_own(self, item: Expected) -> bool:
        """Take an image or a record from the plan's own folder: it never changes."""
        uid = item.sop_instance_uid
        path = self.own.get(uid)
        if path is None or not item.sop_class_uid or item.sop_class_uid in CHANGING_STORAGE:
            return False
        size = self.destination.size(path)
        if not size:
            return False
        self._got[uid] = Got(is_here=True, path=path, bytes=size, held=True)
        return True

    def _bring(self, wanted: Sequence[Expected], part: str) -> None:
        for item in wanted:
            self._put_in(item.sop_instance_uid)
        # Each a retrieval of its own: what one of them lacks is not another one's.
        self._parts[part] += 1
        part = f"{part} {self._parts[part]}"
        whole, single = _by_series(wanted)
        if whole:
            series = sorted({item.series_instance_uid for item in whole})
            self._retrieve(whole, Level.SERIES, {"SeriesInstanceUID": series}, f"{part} series")
        if single:
            self._retrieve(single, Level.IMAGE, {}, part)

    def _put_in(self, uid: str) -> None:
        """Put what the plan's own folder holds, or a plan's that was exported too, or an earlier pool, into the pool.

        Unless the run has brought it already. Which plan an object is of takes a look at the patient's other plans.
        """
        pooled = self.folder / f"{uid}.dcm"
        if self.destination.size(pooled) is not None:
            return
        places = (self.own.get(uid), PurePosixPath(uid) / Role.PLAN.folder / f"{uid}.dcm", self._in_former(uid))
        held = next((place for place in places if place is not None and self.destination.size(place)), None)
        if held is not None:
            with self.destination.local_copy(held) as local:
                copy_once(self.destination, local, pooled)

    def _in_former(self, uid: str) -> PurePosixPath | None:
        """Return where an earlier run has it; each pool is listed once."""
        if self._pooled_before is None:
            pools = (self.destination.names_beside(pool / "any", "") for pool in reversed(self.former))
            self._pooled_before = {path.stem: path for paths in pools for path in paths}
        return self._pooled_before.get(uid)

    def _retrieve(self, wanted: Sequence[Expected], level: Level, keys: Mapping[str, Sequence[str]], part: str) -> None:
        patient = {"PatientID": self.patient_id} if self.patient_id else {}
        request = RetrievalRequest(level=level, keys=patient | dict(keys), expected=tuple(wanted))
        seen = _Seen()
        error: DicomError | None
        try:
            error = self.retrieve(request, part=part, layout=POOL_LAYOUT, on_change=seen).error
        except ABOUT_OBJECTS as problem:
            # It came to its end, and nothing came: each instance has its reason in the ledger.
            if seen.manifest is None or seen.manifest.outcome is Outcome.PENDING:
                raise
            error = problem
        if seen.manifest is None:
            raise PermanentDicomError("a retrieval left no account", step="export")
        self.manifests.append(seen.manifest)
        entries = seen.manifest.ledger.entries
        lacking = [item for item in wanted if not entries[item.sop_instance_uid].is_here]
        if lacking and error is not None and error.transient and not isinstance(error, ABOUT_OBJECTS):
            # The peer went away amid it. What came stays in the pool, and a retry asks for the rest.
            raise error
        self._got |= {item.sop_instance_uid: self._judged(entries[item.sop_instance_uid], item) for item in wanted}

    def _judged(self, entry: Entry, item: Expected) -> Got:
        if not entry.is_here:
            reason = self.known_failure(item) or entry.reason or "it did not come"
            return Got(is_here=False, reason=reason, entry=entry)
        return Got(
            is_here=True,
            path=self.folder / entry.path,
            bytes=entry.bytes or 0,
            sha256=entry.sha256,
            held=entry.held,
            conflicts=tuple(self.folder / other for other in entry.conflicts) if entry.state is State.CONFLICT else (),
            entry=entry,
        )


def _by_series(wanted: Iterable[Expected]) -> tuple[list[Expected], list[Expected]]:
    """Tell what is asked for by whole series from what is asked for one by one."""
    items = list(wanted)
    counts: dict[str, int] = {}
    for item in items:
        counts[item.series_instance_uid] = counts.get(item.series_instance_uid, 0) + 1
    whole = [item for item in items if item.series_instance_uid and counts[item.series_instance_uid] >= _WHOLE_SERIES]
    single = [
        item for item in items if not item.series_instance_uid or counts[item.series_instance_uid] < _WHOLE_SERIES
    ]
    return whole, single
