"""Storing at real peers: DCMTK's receiver writes the bytes of our files, and Orthanc keeps the same objects."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.errors import InvalidDicomError
from support import dcmtk
from support.datasets import differences, elements, wire_bytes
from support.ports import free_port

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.sent import StoreState
from airflow_provider_varian.retrieval.store import StoreResult, store_files

pytestmark = pytest.mark.peers

#: Implicit and Explicit VR Little Endian, and JPEG.
REAL_FILES = ("rtplan.dcm", "rtdose.dcm", "CT_small.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm", "SC_rgb_jpeg_dcmtk.dcm")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Return a folder of pydicom's real objects, as files that can be sent."""
    folder = tmp_path_factory.mktemp("sources")
    for name in REAL_FILES:
        dataset = dcmread(get_testdata_file(name, download=False))
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / name, enforce_file_format=True)
    return folder


def peer_at(port: int, ae_title: str) -> Peer:
    return Peer(host="127.0.0.1", port=port, called_ae_title=ae_title, allow_store=True)


def stored(port: int, ae_title: str, folder: Path, root: Path) -> StoreResult:
    return store_files(peer_at(port, ae_title), [folder], store_id="an-id", destination=Destination(root))


def by_uid(folder: Path) -> dict[str, Path]:
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with contextlib.suppress(InvalidDicomError):  # Orthanc keeps JSON beside
            found[str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path
    return found


def test_dcmtk_writes_the_bytes_of_our_files(program, sources, tmp_path):
    program("storescp")
    root = tmp_path / "storescp"
    root.mkdir()
    (root / "received").mkdir()
    port = free_port()
    # +xa: all transfer syntaxes; +B: the data set as it came.
    command = ["storescp", "+B", "+xa", "-aet", "STORESCP", "-od", str(root / "received"), str(port)]
    with dcmtk.running(command, port=port, log=root / "log"):
        result = stored(port, "STORESCP", sources, tmp_path / "root")
        assert str(result.outcome) == "complete", result.document.message
        again = stored(port, "STORESCP", sources, tmp_path / "root")
    sent, received = by_uid(sources), by_uid(root / "received")
    assert received.keys() == sent.keys()
    for uid, path in sent.items():
        assert wire_bytes(received[uid]) == wire_bytes(path), path.name
    assert again.counts["earlier"] == len(sent)


def test_dcmtk_that_takes_implicit_alone_gets_the_same_elements_and_no_compressed_file(program, sources, tmp_path):
    program("storescp")
    root = tmp_path / "storescp"
    (root / "received").mkdir(parents=True)
    port = free_port()
    command = ["storescp", "+B", "+xi", "-aet", "STORESCP", "-od", str(root / "received"), str(port)]
    with dcmtk.running(command, port=port, log=root / "log"):
        result = stored(port, "STORESCP", sources, tmp_path / "root")
    states = {each.sop_instance_uid: each for each in result.document.files}
    received = by_uid(root / "received")
    for uid, path in by_uid(sources).items():
        compressed = dcmread(path).file_meta.TransferSyntaxUID.is_compressed
        assert states[uid].state is (StoreState.FAILED if compressed else StoreState.STORED), path.name
        assert ("never re-encoded" in states[uid].reason) == compressed
        assert (uid in received) != compressed
        if not compressed:
            assert not differences(elements(received[uid]), elements(path)), path.name
    assert str(result.outcome) == "partial"


def test_orthanc_keeps_what_was_sent(program, sources, tmp_path):
    for name in ("Orthanc", "storescu"):
        program(name)
    filled_with = sources / "rtplan.dcm"
    with dcmtk.orthanc(tmp_path / "orthanc", [filled_with], {"AIRFLOW": free_port()}) as archive:
        result = stored(archive.port, archive.ae_title, sources, tmp_path / "root")
    assert str(result.outcome) == "complete", result.document.message
    kept = by_uid(tmp_path / "orthanc" / "storage")
    assert kept.keys() == by_uid(sources).keys()
    for uid, path in by_uid(sources).items():
        assert not differences(elements(kept[uid]), elements(path)), path.name


def test_a_receiver_that_aborts_each_time_leaves_the_rest_named_and_a_retry_sends_it(program, sources, tmp_path):
    program("storescp")
    root = tmp_path / "storescp"
    (root / "received").mkdir(parents=True)
    port = free_port()
    # It aborts each association once it has stored an object.
    command = ["storescp", "+B", "+xa", "--abort-after", "-aet", "STORESCP", "-od", str(root / "received"), str(port)]
    with dcmtk.running(command, port=port, log=root / "log"):
        result = stored(port, "STORESCP", sources, tmp_path / "root")
    assert result.error is not None
    assert result.error.transient
    assert {each.state for each in result.document.files} <= {StoreState.UNANSWERED, StoreState.UNSENT}
    command.remove("--abort-after")
    with dcmtk.running(command, port=port, log=root / "log"):
        again = stored(port, "STORESCP", sources, tmp_path / "root")
    assert str(again.outcome) == "complete"
    assert by_uid(root / "received").keys() == by_uid(sources).keys()
