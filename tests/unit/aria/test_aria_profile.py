from __future__ import annotations

import subprocess
import sys
from datetime import date

import pytest
from support.asked_clinic import asked

from airflow_provider_varian.aria.profile import ARIA, GENERIC, profile_for
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.simulator.facts import case_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic


def peer(**settings):
    return Peer(host="127.0.0.1", port=104, called_ae_title="VMSDBD", **settings)


def test_the_connection_names_the_profile():
    assert profile_for(peer()) == ARIA
    assert profile_for(peer(profile="generic")) == GENERIC


def test_its_overrides_count():
    assert profile_for(peer(profile_overrides={"known_caps": [500]})).known_caps == {500}


def test_an_unknown_profile_names_those_there_are():
    with pytest.raises(ConfigurationError, match=r"'eclipse'.*aria, generic"):
        profile_for(peer(profile="eclipse"))


def test_aria_is_relational_and_distrusts_what_the_daemon_matches_badly():
    assert ARIA.relational_queries
    assert {"RTPlanLabel", "SeriesDate"} <= ARIA.unreliable_matching_keys
    assert {"InstanceCreationDate", "InstanceCreationTime"} <= ARIA.volatile_attributes
    assert 0xC001 in ARIA.too_broad_statuses
    assert not ARIA.move_over_tls
    assert not ARIA.user_identity


def test_another_archive_gets_no_liberties():
    assert not GENERIC.relational_queries
    assert not GENERIC.unreliable_matching_keys
    assert not GENERIC.too_broad_statuses


def test_plans_without_beams_are_known_by_what_the_daemon_answers_of_them():
    clinic = Clinic(seed=1, patients=70, days=1, until=date(2026, 11, 20), matrix=64)
    plans = {plan.sop_instance_uid: bool(plan.beams) for case in case_facts(clinic) for plan in case.plans}
    assert not all(plans.values())
    keys = {"Modality": "RTPLAN", "RTPlanDate": ("2026-06-01", "2026-11-20"), "NumberOfBeams": "", "SOPClassUID": ""}
    with asked(clinic) as session:
        answers = session.find(Query.build("IMAGE", keys)).answers
    found = {
        answer["SOPInstanceUID"]: ARIA.expected_failure(sop_class_uid=answer["SOPClassUID"], answered=answer)
        for answer in answers
    }
    said = {uid: failure is None for uid, failure in found.items() if uid in plans}
    assert said == plans
    assert {failure.reason for failure in found.values() if failure} == {
        "the plan has no beams, and the daemon cannot export a plan with an empty Beam Sequence"
    }


def test_what_eclipse_says_of_a_plan_without_beams_is_understood():
    said = "Cannot export RT Plan 'Setup' with an empty Beam Sequence"
    assert ARIA.expected_failure(status=0xC000, comment=said).name == "plan without beams"
    assert GENERIC.expected_failure(status=0xC000, comment=said) is None


@pytest.mark.parametrize(
    "module",
    [
        "aria.machines",
        "aria.expectation",
        "aria.profile",
        "query.profile",
        "query.level",
        "query.window",
        "query.model",
    ],
)
def test_what_the_face_reads_at_import_pulls_no_dicom_library(module):
    code = (
        f"import sys, airflow_provider_varian.{module}\n"
        "sys.exit(', '.join({'pydicom', 'pynetdicom', 'numpy'} & set(sys.modules)) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
