"""What objects of all classes say alike: identity, times, references, and who made them (varian-daemon 1.6)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Approval, Dose, Plan, PlanReference, Record, StructureSet

#: What ARIA's own objects, plans and records among them, say of their maker.
ARIA: Final[Mapping[str, Any]] = {
    "Manufacturer": "Varian Medical Systems",
    "ManufacturerModelName": "ARIA RadOnc",
    "DeviceSerialNumber": "161001",
    "SoftwareVersions": "16.1.0",
    "StationName": "ARIADB",
    "OperatorsName": "DICOM Service",
}
#: Who approves and rejects; no patient of the clinic has this name.
REVIEWER: Final = "Oncologist^Radiation"
#: Detached Study Management (retired, PS3.6 A), which items that name a study (PS3.3 C.8.8.5) carry to this day.
STUDY_CLASS: Final = "1.2.840.10008.3.1.2.3.1"


def dicom_date(moment: datetime) -> str:
    """Return a date as DA."""
    return moment.strftime("%Y%m%d")


def dicom_time(moment: datetime) -> str:
    """Return a time as TM, with a fraction when there is one, e.g. ``064307.643000``."""
    return moment.strftime("%H%M%S.%f" if moment.microsecond else "%H%M%S")


def instance(
    *, sop_class_uid: str, sop_instance_uid: str, series_uid: str, modality: str, made: datetime, series: str
) -> dict[str, Any]:
    """Return what names an object and its series.

    :param made: time of the series and, until the daemon exports it, of the instance's creation.
    :param series: SeriesDescription.
    """
    date, time = dicom_date(made), dicom_time(made)
    return {
        "SOPClassUID": sop_class_uid,
        "SOPInstanceUID": sop_instance_uid,
        "InstanceCreationDate": date,
        "InstanceCreationTime": time,
        "Modality": modality,
        "SeriesInstanceUID": series_uid,
        "SeriesNumber": None,
        "SeriesDescription": series,
        "SeriesDate": date,
        "SeriesTime": time,
    }


def made_by_aria(
    thing: Plan | StructureSet | Dose | Record, *, sop_class_uid: str, modality: str, made: datetime, series: str
) -> dict[str, Any]:
    """Return what an object of ARIA's own says of itself: identity, maker, and its place in the series.

    :param made: see :func:`instance`.
    :param series: what the series holds; ARIA writes its name before it.
    """
    named = instance(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=thing.sop_instance_uid,
        series_uid=thing.series_uid,
        modality=modality,
        made=made,
        series=f"ARIA RadOnc {series}",
    )
    return {**named, **ARIA, "InstanceNumber": 1}


def approval(status: Approval, reviewed: datetime | None) -> dict[str, Any]:
    """Return the Approval Module (PS3.3 C.8.8.16): who reviewed and when, unless nobody has."""
    if status is Approval.UNAPPROVED or reviewed is None:
        return {"ApprovalStatus": status.value}
    return {
        "ApprovalStatus": status.value,
        "ReviewDate": dicom_date(reviewed),
        "ReviewTime": dicom_time(reviewed),
        "ReviewerName": REVIEWER,
    }


def reference(sop_class_uid: str, sop_instance_uid: str) -> dict[str, Any]:
    """Return an item of the SOP Instance Reference Macro (PS3.3 10.8)."""
    return {"ReferencedSOPClassUID": sop_class_uid, "ReferencedSOPInstanceUID": sop_instance_uid}


def plan_reference(plan: Plan | PlanReference) -> dict[str, Any]:
    """Return an item that names a plan."""
    return reference(plan.sop_class_uid, plan.sop_instance_uid)


def ct_reference(sop_instance_uid: str) -> dict[str, Any]:
    """Return an item that names a CT slice."""
    return reference(uids.CT_IMAGE, sop_instance_uid)
