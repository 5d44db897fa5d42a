"""The simulator's objects, through our client and through real archives: the same everywhere.

The simulator rewrites InstanceCreationDate/Time at each export, as ARIA does (varian-daemon 4.16); nothing
else may differ.
"""

from __future__ import annotations

import uuid
from datetime import date

import pytest
from pydicom import dcmread
from support import dcmtk
from support.datasets import differences, elements, wire_bytes
from support.ports import free_port

from airflow_provider_varian.aria.profile import profile_for
from airflow_provider_varian.dimse.peer import Peer, peer_from_connection
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.retrieve import retrieve
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.facts import facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = pytest.mark.peers

UNTIL = date(2026, 11, 20)
WRITTEN_AT_EXPORT = frozenset({"InstanceCreationDate", "InstanceCreationTime"})


@pytest.fixture(scope="module")
def clinic() -> Clinic:
    return Clinic(days=2, until=UNTIL, matrix=128)


@pytest.fixture(scope="module")
def receivers() -> dict[str, int]:
    return {"AIRFLOW": free_port(), "REFERENCE": free_port()}


@pytest.fixture(scope="module")
def daemon(clinic, receivers):
    trusted = [TrustedEntity(ae_title=name, host="127.0.0.1", port=port) for name, port in receivers.items()]
    with SimulatedDaemon(clinic, trusted=trusted, behaviour=Behaviour(get=True)) as running:
        yield running


@pytest.fixture(scope="module")
def study(clinic) -> str:
    """Return the study of the Winston-Lutz plan: the plan and two days of MV and kV images."""
    (plan,) = [fact for fact in facts(clinic) if fact.label == "WL_10MV"]
    return plan.study_instance_uid


@pytest.fixture(scope="module")
def reference(daemon, receivers, study, program, tmp_path_factory) -> dict[str, object]:
    """Return the study as DCMTK's bit-preserving receiver got it from the simulator, files by UID."""
    program("storescp"), program("movescu")
    root = tmp_path_factory.mktemp("reference")
    with dcmtk.storescp(root, ae_title="REFERENCE", port=receivers["REFERENCE"]) as (folder, _):
        moved = dcmtk.run(
            "movescu", "-S", "-aec", "VMSDBD", "-aet", "AIRFLOW", "-aem", "REFERENCE",
            "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}",
            "127.0.0.1", str(daemon.address[1]),
        )  # fmt: skip
        assert moved.returncode == 0, moved.stderr
        files = {str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): file for file in folder.iterdir()}
    assert len(files) > 20
    return files


def peer_of(port: int, ae_title: str, receiver_port: int, profile: str) -> Peer:
    return peer_from_connection(
        host="127.0.0.1",
        port=port,
        extra={
            "called_ae_title": ae_title,
            "receiver_host": "127.0.0.1",
            "receiver_port": receiver_port,
            "profile": profile,
        },
    )


def retrieved(peer: Peer, study: str, method: str, root) -> dict[str, object]:
    result = retrieve(
        peer,
        RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": study}),
        profile=profile_for(peer),
        destination=root / "out",
        spool_root=root / "spool",
        retrieval_id=str(uuid.uuid4()),
        method=method,
        settle_seconds=0.2,
    )
    assert result.outcome is Outcome.COMPLETE, result.manifest
    return {
        str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): file
        for file in (root / "out").rglob("*.dcm")
    }


@pytest.mark.parametrize("method", ["move", "get"])
def test_our_client_gets_what_dcmtk_gets_from_the_simulator(daemon, receivers, study, reference, method, tmp_path):
    peer = peer_of(daemon.address[1], "VMSDBD", receivers["AIRFLOW"], "aria")
    ours = retrieved(peer, study, method, tmp_path)
    assert ours.keys() == reference.keys()
    for uid, file in ours.items():
        assert differences(elements(reference[uid]), elements(file), ignore=WRITTEN_AT_EXPORT) == []
        # Same elements in the same encoding: only the two rewritten values can differ.
        assert len(wire_bytes(file)) == len(wire_bytes(reference[uid]))


@pytest.mark.parametrize("kind", ["dcmqrscp", "orthanc"])
@pytest.mark.parametrize("method", ["move", "get"])
def test_simulated_objects_survive_a_real_archive(kind, method, study, reference, program, tmp_path):
    program("dcmqrscp"), program("Orthanc")
    receivers = {"AIRFLOW": free_port()}
    with getattr(dcmtk, kind)(tmp_path / "archive", reference.values(), receivers) as archive:
        peer = peer_of(archive.port, archive.ae_title, archive.receiver_port, "generic")
        ours = retrieved(peer, study, method, tmp_path)
    assert ours.keys() == reference.keys()
    for uid, file in ours.items():
        assert differences(elements(reference[uid]), elements(file)) == []
