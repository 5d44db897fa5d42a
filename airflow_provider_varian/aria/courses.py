"""Courses of a patient, and the series of one.

StudyID (0020,0010) is the Course ID for the objects of a course (varian-daemon 1.3). It is sent, and compared here:
a scanner's study has an ID of its own there, which is no course.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_varian.aria.listing import text
from airflow_provider_varian.errors import NotFoundError
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Exact, Query

#: StudyDescription of studies that ARIA makes itself (varian-daemon 1.5).
ARIA_STUDY: Final = "ARIA RadOnc Study"
_STEP: Final = "course search"


@dataclass(frozen=True, slots=True, kw_only=True)
class CourseRef:
    """A study that may be a course.

    :param study_instance_uid: names the study.
    :param course: StudyID; empty when not answered.
    :param description: StudyDescription (0008,1030).
    :param opened: StudyDate, ``YYYYMMDD``.
    """

    study_instance_uid: str
    course: str
    description: str = ""
    opened: str = ""

    @property
    def is_made_by_aria(self) -> bool:
        """Whether ARIA made the study; one that a scanner made may hold the objects of a course, too."""
        return self.description == ARIA_STUDY

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRef:
    """A series.

    :param series_instance_uid: names it.
    :param study_instance_uid: its study.
    :param modality: Modality (0008,0060).
    :param course: StudyID.
    :param description: SeriesDescription (0008,103E); empty when not answered.
    """

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    course: str
    description: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def list_courses(session: FindSession, patient_id: str) -> tuple[list[CourseRef], tuple[str, ...]]:
    """Return a patient's studies with their course IDs, oldest first, and sentences on what may be wrong with the list.

    :param session: an open session.
    :param patient_id: exact; ``*`` and ``?`` in it are no wildcards.
    :raises DicomError: what :meth:`~airflow_provider_varian.query.find.FindSession.find` raises.
    """
    keys = {"PatientID": Exact(patient_id), **dict.fromkeys(("StudyID", "StudyDescription", "StudyDate", "StudyTime"))}
    found = session.find(Query.build(Level.STUDY, keys))
    by_uid = {text(answer, "StudyInstanceUID"): answer for answer in found.answers}
    ordered = sorted(by_uid.values(), key=lambda answer: (text(answer, "StudyDate"), text(answer, "StudyTime")))
    courses = [
        CourseRef(
            study_instance_uid=text(answer, "StudyInstanceUID"),
            course=text(answer, "StudyID"),
            description=text(answer, "StudyDescription"),
            opened=text(answer, "StudyDate"),
        )
        for answer in ordered
    ]
    return courses, tuple(found.warnings)


def list_course_series(
    session: FindSession, patient_id: str, course: str, *, modality: str | None = None
) -> tuple[list[SeriesRef], tuple[str, ...]]:
    """Return the series of a course, and sentences on what may be wrong with the list.

    :param session: an open session.
    :param patient_id: exact.
    :param course: Course ID, exact.
    :param modality: of this one alone, e.g. ``RTPLAN``; None: all.
    :raises NotFoundError: the patient has no course of that ID; names those that there are.
    :raises UndecidedMatchError: the peer answers no StudyID, neither of a series nor of the images in it.
    :raises DicomError: what :meth:`~airflow_provider_varian.query.find.FindSession.find` raises else.
    """
    keys: dict[str, Any] = {
        "PatientID": Exact(patient_id),
        "StudyID": Exact(course.strip()),
        "Modality": modality,
        "SeriesDescription": None,
    }
    found = session.find(Query.build(Level.SERIES, keys))
    series = {text(answer, "SeriesInstanceUID"): _series(answer) for answer in found.answers}
    if not series:
        _check_course(session, patient_id, course.strip())
    return list(series.values()), tuple(found.warnings)


def _check_course(session: FindSession, patient_id: str, course: str) -> None:
    """Tell a course without such series from one that is not there."""
    courses, _ = list_courses(session, patient_id)
    if any(each.course == course for each in courses):
        return
    # The IDs of scanners' studies are no courses, and may be anything.
    known = ", ".join(sorted({repr(each.course) for each in courses if each.course and each.is_made_by_aria}))
    raise NotFoundError(
        f"the patient has no course {course!r}",
        peer=session.peer.name,
        step=_STEP,
        hint=f"The courses are {known}" if known else "Check patient_id: no course is there",
    )


def _series(answer: Mapping[str, Any]) -> SeriesRef:
    return SeriesRef(
        series_instance_uid=text(answer, "SeriesInstanceUID"),
        study_instance_uid=text(answer, "StudyInstanceUID"),
        modality=text(answer, "Modality"),
        course=text(answer, "StudyID"),
        description=text(answer, "SeriesDescription"),
    )
