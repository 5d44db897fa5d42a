"""Digitally reconstructed radiographs (PS3.3 A.17): what a plan's beams would see of the patient.

Bone is weighted more than soft tissue, as planning systems do, and is bright.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case, CaseBeam, Plan
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.objects import general, projection, receptor
from airflow_provider_varian.simulator.objects.anatomy import PHANTOM, Tissue, tissues_of
from airflow_provider_varian.simulator.objects.pixels import SAD_MM, Panel

#: Stored values per millimetre of water: half a metre of it fits.
_PER_MM: Final = 120.0
_BONE_HU: Final = 200
_BONE_EMPHASIS: Final = 8.0
_NOISE: Final = 90.0


def drr_values(case: Case, plan: Plan, beam: CaseBeam, panel: Panel) -> Mapping[str, Any]:
    """Return SERIES- and IMAGE-level attributes of a beam's radiograph, without pixels.

    The image plane lies at the isocentre, as planning systems put it; the rays are those of the imager.
    """
    date, time = general.dicom_date(plan.planned), general.dicom_time(plan.planned)
    return {
        **general.instance(
            sop_class_uid=uids.RT_IMAGE,
            sop_instance_uid=beam.drr_uid,
            series_uid=plan.drr_series_uid,
            modality="RTIMAGE",
            made=plan.planned,
            series="DRR",
        ),
        **general.ARIA,
        "ImageType": ["DERIVED", "SECONDARY", "DRR"],
        "AcquisitionDate": date,
        "ContentDate": date,
        "AcquisitionTime": time,
        "ContentTime": time,
        "ConversionType": "WSD",
        "InstanceNumber": beam.number,
        "PatientOrientation": None,
        "FrameOfReferenceUID": plan.frame_of_reference_uid,
        "PositionReferenceIndicator": None,
        **receptor.sixteen_bits(panel, centre=28000.0, width=44000.0),
        "RTImageLabel": f"DRR {beam.number}",
        "RTImageName": f"{beam.name}-DRR",
        "RTImageDescription": f"Digitally reconstructed radiograph of {beam.name}",
        **receptor.geometry(panel, beam, distance_mm=SAD_MM, machine=plan.machine),
        "PrimaryDosimeterUnit": "MU",
        "ReferencedRTPlanSequence": [general.plan_reference(plan)],
        "ReferencedBeamNumber": beam.number,
        "ReferencedFractionGroupNumber": 1,
    }


def drr_pixels(identity: Identity, case: Case, plan: Plan, beam: CaseBeam, panel: Panel) -> bytes:
    """Render a radiograph: stored 16 bit pixels, little endian, rows x columns.

    :param identity: where the grain of the CT behind it comes from.
    """
    tissues = tissues_of(plan.structure_set.regions) if plan.structure_set else PHANTOM
    weighted = [(tissue, _weight(tissue)) for tissue in tissues]
    image = projection.shadow(panel, weighted, beam.gantry, beam.couch)
    image *= np.float32(_PER_MM)
    noise = np.random.Generator(np.random.SFC64(identity.number("drr", beam.drr_uid)))
    image += noise.standard_normal(image.shape, dtype=np.float32) * np.float32(_NOISE)
    return bytes(np.rint(image).clip(0, 65535).astype("<u2").tobytes())


def _weight(tissue: Tissue) -> float:
    """Water-equivalent millimetres that a millimetre of tissue adds to what it lies in."""
    return _opacity(tissue.hounsfield) - _opacity(tissue.around)


def _opacity(hounsfield: int) -> float:
    return 1.0 + hounsfield / 1000 + _BONE_EMPHASIS * max(hounsfield - _BONE_HU, 0) / 1000
