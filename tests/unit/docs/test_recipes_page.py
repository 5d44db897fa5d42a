"""The recipes, as they stand on their page: run one after the other, by the hook, against a simulated daemon."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from support.asked_clinic import daemon_of

from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.simulator.facts import case_facts, facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

TOP = Path(__file__).parents[3]
PAGE = (TOP / "docs/howto/recipes.md").read_text(encoding="utf-8")
MONDAY, FRIDAY = date(2026, 11, 16), date(2026, 11, 20)


@pytest.fixture
def clinic():
    return Clinic(seed=1, patients=25, days=5, until=FRIDAY, matrix=16)


@pytest.fixture
def aria(clinic, tmp_path, monkeypatch):
    """The connection of the page."""
    monkeypatch.setenv("AIRFLOW__VARIAN__STORAGE_ROOT", str(tmp_path / "storage"))
    monkeypatch.setenv("AIRFLOW__VARIAN__SPOOL_ROOT", str(tmp_path / "spool"))
    with daemon_of(clinic, get=True) as daemon:
        extra = {
            "called_ae_title": "VMSDBD",
            "timezone": "Europe/Zurich",
            "profile_overrides": {"stable_interval_seconds": 0, "stable_counts": 1, "settle_seconds": 0},
        }
        host, port = daemon.address
        connection = {"conn_type": "dicom", "host": host, "port": port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_ARIA", json.dumps(connection))
        yield daemon


@pytest.mark.airflow
def test_the_recipes_do_what_the_page_says(clinic, aria, capsys, tmp_path):
    said = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(compile(block, "recipes.md", "exec"), said)

    (plan,) = [fact for fact in facts(clinic) if (fact.course, fact.label) == ("QA", "WL_10MV")]
    assert said["plan"].sop_instance_uid == plan.sop_instance_uid
    assert plan.sop_instance_uid in {each.sop_instance_uid for each in said["in_use"]}
    images = [image for day in plan.days for image in plan.images(day) if not image.kv]
    assert {one.sop_instance_uid for one in said["images"]} == {image.sop_instance_uid for image in images}
    assert len(said["all_of_them"]) == len(plan.days)
    assert said["newest"] == said["on_friday"][-1]
    assert said["newest"].day == FRIDAY
    assert {one.machine for one in said["of_machine"]} == {"TrueBeam1"}
    assert all(one.kv for one in said["of_machine"])
    assert len({one.machine for one in said["of_clinic"]}) > 1

    records = [
        (each.sop_instance_uid, record.treated.date())
        for case in case_facts(clinic)
        for each in case.plans
        for record in each.records
    ]
    treated = {uid for uid, day in records if MONDAY <= day <= FRIDAY}
    assert {each.plan_uid for each in said["treated"].plans} == treated
    assert said["found"].answers
    assert len(said["courses"]) >= 2
    assert {each.modality for each in said["series"]} == {"RTPLAN"}
    assert said["result"].outcome == "complete"
    brought = {path.name.split(".", 1)[1].removesuffix(".dcm") for path in (tmp_path / "storage").rglob("*.dcm")}
    assert brought == {one.sop_instance_uid for one in said["newest"].images}
    assert (tmp_path / "storage/.dicom/snapshots/approvals.json").is_file()
    # What the recipes print, and what their results look like, names no patient.
    patients = {case.patient_id for case in case_facts(clinic)} | {fact.patient_id for fact in facts(clinic)}
    shown = capsys.readouterr().out + repr(
        [said[name] for name in ("images", "treated", "newest", "courses", "former")]
    )
    assert not [patient for patient in patients if patient in shown]


def test_the_week_of_the_page_is_whole_days_of_the_clinic():
    from airflow_provider_varian.query.window import day_window

    zone = ZoneInfo("Europe/Zurich")
    assert day_window(MONDAY, FRIDAY, zone).end == datetime(2026, 11, 20, tzinfo=zone) + timedelta(days=1)


def test_the_overrides_on_the_page_are_ones_that_a_profile_takes():
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.S)]
    assert len(blocks) == 2
    for block in blocks:
        assert Profile(name="plain").overridden(block["profile_overrides"]) != Profile(name="plain")


def test_every_habit_of_a_profile_has_its_meaning_in_the_table(monkeypatch):
    monkeypatch.syspath_prepend(str(TOP / "docs/_ext"))
    from profile_table import profile_rows

    rows = {re.match(r"\| `(\w+)` \| (\S.*?) \| ", row)[1]: row for row in profile_rows()}
    assert set(rows) == {name for name in Profile.__dataclass_fields__ if name != "name"}
    assert "plan without beams" in rows["expected_failures"]
    assert "`0xC001` | none |" in rows["too_broad_statuses"]
