from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_varian.aria.profile import ARIA, GENERIC, profile_for
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import ConfigurationError


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
