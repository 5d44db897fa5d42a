from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.cases import REGIONS

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.objects.structure_set import structure_set_values


@pytest.fixture
def drawn(made):
    return made["structure set"][0]


def contours(drawn, number):
    (item,) = [item for item in drawn.ROIContourSequence if item.ReferencedROINumber == number]
    return list(item.get("ContourSequence", ()))


def points(contour):
    return np.array(contour.ContourData, dtype=float).reshape(-1, 3)


def test_it_names_each_slice_of_its_ct_and_nothing_else(drawn, case, made):
    (frame,) = drawn.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    scan = made["planning CT"]
    assert {frame.FrameOfReferenceUID} == {dataset.FrameOfReferenceUID for dataset in scan}
    assert {study.ReferencedSOPInstanceUID} == {dataset.StudyInstanceUID for dataset in scan}
    assert {series.SeriesInstanceUID} == {dataset.SeriesInstanceUID for dataset in scan}
    named = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    assert named == [dataset.SOPInstanceUID for dataset in scan]
    assert {item.ReferencedSOPClassUID for item in series.ContourImageSequence} == {uids.CT_IMAGE}


def test_regions_are_those_of_the_case(drawn):
    assert [roi.ROIName for roi in drawn.StructureSetROISequence] == [region.name for region in REGIONS]
    numbers = [region.number for region in REGIONS]
    assert [roi.ROINumber for roi in drawn.StructureSetROISequence] == numbers
    assert [item.ReferencedROINumber for item in drawn.ROIContourSequence] == numbers
    assert [item.ReferencedROINumber for item in drawn.RTROIObservationsSequence] == numbers
    types = [item.RTROIInterpretedType for item in drawn.RTROIObservationsSequence]
    assert types == [region.interpreted_type for region in REGIONS]
    assert [list(item.ROIDisplayColor) for item in drawn.ROIContourSequence] == [list(r.colour) for r in REGIONS]


def test_a_contour_lies_in_its_slice_and_on_its_ellipsoid(drawn, made):
    heights = {dataset.SOPInstanceUID: float(dataset.ImagePositionPatient[2]) for dataset in made["planning CT"]}
    for region in REGIONS:
        for contour in contours(drawn, region.number):
            shape = points(contour)
            assert (contour.ContourGeometricType, len(shape)) == ("CLOSED_PLANAR", contour.NumberOfContourPoints)
            assert set(shape[:, 2]) == {heights[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]}
            assert (((shape - region.centre_mm) / region.radii_mm) ** 2).sum(1) == pytest.approx(
                1.0, abs=0.03 / min(region.radii_mm)
            )


def test_a_region_is_cut_by_the_slices_that_it_reaches_and_no_other(drawn, made):
    for region in REGIONS:
        low, high = (region.centre_mm[2] + side * region.radii_mm[2] for side in (-1, 1))
        reached = [
            dataset.SOPInstanceUID for dataset in made["planning CT"] if low < dataset.ImagePositionPatient[2] < high
        ]
        named = [contour.ContourImageSequence[0].ReferencedSOPInstanceUID for contour in contours(drawn, region.number)]
        assert named == reached, region.name
    assert len(contours(drawn, 1)) == 10
    assert "ContourSequence" in drawn.ROIContourSequence[0]
    seed = drawn.ROIContourSequence[4]
    assert len(contours(drawn, 5)) == 1
    assert seed.ContourSequence[0].NumberOfContourPoints == 16


def test_a_region_between_slices_has_no_contour_sequence(case):
    seed = replace(REGIONS[4], centre_mm=(5.0, 0.0, 0.0))
    values = structure_set_values(case, replace(case.structure_sets[0], regions=(seed,)))
    assert values["ROIContourSequence"] == [{"ReferencedROINumber": 5, "ROIDisplayColor": [0, 255, 255]}]


def test_contours_enclose_what_the_ct_shows(drawn, made):
    dataset = min(made["planning CT"], key=lambda each: abs(each.ImagePositionPatient[2] + 5))
    (head,) = [
        contour for contour in contours(drawn, 4)
        if contour.ContourImageSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID
    ]  # fmt: skip
    bone = dataset.pixel_array > 1250
    _, columns = np.nonzero(bone[:, 20:])
    x = (columns + 20) * float(dataset.PixelSpacing[1]) + float(dataset.ImagePositionPatient[0])
    assert x.min() >= points(head)[:, 0].min() - 8
    assert x.max() <= points(head)[:, 0].max() + 8


def test_approval_says_who_and_when_unless_nobody_has(made):
    approved, draft = made["structure set"]
    assert (approved.ApprovalStatus, approved.ReviewDate) == ("APPROVED", "20260303")
    assert draft.ApprovalStatus == "UNAPPROVED"
    assert "ReviewDate" not in draft
    assert (approved.StructureSetLabel, draft.StructureSetLabel) == ("CT_1", "CT_1 Entwurf")
