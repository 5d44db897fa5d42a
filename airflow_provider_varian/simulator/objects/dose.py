"""RT Doses (PS3.3 A.18): of a whole plan, or of one of its beams, in a patient or a phantom.

The dose of a beam builds up under the skin, falls off exponentially with the depth and by the inverse square of the
distance, within the field of its jaws. The beams of a plan add up to its dose, which is the prescribed one, to a
few per cent, at the isocentre.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case, CaseBeam, Dose, Plan
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.objects import general, projection
from airflow_provider_varian.simulator.objects.anatomy import PHANTOM, Tissue, body_of, tissues_of
from airflow_provider_varian.simulator.objects.deferred import Deferred
from airflow_provider_varian.simulator.objects.pixels import SAD_MM
from airflow_provider_varian.simulator.objects.prescription import prescribed_gy

_VIEW_MM: Final = 400.0
_LENGTH_MM: Final = 240.0
_PENUMBRA_MM: Final = 7.0
#: Share of the open beam that gets past the jaws, or is scattered there.
_SCATTER: Final = 0.02
_ATTENUATION_PER_MM: Final = 0.0046
_BUILD_UP_MM: Final = 5.0
_SURFACE: Final = 0.35
#: The stored value 2**32 stands for this multiple of the prescribed dose: the skin may get more than the target.
_HEADROOM: Final = 16.0

Grid = npt.NDArray[np.float32]


def grid_size(matrix: int) -> tuple[int, int]:
    """Return rows and columns of a dose plane, and the number of planes, for a clinic's ``matrix``."""
    side = max(8, matrix // 10)
    return side, max(4, side // 2)


def dose_values(case: Case, plan: Plan, dose: Dose, matrix: int) -> Mapping[str, Any]:
    """Return SERIES- and IMAGE-level attributes, without pixels.

    :param matrix: rows and columns of the clinic's portal images; a dose plane has a tenth of them.
    """
    side, planes = grid_size(matrix)
    pitch, distance = round(_VIEW_MM / side, 6), round(_LENGTH_MM / planes, 6)
    corner = round(-(side - 1) / 2 * pitch, 4)
    beam = {} if dose.beam is None else _beam_reference(dose.beam)
    ready = {
        **general.made_by_aria(dose, sop_class_uid=uids.RT_DOSE, modality="RTDOSE", made=dose.computed, series="Dose"),
        "ContentDate": general.dicom_date(dose.computed),
        "ContentTime": general.dicom_time(dose.computed),
        "FrameOfReferenceUID": plan.frame_of_reference_uid,
        "PositionReferenceIndicator": None,
        "SliceThickness": distance,
        "ImagePositionPatient": [corner, corner, round(-(planes - 1) / 2 * distance, 4)],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [pitch, pitch],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "NumberOfFrames": planes,
        "FrameIncrementPointer": 0x3004000C,
        "Rows": side,
        "Columns": side,
        "BitsAllocated": 32,
        "BitsStored": 32,
        "HighBit": 31,
        "PixelRepresentation": 0,
        "DoseUnits": "GY",
        "DoseType": "PHYSICAL",
        "DoseSummationType": "PLAN" if dose.beam is None else "BEAM",
        "TissueHeterogeneityCorrection": "IMAGE",
        "DoseGridScaling": _scaling(plan),
        "ReferencedRTPlanSequence": [{**general.plan_reference(plan), **beam}],
    }
    return Deferred(ready, {"GridFrameOffsetVector": partial(_offsets, planes, distance)})


def _offsets(planes: int, distance: float) -> list[float]:
    return [round(index * distance, 4) for index in range(planes)]


def _beam_reference(number: int) -> dict[str, Any]:
    return {
        "ReferencedFractionGroupSequence": [
            {"ReferencedFractionGroupNumber": 1, "ReferencedBeamSequence": [{"ReferencedBeamNumber": number}]}
        ]
    }


def _scaling(plan: Plan) -> float:
    """Gray of a stored 1, to as many digits as DS holds (PS3.5 6.2: 16 bytes)."""
    return float(f"{prescribed_gy(plan) * _HEADROOM / 2**32:.8e}")


def dose_pixels(identity: Identity, case: Case, plan: Plan, dose: Dose, matrix: int) -> bytes:
    """Render a dose: stored 32 bit pixels, little endian, planes x rows x columns.

    :param identity: what the plan is normalised to, as nobody prescribes exactly to the isocentre.
    """
    grid = dose_gy(identity, plan, dose, matrix)
    return bytes(np.rint(grid.astype(np.float64) / _scaling(plan)).clip(0, 2**32 - 1).astype("<u4").tobytes())


def dose_gy(identity: Identity, plan: Plan, dose: Dose, matrix: int) -> Grid:
    """Return the dose in Gy, planes x rows x columns."""
    side, planes = grid_size(matrix)
    pitch, distance = round(_VIEW_MM / side, 6), round(_LENGTH_MM / planes, 6)
    x = y = _axis(side, pitch)
    z = _axis(planes, distance)
    body = body_of(tissues_of(plan.structure_set.regions) if plan.structure_set else PHANTOM)
    origin = np.zeros(1, dtype=np.float32)
    at_isocentre = sum(float(_beam(beam, body, plan, origin, origin, origin)[0, 0, 0]) for beam in plan.beams)
    grid: Grid = np.zeros((planes, side, side), dtype=np.float32)
    if at_isocentre <= 0.0:
        return grid
    normalised = prescribed_gy(plan) * identity.draw("dose", plan.sop_instance_uid).uniform(0.99, 1.04) / at_isocentre
    for beam in plan.beams:
        if dose.beam in (None, beam.number):
            grid += _beam(beam, body, plan, x, y, z) * np.float32(normalised)
    return grid


def _axis(count: int, pitch: float) -> Grid:
    return ((np.arange(count) - (count - 1) / 2) * pitch).astype(np.float32)


def _beam(beam: CaseBeam, body: Tissue, plan: Plan, x: Grid, y: Grid, z: Grid) -> Grid:
    """Dose of a beam, not normalised, at all crossings of three axes, shape (z, y, x)."""
    directions = projection.axes(beam.gantry, beam.couch)
    x, y, z = x[None, None, :], y[None, :, None], z[:, None, None]

    def along(vector: npt.NDArray[np.float64]) -> Grid:
        a, b, c = (np.float32(part) for part in vector)
        grid: Grid = (x * a + y * b) + z * c
        return grid

    nearer = SAD_MM / (SAD_MM - along(directions.to_source))
    across, down = along(directions.across) * nearer, along(directions.along) * nearer
    share = _SCATTER + (1 - _SCATTER) * projection.field(across, down, beam, _PENUMBRA_MM)
    share *= projection.horns(across, down, flattened=plan.flattened)
    depth = _depth(body, directions.to_source, x, y, z)
    inside = np.maximum(depth, 0)
    built_up = 1 - (1 - _SURFACE) * np.exp(inside * np.float32(-1 / _BUILD_UP_MM))
    share *= built_up * np.exp(inside * np.float32(-_ATTENUATION_PER_MM)) * nearer * nearer
    share *= np.float32(beam.meterset)
    # Air gets no dose.
    share[depth < 0] = 0
    return share


def _depth(body: Tissue, to_source: npt.NDArray[np.float64], x: Grid, y: Grid, z: Grid) -> Grid:
    """Way from the skin to a point, millimetres, the rays taken as parallel; negative outside."""
    radii = np.array(body.radii_mm)
    towards = to_source / radii
    square = float(towards @ towards)
    scaled = [
        (axis - np.float32(centre)) / np.float32(radius)
        for axis, centre, radius in zip((x, y, z), body.centre_mm, body.radii_mm, strict=True)
    ]
    half = scaled[0] * np.float32(towards[0]) + scaled[1] * np.float32(towards[1]) + scaled[2] * np.float32(towards[2])
    outside = (scaled[0] ** 2 + scaled[1] ** 2) + scaled[2] ** 2 - 1
    root = np.sqrt(np.maximum(half * half - square * outside, 0))
    depth: Grid = np.where(outside < 0, (root - half) / np.float32(square), np.float32(-1))
    return depth
