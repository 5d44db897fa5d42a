"""Every week: each plan treated since last week, with all that belongs to it, complete or named as incomplete.

Copy this file into your DAGs folder, change the constants below, and make the connection that they name.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag, get_current_context, task

from airflow_provider_varian.operators.aria import AriaPatientListOperator, AriaPlanExportOperator
from airflow_provider_varian.operators.base import failing_fast
from airflow_provider_varian.operators.plan_report import pull_exports, write_plan_index

try:
    from airflow.sdk import CronDataIntervalTimetable
except ImportError:  # Airflow 3.1 and 3.2
    from airflow.timetables.interval import CronDataIntervalTimetable  # type: ignore[assignment]

# The clinic's zone; the same as in the connection. DICOM dates are local to the clinic, Airflow's are UTC.
CLINIC_TIMEZONE = "Europe/Zurich"
DICOM_CONN_ID = "aria"

# An absolute folder, or an object-storage URI such as s3://conn_id@bucket/plans. None: [varian] storage_root.
DESTINATION = None

# What of each plan set is exported; also: beam_dose, other_dose, registration, cbct, rt_image, drr.
PARTS = ["plan", "structure_set", "image", "plan_dose", "record"]

# True: the index names Patient ID, label, course and days too. The log never does.
IDENTIFYING_INDEX = False

# So many plans at a time. Tasks that receive over one connection on one machine take turns for the receiver's port.
AT_A_TIME = 1

_KEPT = "What you type here is kept by Airflow in the run's configuration. "

PARAMS = {
    "kind": Param(
        "treated",
        enum=["treated", "newly_approved"],
        title="Which plans",
        description="Treated in the window: also for weeks of the past. Newly approved: forward only.",
    ),
    "first_day": Param(
        None,
        type=["null", "string"],
        format="date",
        title="First day",
        description=_KEPT + "A day of the clinic. Empty: the run's data interval, else the last 24 hours.",
    ),
    "last_day": Param(
        None,
        type=["null", "string"],
        format="date",
        title="Last day",
        description=_KEPT + "Empty: the first day.",
    ),
}


@dag(
    # A real interval in the clinic's zone: a bare cron text has data intervals of no width in Airflow 3. Saturday
    # evening: ARIA is quiet, and not down for its Sunday maintenance.
    schedule=CronDataIntervalTimetable("0 18 * * 6", timezone=CLINIC_TIMEZONE),
    start_date=pendulum.datetime(2026, 1, 1, tz=CLINIC_TIMEZONE),
    catchup=False,
    # Week by week, also a backfill of a year: two weeks would ask for the same plans at the same time.
    max_active_runs=1,
    params=PARAMS,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["dicom", "plan-export"],
    doc_md="""
### Weekly plan export

The plans treated in the run's data interval (by their treatment records), or newly approved; for each one the plan, its
structure set, planning images, doses and treatment records, in a folder of its own below the destination:
`{plan UID}/RTPLAN`, `RTSTRUCT`, `CT`, `RTDOSE`, `RTRECORD`, with an index `plan-set.json` that is written last.

* **One plan, one task**: a plan that is incomplete, or that fails, fails its own task, by name, and no other.
* What several plans share is transferred once. A retry, a rerun and the next week move what is new or has changed.
* The task `summary` writes an index of all plans (CSV, JSON, text) to `index/` of the destination, and logs it.
  Patients are pseudonyms there.
* Backfill it for weeks of the past: what was treated then is what is listed.
""",
)
def weekly_plan_export() -> None:
    """List, export and index the plans of a week."""
    plans = AriaPatientListOperator(
        task_id="plans",
        dicom_conn_id=DICOM_CONN_ID,
        kind="{{ params.kind }}",
        first_day="{{ params.first_day or '' }}",
        last_day="{{ params.last_day or '' }}",
        destination=DESTINATION,
    )
    export = AriaPlanExportOperator.partial(
        task_id="export",
        dicom_conn_id=DICOM_CONN_ID,
        rows_uri="{{ ti.xcom_pull(task_ids='plans', key='rows_uri') }}",
        parts=PARTS,
        destination=DESTINATION,
        max_active_tis_per_dag=AT_A_TIME,
        map_index_template="{{ plan_uid }}",
    ).expand(row_key=plans.output)

    # A teardown, so that it runs whatever became of the plans, and does not hide it: they set the run's state.
    @task(trigger_rule="all_done")
    def summary() -> dict[str, str]:
        """Write the index of all plans, also of those without a result; where it is, is returned."""
        context = get_current_context()
        with failing_fast():
            # Pulled, not passed: there is none when the list could not be made.
            rows_uri = context["ti"].xcom_pull(task_ids="plans", key="rows_uri")
            written = write_plan_index(
                context,
                rows_uri,
                pull_exports(context, "export"),
                dicom_conn_id=DICOM_CONN_ID,
                destination=DESTINATION,
                identifying=IDENTIFYING_INDEX,
            )
        return written.to_json()

    export >> summary().as_teardown()


weekly_plan_export()
