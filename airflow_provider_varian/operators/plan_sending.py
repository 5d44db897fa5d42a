"""Having the peer send a plan set to another AE: once per revision of what may change (semantics 18)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_varian.hooks.settings import below

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_varian.aria.plan_export import Site
    from airflow_provider_varian.aria.plan_set import PlanSet, Role
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.hooks.dicom import DicomHook
    from airflow_provider_varian.operators.retrieving import Retrieving
    from airflow_provider_varian.retrieval.manifest import Manifest
    from airflow_provider_varian.retrieval.request import Expected
    from airflow_provider_varian.retrieval.retrieve import OnChange

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What became of a plan set that was sent by the peer.

    :param plan_set: what belongs to the plan, judged by what was sent.
    :param outcome: ``complete`` and ``reported`` as of a third-party move, else the plan set's verdict.
    :param message: in one sentence.
    :param moved: how many objects were asked for in this try.
    :param manifest_uri: where the account is.
    :param warnings: sentences without identifiers.
    """

    plan_set: PlanSet
    outcome: str
    message: str
    moved: int
    manifest_uri: str
    warnings: tuple[str, ...]


def send_plan(
    hook: DicomHook,
    site: Site,
    plan_uid: str,
    *,
    patient_id: str,
    wanted: frozenset[Role],
    move_destination: str,
    lasting_id: Callable[[str], str],
    root: ObjectStoragePath,
    verify_dicom_conn_id: str | None,
    verify_path: str | None,
    retrieving: Retrieving,
    on_change: OnChange,
    cancellation: Cancellation,
) -> Sending:
    """Find a plan set, and have the peer send it.

    :param lasting_id: makes the identity of the work of a revision.
    :param root: below which the manifest is kept, and the run's pool of what is read.

    The other parameters are those of :class:`.plan_export.AriaPlanExportOperator`.
    """
    from airflow_provider_varian.aria.plan_export import find_plan_set, message_of
    from airflow_provider_varian.query.level import Level
    from airflow_provider_varian.retrieval.manifest import load_manifest
    from airflow_provider_varian.retrieval.request import RetrievalRequest

    found = find_plan_set(
        site, plan_uid, patient_id=patient_id, wanted=wanted, own={}, cancellation=cancellation, fetch_all=False
    )
    sending_id = lasting_id(revision_digest(found.expected))
    previous = load_manifest(site.destination, sending_id)
    uids = {item.sop_instance_uid for item in found.expected}
    if previous is not None and _is_sent(previous, uids):
        log.info("Plan %s: this revision has been sent to %s already", plan_uid, move_destination)
        on_change(previous)
        manifest, moved = previous, 0
    else:
        result = hook.move(
            RetrievalRequest(level=Level.IMAGE, keys={"PatientID": patient_id}, expected=found.expected),
            move_destination=move_destination,
            retrieval_id=sending_id,
            destination=root,
            verify_dicom_conn_id=verify_dicom_conn_id,
            verify_path=verify_path,
            stable_counts=retrieving.stable_counts,
            stable_interval_seconds=retrieving.stable_interval_seconds,
            settle_seconds=retrieving.settle_seconds,
            recheck_rounds=0,
            on_change=on_change,
            cancellation=cancellation,
        )
        manifest = result.manifest
        moved = sum(report.asked or 0 for report in manifest.requests if report.attempt == manifest.attempts)
    lacking = {
        uid: entry.reason or "it is not known to have arrived"
        for uid, entry in manifest.ledger.entries.items()
        if str(entry.state) not in ("reported", "listed", "verified")
    }
    plan_set = found.plan_set.judged(lacking)
    verdict = str(plan_set.completeness)
    return Sending(
        plan_set=plan_set,
        outcome=str(manifest.outcome) if verdict == "complete" else verdict,
        message=f"{message_of(plan_set)}; {manifest.message}",
        moved=moved,
        manifest_uri=str(below(root, str(manifest.path))),
        warnings=(*plan_set.warnings, *manifest.warnings),
    )


def revision_digest(expected: Iterable[Expected]) -> str:
    """Return what tells one revision of a plan set from another: the dates and states of what may change.

    :param expected: the members, with what the peer answered of them.
    """
    from airflow_provider_varian.retrieval.revision import REVISION_KEYWORDS
    from airflow_provider_varian.uids import CHANGING_STORAGE

    said = sorted(
        (item.sop_instance_uid, [str(item.values.get(keyword) or "") for keyword in REVISION_KEYWORDS])
        for item in expected
        if item.sop_class_uid in CHANGING_STORAGE
    )
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _is_sent(previous: Manifest, uids: set[str]) -> bool:
    if str(previous.outcome) not in ("complete", "reported"):
        return False
    sent = {
        uid for uid, entry in previous.ledger.entries.items() if str(entry.state) in ("reported", "listed", "verified")
    }
    return uids <= sent
