"""The daily QA by Airflow's own scheduler and workers: scheduled, backfilled, and triggered without a logical date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from support.airflow_page import standalone
from support.airflow_process import new_home
from support.ports import free_port, wait_until

from airflow_provider_varian.simulator.clinic import Clinic
from airflow_provider_varian.simulator.server import SimulatedDaemon
from airflow_provider_varian.simulator.trusted import TrustedEntity

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(420)]

ZONE = ZoneInfo("Europe/Zurich")
DAG = "daily_machine_qa"
_FINAL = ("success", "failed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    port = free_port()
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
    # Up to yesterday in any zone, since today's images are not taken before 06:30.
    last = datetime.now(ZONE).date() - timedelta(days=1)
    clinic = Clinic(days=9, patients=1, matrix=16, until=last, timezone=ZONE)
    with SimulatedDaemon(clinic, trusted=trusted, timezone=ZONE) as daemon:
        aria = {
            "conn_type": "dicom",
            "host": "127.0.0.1",
            "port": daemon.address[1],
            "extra": {
                "called_ae_title": "VMSDBD",
                "receiver_host": "127.0.0.1",
                "receiver_port": port,
                "timezone": str(ZONE),
            },
        }
        home = new_home(tmp_path_factory.mktemp("airflow"), connections={"aria": aria})
        with standalone(home) as page:
            wait_until(lambda: page.rest("GET", "dags")["total_entries"], seconds=90, what="the DAG")
            yield SimpleNamespace(page=page, daemon=daemon, home=home, last=last)


def _finished(page, run_id: str) -> dict:
    wait_until(
        lambda: page.rest("GET", f"dags/{DAG}/dagRuns/{run_id}")["state"] in _FINAL, seconds=150, what=f"run {run_id}"
    )
    return page.rest("GET", f"dags/{DAG}/dagRuns/{run_id}")


def _summaries(page, run_id: str) -> list[dict]:
    path = f"dags/{DAG}/dagRuns/{run_id}/taskInstances/machine.qa_images/xcomEntries/qa_summary"
    return [page.rest("GET", f"{path}?map_index={index}&deserialize=true")["value"] for index in (0, 1)]


def _states(page, run_id: str) -> dict:
    tasks = page.rest("GET", f"dags/{DAG}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return {(task["task_id"], task["rendered_map_index"]): task["state"] for task in tasks}


def test_a_backfill_judges_the_days_it_was_asked_for(site):
    page = site.page
    page.rest("PATCH", f"dags/{DAG}", {"is_paused": False})
    first = datetime.combine(site.last - timedelta(days=3), datetime.min.time(), tzinfo=UTC)
    page.rest(
        "POST",
        "backfills",
        {
            "dag_id": DAG,
            "from_date": first.isoformat(),
            "to_date": (first + timedelta(hours=30)).isoformat(),
            "max_active_runs": 1,
        },
    )

    def backfilled() -> list[dict]:
        runs = page.rest("GET", f"dags/{DAG}/dagRuns?run_type=backfill")["dag_runs"]
        return [run for run in runs if run["state"] in _FINAL]

    wait_until(backfilled, seconds=200, what="the backfill")
    run = backfilled()[0]
    assert run["state"] == "success", _states(page, run["dag_run_id"])
    end = datetime.fromisoformat(run["data_interval_end"]).astimezone(ZONE)
    assert (end.hour, end.minute) == (7, 45)
    assert {summary["run_day"] for summary in _summaries(page, run["dag_run_id"])} == {str(end.date())}
    assert {summary["outcome"] for summary in _summaries(page, run["dag_run_id"])} == {"complete"}


def test_a_run_by_the_api_without_a_logical_date_takes_the_days_of_its_form(site):
    page = site.page
    body = {"logical_date": None, "conf": {"first_day": str(site.last)}}
    run = _finished(page, page.rest("POST", f"dags/{DAG}/dagRuns", body)["dag_run_id"])
    assert run["logical_date"] is None
    assert run["state"] == "success", _states(page, run["dag_run_id"])
    assert {summary["run_day"] for summary in _summaries(page, run["dag_run_id"])} == {str(site.last)}
    assert ("machine.qa_images", "Halcyon2") in _states(page, run["dag_run_id"])


def test_the_scheduler_makes_the_run_of_the_last_interval(site):
    page = site.page
    wait_until(lambda: page.rest("GET", f"dags/{DAG}/dagRuns?run_type=scheduled")["dag_runs"], seconds=60, what="a run")
    run = page.rest("GET", f"dags/{DAG}/dagRuns?run_type=scheduled")["dag_runs"][0]
    start, end = (datetime.fromisoformat(run[f"data_interval_{which}"]) for which in ("start", "end"))
    assert timedelta(hours=23) <= end - start <= timedelta(hours=25)
    assert end.astimezone(ZONE).strftime("%H:%M") == "07:45"
