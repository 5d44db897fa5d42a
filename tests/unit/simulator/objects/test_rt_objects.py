from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from support.simulated import UNTIL, identifier

from airflow_provider_varian import uids
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.facts import facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.holdings.tree import Search, walk
from airflow_provider_varian.simulator.objects.machine import imager
from airflow_provider_varian.simulator.objects.pixels import project


def fetch(clinic, uid):
    (chain,) = walk(clinic, Search(Level.IMAGE, identifier("", SOPInstanceUID=uid)))
    return chain[-1].fetch()


@pytest.fixture
def winston_lutz(plans):
    return plans["QA", "WL_10MV"]


def test_qa_images_come_from_the_imager_of_their_machine(clinic):
    machines = set()
    for fact in facts(clinic):
        for day in fact.days[-1:]:
            ds = fetch(clinic, fact.images(day)[0].sop_instance_uid)
            said = imager(ds.RadiationMachineName)
            assert {keyword: ds[keyword].value for keyword in said} == said
            machines.add(said["DeviceSerialNumber"])
    assert len(machines) == 2


def test_a_megavoltage_image_looks_like_arias(clinic, winston_lutz):
    first = winston_lutz.images(UNTIL)[0]
    ds = fetch(clinic, first.sop_instance_uid)
    assert list(ds.ImageType) == ["ORIGINAL", "PRIMARY", "PORTAL"]
    assert (ds.SOPClassUID, ds.Modality, ds.ConversionType) == (uids.RT_IMAGE, "RTIMAGE", "DI")
    assert ds.AcquisitionDate == ds.ContentDate == "20261120"
    assert ds.AcquisitionTime == ds.ContentTime == first.acquired.strftime("%H%M%S.%f")
    assert ds.StudyDate == "20260105", "the study is as old as the course"
    assert ds.StudyID == "QA"
    assert ds.StudyDescription == "ARIA RadOnc Study"
    assert ds.OperatorsName == "DICOM Service"
    assert ds.StationName == ds.RadiationMachineName == "TrueBeam1"
    assert (ds.RTImageSID, ds.RadiationMachineSAD) == (1540, 1000)
    assert list(ds.XRayImageReceptorTranslation) == [0, 0, -540]
    assert (ds.PrimaryDosimeterUnit, ds.RescaleType) == ("MU", "CU")
    assert ds.RescaleSlope < 0
    assert (ds.ExposureSequence[0].KVP, ds.ExposureSequence[0].MetersetExposure) == (10000, 100)
    assert ds.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == winston_lutz.sop_instance_uid
    assert ds.ReferencedBeamNumber == 1
    assert ds.PatientOrientation is None
    assert ds.InstanceNumber is None


def test_a_kilovoltage_image_says_minute_and_names_no_beam(clinic, winston_lutz):
    ds = fetch(clinic, winston_lutz.images(UNTIL)[-1].sop_instance_uid)
    assert ds.PrimaryDosimeterUnit == "MINUTE"
    assert "ReferencedBeamNumber" not in ds
    assert ds.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == winston_lutz.sop_instance_uid


def test_each_beam_of_the_plan_is_imaged_once(clinic, winston_lutz):
    plan = fetch(clinic, winston_lutz.sop_instance_uid)
    beams = [beam.BeamNumber for beam in plan.BeamSequence]
    images = [fetch(clinic, image.sop_instance_uid) for image in winston_lutz.images(UNTIL) if not image.kv]
    assert [image.ReferencedBeamNumber for image in images] == beams == list(range(1, 9))
    angles = [(b.ControlPointSequence[0].GantryAngle, b.ControlPointSequence[0].PatientSupportAngle)
              for b in plan.BeamSequence]  # fmt: skip
    assert [(image.GantryAngle, image.PatientSupportAngle) for image in images] == angles


def test_a_plan_says_what_a_query_may_ask(clinic, plans):
    ds = fetch(clinic, plans["QA", "DailyQA_PF_6FFF"].sop_instance_uid)
    assert (ds.RTPlanLabel, ds.ApprovalStatus, ds.PlanIntent) == ("DailyQA_PF_6FFF", "APPROVED", "MACHINE_QA")
    assert ds.RTPlanDate == "20260106"
    group = ds.FractionGroupSequence[0]
    assert group.NumberOfBeams == len(ds.BeamSequence) == len(group.ReferencedBeamSequence) == 1
    assert len(ds.BeamSequence[0].ControlPointSequence) == ds.BeamSequence[0].NumberOfControlPoints == 10


@pytest.mark.parametrize("matrix", [64, 1280])
def test_fewer_pixels_keep_the_size_of_the_panel(matrix):
    clinic = Clinic(days=1, until=UNTIL, matrix=matrix)
    ds = fetch(clinic, facts(clinic)[0].images(UNTIL)[0].sop_instance_uid)
    assert (ds.Rows, ds.Columns) == (matrix, matrix)
    assert len(ds.PixelData) == matrix * matrix * 2
    assert ds.ImagePlanePixelSpacing[0] * matrix == pytest.approx(430.08, abs=0.01)
    edge = (matrix - 1) / 2 * ds.ImagePlanePixelSpacing[0]
    assert list(ds.RTImagePosition) == pytest.approx([-edge, edge], abs=0.001)


def test_the_ball_in_the_image_is_where_the_truth_says(winston_lutz):
    clinic = Clinic(seed=1, days=1, until=UNTIL, matrix=640)
    truth = winston_lutz.truth(UNTIL)
    for image in winston_lutz.images(UNTIL)[:4]:
        ds = fetch(clinic, image.sop_instance_uid)
        dose = np.frombuffer(ds.PixelData, "<u2").reshape(640, 640) * float(ds.RescaleSlope) + float(
            ds.RescaleIntercept
        )
        middle = slice(320 - 13, 320 + 13)  # within the field, around the ball
        shadow = 0.98 - dose[middle, middle]
        shadow[shadow < 0.1] = 0
        axis = ((np.arange(640) - 319.5) * float(ds.ImagePlanePixelSpacing[0]))[middle]
        found = (shadow.sum(0) @ axis / shadow.sum(), shadow.sum(1) @ -axis / shadow.sum())
        assert found == pytest.approx(project(truth.ball_mm, float(ds.GantryAngle)), abs=0.08)


@pytest.mark.parametrize("label", ["T2_DRGS", "T3_MLCS"])
def test_the_arc_of_a_vmat_test_gives_each_strip_half_of_its_share_everywhere(clinic, plans, label):
    fact = plans["QA", label]
    still, arc = fetch(clinic, fact.sop_instance_uid).BeamSequence
    assert (still.BeamType, len(still.ControlPointSequence)) == ("STATIC", 2)
    assert (arc.BeamType, arc.NumberOfControlPoints) == ("DYNAMIC", len(arc.ControlPointSequence))
    points = arc.ControlPointSequence
    weights = [point.CumulativeMetersetWeight for point in points]
    assert (weights[0], weights[-1], weights) == (0.0, 1.0, sorted(weights))
    turned = [(after.GantryAngle - before.GantryAngle) % 360 for before, after in pairwise(points)]
    assert sum(turned) == pytest.approx(sum(fact.place.plan.beams[1].turns))
    assert [point.GantryRotationDirection for point in points] == ["CW"] * (len(points) - 1) + ["NONE"]

    banks = [point.BeamLimitingDevicePositionSequence[-1].LeafJawPositions for point in points]
    assert all(left <= right for bank in banks for left, right in zip(bank[:60], bank[60:], strict=True))
    strips = fact.place.plan.strips_mm
    half = fact.place.plan.strip_width_mm / 2

    def seen(x: float) -> float:
        """Return the share of the monitor units during which a point lies between the banks."""
        time = 0.0
        for step, (before, after) in zip(np.diff(weights), pairwise(banks), strict=True):
            between = np.linspace(0.0005, 0.9995, 1000)
            left = before[0] + (after[0] - before[0]) * between
            right = before[60] + (after[60] - before[60]) * between
            time += step * np.mean((left < x) & (x < right))
        return time

    for centre in strips:
        for x in (centre - half + 0.1, centre, centre + half - 0.1):
            assert seen(x) == pytest.approx(0.5 / len(strips), abs=0.001)
        assert seen(centre + half + 1.0) == 0.0, "between two strips the leaves are closed"
