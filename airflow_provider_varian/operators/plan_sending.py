"""Having the peer send a plan set to another AE: each object once, and again when it changed (semantics 18)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_varian.hooks.settings import below

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_varian.aria.plan_export import Found, Site
    from airflow_provider_varian.aria.plan_set import PlanSet, Role
    from airflow_provider_varian.aria.sent_members import SentMembers
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.hooks.dicom import DicomHook
    from airflow_provider_varian.operators.retrieving import Retrieving
    from airflow_provider_varian.retrieval.manifest import Manifest
    from airflow_provider_varian.retrieval.retrieve import OnChange

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What became of a plan set that was sent by the peer.

    :param plan_set: what belongs to the plan, judged by what was sent, now or earlier.
    :param outcome: ``complete`` and ``reported`` as of a third-party move, else the plan set's verdict.
    :param message: in one sentence.
    :param moved: how many objects were asked for in this try.
    :param manifest_uri: where the account of the last sending is; empty when it is gone.
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
    """Find a plan set, and have the peer send what of it is new.

    :param lasting_id: makes the identities of the plan's sendings, the same in each run.
    :param root: below which the accounts are kept, and the run's pool of what is read.

    The other parameters are those of :class:`.plan_export.AriaPlanExportOperator`.
    """
    from airflow_provider_varian.aria.plan_export import find_plan_set
    from airflow_provider_varian.aria.plan_pool import ABOUT_OBJECTS
    from airflow_provider_varian.aria.sent_members import digest_of, read_sent_members
    from airflow_provider_varian.query.level import Level
    from airflow_provider_varian.retrieval.manifest import load_manifest
    from airflow_provider_varian.retrieval.outcome import Outcome
    from airflow_provider_varian.retrieval.request import RetrievalRequest

    found = find_plan_set(
        site, plan_uid, patient_id=patient_id, wanted=wanted, own={}, cancellation=cancellation, fetch_all=False
    )
    with site.plan_turn():
        sent = read_sent_members(site.destination, lasting_id("members"))
        owed = sent.owed(found.expected, refresh=retrieving.refresh)
        if not owed:
            log.info("Plan %s: %s has been sent all of it already", plan_uid, move_destination)
            last = load_manifest(site.destination, sent.manifest) if sent.manifest else None
            if last is not None:
                on_change(last)
            return _judged(found, sent, last, root, moved=0)
        seen: list[Manifest] = []

        def note(manifest: Manifest) -> None:
            seen[:] = [manifest]
            on_change(manifest)

        try:
            hook.move(
                RetrievalRequest(level=Level.IMAGE, keys={"PatientID": patient_id}, expected=owed),
                move_destination=move_destination,
                retrieval_id=lasting_id(digest_of(owed)),
                destination=root,
                verify_dicom_conn_id=verify_dicom_conn_id,
                verify_path=verify_path,
                stable_counts=retrieving.stable_counts,
                stable_interval_seconds=retrieving.stable_interval_seconds,
                settle_seconds=retrieving.settle_seconds,
                recheck_rounds=0,
                on_change=note,
                cancellation=cancellation,
            )
        except ABOUT_OBJECTS:
            # It came to its end, and nothing of it went: each object has its reason in the account. The others of the
            # set have been sent earlier, or the verdict says that they were not.
            if not seen or seen[0].outcome is Outcome.PENDING:
                raise
        (manifest,) = seen
        sent.note(manifest, owed)
        sent.write(site.destination)
    moved = sum(report.asked or 0 for report in manifest.requests if report.attempt == manifest.attempts)
    return _judged(found, sent, manifest, root, moved=moved)


def _judged(
    found: Found, sent: SentMembers, manifest: Manifest | None, root: ObjectStoragePath, *, moved: int
) -> Sending:
    """Judge the set by what the AE was sent by now."""
    from airflow_provider_varian.aria.plan_export import message_of

    entries = manifest.ledger.entries if manifest is not None else {}
    lacking = {}
    for item in found.expected:
        uid = item.sop_instance_uid
        if uid not in sent.members:
            entry = entries.get(uid)
            lacking[uid] = (entry.reason if entry is not None else "") or "it is not known to have arrived"
    plan_set = found.plan_set.judged(lacking)
    verdict = str(plan_set.completeness)
    if verdict == "complete":
        states = {sent.members[item.sop_instance_uid].state for item in found.expected}
        # The weakest of them counts (semantics 10).
        verdict = "reported" if "reported" in states else "complete"
    words = "its manifest is gone" if sent.manifest else "nothing was sent"
    if manifest is not None:
        words = manifest.message
    return Sending(
        plan_set=plan_set,
        outcome=verdict,
        message=f"{message_of(plan_set)}; {words}",
        moved=moved,
        manifest_uri=str(below(root, str(manifest.path))) if manifest is not None else "",
        warnings=(*plan_set.warnings, *(manifest.warnings if manifest is not None else ())),
    )
