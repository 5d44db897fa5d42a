from __future__ import annotations

import json
from collections import defaultdict
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from support.asked_clinic import ONCE, QUICK, asked, daemon_of, session_with
from support.scripted_peer import PENDING, dataset

from airflow_provider_varian import uids
from airflow_provider_varian.aria.profile import GENERIC
from airflow_provider_varian.aria.treated import NO_DATE, NO_PLAN, find_treated
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import (
    CancelledError,
    ConfigurationError,
    CroppedAnswerError,
    PeerFailureError,
    QueryError,
)
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.window import Window, day_window
from airflow_provider_varian.simulator.facts import case_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

ZONE = ZoneInfo("Europe/Zurich")
MONDAY, FRIDAY = date(2026, 11, 9), date(2026, 11, 13)
WEEK = day_window(MONDAY, FRIDAY, ZONE)
DAY = day_window(MONDAY, MONDAY, ZONE)
OWN = "1.2.9"
#: A seed with which the daemon's first answer is short.
SHORT_AT_FIRST = 2


@pytest.fixture(scope="module")
def clinic():
    """Patients enough for each irregularity, the treated ones of the week among them."""
    return Clinic(seed=1, patients=70, days=1, until=date(2026, 11, 20), matrix=64)


def truth(clinic, wanted):
    """Return what the clinic knows it treated: per plan its study, patient, days, records and machines."""
    found = {}
    for case in case_facts(clinic):
        for plan in case.plans:
            moments = [record.treated for record in plan.records if wanted(record.treated)]
            if moments:
                days = tuple(sorted({moment.date() for moment in moments}))
                found[plan.sop_instance_uid] = (plan.study.uid, case.patient_id, days, len(moments), (plan.machine,))
    return found


def in_week(moment):
    return MONDAY <= moment.date() <= FRIDAY


def told(treated):
    return {
        plan.plan_uid: (plan.study_instance_uid, plan.patient_id, plan.days, plan.records, plan.machines)
        for plan in treated.plans
    }


# The simulated clinic ----------------------------------------------------------------------------


def test_the_plans_treated_in_a_week_are_those_that_the_clinic_treated(clinic):
    expected = truth(clinic, in_week)
    assert len(expected) > 20
    with asked(clinic) as session:
        treated = find_treated(session, WEEK)
    assert told(treated) == expected
    assert (treated.undecided, treated.warnings) == ((), ())
    assert treated.patient_ids == tuple(sorted({patient for _, patient, *_ in expected.values()}))


def test_a_window_of_the_past_says_the_same_weeks_later(clinic):
    later = Clinic(seed=1, patients=130, days=1, until=date(2027, 2, 12), matrix=64)
    with asked(later) as session:
        treated = find_treated(session, WEEK)
    now = truth(clinic, in_week)
    assert {uid: said for uid, said in told(treated).items() if uid in now} == now


def test_a_window_of_hours_is_compared_here_to_the_minute(clinic):
    noon = datetime(2026, 11, 10, 12)
    expected = truth(clinic, lambda moment: noon <= moment < noon + timedelta(hours=22))
    days = {day for _, _, days, *_ in expected.values() for day in days}
    assert days == {date(2026, 11, 10), date(2026, 11, 11)}
    window = Window(noon.replace(tzinfo=ZONE), (noon + timedelta(hours=22)).replace(tzinfo=ZONE))
    with asked(clinic) as session:
        assert told(find_treated(session, window)) == expected


@pytest.mark.parametrize("timezone", ["Pacific/Auckland", "America/Los_Angeles"])
def test_days_are_the_clinics_wherever_it_is(clinic, timezone):
    zone = ZoneInfo(timezone)
    with asked(clinic, timezone=timezone) as session:
        assert told(find_treated(session, day_window(MONDAY, FRIDAY, zone))) == truth(clinic, in_week)


def test_a_week_that_is_too_broad_is_asked_by_fewer_days(clinic):
    with daemon_of(clinic, row_limit=40) as daemon:
        with session_with(daemon) as session:
            treated = find_treated(session, WEEK)
        assert daemon.counts["C-FIND"] > 3
    assert told(treated) == truth(clinic, in_week)
    assert treated.warnings == ()


def test_a_day_that_is_too_broad_is_asked_by_the_ends_of_patient_ids_and_that_is_told(clinic):
    expected = truth(clinic, lambda moment: moment.date() == MONDAY)
    assert sum(records for *_, records, _ in expected.values()) > 12
    with asked(clinic, row_limit=12) as session:
        treated = find_treated(session, DAY)
    assert told(treated) == expected
    (warning,) = treated.warnings
    assert "last characters of PatientID" in warning


def test_a_list_that_leaves_rows_out_now_and_then_is_asked_until_it_stands_still(clinic):
    habits = {"short_answer_probability": 0.4, "chance_seed": SHORT_AT_FIRST}
    expected = truth(clinic, in_week)
    with asked(clinic, **habits) as session:
        assert told(find_treated(session, WEEK)) != expected
    with asked(clinic, profile=QUICK, **habits) as session:
        assert told(find_treated(session, WEEK)) == expected


def test_a_day_that_is_not_listed_whole_is_an_error(scripted):
    scripted.script = lambda request: [(PENDING, record(1)), (0xC001, None)]
    with pytest.raises(CroppedAnswerError, match="cannot be split further"):
        search(scripted, WEEK)
    # Halves of five days, then of three, two and one; then four endings.
    assert len(scripted.requests) < 12


# Peers that answer less --------------------------------------------------------------------------


def record(number, *, plan=OWN, leave_out=(), **values):
    values = {
        "SOPClassUID": uids.RT_BEAMS_TREATMENT_RECORD,
        "SOPInstanceUID": f"1.5.{number}",
        "SeriesInstanceUID": f"1.3.{number}",
        "StudyInstanceUID": "1.4",
        "PatientID": "PAT-1",
        "Modality": "RTRECORD",
        "TreatmentDate": "20261109",
        "TreatmentTime": f"0930{number:02d}",
        "TreatmentMachineSequence": {"TreatmentMachineName": "TB1"},
        "ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": plan},
        **values,
    }
    return dataset(**{keyword: value for keyword, value in values.items() if keyword not in leave_out})


NO_SEQUENCE = ("ReferencedRTPlanSequence",)


def search(scripted, window=DAY, profile=ONCE, **options):
    with FindSession(scripted.peer(timezone="Europe/Zurich"), profile=profile) as session:
        return find_treated(session, window, **options)


def answering(scripted, *records, by_uid=None):
    """Answer lists with some records, and questions by UID with what ``by_uid`` makes of one."""

    def script(request):
        uid = request.value("SOPInstanceUID")
        if not uid:
            return [(PENDING, each) for each in records]
        return [(PENDING, (by_uid or (lambda one: one))(each)) for each in records if each.SOPInstanceUID == uid]

    scripted.script = script


def asked_by_uid(scripted):
    return [request.value("SOPInstanceUID") for request in scripted.requests if request.value("SOPInstanceUID")]


def test_one_query_lists_the_records_of_the_whole_clinic(scripted):
    answering(scripted, record(1), record(2, plan="1.2.8", PatientID="PAT-2", StudyInstanceUID="1.6"))
    treated = search(scripted)
    assert {plan.plan_uid: plan.study_instance_uid for plan in treated.plans} == {OWN: "1.4", "1.2.8": "1.6"}
    (request,) = scripted.requests
    assert (request.level, request.value("Modality"), request.value("TreatmentDate")) == (
        "IMAGE", "RTRECORD", "20261109",
    )  # fmt: skip
    assert not request.value("PatientID")


def test_a_plan_that_only_the_flat_reference_names_is_taken(scripted):
    answering(scripted, record(1, leave_out=NO_SEQUENCE, ReferencedSOPInstanceUID=OWN))
    assert [plan.plan_uid for plan in search(scripted).plans] == [OWN]
    assert not asked_by_uid(scripted)


def test_the_sequence_counts_before_the_flat_reference(scripted):
    answering(scripted, record(1, ReferencedSOPInstanceUID="1.2.77"))
    assert [plan.plan_uid for plan in search(scripted).plans] == [OWN]


def test_a_record_that_names_no_plan_is_asked_for_by_its_uid(scripted):
    answering(
        scripted, record(1), record(2, leave_out=NO_SEQUENCE),
        by_uid=lambda one: record(2, plan="1.2.8"),
    )  # fmt: skip
    treated = search(scripted)
    assert [plan.plan_uid for plan in treated.plans] == ["1.2.8", OWN]
    assert asked_by_uid(scripted) == ["1.5.2"]
    assert treated.undecided == ()


def test_a_record_that_stays_open_is_read(scripted):
    answering(scripted, record(1), record(2, leave_out=NO_SEQUENCE))
    asked_for = []

    def read(records):
        asked_for.extend(records)
        return {"1.5.2": record(2, plan="1.2.8")}

    treated = search(scripted, read=read)
    assert [plan.plan_uid for plan in treated.plans] == ["1.2.8", OWN]
    (only,) = asked_for
    assert (only.sop_instance_uid, only.reason) == ("1.5.2", NO_PLAN)
    expected = only.expected()
    assert (expected.sop_instance_uid, expected.series_instance_uid, expected.study_instance_uid) == (
        "1.5.2", "1.3.2", "1.4",
    )  # fmt: skip


@pytest.mark.parametrize("read", [None, lambda records: {}])
def test_a_record_that_nobody_can_decide_is_listed_and_told(scripted, read):
    answering(scripted, record(1), record(2, leave_out=NO_SEQUENCE), record(3, TreatmentDate=None))
    treated = search(scripted, read=read)
    assert [plan.plan_uid for plan in treated.plans] == [OWN]
    assert [(one.sop_instance_uid, one.reason) for one in treated.undecided] == [("1.5.2", NO_PLAN), ("1.5.3", NO_DATE)]
    (warning,) = treated.warnings
    assert "2 treatment records are undecided" in warning
    assert "PAT" not in repr(treated) + warning


def test_an_object_that_lies_in_another_week_is_not_taken(scripted):
    answering(scripted, record(1, TreatmentDate=None))
    treated = search(scripted, read=lambda records: {"1.5.1": record(1, TreatmentDate="20261102")})
    assert (treated.plans, treated.undecided) == ((), ())


def test_a_peer_that_answers_no_more_by_uid_is_not_asked_for_each_record(scripted):
    answering(scripted, *(record(number, leave_out=NO_SEQUENCE) for number in range(1, 31)))
    assert len(search(scripted).undecided) == 30
    assert len(asked_by_uid(scripted)) == 5


def test_a_patient_who_is_not_answered_is_looked_for_and_the_plan_kept(scripted):
    answering(
        scripted, record(1, PatientID=None), record(2, plan="1.2.8", PatientID=None),
        by_uid=lambda one: record(1) if one.SOPInstanceUID == "1.5.1" else one,
    )  # fmt: skip
    assert {plan.plan_uid: plan.patient_id for plan in search(scripted).plans} == {OWN: "PAT-1", "1.2.8": ""}


def test_records_without_a_patient_are_of_the_one_that_the_plans_others_name(scripted):
    answering(scripted, record(1), record(2, PatientID=None))
    (plan,) = search(scripted).plans
    assert (plan.patient_id, plan.records) == ("PAT-1", 2)


def test_a_plan_of_two_patients_is_two_rows_and_told(scripted):
    answering(scripted, record(1), record(2, PatientID="PAT-2"))
    treated = search(scripted)
    assert [(plan.plan_uid, plan.patient_id) for plan in treated.plans] == [(OWN, "PAT-1"), (OWN, "PAT-2")]
    assert "name 2 patients" in treated.warnings[0]
    assert "PAT" not in treated.warnings[0]


def test_what_the_peer_did_not_filter_is_filtered_here(scripted):
    answering(
        scripted, record(1), record(2, plan="1.2.8", TreatmentDate="20261108"),
        record(3, plan="1.2.7", Modality="RTPLAN"),
        record(4, plan="1.2.6", SOPClassUID=uids.RT_TREATMENT_SUMMARY_RECORD),
    )  # fmt: skip
    treated = search(scripted)
    assert [plan.plan_uid for plan in treated.plans] == [OWN]
    assert treated.undecided == ()


def test_two_parts_of_a_fraction_are_two_records_of_one_day(scripted):
    machine = {"TreatmentMachineName": "TB2"}
    answering(scripted, record(1), record(2, TreatmentMachineSequence=machine), record(3, leave_out=["TreatmentTime"]))
    (plan,) = search(scripted).plans
    assert (plan.days, plan.records, plan.machines) == ((MONDAY,), 3, ("TB1", "TB2"))


def test_a_time_that_decides_and_is_missing_leaves_the_record_open(scripted):
    answering(scripted, record(1, leave_out=["TreatmentTime"]))
    morning = Window(datetime(2026, 11, 9, tzinfo=ZONE), datetime(2026, 11, 9, 12, tzinfo=ZONE))
    treated = search(scripted, morning)
    assert [one.reason for one in treated.undecided] == [NO_DATE]
    assert treated.plans == ()


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 10, 25), 25), (date(2026, 3, 29), 23)])
def test_a_day_on_which_clocks_change_is_whole(scripted, day, hours):
    window = day_window(day, day, ZONE)
    assert window.end - window.start == timedelta(hours=hours)
    clocks = ["000000", "013000", "023000", "033000", "235959.999"]
    own = [
        record(number, TreatmentDate=day.strftime("%Y%m%d"), TreatmentTime=clock)
        for number, clock in enumerate(clocks, start=1)
    ]
    around = [
        record(8, plan="1.2.8", TreatmentDate=(day - timedelta(days=1)).strftime("%Y%m%d"), TreatmentTime="235959"),
        record(9, plan="1.2.8", TreatmentDate=(day + timedelta(days=1)).strftime("%Y%m%d"), TreatmentTime="000000"),
    ]
    answering(scripted, *own, *around)
    treated = search(scripted, window)
    assert [(plan.plan_uid, plan.days, plan.records) for plan in treated.plans] == [(OWN, (day,), 5)]
    assert treated.undecided == ()


def test_a_record_without_its_uid_is_an_error(scripted):
    answering(scripted, record(1, SOPInstanceUID=None))
    with pytest.raises(PeerFailureError, match="without its SOP Instance UID"):
        search(scripted)


def test_a_connection_without_zone_is_refused(scripted):
    with FindSession(scripted.peer(), profile=ONCE) as session, pytest.raises(ConfigurationError, match="time zone"):
        find_treated(session, DAY)
    assert not scripted.requests


def test_an_archive_that_cannot_be_asked_for_a_day_says_so(scripted):
    profile = GENERIC.overridden({"stable_counts": 1})
    with pytest.raises(QueryError, match="whole archive"):
        search(scripted, profile=profile)
    assert not scripted.requests


def test_it_can_be_cancelled_between_two_records(scripted):
    cancellation = Cancellation()

    def script(request):
        cancellation.cancel()
        return [(PENDING, record(number, leave_out=NO_SEQUENCE)) for number in (1, 2)]

    scripted.script = script
    with pytest.raises(CancelledError):
        search(scripted, cancellation=cancellation)
    assert len(scripted.requests) == 1


def test_what_is_json_has_no_patient_and_what_is_shown_neither(scripted):
    answering(scripted, record(1), record(2, leave_out=NO_SEQUENCE))
    treated = search(scripted)
    rows = [treated.plans[0].to_json(), treated.undecided[0].to_json()]
    assert json.loads(json.dumps(rows)) == rows
    assert "PAT" not in json.dumps(rows) + repr(treated)
    assert rows[0] == {
        "plan_uid": OWN, "study_instance_uid": "1.4", "days": ["2026-11-09"], "records": 1, "machines": ["TB1"],
    }  # fmt: skip


def test_records_of_one_plan_are_counted_once_each(clinic):
    """Fractions given in two parts are among the week's, so a count of days would be another one."""
    per_plan = defaultdict(list)
    for case in case_facts(clinic):
        for plan in case.plans:
            for each in plan.records:
                per_plan[plan.sop_instance_uid].append(each.treated.date())
    assert any(len(days) != len(set(days)) for days in per_plan.values())
