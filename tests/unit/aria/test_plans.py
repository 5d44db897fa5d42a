from __future__ import annotations

import pytest
from support.scripted_peer import PENDING, dataset

from airflow_provider_varian import uids
from airflow_provider_varian.aria.plans import beam_numbers, find_plan, list_plans, one_plan, select_plans
from airflow_provider_varian.aria.profile import ARIA, GENERIC
from airflow_provider_varian.errors import AmbiguousMatchError, NotFoundError, UndecidedMatchError
from airflow_provider_varian.query.find import FindSession

PATIENT = "$QA Halcyon2_2026"


def plan(number, label, course="QA", **values):
    values = {"SOPClassUID": uids.RT_PLAN, "PatientID": PATIENT, "Modality": "RTPLAN", **values}
    return dataset(
        SOPInstanceUID=f"1.2.{number}",
        SeriesInstanceUID=f"1.3.{number}",
        StudyInstanceUID=f"1.4.{course}" if course and course.isdigit() else "1.4",
        RTPlanLabel=label,
        StudyID=course,
        **{"ApprovalStatus": "APPROVED", "PlanIntent": "MACHINE_QA", **values},
        RTPlanDate="20260101",
        RTPlanTime="120000",
    )


def search(scripted, label, course=None, patient=PATIENT, profile=ARIA):
    with FindSession(scripted.peer(), profile=profile) as session:
        found, warnings = find_plan(session, patient, label, course)
    assert warnings == ()
    return found


def test_a_plan_with_a_long_label_is_found_by_one_image_level_query(scripted):
    scripted.serve([plan(1, "DailyQA_PF_6FFF"), plan(2, "DailyQA_PF_6"), plan(3, "OPEN_6FFF")])
    found = search(scripted, "DailyQA_PF_6FFF")
    assert (found.sop_instance_uid, found.series_instance_uid, found.study_instance_uid) == ("1.2.1", "1.3.1", "1.4")
    assert (found.label, found.course, found.approval_status) == ("DailyQA_PF_6FFF", "QA", "APPROVED")
    assert found.intent == "MACHINE_QA"
    assert (found.plan_date, found.plan_time, found.sop_class_uid) == ("20260101", "120000", uids.RT_PLAN)
    assert len(scripted.requests) == 1
    asked = scripted.requests[0]
    assert (asked.level, asked.value("PatientID"), asked.value("Modality")) == ("IMAGE", PATIENT, "RTPLAN")
    assert asked.value("RTPlanLabel") == ""


def test_a_peer_that_ignores_keys_does_not_mix_patients_or_objects(scripted):
    rows = [plan(1, "WL"), plan(2, "WL", PatientID="other"), plan(3, "WL", Modality="RTIMAGE")]
    scripted.script = lambda request: [(PENDING, row) for row in rows]
    assert search(scripted, "WL").sop_instance_uid == "1.2.1"


def test_plans_of_the_same_label_are_told_apart_by_their_course(scripted):
    scripted.serve([plan(1, "PF_6MV", "QA"), plan(2, "PF_6MV", "QA_2025")])
    assert search(scripted, "PF_6MV", "QA_2025").sop_instance_uid == "1.2.2"
    with pytest.raises(AmbiguousMatchError) as caught:
        search(scripted, "PF_6MV")
    for word in ("1.2.1", "1.2.2", "'QA'", "'QA_2025'", "Set course"):
        assert word in str(caught.value)
    assert PATIENT not in str(caught.value)


def test_two_plans_of_one_course_stay_ambiguous(scripted):
    scripted.serve([plan(1, "PF_6MV"), plan(2, "PF_6MV")])
    with pytest.raises(AmbiguousMatchError, match="Rename or remove"):
        search(scripted, "PF_6MV", "QA")


def test_a_plan_that_is_listed_twice_is_one_plan(scripted):
    scripted.script = lambda request: [(PENDING, plan(1, "WL")), (PENDING, plan(1, "WL"))]
    assert search(scripted, "WL").sop_instance_uid == "1.2.1"


def test_padding_and_non_ascii_labels(scripted):
    scripted.serve([plan(1, "Tägliche QA ")])
    assert search(scripted, "Tägliche QA").sop_instance_uid == "1.2.1"


def test_a_label_is_exact_in_its_case(scripted):
    scripted.serve([plan(1, "wl_10mv")])
    with pytest.raises(NotFoundError, match="none of the patient's 1 plans"):
        search(scripted, "WL_10MV")


def test_a_missing_plan_says_how_many_there_are_and_what_comes_near(scripted):
    scripted.serve([plan(1, "WL_10MV"), plan(2, "OPEN_6MV")])
    with pytest.raises(NotFoundError, match=r"none of the patient's 2 plans.*'WL_10MW'.*Nearest: 'WL_10MV'"):
        search(scripted, "WL_10MW")


def test_a_missing_patient_says_what_to_check_and_not_who(scripted):
    scripted.serve([])
    with pytest.raises(NotFoundError, match=r"no plan, or is not there.*patient_id_patterns") as caught:
        search(scripted, "WL_10MV")
    assert PATIENT not in str(caught.value)


def test_a_wrong_course_names_the_right_one(scripted):
    scripted.serve([plan(1, "PF_6MV", "QA_2025")])
    with pytest.raises(NotFoundError, match=r"not in course 'QA', but in 'QA_2025'"):
        search(scripted, "PF_6MV", "QA")


def test_a_plan_without_label_is_never_taken_nor_passed_over(scripted, caplog):
    scripted.serve([plan(1, None), plan(2, "OPEN")])
    with pytest.raises(UndecidedMatchError, match="1 of 2 plans came without RTPlanLabel"):
        search(scripted, "WL")
    assert search(scripted, "OPEN").sop_instance_uid == "1.2.2"
    assert "1 plans without RTPlanLabel" in caplog.text


def test_a_plan_without_course_is_undecided_when_the_course_matters(scripted):
    scripted.serve([plan(1, "WL", None)])
    assert search(scripted, "WL").course == ""
    with pytest.raises(UndecidedMatchError, match="StudyID"):
        search(scripted, "WL", "QA")


def test_wildcards_in_an_id_or_label_mean_themselves(scripted):
    scripted.serve([plan(1, "WL"), plan(2, "W*", PatientID="QA*"), plan(3, "W*", PatientID="QA1")])
    with pytest.raises(NotFoundError):
        search(scripted, "W*")
    assert search(scripted, "W*", patient="QA*").sop_instance_uid == "1.2.2"


def test_an_id_that_fails_exactly_is_found_by_its_pattern(scripted):
    profile = ARIA.overridden({"patient_id_patterns": {PATIENT: "?QA Halcyon2_2026"}})
    rows = [plan(1, "WL"), plan(2, "WL", PatientID="_QA Halcyon2_2026")]

    def script(request):
        return [] if request.value("PatientID") == PATIENT else [(PENDING, row) for row in rows]

    scripted.script = script
    assert search(scripted, "WL", profile=profile).sop_instance_uid == "1.2.1"


def test_an_archive_without_relational_queries_serves_too(scripted):
    scripted.serve([plan(1, "WL"), plan(2, "OPEN")], hierarchical=True)
    found = search(scripted, "WL", profile=GENERIC)
    assert (found.sop_instance_uid, found.course) == ("1.2.1", "QA")


def test_all_plans_of_a_patient_can_be_listed(scripted):
    scripted.serve([plan(1, "WL"), plan(2, "OPEN")])
    with FindSession(scripted.peer(), profile=ARIA) as session:
        plans, warnings = list_plans(session, PATIENT)
    assert warnings == ()
    assert [plan.label for plan in plans] == ["WL", "OPEN"]
    assert plans[0].to_json()["sop_instance_uid"] == "1.2.1"


def test_the_suspicion_of_a_crop_is_told(scripted):
    scripted.serve([plan(number, f"P{number}") for number in range(100)])
    with FindSession(scripted.peer(), profile=ARIA) as session:
        found, warnings = find_plan(session, PATIENT, "P7")
    assert found.sop_instance_uid == "1.2.7"
    assert [warning for warning in warnings if "100 matches is a round number" in warning]
    assert PATIENT not in " ".join(warnings)


def test_beam_numbers_leave_setup_beams_out():
    beams = [(1, "TREATMENT"), (3, "SETUP"), (2, None), (2, "TREATMENT")]
    items = []
    for number, kind in beams:
        items.append(dataset(BeamNumber=number))
        if kind:
            items[-1].TreatmentDeliveryType = kind
    made = dataset()
    made.BeamSequence = items
    assert beam_numbers(made) == (1, 2)
    assert beam_numbers(dataset()) == ()


def test_plans_are_selected_by_what_they_say(scripted):
    scripted.serve(
        [
            plan(1, "PROST", "C1", PlanIntent="CURATIVE"),
            plan(2, "PROST", "C2", PlanIntent="CURATIVE", ApprovalStatus="UNAPPROVED"),
            plan(3, "QA_PROST", "C1", PlanIntent="VERIFICATION"),
        ]
    )
    with FindSession(scripted.peer(), profile=ARIA) as session:
        plans, _ = list_plans(session, PATIENT)

    def selected(**wanted):
        return [int(one.sop_instance_uid[-1]) for one in select_plans(plans, **wanted)]

    assert selected() == [1, 2, 3]
    # Two plans of one label: both, and no choice.
    assert selected(label="PROST ") == [1, 2]
    assert selected(label="PROST", course="C2") == [2]
    assert selected(course="C1") == [1, 3]
    assert selected(approval="approved") == [1, 3]
    assert selected(approval="APPROVED", intent="CURATIVE") == [1]
    assert selected(intent="VERIFICATION") == [3]
    assert selected(label="prost") == []


@pytest.mark.parametrize(
    ("lacking", "wanted"),
    [
        ({"RTPlanLabel": None}, {"label": "PROST"}),
        ({"StudyID": None}, {"course": "C1"}),
        ({"ApprovalStatus": None}, {"approval": "APPROVED"}),
        ({"PlanIntent": None}, {"intent": "CURATIVE"}),
    ],
)
def test_a_plan_that_lacks_what_would_decide_is_an_error_unless_something_else_rules_it_out(scripted, lacking, wanted):
    values = {"label": "PROST", "course": "C1", "PlanIntent": "CURATIVE"}
    ((keyword, _),) = lacking.items()
    name = {"RTPlanLabel": "label", "StudyID": "course"}.get(keyword, keyword)
    scripted.serve([plan(1, **values), plan(2, **{**values, name: None})])
    with FindSession(scripted.peer(), profile=ARIA) as session:
        plans, _ = list_plans(session, PATIENT)
    with pytest.raises(UndecidedMatchError, match=f"1 of 2 plans came without {keyword}"):
        select_plans(plans, **wanted)
    other = {"course": "C9"} if "course" not in wanted else {"label": "OTHER"}
    assert select_plans(plans, **wanted, **other) == []


def test_approval_and_intent_choose_among_plans_of_one_label(scripted):
    scripted.serve([plan(1, "PROST", "C1"), plan(2, "PROST", "C2", ApprovalStatus="REJECTED", PlanIntent="CURATIVE")])
    with FindSession(scripted.peer(), profile=ARIA) as session:
        assert find_plan(session, PATIENT, "PROST", approval="REJECTED")[0].sop_instance_uid == "1.2.2"
        assert find_plan(session, PATIENT, "PROST", intent="MACHINE_QA")[0].sop_instance_uid == "1.2.1"
        with pytest.raises(NotFoundError, match=r"another state or intent: APPROVED, MACHINE_QA; REJECTED, CURATIVE"):
            find_plan(session, PATIENT, "PROST", approval="UNAPPROVED")
        with pytest.raises(NotFoundError, match=r"another state or intent: APPROVED, MACHINE_QA\b"):
            find_plan(session, PATIENT, "PROST", "C1", approval="REJECTED")


def test_of_several_plans_none_is_chosen_without_a_peer_too(scripted):
    scripted.serve([plan(1, "WL", "C1"), plan(2, "WL", "C2")])
    with FindSession(scripted.peer(), profile=ARIA) as session:
        plans, _ = list_plans(session, PATIENT)
    with pytest.raises(AmbiguousMatchError, match=r"2 plans bear the label 'WL'.*'C1'.*'C2'"):
        one_plan(plans, label="WL")
    assert one_plan(plans, label="WL", course="C2").course == "C2"
