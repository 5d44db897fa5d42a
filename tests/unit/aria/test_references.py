"""What objects name, as read from data sets and from answers."""

from __future__ import annotations

import json

from pydicom import Dataset, dcmread
from support import oracle_data as data
from support.oracle_data import named, uid_of, uids_of

from airflow_provider_varian.aria.references import Reference, references_of
from airflow_provider_varian.query.answers import to_answer

CT = "1.2.840.10008.5.1.4.1.1.2"


def said(values) -> set[Reference]:
    return set(references_of(data.data_set(values)).links)


def test_a_structure_set_names_its_slices_with_their_series():
    found = references_of(data.data_set(data.structure_set("drawn")))
    path = (
        "ReferencedFrameOfReferenceSequence",
        "RTReferencedStudySequence",
        "RTReferencedSeriesSequence",
        "ContourImageSequence",
    )
    assert found.links == {
        Reference(uid=uid, path=path, sop_class_uid=CT, series_uid=uid_of("scan")) for uid in uids_of(*data.SLICES)
    }
    assert found.frames == uids_of("frame")


def test_a_series_or_study_is_named_when_nothing_more_is_said():
    series = {"SeriesInstanceUID": "scan"}
    study = {"ReferencedSOPInstanceUID": "study", "RTReferencedSeriesSequence": [series]}
    frame = {"FrameOfReferenceUID": "frame", "RTReferencedStudySequence": [study, {"ReferencedSOPInstanceUID": "else"}]}
    found = said(data.thing("RTSTRUCT", "drawn", ReferencedFrameOfReferenceSequence=[frame]))
    assert {(each.uid, each.names) for each in found} == {(uid_of("scan"), "series"), (uid_of("else"), "study")}


def test_beams_are_those_around_a_reference():
    groups = [
        {
            "FractionGroupNumber": 1,
            "ReferencedBeamSequence": [
                {"ReferencedBeamNumber": 7, "ReferencedDoseSequence": [named("dose", "RTDOSE")]}
            ],
        }
    ]
    shown = {"BeamNumber": 3, "ReferencedReferenceImageSequence": [named("drr", "RTIMAGE")]}
    found = said(data.plan("plan", FractionGroupSequence=groups, BeamSequence=[shown]))
    assert {(each.uid, each.through, each.beam) for each in found} == {
        (uid_of("dose"), "ReferencedDoseSequence", 7),
        (uid_of("drr"), "ReferencedReferenceImageSequence", 3),
    }


def test_beams_of_a_dose_are_those_of_its_plan():
    assert references_of(data.data_set(data.dose("dose", "BEAM", 2))).beams == {(uid_of("plan"), 2)}
    assert references_of(data.data_set(data.record("fraction"))).beams == {(uid_of("plan"), 1), (uid_of("plan"), 2)}
    assert references_of(data.data_set(data.plan("plan"))).beams == frozenset()


def test_only_a_plan_that_is_verified_is_verified():
    names = [
        named("checked", "RTPLAN", RTPlanRelationship="VERIFIED_PLAN"),
        named("former", "RTPLAN", RTPlanRelationship="PREDECESSOR"),
    ]
    found = references_of(data.data_set(data.plan("check", ReferencedRTPlanSequence=names)))
    assert found.verifies == uids_of("checked")
    assert found.plans == uids_of("checked", "former")


def test_patients_studies_and_steps_are_no_objects():
    management = {
        "ReferencedPatientSequence": [named("patient", "CT")],
        "ReferencedStudySequence": [named("study", "CT")],
        "ReferencedPerformedProcedureStepSequence": [named("step", "CT")],
    }
    assert said(data.thing("CT", "slice", **management)) == set()


def test_an_answer_says_what_its_object_says():
    for values in (data.dose("dose", "BEAM", 1), data.image("field", data.PORTAL), data.cone("cone 1")):
        dataset = data.data_set(values)
        answer = json.loads(json.dumps(to_answer(dataset)))
        assert references_of(answer) == references_of(dataset)
    assert references_of({"ReferencedRTPlanSequence": None, "ImageType": None}).links == frozenset()


def test_uids_are_taken_as_they_stand(tmp_path):
    path = tmp_path / "dose.dcm"
    data.save(data.data_set(data.dose("1.2.3.045", owners=("1.2.3.04",))), path)
    # Warnings are errors here: pydicom would warn of a component with a leading zero.
    found = references_of(dcmread(path))
    assert (found.sop_instance_uid, found.plans) == ("1.2.3.045", {"1.2.3.04"})


def test_garbage_names_nothing():
    dataset = Dataset()
    dataset.SOPInstanceUID = "1.2"
    dataset.ReferencedRTPlanSequence = [Dataset()]
    found = references_of(dataset)
    assert (found.links, found.beams, found.frames, found.image_type) == (frozenset(), frozenset(), frozenset(), ())
