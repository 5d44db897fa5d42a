"""Moves to real third parties: DCMTK's receiver, seen by its files, and Orthanc, seen by what it lists."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from support import dcmtk
from support.archive import ROOT, Archive, rt_image
from support.ports import free_port

from airflow_provider_varian.aria.profile import GENERIC
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.third_party import move_to_third_party

pytestmark = pytest.mark.peers

PROFILE = Profile(
    name="plain", relational_queries=True, stable_counts=1, stable_interval_seconds=0.0, settle_seconds=1.0
)
SERIES = RetrievalRequest(
    level=Level.SERIES, keys={"StudyInstanceUID": f"{ROOT}.1", "SeriesInstanceUID": f"{ROOT}.1.1"}
)


@pytest.fixture
def source():
    with Archive([rt_image(number) for number in range(5)]) as running:
        yield running


def test_what_storescp_files_is_verified_by_its_files(source, program, tmp_path):
    program("storescp")
    with dcmtk.storescp(tmp_path / "third", ae_title="STORESCP") as (received, port):
        source.destinations["STORESCP"] = ("127.0.0.1", port)
        result = move_to_third_party(
            source.peer(), SERIES, destination="STORESCP", profile=PROFILE, verify_path=received
        )
    assert result.outcome is Outcome.COMPLETE, result.manifest.message
    assert {entry.sha256 for entry in result.manifest.ledger.entries.values()} == {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in received.iterdir()
    }


def test_what_orthanc_lists_is_listed_and_only_what_it_lacks_is_moved_again(source, program, tmp_path):
    for name in ("Orthanc", "storescu"):
        program(name)
    other = Path(get_testdata_file("CT_small.dcm", download=False))
    with dcmtk.orthanc(tmp_path / "orthanc", [other], {"AIRFLOW": free_port()}) as running:
        source.destinations["ORTHANC"] = ("127.0.0.1", running.port)
        lost = f"{ROOT}.1.1.2"
        source.delivers = lambda level, uid: uid != lost

        def move():
            return move_to_third_party(
                source.peer(),
                SERIES,
                destination="ORTHANC",
                profile=PROFILE,
                verify_peer=Peer(host="127.0.0.1", port=running.port, called_ae_title="ORTHANC", profile="generic"),
                verify_profile=GENERIC,
            )

        result = move()
        assert (result.outcome, result.missing) == (Outcome.PARTIAL, (lost,))
        source.delivers = lambda level, uid: True
        source.sent.clear()
        result = move()
    assert (result.outcome, result.counts["held"], source.sent) == (Outcome.COMPLETE, 4, [lost])
