"""Our client against real archives: what they hold comes here whole, byte for byte as on their wire.

The reference is DCMTK's bit-preserving receiver, fed by the same C-MOVE (semantics 31); the source is
compared element by element, since archives may re-encode.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from support import dcmtk
from support.datasets import differences, elements, wire_bytes
from support.ports import free_port

from airflow_provider_varian.aria.profile import profile_for
from airflow_provider_varian.dimse.check import check
from airflow_provider_varian.dimse.peer import Peer, peer_from_connection
from airflow_provider_varian.query.find import find
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.retrieve import RetrievalResult, retrieve

pytestmark = pytest.mark.peers

REAL_FILES = ("rtplan.dcm", "rtdose.dcm", "rtstruct.dcm", "CT_small.dcm")
#: What storescu leaves out when it fills the archive: padding without meaning (PS3.10 7.2).
NOT_STORED = frozenset({"DataSetTrailingPadding"})


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """Return pydicom's real RT objects, as files that can be sent, by SOP Instance UID."""
    folder = tmp_path_factory.mktemp("sources")
    files = {}
    for name in REAL_FILES:
        dataset = dcmread(get_testdata_file(name, download=False), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # rtstruct.dcm comes without file meta
            dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / name, enforce_file_format=True)
        files[str(dataset.SOPInstanceUID)] = folder / name
    return files


@pytest.fixture(scope="module", params=["dcmqrscp", "orthanc"])
def archive(request, sources, program, tmp_path_factory):
    for name in ("dcmqrscp", "Orthanc", "storescp", "storescu", "movescu"):
        program(name)
    receivers = {"AIRFLOW": free_port(), "REFERENCE": free_port()}
    start = getattr(dcmtk, request.param)
    with start(tmp_path_factory.mktemp(request.param) / "run", sources.values(), receivers) as running:
        yield running, receivers


def peer_of(archive: dcmtk.Archive, **extra: object) -> Peer:
    return peer_from_connection(
        host="127.0.0.1",
        port=archive.port,
        extra={
            "called_ae_title": archive.ae_title,
            "calling_ae_title": "AIRFLOW",
            "receiver_host": "127.0.0.1",
            "receiver_port": archive.receiver_port,
            "profile": "generic",
            # Nothing grows while it is listed.
            "profile_overrides": {"stable_interval_seconds": 0.01},
            **extra,
        },
    )


def retrieve_study(peer: Peer, source: Path, method: str, root: Path) -> RetrievalResult:
    dataset = dcmread(source, stop_before_pixels=True)
    return retrieve(
        peer,
        RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": str(dataset.StudyInstanceUID)}),
        profile=profile_for(peer),
        destination=root / "out",
        spool_root=root / "spool",
        retrieval_id=str(uuid.uuid4()),
        method=method,
        settle_seconds=0.2,
    )


def received_file(root: Path) -> Path:
    (file,) = (root / "out").rglob("*.dcm")
    return file


def test_check_finds_nothing_to_complain_of(archive):
    running, _ = archive
    report = check(peer_of(running))
    assert report.ok, report.summary


def test_find_at_every_level_lists_what_was_stored(archive, sources):
    running, _ = archive
    peer = peer_of(running)
    for uid, source in sources.items():
        stored = dcmread(source, stop_before_pixels=True)
        keys = {"StudyInstanceUID": str(stored.StudyInstanceUID)}
        for level, more in (
            (Level.STUDY, {"PatientID": ""}),
            (Level.SERIES, {"SeriesInstanceUID": "", "Modality": str(stored.Modality)}),
            (Level.IMAGE, {"SeriesInstanceUID": str(stored.SeriesInstanceUID), "SOPInstanceUID": ""}),
        ):
            query = Query.build(level, {**keys, **more})
            (answer,) = find(peer, query, profile=profile_for(peer)).answers
            assert answer["StudyInstanceUID"] == stored.StudyInstanceUID
        assert answer["SOPInstanceUID"] == uid


@pytest.mark.parametrize("method", ["move", "get"])
@pytest.mark.parametrize("name", REAL_FILES)
def test_retrieved_object_equals_the_source(archive, sources, method, name, tmp_path):
    running, _ = archive
    source = next(path for path in sources.values() if path.name == name)
    result = retrieve_study(peer_of(running), source, method, tmp_path)
    assert result.outcome is Outcome.COMPLETE, result.manifest
    found = differences(elements(source), elements(received_file(tmp_path)), ignore=NOT_STORED)
    assert found == []


@pytest.mark.parametrize("name", REAL_FILES)
def test_moved_bytes_equal_those_of_a_bit_preserving_receiver(archive, sources, name, tmp_path):
    running, receivers = archive
    source = next(path for path in sources.values() if path.name == name)
    retrieve_study(peer_of(running), source, "move", tmp_path)
    study = dcmread(source, stop_before_pixels=True).StudyInstanceUID
    with dcmtk.storescp(tmp_path / "reference", ae_title="REFERENCE", port=receivers["REFERENCE"]) as (folder, _):
        moved = dcmtk.run(
            "movescu", "-S", "-aec", running.ae_title, "-aet", "AIRFLOW", "-aem", "REFERENCE",
            "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}", "127.0.0.1", str(running.port),
        )  # fmt: skip
        assert moved.returncode == 0, moved.stderr
        (reference,) = folder.iterdir()
        assert wire_bytes(received_file(tmp_path)) == wire_bytes(reference)


def test_study_that_is_not_there_is_empty(archive, tmp_path):
    running, _ = archive
    peer = peer_of(running)
    request = RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": "1.2.3.4.5.6.7.8.9"})
    result = retrieve(
        peer,
        request,
        profile=profile_for(peer),
        destination=tmp_path / "out",
        spool_root=tmp_path / "spool",
        retrieval_id=str(uuid.uuid4()),
        settle_seconds=0.2,
    )
    assert result.outcome is Outcome.EMPTY
    assert not list((tmp_path / "out").rglob("*.dcm"))
