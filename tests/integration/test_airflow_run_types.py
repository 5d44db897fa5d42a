"""The daily QA by Airflow's own scheduler: scheduled, backfilled, manual, and by API without a logical date."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from support.airflow_page import standalone
from support.airflow_process import connection_to, new_home
from support.ports import free_port, wait_until

from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(420)]

ZONE = ZoneInfo("Europe/Zurich")
DAG = "daily_machine_qa"
_FINAL = ("success", "failed")
_BOTH = {"TrueBeam1": "complete", "Halcyon2": "complete"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """An Airflow that has been asked for a run of each type, and days of the clinic to ask for."""
    port = free_port()
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
    # Today's images are taken before 07:45, where the interval of the scheduled run ends at the latest.
    today = datetime.now(ZONE).date()
    clinic = Clinic(days=10, patients=1, matrix=16, until=today, timezone=ZONE)
    with SimulatedDaemon(clinic, trusted=trusted, timezone=ZONE) as daemon:
        aria = connection_to(daemon.address[1], receiver_port=port, zone=ZONE)
        home = new_home(tmp_path_factory.mktemp("airflow"), connections={"aria": aria})
        days = SimpleNamespace(
            by_api=today - timedelta(days=1), manual=today - timedelta(days=2), backfilled=today - timedelta(days=3)
        )
        with standalone(home) as page:
            _wait(lambda: page.rest("GET", "dags")["total_entries"], "the DAG")
            # Together, since each takes longer than it computes.
            yield SimpleNamespace(page=page, days=days, asked=_ask_for_runs(page, days))


def _ask_for_runs(page, days) -> SimpleNamespace:
    page.rest("PATCH", f"dags/{DAG}", {"is_paused": False})  # the scheduler makes its run by itself
    by_form = {"logical_date": None, "conf": {"first_day": str(days.by_api)}}
    by_date = {"logical_date": _at(days.manual, 12).isoformat()}
    # The run of an interval that begins on a day judges the next one.
    backfill = {
        "dag_id": DAG,
        "from_date": _at(days.backfilled - timedelta(days=1), 0).isoformat(),
        "to_date": _at(days.backfilled, 0).isoformat(),
        "max_active_runs": 1,
    }
    page.rest("POST", "backfills", backfill)
    return SimpleNamespace(
        by_api=page.rest("POST", f"dags/{DAG}/dagRuns", by_form)["dag_run_id"],
        manual=page.rest("POST", f"dags/{DAG}/dagRuns", by_date)["dag_run_id"],
    )


def _at(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def _wait(condition, what: str) -> None:
    # Asking keeps a server busy that has better to do.
    wait_until(condition, seconds=300, what=what, every=0.5)


def _finished(page, run_id: str) -> dict:
    """Wait for a run, check that it succeeded, and return it."""
    path = f"dags/{DAG}/dagRuns/{run_id}"
    _wait(lambda: page.rest("GET", path)["state"] in _FINAL, f"run {run_id}")
    run = page.rest("GET", path)
    assert run["state"] == "success", _states(page, run_id)
    return run


def _finished_of_type(page, run_type: str) -> dict:
    path = f"dags/{DAG}/dagRuns?run_type={run_type}&order_by=run_after"
    _wait(lambda: page.rest("GET", path)["dag_runs"], f"a {run_type} run")
    return _finished(page, page.rest("GET", path)["dag_runs"][0]["dag_run_id"])


def _states(page, run_id: str) -> dict:
    tasks = page.rest("GET", f"dags/{DAG}/dagRuns/{run_id}/taskInstances")["task_instances"]
    return {(task["task_id"], task["rendered_map_index"]): task["state"] for task in tasks}


def _xcom(page, run_id: str, task_id: str, key: str, index: int = -1):
    path = f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
    return page.rest("GET", f"{path}?map_index={index}&deserialize=true")["value"]


def _assert_judged(page, run_id: str, day: date) -> None:
    """Fail unless both machines were judged complete for a day: in the summaries, and in the report."""
    summaries = [_xcom(page, run_id, "machine.qa_images", "qa_summary", index) for index in (0, 1)]
    assert {summary["run_day"] for summary in summaries} == {str(day)}
    assert {summary["outcome"] for summary in summaries} == {"complete"}
    report = json.loads(Path(_xcom(page, run_id, "summary", "return_value").removeprefix("file://")).read_text())
    assert {machine["machine"]: machine["outcome"] for machine in report["machines"]} == _BOTH
    images = {
        machine["machine"]: {each["day"]: each["images"] for each in machine["days"]} for machine in report["machines"]
    }
    assert (images["TrueBeam1"][str(day)], images["Halcyon2"][str(day)]) == (8, 1)


def test_the_scheduler_makes_the_run_of_the_last_interval_and_judges_the_day_it_ends(site):
    run = _finished_of_type(site.page, "scheduled")
    start, end = (datetime.fromisoformat(run[f"data_interval_{which}"]).astimezone(ZONE) for which in ("start", "end"))
    assert (start.strftime("%H:%M"), end.strftime("%H:%M")) == ("07:45", "07:45")
    assert end.date() - start.date() == timedelta(days=1)
    assert timedelta(0) <= datetime.now(ZONE) - end <= timedelta(hours=26)
    _assert_judged(site.page, run["dag_run_id"], end.date())


def test_a_backfill_judges_the_day_it_was_asked_for(site):
    run = _finished_of_type(site.page, "backfill")
    end = datetime.fromisoformat(run["data_interval_end"]).astimezone(ZONE)
    assert (end.date(), end.strftime("%H:%M")) == (site.days.backfilled, "07:45")
    _assert_judged(site.page, run["dag_run_id"], site.days.backfilled)


def test_a_run_by_the_api_without_a_logical_date_takes_the_days_of_its_form(site):
    run = _finished(site.page, site.asked.by_api)
    assert run["logical_date"] is None
    _assert_judged(site.page, run["dag_run_id"], site.days.by_api)


def test_a_manual_run_judges_the_last_interval_before_its_logical_date(site):
    run = _finished(site.page, site.asked.manual)
    assert run["run_type"] == "manual"
    _assert_judged(site.page, run["dag_run_id"], site.days.manual)
    assert ("machine.qa_images", "Halcyon2") in _states(site.page, run["dag_run_id"])
