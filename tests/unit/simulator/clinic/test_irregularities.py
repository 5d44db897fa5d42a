"""What is unusual about patients: that it is there, that it is what it is called, and that it can be had or not."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.calendar import newest_patient
from airflow_provider_varian.simulator.clinic.case import Approval, ImageKind
from airflow_provider_varian.simulator.clinic.cases import make_case
from airflow_provider_varian.simulator.clinic.chart import ARIA_STUDY
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.clinic.irregularities import ALL, Irregularity, irregularities_of

IDENTITY = Identity(7)
LAST = newest_patient(date(2026, 11, 20))
NUMBERS = range(LAST - 600, LAST)

#: The IDs' own are in test_patients.
IDS = {
    Irregularity.PATIENT_ID_WITH_DOLLAR,
    Irregularity.PATIENT_ID_WITH_BLANK,
    Irregularity.PATIENT_ID_WITH_UNDERSCORE,
    Irregularity.LONG_PATIENT_ID,
    Irregularity.PATIENT_ID_IN_OTHER_CASE,
    Irregularity.PATIENT_ID_ONE_LONGER,
}


@pytest.fixture(scope="module")
def cases():
    return {number: make_case(IDENTITY, number) for number in NUMBERS}


def treated(case):
    return case.plans[0]


def cbcts(case):
    return [series for series in case.image_series if series.kind is ImageKind.CBCT]


def planning_cts(case):
    return [series for series in case.image_series if series.kind is ImageKind.PLANNING_CT]


def doses(case):
    return [(plan, dose) for plan in case.plans for dose in plan.doses]


def registrations(case):
    return [made for plan in case.plans for made in plan.registrations]


def named(case):
    return {plan.structure_set.sop_instance_uid for plan in case.plans if plan.structure_set}


def unnamed(case):
    return [drawn for drawn in case.structure_sets if drawn.sop_instance_uid not in named(case)]


def labels_by_course(case):
    return Counter((plan.label) for plan in case.plans)


def with_suffix(case, suffix):
    return [plan for plan in case.plans if plan.label.endswith(suffix)]


SHOWS = {
    Irregularity.CBCT: cbcts,
    Irregularity.PLAN_WITHOUT_BEAMS: lambda case: [plan for plan in case.plans if not plan.beams],
    Irregularity.LONG_PLAN_LABEL: lambda case: 12 < len(treated(case).label) <= 16,
    Irregularity.STRUCTURE_SET_MISSING: lambda case: (
        treated(case).structure_set.sop_instance_uid not in {drawn.sop_instance_uid for drawn in case.structure_sets}
    ),
    Irregularity.DRRS: lambda case: all(beam.drr_uid for beam in treated(case).beams) and treated(case).drr_series_uid,
    Irregularity.SAME_LABEL_IN_TWO_COURSES: lambda case: (
        len({plan.study.uid for plan in case.plans if plan.label == treated(case).label}) == 2
        and len({plan.study.study_id for plan in case.plans}) == 2
    ),
    Irregularity.EMPTY_SERIES: lambda case: case.empty_series,
    Irregularity.DOSE_IN_OTHER_STUDY: lambda case: any(dose.study != plan.study for plan, dose in doses(case)),
    Irregularity.VERIFICATION_PLAN: lambda case: [
        plan
        for plan in case.plans
        if plan.verifies == treated(case).reference
        and plan.intent == "VERIFICATION"
        and Counter(image.image_type[-1] for image in plan.portal_images)
        == {"ACQUIRED_DOSE": len(plan.beams), "PREDICTED_DOSE": len(plan.beams)}
    ],
    Irregularity.HALCYON_PLAN_CLASS: lambda case: (
        {plan.sop_class_uid for plan in case.plans} == {uids.VARIAN_HALCYON_RT_PLAN}
        and treated(case).machine == "Halcyon2"
    ),
    Irregularity.REPLANNED: lambda case: len([plan for plan in case.plans if plan.label.endswith(":1")]) == 1,
    Irregularity.PLAN_WITHOUT_DOSE: lambda case: not treated(case).doses,
    Irregularity.CT_IN_OTHER_STUDY: lambda case: planning_cts(case)[0].study != treated(case).study,
    Irregularity.SERIES_NOT_MOVABLE: lambda case: (
        case.unmovable and case.unmovable <= {image.series_uid for image in treated(case).portal_images}
    ),
    Irregularity.UNAPPROVED_PLAN: lambda case: with_suffix(case, "_alt"),
    Irregularity.BEAM_DOSES: lambda case: [dose for _, dose in doses(case) if dose.beam is not None],
    Irregularity.LEADING_ZERO_UID: lambda case: [
        dose for _, dose in doses(case) if dose.sop_instance_uid.split(".")[-1].startswith("0")
        and not dose.sop_instance_uid.endswith(".0")
    ],
    Irregularity.NEWER_STRUCTURE_SET: lambda case: [
        drawn for drawn in unnamed(case)
        if drawn.drawn > treated(case).planned and drawn.images.series_uid == planning_cts(case)[0].series_uid
    ],
    Irregularity.UNUSED_STRUCTURE_SET: lambda case: [
        drawn for drawn in unnamed(case) if drawn.drawn < treated(case).planned
    ],
    Irregularity.CT_SLICE_MISSING: lambda case: any(series.missing for series in planning_cts(case)),
    Irregularity.REJECTED_PLAN: lambda case: [plan for plan in case.plans if plan.approval is Approval.REJECTED],
    Irregularity.IMAGES_WITHOUT_PLAN: lambda case: (
        case.strays and all(image.plan is None and image.beam is None for image in case.strays)
    ),
    Irregularity.SHARED_REGISTRATION: lambda case: (
        cbcts(case)
        and len(cbcts(case)) > len(registrations(case)) == len({each.frame_of_reference_uid for each in cbcts(case)})
    ),
    Irregularity.STRUCTURE_SET_IN_OTHER_STUDY: lambda case: treated(case).structure_set.study != treated(case).study,
    Irregularity.NAME_CHANGED: lambda case: case.former_name,
    Irregularity.SPLIT_FRACTION: lambda case: (
        max(Counter(record.fraction for record in treated(case).records).values()) == 2
    ),
    Irregularity.MANY_PLANS: lambda case: len(case.plans) > 30,
}  # fmt: skip


def test_each_irregularity_has_its_test():
    assert set(SHOWS) | IDS == ALL


@pytest.mark.parametrize("irregularity", sorted(SHOWS), ids=str)
def test_who_has_an_irregularity_shows_it_and_nobody_else_does(cases, irregularity):
    having = {number for number, case in cases.items() if irregularity in case.irregularities}
    showing = {number for number, case in cases.items() if SHOWS[irregularity](case)}
    assert having
    assert showing == having


def test_each_occurs_among_any_twice_as_many_neighbours_as_there_are():
    for first in (NUMBERS[0], NUMBERS[1], NUMBERS[33], 104, 90_000):
        neighbours = range(first, first + 2 * len(Irregularity))
        assert frozenset().union(*(irregularities_of(IDENTITY, number) for number in neighbours)) == ALL


def test_some_have_one_of_their_own_some_several_and_some_none():
    counts = Counter(len(irregularities_of(IDENTITY, number)) for number in NUMBERS)
    assert counts[0] >= len(NUMBERS) / 6
    assert counts[1] >= len(NUMBERS) / 3
    assert sum(count for having, count in counts.items() if having > 2) >= len(NUMBERS) / 10


def test_a_plain_patient_has_ct_structures_plan_dose_records_and_portal_images_in_one_study(cases):
    plain = [case for case in cases.values() if not case.irregularities]
    assert plain
    for case in plain:
        (images,), (drawn,), (plan,) = case.image_series, case.structure_sets, case.plans
        (dose,) = plan.doses
        assert {images.study, drawn.study, plan.study, dose.study} == {plan.study}
        assert (plan.study.description, plan.study.study_id) == (ARIA_STUDY, "C1")
        assert plan.structure_set is drawn
        assert drawn.images is images
        assert plan.approval is Approval.APPROVED
        assert len(plan.records) == plan.fractions
        assert {image.plan for image in plan.portal_images} == {plan.reference}
        assert (plan.sop_class_uid, dose.beam, plan.drr_series_uid) == (uids.RT_PLAN, None, "")
        assert not case.strays
        assert not case.empty_series
        assert not case.unmovable


def test_what_is_not_wanted_does_not_occur_and_nothing_else_changes(cases):
    for irregularity in (Irregularity.DRRS, Irregularity.CT_IN_OTHER_STUDY, Irregularity.PATIENT_ID_WITH_DOLLAR):
        for number, before in list(cases.items())[::5]:
            after = make_case(IDENTITY, number, ALL - {irregularity})
            implied = Irregularity.NAME_CHANGED in before.irregularities
            if irregularity not in before.irregularities or (irregularity == "ct-in-other-study" and implied):
                assert after == before
            else:
                assert after.irregularities == before.irregularities - {irregularity}
                assert [plan.records for plan in after.plans] == [plan.records for plan in before.plans]
                assert [plan.beams[0].meterset for plan in after.plans if plan.beams] == [
                    plan.beams[0].meterset for plan in before.plans if plan.beams
                ]
    assert not any(make_case(IDENTITY, number, frozenset()).irregularities for number in NUMBERS[:99])


def test_each_is_told_in_one_line_with_the_quirks_number():
    assert len({each.meaning for each in Irregularity}) == len(Irregularity)
    for each in Irregularity:
        assert 10 < len(each.meaning) <= 100
        assert "\n" not in each.meaning
        assert not each.meaning.endswith(".")
    assert {each.quirk for each in Irregularity} == {None, 6, 7, 8, 12, 19, 21, 22, 24}
    assert Irregularity("drrs") is Irregularity.DRRS
    assert str(Irregularity.DRRS) == "drrs"
