"""A query for the clinic's days of a run, by the macros of the plugin."""

from __future__ import annotations

import os

from airflow.sdk import dag
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_varian.operators.dicom import DicomFindOperator


@dag(schedule=CronDataIntervalTimetable("45 7 * * *", timezone="Europe/Zurich"), catchup=False)
def dated_by_templates():
    root = os.environ["AIRFLOW__VARIAN__STORAGE_ROOT"]
    for name, zone in (("asked", "conn.aria.extra_dejson.timezone"), ("wrong", "'Europe/Zurch'")):
        DicomFindOperator(
            task_id=name,
            dicom_conn_id="aria",
            level="IMAGE",
            keys={
                "PatientID": "QA_TB_WL",
                "AcquisitionDate": f"{{{{ macros.varian_dicom.date_range(dag_run, {zone}, lookback_days=1) }}}}",
            },
            destination=f"{root}/{{{{ macros.varian_dicom.run_day(dag_run, {zone}) }}}}",
            xcom="answers",
        )


dated_by_templates()
