"""Radiographs and portal images of patients: geometry, and that prediction and measurement resemble each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.objects import drr, pixels, portal, projection
from airflow_provider_varian.simulator.objects.anatomy import Tissue
from airflow_provider_varian.simulator.objects.pixels import SID_MM, Panel

PANEL = Panel(matrix=256)
AXIS = PANEL.axis() / PANEL.magnification


def plane(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<u2").reshape(PANEL.matrix, PANEL.matrix).astype(float)


def units(case, image, identity):
    values = portal.portal_values(case, case.plans[0], image, PANEL)
    stored = plane(portal.portal_pixels(identity, case, image, PANEL))
    return stored * values["RescaleSlope"] + values["RescaleIntercept"]


def pair(case, number):
    """Predicted and acquired portal dose of a beam."""
    images = [image for image in case.plans[0].portal_images if image.beam and image.beam.number == number]
    return [next(image for image in images if kind in image.image_type) for kind in ("PREDICTED_DOSE", "ACQUIRED_DOSE")]


def centre(image):
    image = np.clip(image - image.max() / 10, 0, None)
    return np.array([image.sum(0) @ AXIS, image.sum(1) @ -AXIS]) / image.sum()


def tissue(centre_mm, radius=8.0):
    return Tissue(centre_mm=centre_mm, radii_mm=(radius, radius, radius), hounsfield=0)


@pytest.mark.parametrize("gantry", [0.0, 37.0, 90.0, 180.0, 255.0])
@pytest.mark.parametrize("couch", [0.0, 30.0, 315.0])
def test_a_shadow_falls_where_the_machine_projects_the_point(gantry, couch):
    x, y, z = 14.0, -23.0, 31.0  # patient: left, posterior, head
    shadow = projection.shadow(PANEL, [(tissue((x, y, z)), 1.0)], gantry, couch)
    turn = np.deg2rad(couch)
    # Head first and supine: IEC right is the patient's left, towards the gantry is the head, up is anterior.
    fixed = (x * np.cos(turn) - z * np.sin(turn), x * np.sin(turn) + z * np.cos(turn), -y)
    found = centre(shadow) * PANEL.magnification
    assert found == pytest.approx(pixels.project(fixed, gantry), abs=1.0)


def test_the_way_through_the_middle_of_a_ball_is_its_diameter():
    shadow = projection.shadow(PANEL, [(tissue((0.0, 0.0, 0.0), 40.0), 0.5)], 120.0, 20.0)
    assert shadow.max() == pytest.approx(40.0, abs=0.01)
    inside = (shadow > 0).sum() * (PANEL.pitch_mm / PANEL.magnification) ** 2
    assert inside == pytest.approx(np.pi * 40**2, rel=0.01)


def test_what_is_out_of_the_picture_casts_no_shadow():
    assert not projection.shadow(PANEL, [(tissue((0.0, 0.0, 300.0)), 1.0)], 0.0, 0.0).any()


def test_a_field_has_the_size_of_its_jaws_and_turns_with_the_collimator(case):
    beam = replace(case.plans[0].beams[0], width_mm=80.0, length_mm=40.0, collimator=90.0)
    across, along = AXIS.astype(np.float32)[None, :], -AXIS.astype(np.float32)[:, None]
    field = projection.field(across, along, beam, 2.0)
    step = PANEL.pitch_mm / PANEL.magnification
    assert (field[128] > 0.5).sum() * step == pytest.approx(40, abs=2 * step)
    assert (field[:, 128] > 0.5).sum() * step == pytest.approx(80, abs=2 * step)
    skew = projection.field(across, along, replace(beam, collimator=30.0), 2.0) > 0.5
    rows, columns = np.nonzero(skew)
    right = columns.argmax()
    # The corner at +x, -y of the jaws turns counter-clockwise, seen from the source.
    assert AXIS[columns[right]] == pytest.approx(40 * np.cos(np.pi / 6) + 20 * np.sin(np.pi / 6), abs=2)
    assert -AXIS[rows[right]] == pytest.approx(40 * np.sin(np.pi / 6) - 20 * np.cos(np.pi / 6), abs=3)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_acquired_portal_dose_is_the_predicted_one_but_for_what_the_delivery_was_off(case, identity, number):
    predicted, acquired = (units(case, image, identity) for image in pair(case, number))
    beam = pair(case, number)[0].beam
    truth = portal.delivery(identity, case, beam)
    assert np.corrcoef(predicted.ravel(), acquired.ravel())[0, 1] > 0.99
    assert centre(acquired) - centre(predicted) == pytest.approx(truth.shift_mm, abs=0.05)
    middle = slice(118, 138)
    ratio = acquired[middle, middle].mean() / predicted[middle, middle].mean()
    assert ratio == pytest.approx(truth.output, abs=0.003)
    assert predicted[128, 128] == pytest.approx(beam.meterset / 100, rel=0.02), "1 CU is 100 MU"
    area = (predicted > predicted[128, 128] / 2).sum() * (PANEL.pitch_mm / PANEL.magnification) ** 2
    assert area == pytest.approx(80 * 60, rel=0.03)
    assert 0.001 < (acquired - truth.output * predicted)[:40].std() < 0.02, "noise"


def test_no_two_beams_are_off_alike_and_all_images_of_a_beam_are(case, identity):
    beams = case.plans[0].beams
    off = [portal.delivery(identity, case, beam) for beam in beams]
    assert len({each.shift_mm for each in off}) == len({each.output for each in off}) == len(beams)
    assert all(max(map(abs, each.shift_mm)) < 2 and abs(each.output - 1) < 0.04 for each in off)
    (_, acquired) = pair(case, 1)
    again = replace(acquired, sop_instance_uid="1.2.3", fraction=2)
    assert centre(units(case, again, identity)) == pytest.approx(centre(units(case, acquired, identity)), abs=0.05)
    assert not np.array_equal(units(case, again, identity), units(case, acquired, identity)), "noise is of the image"


def test_nothing_is_clipped_however_many_monitor_units(case, identity):
    predicted, _ = pair(case, 1)
    much = replace(predicted, beam=replace(predicted.beam, meterset=900.0))
    found = units(case, much, identity)
    assert found[128, 128] == pytest.approx(9.0, rel=0.02)
    assert portal.portal_values(case, None, much, PANEL)["RescaleSlope"] < 0


def test_portal_values_say_what_the_image_is(made, case):
    plan = case.plans[0]
    for ds, image in zip(made["portal"], plan.portal_images, strict=True):
        assert tuple(ds.ImageType) == image.image_type
        assert ds.RTImageLabel == image.label
        (item,) = ds.ReferencedRTPlanSequence
        assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (uids.RT_PLAN, plan.sop_instance_uid)
        assert ds.FractionNumber == image.fraction
        assert ds.ReportedValuesOrigin == ("PLAN" if image.image_type[0] == "DERIVED" else "ACTUAL")
        assert ds.RadiationMachineName == "TrueBeam1"
        assert ds.RTImageSID == SID_MM
        if image.beam is None:
            assert (ds.PrimaryDosimeterUnit, ds.RescaleType) == ("MINUTE", "US")
            assert "ReferencedBeamNumber" not in ds
            continue
        assert (ds.PrimaryDosimeterUnit, ds.RescaleType) == ("MU", "CU")
        assert ds.ReferencedBeamNumber == image.beam.number
        assert (ds.GantryAngle, ds.BeamLimitingDeviceAngle) == (image.beam.gantry, image.beam.collimator)
        (exposure,) = ds.ExposureSequence
        assert (exposure.KVP, exposure.MetersetExposure) == (6000, image.beam.meterset)
        assert list(exposure.BeamLimitingDeviceSequence[0].LeafJawPositions) == [-40, 40]


def test_a_stray_names_no_plan(made):
    (ds,) = made["stray"]
    for keyword in ("ReferencedRTPlanSequence", "ReferencedBeamNumber", "FractionNumber", "FrameOfReferenceUID"):
        assert keyword not in ds
    assert ds.pixel_array.std() > 0


def test_a_portal_image_shows_the_patient_in_the_field(case, identity):
    image = next(
        image for image in case.plans[0].portal_images if image.image_type == ("ORIGINAL", "PRIMARY", "PORTAL")
    )
    open_field = replace(image, image_type=("ORIGINAL", "PRIMARY", "PORTAL", "ACQUIRED_DOSE"))
    through, free = units(case, image, identity), units(case, open_field, identity)
    # From above: some 230 mm of body, mostly of the density of water.
    assert through[128, 128] / free[128, 128] == pytest.approx(np.exp(-0.0046 * 235), rel=0.08)


def test_a_radiograph_shows_body_and_bone_at_the_isocentre_plane(case, identity):
    plan = case.plans[0]
    values = drr.drr_values(case, plan, plan.beams[0], PANEL)
    image = plane(drr.drr_pixels(identity, case, plan, plan.beams[0], PANEL))
    assert values["RTImageSID"] == values["RadiationMachineSAD"] == 1000
    step = values["ImagePlanePixelSpacing"][0]
    assert step * PANEL.matrix == pytest.approx(430.08 / 1.54, abs=0.01)
    at = lambda x: image[128 - 3 : 128 + 4, 128 + round(x / step)].mean()  # noqa: E731
    # From above, left of the patient is to the right: there lies the femoral head that was drawn.
    assert at(95) > 1.1 * at(-95)
    assert at(0) > 1.1 * at(40), "the spine"
    side = plane(drr.drr_pixels(identity, case, plan, plan.beams[1], PANEL))
    assert not np.allclose(side, image, atol=2000)


def test_radiographs_name_plan_and_beam(made, case):
    plan = case.plans[0]
    for ds, beam in zip(made["DRR"], plan.beams, strict=True):
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "DRR"]
        assert ds.SeriesInstanceUID == plan.drr_series_uid
        assert ds.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.sop_instance_uid
        assert (ds.ReferencedBeamNumber, ds.GantryAngle) == (beam.number, beam.gantry)
        assert ds.FrameOfReferenceUID == plan.frame_of_reference_uid


def test_a_plan_on_no_patient_is_seen_on_a_phantom(case, identity):
    verification = case.plans[2]
    image = plane(drr.drr_pixels(identity, case, verification, verification.beams[0], PANEL))
    assert image[128, 128] == pytest.approx(300 * 120, rel=0.02), "a cylinder of water, 300 mm across"
