"""Which plans to export: opaque keys to map over, and whose plans they are in a file of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from support import plan_exports
from support.faulty import Faulty
from support.identifiers import found_in
from support.plan_exports import DANGLING, PLAIN, TWICE, listed, plan_uids, week_of, words_of

from airflow_provider_varian.aria.treated import RecordRef, Treated
from airflow_provider_varian.errors import EmptyResultError
from airflow_provider_varian.operators.aria import AriaPatientListOperator
from airflow_provider_varian.operators.patient_list import LIST_KEY
from airflow_provider_varian.operators.plan_rows import read_plan, read_plans
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.uids import RT_BEAMS_TREATMENT_RECORD


@pytest.fixture(scope="module")
def clinic():
    return plan_exports.clinic()


@pytest.fixture
def daemon(clinic, receiver_port):
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=receiver_port)]
    with SimulatedDaemon(Faulty(clinic), trusted=trusted) as running:
        yield running


@pytest.fixture
def week(context):
    def make(**ti):
        return week_of(context, **{"task_id": "plans", **ti})

    return make


def _list(conn: str, at, **more) -> list[str]:
    return AriaPatientListOperator(task_id="plans", dicom_conn_id=conn, **more).execute(at)


def _told(at) -> dict:
    (told,) = at["ti"].xcoms(LIST_KEY)
    return told


def test_what_was_treated_in_the_window_is_listed_with_whom_and_when(aria, week, clinic):
    at = week()
    keys, uri = listed(aria, at)
    rows = read_plans(uri).plans
    assert list(rows) == keys
    by_plan = {row.plan_uid: row for row in rows.values()}
    assert by_plan.keys() == {uid for number in (PLAIN, DANGLING, TWICE) for uid in plan_uids(clinic, number)}
    (uid,) = plan_uids(clinic, PLAIN)
    plain = by_plan[uid]
    assert (plain.patient_id, plain.days, plain.records) == (
        clinic.case(PLAIN).patient_id,
        ("2026-07-23", "2026-07-24"),
        2,
    )
    assert plain.study_instance_uid == clinic.case(PLAIN).plans[0].study.uid
    assert read_plan(uri, keys[0]) == rows[keys[0]]
    assert (_told(at)["count"], _told(at)["first_day"], _told(at)["last_day"]) == (4, "2026-07-23", "2026-07-31")


def test_the_look_back_is_settable(aria, week, clinic):
    _, uri = listed(aria, week(), lookback_days=0)
    days = {day for row in read_plans(uri).plans.values() for day in row.days}
    assert min(days) == "2026-07-24"


def test_a_backfill_does_not_look_back(aria, week):
    """What was treated in a week is in the run of that week, and in no other."""
    at = week()
    at["dag_run"].run_type = "backfill"
    _, uri = listed(aria, at, lookback_days=3)
    days = {day for row in read_plans(uri).plans.values() for day in row.days}
    assert (min(days), _told(at)["first_day"]) == ("2026-07-24", "2026-07-24")


def test_a_window_of_the_past_lists_what_was_treated_then(aria, week, clinic):
    """Three windows, one after the other: together they are all, and none lists what another one does."""
    seen = []
    for first, last in (("2026-07-20", "2026-07-26"), ("2026-07-27", "2026-07-29"), ("2026-07-30", "2026-08-02")):
        _, uri = listed(aria, week(run_id=first), first_day=first, last_day=last, lookback_days=0)
        seen.append({row.plan_uid for row in read_plans(uri).plans.values()})
    assert seen == [set(plan_uids(clinic, number)) for number in (PLAIN, DANGLING, TWICE)]


def test_what_is_mapped_over_and_pushed_names_nobody(aria, week, clinic, caplog):
    at = week()
    keys, uri = listed(aria, at)
    words = words_of(clinic)
    assert found_in(json.dumps([keys, at["ti"].pushed]).encode(), words) == []
    assert found_in(caplog.text.encode(), words) == []
    path = Path(uri.removeprefix("file://"))
    assert found_in(path.read_bytes(), words)  # where they belong
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_cleared_task_numbers_its_rows_as_before(aria, week):
    uids = []
    for _ in range(2):
        _, uri = listed(aria, week())
        uids.append([row.plan_uid for row in read_plans(uri).plans.values()])
    assert uids[0] == uids[1]


def test_nobody_treated_is_a_skip_or_as_it_is_told(aria, week):
    quiet = {"first_day": "2026-01-04", "lookback_days": 0}
    at = week()
    with pytest.raises(AirflowSkipException, match="0 plans treated, 2026-01-04 to 2026-01-04"):
        _list(aria, at, **quiet)
    assert _told(at)["count"] == 0
    with pytest.raises(EmptyResultError):
        _list(aria, week(), on_empty="fail", **quiet)
    assert _list(aria, week(), on_empty="accept", **quiet) == []


@pytest.mark.parametrize("settings", [{"kind": "planned"}, {"on_empty": "ignore"}, {"first_day": "today"}])
def test_what_is_wrong_is_refused_before_anybody_is_asked(aria, week, daemon, settings):
    with pytest.raises(AirflowFailException, match=next(iter(settings.values()))):
        _list(aria, week(), **settings)
    assert not daemon.counts["association"]


def test_newly_approved_is_the_difference_of_two_snapshots(aria, week, clinic, daemon, storage):
    """The base line lists nothing; then a plan is approved; its rerun lists it again, the run after that does not."""
    (late,) = plan_uids(clinic, PLAIN)
    daemon.holdings.hidden = lambda uid: uid == late
    at = week(run_id="first")
    assert _list(aria, at, kind="newly_approved", on_empty="accept") == []
    assert _told(at)["base_line"]
    daemon.holdings.hidden = lambda uid: False
    for run in ("second", "second"):
        at = week(run_id=run)
        keys = _list(aria, at, kind="newly_approved")
        assert [row.plan_uid for row in read_plans(_told(at)["uri"]).plans.values()] == [late]
        assert read_plan(_told(at)["uri"], keys[0]).patient_id == clinic.case(PLAIN).patient_id
    assert _list(aria, week(run_id="third"), kind="newly_approved", on_empty="accept") == []
    (snapshot,) = storage.glob(".dicom/snapshots/*.json")
    assert snapshot.name == "weekly-plans.json"
    assert found_in(snapshot.read_bytes(), words_of(clinic)) == []


def test_a_snapshot_is_written_when_the_rows_are_durable(aria, week, clinic, daemon, storage, monkeypatch):
    """A kill between the two lists the plans again; the other way round they would never be exported."""
    (late,) = plan_uids(clinic, PLAIN)
    daemon.holdings.hidden = lambda uid: uid == late
    _list(aria, week(run_id="first"), kind="newly_approved", on_empty="accept")
    daemon.holdings.hidden = lambda uid: False

    def refuse(*_, **__):
        raise OSError("killed")

    with monkeypatch.context() as killed:
        killed.setattr("airflow_provider_varian.operators.patient_list.write_plans", refuse)
        with pytest.raises(OSError, match="killed"):
            _list(aria, week(run_id="second"), kind="newly_approved")
    at = week(run_id="third")
    _list(aria, at, kind="newly_approved")
    assert [row.plan_uid for row in read_plans(_told(at)["uri"]).plans.values()] == [late]


def test_a_backfill_of_newly_approved_is_refused_with_the_reason(aria, week, daemon):
    at = week()
    at["dag_run"].run_type = "backfill"
    with pytest.raises(AirflowFailException, match="backfill"):
        _list(aria, at, kind="newly_approved")
    at["dag_run"].run_type = "scheduled"
    assert _list(aria, at, kind="newly_approved", on_empty="accept") == []


def test_candidates_may_be_the_plans_of_some_patients(aria, week, clinic, daemon):
    only = {
        "kind": "newly_approved",
        "patient_ids": [clinic.case(TWICE).patient_id],
        "snapshot": "two",
        "on_empty": "accept",
    }
    late = {*plan_uids(clinic, TWICE), *plan_uids(clinic, PLAIN)}
    daemon.holdings.hidden = lambda uid: uid in late
    _list(aria, week(run_id="first"), **only)
    daemon.holdings.hidden = lambda uid: False
    at = week(run_id="second")
    _list(aria, at, **only)
    listed_now = {row.plan_uid for row in read_plans(_told(at)["uri"]).plans.values()}
    assert listed_now == set(plan_uids(clinic, TWICE))


def test_records_whose_answers_leave_open_their_plan_are_read_once(aria, week, clinic, daemon, monkeypatch):
    (first, second) = clinic.case(PLAIN).plans[0].records
    found: list[dict] = []

    def find(session, window, *, read: object, **_):
        refs = [RecordRef(**_known(each), day=None) for each in (first, second)]
        found.append(read(refs))
        return Treated(plans=(), undecided=(replace(refs[0], reason="names no plan"),), warnings=())

    def _known(each):
        return {
            "sop_instance_uid": each.sop_instance_uid,
            "sop_class_uid": RT_BEAMS_TREATMENT_RECORD,
            "series_instance_uid": "",
            "study_instance_uid": clinic.case(PLAIN).plans[0].study.uid,
            "patient_id": clinic.case(PLAIN).patient_id,
        }

    monkeypatch.setattr("airflow_provider_varian.aria.treated.find_treated", find)
    for _ in range(2):
        at = week()
        assert _list(aria, at) == []
    assert {uid: str(each.Modality) for uid, each in found[0].items()} == {
        first.sop_instance_uid: "RTRECORD",
        second.sop_instance_uid: "RTRECORD",
    }
    assert daemon.counts["sub-operations"] == 2
    # What stays undecided is told, never dropped: then an empty list is no skip.
    assert _told(at)["undecided"] == [{"sop_instance_uid": first.sop_instance_uid, "reason": "names no plan"}]
    assert "undecided objects: 1" in _told(at)["warnings"][0]


def test_the_run_without_a_logical_date_lists_the_24_hours_before_it(aria, context, clinic):
    at = context(run_after=datetime.fromisoformat("2026-07-31T23:00:00+02:00"), dag_id="weekly", task_id="plans")
    _, uri = listed(aria, at, lookback_days=0)
    days = {day for row in read_plans(uri).plans.values() for day in row.days}
    assert days == {"2026-07-31"}
