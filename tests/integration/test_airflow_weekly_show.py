"""A clinic's week under real Airflow: thirty plans, one broken, one dangling, a restart amid it; and a rerun.

A smaller one of the same kind is in test_airflow_weekly_plan_export.py.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from time import monotonic
from types import SimpleNamespace

import pytest
from support.airflow_process import run_dags
from support.short_clinic import ShortClinic
from support.weekly_show import (
    DAG,
    ZONE,
    assert_folder_is_whole,
    index_in,
    lines_of,
    objects_in,
    said_in,
    tasks_by,
    told_by,
    true_sets,
    weekly_site,
    without_beams,
)

from airflow_provider_varian.reports.account import find_accounts
from airflow_provider_varian.reports.check import check_account

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(2400)]

SATURDAY = "2026-08-01T20:00:00+02:00"
PLANS = 30
#: Its plan was treated, and has an empty Beam Sequence since; its structure set is nowhere; two plans of one label.
BROKEN, DANGLING, TWICE = 111107, 111120, 111126
#: Under treatment too: his structure set is missing as well, and one is enough.
LEFT_OUT = 111109
#: How long the daemon refuses to be called, how often tasks try, and how long they wait before they try again.
DOWN_SECONDS, TRIES, RETRY_SECONDS = 6.0, 4, 8.0


class UnderTreatment(ShortClinic):
    """Patients with each irregularity that can be met in a week; of each plan the last records."""

    mended = False

    @property
    def clinical_numbers(self):
        return tuple(number for number in super().clinical_numbers if number != LEFT_OUT)

    def case(self, number):
        case = super().case(number)
        return without_beams(case) if number == BROKEN and not self.mended else case

    def _shortened(self, plan, taken):
        return replace(super()._shortened(plan, taken), records=plan.records[-5:])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    clinic = UnderTreatment(seed=3, patients=60, days=1, matrix=16, until=date(2026, 7, 31), timezone=ZONE)
    with weekly_site(clinic, tmp_path_factory.mktemp("airflow")) as running:
        truth = tmp_path_factory.mktemp("truth")
        running.true = {}
        running.broken, running.dangling = (clinic.case(each).plans[0].sop_instance_uid for each in (BROKEN, DANGLING))
        for number in clinic.clinical_numbers:
            running.true |= true_sets(clinic, number, truth / str(number))
        yield running


@pytest.fixture(scope="module")
def runs(site):
    """The run, with a restart half-way; and the same interval again, when the broken plan has its beams back."""
    members = {uid: true["all"] for uid, true in site.true.items() if true["records"]}
    site.holdings.after = len(frozenset().union(*members.values())) // 2
    site.holdings.amid = frozenset().union(*(each for uid, each in members.items() if uid != site.dangling))
    site.holdings.seconds = DOWN_SECONDS
    request = {"dag_id": DAG, "logical_date": SATURDAY}
    found = SimpleNamespace()
    for name, retries in (("first", TRIES - 1), ("again", 0)):
        before, began = dict(site.daemon.counts), monotonic()
        asked = request | {"retries": retries, "retry_delay": RETRY_SECONDS}
        (run,), output = run_dags(site.home, [asked], timeout=1200)
        sent = site.daemon.counts["sub-operations"] - before.get("sub-operations", 0)
        objects = objects_in(site.home.storage)
        told = SimpleNamespace(
            run=run, output=output, sent=sent, objects=objects, told=told_by(run), lines=lines_of(run)
        )
        told.states = {uid: index_in(site.home.storage, uid)["state"] for uid in told.told}
        setattr(found, name, told)
        _print_figures(name, told, monotonic() - began, site.daemon)
        site.clinic.mended = True
    return found


def _print_figures(name, told, seconds, daemon) -> None:
    tries = [task["try_number"] for task in tasks_by(told.run).values()]
    print(
        f"{name}: {len(told.told)} plans, {len(told.run.tasks)} tasks, {sum(tries) - len(tries)} retries, "
        f"{told.sent} objects sent, {len(told.objects)} here, {daemon.counts['restarts']} restarts, {seconds:.0f} s"
    )


def test_thirty_plans_are_listed_each_with_a_task_of_its_name(runs):
    assert len(runs.first.told) == PLANS
    assert tasks_by(runs.first.run).keys() == runs.first.told.keys()


def test_each_verdict_is_the_oracles(runs, site):
    for uid, told in runs.first.told.items():
        if uid == site.broken:
            continue
        said = said_in(site.home.storage, uid)
        assert said == site.true[uid]
        assert told["outcome"] == said["verdict"]
    outcomes = {uid: told["outcome"] for uid, told in runs.first.told.items() if told["outcome"] != "complete"}
    assert outcomes == {site.broken: "incomplete", site.dangling: "incomplete"}


def test_the_broken_plan_and_the_dangling_one_fail_alone_and_are_named(runs, site):
    assert runs.first.run.state == "failed"
    tasks = tasks_by(runs.first.run)
    failed = {uid for uid, task in tasks.items() if task["state"] == "failed"}
    assert failed == {site.broken, site.dangling}
    assert {tasks[uid]["try_number"] for uid in failed} == {TRIES}
    assert {task["state"] for uid, task in tasks.items() if uid not in failed} == {"success"}
    broken, dangling = (runs.first.told[uid] for uid in (site.broken, site.dangling))
    assert broken["counts"] == {"plan": {"not_exportable": 1}}
    assert "did not come: 1 plan (the plan has no beams" in broken["message"]
    assert "missing: 1 structure set" in dangling["message"]
    assert f"incomplete: plan {site.broken}: " in runs.first.output


def test_the_daemon_restarted_and_the_others_came_by_their_retries(runs, site):
    assert site.daemon.counts["restarts"] == 1
    tries = {uid: task["try_number"] for uid, task in tasks_by(runs.first.run).items()}
    again = [uid for uid, count in tries.items() if count > 1 and uid not in (site.broken, site.dangling)]
    assert again
    assert {runs.first.told[uid]["outcome"] for uid in again} == {"complete"}
    # Only what was on its way when the daemon went away may have been sent twice.
    assert len(runs.first.objects) <= runs.first.sent <= len(runs.first.objects) + 2


def test_two_plans_of_one_label_are_told_apart_and_share_their_images(runs, site):
    one, other = (plan.sop_instance_uid for plan in site.clinic.case(TWICE).plans)
    assert runs.first.told[one]["outcome"] == runs.first.told[other]["outcome"] == "complete"
    assert site.true[one]["images"] == site.true[other]["images"]
    assert site.true[one]["records"].isdisjoint(site.true[other]["records"])


def test_the_index_names_all_thirty(runs, site):
    assert runs.first.lines.keys() == runs.first.told.keys()
    outcomes = {uid: line["outcome"] for uid, line in runs.first.lines.items()}
    assert outcomes == {uid: told["outcome"] for uid, told in runs.first.told.items()}
    assert f"{PLANS} plans of {PLANS - 1} patients, 2026-07-22 to 2026-08-01: 28 complete, 2 incomplete" in (
        runs.first.output
    )


def test_each_folder_is_whole(runs, site):
    assert runs.first.states == {uid: told["outcome"] for uid, told in runs.first.told.items()}
    for uid in runs.again.told:
        assert_folder_is_whole(site.home.storage, uid, said_in(site.home.storage, uid)["all"])


def test_the_rerun_moves_what_was_missing_alone(runs, site, tmp_path):
    (broken,) = true_sets(site.clinic, BROKEN, tmp_path / "truth").items()
    assert broken[0] == site.broken
    assert said_in(site.home.storage, site.broken) == broken[1]
    new = runs.again.objects - runs.first.objects
    assert broken[1]["all"] - runs.first.objects <= new
    assert runs.again.sent == len(new) == len(broken[1]["all"])
    moved = {uid: (told["transferred"], told["changed"]) for uid, told in runs.again.told.items()}
    assert moved == dict.fromkeys(runs.again.told, (0, False)) | {site.broken: (len(new), True)}
    assert {uid for uid, told in runs.again.told.items() if told["outcome"] != "complete"} == {site.dangling}
    assert runs.again.lines.keys() == runs.first.lines.keys()


def test_the_accounts_hold(runs, site):
    accounts = {account.path: account for account in find_accounts(site.home.storage)}
    told = runs.again.run.xcom("export", "dicom_manifest")
    assert sorted(each["outcome"] for each in told) == ["complete"] * (PLANS - 1) + ["partial"]
    for each in told:
        assert check_account(accounts[each["uri"].removeprefix("file://")]).is_well
