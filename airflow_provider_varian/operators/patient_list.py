"""Which plans to export: those treated in a window, or newly approved, as a list on storage named by opaque keys."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_varian.errors import EmptyResultError
from airflow_provider_varian.hooks.settings import root_of
from airflow_provider_varian.operators.base import DicomOperator
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.plan_pool import reading_pool
from airflow_provider_varian.operators.plan_rows import PlanRow, write_plans
from airflow_provider_varian.operators.retrieving import OnEmpty, Retrieving, check_choice
from airflow_provider_varian.operators.run_window import run_window_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath
    from pydicom.dataset import Dataset

    from airflow_provider_varian.operators.rows import RowsFile
    from airflow_provider_varian.query.find import FindSession
    from airflow_provider_varian.query.window import RunWindow

log = logging.getLogger(__name__)

#: XCom key of what was listed, free of identifiers.
LIST_KEY: Final = "patient_list"
#: XCom key of the file of rows alone, for templates.
ROWS_KEY: Final = "rows_uri"

_STEP: Final = "patient list"


class AriaPatientListOperator(DicomOperator):
    """List the plans, and by them the patients, treated in a window or newly approved, for tasks to be mapped over.

    ``kind="treated"`` goes by the TreatmentDate of the treatment records: exact, and for any window of the past, so a
    backfill lists what was treated then. The window is the run's data interval and the look-back before it, since data
    reaches ARIA late; that of a backfill's run is the interval alone: what was late has come since, and the week before
    has a run of its own. ``kind="newly_approved"`` is the difference of two snapshots of the plans' approval states
    under ``.dicom/snapshots/``: forward only. The first run takes the base line and lists nothing; a backfill is
    refused, with the reason; a plan that was changed and approved again is listed again.

    Whose plans they are stands in a file below ``.dicom/rows/`` of the destination. Returns one opaque key per plan,
    to be mapped over with ``AriaPlanExportOperator.partial(...).expand(row_key=...)``. XCom has the file's URI as
    ``rows_uri``, and as ``patient_list`` a mapping free of identifiers: kind, URI, count, how many records or plans
    stayed undecided, the days, and warnings.

    :param kind: ``treated`` or ``newly_approved`` (templated).
    :param first_day: first day of the clinic, ``YYYY-MM-DD`` (templated); empty: the run's data interval, else the 24
        hours before ``run_after``.
    :param last_day: last day (templated); empty: the first.
    :param lookback_days: days before that are listed again; of ``treated`` alone, and not in a backfill.
    :param snapshot: name of the snapshots (templated); None: that of DAG and task. Of ``newly_approved`` alone, also
        the next two.
    :param planned_within_days: candidates are all plans with an RT Plan Date in so many days before the run.
    :param patient_ids: candidates are all plans of these patients instead. Not templated: Airflow keeps no copy.
    :param destination: absolute folder or object-storage URI (templated), where the exports go; the default is
        ``[varian] storage_root``.
    :param on_empty: ``skip``, ``fail`` (and retry) or ``accept`` when there is no plan.
    :param stable_counts: equal lists in a row that make a list stable; None: as the connection's profile says.
    :param stable_interval_seconds: seconds between two of them; None: the same.
    :param port_wait_seconds: how long to wait for a receiver port, where records have to be read.
    :param dicom_conn_id: the connection (templated). It must name the clinic's time zone.
    :param deferrable: leave long waits to the triggerer, and hold no worker meanwhile; the default is
        ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("dicom_conn_id", "kind", "first_day", "last_day", "snapshot", "destination")

    def __init__(
        self,
        *,
        kind: Literal["treated", "newly_approved"] | str = "treated",
        first_day: str | None = None,
        last_day: str | None = None,
        lookback_days: int = 3,
        snapshot: str | None = None,
        planned_within_days: int = 365,
        patient_ids: Sequence[str] | None = None,
        destination: str | None = None,
        on_empty: OnEmpty = "skip",
        stable_counts: int | None = None,
        stable_interval_seconds: float | None = None,
        port_wait_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.first_day = first_day
        self.last_day = last_day
        self.lookback_days = lookback_days
        self.snapshot = snapshot
        self.planned_within_days = planned_within_days
        self.patient_ids = patient_ids
        self.destination = destination
        self.on_empty = on_empty
        self.stable_counts = stable_counts
        self.stable_interval_seconds = stable_interval_seconds
        self.port_wait_seconds = port_wait_seconds

    def run_dicom(self, context: Context) -> list[str]:
        """List, write the rows, tell where they are."""
        from airflow_provider_varian.query.window import clinic_zone

        check_choice("kind", self.kind, ("treated", "newly_approved"))
        check_choice("on_empty", self.on_empty, ("skip", "fail", "accept"))
        zone = clinic_zone(self.hook.peer.timezone)
        run = run_window_of(
            context["dag_run"],
            zone,
            first_day=self.first_day,
            last_day=self.last_day,
            lookback_days=self._lookback(context),
        )
        root = root_of(self.destination)
        listing = self._treated if self.kind == "treated" else self._newly_approved
        with self.hook.find_session(cancellation=self.cancellation) as session:
            plans, about, seal = listing(context, session, run, root)
        about = {
            "kind": self.kind,
            "first_day": run.days[0].isoformat(),
            "last_day": run.run_day.isoformat(),
            **about,
        }
        # By plan: a cleared task numbers its rows as before.
        written = write_plans(context, root, sorted(plans, key=lambda plan: plan.plan_uid), **about)
        seal()
        return self._told(context, written, about)

    def _lookback(self, context: Context) -> int:
        return self.lookback_days if self.kind == "treated" and not _is_backfill(context["dag_run"]) else 0

    def _told(self, context: Context, written: RowsFile, about: Mapping[str, Any]) -> list[str]:
        context["ti"].xcom_push(key=ROWS_KEY, value=written.uri)
        context["ti"].xcom_push(key=LIST_KEY, value={**about, "uri": written.uri, "count": len(written.keys)})
        for words in about["warnings"]:
            log.warning("%s", words)
        message = (
            f"{len(written.keys)} plans {self.kind.replace('_', ' ')}, {about['first_day']} to {about['last_day']}"
        )
        log.info("%s; the rows are in %s", message, written.uri)
        if not written.keys and not about["undecided"] and self.on_empty != "accept":
            if self.on_empty == "skip":
                raise AirflowSkipException(message)
            raise EmptyResultError(message, peer=self.hook.peer.name, step=_STEP)
        return list(written.keys)

    def _treated(
        self, context: Context, session: FindSession, run: RunWindow, root: ObjectStoragePath
    ) -> tuple[list[PlanRow], dict[str, Any], Callable[[], None]]:
        from airflow_provider_varian.aria.treated import find_treated

        found = find_treated(
            session,
            run.window,
            read=self._reader(context, root),
            stable_counts=self.stable_counts,
            stable_interval_seconds=self.stable_interval_seconds,
            cancellation=self.cancellation,
        )
        plans = [
            PlanRow(
                patient_id=plan.patient_id,
                plan_uid=plan.plan_uid,
                study_instance_uid=plan.study_instance_uid,
                days=tuple(day.isoformat() for day in plan.days),
                records=plan.records,
                machines=plan.machines,
            )
            for plan in found.plans
        ]
        undecided = [{"sop_instance_uid": each.sop_instance_uid, "reason": each.reason} for each in found.undecided]
        return plans, {"undecided": undecided, "warnings": _with(found.warnings, undecided)}, _nothing

    def _reader(self, context: Context, root: ObjectStoragePath) -> Callable[[Sequence[Any]], dict[str, Dataset]]:
        """Return what brings and reads the records whose answers say too little."""

        def read(records: Sequence[Any]) -> dict[str, Dataset]:
            pool = reading_pool(
                context,
                self.hook,
                root=root,
                retrieving=Retrieving(port_wait_seconds=self.port_wait_seconds),
                cancellation=self.cancellation,
            )
            got = pool.fetch([record.expected() for record in records], "records")
            return {uid: pool.read(uid) for uid, each in got.items() if each.is_here}

        return read

    def _newly_approved(
        self, context: Context, session: FindSession, run: RunWindow, root: ObjectStoragePath
    ) -> tuple[list[PlanRow], dict[str, Any], Callable[[], None]]:
        from datetime import UTC, datetime

        from airflow_provider_varian.aria.approvals import Candidates, find_newly_approved
        from airflow_provider_varian.aria.snapshots import read_snapshot, write_snapshot
        from airflow_provider_varian.retrieval.destination import Destination
        from airflow_provider_varian.retrieval.layout import safe_value

        instance = context["ti"]
        dag_run: Any = context["dag_run"]
        destination = Destination(root)
        name = safe_value(self.snapshot or f"{instance.dag_id}-{instance.task_id}")
        candidates = (
            Candidates(patient_ids=tuple(self.patient_ids))
            if self.patient_ids
            else Candidates(planned_from=run.run_day - timedelta(days=self.planned_within_days))
        )
        found = find_newly_approved(
            session,
            candidates,
            read_snapshot(destination, name),
            run=retrieval_id(context),
            now=datetime.now(UTC),
            until=run.window.end,
            is_backfill=_is_backfill(dag_run),
            stable_counts=self.stable_counts,
            stable_interval_seconds=self.stable_interval_seconds,
            cancellation=self.cancellation,
        )
        plans = [
            PlanRow(
                patient_id=each.patient_id,
                plan_uid=each.plan.sop_instance_uid,
                study_instance_uid=each.plan.study_instance_uid,
                approval_status=each.plan.approval_status,
            )
            for each in found.newly
        ]
        undecided = [
            {"sop_instance_uid": each.sop_instance_uid, "reason": "approval not told"} for each in found.undecided
        ]
        about = {"undecided": undecided, "warnings": _with(found.warnings, undecided), "base_line": found.first}

        # When the rows are durable, not before: what a killed try listed would be known, and never exported.
        def seal() -> None:
            write_snapshot(destination, name, found.snapshot)

        return plans, about, seal


def _with(warnings: Sequence[str], undecided: Sequence[Mapping[str, str]]) -> list[str]:
    if not undecided:
        return list(dict.fromkeys(warnings))
    words = f"undecided objects: {len(undecided)}; no plan is listed for them, and the file of rows names them"
    return list(dict.fromkeys((*warnings, words)))


def _is_backfill(dag_run: Any) -> bool:
    run_type = getattr(dag_run, "run_type", "")
    return str(getattr(run_type, "value", run_type)) == "backfill"


def _nothing() -> None:
    """There is nothing to be sealed."""
