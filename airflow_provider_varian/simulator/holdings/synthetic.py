"""The synthetic clinic: made from a seed when it is looked at, never before.

Starting it costs nothing, however many patients it has. QA images exist for each day of a window
that ends at ``until`` (by default today, moving on at midnight); an object depends on its own date
alone, so a longer window or another end changes no object, only which of them are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import cache, cached_property, partial
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from airflow_provider_varian import uids
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.clinic.identity import Identity, UidRoot
from airflow_provider_varian.simulator.clinic.linacs import LINACS, Linac, QACourse, QAPlan
from airflow_provider_varian.simulator.clinic.patients import ClinicalPatient, clinical_patient, clinical_patient_id
from airflow_provider_varian.simulator.clinic.place import Place
from airflow_provider_varian.simulator.clinic.sessions import Exposure, Session, session
from airflow_provider_varian.simulator.holdings.attributes import data_set
from airflow_provider_varian.simulator.holdings.tree import Node, Search
from airflow_provider_varian.simulator.objects import plan as rt_plan
from airflow_provider_varian.simulator.objects import rt_image
from airflow_provider_varian.simulator.objects.pixels import Panel

#: varian-daemon 1.5: the study description of studies that ARIA makes itself.
STUDY_DESCRIPTION: Final = "ARIA RadOnc Study"
#: Numbers of clinical patients start here, so that QA patients of later forms find room.
_FIRST_CLINICAL: Final = 100

Lazy = Callable[[], Mapping[str, Any]]


class Clinic:
    """A seeded clinic with two linacs and clinical patients; implements ``Holdings``.

    :param seed: makes the same objects each time.
    :param patients: number of clinical patients beside the machines' QA patients.
    :param days: number of days with QA images.
    :param until: last day with QA images; ``None`` = today in the clinic's zone, moving on.
    :param matrix: rows and columns of portal images; the panel's size in millimetres is kept.
    :param timezone: the clinic's zone, which says what today is.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        patients: int = 10,
        days: int = 30,
        until: date | None = None,
        matrix: int = 1280,
        timezone: ZoneInfo | None = None,
    ) -> None:
        self.identity = Identity(seed)
        self.panel = Panel(matrix=matrix)
        self._patients = patients
        self._days = days
        self._until = until
        self._timezone = timezone or ZoneInfo("UTC")

    @property
    def days(self) -> tuple[date, ...]:
        """The days of the window, oldest first."""
        last = self._until or datetime.now(self._timezone).date()
        return tuple(last - timedelta(days=ago) for ago in reversed(range(self._days)))

    def sop_classes(self) -> frozenset[str]:
        """Return the SOP classes of the instances held."""
        return frozenset({uids.RT_PLAN, uids.RT_IMAGE})

    def patients(self, wanted: Search) -> Iterator[Node]:
        """Yield the patients among whom the wanted ones are, found by ID or from any UID."""
        for number in self._numbers(wanted):
            if number < len(LINACS):
                yield self._qa_patient(number)
            elif 0 <= number - _FIRST_CLINICAL < self._patients:
                yield self._clinical_patient(number)

    def place(self, linac: Linac, course: QACourse, plan: QAPlan) -> Place:
        """Return where a QA plan stands in the clinic."""
        return Place(self.identity, linac, course, plan)

    def session_days(self, course: QACourse) -> tuple[date, ...]:
        """Return the days on which the plans of a course have images, oldest first."""
        window = self.days
        if course.sessions is None:
            return window
        return tuple(day for day in course.sessions if window and day <= window[-1])

    def _numbers(self, wanted: Search) -> Iterable[int]:
        narrowed: set[int] | None = None
        if ids := wanted.uids(Level.PATIENT):
            narrowed = {self._number_by_id[each] for each in ids if each in self._number_by_id}
        for level in (Level.STUDY, Level.SERIES, Level.IMAGE):
            if named := wanted.uids(level):
                owners = {owner for uid in named if (owner := self.identity.patient_of(uid)) is not None}
                narrowed = owners if narrowed is None else narrowed & owners
        if narrowed is not None:
            return sorted(narrowed)
        return (*range(len(LINACS)), *range(_FIRST_CLINICAL, _FIRST_CLINICAL + self._patients))

    @cached_property
    def _number_by_id(self) -> dict[str, int]:
        clinical = {
            clinical_patient_id(self.identity, number): _FIRST_CLINICAL + number for number in range(self._patients)
        }
        return clinical | {linac.patient_id: number for number, linac in enumerate(LINACS)}

    # Machines -----------------------------------------------------------------------------------

    def _qa_patient(self, number: int) -> Node:
        linac = LINACS[number]
        values = {
            "PatientID": linac.patient_id,
            "PatientName": linac.patient_name,
            "PatientBirthDate": None,
            "PatientSex": "O",
        }
        return Node(
            level=Level.PATIENT,
            uid=linac.patient_id,
            values=lambda: values,
            children=lambda: [self._qa_study(linac, course, values) for course in linac.courses],
        )

    def _qa_study(self, linac: Linac, course: QACourse, upper: Mapping[str, Any]) -> Node:
        uid = self.place(linac, course, course.plans[0]).study_uid
        values = study_values(uid, course.course_id, course.opened)
        return Node(
            level=Level.STUDY,
            uid=uid,
            values=lambda: values,
            children=lambda: self._qa_series(linac, course, {**upper, **values}),
        )

    def _qa_series(self, linac: Linac, course: QACourse, upper: Mapping[str, Any]) -> Iterator[Node]:
        for plan in course.plans:
            place = self.place(linac, course, plan)
            yield plan_series(place.plan_series_uid, place.plan_uid, upper, partial(_qa_plan_values, place))
        for day in self.session_days(course):
            for plan in course.plans:
                yield self._image_series(self.place(linac, course, plan), day, upper)

    def _image_series(self, place: Place, day: date, upper: Mapping[str, Any]) -> Node:
        uid = place.image_series_uid(day)
        text = day.strftime("%Y%m%d")

        @cache
        def made() -> Session:
            return session(self.identity, place.linac, place.plan, day)

        def values() -> Mapping[str, Any]:
            return {"SeriesInstanceUID": uid, **rt_image.series_values(made())}

        return Node(
            level=Level.SERIES,
            uid=uid,
            values=values,
            shared=lambda: {"SOPClassUID": uids.RT_IMAGE, "AcquisitionDate": text, "ContentDate": text},
            children=lambda: [
                self._image(place, made(), exposure, {**upper, **values()}) for exposure in made().exposures
            ],
        )

    def _image(self, place: Place, made: Session, exposure: Exposure, upper: Mapping[str, Any]) -> Node:
        uid = place.image_uid(made.day, exposure.number)

        def values() -> dict[str, Any]:
            return {
                "SOPClassUID": uids.RT_IMAGE,
                "SOPInstanceUID": uid,
                "InstanceCreationDate": rt_image.dicom_date(exposure),
                "InstanceCreationTime": rt_image.dicom_time(exposure),
                **rt_image.image_values(made, exposure, self.panel, place.plan_uid),
            }

        def fetch() -> Dataset:
            whole = {
                **upper,
                **values(),
                **_frame_of_reference(place),
                "PixelData": rt_image.pixel_data(self.identity, made, exposure, self.panel),
            }
            return data_set(whole)

        return Node(level=Level.IMAGE, uid=uid, values=values, sop_class_uid=uids.RT_IMAGE, fetch=fetch)

    # Clinical patients --------------------------------------------------------------------------

    def _clinical_patient(self, number: int) -> Node:
        patient = clinical_patient(self.identity, number - _FIRST_CLINICAL)
        values = {
            "PatientID": patient.patient_id,
            "PatientName": patient.name,
            "PatientBirthDate": patient.birth_date.strftime("%Y%m%d"),
            "PatientSex": patient.sex,
        }
        return Node(
            level=Level.PATIENT,
            uid=patient.patient_id,
            values=lambda: values,
            children=lambda: [self._clinical_study(number, patient, values)],
        )

    def _clinical_study(self, number: int, patient: ClinicalPatient, upper: Mapping[str, Any]) -> Node:
        uid = self.identity.uid(UidRoot.STUDY, number, 1)
        values = study_values(uid, patient.course_id, patient.planned)
        planned = int(patient.planned.strftime("%Y%m%d"))
        series_uid = self.identity.uid(UidRoot.PLAN_SERIES, number, 1, 1, planned)
        plan_uid = self.identity.uid(UidRoot.PLAN, number, 1, 1, planned)
        return Node(
            level=Level.STUDY,
            uid=uid,
            values=lambda: values,
            children=lambda: [
                plan_series(series_uid, plan_uid, {**upper, **values}, partial(_clinical_plan_values, patient))
            ],
        )


def study_values(uid: str, course_id: str, opened: date) -> dict[str, Any]:
    """Return the attributes of a course's study: StudyID is the course ID (varian-daemon 1.3)."""
    return {
        "StudyInstanceUID": uid,
        "StudyID": course_id,
        "StudyDate": opened.strftime("%Y%m%d"),
        "StudyTime": "080000",
        "StudyDescription": STUDY_DESCRIPTION,
        "AccessionNumber": None,
        "ReferringPhysicianName": None,
    }


def plan_series(uid: str, plan_uid: str, upper: Mapping[str, Any], plan_values: Lazy) -> Node:
    """Return a series that holds one plan, as ARIA keeps them (varian-daemon 1.5)."""
    series = {
        "SeriesInstanceUID": uid,
        "Modality": "RTPLAN",
        "SeriesNumber": None,
        "SeriesDescription": "ARIA RadOnc Plans",
        "Manufacturer": "Varian Medical Systems",
        "ManufacturerModelName": "ARIA RadOnc",
        "SoftwareVersions": "16.1.0",
        "StationName": "ARIADB",
        "OperatorsName": "DICOM Service",
    }

    def values() -> Mapping[str, Any]:
        own = plan_values()
        return {
            "SOPClassUID": uids.RT_PLAN,
            "SOPInstanceUID": plan_uid,
            "InstanceCreationDate": own["RTPlanDate"],
            "InstanceCreationTime": own["RTPlanTime"],
            **own,
        }

    def fetch() -> Dataset:
        return data_set({**upper, **series, **values()})

    instance = Node(level=Level.IMAGE, uid=plan_uid, values=values, sop_class_uid=uids.RT_PLAN, fetch=fetch)
    return Node(
        level=Level.SERIES,
        uid=uid,
        values=lambda: series,
        shared=lambda: {"SOPClassUID": uids.RT_PLAN},
        children=lambda: (instance,),
    )


def _qa_plan_values(place: Place) -> Mapping[str, Any]:
    plan = place.plan
    head = rt_plan.plan_head(
        label=plan.label,
        day=plan.planned.strftime("%Y%m%d"),
        approved=True,
        description=f"{plan.exercise} on {place.linac.name}",
        intent="MACHINE_QA",
    )
    return {**head, **_frame_of_reference(place), **rt_plan.plan_beams(place.linac, plan)}


def _clinical_plan_values(patient: ClinicalPatient) -> Mapping[str, Any]:
    head = rt_plan.plan_head(
        label=patient.plan_label,
        day=patient.planned.strftime("%Y%m%d"),
        approved=patient.approved,
        description="",
        intent="CURATIVE",
    )
    return {**head, **rt_plan.clinical_beams(patient.machine, patient.energy, patient.gantry_angles, 120.0)}


def _frame_of_reference(place: Place) -> dict[str, Any]:
    return {"FrameOfReferenceUID": place.frame_of_reference_uid, "PositionReferenceIndicator": None}
