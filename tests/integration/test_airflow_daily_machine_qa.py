"""The daily QA under real Airflow: its own database, its own process, a daemon behind a real port."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pendulum
import pytest
from support.airflow_process import ROOT, connection_to, new_home, run_dags
from support.audit_schema import checked, event, participant, query
from support.faulty import Faulty
from support.identifiers import forms_of, found_in
from support.ports import free_port

from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

ZONE = ZoneInfo("Europe/Zurich")
LAST_DAY = date(2026, 11, 20)
NOON = "2026-11-20T12:00:00+01:00"
DAG = "daily_machine_qa"
QA = "machine.qa_images"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A clinic with no day that the run of its last one does not look back to, and an Airflow with a connection to its
    daemon and one to nobody."""
    port = free_port()
    clinic = Clinic(days=5, patients=4, matrix=32, until=LAST_DAY, timezone=ZONE)
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
    with SimulatedDaemon(Faulty(clinic), trusted=trusted, timezone=ZONE) as daemon:
        connections = {
            name: connection_to(where, receiver_port=port, zone=ZONE)
            for name, where in (("aria", daemon.address[1]), ("gone", free_port()))
        }
        home = new_home(tmp_path_factory.mktemp("airflow"), connections=connections)
        yield SimpleNamespace(daemon=daemon, home=home, clinic=clinic)


@pytest.fixture(scope="module")
def defaults() -> list[dict]:
    """The machines that stand in the DAG file."""
    namespace: dict = {"__name__": "dag", "__file__": "dag"}
    exec(compile((ROOT / "dags" / "daily_machine_qa.py").read_text(), "dag", "exec"), namespace)
    return namespace["MACHINES"]


def _changed(machines, **changes) -> list[dict]:
    return [machine | changes for machine in deepcopy(machines)]


def _manifest(told) -> dict:
    return json.loads(Path(told["uri"].removeprefix("file://")).read_text())


def _report(site, result) -> dict:
    (uri,) = result.xcom("summary")
    return json.loads(Path(uri.removeprefix("file://")).read_text())


_HOURS = {"2026-11-20": 24, "2026-03-29": 23, "2026-10-25": 25, "2026-03-30": 24}


@pytest.fixture(scope="module")
def runs(site, defaults):
    """The run of the day, the same again, runs that end differently, and some intervals; all in one process, since to
    start Airflow takes longer than a run."""
    noons = [pendulum.parse(f"{morning}T12:00", tz=str(ZONE)).isoformat() for morning in _HOURS]
    requests = {
        "first": {"logical_date": NOON},
        "again": {"logical_date": NOON},
        "no logical date": {"logical_date": None, "run_after": "2026-11-20T09:00:00+01:00"},
        "one day of the form": {"conf": {"first_day": "2026-11-17"}},
        "nothing came": {"conf": {"first_day": "2026-11-21"}},
        "holiday": {
            "conf": {
                "first_day": "2026-11-21",
                "machines": _changed(defaults, expected={"minimum": 1, "holidays": ["2026-11-21"]}),
            }
        },
        "one daemon is gone": {
            "logical_date": "2026-11-20T14:00:00+01:00",
            "conf": {"machines": [defaults[0] | {"dicom_conn_id": "gone"}, defaults[1]]},
        },
        "a contradiction": {"conf": {"machines": [defaults[0] | {"expected": {"minimum": 1, "each_beam_once": True}}]}},
        "wrong plan": {
            "logical_date": "2026-11-20T13:00:00+01:00",
            "conf": {"machines": _changed(defaults[:1], plan_label="WL_10NV")},
        },
        "intervals": {"intervals": noons},
    }
    results, output = run_dags(site.home, [{"dag_id": DAG} | request for request in requests.values()])
    return SimpleNamespace(output=output, of=dict(zip(requests, results, strict=True)))


@pytest.fixture(scope="module")
def first(runs):
    """The run of the day."""
    return runs.of["first"]


def test_both_machines_are_complete_and_named(first, site):
    assert first.state == "success"
    assert first.states(QA) == ["success", "success"]
    assert [first.tasks[(QA, index)]["name"] for index in (0, 1)] == ["TrueBeam1", "Halcyon2"]
    machines = _report(site, first)["machines"]
    assert [(machine["machine"], machine["outcome"]) for machine in machines] == [
        ("TrueBeam1", "complete"),
        ("Halcyon2", "complete"),
    ]
    assert [day["images"] for day in machines[0]["days"]] == [8] * 5  # the interval's two days and the look-back
    assert [day["images"] for day in machines[1]["days"]] == [1] * 5


def test_images_lie_under_their_acquisition_days(first, site):
    days = {path.name for path in site.home.storage.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert days == {f"202611{day}" for day in (16, 17, 18, 19, 20)}
    assert len(list(site.home.storage.glob("2*/*/*/RTIMAGE.*.dcm"))) == 5 * 9


def test_the_manifest_is_told_in_xcom(first):
    manifests = first.xcom(QA, "dicom_manifest")
    assert [manifest["outcome"] for manifest in manifests] == ["complete", "complete"]
    for manifest in manifests:
        assert _manifest(manifest)["outcome"] == "complete"


def test_what_is_mapped_over_is_opaque(first, defaults):
    (keys,) = first.xcom("machines")
    assert len(keys) == 2
    told = json.dumps(list(first.xcoms.values()))
    assert not [machine["patient_id"] for machine in defaults if machine["patient_id"] in told]


def test_the_summary_is_a_table_in_the_log(runs):
    assert "TrueBeam1  WL_10MV          2026-11-20  yes       8" in runs.output


def test_the_log_names_no_phantom_either(runs, defaults):
    assert "C-FIND to VMSDBD" in runs.output
    assert not [machine["patient_id"] for machine in defaults if machine["patient_id"] in runs.output]


def test_no_later_run_moves_an_image(runs, site):
    """All of them ask for days that the first one brought, or for none that there is."""
    assert runs.of["again"].state == "success"
    assert _report(site, runs.of["again"])["machines"][0]["counts"]["held"] == 40
    # And the plan once, which says how many beams there are.
    assert site.daemon.counts["sub-operations"] == 5 * 9 + 1


def test_a_run_without_a_logical_date_judges_the_last_24_hours(runs, site):
    run = runs.of["no logical date"]
    assert run.state == "success"
    assert {machine["run_day"] for machine in _report(site, run)["machines"]} == {"2026-11-20"}


def test_a_day_of_the_form_sets_the_state(runs, site):
    run = runs.of["one day of the form"]
    assert run.state == "success"
    assert {machine["run_day"] for machine in _report(site, run)["machines"]} == {"2026-11-17"}


def test_nothing_on_an_expected_day_fails_the_run_by_name(runs, site):
    run = runs.of["nothing came"]
    assert run.state == "failed"
    assert run.states(QA) == ["failed", "failed"]
    assert run.states("summary") == ["success"]
    report = _report(site, run)["machines"]
    assert [machine["outcome"] for machine in report] == ["empty", "empty"]
    assert "TrueBeam1, 2026-11-21: no image found, at least 8 expected" in runs.output
    assert "Halcyon2, 2026-11-21: no image found, at least 1 expected" in runs.output


def test_nothing_on_another_day_is_a_skip(runs, site):
    run = runs.of["holiday"]
    assert run.state == "success"
    assert run.states(QA) == ["skipped", "skipped"]
    assert [machine["outcome"] for machine in _report(site, run)["machines"]] == ["not_expected", "not_expected"]


def test_a_daemon_that_does_not_answer_fails_its_machine_alone(runs, site):
    run = runs.of["one daemon is gone"]
    assert run.state == "failed"
    assert run.states("machine.daemon_answers") == ["failed", "success"]
    assert run.states(QA) == ["upstream_failed", "success"]
    assert [machine["outcome"] for machine in _report(site, run)["machines"]] == ["no result", "complete"]


def test_a_contradiction_in_the_form_fails_with_machine_and_remedy(runs):
    run = runs.of["a contradiction"]
    assert run.state == "failed"
    assert run.states("machines") == ["failed"]
    assert run.states("summary") == ["success"]
    assert "machine 'TrueBeam1': expected has both minimum and each_beam_once. Keep one of them" in runs.output


def test_a_plan_that_is_not_there_is_told_with_its_reason(runs, site):
    run = runs.of["wrong plan"]
    assert run.states(QA) == ["failed"]
    (machine,) = _report(site, run)["machines"]
    assert machine["outcome"] == "failed"
    assert "'WL_10MV'" in machine["message"]


# --- privacy -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clinical(site, tmp_path_factory):
    """A run over all patients of the clinic, in a home of its own."""
    environment = json.loads(site.home.environment["AIRFLOW_CONN_ARIA"])
    home = new_home(
        tmp_path_factory.mktemp("clinical"),
        dags=Path(__file__).parent / "dags",
        connections={"aria": environment},
    )
    # With an audit trail beside them: no patient is named there either.
    (home.root / "audit").mkdir(mode=0o700)
    home.environment["AIRFLOW__VARIAN__AUDIT"] = str(home.root / "audit" / "audit.xml")
    (result,), output = run_dags(home, [{"dag_id": "patients_on_purpose"}])
    from airflow_provider_varian.simulator.facts import case_facts

    cases = list(case_facts(site.clinic))
    words = {word for case in cases for word in forms_of(case.patient_id, case.name)}
    return SimpleNamespace(home=home, result=result, output=output, words=words)


def test_the_run_over_patients_really_looked_at_them(clinical):
    assert clinical.result.states("patients") == ["success"]
    assert sum(clinical.result.xcom("plans")) >= 4
    assert set(clinical.result.states("wrong")) == {"failed"}
    assert clinical.result.states("nobody") == ["skipped"]
    answers = list(clinical.home.storage.glob(".dicom/answers/*.json"))
    assert answers
    assert found_in(answers[0].read_bytes(), clinical.words)  # where they belong


def test_no_patient_is_named_in_the_log(clinical):
    assert "C-FIND to VMSDBD" in clinical.output
    assert found_in(clinical.output.encode(), clinical.words) == []


def test_no_patient_is_named_in_airflows_database_or_files(clinical):
    files = [path for path in clinical.home.root.rglob("*") if path.is_file()]
    files = [path for path in files if not path.is_relative_to(clinical.home.storage)]
    assert {clinical.home.database, clinical.home.root / "audit" / "audit.xml"} <= set(files)
    named = {str(path): found_in(path.read_bytes(), clinical.words) for path in files}
    assert {path: words for path, words in named.items() if words} == {}


def test_the_audit_trail_tells_of_each_task_and_of_no_patient(clinical):
    lines = (clinical.home.root / "audit" / "audit.xml").read_text(encoding="utf-8").splitlines()
    found = [checked(line) for line in lines]
    for_whom = re.compile(r"dag_id=patients_on_purpose, run_id=\S+, task_id=(\w+)(, map_index=\d+)?, try_number=1")
    tasks = {for_whom.fullmatch(participant(message, "110151")["UserID"])[1] for message in found}
    assert {"patients", "plans"} <= tasks
    assert {event(message) for message in found} >= {"110112"}
    asked = [str(query(message)) for message in found if event(message) == "110112"]
    assert any("withheld" in identifier for identifier in asked)
    assert found_in("\n".join(asked).encode(), clinical.words) == []
    assert "AuditMessage" not in clinical.output


def test_no_patient_is_named_in_a_manifest_or_a_path(clinical):
    manifests = list(clinical.home.storage.glob(".dicom/*.json"))
    assert manifests
    paths = "\n".join(str(path) for path in clinical.home.storage.rglob("*"))
    assert found_in(paths.encode(), clinical.words) == []
    assert [found_in(path.read_bytes(), clinical.words) for path in manifests] == [[]] * len(manifests)


# --- the timetable --------------------------------------------------------------------------------


def test_the_dags_timetable_yields_a_real_interval_in_the_clinics_zone(runs):
    for (morning, hours), interval in zip(_HOURS.items(), runs.of["intervals"], strict=True):
        start, end = map(datetime.fromisoformat, interval)
        assert end == pendulum.parse(f"{morning}T07:45", tz=str(ZONE))
        assert (end - start).total_seconds() == hours * 3600


def test_the_machines_that_stand_in_the_dag_are_valid(defaults):
    from airflow_provider_varian.aria.machines import parse_machines

    assert [machine.name for machine in parse_machines(defaults)] == ["TrueBeam1", "Halcyon2"]
