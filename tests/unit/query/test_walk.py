from __future__ import annotations

import pytest
from support.quiet import AFTER, BEFORE, QUIET, WITHIN, Clock
from support.scripted_peer import PENDING, dataset

from airflow_provider_varian.aria.profile import GENERIC
from airflow_provider_varian.errors import QueryError, UndecidedMatchError
from airflow_provider_varian.query.find import FindSession, find
from airflow_provider_varian.query.query import Query


def archive():
    rows = []
    for patient, name in (("QA", "Müller^Jürg"), ("OTHER", "Other^One")):
        for study in (1, 2):
            for series, modality in ((1, "RTPLAN"), (2, "RTIMAGE")):
                rows += [
                    dataset(
                        PatientID=patient,
                        PatientName=name,
                        StudyInstanceUID=f"1.{len(patient)}.{study}",
                        StudyID=f"C{study}",
                        StudyDate="20260101",
                        SeriesInstanceUID=f"1.{len(patient)}.{study}.{series}",
                        Modality=modality,
                        SOPInstanceUID=f"1.{len(patient)}.{study}.{series}.{image}",
                        AcquisitionDate=f"2026010{image}",
                    )
                    for image in (1, 2)
                ]
    return rows


@pytest.fixture
def hierarchical(scripted):
    """A peer that refuses a query without the unique keys of the levels above."""
    scripted.serve(archive(), hierarchical=True)
    return scripted


def uids_of(result):
    return [answer["SOPInstanceUID"] for answer in result.answers]


def test_an_image_query_by_patient_walks_down_the_hierarchy(hierarchical):
    keys = {"PatientID": "QA", "Modality": "RTIMAGE", "AcquisitionDate": "20260102", "StudyID": "C2"}
    result = find(hierarchical.peer(), Query.build("IMAGE", keys), profile=GENERIC)
    assert uids_of(result) == ["1.2.2.2.2"]
    assert [request.level for request in hierarchical.requests] == ["STUDY", "SERIES", "IMAGE"]
    assert hierarchical.associations == 1


def test_each_request_carries_upper_uids_and_its_own_keys_alone(hierarchical):
    keys = {"PatientID": "QA", "Modality": "RTIMAGE", "AcquisitionDate": "20260102"}
    find(hierarchical.peer(), Query.build("IMAGE", keys), profile=GENERIC)
    study, series, image = (hierarchical.requests[n] for n in (0, 1, 2))
    assert set(study.identifier.dir()) == {"PatientID", "StudyInstanceUID", "QueryRetrieveLevel"}
    assert set(series.identifier.dir()) == {"StudyInstanceUID", "SeriesInstanceUID", "Modality", "QueryRetrieveLevel"}
    assert set(image.identifier.dir()) == {
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "AcquisitionDate",
        "QueryRetrieveLevel",
    }
    assert image.value("StudyInstanceUID")
    assert image.value("SeriesInstanceUID")


def test_what_upper_levels_said_stands_in_the_answers(hierarchical):
    keys = {"PatientID": "QA", "PatientName": "", "Modality": "RTPLAN", "StudyID": "", "AcquisitionDate": ""}
    result = find(hierarchical.peer(), Query.build("IMAGE", keys), profile=GENERIC)
    assert len(result.answers) == 4
    assert {(a["PatientID"], a["PatientName"], a["Modality"]) for a in result.answers} == {
        ("QA", "Müller^Jürg", "RTPLAN")
    }
    assert {answer["StudyID"] for answer in result.answers} == {"C1", "C2"}


def test_patient_root_begins_at_the_patient(hierarchical):
    keys = {"PatientID": "QA", "Modality": "RTPLAN"}
    result = find(hierarchical.peer(information_model="patient_root"), Query.build("SERIES", keys), profile=GENERIC)
    assert len(result.answers) == 2
    assert [request.level for request in hierarchical.requests] == ["PATIENT", "STUDY", "SERIES", "SERIES"]


def test_a_known_uid_is_not_asked_for(hierarchical):
    keys = {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1"}
    result = find(hierarchical.peer(), Query.build("IMAGE", keys), profile=GENERIC)
    assert uids_of(result) == ["1.2.1.1.1", "1.2.1.1.2"]
    assert [request.level for request in hierarchical.requests] == ["IMAGE"]


def test_keys_at_a_known_level_are_still_asked_for(hierarchical):
    keys = {"StudyInstanceUID": "1.2.1", "Modality": "RTPLAN", "PatientID": "OTHER"}
    assert find(hierarchical.peer(), Query.build("IMAGE", keys), profile=GENERIC).answers == []


def test_below_what_does_not_match_nothing_is_asked(hierarchical):
    find(hierarchical.peer(), Query.build("IMAGE", {"PatientID": "NOBODY", "Modality": "RTPLAN"}), profile=GENERIC)
    assert [request.level for request in hierarchical.requests] == ["STUDY"]


def test_below_what_the_peer_listed_in_vain_nothing_is_asked(scripted):
    def script(request):
        if request.level == "STUDY":
            return [(PENDING, dataset(StudyInstanceUID="1.2", PatientID="QA"))]
        if request.level == "SERIES":
            return [
                (PENDING, dataset(StudyInstanceUID="1.2", SeriesInstanceUID=f"1.3.{n}", Modality=modality))
                for n, modality in enumerate(("CT", "RTPLAN"))
            ]
        return [(PENDING, dataset(SOPInstanceUID="1.4"))]

    scripted.script = script
    find(scripted.peer(), Query.build("IMAGE", {"PatientID": "QA", "Modality": "RTPLAN"}), profile=GENERIC)
    assert [request.value("SeriesInstanceUID") for request in scripted.requests if request.level == "IMAGE"] == [
        "1.3.1"
    ]


def test_a_walk_through_the_whole_archive_is_refused(hierarchical):
    with pytest.raises(QueryError, match=r"whole archive.*PatientID or StudyInstanceUID.*relational_queries"):
        find(hierarchical.peer(), Query.build("IMAGE", {"SOPInstanceUID": "1.2.1.1.1"}), profile=GENERIC)
    assert not hierarchical.requests


def test_a_relational_peer_is_asked_at_once(scripted):
    scripted.serve(archive())
    profile = GENERIC.overridden({"relational_queries": True})
    result = find(scripted.peer(), Query.build("IMAGE", {"SOPInstanceUID": "1.2.1.1.1"}), profile=profile)
    assert uids_of(result) == ["1.2.1.1.1"]
    assert len(scripted.requests) == 1


def test_an_upper_answer_without_its_uid_is_an_error(scripted):
    scripted.script = lambda request: [(PENDING, dataset(PatientID="QA"))]
    with pytest.raises(UndecidedMatchError, match="STUDY level lacks StudyInstanceUID"):
        find(scripted.peer(), Query.build("SERIES", {"PatientID": "QA"}), profile=GENERIC)


def test_a_limit_ends_a_walk(hierarchical):
    result = find(hierarchical.peer(), Query.build("IMAGE", {"PatientID": "QA"}), profile=GENERIC, limit=1)
    assert len(result.answers) == 1
    assert result.limited
    assert [request.level for request in hierarchical.requests] == ["STUDY", "SERIES", "IMAGE"]


# ------------------------------------------------------------------------------------------- the peer's time


def test_a_walk_needs_one_association_of_the_peers_budget(hierarchical):
    peer = hierarchical.peer(max_associations=1)
    result = find(peer, Query.build("IMAGE", {"PatientID": "QA", "Modality": "RTIMAGE"}), profile=GENERIC)
    assert result.answers
    assert hierarchical.associations == 1


def test_a_walk_that_meets_quiet_hours_goes_on_after_them(hierarchical, monkeypatch):
    query = Query.build("IMAGE", {"PatientID": "QA", "Modality": "RTIMAGE"})
    whole = find(hierarchical.peer(), query, profile=GENERIC)
    before, hierarchical.associations = len(hierarchical.requests), 0
    clock = Clock(monkeypatch, BEFORE)
    asked, serve = [], hierarchical.script

    def script(request):
        asked.append(clock.now)
        if len(asked) == 2:
            clock.now = WITHIN
            clock.over_after(6)
        yield from serve(request)

    hierarchical.script = script
    with FindSession(hierarchical.peer(**QUIET), profile=GENERIC) as session:
        assert session.find(query).answers == whole.answers
        assert session.negotiated.accepted
    assert asked[:3] == [BEFORE, BEFORE, AFTER]
    assert len(asked) == before
    assert hierarchical.associations == 2
