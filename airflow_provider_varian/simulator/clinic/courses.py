"""The plans of a patient's courses, with their doses and all that treating them leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic import fractions
from airflow_provider_varian.simulator.clinic.case import (
    Approval,
    CaseBeam,
    Dose,
    ImageSeries,
    Plan,
    PlanReference,
    PortalImage,
    Registration,
    StructureSet,
    Study,
)
from airflow_provider_varian.simulator.clinic.chart import ARIA_STUDY, Chart, Kind, StudyNumber
from airflow_provider_varian.simulator.clinic.identity import UidRoot, with_leading_zero
from airflow_provider_varian.simulator.clinic.irregularities import Irregularity
from airflow_provider_varian.simulator.clinic.linacs import PORTAL
from airflow_provider_varian.simulator.clinic.planning_images import Basis, second_basis

#: Quirk 19: more plans than the daemon survives a STUDY move with.
_MANY: Final = 31


class PlanNumber(IntEnum):
    """The plans that a course can have; attempts are numbered from the last."""

    TREATED = 1
    REPLANNED = 2
    UNAPPROVED = 3
    REJECTED = 4
    WITHOUT_BEAMS = 5
    VERIFICATION = 6
    ATTEMPT = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Plans, and the images that came with them.

    :param bases: further planning CTs with their structure sets.
    :param cone_beam_cts: of all plans.
    """

    plans: tuple[Plan, ...]
    bases: tuple[Basis, ...] = ()
    cone_beam_cts: tuple[ImageSeries, ...] = ()


def planned_on(chart: Chart, basis: Basis) -> Planned:
    """Return the plans of all courses."""
    schedule = chart.schedule
    turn = _turn(len(schedule.treated)) if chart.has(Irregularity.REPLANNED) else len(schedule.treated)
    drafts = _Drafts(chart)
    drafts.treated(PlanNumber.TREATED, basis, chart.label, schedule.planned, schedule.reviewed, schedule.treated[:turn])
    if chart.has(Irregularity.VERIFICATION_PLAN):
        drafts.verification(basis)
    drafts.never_treated(basis)
    bases = []
    if turn < len(schedule.treated):
        again = second_basis(chart, basis.course, schedule.treated[turn - 3] + timedelta(minutes=20))
        bases.append(again)
        made, approved = schedule.treated[turn - 2], schedule.treated[turn - 1]
        hour = timedelta(hours=1)
        drafts.treated(
            PlanNumber.REPLANNED, again, f"{chart.label[:13]}:1", made + hour, approved + hour, schedule.treated[turn:]
        )
    if chart.has(Irregularity.SAME_LABEL_IN_TWO_COURSES):
        drafts.second_course(basis)
    return Planned(plans=tuple(drafts.plans), bases=tuple(bases), cone_beam_cts=tuple(drafts.cone_beam_cts))


def _turn(count: int) -> int:
    """Return after how many fractions a new plan takes over."""
    return max(3, count * 2 // 5)


class _Drafts:
    """Plans in the making."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.plans: list[Plan] = []
        self.cone_beam_cts: list[ImageSeries] = []

    def treated(
        self,
        number: PlanNumber,
        basis: Basis,
        label: str,
        planned: datetime,
        reviewed: datetime,
        treated: Sequence[datetime],
    ) -> None:
        """Add a plan that is approved and treated."""
        chart = self.chart
        key = _key(StudyNumber.COURSE, number, planned)
        beams = self._beams(key)
        reference = self._reference(key)
        taken: tuple[ImageSeries, ...] = ()
        registrations: tuple[Registration, ...] = ()
        if chart.has(Irregularity.CBCT):
            taken, registrations = fractions.cone_beam_cts(chart, key, basis.course, reference, basis.images, treated)
            self.cone_beam_cts += taken
        portal = fractions.portal_images(chart, key, basis.course, reference, beams, treated)
        if number is PlanNumber.TREATED and chart.has(Irregularity.SERIES_NOT_MOVABLE):
            portal += tuple(
                fractions.exposures(
                    chart, Kind.UNMOVABLE, key, basis.course, reference, beams, treated[0] + timedelta(minutes=6), 1,
                    image_type=PORTAL,
                )
            )  # fmt: skip
        dosed = number is not PlanNumber.TREATED or not chart.has(Irregularity.PLAN_WITHOUT_DOSE)
        # A plan that another took over from was planned with all its fractions.
        planned_fractions = chart.treatment.fractions if number is PlanNumber.TREATED else len(treated)
        self._add(
            key, basis.course, label, planned, beams, planned_fractions,
            reviewed=reviewed, approval=Approval.APPROVED, structure_set=basis.structure_set,
            frame=basis.images.frame_of_reference_uid,
            doses=self._doses(key, basis.course, beams, planned) if dosed else (),
            treated=treated, registrations=registrations, portal_images=portal,
        )  # fmt: skip

    def verification(self, basis: Basis) -> None:
        """Add a plan on a phantom that verifies the treated one, measured on the day of its approval."""
        chart, verified = self.chart, self.plans[0]
        made = chart.schedule.reviewed + timedelta(minutes=30)
        key = _key(StudyNumber.COURSE, PlanNumber.VERIFICATION, made)
        beams = tuple(_without_drr(beam) for beam in verified.beams)
        predicted, measured = made + timedelta(minutes=5), made.replace(hour=18, minute=20)
        images = fractions.verification_images(
            chart, key, basis.course, self._reference(key), beams, predicted, measured
        )
        self._add(
            key, basis.course, f"QA_{chart.label}"[:16], made, beams, 1,
            reviewed=made + timedelta(minutes=15), approval=Approval.APPROVED, structure_set=None,
            frame=chart.uid(UidRoot.FRAME_OF_REFERENCE, *key), verifies=verified.reference, portal_images=images,
        )  # fmt: skip

    def never_treated(self, basis: Basis) -> None:
        """Add what else was planned on the first day."""
        chart, planned = self.chart, self.chart.schedule.planned
        if chart.has(Irregularity.UNAPPROVED_PLAN):
            self._attempt(PlanNumber.UNAPPROVED, basis, f"{chart.label[:10]}_alt", planned + timedelta(minutes=20))
        if chart.has(Irregularity.REJECTED_PLAN):
            made = planned - timedelta(minutes=25)
            self._attempt(PlanNumber.REJECTED, basis, f"{chart.label[:10]}_old", made, rejected=chart.schedule.reviewed)
        if chart.has(Irregularity.PLAN_WITHOUT_BEAMS):
            made = planned - timedelta(minutes=40)
            self._attempt(PlanNumber.WITHOUT_BEAMS, basis, "Setup", made, beams=False)
        if chart.has(Irregularity.MANY_PLANS):
            for number in range(_MANY):
                made = planned + timedelta(minutes=1 + number)
                self._attempt(PlanNumber.ATTEMPT + number, basis, f"Try{number + 1:02d}", made)

    def second_course(self, basis: Basis) -> None:
        """Add a course with a plan of the same label, given in the last days of the first."""
        chart = self.chart
        opened = chart.schedule.planned + timedelta(minutes=45)
        study = chart.course(StudyNumber.SECOND_COURSE, opened)
        made = opened + timedelta(minutes=10)
        key = _key(StudyNumber.SECOND_COURSE, PlanNumber.TREATED, made)
        beams = self._beams(key)
        treated = [moment + timedelta(minutes=20) for moment in chart.schedule.treated[-5:]]
        self._add(
            key, study, chart.label, made, beams, len(treated),
            reviewed=chart.schedule.reviewed + timedelta(minutes=10), approval=Approval.APPROVED,
            structure_set=basis.structure_set, frame=basis.images.frame_of_reference_uid,
            doses=self._doses(key, study, beams, made), treated=treated,
        )  # fmt: skip

    def _attempt(
        self,
        number: int,
        basis: Basis,
        label: str,
        made: datetime,
        *,
        rejected: datetime | None = None,
        beams: bool = True,
    ) -> None:
        key = _key(StudyNumber.COURSE, number, made)
        fields = self._beams(key) if beams else ()
        dosed = beams and number < PlanNumber.ATTEMPT
        self._add(
            key, basis.course, label, made, fields, self.chart.treatment.fractions,
            reviewed=rejected, approval=Approval.REJECTED if rejected else Approval.UNAPPROVED,
            structure_set=basis.structure_set, frame=basis.images.frame_of_reference_uid,
            doses=self._doses(key, basis.course, fields, made) if dosed else (),
        )  # fmt: skip

    def _add(
        self,
        key: tuple[int, ...],
        study: Study,
        label: str,
        planned: datetime,
        beams: tuple[CaseBeam, ...],
        fractions_planned: int,
        *,
        reviewed: datetime | None,
        approval: Approval,
        structure_set: StructureSet | None,
        frame: str,
        verifies: PlanReference | None = None,
        doses: tuple[Dose, ...] = (),
        treated: Sequence[datetime] = (),
        registrations: tuple[Registration, ...] = (),
        portal_images: tuple[PortalImage, ...] = (),
    ) -> None:
        chart, treatment = self.chart, self.chart.treatment
        reference = self._reference(key)
        drawn = any(beam.drr_uid for beam in beams)
        self.plans.append(
            Plan(
                study=study,
                series_uid=chart.uid(UidRoot.PLAN_SERIES, *key),
                sop_instance_uid=reference.sop_instance_uid,
                sop_class_uid=reference.sop_class_uid,
                label=label,
                planned=planned,
                approval=approval,
                reviewed=reviewed,
                intent="VERIFICATION" if verifies else treatment.intent,
                machine=chart.linac.name,
                energy=treatment.energy,
                flattened=treatment.flattened,
                fractions=fractions_planned,
                frame_of_reference_uid=frame,
                beams=beams,
                structure_set=structure_set,
                drr_series_uid=chart.series_uid(Kind.DRR, *key) if drawn else "",
                verifies=verifies,
                doses=doses,
                records=fractions.records(chart, key, treated),
                portal_images=portal_images,
                registrations=registrations,
            )
        )

    def _reference(self, key: tuple[int, ...]) -> PlanReference:
        private = self.chart.has(Irregularity.HALCYON_PLAN_CLASS)
        return PlanReference(
            sop_class_uid=uids.VARIAN_HALCYON_RT_PLAN if private else uids.RT_PLAN,
            sop_instance_uid=self.chart.uid(UidRoot.PLAN, *key),
        )

    def _beams(self, key: tuple[int, ...]) -> tuple[CaseBeam, ...]:
        chart, treatment = self.chart, self.chart.treatment
        chance = chart.chance("beams", *key)
        count = len(treatment.gantry_angles)
        width, length = treatment.field_mm
        collimator = float(chance.choice((0, 5, 10, 355)))
        return tuple(
            CaseBeam(
                number=number,
                name=f"{number} G{angle:.0f}",
                gantry=angle,
                collimator=collimator,
                couch=0.0,
                meterset=round(treatment.meterset / count * chance.uniform(0.8, 1.2), 1),
                width_mm=width,
                length_mm=length,
                drr_uid=chart.uid(UidRoot.IMAGE, Kind.DRR, *key, number) if chart.has(Irregularity.DRRS) else "",
            )
            for number, angle in enumerate(treatment.gantry_angles, start=1)
        )

    def _doses(
        self, key: tuple[int, ...], study: Study, beams: Sequence[CaseBeam], planned: datetime
    ) -> tuple[Dose, ...]:
        chart = self.chart
        computed = planned + timedelta(minutes=15)
        if chart.has(Irregularity.DOSE_IN_OTHER_STUDY):
            study = Study(
                uid=chart.uid(UidRoot.STUDY, StudyNumber.DOSES),
                study_id="Doses",
                opened=chart.schedule.planned,
                description=ARIA_STUDY,
            )

        def dose(kind: Kind, beam: int | None) -> Dose:
            uid = chart.uid(UidRoot.DOSE, *key, beam or 0)
            return Dose(
                study=study,
                series_uid=chart.series_uid(kind, *key),
                sop_instance_uid=with_leading_zero(uid) if chart.has(Irregularity.LEADING_ZERO_UID) else uid,
                computed=computed,
                beam=beam,
            )

        whole = dose(Kind.DOSE, None)
        if not chart.has(Irregularity.BEAM_DOSES):
            return (whole,)
        return (whole, *(dose(Kind.BEAM_DOSE, beam.number) for beam in beams))


def _key(course: StudyNumber, number: int, planned: datetime) -> tuple[int, ...]:
    """Return what tells a plan from all others of the patient."""
    return (int(course), int(number), int(planned.strftime("%Y%m%d")))


def _without_drr(beam: CaseBeam) -> CaseBeam:
    return CaseBeam(
        number=beam.number,
        name=beam.name,
        gantry=beam.gantry,
        collimator=beam.collimator,
        couch=beam.couch,
        meterset=beam.meterset,
        width_mm=beam.width_mm,
        length_mm=beam.length_mm,
    )
