from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.objects import dose
from airflow_provider_varian.simulator.objects.prescription import prescribed_gy


def gray(dataset):
    return dataset.pixel_array.astype(float) * float(dataset.DoseGridScaling)


@pytest.fixture
def plan(case):
    return case.plans[0]


@pytest.fixture
def grid(identity, plan):
    return dose.dose_gy(identity, plan, plan.doses[0], 640)


def at(grid, x, y, z):
    planes, side, _ = grid.shape
    return float(grid[round(z / (240 / planes) + (planes - 1) / 2), round(y / (400 / side) + (side - 1) / 2),
                      round(x / (400 / side) + (side - 1) / 2)])  # fmt: skip


def test_stored_values_times_scaling_are_gray(made, identity, plan):
    for dataset, each in zip(made["dose"], plan.doses, strict=False):
        assert dataset.pixel_array.dtype == np.uint32
        assert gray(dataset) == pytest.approx(dose.dose_gy(identity, plan, each, 80), abs=1e-6)
        assert dataset.pixel_array.max() > 2**20, "the depth of the pixels is used"
        assert (dataset.DoseUnits, dataset.DoseType, dataset.BitsAllocated) == ("GY", "PHYSICAL", 32)


@pytest.mark.parametrize(("matrix", "size"), [(40, (8, 4)), (80, (8, 4)), (640, (64, 32)), (1280, (128, 64))])
def test_the_grid_follows_the_matrix_and_keeps_its_size(case, plan, matrix, size):
    values = dose.dose_values(case, plan, plan.doses[0], matrix)
    assert (values["Rows"], values["NumberOfFrames"]) == size == dose.grid_size(matrix)
    assert values["Columns"] == values["Rows"]
    offsets = values["GridFrameOffsetVector"]
    assert len(offsets) == values["NumberOfFrames"]
    assert offsets[0] == 0
    assert np.diff(offsets) == pytest.approx(values["SliceThickness"], abs=1e-3)
    assert values["PixelSpacing"][0] * values["Rows"] == pytest.approx(400, abs=1e-3)
    middle = values["ImagePositionPatient"][2] + offsets[-1] / 2
    assert middle == pytest.approx(0, abs=0.01), "centred on the isocentre"
    assert values["FrameIncrementPointer"] == 0x3004000C


def test_the_isocentre_gets_what_is_prescribed_to_a_few_per_cent(grid, plan):
    assert prescribed_gy(plan) == 60.0
    middle = grid[15:17, 31:33, 31:33].mean()
    assert 0.96 * 60 < middle < 1.06 * 60


def test_dose_falls_off_from_the_target_and_air_gets_none(grid):
    target = at(grid, 0, 0, 0)
    assert at(grid, -60, 75, 0) < 0.3 * target, "beside all beams"
    assert at(grid, 0, 0, 80) < 0.25 * target, "out of the fields"
    assert at(grid, 190, 190, 0) == 0.0
    assert at(grid, 0, -115, 0) == 0.0, "above the skin"
    assert at(grid, 0, -60, 0) < 0.75 * target, "where one beam passes alone"


def test_a_beam_alone_falls_off_with_depth(identity, plan):
    (first,) = [each for each in plan.doses if each.beam == 1]
    grid = dose.dose_gy(identity, plan, first, 640)
    deeper = [at(grid, 0, y, 0) for y in (-80, -40, 0, 40, 80)]
    assert deeper == sorted(deeper, reverse=True)
    assert deeper[2] / deeper[1] == pytest.approx(np.exp(-0.0046 * 40) * (960 / 1000) ** 2, abs=0.06)
    assert at(grid, 60, 0, 0) < 0.1 * deeper[2], "beside the field of 80 mm"
    assert at(grid, 0, 0, 50) < 0.1 * deeper[2], "beside the field of 60 mm"


def test_the_beams_add_up_to_the_plan(made):
    whole, *beams = [gray(dataset) for dataset in made["dose"][:4]]
    assert sum(beams) == pytest.approx(whole, abs=1e-4)
    assert min(beam.max() for beam in beams) > 1.0


def test_each_dose_names_its_plan_and_a_beams_dose_its_beam(made, case, plan):
    kinds = [(dataset.DoseSummationType, dataset.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID)
             for dataset in made["dose"]]  # fmt: skip
    verification = case.plans[2].sop_instance_uid
    assert kinds == [("PLAN", plan.sop_instance_uid), *[("BEAM", plan.sop_instance_uid)] * 3, ("PLAN", verification)]
    named = []
    for dataset in made["dose"][1:4]:
        (group,) = dataset.ReferencedRTPlanSequence[0].ReferencedFractionGroupSequence
        assert group.ReferencedFractionGroupNumber == 1
        named += [item.ReferencedBeamNumber for item in group.ReferencedBeamSequence]
    assert named == [beam.BeamNumber for beam in made["plan"][0].BeamSequence] == [1, 2, 4]
    assert "ReferencedFractionGroupSequence" not in made["dose"][0].ReferencedRTPlanSequence[0]
    assert {dataset.FrameOfReferenceUID for dataset in made["dose"][:4]} == {plan.frame_of_reference_uid}


def test_a_plan_names_the_doses_of_the_whole_and_of_each_beam(made, plan):
    ds = made["plan"][0]
    (whole,) = ds.ReferencedDoseSequence
    assert (whole.ReferencedSOPClassUID, whole.ReferencedSOPInstanceUID) == (
        uids.RT_DOSE,
        plan.doses[0].sop_instance_uid,
    )
    named = {
        item.ReferencedBeamNumber: item.ReferencedDoseSequence[0].ReferencedSOPInstanceUID
        for item in ds.FractionGroupSequence[0].ReferencedBeamSequence
    }
    assert named == {each.beam: each.sop_instance_uid for each in plan.doses if each.beam is not None}
    assert "ReferencedDoseSequence" not in made["plan"][1]


def test_a_dose_of_no_beams_is_zero(identity, case):
    empty = case.plans[4]
    assert not dose.dose_gy(identity, empty, case.plans[0].doses[0], 80).any()


@pytest.mark.parametrize(
    ("label", "fractions", "gray"),
    [("PROST_78Gy", 39, 78.0), ("Boost 12.5 Gy", 5, 12.5), ("LungL_SBRT", 5, 40.0), ("Plan1", 25, 50.0)],
)
def test_the_label_tells_the_dose_or_the_fractions_do(case, label, fractions, gray):
    plan = replace(case.plans[0], label=label, fractions=fractions)
    assert prescribed_gy(plan) == gray
    assert prescribed_gy(replace(plan, verifies=plan.reference, fractions=1)) == 2.0
