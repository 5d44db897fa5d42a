"""Planning CTs and the structure sets that are drawn on them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_varian.simulator.clinic.calendar import working_days_after
from airflow_provider_varian.simulator.clinic.case import Approval, ImageKind, ImageSeries, StructureSet, Study
from airflow_provider_varian.simulator.clinic.chart import ARIA_STUDY, Chart, Kind, StudyNumber
from airflow_provider_varian.simulator.clinic.identity import UidRoot
from airflow_provider_varian.simulator.clinic.irregularities import Irregularity

_SCANNER = "CTSIM1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What plans are made on.

    :param course: study of the course.
    :param images: planning CT.
    :param structure_set: the one that plans name.
    :param others: structure sets that no plan names, with the other if ARIA holds it.
    """

    course: Study
    images: ImageSeries
    structure_set: StructureSet
    held: tuple[StructureSet, ...]


def first_basis(chart: Chart, course: Study) -> Basis:
    """Return the planning CT of the first day and its structure sets."""
    images = planning_ct(chart, course, 1, chart.schedule.scanned)
    drawn = chart.schedule.scanned + timedelta(minutes=95)
    named = structure_set(chart, course, images, 1, drawn, chart.treatment.site)
    held = [] if chart.has(Irregularity.STRUCTURE_SET_MISSING) else [named]
    if chart.has(Irregularity.UNUSED_STRUCTURE_SET):
        earlier = chart.schedule.scanned + timedelta(minutes=40)
        held.insert(0, structure_set(chart, course, images, 2, earlier, "auto", Approval.UNAPPROVED))
    if chart.has(Irregularity.NEWER_STRUCTURE_SET):
        later = datetime.combine(next(working_days_after(drawn.date())), drawn.time())
        held.append(structure_set(chart, course, images, 3, later, f"{chart.treatment.site} 1", Approval.UNAPPROVED))
    return Basis(course=course, images=images, structure_set=named, held=tuple(held))


def second_basis(chart: Chart, course: Study, scanned: datetime) -> Basis:
    """Return the CT of a later day on which a plan is made anew, and its structure set."""
    images = planning_ct(chart, course, 2, scanned)
    named = structure_set(chart, course, images, 4, scanned + timedelta(minutes=30), f"{chart.treatment.site} new")
    return Basis(course=course, images=images, structure_set=named, held=(named,))


def planning_ct(chart: Chart, course: Study, ordinal: int, acquired: datetime) -> ImageSeries:
    """Return a planning CT, in the course's study or in the scanner's own.

    :param ordinal: 1 for the first of the patient.
    """
    chance = chart.chance("ct", ordinal)
    slices = chance.randint(40, 120)
    study = course
    if chart.has(Irregularity.CT_IN_OTHER_STUDY):
        study = Study(
            uid=chart.uid(UidRoot.STUDY, StudyNumber.SCANNER + ordinal - 1),
            study_id=str(chance.randrange(20_000, 99_999)),
            opened=acquired - timedelta(minutes=12),
            description="RT Planning CT",
        )
    prefix = chart.uid(UidRoot.IMAGE, Kind.PLANNING_CT, ordinal)
    missing = {chance.randrange(1, slices - 1)} if chart.has(Irregularity.CT_SLICE_MISSING) else ()
    return ImageSeries(
        kind=ImageKind.PLANNING_CT,
        study=study,
        series_uid=chart.series_uid(Kind.PLANNING_CT, ordinal),
        frame_of_reference_uid=chart.uid(UidRoot.FRAME_OF_REFERENCE, Kind.PLANNING_CT, ordinal),
        instance_uids=tuple([f"{prefix}.{number}" for number in range(1, slices + 1)]),
        slice_mm=3.0 if slices < 90 else 2.5,
        acquired=acquired,
        description=f"{chart.treatment.site} 3mm" if slices < 90 else f"{chart.treatment.site} 2.5mm",
        machine=_SCANNER,
        missing=frozenset(missing),
    )


def structure_set(
    chart: Chart,
    course: Study,
    images: ImageSeries,
    ordinal: int,
    drawn: datetime,
    label: str,
    approval: Approval = Approval.APPROVED,
) -> StructureSet:
    """Return a structure set; in another study than the plan's it lies with the scanner's CT, or by itself.

    :param ordinal: tells the patient's structure sets apart.
    """
    study = course
    if chart.has(Irregularity.STRUCTURE_SET_IN_OTHER_STUDY):
        study = images.study
        if study is course:
            study = Study(
                uid=chart.uid(UidRoot.STUDY, StudyNumber.CONTOURS),
                study_id="Contours",
                opened=chart.schedule.scanned,
                description=ARIA_STUDY,
            )
    return StructureSet(
        study=study,
        series_uid=chart.series_uid(Kind.STRUCTURE_SET, ordinal),
        sop_instance_uid=chart.uid(UidRoot.STRUCTURE_SET, ordinal),
        label=label[:16],
        drawn=drawn,
        approval=approval,
        images=images,
        regions=chart.regions,
    )
