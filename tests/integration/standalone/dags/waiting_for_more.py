"""Fifty tasks that wait deferred, most of them for one peer, and two that will wait in vain."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import dag

from airflow_provider_varian.sensors.dicom import DicomEchoSensor, DicomFindSensor, DicomReceivedSensor

#: However long it takes, and whatever the peer says meanwhile.
_WAITING = {"deferrable": True, "poke_interval": 1, "timeout": 1800, "max_transient_failures": 1_000_000}
_QUERIES = [
    {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"},
    {"PatientID": "QA_TB_WL", "Modality": "RTPLAN", "RTPlanLabel": ""},
    {"PatientID": "$QA Halcyon2_2026", "Modality": "RTIMAGE"},
    {"PatientID": "$QA Halcyon2_2026", "Modality": "RTPLAN", "RTPlanLabel": ""},
]


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    is_paused_upon_creation=False,
    # A patient who is waited for without being named where Airflow keeps things.
    user_defined_macros={"patient": lambda: os.environ["WAITED_FOR"]},
    default_args={"dicom_conn_id": "waited", "pool": "waiting", **_WAITING},
)
def waiting_for_more():
    DicomFindSensor.partial(task_id="machines", level="IMAGE").expand(keys=_QUERIES * 8)
    DicomFindSensor.partial(
        task_id="patient",
        level="IMAGE",
        keys={"PatientID": "{{ patient() }}", "Modality": "RTPLAN", "PatientName": ""},
    ).expand(stable_polls=[1, 2] * 3)
    DicomEchoSensor.partial(task_id="echo").expand(query=[False] * 6)
    DicomReceivedSensor.partial(task_id="received", receiver="night", at_least=2).expand(
        keys=[{"Modality": "RTIMAGE"}] * 6
    )


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    is_paused_upon_creation=False,
    default_args={"pool": "waiting", **_WAITING},
)
def waiting_in_vain():
    keys = {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"}
    DicomFindSensor(task_id="amid_a_query", dicom_conn_id="held_up", level="IMAGE", keys=keys)
    DicomFindSensor(task_id="between_queries", dicom_conn_id="unwanted", level="IMAGE", keys=keys)


waiting_for_more()
waiting_in_vain()
