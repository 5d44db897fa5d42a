from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from support.asked_clinic import ONCE, QUICK, asked
from support.scripted_peer import PENDING, dataset

from airflow_provider_varian import uids
from airflow_provider_varian.aria.approvals import Candidates, find_newly_approved
from airflow_provider_varian.aria.snapshots import Snapshot, read_snapshot, write_snapshot
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.simulator.clinic.case import Approval
from airflow_provider_varian.simulator.facts import case_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

ZONE = ZoneInfo("Europe/Zurich")
PLANNED_FROM = date(2026, 1, 1)
CANDIDATES = Candidates(planned_from=PLANNED_FROM)
NOW = datetime(2026, 3, 2, 6, tzinfo=UTC)


# The simulated clinic ----------------------------------------------------------------------------


def clinic_on(day):
    """Return a clinic of which each day's holds the patients of the days before, too: one more each weekday."""
    weeks = (day - date(2026, 11, 20)).days // 7
    return Clinic(seed=1, patients=90 + 5 * weeks, days=1, until=day, matrix=64)


def newly_on(day, former, *, run, candidates=None, **habits):
    candidates = candidates or Candidates(planned_from=date(2026, 6, 1))
    now = datetime.combine(day, datetime.min.time(), ZONE) + timedelta(hours=20)
    with asked(clinic_on(day), **habits) as session:
        return find_newly_approved(session, candidates, former, run=run, now=now)


def reviewed_between(clinic, after, until):
    """Return the approved plans of the patients, machine QA aside, by what their objects say."""
    return {
        plan.sop_instance_uid: case.patient_id
        for case in case_facts(clinic)
        for plan in case.plans
        if plan.approval is Approval.APPROVED and plan.reviewed and after < plan.reviewed.date() <= until
    }


def test_what_was_approved_between_two_snapshots_is_what_the_clinic_approved():
    first, second = date(2026, 11, 20), date(2026, 12, 4)
    base = newly_on(first, None, run="one")
    assert base.first
    assert base.newly == ()
    assert "base line" in base.warnings[0]
    found = newly_on(second, base.snapshot, run="two")
    expected = reviewed_between(clinic_on(second), first, second)
    assert len(expected) > 5
    assert {one.plan.sop_instance_uid: one.patient_id for one in found.newly} == expected
    assert (found.first, found.undecided, found.warnings) == (False, (), ())
    assert not any(one.again for one in found.newly)
    again = newly_on(second, found.snapshot, run="three")
    assert again.newly == ()
    assert again.snapshot.plans == found.snapshot.plans


def test_the_plans_of_given_patients_are_compared_alone():
    first, second = date(2026, 11, 20), date(2026, 12, 4)
    expected = reviewed_between(clinic_on(second), first, second)
    patients = tuple(sorted(set(expected.values())))[:2]
    candidates = Candidates(patient_ids=patients)
    base = newly_on(first, None, run="one", candidates=candidates)
    found = newly_on(second, base.snapshot, run="two", candidates=candidates)
    assert {one.plan.sop_instance_uid for one in found.newly} == {
        uid for uid, patient in expected.items() if patient in patients
    }
    assert not any(patient in repr(candidates) + repr(found) for patient in patients)


def test_a_clinic_that_is_too_broad_is_asked_in_parts():
    day = date(2026, 11, 20)
    whole = newly_on(day, None, run="one")
    assert len(whole.snapshot.plans) > 100
    # On one day a patient has more than 30 plans, so what is refused is months, not days.
    assert newly_on(day, None, run="one", row_limit=60).snapshot.plans == whole.snapshot.plans


# One plan, step by step --------------------------------------------------------------------------


def plan(number=1, *, status="UNAPPROVED", reviewed=None, planned="20260226", leave_out=(), **values):
    values = {
        "SOPClassUID": uids.RT_PLAN,
        "SOPInstanceUID": f"1.2.{number}",
        "SeriesInstanceUID": f"1.3.{number}",
        "StudyInstanceUID": "1.4",
        "PatientID": "PAT-1",
        "Modality": "RTPLAN",
        "RTPlanLabel": f"PLAN{number}",
        "StudyID": "C1",
        "RTPlanDate": planned,
        "RTPlanTime": "101500",
        "ApprovalStatus": status,
        "ReviewDate": reviewed,
        "ReviewTime": "120000" if reviewed else None,
        **values,
    }
    return dataset(**{keyword: value for keyword, value in values.items() if keyword not in leave_out})


APPROVED = {"status": "APPROVED", "reviewed": "20260228"}


@pytest.fixture
def story(scripted):
    """Take one snapshot after the other, each with what the peer lists then."""
    return Story(scripted)


class Story:
    def __init__(self, scripted):
        self.scripted = scripted
        self.snapshot: Snapshot | None = None
        self.runs = 0

    def __call__(self, *plans, candidates=CANDIDATES, now=None, run=None, profile=ONCE, keep=True, **options):
        self.runs += 1
        self.scripted.script = lambda request: [
            (PENDING, each)
            for each in plans
            if (request.value("SOPInstanceUID") or each.SOPInstanceUID) == each.SOPInstanceUID
        ]
        with FindSession(self.scripted.peer(timezone="Europe/Zurich"), profile=profile) as session:
            found = find_newly_approved(
                session, candidates, self.snapshot, run=run or f"run-{self.runs}",
                now=now or NOW + timedelta(days=self.runs), **options,
            )  # fmt: skip
        if keep:
            self.snapshot = found.snapshot
        return found


def numbers(found):
    return [(int(one.plan.sop_instance_uid.rsplit(".", 1)[1]), one.again) for one in found.newly]


def test_the_first_run_is_the_base_line_and_says_so(story):
    found = story(plan(1, **APPROVED), plan(2))
    assert (found.first, numbers(found)) == (True, [])
    assert "the 2 plans that are there, 1 of them approved, are the base line" in found.warnings[0]


def test_one_query_asks_for_the_plans_of_the_clinic_by_their_date(story, scripted):
    story(plan(1))
    (request,) = scripted.requests
    assert (request.level, request.value("Modality")) == ("IMAGE", "RTPLAN")
    assert request.value("RTPlanDate") == "20260101-20260304"
    assert not request.value("ApprovalStatus")


def test_a_plan_that_becomes_approved_is_new_once(story):
    story(plan(1))
    assert numbers(story(plan(1, **APPROVED))) == [(1, False)]
    assert numbers(story(plan(1, **APPROVED))) == []


def test_a_plan_that_comes_approved_is_new(story):
    story(plan(1))
    assert numbers(story(plan(1), plan(2, **APPROVED))) == [(2, False)]


def test_other_states_are_not_approved(story):
    story(plan(1))
    assert numbers(story(plan(1, status="REJECTED", reviewed="20260301"))) == []


@pytest.mark.parametrize("changed", [{"reviewed": "20260305"}, {"ReviewTime": "130000"}, {"planned": "20260305"}])
def test_a_plan_that_was_changed_and_approved_again_is_a_new_revision(story, changed):
    story(plan(1, **APPROVED))
    assert numbers(story(plan(1, **{**APPROVED, **changed}))) == [(1, True)]
    assert numbers(story(plan(1, **{**APPROVED, **changed}))) == []


def test_a_time_that_is_answered_more_or_less_exactly_is_no_change(story):
    story(plan(1, **APPROVED, ReviewTime="120000.000000"))
    assert numbers(story(plan(1, **APPROVED, ReviewTime="1200"))) == []
    assert numbers(story(plan(1, **APPROVED, ReviewTime=None))) == []
    assert numbers(story(plan(1, status="APPROVED"))) == []
    assert numbers(story(plan(1, **APPROVED, ReviewTime="120000"))) == []


def test_a_review_that_is_not_answered_for_once_is_not_forgotten(story):
    story(plan(1, **APPROVED))
    story(plan(1, status="APPROVED"))
    assert numbers(story(plan(1, status="APPROVED", reviewed="20260304"))) == [(1, True)]


def test_a_plan_that_went_back_and_was_approved_again_is_new(story):
    story(plan(1, **APPROVED))
    assert numbers(story(plan(1))) == []
    assert numbers(story(plan(1, **APPROVED))) == [(1, False)]


def test_a_plan_that_is_not_listed_for_once_is_not_new_afterwards(story):
    story(plan(1, **APPROVED), plan(2))
    story(plan(2))
    assert numbers(story(plan(1, **APPROVED), plan(2))) == []


def test_the_same_run_again_finds_the_same_and_what_came_since(story):
    story(plan(1), plan(2), plan(3, **APPROVED))
    assert numbers(story(plan(1, **APPROVED), plan(2), plan(3), run="weekly")) == [(1, False)]
    cleared = story(plan(1, **APPROVED), plan(2, **APPROVED), plan(3), run="weekly")
    assert numbers(cleared) == [(1, False), (2, False)]
    assert numbers(story(plan(1, **APPROVED), plan(2, **APPROVED), plan(3, **APPROVED), run="weekly")) == [
        (1, False), (2, False),
    ]  # fmt: skip
    assert numbers(story(plan(1, **APPROVED), plan(2, **APPROVED), plan(3))) == []


def test_a_snapshot_that_was_not_written_loses_nothing(story):
    story(plan(1))
    assert numbers(story(plan(1, **APPROVED), keep=False)) == [(1, False)]
    assert numbers(story(plan(1, **APPROVED))) == [(1, False)]


def test_a_snapshot_goes_by_way_of_its_file(story, tmp_path):
    destination = Destination(tmp_path)
    write_snapshot(destination, "weekly", story(plan(1), plan(2, **APPROVED)).snapshot)
    story.snapshot = read_snapshot(destination, "weekly")
    found = story(plan(1, **APPROVED), plan(2, **APPROVED))
    assert numbers(found) == [(1, False)]
    write_snapshot(destination, "weekly", found.snapshot)
    assert read_snapshot(destination, "weekly") == found.snapshot
    assert "PAT" not in (tmp_path / ".dicom/snapshots/weekly.json").read_text()
    assert "PLAN" not in (tmp_path / ".dicom/snapshots/weekly.json").read_text()


# Candidates --------------------------------------------------------------------------------------


def test_candidates_that_go_further_back_bring_no_old_approvals(story):
    late = Candidates(planned_from=date(2026, 2, 1))
    old = {"planned": "20260115", "reviewed": "20260116", "status": "APPROVED"}
    story(plan(1), candidates=late)
    found = story(plan(1), plan(2, **old), plan(3, **{**old, "reviewed": "20260303"}))
    assert numbers(found) == [(3, False)]
    assert "1 approved plans are among the candidates for the first time" in found.warnings[0]
    assert numbers(story(plan(1), plan(2, **old), plan(3, **{**old, "reviewed": "20260303"}))) == []


def test_a_window_of_candidates_that_moves_on_forgets_nothing(story):
    story(plan(1, planned="20260115", **APPROVED), plan(2))
    story(plan(2), candidates=Candidates(planned_from=date(2026, 2, 1)))
    assert story.snapshot.planned_from == PLANNED_FROM
    assert numbers(story(plan(1, planned="20260115", **APPROVED), plan(2, **APPROVED))) == [(2, False)]


def test_each_patient_is_asked_for_exactly_once(story, scripted):
    rows = (plan(1), plan(2, PatientID="PAT*2"), plan(3, PatientID="PATX2"))
    found = story(*rows, candidates=Candidates(patient_ids=("PAT-1", "PAT*2", "PAT-1")))
    # To the peer the star is a wildcard, and here it is not.
    assert sorted(found.snapshot.plans) == ["1.2.1", "1.2.2"]
    assert [request.value("PatientID") for request in scripted.requests] == ["PAT-1", "PAT*2"]


@pytest.mark.parametrize("options", [{}, {"planned_from": PLANNED_FROM, "patient_ids": ("PAT-1",)}])
def test_it_has_to_be_said_whose_plans_are_compared(options):
    with pytest.raises(ConfigurationError, match="whose plans"):
        Candidates(**options)


def test_a_snapshot_of_other_candidates_is_refused(story, scripted):
    story(plan(1))
    asked_before = len(scripted.requests)
    with pytest.raises(ConfigurationError, match="another name"):
        story(plan(1), candidates=Candidates(patient_ids=("PAT-1",)))
    assert len(scripted.requests) == asked_before


# Forward only ------------------------------------------------------------------------------------


def test_a_backfill_is_refused_with_the_reason_before_any_query(story, scripted):
    with pytest.raises(ConfigurationError, match=r"cannot be backfilled.*which state a plan has, not which it had"):
        story(plan(1), is_backfill=True)
    assert not scripted.requests


def test_an_earlier_run_that_is_cleared_is_refused(story, scripted):
    story(plan(1), run="monday", until=NOW)
    story(plan(1, **APPROVED), run="tuesday", until=NOW + timedelta(days=1))
    asked_before = len(scripted.requests)
    with pytest.raises(ConfigurationError, match="a later run has taken its snapshot"):
        story(plan(1, **APPROVED), run="monday", until=NOW)
    assert len(scripted.requests) == asked_before
    assert numbers(story(plan(1, **APPROVED), run="tuesday", until=NOW + timedelta(days=1))) == [(1, False)]


def test_runs_that_catch_up_one_after_the_other_are_taken(story):
    late = NOW + timedelta(days=9)
    story(plan(1), run="monday", until=NOW, now=late)
    found = story(plan(1, **APPROVED), run="tuesday", until=NOW + timedelta(days=1), now=late)
    assert numbers(found) == [(1, False)]


# Undecided ---------------------------------------------------------------------------------------


def test_a_state_that_is_not_answered_is_neither_new_nor_forgotten(story):
    story(plan(1), plan(2, **APPROVED))
    found = story(plan(1, status=None), plan(2, status=None))
    assert numbers(found) == []
    assert [one.sop_instance_uid for one in found.undecided] == ["1.2.1", "1.2.2"]
    assert "2 plans came without ApprovalStatus" in found.warnings[0]
    assert "PAT" not in found.warnings[0]
    assert numbers(story(plan(1, **APPROVED), plan(2, **APPROVED))) == [(1, False)]


def test_a_state_that_is_not_answered_is_asked_for_by_uid_and_then_read(story, scripted):
    story(plan(1))
    read = []

    def heads(plans):
        read.extend(one.sop_instance_uid for one in plans)
        return {"1.2.1": plan(1, **APPROVED)}

    found = story(plan(1, status=None), read=heads)
    assert numbers(found) == [(1, False)]
    assert read == ["1.2.1"]
    assert scripted.requests[-1].value("SOPInstanceUID") == "1.2.1"
    assert found.newly[0].state.reviewed == "20260228120000"


def test_a_plan_without_date_is_a_candidate_too(story):
    story(plan(1, planned=None))
    assert numbers(story(plan(1, planned=None, **APPROVED))) == [(1, False)]


def test_a_list_that_grows_is_asked_for_until_it_stands_still(scripted):
    def script(request):
        there = range(1, min(len(scripted.requests), 3) + 1)
        return [(PENDING, plan(number)) for number in there]

    scripted.script = script
    with FindSession(scripted.peer(timezone="Europe/Zurich"), profile=QUICK) as session:
        found = find_newly_approved(session, CANDIDATES, None, run="one", now=NOW)
    assert sorted(found.snapshot.plans) == ["1.2.1", "1.2.2", "1.2.3"]
