"""A beam over a patient: the way of its rays through tissue, and the field that its jaws leave open.

Rays start at a point source, as in :mod:`.pixels`. A place in a beam is told by where its ray meets the isocentre
plane: *across* to the right in the image, *along* towards the gantry, both millimetres.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
import numpy.typing as npt

from airflow_provider_varian.simulator.clinic.case import CaseBeam
from airflow_provider_varian.simulator.objects.anatomy import Tissue
from airflow_provider_varian.simulator.objects.pixels import SAD_MM, Panel, Plane

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """A beam's own directions in patient coordinates, as unit vectors."""

    across: Vector
    along: Vector
    to_source: Vector


def axes(gantry: float, couch: float) -> Axes:
    """Return the directions of a beam for a patient head first and supine (IEC 61217).

    :param gantry: angle of the source, degrees; 0 is overhead.
    :param couch: patient support angle, degrees; the couch takes the patient with it.
    """
    angle = radians(gantry)
    fixed = (
        (cos(angle), 0.0, -sin(angle)),
        (0.0, 1.0, 0.0),
        (sin(angle), 0.0, cos(angle)),
    )
    across, along, to_source = (_to_patient(vector, radians(couch)) for vector in fixed)
    return Axes(across=across, along=along, to_source=to_source)


def _to_patient(fixed: tuple[float, float, float], couch: float) -> Vector:
    """Turn IEC fixed coordinates (right, gantry, up) into the patient's (left, posterior, head)."""
    x, y, z = fixed
    turned_x = x * cos(couch) + y * sin(couch)
    turned_y = -x * sin(couch) + y * cos(couch)
    return np.array((turned_x, -z, turned_y))


def field(across: Plane, along: Plane, beam: CaseBeam, blur_mm: float) -> Plane:
    """Return the share of the beam that the jaws leave, between 0 and 1.

    :param across, along: places in the isocentre plane; they are broadcast against each other.
    :param blur_mm: width of the penumbra.
    """
    turn = radians(beam.collimator)
    u = across * np.float32(cos(turn)) + along * np.float32(sin(turn))
    v = along * np.float32(cos(turn)) - across * np.float32(sin(turn))
    return _slit(u, beam.width_mm, blur_mm) * _slit(v, beam.length_mm, blur_mm)


def _slit(offset: Plane, width_mm: float, blur_mm: float) -> Plane:
    """A logistic edge on either side."""
    with np.errstate(over="ignore"):
        inside = np.float32(width_mm / 2) - np.abs(offset)
        edge: Plane = 1 / (1 + np.exp(inside * np.float32(-4.0 / blur_mm)))
    return edge


def horns(across: Plane, along: Plane, *, flattened: bool) -> Plane:
    """Return the profile of the open beam: slightly horned when flattened, peaked when not."""
    radius = (across / 100) ** 2 + (along / 100) ** 2
    profile: Plane = np.exp(radius * np.float32(0.025 if flattened else -0.28))
    return profile


def shadow(panel: Panel, tissues: Iterable[tuple[Tissue, float]], gantry: float, couch: float) -> Plane:
    """Add up the way of each pixel's ray through tissues, each weighted.

    :param tissues: with the weight of a millimetre in each.
    :returns: (matrix, matrix), row 0 at the top, in millimetres times weight.
    """
    directions = axes(gantry, couch)
    place = panel.axis() / panel.magnification
    image = np.zeros((panel.matrix, panel.matrix), dtype=np.float32)
    for tissue, weight in tissues:
        centre = np.array(tissue.centre_mm)
        height = SAD_MM - float(centre @ directions.to_source)
        # A bound on the shadow; the chords tell exactly.
        reach = 1.02 * SAD_MM * max(tissue.radii_mm) / max(height - max(tissue.radii_mm), 0.2 * SAD_MM)
        columns = _near(place, float(centre @ directions.across) * SAD_MM / height, reach)
        lines = _near(-place, float(centre @ directions.along) * SAD_MM / height, reach)
        chord = _chords(place[columns], -place[lines], tissue, directions)
        image[lines, columns] += chord * np.float32(weight)
    return image


def _near(axis: Vector, centre: float, reach: float) -> slice:
    found = np.nonzero(np.abs(axis - centre) <= reach)[0]
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _chords(across: Vector, along: Vector, tissue: Tissue, directions: Axes) -> Plane:
    """Length of each ray inside an ellipsoid: the ray is put into the space in which it is the unit ball."""
    radii = np.array(tissue.radii_mm)
    source = (SAD_MM * directions.to_source - np.array(tissue.centre_mm)) / radii
    e, f, n = (each / radii for each in (directions.across, directions.along, -SAD_MM * directions.to_source))
    a, b = across[None, :], along[:, None]
    # |source + t (a e + b f + n)| = 1, a quadratic in t whose coefficients are quadratic in a and b.
    square = (a * a * (e @ e) + 2 * a * (e @ n)) + (b * b * (f @ f) + 2 * b * (f @ n) + n @ n) + (a * b) * (2 * (e @ f))
    half = a * (source @ e) + (b * (source @ f) + source @ n)
    inside = np.maximum(half * half - square * (source @ source - 1.0), 0.0)
    length = np.sqrt(a * a + (b * b + SAD_MM**2))
    chord: Plane = (2.0 * np.sqrt(inside) / square * length).astype(np.float32)
    return chord
