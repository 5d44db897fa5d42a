"""DAGs whose tasks are ended from outside while their peer is in the middle of sending."""

from __future__ import annotations

import os
from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from airflow_provider_varian.operators.retrieve import DicomRetrieveOperator

#: Long enough for all of it on a busy machine, where the imports alone take ten seconds.
_TIMEOUT = timedelta(seconds=150)


def _dag(dag_id: str, execution_timeout: timedelta | None) -> DAG:
    with DAG(
        dag_id,
        schedule=None,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        params={"peer": Param("aria", type="string")},
        is_paused_upon_creation=False,
    ) as dag:
        DicomRetrieveOperator(
            task_id="retrieve",
            dicom_conn_id="{{ params.peer }}",
            # Each by itself: what another run has filed needs not come.
            destination=f"{os.environ['AIRFLOW__VARIAN__STORAGE_ROOT']}/{{{{ params.peer }}}}",
            keys={"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"},
            execution_timeout=execution_timeout,
            retries=1,
            retry_delay=timedelta(seconds=0),
        )
    return dag


ended_on_purpose = _dag("ended_on_purpose", None)
ended_by_its_time = _dag("ended_by_its_time", _TIMEOUT)
