"""RT Images of patients (PS3.3 A.17): portal images and portal dose, acquired and predicted, and setup images.

Portal dose is measured without a patient: the field of the beam. An acquired one differs from the predicted one by
noise and by what a delivery is off, which is the same for all images of a beam (:func:`delivery`). Other images of a
beam show the patient in its field, and images of no beam are kV images of him from above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case, CaseBeam, Plan, PortalImage
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.objects import general, pixels, projection, receptor
from airflow_provider_varian.simulator.objects.anatomy import PHANTOM, Tissue, tissues_of
from airflow_provider_varian.simulator.objects.machine import imager
from airflow_provider_varian.simulator.objects.pixels import Panel, Plane

_KV_FIELD_MM: Final = 260.0
#: Linear attenuation of water, per millimetre: at 6 MV, and at 100 kV with the scatter that reaches the panel.
_MV_PER_MM: Final = 0.0046
_KV_PER_MM: Final = 0.011
_PENUMBRA_MM: Final = 3.0
_LEAKAGE: Final = 0.012
_NOISE_CU: Final = 0.004
_NOISE_KV: Final = 0.004
_KEPT_CU: Final = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the delivery of a beam was off.

    :param shift_mm: of the field in the isocentre plane, to the right and towards the gantry in the image.
    :param output: dose relative to the predicted one, about 1.
    """

    shift_mm: tuple[float, float]
    output: float


def delivery(identity: Identity, case: Case, beam: CaseBeam) -> Delivery:
    """Return what the deliveries of a beam are off."""
    chance = identity.draw("delivery", case.number, beam.number, beam.name)
    return Delivery(shift_mm=(chance.gauss(0.0, 0.4), chance.gauss(0.0, 0.4)), output=1.0 + chance.gauss(0.0, 0.008))


def is_dose(image: PortalImage) -> bool:
    """Say whether an image is portal dose."""
    return any(value.endswith("_DOSE") for value in image.image_type)


def is_predicted(image: PortalImage) -> bool:
    """Say whether the planning system computed an image."""
    return image.image_type[0] == "DERIVED"


def portal_values(case: Case, plan: Plan | None, image: PortalImage, panel: Panel) -> Mapping[str, Any]:
    """Return SERIES- and IMAGE-level attributes, without pixels.

    :param plan: that the image was made for; ``None`` when it names none.
    """
    date, time = general.dicom_date(image.acquired), general.dicom_time(image.acquired)
    beam = image.beam
    return {
        **general.instance(
            sop_class_uid=uids.RT_IMAGE,
            sop_instance_uid=image.sop_instance_uid,
            series_uid=image.series_uid,
            modality="RTIMAGE",
            made=image.acquired,
            series="Predicted" if is_predicted(image) else "MV" if beam else "kV",
        ),
        **(general.ARIA if is_predicted(image) else imager(image.machine)),
        "ImageType": list(image.image_type),
        "AcquisitionDate": date,
        "ContentDate": date,
        "AcquisitionTime": time,
        "ContentTime": time,
        "ConversionType": "WSD" if is_predicted(image) else "DI",
        # varian-daemon 1.6: both may be empty.
        "InstanceNumber": None,
        "PatientOrientation": None,
        **({"FrameOfReferenceUID": plan.frame_of_reference_uid, "PositionReferenceIndicator": None} if plan else {}),
        **_pixel_description(image, panel),
        "RTImageLabel": image.label,
        "RTImageName": plan.label if plan else None,
        "RTImageDescription": _description(plan, image),
        "ReportedValuesOrigin": "PLAN" if is_predicted(image) else "ACTUAL",
        **receptor.geometry(panel, beam, distance_mm=pixels.SID_MM, machine=image.machine),
        "PrimaryDosimeterUnit": "MU" if beam else "MINUTE",
        "ExposureSequence": [_exposure(plan, image)],
        **_references(image),
    }


def _pixel_description(image: PortalImage, panel: Panel) -> dict[str, Any]:
    if image.beam is None:
        return {
            **receptor.sixteen_bits(panel, centre=22000.0, width=44000.0),
            "RescaleIntercept": 0.0,
            "RescaleSlope": 1.0,
            "RescaleType": "US",
        }
    slope, intercept = _rescale(image.beam)
    return {
        # PS3.3 C.11.2.1.2.1: a window is no narrower than 1.
        **receptor.sixteen_bits(panel, centre=intercept / 2, width=max(1.0, intercept)),
        "RescaleIntercept": intercept,
        "RescaleSlope": slope,
        "RescaleType": "CU",
    }


def _rescale(beam: CaseBeam) -> tuple[float, float]:
    """Slope and intercept: 1 CU is the dose of 100 MU of an open beam; the slope is negative (varian-daemon 1.6)."""
    intercept = round(_KEPT_CU * max(beam.meterset, 1.0) / 100, 6)
    return float(f"{-intercept / 65535:.8e}"), intercept


def _description(plan: Plan | None, image: PortalImage) -> str:
    if is_predicted(image):
        return "Predicted portal dose at the imager, no patient"
    if image.beam is None or plan is None:
        return "kV single exposure, 100 kV, 80 mA; dark field and gain corrected"
    energy = f"{plan.energy}X" if plan.flattened else f"{plan.energy}X-FFF"
    return f"{energy}, {image.beam.meterset:g} MU, integrated image; dark field and gain corrected"


def _exposure(plan: Plan | None, image: PortalImage) -> dict[str, Any]:
    if image.beam is None:
        return receptor.exposure(None, 100.0, (_KV_FIELD_MM, _KV_FIELD_MM))
    megavolts = plan.energy if plan else 6
    return receptor.exposure(image.beam, megavolts * 1000.0, (image.beam.width_mm, image.beam.length_mm))


def _references(image: PortalImage) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if image.plan is not None:
        values["ReferencedRTPlanSequence"] = [general.plan_reference(image.plan)]
        values["ReferencedFractionGroupNumber"] = 1
        values["FractionNumber"] = image.fraction
        if image.beam is not None:
            values["ReferencedBeamNumber"] = image.beam.number
    return values


def portal_pixels(identity: Identity, case: Case, image: PortalImage, panel: Panel) -> bytes:
    """Render an image: stored 16 bit pixels, little endian, rows x columns.

    :param identity: where the noise comes from, and what the delivery is off.
    """
    plan = _plan_of(case, image)
    noise = np.random.Generator(np.random.SFC64(identity.number("portal", image.sop_instance_uid)))
    if image.beam is None:
        return pixels.stored_kv(_noisy(_kv(_patient(case, plan), panel), noise, _NOISE_KV))
    plane = _beam(plan, image.beam, panel, None if is_predicted(image) else delivery(identity, case, image.beam))
    if not is_dose(image):
        weighted = _weighted(_patient(case, plan), _MV_PER_MM)
        plane *= np.exp(-projection.shadow(panel, weighted, image.beam.gantry, image.beam.couch))
    if not is_predicted(image):
        plane = _noisy(plane, noise, _NOISE_CU)
    slope, intercept = _rescale(image.beam)
    stored = (plane * np.float32(image.beam.meterset / 100) - np.float32(intercept)) * np.float32(1 / slope)
    return bytes(np.rint(stored).clip(0, 65535).astype("<u2").tobytes())


def _plan_of(case: Case, image: PortalImage) -> Plan | None:
    if image.plan is None:
        return None
    return next((plan for plan in case.plans if plan.sop_instance_uid == image.plan.sop_instance_uid), None)


def _patient(case: Case, plan: Plan | None) -> tuple[Tissue, ...]:
    if plan is not None:
        return tissues_of(plan.structure_set.regions) if plan.structure_set else PHANTOM
    return tissues_of(case.structure_sets[0].regions if case.structure_sets else ())


def _weighted(tissues: tuple[Tissue, ...], per_mm: float) -> list[tuple[Tissue, float]]:
    """Attenuation per millimetre that each tissue adds to what it lies in."""
    return [(tissue, per_mm * (tissue.hounsfield - tissue.around) / 1000) for tissue in tissues]


def _beam(plan: Plan | None, beam: CaseBeam, panel: Panel, off: Delivery | None) -> Plane:
    place = (panel.axis() / panel.magnification).astype(np.float32)
    shift = off.shift_mm if off else (0.0, 0.0)
    across, along = (place - np.float32(shift[0]))[None, :], (-place - np.float32(shift[1]))[:, None]
    plane = _LEAKAGE + (1 - _LEAKAGE) * projection.field(across, along, beam, _PENUMBRA_MM)
    plane *= projection.horns(across, along, flattened=plan.flattened if plan else True)
    return plane * np.float32(off.output if off else 1.0)


def _kv(tissues: tuple[Tissue, ...], panel: Panel) -> Plane:
    place = (panel.axis() / panel.magnification).astype(np.float32)
    blades = CaseBeam(
        number=0, name="kV", gantry=0, collimator=0, couch=0, meterset=0,
        width_mm=_KV_FIELD_MM, length_mm=_KV_FIELD_MM,
    )  # fmt: skip
    seen = np.exp(-projection.shadow(panel, _weighted(tissues, _KV_PER_MM), receptor.OVERHEAD, 0.0))
    return seen * projection.field(place[None, :], -place[:, None], blades, 1.5)


def _noisy(plane: Plane, noise: np.random.Generator, level: float) -> Plane:
    plane += noise.standard_normal(plane.shape, dtype=np.float32) * np.float32(level)
    return plane
