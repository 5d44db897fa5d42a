"""CT images (PS3.3 A.3): planning CTs of a scanner, and CBCTs of a linac's imager (varian-daemon 1.5).

Slices are transverse, the patient lies head first and supine. A field of view has a fixed size in millimetres,
whatever the matrix, and is centred on the isocentre of the frame of reference, as is the stack of slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case, ImageKind, ImageSeries
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.objects import general
from airflow_provider_varian.simulator.objects.anatomy import AIR_HU, Tissue, body_of, tissues_in
from airflow_provider_varian.simulator.objects.machine import imager

_RESCALE_INTERCEPT: Final = -1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """How a kind of series is scanned.

    :param view_mm: side of the field of view.
    :param noise_shift: noise has a standard deviation of about 104 HU / 2 ** shift.
    """

    view_mm: float
    noise_shift: int
    kvp: float
    current_ma: int
    exposure_ms: int
    kernel: str


_SCANS: Final = {
    ImageKind.PLANNING_CT: _Scan(
        view_mm=500.0, noise_shift=3, kvp=120.0, current_ma=210, exposure_ms=1000, kernel="B30s"
    ),
    ImageKind.CBCT: _Scan(view_mm=465.0, noise_shift=1, kvp=125.0, current_ma=80, exposure_ms=13, kernel="Standard"),
}
_COUCH_MM: Final = (265.0, 22.0)  # half its width, and its thickness
_COUCH_HU: Final = (-150, -880)  # skin and foam


def rows(matrix: int) -> int:
    """Return rows and columns of a slice in a clinic whose portal images have ``matrix`` of them."""
    return max(16, matrix * 2 // 5)


def slice_positions_mm(series: ImageSeries) -> tuple[float, ...]:
    """Return z of the slices in their frame of reference, feet to head."""
    middle = (len(series.instance_uids) - 1) / 2
    return tuple(round((index - middle) * series.slice_mm, 4) for index in range(len(series.instance_uids)))


def pixel_mm(series: ImageSeries, matrix: int) -> float:
    """Return the distance of pixel centres."""
    return round(_SCANS[series.kind].view_mm / rows(matrix), 8)


def ct_values(case: Case, series: ImageSeries, index: int, matrix: int) -> Mapping[str, Any]:
    """Return SERIES- and IMAGE-level attributes of a slice, without pixels.

    :param index: of the slice, from the feet, from 0.
    :param matrix: rows and columns of the clinic's portal images; a slice has two fifths of them.
    """
    scan, side, pitch = _SCANS[series.kind], rows(matrix), pixel_mm(series, matrix)
    date, time = general.dicom_date(series.acquired), general.dicom_time(series.acquired)
    z = round((index - (len(series.instance_uids) - 1) / 2) * series.slice_mm, 4)
    corner = round(-(side - 1) / 2 * pitch, 6)
    return {
        **general.instance(
            sop_class_uid=uids.CT_IMAGE,
            sop_instance_uid=series.instance_uids[index],
            series_uid=series.series_uid,
            modality="CT",
            made=series.acquired,
            series=series.description,
        ),
        **_made_by(series),
        # PS3.3 C.7.3.1: empty, since nothing says of which body part the images are.
        "Laterality": None,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "AcquisitionDate": date,
        "AcquisitionTime": time,
        "ContentDate": date,
        "ContentTime": time,
        "AcquisitionNumber": 1,
        "InstanceNumber": index + 1,
        "PatientPosition": "HFS",
        "KVP": scan.kvp,
        "XRayTubeCurrent": scan.current_ma,
        "ExposureTime": scan.exposure_ms,
        "ConvolutionKernel": scan.kernel,
        "DataCollectionDiameter": scan.view_mm,
        "ReconstructionDiameter": scan.view_mm,
        "FrameOfReferenceUID": series.frame_of_reference_uid,
        "PositionReferenceIndicator": None,
        "SliceThickness": series.slice_mm,
        "SliceLocation": z,
        "ImagePositionPatient": [corner, corner, z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [pitch, pitch],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": side,
        "Columns": side,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "WindowCenter": 40.0,
        "WindowWidth": 400.0,
        "RescaleIntercept": _RESCALE_INTERCEPT,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        **_plan(series),
    }


def _made_by(series: ImageSeries) -> dict[str, Any]:
    if series.kind is ImageKind.CBCT:
        return imager(series.machine)
    return {
        "Manufacturer": "Synthetic",
        "ManufacturerModelName": "Large Bore CT",
        "SoftwareVersions": "1.0",
        "StationName": series.machine,
    }


def _plan(series: ImageSeries) -> dict[str, Any]:
    """The plan that a CBCT was made for; the purpose is of PS3.16 CID 7022, as PS3.3 C.12.4 demands one."""
    if series.plan is None:
        return {}
    purpose = {
        "CodeValue": "121310",
        "CodingSchemeDesignator": "DCM",
        "CodeMeaning": "RT treatment plan for the position being verified",
    }
    return {
        "ReferencedInstanceSequence": [
            {**general.plan_reference(series.plan), "PurposeOfReferenceCodeSequence": [purpose]}
        ]
    }


def ct_pixels(identity: Identity, case: Case, series: ImageSeries, index: int, matrix: int) -> bytes:
    """Render a slice: stored 16 bit pixels, little endian, rows x columns.

    :param identity: where the noise comes from.
    """
    scan, side = _SCANS[series.kind], rows(matrix)
    tissues = tissues_in(case, series.frame_of_reference_uid)
    z = slice_positions_mm(series)[index]
    image = np.full((side, side), AIR_HU, dtype=np.int16)
    axis = _axis(side, pixel_mm(series, matrix))
    _lay_on_couch(image, axis, body_of(tissues))
    for tissue in tissues:
        _cut(image, axis, tissue, z)
    image += _noise(identity.number("ct", series.instance_uids[index]), side, scan.noise_shift)
    if series.kind is ImageKind.CBCT:
        # What the cone never saw is air.
        image[_outside(side)] = AIR_HU
    image -= np.int16(_RESCALE_INTERCEPT)
    np.maximum(image, 0, out=image)
    return bytes(image.astype("<i2", copy=False).tobytes())


def _axis(side: int, pitch: float) -> npt.NDArray[np.float32]:
    return ((np.arange(side) - (side - 1) / 2) * pitch).astype(np.float32)


def _cut(image: npt.NDArray[np.int16], axis: npt.NDArray[np.float32], tissue: Tissue, z: float) -> None:
    """Fill the ellipse in which a slice cuts a tissue; only the pixels around it are touched."""
    share = 1.0 - ((z - tissue.centre_mm[2]) / tissue.radii_mm[2]) ** 2
    if share <= 0.0:
        return
    spans = []
    for centre, radius in zip(tissue.centre_mm[:2], tissue.radii_mm[:2], strict=True):
        reach = radius * share**0.5
        first, last = np.searchsorted(axis, (centre - reach, centre + reach))
        spans.append((slice(first, last), ((axis[first:last] - centre) / radius) ** 2))
    (columns, across), (lines, deep) = spans
    inside = across[None, :] + deep[:, None] <= share
    np.copyto(image[lines, columns], np.int16(tissue.hounsfield), where=inside)


def _lay_on_couch(image: npt.NDArray[np.int16], axis: npt.NDArray[np.float32], body: Tissue) -> None:
    half, thickness = _COUCH_MM
    top = body.centre_mm[1] + body.radii_mm[1] + 1.0
    left, right = np.searchsorted(axis, (body.centre_mm[0] - half, body.centre_mm[0] + half))
    for skin, hounsfield in zip((0.0, 2.0), _COUCH_HU, strict=True):
        first, last = np.searchsorted(axis, (top + skin, top + thickness - skin))
        image[first:last, left:right] = hounsfield


def _noise(seed: int, side: int, shift: int) -> npt.NDArray[np.int16]:
    """Return triangular noise, the sum of two bytes: a normal deviate would cost more than the slice itself."""
    draws = np.random.SFC64(seed).random_raw(-(-side * side // 4))
    dice = draws.view(np.uint8)[: 2 * side * side].reshape(2, side, side)
    noise: npt.NDArray[np.int16] = (dice[0].astype(np.int16) + dice[1] - 255) >> shift
    return noise


@lru_cache(maxsize=8)
def _outside(side: int) -> npt.NDArray[np.bool_]:
    axis = (np.arange(side) - (side - 1) / 2) ** 2
    mask: npt.NDArray[np.bool_] = axis[None, :] + axis[:, None] > (side / 2) ** 2
    mask.setflags(write=False)
    return mask
