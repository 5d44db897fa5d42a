"""From keys to a request: what is asked first, how often, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from support.archive import ROOT, UNIQUE, rt_image

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError, UndecidedMatchError
from airflow_provider_varian.query.find import FindResult
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.model import model_for
from airflow_provider_varian.retrieval import selection
from airflow_provider_varian.retrieval.listing import MAX_ROUNDS, UNSTABLE, list_until_stable
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.selection import select
from airflow_provider_varian.retrieval.third_party import move_to_third_party

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
IMAGES = {"StudyInstanceUID": f"{ROOT}.1", "Modality": "RTIMAGE"}


def found(*uids, **settings):
    model = model_for(Level.IMAGE, "study_root")
    answers = [{"SOPInstanceUID": uid} for uid in uids]
    return FindResult(answers=answers, undecided=[], model=model, warnings=settings.pop("warnings", []), **settings)


def asking(*results):
    left = list(results)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_a_selection_of_images_is_asked_for_until_it_stands_still(clinic):
    late = [rt_image(6), rt_image(7)]

    def grow():
        if late:
            new = late.pop()
            clinic.archive.instances[new.SOPInstanceUID] = new

    clinic.archive.on_find = grow
    request = select(clinic.peer, "IMAGE", IMAGES, profile=replace(clinic.profile, stable_counts=3))
    assert len(request.expected) == 7
    assert clinic.archive.finds == 4
    assert request.warnings == ()


def test_other_levels_are_asked_once(clinic):
    profile = replace(clinic.profile, stable_counts=3)
    request = select(clinic.peer, "SERIES", IMAGES, profile=profile)
    assert request.keys["SeriesInstanceUID"] == f"{ROOT}.1.1"
    assert clinic.archive.finds == 1


def test_lists_are_compared_by_what_they_name_and_not_by_length(clinic):
    results = [found("1.1"), found("1.2"), found("1.3", "1.4"), found("1.4", "1.3")]
    result = list_until_stable(asking(*results), profile=replace(clinic.profile, stable_counts=2))
    assert result is results[3]


def test_a_list_that_never_stands_still_is_taken_with_a_warning(clinic):
    rounds = []

    def ask():
        rounds.append(found(f"1.{len(rounds)}", warnings=["a round count"]))
        return rounds[-1]

    result = list_until_stable(ask, profile=replace(clinic.profile, stable_counts=2))
    assert len(rounds) == MAX_ROUNDS
    assert result.answers == rounds[-1].answers
    assert result.warnings == ["a round count", UNSTABLE]


def test_the_rounds_can_be_cancelled(clinic):
    cancellation = Cancellation()

    def ask():
        cancellation.cancel()
        return found("1.1")

    with pytest.raises(CancelledError):
        list_until_stable(ask, profile=replace(clinic.profile, stable_counts=2), cancellation=cancellation)


@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
@pytest.mark.parametrize(("minimum", "outcome"), [(None, Outcome.EMPTY), (0, Outcome.EMPTY), (2, Outcome.SHORT)])
def test_a_selection_of_nothing_is_retrieved_as_nothing_and_written_down(clinic, level, minimum, outcome):
    request = select(clinic.peer, level, {**IMAGES, "Modality": "CT"}, profile=clinic.profile, minimum=minimum)
    assert request.expected == ()
    result = clinic.run(request)
    assert result.outcome is outcome
    assert (clinic.root / ".dicom" / "r-1.json").exists()
    assert result.manifest_path
    assert clinic.archive.requests == []


@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
def test_warnings_of_a_selection_reach_the_manifest(clinic, monkeypatch, level):
    find = selection.find
    said = "500 answers are a round number"
    monkeypatch.setattr(selection, "find", lambda *args, **kwargs: replace(find(*args, **kwargs), warnings=[said]))
    request = select(clinic.peer, level, IMAGES, profile=clinic.profile)
    assert request.warnings == (said,)
    assert clinic.run(request).manifest.warnings == [said]


def test_warnings_of_a_list_are_not_said_twice(clinic, monkeypatch):
    request = RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": f"{ROOT}.1"}, warnings=(UNSTABLE,))
    numbers = iter(range(100, 200))

    def grow():
        new = rt_image(next(numbers))
        clinic.archive.instances[new.SOPInstanceUID] = new

    clinic.archive.on_find = grow
    result = clinic.run(request, profile=replace(clinic.profile, stable_counts=2), dry_run=True)
    assert result.manifest.warnings == [UNSTABLE]


# Selections that lie in several studies


def walked_only(archive):
    """Let an archive answer as one without relational queries: a single value for each level above (PS3.4 C.4.1.2.1).

    At each level an entity is listed once.
    """

    def is_hierarchical(identifier, top):
        levels = LEVELS[LEVELS.index(top) : LEVELS.index(identifier.QueryRetrieveLevel)]
        upper = [identifier.get(UNIQUE[LEVELS.index(level)]) for level in levels]
        return all(isinstance(value, str) and value for value in upper)

    def answer(event):
        archive.finds += 1
        asked = event.identifier
        top = "STUDY" if event.request.AffectedSOPClassUID.endswith("2.2.1") else "PATIENT"
        if not is_hierarchical(asked, top):
            yield 0xA900, None
            return
        unique = UNIQUE[LEVELS.index(asked.QueryRetrieveLevel)]
        for ds in {ds[unique].value: ds for ds in archive.matching(asked)}.values():
            row = Dataset()
            for element in asked:
                if element.keyword in ds:
                    row.add(ds[element.keyword])
            row.SpecificCharacterSet = "ISO_IR 192"
            yield 0xFF00, row
        yield 0x0000, None

    chosen = archive._chosen

    def chosen_or_refused(verb, identifier):
        archive.move_status = None if is_hierarchical(identifier, archive.top) else 0xA900
        return chosen(verb, identifier)

    archive.top = "STUDY"
    archive._server.bind(evt.EVT_C_FIND, answer)
    archive._chosen = chosen_or_refused


@pytest.fixture
def two_studies(clinic):
    """Five images in one study, three in another of the same patient."""
    for number in (1, 2, 3):
        more = rt_image(number, study=f"{ROOT}.2", series=f"{ROOT}.2.1")
        clinic.archive.instances[more.SOPInstanceUID] = more
    return clinic


OF_PATIENT = {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"}


def profile_of(clinic, relational):
    if not relational:
        walked_only(clinic.archive)
    return replace(clinic.profile, relational_queries=relational)


@pytest.mark.parametrize("relational", [True, False], ids=["relational", "walked"])
def test_series_of_two_studies_are_asked_for_each_under_its_study(two_studies, relational):
    profile = profile_of(two_studies, relational)
    request = select(two_studies.peer, "SERIES", OF_PATIENT, profile=profile)
    result = two_studies.run(request, profile=profile)
    assert (result.outcome, result.counts["verified"]) == (Outcome.COMPLETE, 8)
    asked = [
        (level, keys["StudyInstanceUID"], keys["SeriesInstanceUID"]) for _, level, keys in two_studies.archive.requests
    ]
    assert asked == [("SERIES", f"{ROOT}.{number}", f"{ROOT}.{number}.1") for number in (1, 2)]


@pytest.mark.parametrize("relational", [True, False], ids=["relational", "walked"])
def test_series_of_two_studies_go_to_a_third_party_each_under_its_study(two_studies, relational):
    profile = profile_of(two_studies, relational)
    two_studies.archive.store = lambda instances, **_: two_studies.archive.sent.extend(instances)
    request = select(two_studies.peer, "SERIES", OF_PATIENT, profile=profile)
    result = move_to_third_party(two_studies.peer, request, destination="AIRFLOW", profile=profile)
    assert (result.outcome, result.completed) == (Outcome.REPORTED, 8)
    assert [keys["StudyInstanceUID"] for _, _, keys in two_studies.archive.requests] == [f"{ROOT}.1", f"{ROOT}.2"]


@pytest.mark.parametrize("relational", [True, False], ids=["relational", "walked"])
def test_series_of_two_patients_are_asked_for_each_under_its_patient(two_studies, relational):
    other = rt_image(1, study=f"{ROOT}.3", series=f"{ROOT}.3.1", patient="QA_TB_2")
    two_studies.archive.instances[other.SOPInstanceUID] = other
    profile = profile_of(two_studies, relational)
    two_studies.archive.top = "PATIENT"
    peer = replace(two_studies.peer, information_model="patient_root")
    request = select(peer, "SERIES", {"PatientName": "Phantom*", "Modality": "RTIMAGE"}, profile=profile)
    assert two_studies.run(request, peer=peer, profile=profile).counts["verified"] == 9
    assert [keys["PatientID"] for _, _, keys in two_studies.archive.requests] == ["QA_TB_WL", "QA_TB_WL", "QA_TB_2"]


def test_instances_in_two_studies_are_listed_until_the_list_stands_still(two_studies):
    late = [rt_image(number, study=f"{ROOT}.2", series=f"{ROOT}.2.1") for number in (4, 5)]

    def grow():
        # After the first list: one C-FIND selects, then each list takes two.
        if two_studies.archive.finds in (4, 6):
            new = late.pop()
            two_studies.archive.instances[new.SOPInstanceUID] = new

    two_studies.archive.on_find = grow
    request = select(two_studies.peer, "SERIES", OF_PATIENT, profile=replace(two_studies.profile, stable_counts=2))
    assert len(request.expected) == 10


@pytest.mark.parametrize(
    ("limit", "listed", "limited"),
    [(4, 4, True), (5, 5, True), (7, 7, True), (8, 8, True), (9, 9, False), (10, 9, False)],
)
def test_a_limit_holds_over_all_studies(two_studies, limit, listed, limited):
    last = rt_image(1, study=f"{ROOT}.3", series=f"{ROOT}.3.1")
    two_studies.archive.instances[last.SOPInstanceUID] = last
    request = select(two_studies.peer, "SERIES", OF_PATIENT, profile=two_studies.profile, limit=limit)
    assert (len(request.expected), request.limited) == (listed, limited)


# Answers that do not say what they are about


@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
@pytest.mark.parametrize(
    ("level", "key"), [("PATIENT", "PatientID"), ("STUDY", "StudyInstanceUID"), ("SERIES", "SeriesInstanceUID")]
)
def test_an_answer_that_does_not_name_its_entity_is_an_error_that_says_so(clinic, level, key, value):
    whole = {"PatientID": "QA_TB_WL", "StudyInstanceUID": f"{ROOT}.1", "SeriesInstanceUID": f"{ROOT}.1.1"}

    def answer(event):
        for named in (True, False):
            row = Dataset()
            row.Modality, row.StudyDescription = "RTIMAGE", "QA"
            for keyword, given in whole.items():
                if keyword != key or named:
                    setattr(row, keyword, given)
                elif value is not None:
                    setattr(row, keyword, value)
            yield 0xFF00, row

    clinic.archive._server.bind(evt.EVT_C_FIND, answer)
    with pytest.raises(UndecidedMatchError, match=rf"1 of 2 answers at {level} level lack {key}"):
        select(clinic.peer, level, {"StudyDescription": "QA"}, profile=clinic.profile)
