"""Every morning: the machine-QA portal images taken since yesterday, for each linac, complete or named as incomplete.

Copy this file into your DAGs folder, change the constants below, and make the connection that they name.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag, get_current_context, task, task_group

from airflow_provider_varian.aria.machines import machines_schema
from airflow_provider_varian.operators.aria import AriaQAImagesOperator
from airflow_provider_varian.operators.base import failing_fast
from airflow_provider_varian.operators.machines import read_machine, write_machines
from airflow_provider_varian.operators.qa_report import pull_summaries, write_qa_report

try:
    from airflow.sdk import CronDataIntervalTimetable
except ImportError:  # Airflow 3.1 and 3.2
    from airflow.timetables.interval import CronDataIntervalTimetable  # type: ignore[assignment]

# The clinic's zone; the same as in the connections. DICOM dates are local to the clinic, Airflow's are UTC.
CLINIC_TIMEZONE = "Europe/Zurich"

# What is done on which machine. QA phantoms are no patients: their IDs may stand here.
MACHINES = [
    {
        "name": "TrueBeam1",
        "dicom_conn_id": "aria",
        "patient_id": "QA_TB_WL",
        "plan_label": "WL_10MV",
        "images": "portal",
        "kv": False,
        "expected": {
            "working_days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
            "each_beam_once": True,
        },
    },
    {
        "name": "Halcyon2",
        "dicom_conn_id": "aria",
        "patient_id": "$QA Halcyon2_2026",
        "plan_label": "DailyQA_PF_6FFF",
        "images": "portal",
        "kv": False,
        "expected": {
            "working_days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
            "minimum": 1,
        },
    },
]

_KEPT = "What you type here is kept by Airflow in the run's configuration. "

PARAMS = {
    "machines": Param(
        MACHINES,
        title="Machines and plans",
        description=_KEPT + "Type no patients, only QA phantoms; or name a stored list below.",
        **machines_schema(),
    ),
    "machines_uri": Param(
        None,
        type=["null", "string"],
        title="Stored list of machines",
        description="Path or object-storage URI of a JSON file with such a list, used instead of the list above.",
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
        description=_KEPT + "The day that sets the run's state. Empty: the first day.",
    ),
}


@dag(
    # A real interval in the clinic's zone: a bare cron text has data intervals of no width in Airflow 3.
    schedule=CronDataIntervalTimetable("45 7 * * *", timezone=CLINIC_TIMEZONE),
    start_date=pendulum.datetime(2026, 1, 1, tz=CLINIC_TIMEZONE),
    catchup=False,
    params=PARAMS,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2)},
    tags=["dicom", "machine-qa"],
    doc_md="""
### Daily machine QA

For each machine: does its daemon answer, and its database behind it? Then the plan by ID and label, the RT Images of
that plan acquired in the run's data interval and the look-back before it, retrieved, and judged against what is
expected. The summary is a table in the log of the task `summary` and a JSON report under the storage root.

* Images are filed as `{AcquisitionDate}/{StudyInstanceUID}/{SeriesInstanceUID}/...` under `[varian] storage_root`.
* **Nothing on an expected day fails**, by name; nothing on another day is a skip. *Short*: less exists than expected.
  *Partial*: found, but not received. Look-back days are judged and reported; only the run's own day sets its state.
* A run again, or a retry, retrieves what is missing and nothing else.
* Trigger it with a form to judge other days or machines; what is typed is kept in the run's configuration.
""",
)
def daily_machine_qa() -> None:
    """Pull, file and judge a day of machine-QA images."""

    @task
    def machines() -> list[str]:
        """Check the configuration and put it on storage; what is mapped over are opaque keys."""
        context = get_current_context()
        params = context["params"]
        with failing_fast():
            written = write_machines(context, params["machines"], stored=params["machines_uri"])
        context["ti"].xcom_push(key="rows_uri", value=written.uri)
        return list(written.keys)

    @task(map_index_template="{{ machine_name }}")
    def daemon_answers(row_key: str, rows_uri: str) -> None:
        """A daemon answers C-ECHO while its database is down: only a query tells."""
        from airflow_provider_varian.hooks.dicom import DicomHook

        with failing_fast():
            configured = read_machine(rows_uri, row_key)
            # Shown by map_index_template; Airflow's type of a context lists only what Airflow puts there.
            get_current_context()["machine_name"] = configured.name  # type: ignore[typeddict-unknown-key]
            DicomHook(configured.dicom_conn_id).ensure_available()

    @task_group
    def machine(row_key: str) -> None:
        """One machine and plan."""
        qa_images = AriaQAImagesOperator(
            task_id="qa_images",
            row_key=row_key,
            rows_uri=rows_uri,
            first_day="{{ params.first_day or '' }}",
            last_day="{{ params.last_day or '' }}",
            # Machines that share a receiver port take turns; a receiver that finds it in use waits anyway.
            max_active_tis_per_dag=1,
            map_index_template="{{ machine_name }}",
        )
        daemon_answers(row_key, rows_uri) >> qa_images

    # A teardown, so that it runs whatever became of the machines, and does not hide it: they set the run's state.
    @task(trigger_rule="all_done")
    def summary() -> str:
        """Report on all machines, also those without a result; the report's URI is returned."""
        context = get_current_context()
        # Pulled, not passed: there is none when the configuration was refused.
        rows_uri = context["ti"].xcom_pull(task_ids="machines", key="rows_uri")
        return write_qa_report(context, rows_uri, pull_summaries(context, "machine.qa_images"))

    row_keys = machines()
    rows_uri = row_keys["rows_uri"]  # type: ignore[index] # what a task returns is typed as less than it is
    machine.expand(row_key=row_keys) >> summary().as_teardown()


daily_machine_qa()
