"""A DAG over clinical patients, to see that none of them is named where Airflow keeps things."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, get_current_context, task

from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.dicom import DicomFindOperator
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.retrieve import DicomRetrieveOperator
from airflow_provider_varian.operators.rows import read_row


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"))
def patients_on_purpose():
    patients = DicomFindOperator(
        task_id="patients",
        dicom_conn_id="aria",
        level="PATIENT",
        keys={"PatientID": "*", "PatientName": "", "PatientBirthDate": ""},
        xcom="rows",
    )

    @task
    def plans(key: str) -> int:
        context = get_current_context()
        uri = context["ti"].xcom_pull(task_ids="patients", key="dicom_answers")["uri"]
        hook = DicomHook("aria")
        keys = {"PatientID": read_row(uri, key)["PatientID"], "Modality": "RTPLAN"}
        return hook.retrieve(hook.select("IMAGE", keys), retrieval_id=retrieval_id(context)).counts["verified"]

    @task
    def wrong(key: str) -> None:
        """Raise errors that hold identifiers in their making."""
        context = get_current_context()
        uri = context["ti"].xcom_pull(task_ids="patients", key="dicom_answers")["uri"]
        DicomHook("aria").find("IMAGE", {"PatientID": read_row(uri, key)["PatientID"] + "\\", "Modality": "RTPLAN"})

    nobody = DicomRetrieveOperator(
        task_id="nobody", dicom_conn_id="aria", keys={"PatientName": "Nobody^At All", "Modality": "RTPLAN"}
    )
    rows = patients.output
    plans.expand(key=rows)
    wrong.expand(key=rows)
    patients >> nobody


patients_on_purpose()
