"""The simulator's objects, through our client and through real archives: the same everywhere.

The simulator rewrites InstanceCreationDate/Time at each export, as ARIA does (varian-daemon 4.16); nothing
else may differ.
"""

from __future__ import annotations

import subprocess
import uuid
from copy import deepcopy
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from support import dciodvfy, dcmtk
from support.cases import make_case, objects_of, whole, write
from support.datasets import differences, elements, wire_bytes
from support.ports import free_port

from airflow_provider_varian import uids
from airflow_provider_varian.aria.profile import profile_for
from airflow_provider_varian.dimse.peer import Peer, peer_from_connection
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.retrieve import retrieve
from airflow_provider_varian.simulator.clinic.identity import Identity
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
            # Nothing grows while it is listed.
            "profile_overrides": {"stable_interval_seconds": 0.01},
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


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> list[Path]:
    """Every object of a clinical patient, as files named by what they are."""
    folder = tmp_path_factory.mktemp("clinical")
    case = make_case()
    return [
        write(whole(case, made), folder / f"{made.kind} {number:03d}.dcm")
        for number, made in enumerate(objects_of(case, Identity(1)))
    ]


def read(path: Path) -> Dataset:
    return dcmread(path)


def kind_of(path: Path) -> str:
    return path.name.rpartition(" ")[0]


def standard_twin(dataset: Dataset) -> Dataset | None:
    """Return an object that dciodvfy can judge in place of one that it cannot."""
    twin = deepcopy(dataset)
    if dataset.SOPClassUID == uids.VARIAN_HALCYON_RT_PLAN:
        twin.SOPClassUID = uids.RT_PLAN
        return twin
    if dataset.SOPClassUID == uids.RT_DOSE:
        # dciodvfy aborts on pixels of 32 bits, which PS3.3 C.8.8.3.4.1 allows; of 16 bits it takes them.
        twin.BitsAllocated, twin.BitsStored, twin.HighBit = 16, 16, 15
        twin.PixelData = (np.frombuffer(dataset.PixelData, "<u4") >> 16).astype("<u2").tobytes()
        return twin
    return None


def test_dciodvfy_finds_no_error_in_clinical_objects_but_its_own(written, program, tmp_path):
    used: set[dciodvfy.Allowed] = set()
    judged = 0
    for path in written:
        dataset = read(path)
        twin = standard_twin(dataset)
        files = [] if dataset.SOPClassUID == uids.RT_DOSE else [(path, str(dataset.SOPClassUID))]
        if twin is not None:
            files.append((write(twin, tmp_path / path.name), str(twin.SOPClassUID)))
        for file, sop_class_uid in files:
            verdict = dciodvfy.judge(program("dciodvfy"), file, sop_class_uid, kind_of(path))
            assert verdict.errors == [], path.name
            used |= verdict.used
            judged += 1
    assert judged > len(written)
    # What no object needs any more is not allowed any more.
    assert used == set(dciodvfy.ALLOWED)


def test_dciodvfy_would_find_an_error(written, program, tmp_path):
    for kind, keyword in (("planning CT", "ImagePositionPatient"), ("structure set", "ROIContourSequence"),
                          ("record", "TreatmentDate"), ("registration", "RegistrationSequence")):  # fmt: skip
        dataset = read(next(path for path in written if kind_of(path) == kind))
        del dataset[keyword]
        file = write(dataset, tmp_path / f"{kind}.dcm")
        verdict = dciodvfy.judge(program("dciodvfy"), file, dataset.SOPClassUID, kind)
        assert any(keyword in line.replace(" ", "") for line in verdict.errors), kind


def test_only_the_plan_without_beams_may_have_an_empty_beam_sequence(written, program, tmp_path):
    def errors(path: Path, kind: str) -> list[str]:
        return dciodvfy.judge(program("dciodvfy"), path, uids.RT_PLAN, kind).errors

    (hollow,) = [path for path in written if kind_of(path) == "plan without beams"]
    assert read(hollow).BeamSequence == []
    assert errors(hollow, kind_of(hollow)) == []
    plan = read(next(path for path in written if kind_of(path) == "plan"))
    plan.BeamSequence = []
    emptied = write(plan, tmp_path / "plan.dcm")
    for path, kind in ((emptied, "plan"), (hollow, "")):
        assert any("<BeamSequence>" in line for line in errors(path, kind)), kind


def test_dcmtk_reads_and_converts_clinical_objects(written, program, tmp_path):
    kinds = {kind_of(path): path for path in written}
    assert len(kinds) == 11
    for kind, path in kinds.items():
        for command in (
            (program("dcmftest"), path),
            (program("dcmdump"), "-q", path),
            (program("dcm2xml"), "+M", path, tmp_path / "object.xml"),
            (program("dcmconv"), "+te", path, tmp_path / "explicit.dcm"),
        ):
            result = dcmtk.run(*command)
            assert (result.returncode, result.stderr) == (0, ""), (kind, command[0])
        assert differences(elements(path), elements(tmp_path / "explicit.dcm")) == [], kind


def test_dcmtk_sees_the_dose_that_pydicom_sees(written, program, tmp_path):
    path = next(path for path in written if path.name.startswith("dose"))
    raw = tmp_path / "raw"
    raw.mkdir()
    subprocess.run([program("dcmdump"), "-q", "+W", str(raw), str(path)], capture_output=True, check=True)
    (pixels,) = raw.iterdir()
    assert np.array_equal(np.frombuffer(pixels.read_bytes(), "<u4"), read(path).pixel_array.ravel())
