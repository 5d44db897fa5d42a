"""Exporting plan sets: a plan with all that belongs to it, in a folder of its own or at another AE, and a verdict."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_varian.errors import (
    AmbiguousMatchError,
    ConfigurationError,
    DicomError,
    IncompleteRetrievalError,
    NotFoundError,
)
from airflow_provider_varian.hooks.settings import below, root_of
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.manifest_xcom import ManifestPusher
from airflow_provider_varian.operators.plan_pool import site_of
from airflow_provider_varian.operators.plan_rows import PlanRow, parse_plan, read_plan
from airflow_provider_varian.operators.retrieving import OnEmpty, RetrievingOperator, check_choice

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_varian.aria.plan_export import PlanExport, Site
    from airflow_provider_varian.aria.plan_set import PlanSet, Role

log = logging.getLogger(__name__)

#: XCom key of what became of a plan, pushed also when its task fails.
EXPORT_KEY: Final = "plan_export"

_STEP: Final = "plan export"
#: Roles of a plan set that are exported unless told otherwise.
DEFAULT_PARTS: Final = ("plan", "structure_set", "image", "plan_dose", "record")


class AriaPlanExportOperator(RetrievingOperator):
    """Export one plan set: an RT Plan with all that belongs to it, complete or named as incomplete.

    What belongs to the plan is found by the references inside the objects first, and by query where there is none,
    across all studies of the patient. Everything is retrieved once per run: plans that share images or a structure set
    share what came. Each plan gets a folder of its own, ``{plan UID}/{CT|RTSTRUCT|RTPLAN|RTDOSE|RTRECORD|...}/``, with
    an index ``plan-set.json`` that is written last. A retry, a rerun, and the export of the next week move what is new
    or has changed, and nothing else; a version that was replaced is kept under ``.dicom/versions/``.

    The task succeeds when the set is ``complete``: each object that the plan set names is verified in the folder. It
    is ``incomplete`` when something is missing or did not come, ``ambiguous`` when it cannot be said of something
    whether it belongs to the plan, ``conflict`` when an image came with two contents.

    Pushes as ``plan_export``, whatever the state, a mapping free of identifiers: row key, plan UID, outcome, message,
    folder, manifest, counts by role, bytes, and how many objects were transferred. XCom ``dicom_manifest`` has the
    manifest's URI, outcome and counts from the start. Returns outcome, message, folder and manifest.

    :param row_key: the opaque key of a plan (templated) ...
    :param rows_uri: ... in a file that :class:`~.patient_list.AriaPatientListOperator` wrote (templated).
    :param plan: instead of them, the plan as a mapping with ``patient_id``, and ``plan_uid`` or ``plan_label`` (and
        ``course``). Not templated, so that Airflow keeps no rendered copy of it; it stands in the DAG file.
    :param parts: roles of the set that are wanted: ``plan``, ``structure_set``, ``image``, ``plan_dose``,
        ``beam_dose``, ``other_dose``, ``record``, ``registration``, ``cbct``, ``rt_image``, ``drr``.
    :param destination: absolute folder or object-storage URI of the exports (templated); the default is
        ``[varian] storage_root``.
    :param move_destination: AE title of a trusted entity, to which the peer sends the set instead of us filing it
        (templated): each object once, and plan, structure set and doses again when they changed (``refresh``). Nothing
        is filed then, but what has to be read to know the set.
    :param verify_dicom_conn_id: a connection to that entity, which is asked by C-FIND what it has (templated).
    :param verify_path: folder where that entity files what it gets, readable by this worker (templated).
    :param store_conn_id: a connection with ``allow_store``, to which the exported folder is sent by C-STORE as well
        (templated): what it accepted once is not sent again, unless it changed.
    :param with_label: write label and course of the plan into the index of its folder.
    :param on_partial: ``fail`` (and retry; at once when it is ambiguous) or ``accept`` a set that is not complete.
    :param on_empty: ``fail``, ``skip`` or ``accept`` when the patient has no such plan any more.
    :param port_wait_seconds: how long to wait for a receiver port that another task uses.
    :param verify: ``path``: an object in the plan's folder is held when it has the size that the folder's index says;
        ``hash``: and its SHA-256. None: ``path``; in the run's pool as of :class:`~.retrieve.DicomRetrieveOperator`.
    :param refresh: when plans, structure sets and doses that are held are fetched, or sent by the peer, again.
    :param stable_counts: equal lists in a row that make a list stable; used where the peer is asked for lists.
    :param stable_interval_seconds: seconds between two of them.
    :param settle_seconds: seconds of quiet after which late objects are given up.
    :param dicom_conn_id: the connection (templated).
    :param deferrable: leave long waits to the triggerer, and hold no worker meanwhile; the default is
        ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = (
        "dicom_conn_id",
        "row_key",
        "rows_uri",
        "destination",
        "move_destination",
        "verify_dicom_conn_id",
        "verify_path",
        "store_conn_id",
    )

    def __init__(
        self,
        *,
        row_key: str | None = None,
        rows_uri: str | None = None,
        plan: Mapping[str, Any] | None = None,
        parts: Sequence[str] = DEFAULT_PARTS,
        move_destination: str | None = None,
        verify_dicom_conn_id: str | None = None,
        verify_path: str | None = None,
        store_conn_id: str | None = None,
        with_label: bool = False,
        on_empty: OnEmpty = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.row_key = row_key
        self.rows_uri = rows_uri
        self.plan = plan
        self.parts = parts
        self.move_destination = move_destination
        self.verify_dicom_conn_id = verify_dicom_conn_id
        self.verify_path = verify_path
        self.store_conn_id = store_conn_id
        self.with_label = with_label
        self.on_empty = on_empty

    def run_dicom(self, context: Context) -> dict[str, Any]:
        """Find, retrieve, file or send, judge; tell what became of it; decide."""
        self.check_choices()
        check_choice("on_empty", self.on_empty, ("fail", "skip", "accept"))
        self._check_places()
        wanted = self._wanted()
        root = root_of(self.destination)
        row = self._row()
        about: dict[str, Any] = {"row_key": self.row_key or "", "plan_uid": row.plan_uid}
        pusher = ManifestPusher(context, root)
        try:
            about["plan_uid"] = plan_uid = row.plan_uid or self._found_by_label(row)
            # What map_index_template="{{ plan_uid }}" shows instead of a number.
            context["plan_uid"] = plan_uid  # type: ignore[typeddict-unknown-key]
            told = about | self._exported(context, root, row, plan_uid, wanted, pusher)
        except DicomError as error:
            outcome = "not found" if isinstance(error, NotFoundError) else "failed"
            told = about | without_set(outcome, str(error), manifest=pusher.uri)
            context["ti"].xcom_push(key=EXPORT_KEY, value=told)
            if isinstance(error, NotFoundError) and self.on_empty != "fail":
                if self.on_empty == "skip":
                    raise AirflowSkipException(str(error)) from error
                return _returned(told)
            raise
        context["ti"].xcom_push(key=EXPORT_KEY, value=told)
        self._decide(told)
        return _returned(told)

    def _check_places(self) -> None:
        """Refuse what contradicts itself, and a peer that may not be written to, before anybody is asked."""
        if self.move_destination and self.store_conn_id:
            raise ConfigurationError(
                "move_destination and store_conn_id are two ways to send a plan set", hint="Give one of them."
            )
        if (self.verify_dicom_conn_id or self.verify_path) and not self.move_destination:
            raise ConfigurationError(
                "verify_dicom_conn_id and verify_path say how a third party is looked at, and there is none",
                hint="Set move_destination, or leave them out.",
            )
        if self.store_conn_id:
            from airflow_provider_varian.dimse.store import check_allowed

            check_allowed(self.hook_of(self.store_conn_id).peer)

    def _wanted(self) -> frozenset[Role]:
        from airflow_provider_varian.aria.plan_set import Role

        if isinstance(self.parts, str):
            raise ConfigurationError("parts is a text", hint="Give a list, such as ['plan', 'image'].")
        for part in self.parts:
            check_choice("one of parts", part, [str(role) for role in Role])
        return frozenset(Role(part) for part in self.parts) | {Role.PLAN}

    def _row(self) -> PlanRow:
        if self.plan and not self.row_key:
            return parse_plan(self.plan)
        if self.row_key and self.rows_uri and not self.plan:
            return read_plan(self.rows_uri, self.row_key)
        raise ConfigurationError(
            f"task {self.task_id!r} is told no plan, or two", hint="Give row_key and rows_uri, or plan."
        )

    def _found_by_label(self, row: PlanRow) -> str:
        """Return the UID of the one plan of a label; the errors name neither the label nor others of the patient."""
        from airflow_provider_varian.aria.plans import list_plans, select_plans

        with self.hook.find_session(cancellation=self.cancellation) as session:
            plans, _ = list_plans(session, row.patient_id)
        found = select_plans(plans, label=row.plan_label, course=row.course or None)
        if not found:
            raise NotFoundError(
                f"none of the patient's {len(plans)} plans bears the label that was given",
                peer=self.hook.peer.name,
                step=_STEP,
                hint="Check patient_id, plan_label and course, or give plan_uid",
            )
        if len(found) > 1:
            named = ", ".join(plan.sop_instance_uid for plan in found)
            raise AmbiguousMatchError(
                f"{len(found)} plans bear the label that was given: {named}",
                peer=self.hook.peer.name,
                step=_STEP,
                hint="Give course, or plan_uid",
            )
        return found[0].sop_instance_uid

    def _exported(
        self,
        context: Context,
        root: ObjectStoragePath,
        row: PlanRow,
        plan_uid: str,
        wanted: frozenset[Role],
        pusher: ManifestPusher,
    ) -> dict[str, Any]:
        """Export, and return what is told of it."""
        site = site_of(
            context,
            self.hook,
            root=root,
            patient_id=row.patient_id,
            plan_uid=plan_uid,
            retrieving=self.retrieving,
            cancellation=self.cancellation,
        )
        if self.move_destination:
            return self._sent_by_peer(root, site, row, plan_uid, wanted, pusher, context)
        from airflow_provider_varian.aria.plan_export import export_plan

        export = export_plan(
            site,
            plan_uid,
            patient_id=row.patient_id,
            wanted=wanted,
            export_id=retrieval_id(context, f"plan {plan_uid}"),
            with_label=self.with_label,
            on_change=pusher,
            cancellation=self.cancellation,
        )
        told = _told(export) | {"manifest": pusher.uri}
        if self.store_conn_id:
            told |= self._stored(context, root, export)
        return told

    def _stored(self, context: Context, root: ObjectStoragePath, export: PlanExport) -> dict[str, Any]:
        """Send what is in the folder by C-STORE; return what that changes of what is told."""
        paths = sorted(str(each.path) for each in export.filed.values())
        result = self.hook_of(self.store_conn_id or "").store(
            [below(root, path) for path in paths],
            store_id=_lasting_id(context, export.plan_set.plan_uid, f"store {self.store_conn_id}"),
            destination=root,
            cancellation=self.cancellation,
        )
        sent = {"outcome": str(result.outcome), "document": result.document_path, "counts": result.counts}
        if str(result.outcome) in ("complete", "empty"):
            return {"sent": sent}
        if result.error is not None:
            raise result.error
        raise IncompleteRetrievalError(
            f"not all of the plan set was accepted: {result.document.message}",
            peer=self.store_conn_id or "",
            step=_STEP,
            hint=f"See {result.document_path}",
        )

    def _sent_by_peer(
        self,
        root: ObjectStoragePath,
        site: Site,
        row: PlanRow,
        plan_uid: str,
        wanted: frozenset[Role],
        pusher: ManifestPusher,
        context: Context,
    ) -> dict[str, Any]:
        from airflow_provider_varian.operators.plan_sending import send_plan

        sending = send_plan(
            self.hook,
            site,
            plan_uid,
            patient_id=row.patient_id,
            wanted=wanted,
            move_destination=str(self.move_destination),
            lasting_id=lambda what: _lasting_id(context, plan_uid, f"move {self.move_destination} {what}"),
            root=root,
            verify_dicom_conn_id=self.verify_dicom_conn_id or None,
            verify_path=self.verify_path or None,
            retrieving=self.retrieving,
            on_change=pusher,
            cancellation=self.cancellation,
        )
        return _told_of(sending.plan_set) | {
            "outcome": sending.outcome,
            "message": sending.message,
            "folder": "",
            "manifest": sending.manifest_uri,
            "bytes": 0,
            "transferred": sending.moved,
            "changed": bool(sending.moved),
            "warnings": list(dict.fromkeys(sending.warnings)),
        }

    def _decide(self, told: Mapping[str, Any]) -> None:
        """Raise what the outcome asks for."""
        outcome, message = told["outcome"], told["message"]
        if outcome in ("complete", "reported"):
            log.info("%s: %s", outcome, message)
            return
        if self.on_partial == "accept":
            log.warning("%s: %s", outcome, message)
            return
        # A list that was short is whole another time; whose an object is, is not clearer then.
        is_unclear = outcome == "ambiguous" and told["listed_whole"]
        kind = AmbiguousMatchError if is_unclear else IncompleteRetrievalError
        raise kind(
            f"{outcome}: plan {told['plan_uid']}: {message}",
            peer=self.hook.peer.name,
            step=_STEP,
            hint=f"See {told['folder'] or told['manifest']}",
        )


def without_set(outcome: str, message: str, *, manifest: str | None = None) -> dict[str, Any]:
    """Return what is told of a plan whose set is not known.

    :param outcome: ``failed``, ``not found`` or ``no result``.
    :param message: why, without identifiers.
    :param manifest: URI of the manifest that was left behind; None when there is none.
    """
    return {
        "outcome": outcome,
        "message": message,
        "folder": "",
        "manifest": manifest,
        "approval_status": "",
        "counts": {},
        "listed_whole": True,
        "bytes": 0,
        "transferred": 0,
        "changed": False,
        "warnings": [],
    }


def _told(export: PlanExport) -> dict[str, Any]:
    return _told_of(export.plan_set) | {
        "outcome": export.outcome,
        "message": export.manifest.message,
        "folder": export.folder_uri,
        "bytes": sum(each.bytes for each in export.filed.values()),
        "transferred": export.transferred,
        "changed": export.is_changed,
        "warnings": list(export.manifest.warnings),
    }


def _told_of(plan_set: PlanSet) -> dict[str, Any]:
    said = plan_set.to_json()
    return {name: said[name] for name in ("approval_status", "counts", "listed_whole")}


def _returned(told: Mapping[str, Any]) -> dict[str, Any]:
    return {key: told[key] for key in ("outcome", "message", "folder", "manifest")}


def _lasting_id(context: Context, plan_uid: str, what: str) -> str:
    """Return the identity of sending a plan somewhere: that of all runs, since what was sent once need not go again."""
    from airflow_provider_varian.retrieval.identity import retrieval_id_of_task

    instance = context["ti"]
    return retrieval_id_of_task(dag_id=instance.dag_id, run_id=f"{plan_uid} {what}", task_id=instance.task_id)
