"""Clinical patients, found and retrieved: by their rows, and by what a person types into a form."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pendulum
from airflow.sdk import Param, dag, get_current_context, task

from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.dicom import DicomFindOperator
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.retrieve import DicomRetrieveOperator
from airflow_provider_varian.operators.rows import read_row


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), is_paused_upon_creation=False)
def patients_by_row():
    patients = DicomFindOperator(
        task_id="patients",
        dicom_conn_id="clinic",
        level="PATIENT",
        keys={"PatientID": "*", "PatientName": "", "PatientBirthDate": ""},
        xcom="rows",
    )

    @task
    def plans(key: str) -> int:
        context = get_current_context()
        uri = context["ti"].xcom_pull(task_ids="patients", key="dicom_answers")["uri"]
        hook = DicomHook("clinic")
        request = hook.select("IMAGE", {"PatientID": read_row(uri, key)["PatientID"], "Modality": "RTPLAN"})
        return hook.retrieve(request, retrieval_id=retrieval_id(context)).counts["verified"]

    @task
    def told() -> str:
        """Do what no task may, to see that the search finds it: in the database, in a log, and in a file."""
        named = json.loads(os.environ["NAMED"])
        print("Told on purpose:", named["name"])
        Path(os.environ["AIRFLOW__VARIAN__STORAGE_ROOT"], "told.json").write_text(json.dumps(named))
        return named["id"]

    plans.expand(key=patients.output) >> told()


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    is_paused_upon_creation=False,
    params={"patient": Param("", type="string", description="What you type here is kept by Airflow.")},
)
def patient_by_form():
    keys = {"PatientID": "{{ params.patient }}", "Modality": "RTPLAN"}
    found = DicomFindOperator(task_id="found", dicom_conn_id="clinic", level="IMAGE", keys=keys)
    # Each by itself: what another run has filed needs not come.
    root = os.environ["AIRFLOW__VARIAN__STORAGE_ROOT"]
    found >> DicomRetrieveOperator(task_id="plan", dicom_conn_id="clinic", keys=keys, destination=f"{root}/typed")


patients_by_row()
patient_by_form()
