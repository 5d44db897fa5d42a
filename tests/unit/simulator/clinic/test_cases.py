"""Cases: what of a patient there is, when, and under which UIDs."""

from __future__ import annotations

import time
from collections import Counter
from datetime import date, timedelta

import pytest

from airflow_provider_varian.simulator.clinic.calendar import is_working_day, newest_patient, planning_day
from airflow_provider_varian.simulator.clinic.case import Approval, ImageKind
from airflow_provider_varian.simulator.clinic.cases import as_of, make_case
from airflow_provider_varian.simulator.clinic.chart import LONGEST
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.clinic.irregularities import Irregularity

IDENTITY = Identity(7)
LAST = newest_patient(date(2026, 11, 20))
NUMBERS = range(LAST - 300, LAST)


@pytest.fixture(scope="module")
def cases():
    return [make_case(IDENTITY, number) for number in NUMBERS]


def moments(case):
    """When each part of a case was made, by SOP or Series Instance UID."""
    found = {series.series_uid: series.acquired for series in case.image_series}
    found |= {drawn.sop_instance_uid: drawn.drawn for drawn in case.structure_sets}
    found |= {image.sop_instance_uid: image.acquired for image in case.strays}
    found |= {series.series_uid: series.made for series in case.empty_series}
    for plan in case.plans:
        found[plan.sop_instance_uid] = plan.planned
        found |= {dose.sop_instance_uid: dose.computed for dose in plan.doses}
        found |= {record.sop_instance_uid: record.treated for record in plan.records}
        found |= {image.sop_instance_uid: image.acquired for image in plan.portal_images}
        found |= {made.sop_instance_uid: made.made for made in plan.registrations}
    return found


def instance_uids(case):
    yield from (uid for series in case.image_series for uid in series.instance_uids)
    yield from (drawn.sop_instance_uid for drawn in case.structure_sets)
    yield from (image.sop_instance_uid for image in case.strays)
    for plan in case.plans:
        yield plan.sop_instance_uid
        yield from (beam.drr_uid for beam in plan.beams if beam.drr_uid)
        for parts in (plan.doses, plan.records, plan.portal_images, plan.registrations):
            yield from (part.sop_instance_uid for part in parts)


def series_uids(case):
    """Each series once, by what may share it."""
    yield from (series.series_uid for series in case.image_series)
    yield from (drawn.series_uid for drawn in case.structure_sets)
    yield from (series.series_uid for series in case.empty_series)
    yield from {image.series_uid for image in case.strays}
    for plan in case.plans:
        yield plan.series_uid
        if plan.drr_series_uid:
            yield plan.drr_series_uid
        yield from {dose.series_uid for dose in plan.doses}
        yield from {image.series_uid for image in plan.portal_images}
        yield from (part.series_uid for parts in (plan.records, plan.registrations) for part in parts)


def study_uids(case):
    held = [
        *case.image_series,
        *case.structure_sets,
        *case.plans,
        *(dose for plan in case.plans for dose in plan.doses),
    ]
    return {part.study.uid for part in held}


def test_the_same_seed_makes_the_same_case_and_another_seed_another(cases):
    assert [make_case(Identity(7), number) for number in NUMBERS[:20]] == cases[:20]
    assert all(make_case(Identity(8), number) != case for number, case in zip(NUMBERS[:20], cases, strict=False))


def test_no_uid_occurs_twice_and_each_names_its_patient(cases):
    seen = Counter()
    for case in cases:
        uids = [*instance_uids(case), *series_uids(case), *study_uids(case)]
        seen.update(uids)
        assert max(len(uid) for uid in uids) <= 64
        assert {IDENTITY.patient_of(uid) for uid in uids} == {case.number}
    assert max(seen.values()) == 1


def test_uids_fit_whatever_the_site_and_the_patient():
    identity = Identity(7)
    identity.site = 10**12 - 1
    case = make_case(identity, 999_999)
    assert max(len(uid) for uid in instance_uids(case)) <= 62


def test_the_course_of_a_treatment(cases):
    for case in cases:
        day = planning_day(case.number)
        assert case.image_series[0].acquired.date() == day
        assert case.plans[0].planned.date() == day
        assert case.plans[0].planned > case.plans[0].structure_set.drawn > case.image_series[0].acquired
        for plan in case.plans:
            if plan.approval is Approval.UNAPPROVED:
                assert (plan.reviewed, plan.records) == (None, ())
            else:
                assert plan.reviewed > plan.planned
            days = [record.treated.date() for record in plan.records]
            assert all(is_working_day(each) and each > plan.reviewed.date() for each in days)
            assert days == sorted(days)
            if Irregularity.SPLIT_FRACTION not in case.irregularities:
                assert len(set(days)) == len(days)
        assert max(moments(case).values()).date() <= day + LONGEST - timedelta(days=20)


def test_each_fraction_has_its_record_and_a_new_plan_takes_over(cases):
    for case in cases:
        first, *others = (plan for plan in case.plans if plan.records)
        again = [plan for plan in others if plan.label.endswith(":1")]
        assert first.fractions == sum(len({record.fraction for record in plan.records}) for plan in (first, *again))
        for plan in again:
            assert plan.records[0].treated > first.records[-1].treated
            assert plan.structure_set.images.series_uid != first.structure_set.images.series_uid
            assert plan.study == first.study
            assert plan.fractions == len({record.fraction for record in plan.records})


def test_what_belongs_together_names_each_other(cases):
    for case in cases:
        by_uid = {plan.sop_instance_uid: plan for plan in case.plans}
        frames = {series.frame_of_reference_uid: series for series in case.image_series}
        for series in case.image_series:
            assert 40 <= len(series.instance_uids) <= 120
            if series.kind is ImageKind.CBCT:
                assert series.plan == by_uid[series.plan.sop_instance_uid].reference
            else:
                assert series.plan is None
        for plan in case.plans:
            if plan.structure_set is not None:
                assert plan.frame_of_reference_uid == plan.structure_set.images.frame_of_reference_uid
                assert plan.structure_set.images in case.image_series
            assert {dose.beam for dose in plan.doses} <= {None, *(beam.number for beam in plan.beams)}
            for image in plan.portal_images:
                assert (image.plan, image.study) == (plan.reference, plan.study)
                assert image.beam in plan.beams
            for made in plan.registrations:
                assert made.fixed.frame_of_reference_uid == plan.frame_of_reference_uid
                assert frames[made.moving.frame_of_reference_uid].kind is ImageKind.CBCT


def test_labels_fit_and_are_unique_in_their_course(cases):
    for case in cases:
        labels = [(plan.study.uid, plan.label) for plan in case.plans]
        assert len(set(labels)) == len(labels)
        assert all(1 <= len(label) <= 16 and label == label.strip() for _, label in labels)
        assert all(len(drawn.label) <= 16 and drawn.label == drawn.label.strip() for drawn in case.structure_sets)
        assert all(len(image.label) <= 16 for plan in case.plans for image in plan.portal_images)


def test_a_case_at_the_end_of_a_day_has_nothing_later_and_all_earlier(cases):
    for case in cases[::5]:
        whole = moments(case)
        for days in (0, 1, 4, 20, 60):
            day = planning_day(case.number) + timedelta(days=days)
            assert moments(as_of(case, day)) == {uid: made for uid, made in whole.items() if made.date() <= day}
        assert as_of(case, planning_day(case.number) + LONGEST) == case


def test_a_plan_is_unapproved_until_it_is_reviewed(cases):
    for case in cases[::5]:
        reviewed = case.plans[0].reviewed.date()
        before, after = (as_of(case, day).plans[0] for day in (reviewed - timedelta(days=1), reviewed))
        assert (before.approval, before.reviewed) == (Approval.UNAPPROVED, None)
        assert (after.approval, after.reviewed) == (Approval.APPROVED, case.plans[0].reviewed)


def test_about_twenty_five_patients_are_under_treatment_in_any_week(cases):
    for monday in (date(2026, 2, 9), date(2026, 5, 18), date(2026, 9, 14)):
        week = {monday + timedelta(days=days) for days in range(5)}
        nearby = [make_case(IDENTITY, newest_patient(monday) - back) for back in range(-4, 90)]
        under = [
            case
            for case in nearby
            if any(record.treated.date() in week for plan in case.plans for record in plan.records)
        ]
        assert 18 <= len(under) <= 36


def test_a_case_is_made_in_about_a_millisecond():
    start = time.thread_time()  # of this thread: what else the machine does is not counted
    for number in NUMBERS[:100]:
        make_case(IDENTITY, number)
    assert time.thread_time() - start < 1.0
