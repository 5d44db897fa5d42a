"""Per beam of a verification plan: which portal doses are there, acquired and predicted, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support import oracle_data as data
from support.oracle_data import PREDICTED, uid_of, uids_of
from support.plan_sets import search_of
from support.simulated import peer_of, trusted

from airflow_provider_varian.aria.plan_set import Member, PlanSet, Role, Standing
from airflow_provider_varian.aria.portal_dosimetry import (
    ROLES,
    BeamVerdict,
    find_portal_dosimetry,
    judge_portal_dosimetry,
)
from airflow_provider_varian.aria.profile import ARIA
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.data_directory import DataDirectory

QUICK = replace(ARIA, stable_counts=1, stable_interval_seconds=0.0, settle_seconds=0.05)
PLAN, CHECK = uid_of("plan"), uid_of("check")


def image(uid, kind, *beams, standing=Standing.HELD):
    return Member(sop_instance_uid=uid, role=Role.RT_IMAGE, standing=standing, kind=kind, beams=beams)


def judged(*members, beams=(1,), setup=()):
    numbers = [{"BeamNumber": number, "TreatmentDeliveryType": "TREATMENT"} for number in beams]
    numbers += [{"BeamNumber": number, "TreatmentDeliveryType": "SETUP"} for number in setup]
    plan = data.data_set(data.plan("check", BeamSequence=numbers))
    found = PlanSet(plan_uid="1.1", wanted=ROLES, members=members, verifies=("1.2",))
    return judge_portal_dosimetry(plan, found)


@pytest.mark.parametrize(
    ("images", "verdict"),
    [
        ((), BeamVerdict.NOTHING),
        ((image("1", "predicted", 1),), BeamVerdict.NOT_ACQUIRED),
        ((image("2", "portal_dose", 1),), BeamVerdict.NOT_PREDICTED),
        ((image("1", "predicted", 1), image("2", "portal_dose", 1)), BeamVerdict.READY),
        ((image("1", "predicted", 1), image("2", "portal_dose", 1), image("3", "portal_dose", 1)), BeamVerdict.SEVERAL),
        # Neither a plain portal image nor what did not come is a measurement, nor is that of another beam.
        ((image("1", "predicted", 1), image("2", "portal", 1)), BeamVerdict.NOT_ACQUIRED),
        (
            (image("1", "predicted", 1), image("2", "portal_dose", 1, standing=Standing.NOT_EXPORTABLE)),
            BeamVerdict.NOT_ACQUIRED,
        ),
        ((image("1", "predicted", 1), image("2", "portal_dose", 2)), BeamVerdict.NOT_ACQUIRED),
    ],
)
def test_the_verdict_of_a_beam(images, verdict):
    (beam,) = judged(*images).beams
    assert beam.verdict is verdict
    assert judged(*images).is_ready is (verdict is BeamVerdict.READY)


def test_setup_beams_leave_no_image():
    found = judged(image("1", "predicted", 1), image("2", "portal_dose", 1), setup=(2,))
    assert [beam.number for beam in found.beams] == [1]
    assert found.is_ready


def test_a_plan_without_beams_is_not_ready():
    assert not judged(beams=()).is_ready


def test_doses_and_composites_are_told():
    dose = Member(sop_instance_uid="5", role=Role.BEAM_DOSE, standing=Standing.HELD, beams=(1,))
    whole = Member(sop_instance_uid="6", role=Role.PLAN_DOSE, standing=Standing.HELD)
    found = judged(dose, whole, image("7", "predicted"), image("8", "portal"))
    assert (found.beams[0].doses, found.plan_doses, found.unassigned) == (("5",), ("6",), ("7",))
    told = json.loads(json.dumps(found.to_json()))
    assert told["beams"] == [{"number": 1, "verdict": "nothing", "acquired": [], "predicted": [], "doses": ["5"]}]
    assert told["verifies"] == ["1.2"]


@pytest.fixture
def search(tmp_path):
    """A search for a patient whose verification plan has a beam that was not given and a dose."""
    patient = data.patient()
    patient["predicted 2"] = data.image("predicted 2", PREDICTED, "check", ReferencedBeamNumber=2)
    patient["phantom dose"] = data.dose("phantom dose", owners=("check",))
    folder = tmp_path / "held"
    folder.mkdir()
    data.save_all(({**each, "PatientID": "somebody"} for each in patient.values()), folder)
    with SimulatedDaemon(DataDirectory(folder), trusted=[trusted()], behaviour=Behaviour(get=True)) as daemon:
        yield search_of(peer_of(daemon), QUICK, "somebody", tmp_path / "got", method="get")


def test_from_the_treated_plan_to_the_beams_of_the_one_that_verifies_it(search):
    (found,) = find_portal_dosimetry(search.chart, search.fetcher, PLAN)
    assert (found.plan_uid, found.verifies) == (CHECK, (PLAN,))
    assert [(beam.number, beam.verdict) for beam in found.beams] == [
        (1, BeamVerdict.READY), (2, BeamVerdict.NOT_ACQUIRED),
    ]  # fmt: skip
    assert found.beams[0].acquired == (uid_of("measured"),)
    assert {*found.beams[0].predicted, *found.beams[1].predicted} == uids_of("predicted", "predicted 2")
    assert found.plan_doses == (uid_of("phantom dose"),)
    # The verification plan stands for itself; a plan that nobody verifies has no portal dosimetry.
    assert find_portal_dosimetry(search.chart, search.fetcher, CHECK) == (found,)
    assert find_portal_dosimetry(search.chart, search.fetcher, uid_of("other plan")) == ()
