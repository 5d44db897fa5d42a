"""What goes wrong for good, and what goes wrong for now: all of it with retries to spare."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag

from airflow_provider_varian.operators.dicom import DicomEchoOperator, DicomFindOperator
from airflow_provider_varian.sensors.dicom import DicomEchoSensor


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    is_paused_upon_creation=False,
    default_args={"retries": 30, "retry_delay": timedelta(seconds=2)},
)
def failing_on_purpose():
    DicomEchoOperator(task_id="unknown_field", dicom_conn_id="misconfigured")
    DicomEchoOperator(task_id="unknown_title", dicom_conn_id="stranger")
    DicomFindOperator(task_id="unknown_keyword", dicom_conn_id="aria", level="IMAGE", keys={"PatientId": "QA_TB_WL"})
    DicomEchoSensor(task_id="unknown_title_deferred", dicom_conn_id="stranger", deferrable=True)
    DicomEchoOperator(task_id="refused", dicom_conn_id="late")
    DicomEchoSensor(task_id="refused_deferred", dicom_conn_id="late", deferrable=True, max_transient_failures=0)


failing_on_purpose()
