"""The daily QA by Airflow's own scheduler: scheduled, backfilled, manual, and by API without a logical date."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from support.asked_runs import AskedRun, wait_for

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

ZONE = ZoneInfo("Europe/Zurich")
DAG = "daily_machine_qa"
_BOTH = {"TrueBeam1": "complete", "Halcyon2": "complete"}


def _finished(run: AskedRun) -> dict:
    """Wait for a run, check that it succeeded, and return it."""
    told = run.finished()
    assert told["state"] == "success", run.states()
    return told


def _of_type(page, run_type: str) -> AskedRun:
    path = f"dags/{DAG}/dagRuns?run_type={run_type}&order_by=run_after"
    wait_for(lambda: page.rest("GET", path)["dag_runs"], f"a {run_type} run")
    return AskedRun(page, DAG, page.rest("GET", path)["dag_runs"][0]["dag_run_id"])


def _assert_judged(run: AskedRun, day: date) -> None:
    """Fail unless both machines were judged complete for a day: in the summaries, and in the report."""
    summaries = [run.xcom("machine.qa_images", "qa_summary", index) for index in (0, 1)]
    assert {summary["run_day"] for summary in summaries} == {str(day)}
    assert {summary["outcome"] for summary in summaries} == {"complete"}
    report = json.loads(Path(run.xcom("summary").removeprefix("file://")).read_text())
    assert {machine["machine"]: machine["outcome"] for machine in report["machines"]} == _BOTH
    images = {
        machine["machine"]: {each["day"]: each["images"] for each in machine["days"]} for machine in report["machines"]
    }
    assert (images["TrueBeam1"][str(day)], images["Halcyon2"][str(day)]) == (8, 1)


def test_the_scheduler_makes_the_run_of_the_last_interval_and_judges_the_day_it_ends(site):
    run = _of_type(site.page, "scheduled")
    told = _finished(run)
    start, end = (datetime.fromisoformat(told[f"data_interval_{which}"]).astimezone(ZONE) for which in ("start", "end"))
    assert (start.strftime("%H:%M"), end.strftime("%H:%M")) == ("07:45", "07:45")
    assert end.date() - start.date() == timedelta(days=1)
    assert timedelta(0) <= datetime.now(ZONE) - end <= timedelta(hours=26)
    _assert_judged(run, end.date())


def test_a_backfill_judges_the_day_it_was_asked_for(site):
    run = _of_type(site.page, "backfill")
    end = datetime.fromisoformat(_finished(run)["data_interval_end"]).astimezone(ZONE)
    assert (end.date(), end.strftime("%H:%M")) == (site.days.backfilled, "07:45")
    _assert_judged(run, site.days.backfilled)


def test_a_run_by_the_api_without_a_logical_date_takes_the_days_of_its_form(site):
    run = site.runs["by_api"]
    assert _finished(run)["logical_date"] is None
    _assert_judged(run, site.days.by_api)


def test_a_manual_run_judges_the_last_interval_before_its_logical_date(site):
    run = site.runs["manual"]
    assert _finished(run)["run_type"] == "manual"
    _assert_judged(run, site.days.manual)
    assert ("machine.qa_images", "Halcyon2") in run.states()
