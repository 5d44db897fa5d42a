"""The oracle and the synthetic clinic, told from the same files: what belongs together, what dangles, what is nobody's.

The truth is computed from the cases that the clinic is made of; the oracle sees the files alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date

import pytest
from support.oracle import judge_files
from support.oracle_data import save
from support.oracle_files import Names, read_files
from support.oracle_findings import Beam, Dangling, Kind, MachineDay, PlanningSeries, PlanSet, RTImage
from support.short_clinic import ShortClinic
from support.simulated import identifier

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.clinic.case import Case, ImageKind, ImageSeries, Plan
from airflow_provider_varian.simulator.clinic.irregularities import Irregularity
from airflow_provider_varian.simulator.clinic.linacs import PORTAL, PORTAL_DOSE
from airflow_provider_varian.simulator.facts import case_facts, facts, instance_facts
from airflow_provider_varian.simulator.holdings.tree import Export, Search, instances_below, walk

UNTIL = date(2026, 7, 31)
#: Neighbours enough for each irregularity (see clinic.irregularities).
PATIENTS = 2 * len(Irregularity)
KINDS = {
    PORTAL: Kind.PORTAL,
    PORTAL_DOSE: Kind.ACQUIRED_DOSE,
    ("DERIVED", "SECONDARY", "PORTAL", "PREDICTED_DOSE"): Kind.PREDICTED_DOSE,
}
NONE: frozenset[str] = frozenset()


@dataclass
class Told:
    """What the cases say of the objects that are written."""

    held: frozenset[str]
    plans: dict[str, PlanSet]
    machine_days: dict[tuple[str, date], dict[str, set[str]]]
    treatment_days: dict[tuple[str, date], set[str]]
    without_plan: set[str]
    dangling: dict[str, tuple[set[str], set[str]]]


@pytest.fixture(scope="module")
def clinic():
    return ShortClinic(seed=3, patients=PATIENTS, days=2, until=UNTIL, matrix=16)


@pytest.fixture(scope="module")
def cases(clinic):
    return list(case_facts(clinic))


@pytest.fixture(scope="module")
def written(clinic, tmp_path_factory):
    """Write what can be retrieved of the whole clinic, the machines' QA included; return folder and UIDs."""
    folder = tmp_path_factory.mktemp("clinic")
    uids = []
    for patient in walk(clinic, Search(Level.PATIENT, identifier("", PatientID=""))):
        for chain in instances_below(patient):
            if chain[-2].export is Export.NORMAL is chain[-1].export:
                save(chain[-1].fetch(), folder / f"{len(uids):05d}.dcm")
                uids.append(chain[-1].uid)
    assert len(uids) == len(set(uids))
    return folder, frozenset(uids)


@pytest.fixture(scope="module")
def files(written):
    return read_files(written[0])


@pytest.fixture(scope="module")
def found(files):
    return judge_files(files)


@pytest.fixture(scope="module")
def told(clinic, cases, written):
    told = Told(written[1], {}, defaultdict(lambda: defaultdict(set)), defaultdict(set), set(), {})
    for case in cases:
        _tell(told, case)
    for fact in facts(clinic):
        images = [(day, image) for day in fact.days for image in fact.images(day)]
        kind = KINDS[fact.place.plan.image_type]
        told.plans[fact.sop_instance_uid] = PlanSet(
            plan=fact.sop_instance_uid,
            rt_images=frozenset(
                RTImage(
                    uid=image.sop_instance_uid,
                    kind=Kind.PORTAL if image.kv else kind,
                    beam=Beam.KV if image.kv else Beam.MV,
                )
                for _, image in images
            ),
        )
        for day, image in images:
            told.machine_days[fact.machine, day]["kv" if image.kv else "mv"].add(image.sop_instance_uid)
    return told


def _tell(told: Told, case: Case) -> None:
    for plan in case.plans:
        if plan.sop_instance_uid in told.held:
            told.plans[plan.sop_instance_uid] = _plan_set(told, case, plan)
            for beam in plan.beams:
                if beam.drr_uid:
                    told.machine_days[plan.machine, plan.planned.date()]["computed"].add(beam.drr_uid)
        for record in plan.records:
            told.treatment_days[plan.machine, record.treated.date()].add(record.sop_instance_uid)
    for image in (*case.strays, *(image for plan in case.plans for image in plan.portal_images)):
        if image.sop_instance_uid in told.held:
            kind = "computed" if image.image_type[0] == "DERIVED" else "mv" if image.beam else "kv"
            told.machine_days[image.machine, image.acquired.date()][kind].add(image.sop_instance_uid)
    told.without_plan |= {each.sop_instance_uid for each in case.strays}
    _tell_dangling(told, case)


def _plan_set(told: Told, case: Case, plan: Plan) -> PlanSet:
    drawn = plan.structure_set
    if drawn is not None and drawn not in case.structure_sets:
        drawn = None
    beam_doses = defaultdict(set)
    for dose in plan.doses:
        if dose.beam is not None:
            beam_doses[dose.beam].add(dose.sop_instance_uid)
    return PlanSet(
        plan=plan.sop_instance_uid,
        structure_sets=frozenset({drawn.sop_instance_uid}) if drawn else NONE,
        images={drawn.images.series_uid: _series(drawn.images)} if drawn else {},
        plan_doses=frozenset(each.sop_instance_uid for each in plan.doses if each.beam is None),
        beam_doses={beam: frozenset(uids) for beam, uids in beam_doses.items()},
        records=frozenset(each.sop_instance_uid for each in plan.records),
        registrations=frozenset(each.sop_instance_uid for each in plan.registrations),
        cbcts={
            each.series_uid: frozenset(each.instance_uids)
            for each in case.image_series
            if each.kind is ImageKind.CBCT and each.plan == plan.reference
        },
        rt_images=frozenset(
            RTImage(
                uid=each.sop_instance_uid, kind=KINDS[each.image_type], beam=Beam.MV if each.beam else Beam.KV
            )
            for each in plan.portal_images
            if each.sop_instance_uid in told.held
        ),
        drrs=frozenset(beam.drr_uid for beam in plan.beams if beam.drr_uid),
        verifies=frozenset({plan.verifies.sop_instance_uid}) if plan.verifies else NONE,
        verified_by={
            each.sop_instance_uid: frozenset(image.sop_instance_uid for image in each.portal_images)
            for each in case.plans
            if each.verifies == plan.reference
        },
    )  # fmt: skip


def _series(images: ImageSeries) -> PlanningSeries:
    missing = frozenset(images.instance_uids[index] for index in images.missing)
    named = frozenset(images.instance_uids)
    return PlanningSeries(
        uid=images.series_uid, named=named, held=named - missing, missing=missing, unnamed=NONE, other_frame=NONE
    )


def _tell_dangling(told: Told, case: Case) -> None:
    held = {each.sop_instance_uid for each in case.structure_sets}
    for plan in case.plans:
        if plan.sop_instance_uid in told.held and plan.structure_set:
            uid = plan.structure_set.sop_instance_uid
            if uid not in held:
                by, through = told.dangling.setdefault(uid, (set(), set()))
                by.add(plan.sop_instance_uid)
                through.add("ReferencedStructureSetSequence")
    for images in case.image_series:
        for index in images.missing:
            drawn = {each.sop_instance_uid for each in case.structure_sets if each.images == images}
            joined = {
                each.sop_instance_uid for plan in case.plans for each in plan.registrations if each.fixed == images
            }
            through = {"ContourImageSequence"} if drawn else set()
            if joined:
                through |= {"ReferencedImageSequence", "ReferencedInstanceSequence"}
            told.dangling[images.instance_uids[index]] = (drawn | joined, through)


def test_the_clinic_has_each_irregularity(cases):
    assert frozenset().union(*(case.irregularities for case in cases)) == frozenset(Irregularity)
    assert len(cases) == PATIENTS


def test_all_that_can_be_retrieved_is_written(clinic, cases, written):
    clinical = {
        fact.sop_instance_uid for case in cases for fact in instance_facts(clinic, case) if fact.export is Export.NORMAL
    }
    assert clinical < written[1]
    assert len(clinical) > 1000


def test_what_belongs_to_each_plan(found, told):
    assert found.plans.keys() == told.plans.keys()
    for uid, plan_set in told.plans.items():
        assert found.plans[uid] == plan_set, uid


def test_what_falls_on_each_machine_and_day(found, told):
    days = {
        when: MachineDay(**{part: frozenset(uids) for part, uids in parts.items()})
        for when, parts in told.machine_days.items()
    }
    assert found.machine_days == days
    assert found.treatment_days == {when: frozenset(uids) for when, uids in told.treatment_days.items()}
    assert found.undated == NONE


def test_what_dangles(found, told):
    assert set(found.dangling) == {
        Dangling(uid=uid, names=Names.INSTANCE, named_by=frozenset(by), through=frozenset(through))
        for uid, (by, through) in told.dangling.items()
    }


def test_what_belongs_to_nobody(found, told):
    assert found.without_plan == told.without_plan
    members = frozenset().union(*(plan_set.members for plan_set in told.plans.values()))
    assert found.unclaimed == told.held - members
    assert dict(found.of_other_plans) == {}


def test_what_is_named_twice_is_named_in_both_places(cases, files):
    # Either would do for the oracle.
    for case in cases:
        for drawn in case.structure_sets:
            listed = files.objects[drawn.sop_instance_uid].named(
                "ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence", "RTReferencedSeriesSequence",
                "ContourImageSequence",
            )  # fmt: skip
            contoured = files.objects[drawn.sop_instance_uid].named(
                "ROIContourSequence", "ContourSequence", "ContourImageSequence"
            )
            assert contoured <= listed == set(drawn.images.instance_uids)
            assert contoured
        for plan in case.plans:
            if plan.sop_instance_uid in files.objects:
                _check_both_ways(files.objects, plan)


def _check_both_ways(objects, plan):
    made, uid = objects[plan.sop_instance_uid], plan.sop_instance_uid
    whole = {each.sop_instance_uid for each in plan.doses if each.beam is None}
    single = {each.sop_instance_uid: each.beam for each in plan.doses if each.beam is not None}
    shown = {beam.drr_uid: beam.number for beam in plan.beams if beam.drr_uid}
    assert made.named("ReferencedDoseSequence") == whole
    of_beams = [each for each in made.references if each.path[0] == "FractionGroupSequence"]
    assert {each.uid: each.beam for each in of_beams} == single
    radiographs = [each for each in made.references if each.path[-1] == "ReferencedReferenceImageSequence"]
    assert {each.uid: each.beam for each in radiographs} == shown
    for other in (*whole, *single, *shown):
        assert objects[other].named("ReferencedRTPlanSequence") == {uid}
    for other, beam in (*single.items(), *shown.items()):
        assert objects[other].named_beams == {(uid, beam)}
    for each in plan.registrations:
        for images in (each.fixed, each.moving):
            assert images.frame_of_reference_uid in objects[each.sop_instance_uid].frame_uids
        slices = {*each.fixed.instance_uids, *each.moving.instance_uids}
        assert objects[each.sop_instance_uid].named("RegistrationSequence", "ReferencedImageSequence") == slices
    for image in plan.portal_images:
        if image.beam and image.sop_instance_uid in objects:
            assert objects[image.sop_instance_uid].named_beams == {(uid, image.beam.number)}
    for record in plan.records:
        assert objects[record.sop_instance_uid].named_beams == {(uid, beam.number) for beam in plan.beams}


def test_nothing_is_unclear_or_wrong(found):
    assert found.ambiguous == ()
    assert (found.unknown_beams, found.wrong_class, found.unreadable) == (frozenset(), frozenset(), frozenset())
    assert (dict(found.duplicates), dict(found.conflicts)) == ({}, {})


@pytest.mark.parametrize(
    ("irregularity", "shows"),
    [
        (Irregularity.CBCT, lambda plan, found: plan.cbcts and plan.registrations),
        (Irregularity.SHARED_REGISTRATION, lambda plan, found: len(plan.cbcts) > 1 == len(plan.registrations)),
        (Irregularity.DRRS, lambda plan, found: plan.drrs),
        (Irregularity.BEAM_DOSES, lambda plan, found: plan.beam_doses),
        (Irregularity.PLAN_WITHOUT_DOSE, lambda plan, found: plan.records and not plan.plan_doses),
        (Irregularity.VERIFICATION_PLAN, lambda plan, found: any(plan.verified_by.values())),
        (Irregularity.CT_SLICE_MISSING, lambda plan, found: any(each.missing for each in plan.images.values())),
        (Irregularity.STRUCTURE_SET_MISSING, lambda plan, found: not plan.images and found.dangling_of(plan.plan)),
    ],
)
def test_an_irregularity_shows_in_the_files(cases, found, irregularity, shows):
    # The comparison above would hold for nothing at all as well.
    plans = [plan for case in cases if irregularity in case.irregularities for plan in case.plans]
    assert any(
        shows(found.plans[plan.sop_instance_uid], found) for plan in plans if plan.sop_instance_uid in found.plans
    )


@pytest.mark.parametrize(
    "irregularity",
    [Irregularity.IMAGES_WITHOUT_PLAN, Irregularity.NEWER_STRUCTURE_SET, Irregularity.UNUSED_STRUCTURE_SET],
)
def test_an_irregularity_leaves_something_over(cases, found, irregularity):
    for case in cases:
        if irregularity in case.irregularities:
            stray = {each.sop_instance_uid for each in case.strays}
            drawn = {each.sop_instance_uid for each in case.structure_sets}
            assert found.unclaimed & (stray if irregularity is Irregularity.IMAGES_WITHOUT_PLAN else drawn)
