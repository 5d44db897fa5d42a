"""Spatial Registrations (PS3.3 A.39): a rigid shift that brings a CBCT home to its planning CT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case, ImageSeries, Registration
from airflow_provider_varian.simulator.objects import general
from airflow_provider_varian.simulator.objects.deferred import Deferred

_REGISTRATION_TYPE: Final = {
    # PS3.16 CID 7100.
    "CodeValue": "125025",
    "CodingSchemeDesignator": "DCM",
    "CodeMeaning": "Visual Alignment",
}


def registration_values(case: Case, registration: Registration) -> Mapping[str, Any]:
    """Return SERIES- and IMAGE-level attributes; what names slices is made when looked at.

    The frame of reference of the object is the planning CT's: the matrix of the CBCT leads there, the planning
    CT's own is the identity (PS3.3 C.20.2.1.1). The patient of the CBCT lies off by the couch correction, so adding
    it brings each point home.
    """
    made = registration.made
    date, time = general.dicom_date(made), general.dicom_time(made)
    fixed, moving = registration.fixed, registration.moving
    ready: dict[str, Any] = {
        **general.instance(
            sop_class_uid=uids.SPATIAL_REGISTRATION,
            sop_instance_uid=registration.sop_instance_uid,
            series_uid=registration.series_uid,
            modality="REG",
            made=made,
            series="ARIA RadOnc Registrations",
        ),
        **general.ARIA,
        "SeriesNumber": 1,
        # PS3.3 C.7.3.1: empty, since nothing says of which body part the images are.
        "Laterality": None,
        "InstanceNumber": 1,
        "ContentDate": date,
        "ContentTime": time,
        "ContentLabel": "REGISTRATION",
        "ContentDescription": None,
        "ContentCreatorName": None,
        "FrameOfReferenceUID": fixed.frame_of_reference_uid,
        "PositionReferenceIndicator": None,
    }
    return Deferred(
        ready,
        {
            "RegistrationSequence": lambda: [
                _registered(fixed, (0.0, 0.0, 0.0)),
                _registered(moving, registration.shift_mm),
            ],
            **_instances(registration),
        },
    )


def _registered(images: ImageSeries, shift_mm: tuple[float, float, float]) -> dict[str, Any]:
    x, y, z = shift_mm
    matrix = [1.0, 0.0, 0.0, x, 0.0, 1.0, 0.0, y, 0.0, 0.0, 1.0, z, 0.0, 0.0, 0.0, 1.0]
    return {
        "FrameOfReferenceUID": images.frame_of_reference_uid,
        "ReferencedImageSequence": _slices(images),
        "MatrixRegistrationSequence": [
            {
                "FrameOfReferenceTransformationComment": None,
                "RegistrationTypeCodeSequence": [_REGISTRATION_TYPE],
                "MatrixSequence": [
                    {
                        "FrameOfReferenceTransformationMatrix": matrix,
                        "FrameOfReferenceTransformationMatrixType": "RIGID",
                    }
                ],
            }
        ],
    }


def _slices(images: ImageSeries) -> list[dict[str, Any]]:
    return [general.ct_reference(uid) for uid in images.instance_uids]


def _instances(registration: Registration) -> dict[str, Any]:
    """Makers of the Common Instance Reference Module (PS3.3 C.12.2): the series of this study, and of others."""
    here = [each for each in (registration.fixed, registration.moving) if each.study.uid == registration.study.uid]
    elsewhere: dict[str, list[ImageSeries]] = {}
    for each in (registration.fixed, registration.moving):
        if each not in here:
            elsewhere.setdefault(each.study.uid, []).append(each)
    makers: dict[str, Any] = {}
    if here:
        makers["ReferencedSeriesSequence"] = lambda: _series(here)
    if elsewhere:
        makers["StudiesContainingOtherReferencedInstancesSequence"] = lambda: [
            {"StudyInstanceUID": uid, "ReferencedSeriesSequence": _series(images)} for uid, images in elsewhere.items()
        ]
    return makers


def _series(images: list[ImageSeries]) -> list[dict[str, Any]]:
    return [{"SeriesInstanceUID": each.series_uid, "ReferencedInstanceSequence": _slices(each)} for each in images]
