"""The weekly export under real Airflow: its own database, its own process, a daemon behind a real port."""

from __future__ import annotations

import csv
import json
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pendulum
import pytest
from pydicom import dcmread
from support.airflow_process import new_home, run_dags
from support.dag_intervals import intervals_of
from support.faulty import Faulty
from support.identifiers import forms_of, found_in
from support.ports import free_port
from support.short_clinic import ShortClinic

from airflow_provider_varian.reports.account import find_accounts
from airflow_provider_varian.reports.check import check_account
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

ZONE = ZoneInfo("Europe/Zurich")
DAG = "weekly_plan_export"
#: Saturdays, after the hour at which the DAG runs.
WEEKS = ("2026-07-18T20:00:00+02:00", "2026-07-25T20:00:00+02:00", "2026-08-01T20:00:00+02:00")
#: Treated in the first week; in the second; in the third one whose structure set is nowhere, one of whom an object
#: cannot be exported for a while, and one with two plans of the same label on the same images.
FIRST, SECOND, DANGLING, BROKEN, TWICE = 111113, 111118, 111120, 111125, 111126


class FewPatients(ShortClinic):
    """The patients above alone."""

    @property
    def clinical_numbers(self):
        return (FIRST, SECOND, DANGLING, BROKEN, TWICE)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A clinic behind a daemon, and an Airflow with a connection to it."""
    port = free_port()
    clinic = FewPatients(seed=3, patients=30, days=1, matrix=16, until=date(2026, 7, 31), timezone=ZONE)
    holdings = Faulty(clinic)
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
    with SimulatedDaemon(holdings, trusted=trusted, timezone=ZONE) as daemon:
        extra = {
            "called_ae_title": "VMSDBD",
            "receiver_host": "127.0.0.1",
            "receiver_port": port,
            "timezone": str(ZONE),
            "profile_overrides": {"settle_seconds": 0.3, "stable_interval_seconds": 0.05},
        }
        fields = {"conn_type": "dicom", "host": "127.0.0.1", "port": daemon.address[1], "extra": extra}
        home = new_home(tmp_path_factory.mktemp("airflow"), connections={"aria": fields})
        plans = {
            number: [plan.sop_instance_uid for plan in clinic.case(number).plans] for number in clinic.clinical_numbers
        }
        doses = [each.sop_instance_uid for each in clinic.case(BROKEN).plans[0].doses]
        yield SimpleNamespace(daemon=daemon, home=home, clinic=clinic, holdings=holdings, plans=plans, doses=doses)


@pytest.fixture(scope="module")
def runs(site):
    """Three weeks while an object cannot be exported; the last week when it can; that once more; approvals."""
    site.holdings.broken = lambda uid: uid in site.doses
    weeks, output = run_dags(site.home, [{"dag_id": DAG, "logical_date": moment} for moment in WEEKS])
    transferred = site.daemon.counts["sub-operations"]
    site.holdings.broken = lambda uid: False
    approved = {"dag_id": DAG, "conf": {"kind": "newly_approved"}}
    (repaired, again, *approvals), more = run_dags(
        site.home,
        [
            {"dag_id": DAG, "logical_date": WEEKS[-1]},
            {"dag_id": DAG, "logical_date": WEEKS[-1]},
            approved | {"logical_date": "2026-08-08T20:00:00+02:00"},
            approved | {"logical_date": "2026-08-15T20:00:00+02:00"},
        ],
    )
    return SimpleNamespace(
        weeks=weeks,
        # The index of the last week is written anew by the runs after it.
        told=[{told["plan_uid"]: told for told in run.xcom("export", "plan_export")} for run in weeks],
        repaired=repaired,
        again=again,
        approvals=approvals,
        output=output + more,
        transferred=transferred,
        transferred_later=site.daemon.counts["sub-operations"] - transferred,
    )


def _index(run) -> dict[str, dict]:
    """Return the lines of a run's index by plan."""
    (places,) = run.xcom("summary")
    told = json.loads(Path(places["json"].removeprefix("file://")).read_text())
    return {line["plan_uid"]: line for line in told["plans"]}


def test_each_week_lists_what_was_treated_in_it_and_in_the_look_back(runs, site):
    first, second, third = ({number for number in site.plans if site.plans[number][0] in each} for each in runs.told)
    assert first == {FIRST}
    assert second == {FIRST, SECOND}
    assert third == {SECOND, DANGLING, BROKEN, TWICE}
    assert set(site.plans[TWICE]) <= runs.told[2].keys()  # both plans of one label


def test_one_broken_plan_and_one_dangling_fail_their_own_tasks_alone(runs, site):
    assert [run.state for run in runs.weeks] == ["success", "success", "failed"]
    week = runs.weeks[2]
    assert sorted(week.states("export")) == ["failed", "failed", "success", "success", "success"]
    assert week.states("summary") == ["success"]
    outcomes = {uid: told["outcome"] for uid, told in runs.told[2].items()}
    assert {uid for uid, outcome in outcomes.items() if outcome != "complete"} == {
        *site.plans[DANGLING],
        *site.plans[BROKEN],
    }
    broken = runs.told[2][site.plans[BROKEN][0]]
    assert (broken["outcome"], broken["counts"]["plan_dose"]) == ("incomplete", {"not_exportable": 1})
    assert "did not come: 1 plan dose" in broken["message"]
    dangling = runs.told[2][site.plans[DANGLING][0]]
    assert (dangling["outcome"], dangling["counts"]["structure_set"]) == ("incomplete", {"missing": 1})
    assert "missing: 1 structure set" in dangling["message"]


def test_tasks_are_named_by_their_plans(runs, site):
    names = {task["name"] for (task_id, _), task in runs.weeks[0].tasks.items() if task_id == "export"}
    assert names == set(site.plans[FIRST])


def test_each_folder_is_what_its_index_says(runs, site):
    for uid in {uid for told in runs.told for uid in told}:
        folder = site.home.storage / uid
        index = json.loads((folder / "plan-set.json").read_text())
        assert index["state"] == ("incomplete" if uid in site.plans[DANGLING] else "complete")
        files = {str(path.relative_to(folder)) for path in folder.rglob("*.dcm")}
        assert files == {each["path"] for each in index["objects"]}
        for each in index["objects"]:
            assert (
                str(dcmread(folder / each["path"], stop_before_pixels=True).SOPInstanceUID) == each["sop_instance_uid"]
            )
    kinds = {path.name for path in (site.home.storage / site.plans[FIRST][0]).iterdir()}
    assert kinds == {"CT", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT", "plan-set.json"}


def test_what_is_shared_or_held_is_transferred_once(runs, site):
    """Over three weeks, with two plans on one CT, and two plans listed twice: each object came once."""
    objects = {path.name for path in site.home.storage.glob("[0-9]*/*/*.dcm")}
    one, other = ({path.name for path in (site.home.storage / uid / "CT").iterdir()} for uid in site.plans[TWICE])
    assert one == other
    # The dose that cannot be exported is among the objects by now; it was asked for twice, by series and by itself.
    assert len(objects) - 1 <= runs.transferred <= len(objects) - 1 + 2
    assert sum(told["transferred"] for week in runs.told for told in week.values()) == len(objects) - 1


def test_a_repaired_plan_takes_what_it_lacked_alone(runs, site):
    told = {each["plan_uid"]: each for each in runs.repaired.xcom("export", "plan_export")}
    assert {uid: each["transferred"] for uid, each in told.items() if each["transferred"]} == {site.plans[BROKEN][0]: 1}
    assert told[site.plans[BROKEN][0]]["outcome"] == "complete"
    assert runs.transferred_later == 1


def test_a_rerun_moves_nothing_and_touches_no_folder(runs):
    told = runs.again.xcom("export", "plan_export")
    assert len(told) == 5
    assert [(each["transferred"], each["changed"]) for each in told] == [(0, False)] * 5
    assert runs.transferred_later == 1  # the one of the run before


def test_the_manifests_of_the_exports_hold(runs, site):
    told = runs.again.xcom("export", "dicom_manifest")
    assert sorted(each["outcome"] for each in told) == ["complete"] * 4 + ["partial"]
    accounts = {account.path: account for account in find_accounts(site.home.storage)}
    for each in told:
        account = accounts[each["uri"].removeprefix("file://")]
        assert account.problem == ""
        assert check_account(account).is_well


def test_the_index_is_a_table_of_pseudonyms(runs, site):
    (places,) = runs.again.xcom("summary")
    with open(places["csv"].removeprefix("file://"), newline="") as file:
        lines = list(csv.DictReader(file))
    patients = {line["plan_uid"]: line["patient"] for line in lines}
    assert len(lines) == 5
    assert len(set(patients.values())) == 4
    one, other = site.plans[TWICE]
    assert patients[one] == patients[other]
    assert "5 plans of 4 patients, 2026-07-22 to 2026-08-01: 3 complete, 2 incomplete" in runs.output


def test_newly_approved_takes_a_base_line_first_and_then_lists_nothing(runs, site):
    assert [run.state for run in runs.approvals] == ["success", "success"]
    assert [run.states("plans") for run in runs.approvals] == [["skipped"], ["skipped"]]
    assert [told["base_line"] for run in runs.approvals for told in run.xcom("plans", "patient_list")] == [True, False]
    (snapshot,) = (site.home.storage / ".dicom" / "snapshots").glob("*.json")
    assert found_in(snapshot.read_bytes(), _words(site)) == []


# --- privacy -----------------------------------------------------------------------------------


def _words(site) -> set[bytes]:
    cases = [site.clinic.case(number) for number in site.clinic.clinical_numbers]
    labels = {plan.label.encode() for case in cases for plan in case.plans}
    return labels | {word for case in cases for word in forms_of(case.patient_id, case.name)}


def test_the_file_of_rows_knows_the_patients(runs, site):
    rows = [Path(run.xcom("plans", "rows_uri")[0].removeprefix("file://")) for run in runs.weeks]
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

_HOURS = {"2026-07-18": 168, "2026-04-04": 167, "2026-10-31": 169}


def test_the_dags_timetable_yields_a_week_in_the_clinics_zone(site):
    evenings = [pendulum.parse(f"{day}T20:00", tz=str(ZONE)).isoformat() for day in _HOURS]
    for (day, hours), (start, end) in zip(_HOURS.items(), intervals_of(site.home, DAG, evenings), strict=True):
        begin, finish = map(datetime.fromisoformat, (start, end))
        assert finish == pendulum.parse(f"{day}T18:00", tz=str(ZONE))
        assert (finish - begin).total_seconds() == hours * 3600
