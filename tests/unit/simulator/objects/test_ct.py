from __future__ import annotations

import numpy as np
import pytest
from support.cases import Made, whole

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case
from airflow_provider_varian.simulator.objects import ct


def hounsfield(dataset):
    return dataset.pixel_array.astype(float) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def place(dataset, x, y):
    """Row and column of a point of the patient."""
    corner, pitch = dataset.ImagePositionPatient, dataset.PixelSpacing
    return round((y - corner[1]) / pitch[0]), round((x - corner[0]) / pitch[1])


def around(dataset, x, y, reach=1):
    row, column = place(dataset, x, y)
    return float(hounsfield(dataset)[row - reach : row + reach + 1, column - reach : column + reach + 1].mean())


def test_slices_go_from_feet_to_head_about_the_isocentre(made, case):
    for series, kind in zip(case.image_series, ("planning CT", "CBCT"), strict=True):
        positions = [float(dataset.ImagePositionPatient[2]) for dataset in made[kind]]
        assert positions == pytest.approx(list(ct.slice_positions_mm(series)))
        assert np.diff(positions) == pytest.approx(series.slice_mm)
        assert sum(positions) == pytest.approx(0)
        assert [dataset.InstanceNumber for dataset in made[kind]] == list(range(1, len(positions) + 1))
        assert [dataset.SliceLocation for dataset in made[kind]] == positions


@pytest.mark.parametrize(("matrix", "side"), [(20, 16), (80, 32), (640, 256), (1280, 512)])
def test_the_body_keeps_its_size_whatever_the_matrix(case, identity, matrix, side):
    values = ct.ct_values(case, case.image_series[0], 5, matrix)
    assert values["Rows"] == values["Columns"] == ct.rows(matrix) == side
    assert values["PixelSpacing"][0] * side == pytest.approx(500)
    stored = np.frombuffer(ct.ct_pixels(identity, case, case.image_series[0], 5, matrix), "<u2").reshape(side, side)
    across = (stored[side // 2] > 500).sum() * values["PixelSpacing"][1]
    assert across == pytest.approx(360, abs=2 * values["PixelSpacing"][1])


def test_tissues_are_where_the_regions_are(case, identity):
    def cut(index):
        values, pixels = (
            make(*who, case, case.image_series[0], index, 640)
            for make, who in ((ct.ct_values, ()), (ct.ct_pixels, (identity,)))
        )
        return whole(case, Made("", "", case.image_series[0].study, values, pixels))

    middle = cut(4)
    assert middle.SliceLocation == -5.0
    assert around(middle, -240, -240) < -900, "air"
    assert around(middle, 95, 5) > 300, "the femoral head on the left, which is to the right in the image"
    assert around(middle, -95, 5) < 150, "nobody drew the other"
    assert around(middle, 0, -45) == pytest.approx(6, abs=15), "the bladder"
    assert around(middle, 0, 10) == pytest.approx(85, abs=15), "the tumour"
    assert around(middle, 0, 72) > 300, "the spine"
    assert around(middle, -172, 15) == pytest.approx(-95, abs=15), "fat under the skin"
    head = cut(9)
    assert around(head, 95, 5) == pytest.approx(45, abs=15), "the femoral head has an end"


def test_a_cbct_shows_the_patient_off_by_the_couch_correction(case, identity):
    series = case.image_series[1]
    correction = case.plans[0].registrations[0].shift_mm

    def centre(case: Case) -> np.ndarray:
        bone = np.array([
            np.frombuffer(ct.ct_pixels(identity, case, series, index, 640), "<u2").reshape(256, 256) > 1250
            for index in range(5)
        ])[:, :, 160:]  # fmt: skip
        _, row, column = np.nonzero(bone)
        return np.array((column.mean(), row.mean())) * ct.pixel_mm(series, 640)

    home = Case(**{name: getattr(case, name) for name in case.__slots__} | {"plans": ()})
    assert centre(case) - centre(home) == pytest.approx([-correction[0], -correction[1]], abs=0.4)


def test_a_cbct_tells_its_plan_and_a_planning_ct_has_none(made, case):
    for dataset in made["CBCT"]:
        (item,) = dataset.ReferencedInstanceSequence
        assert item.ReferencedSOPClassUID == uids.RT_PLAN
        assert item.ReferencedSOPInstanceUID == case.plans[0].sop_instance_uid
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121310"
        assert dataset.ManufacturerModelName == "On-Board Imager"
        assert around(dataset, -228, -228, 0) == -1000, "the cone is round"
    assert not any("ReferencedInstanceSequence" in dataset for dataset in made["planning CT"])


def test_noise_differs_between_slices_and_is_greater_in_a_cbct(case, identity):
    def muscle(series, index):
        stored = np.frombuffer(ct.ct_pixels(identity, case, series, index, 640), "<u2").reshape(256, 256)
        return stored[124:132, 145:160].astype(float)  # clear of all organs

    scan, cone = case.image_series
    assert not np.array_equal(muscle(scan, 4), muscle(scan, 5))
    assert 8 < muscle(scan, 4).std() < 20
    assert 30 < muscle(cone, 2).std() < 80


def test_what_a_plan_was_made_on_shows_although_the_structure_set_is_gone(case, identity):
    gone = Case(**{name: getattr(case, name) for name in case.__slots__} | {"structure_sets": ()})
    scan = case.image_series[0]
    assert ct.ct_pixels(identity, gone, scan, 5, 80) == ct.ct_pixels(identity, case, scan, 5, 80)
