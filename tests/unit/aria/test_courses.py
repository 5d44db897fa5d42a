from __future__ import annotations

import json
from datetime import date

import pytest
from support.asked_clinic import ONCE, asked
from support.held import all_held
from support.scripted_peer import PENDING, dataset

from airflow_provider_varian.aria.courses import list_course_series, list_courses
from airflow_provider_varian.errors import NotFoundError, UndecidedMatchError
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.simulator.facts import case_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic


@pytest.fixture(scope="module")
def clinic():
    return Clinic(seed=1, patients=30, days=2, until=date(2026, 11, 20), matrix=64)


@pytest.fixture(scope="module")
def held(clinic):
    return all_held(clinic)


def series_of(held, patient, course, modality=None):
    return {
        each.series
        for each in held
        if (each.patient, each.course) == (patient, course) and modality in (None, each.modality)
    }


@pytest.mark.parametrize("modality", [None, "RTPLAN", "RTRECORD", "PT"])
def test_the_series_of_a_course_are_those_of_its_study_id(clinic, held, modality):
    patient = next(case.patient_id for case in case_facts(clinic) if case.plans[0].records)
    with asked(clinic) as session:
        found, warnings = list_course_series(session, patient, "C1", modality=modality)
    assert {one.series_instance_uid for one in found} == series_of(held, patient, "C1", modality)
    assert {one.course for one in found} <= {"C1"}
    assert warnings == ()


def test_two_courses_of_a_qa_patient_are_not_mixed(clinic, held):
    with asked(clinic) as session:
        for course in ("QA", "QA_2025"):
            found, _ = list_course_series(session, "QA_TB_WL", course)
            assert {one.series_instance_uid for one in found} == series_of(held, "QA_TB_WL", course)


def test_the_courses_of_a_patient_are_told_from_the_scanners_studies(clinic, held):
    for case in case_facts(clinic):
        with asked(clinic) as session:
            courses, _ = list_courses(session, case.patient_id)
        assert {one.course for one in courses} == {each.course for each in held if each.patient == case.patient_id}
        assert all(one.is_made_by_aria for one in courses if one.course.startswith("C1"))
        if not all(one.is_made_by_aria for one in courses):
            assert [one.opened for one in courses] == sorted(one.opened for one in courses)
            return
    raise AssertionError("no patient has a scanner's study")


def test_a_course_that_is_not_there_names_those_that_are(clinic):
    with asked(clinic) as session, pytest.raises(NotFoundError, match="no course 'QA_2031'") as caught:
        list_course_series(session, "QA_TB_WL", "QA_2031")
    assert "'QA', 'QA_2025'" in caught.value.hint
    assert "QA_TB_WL" not in str(caught.value)


def row(number, **values):
    values = {"PatientID": "PAT-1", "StudyID": "C1", "Modality": "RTPLAN", "SeriesDescription": "Plans", **values}
    return dataset(SeriesInstanceUID=f"1.3.{number}", StudyInstanceUID="1.4", **values)


def search(scripted, rows, course="C1", images=()):
    scripted.script = lambda request: [
        (PENDING, one) for one in (images if request.level == "IMAGE" else rows if request.level == "SERIES" else ())
    ]
    with FindSession(scripted.peer(), profile=ONCE) as session:
        return list_course_series(session, "PAT-1", course)[0]


def test_a_peer_that_ignores_study_id_does_not_mix_courses(scripted):
    found = search(scripted, [row(1), row(2, StudyID="C2"), row(3, PatientID="PAT-2"), row(1)])
    assert [one.series_instance_uid for one in found] == ["1.3.1"]
    assert json.loads(json.dumps(found[0].to_json())) == found[0].to_json()


def test_a_course_id_that_is_not_answered_is_looked_for_in_the_images(scripted):
    image = dataset(
        SOPInstanceUID="1.5", SeriesInstanceUID="1.3.1", StudyInstanceUID="1.4", PatientID="PAT-1", StudyID="C1"
    )
    assert len(search(scripted, [row(1, StudyID=None)], images=[image])) == 1
    with pytest.raises(UndecidedMatchError, match="StudyID"):
        search(scripted, [row(1, StudyID=None)])


def test_wildcards_in_a_course_id_mean_themselves(scripted):
    found = search(scripted, [row(1, StudyID="C*"), row(2, StudyID="C1")], course="C*")
    assert [one.series_instance_uid for one in found] == ["1.3.1"]


def test_ids_of_studies_that_aria_did_not_make_are_not_repeated(scripted):
    studies = [
        dataset(StudyInstanceUID="1.4", PatientID="PAT-1", StudyID="ACC-77", StudyDescription="CT Becken"),
        dataset(StudyInstanceUID="1.6", PatientID="PAT-1", StudyID="C1", StudyDescription="ARIA RadOnc Study"),
    ]
    scripted.script = lambda request: [(PENDING, one) for one in (studies if request.level == "STUDY" else ())]
    with FindSession(scripted.peer(), profile=ONCE) as session, pytest.raises(NotFoundError) as caught:
        list_course_series(session, "PAT-1", "C9")
    assert caught.value.hint == "The courses are 'C1'"
