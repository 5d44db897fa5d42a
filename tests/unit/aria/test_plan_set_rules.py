"""What belongs to which plan, held against the oracle on patients that are put together by chance."""

from __future__ import annotations

import pytest
from pydicom import dcmread
from support import chance_patient
from support import oracle_data as data
from support.oracle import judge
from support.oracle_data import named, uid_of, uids_of

from airflow_provider_varian.aria.plan_set_rules import Belongings
from airflow_provider_varian.aria.references import references_of


def belongings_in(folder) -> Belongings:
    told = [references_of(dcmread(path)) for path in folder.iterdir()]
    return Belongings({each.sop_instance_uid: each for each in told})


def check(seed: int, folder) -> int:
    """Compare, and return how much there was to compare."""
    data.save_all(chance_patient.objects(seed), folder)
    truth, found = judge(folder), belongings_in(folder)
    assert found.plans.keys() == truth.plans.keys()
    for uid, plan in truth.plans.items():
        images = frozenset().union(*(each.held for each in plan.images.values()))
        cbcts = frozenset().union(*plan.cbcts.values())
        mine = {each.sop_instance_uid for each in found.belonging_to(uid)}
        assert mine == plan.members - {uid} - (images - cbcts), seed
        assert found.plans[uid].verifies == plan.verifies
    said = {(uid, each.reason, each.candidates) for uid, each in found.unclear.items()}
    assert said == {(each.uid, str(each.why), each.candidates) for each in truth.ambiguous}, seed
    others = {uid: owners - found.plans.keys() for uid, owners in found.owners.items()}
    assert {owner for each in others.values() for owner in each} == truth.of_other_plans.keys()
    return len(said)


@pytest.mark.parametrize("seed", range(20))
def test_patients_by_chance(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_patients_by_chance(tmp_path):
    unclear = 0
    for seed in range(1000, 1600):
        folder = tmp_path / str(seed)
        folder.mkdir()
        unclear += check(seed, folder)
    # Or chance would show nothing.
    assert unclear > 300


@pytest.fixture
def patient():
    return data.patient()


@pytest.fixture
def judged(patient, tmp_path):
    return lambda *more: belongings_in(data.save_all((*patient.values(), *more), tmp_path))


def test_a_cbct_without_a_plan_goes_by_its_registration(patient, judged):
    for name in ("cone 1", "cone 2"):
        del patient[name]["ReferencedInstanceSequence"]
    del patient["other plan"]
    found = judged()
    assert found.loose_series == {uid_of("cone")}
    assert {uid for uid, owners in found.owners.items() if owners == uids_of("plan")} >= uids_of("cone 1", "match")


def test_a_cbct_of_two_plans_frames_is_unclear(patient, judged):
    for name in ("cone 1", "cone 2"):
        del patient[name]["ReferencedInstanceSequence"]
    found = judged()
    assert found.unclear[uid_of("cone 1")].candidates == uids_of("plan", "other plan")
    assert uid_of("cone 1") not in found.owners
    assert set(found.unclear_for(uid_of("other plan"))) == uids_of("cone 1", "cone 2", "match")


def test_a_dose_of_a_plan_that_is_not_there_is_that_plans(judged):
    found = judged(data.dose("elsewhere", owners=("gone",)))
    assert found.owners[uid_of("elsewhere")] == uids_of("gone")
    assert found.belonging_to(uid_of("gone")) == [found.objects[uid_of("elsewhere")]]


def test_beams_are_told_by_the_dose_or_by_the_plan(patient, judged):
    told = {"ReferencedBeamNumber": 2, "ReferencedDoseSequence": [named("silent", "RTDOSE")]}
    patient["plan"]["FractionGroupSequence"] = [{"FractionGroupNumber": 1, "ReferencedBeamSequence": [told]}]
    found = judged(data.dose("silent", "BEAM"))
    assert found.beams_of(uid_of("silent"), uid_of("plan")) == {2}
    assert found.beams_of(uid_of("dose of 1"), uid_of("plan")) == {1}


def test_a_drr_of_a_copied_beam_serves_both_plans_and_no_other_image_does(patient, judged):
    shows = [named("also shown", "RTIMAGE"), named("field 1", "RTIMAGE")]
    patient["other plan"]["BeamSequence"] = [{"BeamNumber": 1, "ReferencedReferenceImageSequence": shows}]
    found = judged()
    assert found.owners[uid_of("also shown")] == uids_of("plan", "other plan")
    assert found.unclear[uid_of("field 1")].candidates == uids_of("plan", "other plan")


def test_a_record_of_two_plans_is_neithers(judged):
    two = [named(owner, "RTPLAN") for owner in ("plan", "other plan")]
    found = judged(data.thing("RTRECORD", "torn", ReferencedRTPlanSequence=two))
    assert uid_of("torn") not in found.owners
    assert found.unclear[uid_of("torn")].candidates == uids_of("plan", "other plan")
