"""Macros in templates under real Airflow: the clinic's days of a run, with a logical date and without one."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from support.airflow_process import new_home, run_dags
from support.ports import free_port

from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

ZONE = ZoneInfo("Europe/Zurich")
DAG = "dated_by_templates"


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> SimpleNamespace:
    """A run of the 19th at 07:45, and one without a logical date in the first hour of the 18th, in UTC the 17th."""
    clinic = Clinic(days=5, patients=0, matrix=16, until=date(2026, 11, 20), timezone=ZONE)
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=free_port())]
    with SimulatedDaemon(clinic, trusted=trusted, timezone=ZONE) as daemon:
        host, port = daemon.address
        extra = {"called_ae_title": "VMSDBD", "timezone": str(ZONE)}
        aria = {"conn_type": "dicom", "host": host, "port": port, "extra": extra}
        dags = Path(__file__).parent / "dags"
        home = new_home(tmp_path_factory.mktemp("airflow"), dags=dags, connections={"aria": aria})
        runs = [
            {"dag_id": DAG, "logical_date": "2026-11-19T06:45:00Z", "retries": 2},
            {"dag_id": DAG, "logical_date": None, "run_after": "2026-11-17T23:30:00Z", "retries": 2},
        ]
        (dated, undated), output = run_dags(home, runs)
    return SimpleNamespace(dated=dated, undated=undated, output=output)


@pytest.mark.parametrize(
    ("run", "day", "days"),
    [
        ("dated", "2026-11-19", ["20261117", "20261118", "20261119"]),
        ("undated", "2026-11-18", ["20261116", "20261117", "20261118"]),
    ],
)
def test_a_run_asks_for_the_clinics_days(asked, run, day, days):
    result = getattr(asked, run)
    (answers,) = result.xcom("asked")
    assert sorted({answer["AcquisitionDate"] for answer in answers}) == days
    (where,) = result.xcom("asked", "dicom_answers")
    assert f"/{day}/" in where["uri"]


def test_a_zone_that_is_none_fails_the_task_for_good(asked):
    wrong = asked.dated.tasks["wrong", -1]
    assert (wrong["state"], wrong["try_number"]) == ("failed", 1)
    assert "there is no time zone 'Europe/Zurch'" in asked.output
