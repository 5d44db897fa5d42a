"""Cases of clinical patients, made from seed and number when they are looked at, and what of them is there on a day."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

from airflow_provider_varian.simulator.clinic import fractions
from airflow_provider_varian.simulator.clinic.case import Approval, Case, EmptySeries, Plan, PortalImage
from airflow_provider_varian.simulator.clinic.chart import Chart, Kind, StudyNumber, chart_of, shown_on
from airflow_provider_varian.simulator.clinic.courses import planned_on
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.clinic.irregularities import ALL, Irregularity, irregularities_of
from airflow_provider_varian.simulator.clinic.linacs import PORTAL
from airflow_provider_varian.simulator.clinic.patients import patient_id, person
from airflow_provider_varian.simulator.clinic.planning_images import Basis, first_basis


def make_case(identity: Identity, number: int, wanted: frozenset[Irregularity] = ALL) -> Case:
    """Make up a clinical patient with all that ever is there, in about a millisecond.

    :param number: of the patient, from :data:`.calendar.FIRST_CLINICAL`.
    :param wanted: irregularities that the clinic has; the patient has some of them, or none.
    """
    found = irregularities_of(identity, number, wanted)
    chart = chart_of(identity, number, found)
    who = person(identity, number)
    course = chart.course(StudyNumber.COURSE, chart.schedule.scanned - timedelta(minutes=10))
    basis = first_basis(chart, course)
    planned = planned_on(chart, basis)
    bases = (basis, *planned.bases)
    return Case(
        number=number,
        patient_id=patient_id(identity, number, wanted),
        name=who.name,
        former_name=who.former_name if Irregularity.NAME_CHANGED in found else "",
        birth_date=who.birth_date,
        sex=who.sex,
        image_series=(*(each.images for each in bases), *planned.cone_beam_cts),
        structure_sets=tuple(drawn for each in bases for drawn in each.held),
        plans=planned.plans,
        strays=_strays(chart, basis),
        empty_series=_empty_series(chart, basis),
        unmovable=_unmovable(planned.plans, chart),
        irregularities=found,
    )


def as_of(case: Case, day: date) -> Case:
    """Return what of a case is there at the end of a day; what comes later does not exist yet.

    A plan that is reviewed later is there and unapproved, as in a clinic.
    """
    return replace(
        case,
        image_series=tuple(each for each in case.image_series if shown_on(day, each.acquired)),
        structure_sets=tuple(each for each in case.structure_sets if shown_on(day, each.drawn)),
        plans=tuple(_plan_as_of(plan, day) for plan in case.plans if shown_on(day, plan.planned)),
        strays=_taken(case.strays, day),
        empty_series=tuple(each for each in case.empty_series if shown_on(day, each.made)),
    )


def _plan_as_of(plan: Plan, day: date) -> Plan:
    reviewed = plan.reviewed is not None and shown_on(day, plan.reviewed)
    return replace(
        plan,
        approval=plan.approval if reviewed else Approval.UNAPPROVED,
        reviewed=plan.reviewed if reviewed else None,
        doses=tuple(each for each in plan.doses if shown_on(day, each.computed)),
        records=tuple(each for each in plan.records if shown_on(day, each.treated)),
        portal_images=_taken(plan.portal_images, day),
        registrations=tuple(each for each in plan.registrations if shown_on(day, each.made)),
    )


def _taken(images: tuple[PortalImage, ...], day: date) -> tuple[PortalImage, ...]:
    return tuple(each for each in images if shown_on(day, each.acquired))


def _strays(chart: Chart, basis: Basis) -> tuple[PortalImage, ...]:
    if not chart.has(Irregularity.IMAGES_WITHOUT_PLAN):
        return ()
    begin = chart.schedule.planned + timedelta(minutes=50)
    return tuple(
        fractions.exposures(chart, Kind.STRAY, (1,), basis.course, None, (None, None), begin, 0, image_type=PORTAL)
    )


def _empty_series(chart: Chart, basis: Basis) -> tuple[EmptySeries, ...]:
    if not chart.has(Irregularity.EMPTY_SERIES):
        return ()
    return (
        EmptySeries(
            study=basis.course,
            series_uid=chart.series_uid(Kind.EMPTY, 1),
            modality="RTIMAGE",
            description="MV",
            made=chart.schedule.planned,
        ),
    )


def _unmovable(plans: tuple[Plan, ...], chart: Chart) -> frozenset[str]:
    if not chart.has(Irregularity.SERIES_NOT_MOVABLE):
        return frozenset()
    # The images added to the treated plan last.
    return frozenset({plans[0].portal_images[-1].series_uid})
