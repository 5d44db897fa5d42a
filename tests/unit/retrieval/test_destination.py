"""Destinations: written once, whole, read back, inside the root; local, memory, ObjectStoragePath."""

from __future__ import annotations

import errno
import hashlib
import os
import time
import traceback
import uuid
from pathlib import Path, PurePosixPath

import fsspec
import pytest
from upath import UPath

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError
from airflow_provider_varian.retrieval import local_store
from airflow_provider_varian.retrieval.destination import Destination

REL = PurePosixPath("1.2/1.2.3/RTIMAGE.1.2.3.4.dcm")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"object" * 1000)
    return path


@pytest.fixture
def sha256(source):
    return hashlib.sha256(source.read_bytes()).hexdigest()


@pytest.fixture(params=["path", "text", "upath", "file", "object_storage_file", "memory", "object_storage_memory"])
def destination(request, tmp_path):
    folder, name = tmp_path / "out", uuid.uuid4().hex
    if request.param.startswith("object_storage"):
        from airflow.sdk import ObjectStoragePath
        from airflow.sdk.io import attach

        attach("memory", fs=fsspec.filesystem("memory"))
        uri = f"file://{folder}" if request.param.endswith("file") else f"memory://{name}/out"
        return Destination(ObjectStoragePath(uri))
    return Destination(
        {
            "path": folder,
            "text": str(folder),
            "upath": UPath(folder),
            "file": f"file://{folder}",
            "memory": UPath(f"memory://{name}/out"),
        }[request.param]
    )


def content(destination, relative=REL):
    with destination.local_copy(relative) as path:
        return path.read_bytes()


def test_an_object_is_published_once(destination, source, sha256):
    assert destination.size(REL) is None
    assert destination.publish(source, REL, sha256=sha256) is True
    assert destination.size(REL) == 6000
    assert content(destination) == source.read_bytes()
    other = source.with_name("other")
    other.write_bytes(b"other")
    assert destination.publish(other, REL, sha256=hashlib.sha256(b"other").hexdigest()) is False
    assert content(destination) == source.read_bytes()


def test_text_is_replaced_as_a_whole(destination):
    path = PurePosixPath(".dicom/x.json")
    assert destination.read_text(path) is None
    destination.write_text(path, "one ü")
    destination.write_text(path, "two")
    assert destination.read_text(path) == "two"


def test_the_random_id_is_made_once(destination):
    first = destination.random_id()
    assert len(first) == 32
    assert destination.random_id() == first


def test_what_reads_back_differently_is_an_error_and_leaves_nothing(destination, source):
    with pytest.raises(DestinationWriteError, match="reads back"):
        destination.publish(source, REL, sha256="0" * 64)
    assert destination.size(REL) is None


def test_the_files_beside_a_path_are_listed(destination, source, sha256):
    folder = REL.parent
    assert destination.names_beside(REL, "") == []
    for name in ("b.dcm", "a.dcm", "a", "below/a.dcm", "../a.dcm"):
        destination.publish(source, PurePosixPath(os.path.normpath(folder / name)), sha256=sha256)
    assert destination.names_beside(REL, "a") == [folder / "a", folder / "a.dcm"]
    assert destination.names_beside(folder / "a", "") == [folder / "a", folder / "a.dcm", folder / "b.dcm"]
    assert destination.names_beside(REL, "RTIMAGE") == []


def test_the_files_beside_a_path_in_the_root_are_listed(destination, source, sha256):
    destination.publish(source, PurePosixPath("a.dcm"), sha256=sha256)
    assert destination.names_beside(PurePosixPath("x"), "") == [PurePosixPath("a.dcm")]


def test_a_folder_that_cannot_be_listed_is_a_typed_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DestinationWriteError, match="cannot be used"):
        Destination(tmp_path).names_beside(PurePosixPath("file/x"), "")
    remote = Destination("memory://x")

    def fail(*_, **__):
        raise RuntimeError("token of QA_SECRET expired")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", fail)
    with pytest.raises(DestinationWriteError, match="RuntimeError") as caught:
        remote.names_beside(REL, "")
    assert "QA_SECRET" not in str(caught.value)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a\0b"])
def test_a_path_out_of_the_root_is_refused(destination, source, sha256, path):
    with pytest.raises(ConfigurationError):
        destination.publish(source, PurePosixPath(path), sha256=sha256)


def test_a_local_destination_is_known_as_one(tmp_path):
    assert Destination(f"file://{tmp_path}").is_local
    assert Destination(UPath(tmp_path)).is_local
    assert not Destination("memory://x").is_local


def test_a_symbolic_link_cannot_lead_out(tmp_path, source, sha256):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1.2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DestinationWriteError, match="leads out"):
        Destination(tmp_path / "out").publish(source, REL, sha256=sha256)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_local_object_is_durable_before_it_has_its_name(tmp_path, source, sha256, monkeypatch):
    calls = []
    fsync, link = os.fsync, os.link

    def traced_fsync(descriptor):
        fsync(descriptor)
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def traced_link(old, new):
        calls.append(("link", Path(new)))
        link(old, new)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "link", traced_link)
    Destination(tmp_path / "out").publish(source, REL, sha256=sha256)
    final = tmp_path / "out" / REL
    linked = calls.index(("link", final))
    assert calls[linked - 1][0] == "fsync"
    assert calls[linked - 1][1].suffix == ".part"
    assert calls[linked + 1] == ("fsync", final.parent)
    assert ("fsync", tmp_path / "out" / "1.2") in calls[:linked]


def test_no_temporary_file_stays(tmp_path, source, sha256):
    destination = Destination(tmp_path / "out")
    destination.publish(source, REL, sha256=sha256)
    destination.publish(source, REL, sha256=sha256)
    destination.write_text(PurePosixPath(".dicom/x.json"), "x")
    assert list((tmp_path / "out" / ".dicom" / "tmp").iterdir()) == []


def test_what_a_killed_writer_left_is_swept_and_what_another_writes_is_not(tmp_path, source, sha256):
    folder = tmp_path / "out" / ".dicom" / "tmp"
    folder.mkdir(parents=True)
    left, running, foreign = (folder / name for name in ("left.part", "running.part", "foreign.txt"))
    for path in (left, running, foreign):
        path.write_bytes(b"x")
    long_ago = time.time() - 25 * 3600
    for path in (left, foreign):
        os.utime(path, (long_ago, long_ago))
    destination = Destination(tmp_path / "out")
    assert destination.read_text(PurePosixPath(".dicom/x.json")) is None
    assert left.exists()
    destination.publish(source, REL, sha256=sha256)
    assert sorted(path.name for path in folder.iterdir()) == ["foreign.txt", "running.part"]


def test_a_leftover_that_may_not_be_removed_stops_nobody(tmp_path, source, sha256):
    left = tmp_path / "out" / ".dicom" / "tmp" / "left.part"
    left.mkdir(parents=True)  # cannot be unlinked, whoever runs this
    os.utime(left, (0, 0))
    assert Destination(tmp_path / "out").publish(source, REL, sha256=sha256)


def test_two_writers_are_settled_by_the_first(tmp_path, source, sha256, monkeypatch):
    destination = Destination(tmp_path / "out")
    copy = local_store._copy

    def copy_while_another_is_faster(*args):
        copy(*args)
        final = tmp_path / "out" / REL
        final.write_bytes(b"first")

    monkeypatch.setattr(local_store, "_copy", copy_while_another_is_faster)
    assert destination.publish(source, REL, sha256=sha256) is False
    assert content(destination) == b"first"


def test_a_file_system_without_hard_links_is_renamed_into(tmp_path, source, sha256, monkeypatch):
    def no_links(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    destination = Destination(tmp_path / "out")
    assert destination.publish(source, REL, sha256=sha256) is True
    assert destination.publish(source, REL, sha256=sha256) is False


def test_an_error_names_the_root_and_not_the_path(tmp_path, source, sha256):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DestinationWriteError) as caught:
        Destination(blocked).publish(source, PurePosixPath("QA_SECRET/1.2.dcm"), sha256=sha256)
    assert str(blocked) in str(caught.value)
    assert "QA_SECRET" not in str(caught.value)


def test_a_failing_store_is_a_typed_error_and_leaves_no_part(source, sha256, monkeypatch):
    root = UPath(f"memory://{uuid.uuid4().hex}")
    destination = Destination(root)

    def fail(*_):
        raise RuntimeError("token of QA_SECRET expired")

    monkeypatch.setattr("shutil.copyfileobj", fail)
    with pytest.raises(DestinationWriteError) as caught:
        destination.publish(source, REL, sha256=sha256)
    monkeypatch.undo()
    assert "QA_SECRET" not in str(caught.value)
    assert destination.size(REL) is None


def test_an_empty_destination_is_refused():
    with pytest.raises(ConfigurationError, match="empty"):
        Destination("  ")


def test_a_protocol_nobody_knows_says_what_to_install():
    with pytest.raises(ConfigurationError, match="Install"):
        Destination("nosuchprotocol://bucket/x")


def test_a_folder_at_a_final_path_is_no_object(tmp_path):
    (tmp_path / REL).mkdir(parents=True)
    assert Destination(tmp_path).size(REL) is None


def test_what_somebody_else_linked_is_made_durable_before_a_copy_is_let_go(tmp_path, source, sha256, monkeypatch):
    destination = Destination(tmp_path)
    assert destination.publish(source, REL, sha256=sha256)
    synced = []
    monkeypatch.setattr(local_store, "sync_folder", synced.append)
    assert not destination.publish(source, REL, sha256=sha256)
    assert synced == [(tmp_path / REL).parent]


def test_a_path_with_an_identifier_does_not_reach_a_traceback(tmp_path, source, sha256):
    name = "".join(("SMITH", "4711"))  # a traceback shows the lines of this test too
    (tmp_path / name).write_text("a file where a folder should be")
    with pytest.raises(DestinationWriteError) as caught:
        Destination(tmp_path).publish(source, PurePosixPath(name, "1.dcm"), sha256=sha256)
    assert name not in "".join(traceback.format_exception(caught.value))
