"""Exporting one plan: find what belongs to it, retrieve it once, file it in the plan's folder, judge, write it down.

The account is an ordinary manifest, ``{root}/.dicom/{ID}.json``, whose paths lead into the plan's folder: what tells
and verifies manifests (``varian-dicom report --verify``) tells and verifies an export.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from airflow_provider_varian.aria.plan_folder import Filed, PlanFolder
from airflow_provider_varian.aria.plan_pool import Got, PlanPool, Retrieve, Turn
from airflow_provider_varian.aria.plan_set import Completeness, Member, PlanSet, Role
from airflow_provider_varian.aria.plan_set_resolver import Finder, open_chart
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.retrieval.asked import goes_on, put_off
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.earlier import begun
from airflow_provider_varian.retrieval.held import Verify
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest, leave_pending, load_manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.waiting import Try, Waiting

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.request import Expected
    from airflow_provider_varian.retrieval.retrieve import OnChange

logger = logging.getLogger(__name__)

_NAMED_AT_MOST: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where plan sets come from and where they go.

    :param peer_name: AE title of the peer, for manifests.
    :param finder: opens a session for queries.
    :param retrieve: brings objects into the pool.
    :param destination: root of the exports.
    :param pool: the run's pool, below it.
    :param patient_turn: makes the tasks that want objects of one patient take turns.
    :param plan_turn: makes those that write one plan's folder take turns.
    :param volatile: keywords that the peer rewrites at each export.
    :param method: how is retrieved, for manifests.
    :param known_failure: says why an object that did not come can not come; empty when that is not known.
    :param former_pools: those of earlier runs, below it too, the latest first.
    :param verify: is a file of the plan's folder held when it has its size (``path``), or its ``hash`` too?
    :param task_try: in which try of a task, if one has to be known.
    """

    peer_name: str
    finder: Finder
    retrieve: Retrieve
    destination: Destination
    pool: PurePosixPath
    patient_turn: Turn
    plan_turn: Turn
    volatile: frozenset[str] = frozenset()
    method: str = "auto"
    former_pools: tuple[PurePosixPath, ...] = ()
    verify: Verify = "path"
    known_failure: Callable[[Expected], str] = lambda item: ""
    task_try: Try | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanExport:
    """What became of an export.

    :param plan_set: what belongs to the plan, judged by what is here.
    :param filed: what is in the plan's folder, by SOP Instance UID; nothing when the set went elsewhere.
    :param transferred: how many objects this try brought from the peer, those that were only read included.
    :param is_changed: whether the plan's folder was changed.
    :param folder_uri: the plan's folder; empty when the set went elsewhere.
    :param manifest: the account.
    """

    plan_set: PlanSet
    filed: Mapping[str, Filed] = field(default_factory=dict)
    transferred: int = 0
    is_changed: bool = False
    folder_uri: str = ""
    manifest: Manifest

    @property
    def outcome(self) -> str:
        """``complete``, ``incomplete``, ``ambiguous``, or ``conflict``: complete but for objects of two contents."""
        return str(self.manifest.request["verdict"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A plan set whose members have been asked for.

    :param plan_set: judged.
    :param expected: the members that are held, with what the peer answered of them.
    :param got: what became of them.
    :param pool: what brought them.
    """

    plan_set: PlanSet
    expected: tuple[Expected, ...]
    got: Mapping[str, Got]
    pool: PlanPool


def export_plan(
    site: Site,
    plan_uid: str,
    *,
    patient_id: str,
    wanted: frozenset[Role],
    export_id: str,
    with_label: bool = False,
    on_change: OnChange | None = None,
    cancellation: Cancellation,
) -> PlanExport:
    """Bring a plan set into the plan's folder.

    :param site: where it comes from and goes.
    :param plan_uid: SOP Instance UID of the plan.
    :param patient_id: whose plan it is.
    :param wanted: what of the set is wanted.
    :param export_id: identity of the work: a retry has the same.
    :param with_label: write label and course into the plan's index.
    :param on_change: called with the manifest each time that it was written.
    :param cancellation: stops it from outside.
    :raises NotFoundError: the patient has no such plan.
    :raises DicomError: when the peer or the storage cannot be used; what has come is kept, and a retry asks for the
        rest.
    """
    return _Export(site, plan_uid, export_id, with_label, on_change, cancellation).run(patient_id, wanted)


def find_plan_set(
    site: Site,
    plan_uid: str,
    *,
    patient_id: str,
    wanted: frozenset[Role],
    own: Mapping[str, PurePosixPath],
    cancellation: Cancellation,
    fetch_all: bool = True,
) -> Found:
    """Find what belongs to a plan, and bring it into the pool.

    :param own: what the plan's folder holds.
    :param fetch_all: bring all of it; else only what has to be read to know what belongs to the plan.
    """
    pool = PlanPool(
        destination=site.destination,
        folder=site.pool,
        own=own,
        retrieve=site.retrieve,
        patient_id=patient_id,
        turn=site.patient_turn,
        known_failure=site.known_failure,
        former=site.former_pools,
    )
    chart = open_chart(site.finder, pool, patient_id=patient_id, cancellation=cancellation)
    find = chart.gather if fetch_all else chart.resolve
    plan_set = find(plan_uid, wanted=wanted)
    expected = chart.expected(plan_set.held)
    got = pool.fetch(expected, "plan-set") if fetch_all else {}
    reasons = {uid: each.reason for uid, each in got.items() if not each.is_here}
    return Found(plan_set=plan_set.judged(reasons), expected=expected, got=got, pool=pool)


class _Export:
    """One try of one export."""

    def __init__(
        self,
        site: Site,
        plan_uid: str,
        export_id: str,
        with_label: bool,
        on_change: OnChange | None,
        cancellation: Cancellation,
    ) -> None:
        self._site = site
        self._plan_uid = plan_uid
        self._with_label = with_label
        self._on_change = on_change
        self._cancellation = cancellation
        self._folder = self._opened()
        previous = load_manifest(site.destination, export_id)
        self._manifest = begun(
            export_id,
            request={
                "level": "IMAGE",
                "uids": {"SOPInstanceUID": [plan_uid]},
                "keys_left_out": [],
                "minimum": None,
                "limit": None,
                "method": site.method,
                "plan": plan_uid,
                "verdict": str(Outcome.PENDING),
            },
            peer_ae_title=site.peer_name,
            layout=f"{plan_uid}/{{Modality}}/{{SOPInstanceUID}}.dcm",
            warnings=(),
            previous=previous,
            goes_on=goes_on(previous, site.task_try),
        )
        self._manifest.waiting = None
        self._manifest.timings.setdefault("started", _now())
        self._began = time.monotonic()

    def run(self, patient_id: str, wanted: frozenset[Role]) -> PlanExport:
        self._write()
        try:
            found = find_plan_set(
                self._site,
                self._plan_uid,
                patient_id=patient_id,
                wanted=wanted,
                own=self._folder.held(),
                cancellation=self._cancellation,
            )
            with self._site.plan_turn():
                return self._file(found)
        except Waiting as waiting:
            put_off(self._manifest, waiting, self._site.task_try)
            self._write()
            raise
        except DicomError as error:
            leave_pending(self._manifest, error, self._write)
            raise

    def _file(self, found: Found) -> PlanExport:
        folder = self._opened()  # by now another run may have written it
        here = [(member, found.got[member.sop_instance_uid]) for member in found.plan_set.held]
        filed = {member.sop_instance_uid: folder.file(member, got) for member, got in here}
        is_changed = folder.finish(found.plan_set, with_label=self._with_label)
        self._judge(found, filed)
        return PlanExport(
            plan_set=found.plan_set,
            filed=filed,
            transferred=sum(len(each.ledger.arrived) for each in found.pool.manifests),
            is_changed=is_changed,
            folder_uri=folder.uri,
            manifest=self._manifest,
        )

    def _opened(self) -> PlanFolder:
        return PlanFolder(
            self._site.destination,
            self._plan_uid,
            volatile=self._site.volatile,
            verify=self._site.verify,
            cancellation=self._cancellation,
        )

    def _judge(self, found: Found, filed: Mapping[str, Filed]) -> None:
        manifest = self._manifest
        entries = (_entry(member, found.got, filed) for member in found.plan_set.members)
        manifest.ledger = Ledger(entry for entry in entries if entry is not None)
        for retrieval in found.pool.manifests:
            manifest.requests += retrieval.requests[-_asked_now(retrieval) :] if _asked_now(retrieval) else []
            manifest.fallbacks += [each for each in retrieval.fallbacks if each not in manifest.fallbacks]
            manifest.peer |= {key: value for key, value in retrieval.peer.items() if value}
            # What came beside the slices that the structure set names is told by the plan set.
            known = {uid for uids in found.plan_set.unnamed_slices.values() for uid in uids}
            if not retrieval.ledger.unexpected or retrieval.ledger.unexpected.keys() - known:
                for words in retrieval.warnings:
                    manifest.warn(words)
        for words in found.plan_set.warnings:
            manifest.warn(words)
        conflicts = manifest.ledger.count(State.CONFLICT)
        verdict = str(found.plan_set.completeness)
        if conflicts and found.plan_set.completeness is Completeness.COMPLETE:
            verdict = str(State.CONFLICT)
        manifest.request["verdict"] = verdict
        manifest.outcome = Outcome.COMPLETE if verdict == Completeness.COMPLETE else Outcome.PARTIAL
        manifest.message = message_of(found.plan_set, conflicts=conflicts)
        manifest.timings["finished"] = _now()
        manifest.timings["seconds"] = round(time.monotonic() - self._began, 3)
        self._write()
        logger.info("Export of plan %s: %s, %s", self._plan_uid, verdict, manifest.message)

    def _write(self) -> None:
        self._manifest.write(self._site.destination)
        if self._on_change is not None:
            self._on_change(self._manifest)


def message_of(plan_set: PlanSet, *, conflicts: int = 0) -> str:
    """Say in one sentence what a plan set has and lacks, by roles and numbers; what is lacking by its reasons.

    :param plan_set: judged.
    :param conflicts: how many objects came with two contents.
    """
    held = _numbers(plan_set.held)
    words = [f"here: {held}" if held else "nothing of it is here"]
    if plan_set.missing:
        words.append(f"missing: {_numbers(plan_set.missing)} ({_reasons(plan_set.missing)})")
    if plan_set.not_exportable:
        words.append(f"did not come: {_numbers(plan_set.not_exportable)} ({_reasons(plan_set.not_exportable)})")
    if plan_set.ambiguous:
        words.append(f"unclear: {_numbers(plan_set.ambiguous)} ({_reasons(plan_set.ambiguous)})")
    if not plan_set.listed_whole:
        words.append("the peer counts more of the patient's objects than it lists")
    if conflicts:
        words.append(f"{conflicts} of them with two contents under one UID")
    if absent := plan_set.absent_roles:
        words.append("none there, nor named: " + ", ".join(f"{_spoken(role)}s" for role in absent))
    return "; ".join(words)


def _numbers(members: Iterable[Member]) -> str:
    counts: dict[Role, int] = {}
    for member in members:
        counts[member.role] = counts.get(member.role, 0) + 1
    return ", ".join(f"{count} {_spoken(role)}{'s' if count > 1 else ''}" for role, count in counts.items())


def _spoken(role: Role) -> str:
    return str(role).replace("_", " ")


def _reasons(members: Iterable[Member]) -> str:
    told = list(dict.fromkeys(member.reason or "no reason is known" for member in members))
    more = len(told) - _NAMED_AT_MOST
    return "; ".join(told[:_NAMED_AT_MOST]) + (f"; and {more} reasons more" if more > 0 else "")


def _entry(member: Member, got: Mapping[str, Got], filed: Mapping[str, Filed]) -> Entry | None:
    """Return a member's line in the account; none for a series or study that is missing as a whole."""
    uid = member.sop_instance_uid
    if member.names != "instance":
        return None
    here, asked = filed.get(uid), got.get(uid)
    known = asked.entry if asked is not None and asked.entry is not None else Entry(sop_instance_uid=uid)
    entry = replace(
        known,
        sop_class_uid=known.sop_class_uid or member.sop_class_uid,
        study_instance_uid=known.study_instance_uid or member.study_instance_uid,
        series_instance_uid=known.series_instance_uid or member.series_instance_uid,
        path="",
        conflicts=[],
        superseded="",
        older="",
        fetched=False,
    )
    if here is None or asked is None:
        entry.state, entry.reason, entry.held = State.MISSING, member.reason, False
        return entry
    entry.state, entry.reason, entry.held = State.VERIFIED, "", not here.is_new
    entry.path, entry.bytes, entry.sha256 = str(here.path), here.bytes, here.sha256
    entry.superseded = str(here.superseded or "")
    if here.conflicts:
        entry.state, entry.reason = State.CONFLICT, "same SOP Instance UID, other content"
        entry.conflicts = [str(path) for path in here.conflicts]
    return entry


def _asked_now(retrieval: Manifest) -> int:
    """Return how many requests of a retrieval are of its last try."""
    return sum(report.attempt == retrieval.attempts for report in retrieval.requests)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
