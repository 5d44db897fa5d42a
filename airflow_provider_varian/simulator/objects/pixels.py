"""Pixels of synthetic portal images: a Winston-Lutz field with its ball, a picket fence, an open field, strips.

Geometry is a point source at 1000 mm from the isocentre over a flat panel. All shapes are drawn
in the panel's plane, so that what lies in the isocentre plane is magnified by SID/SAD and a ball
off the isocentre is magnified by its own depth. Axes of an image: x to the right, y up (towards
the gantry), both through the beam axis; row 0 is at the top.

Arrays are (rows, columns) float32 in calibrated units (CU, 1.0 = open field) until they are
stored as 16 bit. 1280 x 1280 takes some tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Final

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]
Line = npt.NDArray[np.float64]

SAD_MM: Final = 1000.0
#: Height of the panel below the isocentre adds up to this (varian-daemon 1.6: SID 1540).
SID_MM: Final = 1540.0
#: Side of the panel: 1280 pixels of 0.336 mm, kept when ``matrix`` makes fewer of them.
SIDE_MM: Final = 430.08

#: Stored value = (CU - intercept) / slope; the slope is negative as in ARIA (varian-daemon 1.6).
CU_SLOPE: Final = -0.00002
CU_INTERCEPT: Final = 1.28

_PENUMBRA_MM = 2.6  # standard deviation of the field edge at the isocentre plane, x SID/SAD below
_NOISE_CU = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The imager.

    :param matrix: rows and columns.
    """

    matrix: int = 1280

    @property
    def pitch_mm(self) -> float:
        """Distance of pixel centres on the panel, millimetres."""
        return SIDE_MM / self.matrix

    @property
    def magnification(self) -> float:
        """How much larger the isocentre plane appears on the panel."""
        return SID_MM / SAD_MM

    def axis(self) -> Line:
        """Return the x coordinates of the columns in millimetres on the panel, shape (matrix,)."""
        return (np.arange(self.matrix, dtype=np.float64) - (self.matrix - 1) / 2.0) * self.pitch_mm


def project(point_mm: Sequence[float], source_deg: float) -> tuple[float, float]:
    """Project a point of IEC fixed coordinates onto the panel.

    :param point_mm: x (right), y (to the gantry), z (up), relative to the isocentre.
    :param source_deg: IEC 61217 angle of the source; 0 is overhead.
    :returns: x, y on the panel in millimetres, as the image shows them.
    """
    x, y, z = point_mm
    angle = radians(source_deg)
    across = x * cos(angle) - z * sin(angle)
    towards_source = x * sin(angle) + z * cos(angle)
    magnification = SID_MM / (SAD_MM - towards_source)
    return across * magnification, y * magnification


def winston_lutz(
    panel: Panel,
    *,
    field_mm: float,
    centre_mm: tuple[float, float],
    ball_mm: tuple[float, float],
    ball_diameter_mm: float = 8.0,
    attenuation: float = 0.28,
    noise: np.random.Generator,
) -> Plane:
    """Draw a small square field with a ball in it.

    :param field_mm: side of the field at the isocentre plane.
    :param centre_mm: centre of the field on the panel, x and y.
    :param ball_mm: centre of the ball's shadow on the panel, x and y.
    :param ball_diameter_mm: diameter of the ball itself.
    :param attenuation: share of the beam that the ball takes away along its diameter.
    :param noise: where the noise comes from.
    """
    image = _square(panel, field_mm, centre_mm)
    _cast_ball(image, panel, ball_mm, ball_diameter_mm, attenuation)
    return _noisy(image, noise)


def picket_fence(
    panel: Panel,
    *,
    centre_mm: tuple[float, float],
    field_mm: float,
    leaf_error_mm: Sequence[float],
    leaf_width_mm: float = 5.0,
    pickets: int = 10,
    spacing_mm: float = 15.0,
    gap_mm: float = 3.0,
    noise: np.random.Generator,
) -> Plane:
    """Draw vertical strips that each leaf pair irradiates in turn.

    :param centre_mm: shift of the whole fence on the panel.
    :param field_mm: length of the strips at the isocentre plane.
    :param leaf_error_mm: shift of each leaf pair's gap at the isocentre plane, from the lowest y up.
    :param leaf_width_mm: width of a leaf at the isocentre plane.
    :param pickets: number of strips.
    :param spacing_mm: distance of neighbouring strips at the isocentre plane.
    :param gap_mm: width of a strip at the isocentre plane.
    :param noise: where the noise comes from.
    """
    axis = panel.axis()
    iso_x = (axis - centre_mm[0]) / panel.magnification
    centres = (np.arange(pickets) - (pickets - 1) / 2.0) * spacing_mm
    errors = np.asarray(leaf_error_mm)
    # One profile per leaf pair, then each row takes the profile of the leaf that it lies under.
    offsets = iso_x[None, None, :] - centres[None, :, None] - errors[:, None, None]
    profiles = np.zeros((len(errors), panel.matrix))
    for strip in range(pickets):
        profiles += _slit(offsets[:, strip, :], gap_mm, 1.1)
    iso_y = (-axis - centre_mm[1]) / panel.magnification
    leaf = np.clip(np.floor(iso_y / leaf_width_mm) + len(errors) // 2, 0, len(errors) - 1).astype(int)
    jaws = _slit(iso_y, field_mm, _PENUMBRA_MM / 2)
    image = (0.02 + 0.62 * profiles)[leaf] * (0.01 + 0.99 * jaws)[:, None]
    return _noisy(image.astype(np.float32), noise)


def open_field(
    panel: Panel,
    *,
    field_mm: float,
    centre_mm: tuple[float, float],
    flattened: bool,
    output: float = 1.0,
    noise: np.random.Generator,
) -> Plane:
    """Draw a square open field: slightly horned when flattened, peaked when not.

    :param field_mm: side of the field at the isocentre plane.
    :param centre_mm: centre of the field on the panel.
    :param flattened: whether the beam passes a flattening filter.
    :param output: output relative to reference.
    :param noise: where the noise comes from.
    """
    image = _square(panel, field_mm, centre_mm)
    image *= (output * _beam_profile(panel, flattened)).astype(np.float32)
    return _noisy(image, noise)


def strips(
    panel: Panel,
    *,
    field_mm: float,
    centre_mm: tuple[float, float],
    strips_mm: Sequence[float],
    width_mm: float,
    dose: Sequence[float],
    flattened: bool,
    output: float = 1.0,
    noise: np.random.Generator,
) -> Plane:
    """Draw the vertical strips of a VMAT test, in the beam of :func:`open_field`.

    :param field_mm: length of the strips at the isocentre plane.
    :param centre_mm: centre of the field on the panel.
    :param strips_mm: centres of the strips at the isocentre plane.
    :param width_mm: their width at the isocentre plane.
    :param dose: dose to each strip relative to that of the open field.
    :param flattened: whether the beam passes a flattening filter.
    :param output: output relative to reference.
    :param noise: where the noise comes from.
    """
    axis = panel.axis()
    iso_x = (axis - centre_mm[0]) / panel.magnification
    iso_y = (-axis - centre_mm[1]) / panel.magnification
    blur = _PENUMBRA_MM / 2
    across = sum(each * _slit(iso_x - x, width_mm, blur) for x, each in zip(strips_mm, dose, strict=True))
    image = 0.012 + 0.988 * np.outer(_slit(iso_y, field_mm, blur), across)
    return _noisy((image * (output * _beam_profile(panel, flattened))).astype(np.float32), noise)


def _beam_profile(panel: Panel, flattened: bool) -> Line:
    radius = (panel.axis() / panel.magnification / 100.0) ** 2  # (distance / 100 mm)^2 along one axis
    # exp(a r^2) is separable, which keeps this an outer product.
    rise = np.exp(0.025 * radius) if flattened else np.exp(-0.28 * radius)
    return np.outer(rise, rise)


def kv_ball(
    panel: Panel,
    *,
    field_mm: float,
    ball_mm: tuple[float, float],
    ball_diameter_mm: float = 8.0,
    noise: np.random.Generator,
) -> Plane:
    """Draw a kV radiograph of the ball in a wide collimated field."""
    image = _square(panel, field_mm, (0.0, 0.0), blur_mm=0.6)
    _cast_ball(image, panel, ball_mm, ball_diameter_mm, 0.85)
    return _noisy(image, noise, 0.006)


def stored_cu(image: Plane) -> bytes:
    """Turn calibrated units into stored 16 bit pixels, little endian: more dose, lower value."""
    stored = np.rint((image - np.float32(CU_INTERCEPT)) * np.float32(1.0 / CU_SLOPE))
    return _sixteen_bit(stored)


def stored_kv(image: Plane) -> bytes:
    """Turn a kV transmission image into stored 16 bit pixels, little endian."""
    return _sixteen_bit(np.rint(image * np.float32(42000.0) + np.float32(900.0)))


def _sixteen_bit(stored: Plane) -> bytes:
    return bytes(np.clip(stored, 0, 65535).astype("<u2").tobytes())


def _edge(distance: Line, blur_mm: float) -> Line:
    """Return the share of beam at a signed distance inside an edge: a normal penumbra."""
    # tanh is within 1 % of the error function at this scale and needs no further library.
    return 0.5 + 0.5 * np.tanh(distance * (1.1283791670955126 / (blur_mm * 1.4142135623730951)))


def _slit(offset: Line, width_mm: float, blur_mm: float) -> Line:
    return _edge(width_mm / 2 + offset, blur_mm) + _edge(width_mm / 2 - offset, blur_mm) - 1.0


def _square(panel: Panel, side_mm: float, centre_mm: tuple[float, float], blur_mm: float = _PENUMBRA_MM / 2) -> Plane:
    axis = panel.axis()
    side, blur = side_mm * panel.magnification, blur_mm * panel.magnification
    across = _slit(axis - centre_mm[0], side, blur)
    along = _slit(-axis - centre_mm[1], side, blur)
    image: Plane = (0.012 + 0.988 * np.outer(along, across)).astype(np.float32)
    return image


def _cast_ball(
    image: Plane, panel: Panel, centre_mm: tuple[float, float], diameter_mm: float, attenuation: float
) -> None:
    """Darken the image by a ball's shadow, in place; only the pixels under it are touched."""
    radius = diameter_mm / 2 * panel.magnification
    blur = 0.8 * panel.magnification
    reach = radius + 3 * blur
    axis = panel.axis()
    columns = np.nonzero(np.abs(axis - centre_mm[0]) <= reach)[0]
    rows = np.nonzero(np.abs(-axis - centre_mm[1]) <= reach)[0]
    if not len(columns) or not len(rows):
        return
    dx = axis[columns] - centre_mm[0]
    dy = -axis[rows] - centre_mm[1]
    distance = np.hypot(dx[None, :], dy[:, None])
    # Path through a ball, its edge softened by the size of the source.
    depth = np.sqrt(np.clip(1.0 - (distance / radius) ** 2, 0.0, None))
    shadow = 0.35 * depth + 0.65 * _edge(radius - distance, blur / 2)
    image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] *= (1.0 - attenuation * shadow).astype(np.float32)


def _noisy(image: Plane, noise: np.random.Generator, level: float = _NOISE_CU) -> Plane:
    image += noise.standard_normal(image.shape, dtype=np.float32) * np.float32(level)
    return image
