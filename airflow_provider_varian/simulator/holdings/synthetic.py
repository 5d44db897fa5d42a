"""The synthetic clinic: made from a seed when it is looked at, never before.

Starting it costs nothing, however many patients it has. QA images exist for each day of a window
that ends at ``until`` (by default today, moving on at midnight). The clinical patients are those who
were planned last: one each weekday, up to ``until``, with what there is of them at the end of that
day. An object depends on its own patient and date alone, so a longer window, more patients or another
end change no object, only which of them are held; only a plan's approval comes with time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from functools import cache, lru_cache, partial
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from airflow_provider_varian import uids
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.clinic.calendar import FIRST_CLINICAL, newest_patient, planning_day
from airflow_provider_varian.simulator.clinic.case import Case
from airflow_provider_varian.simulator.clinic.cases import as_of, make_case
from airflow_provider_varian.simulator.clinic.chart import ARIA_STUDY, LONGEST
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.clinic.irregularities import ALL, Irregularity
from airflow_provider_varian.simulator.clinic.linacs import LINACS, Linac, QACourse, QAPlan
from airflow_provider_varian.simulator.clinic.patients import patient_id, patient_number, person
from airflow_provider_varian.simulator.clinic.place import Place
from airflow_provider_varian.simulator.clinic.sessions import (
    PUNCTUAL,
    Exposure,
    Punctuality,
    Session,
    has_arrived,
    session,
)
from airflow_provider_varian.simulator.holdings import clinical
from airflow_provider_varian.simulator.holdings.attributes import data_set
from airflow_provider_varian.simulator.holdings.case_series import CaseBuilder
from airflow_provider_varian.simulator.holdings.tree import Node, Search
from airflow_provider_varian.simulator.objects import plan as rt_plan
from airflow_provider_varian.simulator.objects import rt_image
from airflow_provider_varian.simulator.objects.pixels import Panel

#: Cases that are kept, of up to 200 kB each: about what is under treatment at a time, and some more.
_KEPT_CASES: Final = 128

_QA_NUMBERS: Final = {linac.patient_id: number for number, linac in enumerate(LINACS)}

Lazy = Callable[[], Mapping[str, Any]]


class Clinic:
    """A seeded clinic with two linacs and clinical patients; implements ``Holdings``.

    :param seed: makes the same objects each time.
    :param patients: number of clinical patients beside the machines' QA patients, those planned last.
    :param days: number of days with QA images.
    :param until: last day of all that is held; ``None`` = today in the clinic's zone, moving on.
    :param matrix: rows and columns of portal images; the panel's size in millimetres is kept. CT has two
        fifths of them, dose a tenth.
    :param timezone: the clinic's zone, which says what today is.
    :param irregularities: what is unusual about some of the clinical patients; may be replaced while it runs.
    :param punctuality: which QA sessions are missing or late; may be replaced while it runs.
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
        irregularities: frozenset[Irregularity] = ALL,
        punctuality: Punctuality = PUNCTUAL,
    ) -> None:
        self.identity = Identity(seed)
        self.panel = Panel(matrix=matrix)
        self._patients = patients
        self._days = days
        self._until = until
        self._timezone = timezone or ZoneInfo("UTC")
        self.irregularities = irregularities
        self.punctuality = punctuality
        self._builder = CaseBuilder(self.identity, self.panel)
        self._case = lru_cache(maxsize=_KEPT_CASES)(self._make_case)

    @property
    def today(self) -> date:
        """The last day of all that is held."""
        return self._until or datetime.now(self._timezone).date()

    @property
    def now(self) -> datetime:
        """The moment up to which late QA sessions have arrived, clinic-local: the end of ``until``, if given."""
        if self._until is not None:
            return datetime.combine(self._until + timedelta(days=1), time.min)
        return datetime.now(self._timezone).replace(tzinfo=None)

    @property
    def days(self) -> tuple[date, ...]:
        """The days of the window, oldest first."""
        last = self.today
        return tuple(last - timedelta(days=ago) for ago in reversed(range(self._days)))

    def sop_classes(self) -> frozenset[str]:
        """Return the SOP classes of the instances held."""
        found = {uids.RT_PLAN, uids.RT_IMAGE}
        if self._patients:
            found |= {uids.CT_IMAGE, uids.RT_STRUCTURE_SET, uids.RT_DOSE, uids.RT_BEAMS_TREATMENT_RECORD}
            if self.irregularities & {Irregularity.CBCT, Irregularity.SHARED_REGISTRATION}:
                found.add(uids.SPATIAL_REGISTRATION)
            if Irregularity.HALCYON_PLAN_CLASS in self.irregularities:
                found.add(uids.VARIAN_HALCYON_RT_PLAN)
        return frozenset(found)

    @property
    def clinical_numbers(self) -> range:
        """The numbers of the clinical patients, in the order in which they were planned."""
        newest = newest_patient(self.today)
        return range(max(FIRST_CLINICAL, newest + 1 - self._patients), newest + 1)

    def case(self, number: int) -> Case:
        """Return what there is of a clinical patient at the end of the clinic's last day."""
        today = self.today
        done = planning_day(number) + LONGEST <= today
        return self._case(number, self.irregularities, None if done else today)

    def _make_case(self, number: int, irregularities: frozenset[Irregularity], day: date | None) -> Case:
        whole = make_case(self.identity, number, irregularities)
        return whole if day is None else as_of(whole, day)

    def patients(self, wanted: Search) -> Iterator[Node]:
        """Yield the patients among whom the wanted ones are, found by ID or from any UID."""
        clinical_numbers = self.clinical_numbers
        for number in self._numbers(wanted, clinical_numbers):
            if number < len(LINACS):
                yield self._qa_patient(number)
            elif number in clinical_numbers:
                yield self._clinical_patient(number)

    def place(self, linac: Linac, course: QACourse, plan: QAPlan) -> Place:
        """Return where a QA plan stands in the clinic."""
        return Place(self.identity, linac, course, plan)

    def session_days(self, course: QACourse) -> tuple[date, ...]:
        """Return the days on which plans of a course may have images, oldest first; see :meth:`has_images`."""
        window = self.days
        if course.sessions is None:
            return window
        return tuple(day for day in course.sessions if window and day <= window[-1])

    def has_images(self, linac: Linac, plan: QAPlan, day: date) -> bool:
        """Say whether a plan's session of a day took place and has arrived by now."""
        return has_arrived(self.identity, linac, plan, day, self.now, self.punctuality)

    def _numbers(self, wanted: Search, clinical_numbers: range) -> Iterable[int]:
        narrowed: set[int] | None = None
        if ids := wanted.uids(Level.PATIENT):
            narrowed = {number for each in ids if (number := self._number_of(each)) is not None}
        for level in (Level.STUDY, Level.SERIES, Level.IMAGE):
            if named := wanted.uids(level):
                owners = {owner for uid in named if (owner := self.identity.patient_of(uid)) is not None}
                narrowed = owners if narrowed is None else narrowed & owners
        if narrowed is not None:
            return sorted(narrowed)
        return (*range(len(LINACS)), *clinical_numbers)

    def _number_of(self, wanted_id: str) -> int | None:
        if wanted_id in _QA_NUMBERS:
            return _QA_NUMBERS[wanted_id]
        return patient_number(self.identity, wanted_id, self.irregularities)

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
                if self.has_images(linac, plan, day):
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
        return clinical.patient_node(
            number,
            patient_id(self.identity, number, self.irregularities),
            partial(person, self.identity, number),
            partial(self.case, number),
            self._builder,
        )


def study_values(uid: str, course_id: str, opened: date) -> dict[str, Any]:
    """Return the attributes of a course's study: StudyID is the course ID (varian-daemon 1.3)."""
    return {
        "StudyInstanceUID": uid,
        "StudyID": course_id,
        "StudyDate": opened.strftime("%Y%m%d"),
        "StudyTime": "080000",
        "StudyDescription": ARIA_STUDY,
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


def _frame_of_reference(place: Place) -> dict[str, Any]:
    return {"FrameOfReferenceUID": place.frame_of_reference_uid, "PositionReferenceIndicator": None}
