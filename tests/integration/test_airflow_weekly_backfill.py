"""Weeks of the past by Airflow's own scheduler, with the commands that stand in docs/howto/weekly-export.md."""

from __future__ import annotations

import json
import re
import shlex
from datetime import date, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace

import pytest
from support.airflow_page import standalone
from support.airflow_process import ROOT
from support.ports import wait_until
from support.short_clinic import ShortClinic
from support.weekly_show import DAG, ZONE, assert_folder_is_whole, objects_in, said_in, true_sets, weekly_site

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(1500)]

#: In which of the weeks each was treated, by when it begins: one in two weeks, some on a Thursday or Friday, where the
#: look-back of the week after would find them.
WEEKS = {
    date(2026, 6, 27): (111102, 111106),
    date(2026, 7, 4): (111106, 111107, 111108),
    date(2026, 7, 11): (111112, 111113),
    date(2026, 7, 18): (111117,),
}
_FINAL = ("success", "failed")


class SomePatients(ShortClinic):
    """Those patients alone."""

    @property
    def clinical_numbers(self):
        return tuple(sorted({number for numbers in WEEKS.values() for number in numbers}))


def _typed(verb: str) -> list[str]:
    """Return a command of the page, with the days of these weeks."""
    page = (ROOT / "docs" / "howto" / "weekly-export.md").read_text()
    (line,) = re.findall(rf"^\$ airflow ({verb} .*{DAG}.*)$", page, re.MULTILINE)
    first, last = min(WEEKS), max(WEEKS) + timedelta(days=6)
    line = re.sub(r"(--from-date) \S+", rf"\1 {first}", line)
    return shlex.split(re.sub(r"(--to-date) \S+", rf"\1 {last}", line))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    clinic = SomePatients(seed=3, patients=45, days=1, matrix=16, until=date(2026, 7, 31), timezone=ZONE)
    with weekly_site(clinic, tmp_path_factory.mktemp("airflow")) as running:
        yield running


@pytest.fixture(scope="module")
def backfilled(site):
    """The backfill, and the same once more."""
    with standalone(site.home) as page:
        _wait(lambda: page.rest("GET", "dags")["total_entries"], "the DAGs")
        site.home.airflow(*_typed("dags unpause"))
        site.home.airflow(*_typed("backfill create"))
        _wait(lambda: _are_over(page), "the backfill")
        runs = page.backfilled(DAG)
        moved = site.daemon.counts["sub-operations"]
        # It says that there is nothing to do, as an error or not, according to the version.
        again = site.home.python("-m", "airflow", *_typed("backfill create"))
        _wait(lambda: _are_over(page), "the backfill once more")
        more = page.backfilled(DAG)
    return SimpleNamespace(runs=runs, moved=moved, again=again, more=more)


def _wait(condition, what: str) -> None:
    wait_until(condition, seconds=600, what=what, every=1)


def _are_over(page) -> bool:
    backfills = page.rest("GET", f"backfills?dag_id={DAG}")["backfills"]
    over = all(each["completed_at"] for each in backfills)
    return over and all(run["state"] in _FINAL for run in page.backfilled(DAG))


def _week(run: dict) -> tuple[datetime, datetime]:
    return tuple(datetime.fromisoformat(run[f"data_interval_{which}"]).astimezone(ZONE) for which in ("start", "end"))


def _index(site, first: date) -> dict[str, dict]:
    """Return what the index of a week says, by plan."""
    name = f"{first}_{first + timedelta(days=7)}.json"
    told = json.loads((site.home.storage / "index" / DAG / name).read_text())
    return {line["plan_uid"]: line for line in told["plans"]}


def test_each_week_has_one_run_and_they_go_one_after_the_other(backfilled):
    weeks = [_week(run) for run in backfilled.runs]
    assert [start.date() for start, _ in weeks] == list(WEEKS)
    assert {start.strftime("%a %H:%M") for start, _ in weeks} == {"Sat 18:00"}
    assert [end for _, end in weeks[:-1]] == [start for start, _ in weeks[1:]]
    assert {run["state"] for run in backfilled.runs} == {"success"}
    spans = [tuple(datetime.fromisoformat(run[name]) for name in ("start_date", "end_date")) for run in backfilled.runs]
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_each_weeks_plans_are_in_its_own_run(backfilled, site):
    for first, numbers in WEEKS.items():
        listed = _index(site, first)
        assert listed.keys() == {plan.sop_instance_uid for number in numbers for plan in site.clinic.case(number).plans}
        assert {line["outcome"] for line in listed.values()} == {"complete"}
    assert len(list((site.home.storage / "index" / DAG).glob("2026-0[67]*.json"))) == len(WEEKS)


def test_nothing_is_moved_twice(backfilled, site):
    assert backfilled.moved == len(objects_in(site.home.storage))
    (both,) = {number for number in WEEKS[date(2026, 6, 27)] if number in WEEKS[date(2026, 7, 4)]}
    uid = site.clinic.case(both).plans[0].sop_instance_uid
    first, second = (_index(site, week)[uid] for week in (date(2026, 6, 27), date(2026, 7, 4)))
    assert first["transferred"] > 0
    assert second["transferred"] == 0


def test_each_plan_is_what_the_oracle_says(backfilled, site, tmp_path):
    for number in site.clinic.clinical_numbers:
        for uid, true in true_sets(site.clinic, number, tmp_path / str(number)).items():
            if not true["records"]:
                continue
            assert said_in(site.home.storage, uid) == true
            assert_folder_is_whole(site.home.storage, uid, true["all"])


def test_the_same_backfill_once_more_makes_no_run_and_moves_nothing(backfilled, site):
    assert [run["dag_run_id"] for run in backfilled.more] == [run["dag_run_id"] for run in backfilled.runs]
    assert site.daemon.counts["sub-operations"] == backfilled.moved
    assert "Traceback" not in backfilled.again.stdout
