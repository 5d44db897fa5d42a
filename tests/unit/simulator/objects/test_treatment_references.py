"""Plans, records and registrations: what they say, and that what they name is there."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Approval


def by_label(made):
    return {dataset.RTPlanLabel: dataset for kind in ("plan", "plan without beams") for dataset in made[kind]}


def test_a_plan_says_what_the_case_says(made, case):
    found = by_label(made)
    assert list(found) == [plan.label for plan in case.plans]
    for plan in case.plans:
        ds = found[plan.label]
        assert (ds.ApprovalStatus, ds.PlanIntent) == (plan.approval.value, plan.intent)
        assert ("ReviewDate" in ds) == (plan.approval is not Approval.UNAPPROVED)
        assert ds.FrameOfReferenceUID == plan.frame_of_reference_uid
        group = ds.FractionGroupSequence[0]
        assert (group.NumberOfFractionsPlanned, group.NumberOfBeams) == (plan.fractions, len(plan.beams))


def test_beams_are_those_of_the_case(made, case):
    for plan in case.plans:
        ds = by_label(made)[plan.label]
        metersets = {
            item.ReferencedBeamNumber: item.BeamMeterset
            for item in ds.FractionGroupSequence[0].get("ReferencedBeamSequence", ())
        }
        assert metersets == {beam.number: beam.meterset for beam in plan.beams}
        assert [beam.BeamNumber for beam in ds.BeamSequence] == [beam.number for beam in plan.beams]
        for item, beam in zip(ds.BeamSequence, plan.beams, strict=True):
            first, last = item.ControlPointSequence
            assert (item.BeamName, item.TreatmentMachineName) == (beam.name, plan.machine)
            assert (first.GantryAngle, first.BeamLimitingDeviceAngle, first.PatientSupportAngle) == (
                beam.gantry,
                beam.collimator,
                beam.couch,
            )
            x, y, leaves = first.BeamLimitingDevicePositionSequence
            assert [list(x.LeafJawPositions), list(y.LeafJawPositions)] == [[-40, 40], [-30, 30]]
            assert list(leaves.LeafJawPositions) == [-40] * 60 + [40] * 60
            assert (first.CumulativeMetersetWeight, last.CumulativeMetersetWeight) == (0, 1)
            assert item.FinalCumulativeMetersetWeight == 1


def test_a_plan_names_its_structure_set_and_its_radiographs(made, case):
    found = by_label(made)
    held = {dataset.SOPInstanceUID for dataset in made["structure set"]}
    for plan in case.plans:
        ds = found[plan.label]
        if plan.structure_set is None:
            assert ds.RTPlanGeometry == "TREATMENT_DEVICE"
            assert "ReferencedStructureSetSequence" not in ds
        else:
            (item,) = ds.ReferencedStructureSetSequence
            assert ds.RTPlanGeometry == "PATIENT"
            assert item.ReferencedSOPClassUID == uids.RT_STRUCTURE_SET
            assert item.ReferencedSOPInstanceUID == plan.structure_set.sop_instance_uid
            assert item.ReferencedSOPInstanceUID in held
    named = [beam.ReferencedReferenceImageSequence[0].ReferencedSOPInstanceUID
             for beam in found["PROST_60Gy"].BeamSequence]  # fmt: skip
    assert named == [dataset.SOPInstanceUID for dataset in made["DRR"]]
    assert not any("ReferencedReferenceImageSequence" in beam for beam in found["Überlegung"].BeamSequence)


def test_a_verification_plan_names_the_plan_that_it_verifies(made, case):
    found = by_label(made)
    (item,) = found["QA_PROST"].ReferencedRTPlanSequence
    assert item.RTPlanRelationship == "VERIFIED_PLAN"
    assert item.ReferencedSOPInstanceUID == found["PROST_60Gy"].SOPInstanceUID
    assert "ReferencedRTPlanSequence" not in found["PROST_60Gy"]


def test_a_ring_machines_plan_is_an_rt_plan_in_all_but_its_class(made):
    found = by_label(made)
    ring, plan = found["PROST Ring"], found["PROST_60Gy"]
    assert ring.SOPClassUID == "1.2.246.352.70.1.70"
    assert {element.tag for element in ring} == {element.tag for element in plan if element.keyword != (
        "ReferencedDoseSequence"
    )}  # fmt: skip
    assert ring.BeamSequence[0].ManufacturerModelName == "Halcyon"
    assert ring.BeamSequence[0].PrimaryFluenceModeSequence[0].FluenceModeID == "FFF"
    assert plan.BeamSequence[0].ManufacturerModelName == "TrueBeam"
    assert plan.BeamSequence[0].PrimaryFluenceModeSequence[0].FluenceMode == "STANDARD"


def test_a_plan_without_beams_has_an_empty_beam_sequence(made):
    (ds,) = made["plan without beams"]
    assert "BeamSequence" in ds
    assert len(ds.BeamSequence) == 0
    assert "ReferencedBeamSequence" not in ds.FractionGroupSequence[0]
    assert all(len(dataset.BeamSequence) for dataset in made["plan"])


def test_a_record_tells_a_fraction_of_its_plan(made, case):
    plan = case.plans[0]
    assert len(made["record"]) == 2
    for ds, record in zip(made["record"], plan.records, strict=True):
        (item,) = ds.ReferencedRTPlanSequence
        assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (uids.RT_PLAN, plan.sop_instance_uid)
        assert (ds.NumberOfFractionsPlanned, ds.PrimaryDosimeterUnit) == (20, "MU")
        assert ds.TreatmentMachineSequence[0].TreatmentMachineName == "TrueBeam1"
        assert ds.StudyInstanceUID == plan.study.uid
        beams = ds.TreatmentSessionBeamSequence
        assert [beam.ReferencedBeamNumber for beam in beams] == [beam.number for beam in plan.beams]
        assert [beam.BeamName for beam in beams] == [beam.name for beam in plan.beams]
        assert [beam.DeliveredPrimaryMeterset for beam in beams] == [beam.meterset for beam in plan.beams]
        assert {beam.CurrentFractionNumber for beam in beams} == {record.fraction}
        assert {beam.TreatmentTerminationStatus for beam in beams} == {"NORMAL"}


def test_control_points_of_a_record_go_forward_in_time_and_meterset(made, case):
    moments = []
    for beam, planned in zip(made["record"][0].TreatmentSessionBeamSequence, case.plans[0].beams, strict=True):
        first, last = beam.ControlPointDeliverySequence
        assert beam.NumberOfControlPoints == 2
        assert (first.DeliveredMeterset, last.DeliveredMeterset) == (0, planned.meterset)
        assert first.GantryAngle == planned.gantry
        for point in (first, last):
            text = point.TreatmentControlPointDate + point.TreatmentControlPointTime
            moments.append(datetime.strptime(text, "%Y%m%d%H%M%S.%f"))
    assert moments[0] == case.plans[0].records[0].treated
    assert moments == sorted(set(moments))


def test_a_registration_joins_two_frames_of_reference(made, case):
    (ds,) = made["registration"]
    registration = case.plans[0].registrations[0]
    fixed, moving = ds.RegistrationSequence
    assert ds.FrameOfReferenceUID == fixed.FrameOfReferenceUID == registration.fixed.frame_of_reference_uid
    assert moving.FrameOfReferenceUID == registration.moving.frame_of_reference_uid != fixed.FrameOfReferenceUID
    for item, kind in ((fixed, "planning CT"), (moving, "CBCT")):
        named = [each.ReferencedSOPInstanceUID for each in item.ReferencedImageSequence]
        assert named == [dataset.SOPInstanceUID for dataset in made[kind]]
        assert {dataset.FrameOfReferenceUID for dataset in made[kind]} == {item.FrameOfReferenceUID}


def test_the_matrices_bring_the_patient_of_the_cbct_home(made):
    (ds,) = made["registration"]

    def matrix(item):
        (step,) = item.MatrixRegistrationSequence[0].MatrixSequence
        assert step.FrameOfReferenceTransformationMatrixType == "RIGID"
        return np.array(step.FrameOfReferenceTransformationMatrix, dtype=float).reshape(4, 4)

    fixed, moving = ds.RegistrationSequence
    assert np.array_equal(matrix(fixed), np.eye(4))
    # test_ct shows that the CBCT's patient lies off by minus the correction.
    assert matrix(moving) @ (-4.0, 3.0, -6.0, 1.0) == pytest.approx([0, 0, 0, 1])


def test_a_registration_lists_the_series_of_its_study_and_of_others(made, case):
    (ds,) = made["registration"]
    scan, cbct = case.image_series
    (here,) = ds.ReferencedSeriesSequence
    assert here.SeriesInstanceUID == cbct.series_uid
    (other,) = ds.StudiesContainingOtherReferencedInstancesSequence
    assert other.StudyInstanceUID == scan.study.uid
    assert other.ReferencedSeriesSequence[0].SeriesInstanceUID == scan.series_uid
    assert len(other.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == len(scan.instance_uids)
