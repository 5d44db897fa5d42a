"""What RT Images of patients, acquired and computed, say alike (PS3.3 C.8.8.2): where image plane and machine stood."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_varian.simulator.clinic.case import CaseBeam
from airflow_provider_varian.simulator.objects.beams import jaws
from airflow_provider_varian.simulator.objects.pixels import SAD_MM, Panel

#: An image that belongs to no beam was taken from above.
OVERHEAD: Final = 0.0


def sixteen_bits(panel: Panel, *, centre: float, width: float) -> dict[str, Any]:
    """Return the description of 16 bit pixels and the window in which to show them."""
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": panel.matrix,
        "Columns": panel.matrix,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "WindowCenter": round(centre, 1),
        "WindowWidth": round(width, 1),
    }


def geometry(panel: Panel, beam: CaseBeam | None, *, distance_mm: float, machine: str) -> dict[str, Any]:
    """Return where image and machine stood.

    :param beam: ``None`` for images that belong to none.
    :param distance_mm: RTImageSID, from the source to the plane in which pixel distances are told; the image shows
        the same rays wherever the plane lies.
    :param machine: RadiationMachineName.
    """
    pitch = panel.pitch_mm * distance_mm / (SAD_MM * panel.magnification)
    edge = (panel.matrix - 1) / 2 * pitch
    return {
        "RTImagePlane": "NORMAL",
        "XRayImageReceptorTranslation": [0.0, 0.0, SAD_MM - distance_mm],
        "XRayImageReceptorAngle": 0.0,
        "RTImageOrientation": [1, 0, 0, 0, -1, 0],
        "ImagePlanePixelSpacing": [round(pitch, 6)] * 2,
        "RTImagePosition": [round(-edge, 4), round(edge, 4)],
        "RadiationMachineName": machine,
        "RadiationMachineSAD": SAD_MM,
        "RTImageSID": distance_mm,
        **angles(beam),
        "TableTopVerticalPosition": 0.0,
        "TableTopLongitudinalPosition": 1000.0,
        "TableTopLateralPosition": 0.0,
        "IsocenterPosition": [0.0, 0.0, 0.0],
        "PatientPosition": "HFS",
    }


def angles(beam: CaseBeam | None) -> dict[str, Any]:
    """Return gantry, collimator and couch."""
    return {
        "GantryAngle": float(beam.gantry) if beam else OVERHEAD,
        "BeamLimitingDeviceAngle": float(beam.collimator) if beam else 0.0,
        "PatientSupportAngle": float(beam.couch) if beam else 0.0,
    }


def exposure(beam: CaseBeam | None, kilovolts: float, opening_mm: tuple[float, float]) -> dict[str, Any]:
    """Return an item of the Exposure Sequence.

    :param kilovolts: KVP, 6000 for 6 MV (varian-daemon 1.6).
    :param opening_mm: width and length of the field in the isocentre plane.
    """
    item: dict[str, Any] = {
        "KVP": kilovolts,
        "ExposureTime": 10000.0 if beam else 120.0,
        "BeamLimitingDeviceSequence": [
            {**device, "NumberOfLeafJawPairs": 1} for device in jaws(opening_mm[0] / 2, opening_mm[1] / 2)
        ],
        **angles(beam),
        "NumberOfBlocks": 0,
    }
    return item | ({"MetersetExposure": beam.meterset} if beam else {"XRayTubeCurrent": 80.0})
