"""Information models, and which attribute belongs to which level (PS3.4 C.6.1.1, C.6.2.1). Standard library only."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from airflow_provider_varian import uids
from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.level import LEVEL_OF_UNIQUE_KEY, LEVELS, Level


class InformationModel(StrEnum):
    """The two information models that are in use; Patient/Study Only is retired."""

    STUDY_ROOT = "study_root"
    PATIENT_ROOT = "patient_root"

    @property
    def find_uid(self) -> str:
        """SOP class UID of C-FIND."""
        return uids.PATIENT_ROOT_FIND if self is InformationModel.PATIENT_ROOT else uids.STUDY_ROOT_FIND

    @property
    def move_uid(self) -> str:
        """SOP class UID of C-MOVE."""
        return uids.PATIENT_ROOT_MOVE if self is InformationModel.PATIENT_ROOT else uids.STUDY_ROOT_MOVE

    @property
    def get_uid(self) -> str:
        """SOP class UID of C-GET."""
        return uids.PATIENT_ROOT_GET if self is InformationModel.PATIENT_ROOT else uids.STUDY_ROOT_GET

    @property
    def top(self) -> Level:
        """The level where the hierarchy begins."""
        return Level.PATIENT if self is InformationModel.PATIENT_ROOT else Level.STUDY


def model_for(level: Level, setting: str = "auto") -> InformationModel:
    """Choose the information model of a query or retrieval.

    :param level: its level; PATIENT means Patient Root (semantics 15).
    :param setting: ``information_model`` of the connection: ``auto``, ``study_root`` or ``patient_root``.
    :raises QueryError: when the connection insists on Study Root, which has no PATIENT level.
    """
    if setting == InformationModel.PATIENT_ROOT:
        return InformationModel.PATIENT_ROOT
    if level is not Level.PATIENT:
        return InformationModel.STUDY_ROOT
    if setting == InformationModel.STUDY_ROOT:
        raise QueryError(
            "Study Root has no PATIENT level",
            hint="Set the connection's information_model to auto or patient_root, or ask at STUDY level",
        )
    return InformationModel.PATIENT_ROOT


_PATIENT = """PatientName PatientID IssuerOfPatientID PatientBirthDate PatientBirthTime PatientSex OtherPatientIDs
    OtherPatientIDsSequence OtherPatientNames EthnicGroup PatientComments NumberOfPatientRelatedStudies
    NumberOfPatientRelatedSeries NumberOfPatientRelatedInstances"""
_STUDY = """StudyInstanceUID StudyID StudyDate StudyTime StudyDescription AccessionNumber
    IssuerOfAccessionNumberSequence ReferringPhysicianName NameOfPhysiciansReadingStudy ModalitiesInStudy
    SOPClassesInStudy AdmittingDiagnosesDescription PatientAge PatientSize PatientWeight Occupation
    AdditionalPatientHistory ProcedureCodeSequence NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"""
_SERIES = """SeriesInstanceUID SeriesNumber SeriesDate SeriesTime SeriesDescription Modality BodyPartExamined
    Laterality ProtocolName OperatorsName PerformingPhysicianName PerformedProcedureStepStartDate
    PerformedProcedureStepStartTime RequestAttributesSequence FrameOfReferenceUID Manufacturer StationName
    ManufacturerModelName DeviceSerialNumber SoftwareVersions InstitutionName NumberOfSeriesRelatedInstances"""

_LEVEL_OF: Final = MappingProxyType(
    {
        keyword: level
        for level, keywords in zip(LEVELS, (_PATIENT, _STUDY, _SERIES), strict=False)
        for keyword in keywords.split()
    }
)

#: Unique and required keys (PS3.4 Tables C.6-1 to C.6-5); every other key is optional.
REQUIRED_KEYS: Final = frozenset(
    {
        *LEVEL_OF_UNIQUE_KEY,
        "PatientName",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "Modality",
        "SeriesNumber",
        "InstanceNumber",
    }
)

#: What says at IMAGE level the same as a summary attribute of an upper level.
AT_IMAGE_LEVEL: Final = MappingProxyType({"ModalitiesInStudy": "Modality", "SOPClassesInStudy": "SOPClassUID"})


def level_of(keyword: str) -> Level:
    """Return the level whose entity carries an attribute; IMAGE for all that is not known to be above."""
    return _LEVEL_OF.get(keyword, Level.IMAGE)
