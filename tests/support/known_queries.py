"""The queries and retrieves of varian-daemon 3 as tables, each row with what it has to find.

A row has the information model and the level as DCMTK's clients take them, the keys, and whether an instance is meant
by them: both functions of the plan that everything is asked about, see :func:`support.held.whole_plan`.
"""

from __future__ import annotations

from datetime import date

from support.simulated import UNTIL

from airflow_provider_varian import uids

PLAN_OF = "(300c,0002)[0].(0008,1155)"
#: DCMTK's dictionary calls it retired.
OTHER_PATIENT_IDS = "(0010,1000)"
STUDY_ROOT, PATIENT_ROOT = "-S", "-P"


def dicom(day: date) -> str:
    return day.strftime("%Y%m%d")


def empty(*keywords: str) -> dict[str, str]:
    """Return keys that are asked for and match anything."""
    return dict.fromkeys(keywords, "")


PLACE = empty("StudyInstanceUID", "StudyID", "StudyDate", "SeriesInstanceUID", "SeriesDate", "SeriesNumber")
MOMENTS = empty("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime")
PLAN_KEYS = empty(
    "RTPlanLabel", "RTPlanDate", "ApprovalStatus", "PlanIntent", "StudyInstanceUID", "SeriesInstanceUID"
)  # fmt: skip
RECORD_KEYS = empty(
    "TreatmentTime", "TreatmentDeliveryType", "TreatmentTerminationStatus", "CurrentFractionNumber",
    "ReferencedSOPInstanceUID",
)  # fmt: skip
TODAY = UNTIL.strftime("%Y%m%d")

#: A row of the table in varian-daemon 3: its goal, model and level; keys, and whether an instance is meant by them,
#: both of the plan that everything is asked about. ImageType is asked for and never matched (semantics 12).
QUERIES = {
    "patients by pattern": (
        PATIENT_ROOT, "PATIENT", "patient",
        lambda p: {"PatientID": f"{p.patient[:-2]}*"}
        | empty("PatientName", "PatientBirthDate", "InstitutionName", OTHER_PATIENT_IDS),
        lambda p, each: each.patient.startswith(p.patient[:-2]),
    ),
    "studies of a patient": (
        STUDY_ROOT, "STUDY", "study",
        lambda p: {"PatientID": p.patient}
        | empty("StudyID", "StudyDate", "StudyDescription", "AccessionNumber", "ModalitiesInStudy"),
        lambda p, each: each.patient == p.patient,
    ),
    "studies of a patient, by Patient Root": (
        PATIENT_ROOT, "STUDY", "study",
        lambda p: {"PatientID": p.patient},
        lambda p, each: each.patient == p.patient,
    ),
    "series of a study": (
        STUDY_ROOT, "SERIES", "series",
        lambda p: {"StudyInstanceUID": p.study, "Modality": "RTIMAGE"}
        | empty("SeriesDescription", "SeriesDate", "SeriesNumber", "NumberOfSeriesRelatedInstances"),
        lambda p, each: each.study == p.study and each.modality == "RTIMAGE",
    ),
    "series of a patient, no study": (
        STUDY_ROOT, "SERIES", "series",
        lambda p: {"PatientID": p.patient, "Modality": "CT"},
        lambda p, each: each.patient == p.patient and each.modality == "CT",
    ),
    "series of a patient, no study, by Patient Root": (
        PATIENT_ROOT, "SERIES", "series",
        lambda p: {"PatientID": p.patient, "Modality": "RTRECORD"},
        lambda p, each: each.patient == p.patient and each.modality == "RTRECORD",
    ),
    "series of a course": (
        STUDY_ROOT, "SERIES", "series",
        lambda p: {"PatientID": p.patient, "StudyID": p.course, "Modality": "RTDOSE"},
        lambda p, each: (each.patient, each.course, each.modality) == (p.patient, p.course, "RTDOSE"),
    ),
    "series of one of two courses": (
        STUDY_ROOT, "SERIES", "series",
        lambda _: {"PatientID": "QA_TB_WL", "StudyID": "QA_2025", "Modality": "RTPLAN"},
        lambda _, each: (each.patient, each.course, each.modality) == ("QA_TB_WL", "QA_2025", "RTPLAN"),
    ),
    "series requested keys tried": (
        STUDY_ROOT, "SERIES", "series",
        lambda p: {"PatientID": p.patient}
        | empty("SOPClassUID", "Manufacturer", "StationName", "ManufacturerModelName", "DeviceSerialNumber",
                "FrameOfReferenceUID", "OperatorsName", "SoftwareVersions"),
        lambda p, each: each.patient == p.patient,
    ),
    "instances of a series": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SeriesInstanceUID": p.series} | empty("SOPClassUID", "InstanceNumber") | MOMENTS,
        lambda p, each: each.series == p.series,
    ),
    "a plan by label": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "Modality": "RTPLAN", "RTPlanLabel": p.label, "StudyInstanceUID": ""},
        lambda p, each: (each.patient, each.label) == (p.patient, p.label),
    ),
    "all plans of a patient": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "SOPClassUID": uids.RT_PLAN} | PLAN_KEYS,
        lambda p, each: (each.patient, each.sop_class) == (p.patient, uids.RT_PLAN),
    ),
    "all plans of a patient, by Patient Root": (
        PATIENT_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "SOPClassUID": uids.RT_PLAN} | PLAN_KEYS,
        lambda p, each: (each.patient, each.sop_class) == (p.patient, uids.RT_PLAN),
    ),
    "plan details": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SeriesInstanceUID": p.series, PLAN_OF: ""}
        | empty("RTPlanLabel", "RTPlanDescription", "RTPlanDate", "RTPlanTime", "NumberOfBeams", "ApprovalStatus"),
        lambda p, each: each.uid == p.uid,
    ),
    "RT images since a date": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "StudyID": p.course, "Modality": "RTIMAGE",
                   "ContentDate": f"{TODAY}-"},
        lambda p, each: (each.patient, each.course, each.modality) == (p.patient, p.course, "RTIMAGE")
        and each.day >= UNTIL,
    ),
    "RT images since a date, of series": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "StudyID": p.course, "SeriesInstanceUID": "\\".join(p.image_series),
                   "SOPClassUID": uids.RT_IMAGE, "ContentDate": f"{TODAY}-"},
        lambda p, each: each.series in p.image_series and each.day >= UNTIL,
    ),
    "all RT images of a day, whole clinic": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SOPClassUID": uids.RT_IMAGE, "AcquisitionDate": f"{TODAY}-{TODAY}"} | PLACE
        | empty("PatientID", "PatientName", "ReferencedSOPInstanceUID"),
        lambda p, each: (each.sop_class, each.day) == (uids.RT_IMAGE, UNTIL),
    ),
    "all CT of a day": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SOPClassUID": uids.CT_IMAGE, "AcquisitionDate": f"{TODAY}-{TODAY}"} | PLACE,
        lambda p, each: (each.sop_class, each.day) == (uids.CT_IMAGE, UNTIL),
    ),
    "patients treated on a day": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"SOPClassUID": uids.RT_BEAMS_TREATMENT_RECORD, "TreatmentDate": TODAY} | RECORD_KEYS,
        lambda p, each: (each.modality, each.day) == ("RTRECORD", UNTIL),
    ),
    "patients treated on days, by modality": (
        STUDY_ROOT, "IMAGE", "uid",
        lambda p: {"Modality": "RTRECORD", "TreatmentDate": f"20261101-{TODAY}"} | RECORD_KEYS,
        lambda p, each: each.modality == "RTRECORD",
    ),
    "doses of a plan": (
        PATIENT_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "StudyInstanceUID": p.study, "SOPClassUID": uids.RT_DOSE,
                   "DoseSummationType": "PLAN", PLAN_OF: ""},
        lambda p, each: (each.study, each.modality, each.beam) == (p.study, "RTDOSE", None),
    ),
    "doses of a plan's beams": (
        PATIENT_ROOT, "IMAGE", "uid",
        lambda p: {"PatientID": p.patient, "StudyInstanceUID": p.study, "SOPClassUID": uids.RT_DOSE,
                   "DoseSummationType": "BEAM"},
        lambda p, each: each.study == p.study and each.modality == "RTDOSE" and each.beam is not None,
    ),
}  # fmt: skip
UNIQUE = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID", "uid": "SOPInstanceUID"}

#: What the answers say of all objects of a modality that patients have; found by a date of theirs.
SAID = {
    "RTPLAN": ("RTPlanDate", lambda each: {
        "RTPlanLabel": each.label, "ApprovalStatus": each.approval, "PlanIntent": each.intent,
        "NumberOfBeams": each.beams, "StudyInstanceUID": each.study, "StudyID": each.course,
    }),
    "RTIMAGE": ("AcquisitionDate", lambda each: {
        "ImageType": each.image_type, "ContentDate": dicom(each.day), "SeriesDate": dicom(each.day),
        "ReferencedBeamNumber": each.beam, "ReferencedSOPInstanceUID": each.plan, "SeriesNumber": None,
    }),
    "RTRECORD": ("TreatmentDate", lambda each: {
        "TreatmentDeliveryType": "TREATMENT", "TreatmentTerminationStatus": "NORMAL",
        "CurrentFractionNumber": each.fraction, "ReferencedSOPInstanceUID": each.plan,
    }),
    "CT": ("AcquisitionDate", lambda each: {
        "ContentDate": dicom(each.day), "PatientBirthDate": dicom(each.birth_date), "InstitutionName": None,
    }),
}  # fmt: skip

#: A row of the table of C-MOVE identifiers: model and level, keys, and whether an instance is meant. Keys that are
#: not unique ones are ignored, the modality of a patient's objects as well as dates.
MOVES = {
    "PATIENT: PatientID, Modality": (
        PATIENT_ROOT, "PATIENT", lambda p: {"PatientID": p.patient, "Modality": "RTPLAN"},
        lambda p, each: each.patient == p.patient,
    ),
    "SERIES: StudyInstanceUID, SeriesInstanceUID, Modality": (
        STUDY_ROOT, "SERIES",
        lambda p: {"StudyInstanceUID": p.study, "SeriesInstanceUID": p.image_series[0], "Modality": "RTIMAGE"},
        lambda p, each: each.series == p.image_series[0],
    ),
    "SERIES: PatientID, StudyID, SeriesInstanceUID, ContentDate": (
        STUDY_ROOT, "SERIES",
        lambda p: {"PatientID": p.patient, "StudyID": p.course, "SeriesInstanceUID": p.image_series[0],
                   "ContentDate": "20991231-"},
        lambda p, each: each.series == p.image_series[0],
    ),
    "PATIENT: PatientID": (
        PATIENT_ROOT, "PATIENT", lambda p: {"PatientID": p.patient}, lambda p, each: each.patient == p.patient,
    ),
    "SERIES: PatientID": (
        STUDY_ROOT, "SERIES", lambda p: {"PatientID": p.patient}, lambda p, each: each.patient == p.patient,
    ),
    "SERIES: PatientID, Modality": (
        STUDY_ROOT, "SERIES", lambda p: {"PatientID": p.patient, "Modality": "RTPLAN"},
        lambda p, each: each.patient == p.patient,
    ),
    "SERIES: PatientID, by Patient Root": (
        PATIENT_ROOT, "SERIES", lambda p: {"PatientID": p.patient}, lambda p, each: each.patient == p.patient,
    ),
    "STUDY: StudyInstanceUID": (
        STUDY_ROOT, "STUDY", lambda p: {"StudyInstanceUID": p.study}, lambda p, each: each.study == p.study,
    ),
    "STUDY: PatientID": (
        STUDY_ROOT, "STUDY", lambda p: {"PatientID": p.patient}, lambda p, each: each.patient == p.patient,
    ),
    "SERIES: SeriesInstanceUID": (
        STUDY_ROOT, "SERIES", lambda p: {"SeriesInstanceUID": p.series}, lambda p, each: each.series == p.series,
    ),
    "SERIES: SeriesInstanceUID, StudyInstanceUID, by Patient Root": (
        PATIENT_ROOT, "SERIES", lambda p: {"SeriesInstanceUID": p.series, "StudyInstanceUID": p.study},
        lambda p, each: each.series == p.series,
    ),
    "IMAGE: SOPInstanceUID": (
        STUDY_ROOT, "IMAGE", lambda p: {"SOPInstanceUID": p.uid}, lambda p, each: each.uid == p.uid,
    ),
    "IMAGE: SOPInstanceUID, PatientID, by Patient Root": (
        PATIENT_ROOT, "IMAGE", lambda p: {"SOPInstanceUID": p.uid, "PatientID": p.patient},
        lambda p, each: each.uid == p.uid,
    ),
    "IMAGE: SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID, SOPClassUID": (
        STUDY_ROOT, "IMAGE",
        lambda p: {"SOPInstanceUID": p.uid, "StudyInstanceUID": p.study, "SeriesInstanceUID": p.series,
                   "SOPClassUID": p.sop_class},
        lambda p, each: each.uid == p.uid,
    ),
}  # fmt: skip
