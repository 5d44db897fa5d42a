"""A sensor in each of its modes, each one deferred, and a patient who is waited for without being named anywhere.

And an operator that goes on after it was deferred.
"""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import dag, task

from airflow_provider_varian.operators.retrieve import DicomMoveOperator
from airflow_provider_varian.sensors.dicom import DicomEchoSensor, DicomFindSensor, DicomReceivedSensor

MODES = {
    "poked": {"mode": "poke", "deferrable": False},
    "rescheduled": {"mode": "reschedule", "deferrable": False},
    "deferred": {"deferrable": True},
}


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    user_defined_macros={"patient": lambda: os.environ["WAITED_FOR"]},
    default_args={"poke_interval": 1, "timeout": 120, "dicom_conn_id": "{{ 'aria' }}"},
)
def waiting_in_three_ways():
    @task
    def planted() -> str:
        return os.environ["NAMED"]

    for name, how in MODES.items():
        DicomFindSensor(
            task_id=f"find_{name}",
            level="SERIES",
            keys={"PatientID": "{{ patient() }}", "Modality": "RTPLAN", "PatientName": ""},
            stable_polls=2,
            **how,
        )
    # Whichever sensor it is, its modes are the same code.
    DicomEchoSensor(task_id="echo", query=True, deferrable=True)
    DicomReceivedSensor(task_id="received", keys={"Modality": "RTIMAGE"}, at_least=2, deferrable=True)
    DicomEchoSensor(task_id="dead", dicom_conn_id="dead", max_transient_failures=1, deferrable=True)
    DicomFindSensor(task_id="wrong", level="SERIES", keys={"PatientId": "X"}, deferrable=True)
    DicomMoveOperator(
        task_id="late", dicom_conn_id="late", keys={"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}, deferrable=True
    )
    planted()


waiting_in_three_ways()
