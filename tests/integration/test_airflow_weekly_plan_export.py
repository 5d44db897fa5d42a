"""The weekly export under real Airflow: its own database, its own process, a daemon that restarts amid it.

All runs are made in one process, since to start Airflow takes longer than a run. A week of thirty plans is in
test_airflow_weekly_show.py.
"""

from __future__ import annotations

import csv
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace

import pendulum
import pytest
from support.airflow_process import run_dags
from support.identifiers import forms_of, found_in
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

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

#: Saturdays, after the hour at which the DAG runs.
WEEKS = ("2026-07-25T20:00:00+02:00", "2026-08-01T20:00:00+02:00")
#: Treated in the look-back of the first week; in the first week, and so in the look-back of the second. In the second:
#: one whose structure set is nowhere; one whose plan has no beams any more; one whose dose cannot be exported
#: for a while; one with two plans of one label on the same images.
FIRST, SECOND, DANGLING, BEAMLESS, BROKEN, TWICE = 111113, 111118, 111120, 111124, 111125, 111126


class FewPatients(ShortClinic):
    """The patients above alone."""

    @property
    def clinical_numbers(self):
        return (FIRST, SECOND, DANGLING, BEAMLESS, BROKEN, TWICE)

    def case(self, number):
        case = super().case(number)
        return without_beams(case) if number == BEAMLESS else case


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A clinic behind a daemon, and an Airflow with a connection to it."""
    clinic = FewPatients(seed=3, patients=30, days=1, matrix=16, until=date(2026, 7, 31), timezone=ZONE)
    truth = tmp_path_factory.mktemp("truth")
    with weekly_site(clinic, tmp_path_factory.mktemp("airflow")) as running:
        running.plans = {
            number: [plan.sop_instance_uid for plan in clinic.case(number).plans] for number in clinic.clinical_numbers
        }
        running.doses = [each.sop_instance_uid for each in clinic.case(BROKEN).plans[0].doses]
        running.true = {}
        for number in clinic.clinical_numbers:
            running.true |= true_sets(clinic, number, truth / str(number))
        yield running


_EVENINGS = {"2026-07-18": 168, "2026-04-04": 167, "2026-10-31": 169}


@pytest.fixture(scope="module")
def runs(site):
    """Two weeks, in the second of which the daemon restarts; that week once more; approvals; and some intervals.

    Until the index of the second week is written a dose cannot be exported.
    """
    index = site.home.storage / "index" / DAG / "2026-07-22_2026-08-01.json"
    site.holdings.broken = lambda uid: uid in site.doses and not index.exists()
    # One of the two plans has some of its images then, for which the other one waits.
    images = sorted(site.true[site.plans[TWICE][0]]["images"])
    site.holdings.amid = frozenset(images[2:3])
    evenings = [pendulum.parse(f"{day}T20:00", tz=str(ZONE)).isoformat() for day in _EVENINGS]
    (first, second, again, approvals, intervals), output = run_dags(
        site.home,
        [
            {"dag_id": DAG, "logical_date": WEEKS[0]},
            {"dag_id": DAG, "logical_date": WEEKS[1], "retries": 1},
            {"dag_id": DAG, "logical_date": WEEKS[1]},
            {"dag_id": DAG, "logical_date": "2026-08-08T20:00:00+02:00", "conf": {"kind": "newly_approved"}},
            {"dag_id": DAG, "intervals": evenings},
        ],
    )
    return SimpleNamespace(
        first=first,
        second=second,
        again=again,
        told=told_by(second),
        told_again=told_by(again),
        approvals=approvals,
        intervals=intervals,
        output=output,
    )


def test_each_week_lists_what_was_treated_in_it_and_in_the_look_back(runs, site):
    assert told_by(runs.first).keys() == {*site.plans[FIRST], *site.plans[SECOND]}
    numbers = (SECOND, DANGLING, BEAMLESS, BROKEN, TWICE)
    assert runs.told.keys() == {uid for number in numbers for uid in site.plans[number]}


def test_each_verdict_is_the_oracles(runs, site):
    for uid in runs.told_again.keys() - set(site.plans[BEAMLESS]):
        said = said_in(site.home.storage, uid)
        assert said == site.true[uid]
        assert runs.told_again[uid]["outcome"] == said["verdict"]


def test_the_broken_plans_and_the_dangling_one_fail_their_own_tasks_alone(runs, site):
    assert [run.state for run in (runs.first, runs.second, runs.again)] == ["success", "failed", "failed"]
    assert runs.second.states("summary") == ["success"]
    (beamless,), (broken,), (dangling,) = (site.plans[number] for number in (BEAMLESS, BROKEN, DANGLING))
    assert {uid for uid, task in tasks_by(runs.second).items() if task["state"] == "failed"} == {
        beamless,
        broken,
        dangling,
    }
    told = {uid: told for uid, told in runs.told.items() if told["outcome"] != "complete"}
    assert {uid: each["outcome"] for uid, each in told.items()} == dict.fromkeys(
        (beamless, broken, dangling), "incomplete"
    )
    assert told[broken]["counts"]["plan_dose"] == {"not_exportable": 1}
    assert "did not come: 1 plan dose" in told[broken]["message"]
    assert told[dangling]["counts"]["structure_set"] == {"missing": 1}
    assert "missing: 1 structure set" in told[dangling]["message"]
    assert told[beamless]["counts"] == {"plan": {"not_exportable": 1}}
    assert "did not come: 1 plan (the plan has no beams" in told[beamless]["message"]


def test_a_restart_of_the_daemon_costs_a_retry_and_nothing_else(runs, site):
    assert site.daemon.counts["restarts"] == 1
    tries = {uid: task["try_number"] for uid, task in tasks_by(runs.second).items()}
    failing = {uid for number in (DANGLING, BEAMLESS, BROKEN) for uid in site.plans[number]}
    assert sorted(tries[uid] for uid in site.plans[TWICE]) == [1, 2]
    assert {uid: tries[uid] for uid in failing} == dict.fromkeys(failing, 2)
    # Only what was on its way then may have been sent twice.
    here = len(objects_in(site.home.storage))
    assert here <= site.daemon.counts["sub-operations"] - site.holdings.refused <= here + 1


def test_tasks_are_named_by_their_plans(runs):
    assert tasks_by(runs.second).keys() == runs.told.keys()


def test_each_folder_is_whole(runs, site):
    for uid in {*told_by(runs.first), *runs.told}:
        told = runs.told_again.get(uid, {"outcome": "complete"})
        assert index_in(site.home.storage, uid)["state"] == told["outcome"]
        assert_folder_is_whole(site.home.storage, uid, said_in(site.home.storage, uid)["all"])
    kinds = {path.name for path in (site.home.storage / site.plans[FIRST][0]).iterdir()}
    assert kinds == {"CT", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT", "plan-set.json"}


def test_what_is_shared_or_held_comes_once(site, runs):
    """Whoever was listed in the first week is listed in the look-back of the second, and nothing of him moves."""
    (second,) = site.plans[SECOND]
    assert told_by(runs.first)[second]["transferred"] > 0
    assert (runs.told[second]["transferred"], runs.told[second]["changed"]) == (0, False)
    one, other = ({path.name for path in (site.home.storage / uid / "CT").iterdir()} for uid in site.plans[TWICE])
    assert one == other
    assert one


def test_the_week_once_more_moves_what_it_lacked_and_touches_nothing_else(runs, site):
    (broken,) = site.plans[BROKEN]
    changed = {uid: (told["transferred"], told["changed"]) for uid, told in runs.told_again.items()}
    assert changed == dict.fromkeys(runs.told, (0, False)) | {broken: (1, True)}
    assert runs.told_again[broken]["outcome"] == "complete"


def test_the_manifests_of_the_exports_hold(runs, site):
    told = runs.again.xcom("export", "dicom_manifest")
    assert sorted(each["outcome"] for each in told) == ["complete"] * 4 + ["partial"] * 2
    accounts = {account.path: account for account in find_accounts(site.home.storage)}
    for each in told:
        account = accounts[each["uri"].removeprefix("file://")]
        assert account.problem == ""
        assert check_account(account).is_well


def test_the_index_is_a_table_of_pseudonyms_that_names_all(runs, site):
    (places,) = runs.again.xcom("summary")
    with open(places["csv"].removeprefix("file://"), newline="") as file:
        lines = list(csv.DictReader(file))
    patients = {line["plan_uid"]: line["patient"] for line in lines}
    assert patients.keys() == runs.told.keys() == lines_of(runs.again).keys()
    assert len(set(patients.values())) == 5
    one, other = site.plans[TWICE]
    assert patients[one] == patients[other]
    days = "6 plans of 5 patients, 2026-07-22 to 2026-08-01"
    assert f"{days}: 3 complete, 3 incomplete" in runs.output
    assert f"{days}: 4 complete, 2 incomplete" in runs.output


def test_newly_approved_takes_a_base_line_first(runs, site):
    assert (runs.approvals.state, runs.approvals.states("plans")) == ("success", ["skipped"])
    assert [told["base_line"] for told in runs.approvals.xcom("plans", "patient_list")] == [True]
    (snapshot,) = (site.home.storage / ".dicom" / "snapshots").glob("*.json")
    assert found_in(snapshot.read_bytes(), _words(site)) == []


# --- privacy -----------------------------------------------------------------------------------


def _words(site) -> set[bytes]:
    cases = [site.clinic.case(number) for number in site.clinic.clinical_numbers]
    labels = {plan.label.encode() for case in cases for plan in case.plans}
    return labels | {word for case in cases for word in forms_of(case.patient_id, case.name)}


def test_the_file_of_rows_knows_the_patients(runs, site):
    rows = [Path(run.xcom("plans", "rows_uri")[0].removeprefix("file://")) for run in (runs.first, runs.second)]
    assert all(found_in(path.read_bytes(), _words(site)) for path in rows)  # where they belong
    assert {path.stat().st_mode & 0o777 for path in rows} == {0o600}


def test_no_patient_is_named_in_the_log(runs, site):
    assert "C-FIND to VMSDBD" in runs.output
    assert found_in(runs.output.encode(), _words(site)) == []


def test_no_patient_is_named_in_airflows_database_or_files(runs, site):
    files = [path for path in site.home.root.rglob("*") if path.is_file()]
    files = [path for path in files if not path.is_relative_to(site.home.storage)]
    assert site.home.database in files
    named = {str(path): found_in(path.read_bytes(), _words(site)) for path in files}
    assert {path: words for path, words in named.items() if words} == {}


def test_no_patient_is_named_in_an_index_a_manifest_or_a_path(runs, site):
    storage = site.home.storage
    told = [*storage.glob(".dicom/*.json"), *storage.glob("index/*/*"), *storage.glob("*/plan-set.json")]
    assert len(told) > 10
    assert {str(path): found_in(path.read_bytes(), _words(site)) for path in told} == {str(path): [] for path in told}
    paths = "\n".join(str(path.relative_to(storage)) for path in storage.rglob("*"))
    assert found_in(paths.encode(), _words(site)) == []


# --- the timetable --------------------------------------------------------------------------------


def test_the_dags_timetable_yields_a_week_in_the_clinics_zone(runs):
    for (day, hours), (start, end) in zip(_EVENINGS.items(), runs.intervals, strict=True):
        begin, finish = map(datetime.fromisoformat, (start, end))
        assert finish == pendulum.parse(f"{day}T18:00", tz=str(ZONE))
        assert (finish - begin).total_seconds() == hours * 3600
