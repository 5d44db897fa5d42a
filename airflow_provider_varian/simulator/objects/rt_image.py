"""RT Images (PS3.3 A.17) as ARIA exports them (varian-daemon 1.6), MV and kV alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.clinic.linacs import PORTAL, Exercise, QAPlan
from airflow_provider_varian.simulator.clinic.sessions import Exposure, Session, Truth, truth
from airflow_provider_varian.simulator.objects import pixels
from airflow_provider_varian.simulator.objects.machine import imager
from airflow_provider_varian.simulator.objects.receptor import sixteen_bits

_RECEPTOR_TRANSLATION: Final = [0.0, 0.0, -(pixels.SID_MM - pixels.SAD_MM)]
_KV_FIELD_MM: Final = 150.0
_BALL_MM: Final = 8.0


def image_values(session: Session, exposure: Exposure, panel: pixels.Panel, plan_uid: str) -> dict[str, Any]:
    """Return the IMAGE-level attributes of one exposure, without identity and pixels.

    :param plan_uid: SOP Instance UID of the plan that it was made with.
    """
    date, time = dicom_date(exposure), dicom_time(exposure)
    return {
        "ImageType": list(PORTAL if exposure.is_kv else session.plan.image_type),
        "AcquisitionDate": date,
        "ContentDate": date,
        "AcquisitionTime": time,
        "ContentTime": time,
        "ConversionType": "DI",
        # varian-daemon 1.6: both may be empty. kV images are numbered, MV images are not.
        "InstanceNumber": exposure.number if exposure.is_kv else None,
        "PatientOrientation": None,
        **_pixel_description(panel, exposure.is_kv),
        **_geometry(session, exposure, panel),
        **_labels(session, exposure),
        **_references(exposure, plan_uid),
    }


def _pixel_description(panel: pixels.Panel, is_kv: bool) -> dict[str, Any]:
    slope, intercept = (1.0, 0.0) if is_kv else (pixels.CU_SLOPE, pixels.CU_INTERCEPT)
    return {
        **sixteen_bits(panel, centre=22000.0 if is_kv else 40000.0, width=44000.0 if is_kv else 51000.0),
        "RescaleIntercept": intercept,
        "RescaleSlope": slope,
        "RescaleType": "US" if is_kv else "CU",
    }


def _geometry(session: Session, exposure: Exposure, panel: pixels.Panel) -> dict[str, Any]:
    edge = (panel.matrix - 1) / 2 * panel.pitch_mm
    beam = exposure.beam
    return {
        "ReportedValuesOrigin": "ACTUAL",
        "RTImagePlane": "NORMAL",
        "XRayImageReceptorTranslation": _RECEPTOR_TRANSLATION,
        "XRayImageReceptorAngle": 0.0,
        "RTImageOrientation": [1, 0, 0, 0, -1, 0],
        "ImagePlanePixelSpacing": [round(panel.pitch_mm, 6)] * 2,
        "RTImagePosition": [round(-edge, 4), round(edge, 4)],
        "RadiationMachineName": session.linac.name,
        "RadiationMachineSAD": pixels.SAD_MM,
        "RTImageSID": pixels.SID_MM,
        "PrimaryDosimeterUnit": "MINUTE" if exposure.is_kv else "MU",
        "GantryAngle": exposure.gantry,
        "BeamLimitingDeviceAngle": beam.collimator if beam else 0.0,
        "PatientSupportAngle": beam.couch if beam else 0.0,
        "TableTopVerticalPosition": 0.0,
        "TableTopLongitudinalPosition": 1000.0,
        "TableTopLateralPosition": 0.0,
        "IsocenterPosition": [0.0, 0.0, 0.0],
        "PatientPosition": "HFS",
        "ExposureSequence": [_exposure(session.plan, exposure)],
    }


def _exposure(plan: QAPlan, exposure: Exposure) -> dict[str, Any]:
    beam = exposure.beam
    half = (plan.field_mm if beam else _KV_FIELD_MM) / 2
    item: dict[str, Any] = {
        # PS3.3 C.8.8.2: kilovolts for both, 6 MV is 6000 (varian-daemon 1.6).
        "KVP": plan.energy * 1000.0 if beam else 100.0,
        "ExposureTime": 10000.0 if beam else 120.0,
        "BeamLimitingDeviceSequence": [
            {"RTBeamLimitingDeviceType": device, "NumberOfLeafJawPairs": 1, "LeafJawPositions": [-half, half]}
            for device in ("ASYMX", "ASYMY")
        ],
        "GantryAngle": exposure.gantry,
        "BeamLimitingDeviceAngle": beam.collimator if beam else 0.0,
        "PatientSupportAngle": beam.couch if beam else 0.0,
        "NumberOfBlocks": 0,
    }
    if beam:
        item["MetersetExposure"] = beam.meterset
    else:
        item["XRayTubeCurrent"] = 80.0
    return item


def _labels(session: Session, exposure: Exposure) -> dict[str, Any]:
    plan, beam = session.plan, exposure.beam
    if beam is None:
        name = f"kV G{exposure.gantry:.0f}"
        text = "kV single exposure, 100 kV, 80 mA, half fan none; dark field and gain corrected"
    else:
        name = beam.name
        rate = 600 if plan.flattened else 1400
        text = f"{plan.energy_name}, {rate} MU/min, integrated image, averaged frames 18; dark field and gain corrected"
    return {
        "RTImageLabel": f"{exposure.number:02d}:{name}"[:16],
        "RTImageName": plan.label,
        "RTImageDescription": text,
    }


def _references(exposure: Exposure, plan_uid: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "ReferencedRTPlanSequence": [
            {"ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.481.5", "ReferencedSOPInstanceUID": plan_uid}
        ],
        "ReferencedFractionGroupNumber": 1,
        "FractionNumber": 1,
    }
    if exposure.beam is not None:
        values["ReferencedBeamNumber"] = exposure.beam.number
    return values


def pixel_data(identity: Identity, session: Session, exposure: Exposure, panel: pixels.Panel) -> bytes:
    """Render one exposure: stored 16 bit pixels, little endian, rows x columns."""
    facts = truth(identity, session.linac, session.plan, session.day)
    key = identity.number("noise", session.linac.name, session.plan.label, session.day, exposure.number)
    noise = np.random.Generator(np.random.SFC64(key))
    if exposure.is_kv:
        ball = pixels.project(facts.ball_mm, exposure.source)
        image = pixels.kv_ball(panel, field_mm=_KV_FIELD_MM, ball_mm=ball, ball_diameter_mm=_BALL_MM, noise=noise)
        return pixels.stored_kv(image)
    return pixels.stored_cu(_RENDER[session.plan.exercise](session.plan, exposure, panel, facts, noise))


def _field_centre(exposure: Exposure, panel: pixels.Panel, facts: Truth) -> tuple[float, float]:
    """Centre of the field on the panel: the collimator's offset turns with it, the sag is of the gantry."""
    angle = np.deg2rad(exposure.beam.collimator if exposure.beam else 0.0)
    x, y = facts.field_mm
    turned_x = x * np.cos(angle) - y * np.sin(angle)
    turned_y = x * np.sin(angle) + y * np.cos(angle)
    sag = facts.sag_mm * (1.5 - 0.5 * np.cos(np.deg2rad(exposure.gantry)))
    return float(turned_x * panel.magnification), float((turned_y + sag) * panel.magnification)


def _winston_lutz(
    plan: QAPlan, exposure: Exposure, panel: pixels.Panel, facts: Truth, noise: np.random.Generator
) -> pixels.Plane:
    couch = np.deg2rad(exposure.beam.couch if exposure.beam else 0.0)
    x, y, z = facts.ball_mm
    # The couch turns about z and takes the ball with it.
    turned = (float(x * np.cos(couch) - y * np.sin(couch)), float(x * np.sin(couch) + y * np.cos(couch)), z)
    return pixels.winston_lutz(
        panel,
        field_mm=plan.field_mm,
        centre_mm=_field_centre(exposure, panel, facts),
        ball_mm=pixels.project(turned, exposure.source),
        ball_diameter_mm=_BALL_MM,
        noise=noise,
    )


def _picket_fence(
    plan: QAPlan, exposure: Exposure, panel: pixels.Panel, facts: Truth, noise: np.random.Generator
) -> pixels.Plane:
    return pixels.picket_fence(
        panel,
        centre_mm=_field_centre(exposure, panel, facts),
        field_mm=plan.field_mm,
        leaf_error_mm=facts.leaf_error_mm,
        noise=noise,
    )


def _open_field(
    plan: QAPlan, exposure: Exposure, panel: pixels.Panel, facts: Truth, noise: np.random.Generator
) -> pixels.Plane:
    return pixels.open_field(
        panel,
        field_mm=plan.field_mm,
        centre_mm=_field_centre(exposure, panel, facts),
        flattened=plan.flattened,
        output=facts.output,
        noise=noise,
    )


def _vmat(
    plan: QAPlan, exposure: Exposure, panel: pixels.Panel, facts: Truth, noise: np.random.Generator
) -> pixels.Plane:
    beam = exposure.beam
    if beam is None or not beam.turns:
        return _open_field(plan, exposure, panel, facts, noise)
    # 100 MU are 1 CU. Each strip has its share of them, and sees half of that: plan.py sweeps the leaves so.
    share = beam.meterset / 100.0 / len(plan.strips_mm) / 2.0
    return pixels.strips(
        panel,
        field_mm=plan.field_mm,
        centre_mm=_field_centre(exposure, panel, facts),
        strips_mm=plan.strips_mm,
        width_mm=plan.strip_width_mm,
        dose=[share * (1.0 + percent / 100.0) for percent in facts.strip_deviation_percent],
        flattened=plan.flattened,
        output=facts.output,
        noise=noise,
    )


_RENDER: Final = {
    Exercise.WINSTON_LUTZ: _winston_lutz,
    Exercise.PICKET_FENCE: _picket_fence,
    Exercise.OPEN_FIELD: _open_field,
    Exercise.DOSE_RATE_GANTRY_SPEED: _vmat,
    Exercise.DOSE_RATE_LEAF_SPEED: _vmat,
}


def dicom_date(exposure: Exposure) -> str:
    """Return the acquisition date as DA."""
    return exposure.acquired.strftime("%Y%m%d")


def dicom_time(exposure: Exposure) -> str:
    """Return the acquisition time as TM with a fraction, e.g. ``064307.643000``."""
    return exposure.acquired.strftime("%H%M%S.%f")


def series_values(session: Session) -> Mapping[str, Any]:
    """Return the SERIES-level attributes of a session, identity aside."""
    first = session.exposures[0]
    return {
        "Modality": "RTIMAGE",
        "SeriesDate": dicom_date(first),
        "SeriesTime": dicom_time(first),
        "SeriesNumber": None,
        "SeriesDescription": "MV_kV" if session.plan.kv_gantry else "MV",
        **imager(session.linac.name),
    }
