"""What the synthetic clinic holds, told beside the wire: for tests, documentation and rehearsals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

from airflow_provider_varian.simulator.clinic.case import Case
from airflow_provider_varian.simulator.clinic.linacs import LINACS, Exercise
from airflow_provider_varian.simulator.clinic.place import Place
from airflow_provider_varian.simulator.clinic.sessions import Punctuality, Truth, arrives, session, truth
from airflow_provider_varian.simulator.holdings.case_series import CaseBuilder
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.holdings.tree import Export


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFact:
    """One image of a plan.

    :param acquired: clinic-local, without a zone.
    :param beam: ReferencedBeamNumber; ``None`` for kV.
    """

    sop_instance_uid: str
    acquired: datetime
    kv: bool
    beam: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFact:
    """One QA plan and what hangs on it.

    :param days: the days of whose sessions the clinic has images by now.
    :param punctuality: of the clinic.
    """

    machine: str
    patient_id: str
    course: str
    label: str
    exercise: Exercise
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    beams: tuple[int, ...]
    days: tuple[date, ...]
    place: Place
    punctuality: Punctuality

    def arrival(self, day: date) -> datetime | None:
        """Return when a day's images are in ARIA, clinic-local; ``None`` on a day without a session."""
        place = self.place
        return arrives(place.identity, place.linac, place.plan, day, self.punctuality)

    def image_series_uid(self, day: date) -> str:
        """Return the Series Instance UID of a day's images."""
        return self.place.image_series_uid(day)

    def images(self, day: date) -> tuple[ImageFact, ...]:
        """Return a day's images in the order of acquisition; none on a day of which there are none yet."""
        if day not in self.days:
            return ()
        made = session(self.place.identity, self.place.linac, self.place.plan, day)
        return tuple(
            ImageFact(
                sop_instance_uid=self.place.image_uid(day, exposure.number),
                acquired=exposure.acquired,
                kv=exposure.is_kv,
                beam=exposure.beam.number if exposure.beam else None,
            )
            for exposure in made.exposures
        )

    def truth(self, day: date) -> Truth:
        """Return what an analysis of a day's images should find."""
        return truth(self.place.identity, self.place.linac, self.place.plan, day)


def facts(clinic: Clinic) -> tuple[PlanFact, ...]:
    """List the machines' QA plans with their UIDs, in the order of the machines."""
    found = []
    for linac in LINACS:
        for course in linac.courses:
            for plan in course.plans:
                place = clinic.place(linac, course, plan)
                found.append(
                    PlanFact(
                        machine=linac.name,
                        patient_id=linac.patient_id,
                        course=course.course_id,
                        label=plan.label,
                        exercise=plan.exercise,
                        sop_instance_uid=place.plan_uid,
                        study_instance_uid=place.study_uid,
                        series_instance_uid=place.plan_series_uid,
                        beams=tuple(beam.number for beam in plan.beams),
                        days=tuple(day for day in clinic.session_days(course) if clinic.has_images(linac, plan, day)),
                        place=place,
                        punctuality=clinic.punctuality,
                    )
                )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFact:
    """One instance of a clinical patient.

    :param export: how a retrieve of it ends; ``NOT_FOUND`` when that is so for its series.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str
    export: Export


def case_facts(clinic: Clinic) -> Iterator[Case]:
    """Yield what there is of each clinical patient at the end of the clinic's last day, first planned first."""
    for number in clinic.clinical_numbers:
        yield clinic.case(number)


def instance_facts(clinic: Clinic, case: Case) -> tuple[InstanceFact, ...]:
    """List the instances that the clinic holds of a case, series by series."""
    builder = CaseBuilder(clinic.identity, clinic.panel)
    return tuple(
        InstanceFact(
            study_instance_uid=series.study.uid,
            series_instance_uid=series.uid,
            sop_instance_uid=instance.uid,
            sop_class_uid=series.sop_class_uid,
            modality=series.modality,
            export=instance.export if series.export is Export.NORMAL else series.export,
        )
        for series in builder.series(case)
        for instance in series.instances()
    )
