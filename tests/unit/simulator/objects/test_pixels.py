from __future__ import annotations

import numpy as np
import pytest

from airflow_provider_varian.simulator.objects import pixels
from airflow_provider_varian.simulator.objects.pixels import Panel, project

PANEL = Panel(matrix=640)


class Silence:
    """Noise that makes none."""

    def standard_normal(self, shape, dtype):
        return np.zeros(shape, dtype)


def half_width(profile, panel):
    """Edges of the part above half of the maximum, millimetres on the panel."""
    axis, level = panel.axis(), profile.max() / 2
    above = np.nonzero(profile > level)[0]
    edges = []
    for inside, outside in ((above[0], above[0] - 1), (above[-1], above[-1] + 1)):
        share = (profile[inside] - level) / (profile[inside] - profile[outside])
        edges.append(axis[inside] + share * (axis[outside] - axis[inside]))
    return edges


def test_a_point_in_the_isocentre_plane_is_magnified_by_sid_over_sad():
    assert project((10.0, 5.0, 0.0), 0.0) == pytest.approx((15.4, 7.7))


def test_the_source_goes_round_the_point():
    # x is to the right when facing the gantry, z up: seen from 90 degrees, up is to the left.
    assert project((0.0, 2.0, 10.0), 90.0) == pytest.approx((-15.4, 3.08))
    assert project((0.0, 2.0, 10.0), 270.0) == pytest.approx((15.4, 3.08))
    assert project((10.0, 2.0, 0.0), 180.0) == pytest.approx((-15.4, 3.08))


def test_a_point_nearer_to_the_source_is_magnified_more():
    x, y = project((10.0, 0.0, 100.0), 0.0)
    assert (x, y) == pytest.approx((10 * 1540 / 900, 0.0))


def test_an_open_field_has_its_size_and_place_on_the_panel():
    image = pixels.open_field(PANEL, field_mm=150.0, centre_mm=(1.3, -0.9), flattened=True, noise=Silence())
    row, column = half_width(image[320], PANEL), half_width(image[:, 320], PANEL)
    assert np.diff(row)[0] == pytest.approx(150 * 1.54, abs=0.3)
    assert np.mean(row) == pytest.approx(1.3, abs=0.02)
    # Row 0 is the top: y runs against the rows.
    assert -np.mean(column) == pytest.approx(-0.9, abs=0.02)


def test_a_flattening_filter_free_beam_has_a_peak():
    flat, peaked = (
        pixels.open_field(PANEL, field_mm=150.0, centre_mm=(0, 0), flattened=flattened, noise=Silence())
        for flattened in (True, False)
    )
    edge = 320 + int(60 * 1.54 / PANEL.pitch_mm)
    assert flat[320, edge] >= flat[320, 320]
    assert peaked[320, edge] < 0.95 * peaked[320, 320]


@pytest.mark.parametrize("matrix", [320, 640])
def test_the_ball_lies_where_it_was_put(matrix):
    panel = Panel(matrix=matrix)
    arguments = {"field_mm": 20.0, "centre_mm": (0.4, -0.3), "noise": Silence()}
    with_ball = pixels.winston_lutz(panel, ball_mm=(-0.7, 1.1), **arguments)
    without = pixels.winston_lutz(panel, ball_mm=(500.0, 500.0), **arguments)
    shadow = without - with_ball
    axis = panel.axis()
    assert (shadow.sum(0) @ axis) / shadow.sum() == pytest.approx(-0.7, abs=0.03)
    assert (shadow.sum(1) @ -axis) / shadow.sum() == pytest.approx(1.1, abs=0.03)


def test_pickets_stand_at_their_places_and_follow_their_leaves():
    errors = np.zeros(60)
    errors[33] = 1.0
    image = pixels.picket_fence(PANEL, centre_mm=(0, 0), field_mm=200.0, leaf_error_mm=errors, noise=Silence())

    def picket(y_mm, x_mm):
        row = image[int(320 - y_mm * 1.54 / PANEL.pitch_mm)]
        near = np.abs(PANEL.axis() / 1.54 - x_mm) < 5
        return float(row[near] @ PANEL.axis()[near] / 1.54 / row[near].sum())

    straight = [picket(2.5, (index - 4.5) * 15) for index in range(10)]
    assert straight == pytest.approx([(index - 4.5) * 15 for index in range(10)], abs=0.05)
    # Leaf pairs count from the lowest y up, 30 of 60 begins at the axis.
    assert picket(17.5, 7.5) > 8.1
    assert picket(22.5, 7.5) == pytest.approx(7.5, abs=0.05)


def test_more_dose_is_a_lower_stored_value_and_slope_and_intercept_give_it_back():
    plane = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    stored = np.frombuffer(pixels.stored_cu(plane), "<u2").astype(float)
    assert stored[0] > stored[1] > stored[2]
    assert stored * pixels.CU_SLOPE + pixels.CU_INTERCEPT == pytest.approx([0, 0.5, 1.0], abs=2e-5)


def test_what_is_out_of_range_is_clipped_not_wrapped():
    stored = np.frombuffer(pixels.stored_cu(np.array([[-5.0, 5.0]], dtype=np.float32)), "<u2")
    assert list(stored) == [65535, 0]
