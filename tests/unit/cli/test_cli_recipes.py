"""The recipes at a shell: plans, what was treated, RT Images; against a simulated daemon."""

from __future__ import annotations

import json
from datetime import date

import pytest
from support.plan_exports import DANGLING, PLAIN, TWICE, FewPatients
from support.plan_exports import clinic as few_patients

from airflow_provider_varian.simulator.facts import facts

ZONE = ("--timezone", "Europe/Zurich")
WEEK = ("--from", "2026-07-27", "--to", "2026-07-31", *ZONE)
QA_PATIENT = "QA_TB_WL"


@pytest.fixture
def treating(program):
    """The program, and a daemon with patients under treatment."""
    clinic: FewPatients = few_patients()
    program.daemon.holdings = clinic
    return program, clinic


def test_plans_of_a_patient(treating):
    program, clinic = treating
    case = clinic.case(TWICE)
    ended = program("plans", "--patient", case.patient_id, "--json")
    assert ended.status == 0
    assert {(plan["sop_instance_uid"], plan["label"], plan["course"]) for plan in ended.json} == {
        (plan.sop_instance_uid, plan.label, plan.study.study_id) for plan in case.plans
    }
    assert case.patient_id not in ended.out + ended.err
    one = program(
        "plans", "--patient", case.patient_id, "--label", case.plans[1].label, "--course", ended.json[0]["course"]
    )
    head, _, row = one.out.splitlines()
    assert head.split()[:3] == ["label", "course", "approval_status"]
    assert ended.json[0]["sop_instance_uid"] in row
    assert one.err == "1 of the patient's 2 plans\n"


def test_plans_by_approval_and_nothing_found(treating):
    program, clinic = treating
    patient = ("--patient", clinic.case(PLAIN).patient_id)
    (plan,) = clinic.case(PLAIN).plans
    assert program("plans", *patient, "--approval", "APPROVED", "--intent", plan.intent, "--json").status == 0
    ended = program("plans", *patient, "--approval", "REJECTED", "--json")
    assert (ended.status, ended.json) == (4, [])
    assert program("plans", "--patient", "NOBODY", "--json").status == 4


def test_what_was_treated_in_some_days(treating):
    program, clinic = treating
    ended = program("treated", *WEEK, "--json")
    assert ended.status == 0
    found = {plan["plan_uid"]: plan for plan in ended.json}
    assert found.keys() == {plan.sop_instance_uid for number in (DANGLING, TWICE) for plan in clinic.case(number).plans}
    (dangling,) = clinic.case(DANGLING).plans
    assert found[dangling.sop_instance_uid]["days"] == ["2026-07-27", "2026-07-28"]
    assert found[dangling.sop_instance_uid]["records"] == 2
    assert clinic.case(DANGLING).patient_id not in ended.out + ended.err


def test_whose_plans_they_are_is_told_when_it_is_asked(treating):
    program, clinic = treating
    ended = program("treated", *WEEK, "--patient-ids")
    assert ended.err == "3 plans of 2 patients\n"
    head, _, *rows = ended.out.splitlines()
    assert head.split() == ["plan_uid", "days", "records", "machines", "patient_id"]
    assert sum(clinic.case(TWICE).patient_id in row for row in rows) == 2


def test_nobody_treated_is_status_4(treating):
    program, _ = treating
    ended = program("treated", "--from", "2026-07-26", *ZONE, "--json")
    assert (ended.status, ended.json) == (4, [])


def test_a_record_that_names_no_plan_is_told_and_is_status_3(treating, monkeypatch):
    from airflow_provider_varian.query.find import FindSession

    program, clinic = treating
    find = FindSession.find

    def silent(session, query, **settings):
        found = find(session, query, **settings)
        for answer in found.answers:
            if str(clinic.case(DANGLING).plans[0].records[0].sop_instance_uid) == answer.get("SOPInstanceUID"):
                answer.pop("ReferencedRTPlanSequence", None)
                answer.pop("ReferencedSOPInstanceUID", None)
        return found

    monkeypatch.setattr(FindSession, "find", silent)
    ended = program("treated", *WEEK, "--json")
    assert (ended.status, len(ended.json)) == (3, 3)
    assert clinic.case(DANGLING).plans[0].records[0].sop_instance_uid in ended.err


def test_images_of_a_plan_and_of_a_machine(program, clinic):
    plan = next(plan for plan in facts(clinic) if (plan.patient_id, plan.label) == (QA_PATIENT, "WL_10MV"))
    day = ("--from", "2026-01-05", *ZONE)
    ended = program("rt-images", *day, "--patient", QA_PATIENT, "--plan", "WL_10MV", "--energy", "mv", "--json")
    images = plan.images(date(2026, 1, 5))
    assert ended.status == 0
    assert [image["sop_instance_uid"] for image in ended.json] == [
        image.sop_instance_uid for image in sorted(images, key=lambda image: image.acquired) if not image.kv
    ]
    assert not any("patient" in key for image in ended.json for key in image)
    of_machine = program("rt-images", *day, "--machine", plan.machine, "--json")
    assert {image["machine"] for image in of_machine.json} == {plan.machine}
    assert len(of_machine.json) > len(ended.json)
    table = program("rt-images", *day, "--patient", QA_PATIENT, "--plan", "WL_10MV", "--energy", "kv")
    head, _, *rows = table.out.splitlines()
    assert head.split()[:4] == ["acquired", "machine", "beam_number", "energy"]
    assert len(rows) == sum(image.kv for image in images)
    assert program("rt-images", *day, "--machine", "Nowhere", "--json").status == 4


WRONG = {
    "a plan of nobody": (("--plan", "WL_10MV"), "name a plan together"),
    "days the wrong way": (("--to", "2026-01-01"), "lies before"),
    "a course without a plan": (("--course", "QA"), "name a plan together"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_meant_is_status_2_and_asks_nobody(program, wrong):
    arguments, words = WRONG[wrong]
    ended = program("rt-images", "--from", "2026-01-05", *ZONE, *arguments)
    assert (ended.status, program.daemon.counts["association"]) == (2, 0)
    assert words in ended.err


def test_days_need_a_time_zone(program):
    ended = program("treated", "--from", "2026-01-05")
    assert (ended.status, program.daemon.counts["association"]) == (2, 0)
    assert "time zone" in ended.err
    assert program("treated", "--from", "2026-01-05", "--set", "timezone=Europe/Zurich").status in (0, 4)


def test_of_several_plans_of_one_label_none_is_chosen(treating):
    program, clinic = treating
    case = clinic.case(TWICE)
    wanted = ("--patient", case.patient_id, "--plan", case.plans[0].label)
    ended = program("rt-images", *WEEK, *wanted)
    assert ended.status == 1
    assert "2 plans bear the label" in ended.err
    course = json.loads(program("plans", "--patient", case.patient_id, "--json").out)[0]["course"]
    assert program("rt-images", *WEEK, *wanted, "--course", course).status in (0, 4)
