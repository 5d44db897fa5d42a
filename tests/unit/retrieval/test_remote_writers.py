"""Stores that fsspec knows: no half of an object at its final path, whoever is killed and whatever the store does."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path, PurePosixPath

import pytest
import support.stores
from support.stores import (
    CopyOnly,
    InPlace,
    Neither,
    NumberedErrors,
    ObjectStore,
    Refusing,
    Remembering,
    Root,
)

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError
from airflow_provider_varian.retrieval import remote_writers
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.remote_files import RemoteFiles

REL = PurePosixPath("1.2/1.2.3/RTIMAGE.1.2.3.4.dcm")
MANIFEST = PurePosixPath(".dicom/x.json")
CONTENT = b"object" * 1000

#: Publishes, or replaces the text, and is killed when half of a file is written.
KILLED = """
import os, signal, sys
from pathlib import Path, PurePosixPath
from support import stores
from airflow_provider_varian.retrieval import remote_writers
from airflow_provider_varian.retrieval.destination import Destination
kind, root, source, sha256, atomic, text = sys.argv[1:]
if atomic:
    remote_writers.ATOMIC_PROTOCOLS = frozenset({atomic})
fs = getattr(stores, kind)(lambda path: os.kill(os.getpid(), signal.SIGKILL))
destination = Destination(stores.Root(fs, root))
if text:
    destination.write_text(PurePosixPath(".dicom/x.json"), text)
destination.publish(Path(source), PurePosixPath("1.2/1.2.3/RTIMAGE.1.2.3.4.dcm"), sha256=sha256)
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def root(tmp_path):
    return tmp_path / "out"


def sha256(content=CONTENT):
    return hashlib.sha256(content).hexdigest()


def publish(fs, root, source, relative=REL):
    return Destination(Root(fs, root)).publish(source, relative, sha256=sha256(source.read_bytes()))


def killed(kind, root, source, *, atomic="", text=""):
    tests = Path(support.stores.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, kind, str(root), str(source), sha256(), atomic, text],
        env={**os.environ, "PYTHONPATH": str(tests)},
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def temporary(root):
    return sorted(path.name for path in (root / ".dicom" / "tmp").iterdir())


def fail(*_):
    raise ConnectionError("lost QA_SECRET")


@pytest.mark.parametrize("kind", ["InPlace", "CopyOnly"])
def test_a_killed_upload_leaves_nothing_at_the_final_path(root, source, kind):
    killed(kind, root, source)
    destination = Destination(Root(getattr(support.stores, kind)(), root))
    assert destination.size(REL) is None
    left = temporary(root)
    assert len(left) == 1
    assert (root / ".dicom" / "tmp" / left[0]).stat().st_size == len(CONTENT) // 2
    assert destination.publish(source, REL, sha256=sha256()) is True
    assert (root / REL).read_bytes() == CONTENT
    assert temporary(root) == left  # another one may be writing it


def test_written_straight_a_killed_upload_would_be_taken_as_held(root, source):
    killed("InPlace", root, source, atomic="inplace")
    assert (root / REL).stat().st_size == len(CONTENT) // 2
    assert publish(InPlace(), root, source) is False


def test_a_failed_upload_leaves_nothing_anywhere(root, source):
    with pytest.raises(DestinationWriteError, match="ConnectionError") as caught:
        publish(InPlace(fail), root, source)
    assert "QA_SECRET" not in str(caught.value)
    assert not (root / REL).exists()
    assert temporary(root) == []


def test_a_published_object_leaves_no_temporary_file(root, source):
    assert publish(InPlace(), root, source) is True
    assert temporary(root) == []


def test_what_is_written_aside_differently_never_gets_its_name(root, source):
    names = []

    def damage(path):
        names.append(Path(path).parent.name)
        Path(path).write_bytes(b"x" * 3000)

    with pytest.raises(DestinationWriteError, match="reads back"):
        publish(InPlace(damage), root, source)
    assert names == ["tmp"]
    assert not (root / REL).exists()


@pytest.mark.parametrize("kind", [InPlace, CopyOnly])
def test_another_writer_that_is_faster_is_not_overwritten(root, source, kind):
    def be_faster(path):
        (root / REL).parent.mkdir(parents=True)
        (root / REL).write_bytes(b"first")

    assert publish(kind(be_faster), root, source) is False
    assert (root / REL).read_bytes() == b"first"
    assert temporary(root) == []


@pytest.mark.parametrize("silent", [False, True])
def test_another_writer_is_not_overwritten_where_the_store_refuses_the_rename(root, source, silent):
    fs = Refusing(silent=silent, at_rename=lambda _, final: Path(final).write_bytes(b"first"))
    assert publish(fs, root, source) is False
    assert (root / REL).read_bytes() == b"first"
    assert temporary(root) == []


def test_a_rename_that_fails_is_an_error(root, source):
    with pytest.raises(DestinationWriteError, match="ConnectionError"):
        publish(Refusing(at_rename=fail), root, source)
    assert not (root / REL).exists()
    assert temporary(root) == []


def test_a_rename_that_does_nothing_is_an_error(root, source, monkeypatch):
    monkeypatch.setattr(Refusing, "mv", lambda *_: None)
    with pytest.raises(DestinationWriteError, match="its name"):
        publish(Refusing(), root, source)
    assert not (root / REL).exists()


def test_a_folder_at_the_final_path_is_named_and_gets_nothing(root, source):
    (root / REL).mkdir(parents=True)
    assert Destination(Root(InPlace(), root)).size(REL) is None
    with pytest.raises(DestinationWriteError, match="a folder lies where"):
        publish(InPlace(), root, source)
    assert list((root / REL).iterdir()) == []


@pytest.mark.parametrize("how", ["breaks", "damages"])
def test_a_broken_copy_does_not_stay_at_the_final_path(root, source, how):
    def at_half(path):
        if path == str(root / REL):
            assert Path(path).stat().st_size == len(CONTENT) // 2
            if how == "breaks":
                fail()
            Path(path).write_bytes(b"x" * 3000)

    with pytest.raises(DestinationWriteError, match="ConnectionError" if how == "breaks" else "reads back"):
        publish(CopyOnly(at_half), root, source)
    assert not (root / REL).exists()


def test_a_store_that_can_neither_rename_nor_copy_is_no_destination(root, source):
    with pytest.raises(ConfigurationError, match="neither rename nor copy"):
        publish(Neither(), root, source)
    assert not (root / REL).exists()
    assert temporary(root) == []


@pytest.mark.parametrize("kind", [InPlace, CopyOnly, Refusing, lambda: Refusing(silent=True), NumberedErrors])
def test_every_store_publishes_once_lists_and_replaces_texts(root, source, kind):
    destination = Destination(Root(kind(), root))
    assert destination.names_beside(REL, "") == []
    assert destination.publish(source, REL, sha256=sha256()) is True
    assert destination.publish(source, REL, sha256=sha256()) is False
    assert (root / REL).read_bytes() == CONTENT
    assert destination.names_beside(REL, "RT") == [REL]
    assert destination.read_text(MANIFEST) is None
    for text in ("one", "two", "three"):
        destination.write_text(MANIFEST, text)
        assert destination.read_text(MANIFEST) == text
    assert destination.random_id() == destination.random_id()
    assert sorted(path.name for path in (root / ".dicom").iterdir()) == ["id", "tmp", "x.json"]
    assert temporary(root) == []


def test_a_text_is_whole_although_its_writer_was_killed(root, source):
    Destination(Root(InPlace(), root)).write_text(MANIFEST, "the old one")
    killed("InPlace", root, source, text="the new one")
    assert Destination(Root(InPlace(), root)).read_text(MANIFEST) == "the old one"


def test_a_text_that_cannot_be_copied_leaves_the_old_one(root, monkeypatch):
    Destination(Root(CopyOnly(), root)).write_text(MANIFEST, "the old one")
    monkeypatch.setattr(CopyOnly, "cp_file", fail)
    with pytest.raises(DestinationWriteError):
        Destination(Root(CopyOnly(), root)).write_text(MANIFEST, "the new one")
    assert Destination(Root(CopyOnly(), root)).read_text(MANIFEST) == "the old one"


@pytest.mark.parametrize("lost_at", [2, 3])
def test_a_text_is_never_missing_where_it_cannot_be_renamed_onto(root, lost_at):
    renames = []

    def count(*paths):
        renames.append(paths)
        if len(renames) == lost_at:
            raise KeyboardInterrupt  # as a kill: nothing is tidied up in the store

    destination = Destination(Root(Refusing(), root))
    destination.write_text(MANIFEST, "old")
    with pytest.raises(KeyboardInterrupt):
        Destination(Root(Refusing(at_rename=count), root)).write_text(MANIFEST, "new")
    assert len(renames) == lost_at  # refused, the old one aside, the new one in its place
    assert destination.read_text(MANIFEST) == "old"
    destination.write_text(MANIFEST, "newer")
    assert destination.read_text(MANIFEST) == "newer"
    assert sorted(path.name for path in (root / ".dicom").iterdir()) == ["tmp", "x.json"]


def test_leftovers_of_killed_writers_are_swept_and_others_stay(root, source):
    folder = root / ".dicom" / "tmp"
    folder.mkdir(parents=True)
    now = int(time.time())
    old = f"{now - 25 * 3600}.{'a' * 16}.part"
    young = f"{now - 23 * 3600}.{'b' * 16}.part"
    foreign = f"{now - 25 * 3600}.part"
    for name in (old, young, foreign):
        (folder / name).write_bytes(b"x")
    destination = Destination(Root(InPlace(), root))
    assert destination.read_text(MANIFEST) is None
    assert old in temporary(root)
    destination.publish(source, REL, sha256=sha256())
    assert temporary(root) == sorted([young, foreign])


def test_leftovers_that_cannot_be_removed_stop_nobody(root, source, monkeypatch):
    (root / ".dicom" / "tmp").mkdir(parents=True)
    (root / ".dicom" / "tmp" / f"1.{'a' * 16}.part").write_bytes(b"x")
    monkeypatch.setattr(InPlace, "rm_file", fail)
    assert publish(InPlace(), root, source) is True


def test_a_remembered_listing_hides_nothing(root, source):
    mine, other = Destination(Root(Remembering(), root)), Destination(Root(InPlace(), root))
    assert mine.publish(source, REL.with_name("mine"), sha256=sha256())
    assert mine.names_beside(REL, "") == [REL.with_name("mine")]
    other.publish(source, REL, sha256=sha256())
    assert mine.names_beside(REL, "R") == [REL]
    (root / REL).unlink()
    assert mine.size(REL) is None
    other.publish(source, REL, sha256=sha256())
    assert mine.size(REL) == len(CONTENT)


@pytest.fixture
def bucket():
    return f"/{uuid.uuid4().hex}"


def test_an_object_store_is_written_straight(bucket, source):
    uploads = []
    destination = Destination(Root(ObjectStore(uploads.append), bucket))
    assert destination.publish(source, REL, sha256=sha256()) is True
    assert destination.publish(source, REL, sha256=sha256()) is False
    for text in ("one", "two"):
        destination.write_text(MANIFEST, text)
        assert destination.read_text(MANIFEST) == text
    assert destination.random_id() == destination.random_id()
    own = f"{bucket}/.dicom"
    assert uploads == [f"{bucket}/{REL}", f"{own}/x.json", f"{own}/x.json", f"{own}/id"]


def test_a_failed_upload_to_an_object_store_leaves_nothing(bucket, source):
    with pytest.raises(DestinationWriteError, match="ConnectionError"):
        publish(ObjectStore(fail), bucket, source)
    assert Destination(Root(ObjectStore(), bucket)).size(REL) is None


def test_an_upload_removes_nothing_of_a_faster_writer(bucket, source):
    def be_faster(key):
        ObjectStore().pipe_file(key, b"first")

    assert publish(ObjectStore(be_faster), bucket, source) is False
    assert Destination(Root(ObjectStore(), bucket)).size(REL) == 5


def test_what_reads_back_differently_from_an_object_store_is_removed(bucket, source):
    destination = Destination(Root(ObjectStore(), bucket))
    with pytest.raises(DestinationWriteError, match="reads back"):
        destination.publish(source, REL, sha256="0" * 64)
    assert destination.size(REL) is None


@pytest.mark.parametrize(
    ("protocol", "straight"),
    [
        (("s3", "s3a"), True),
        (("gs", "gcs"), True),
        ("abfs", True),
        ("adl", False),
        ("sftp", False),
        (("s3", "something"), False),
        ((), False),
    ],
)
def test_only_what_is_known_to_be_atomic_is_written_straight(protocol, straight):
    fs = InPlace()
    fs.protocol = protocol
    writer = remote_writers.writer_for(RemoteFiles(fs, uri="x://y"), "y")
    assert isinstance(writer, remote_writers.StraightWriter) is straight


@pytest.mark.parametrize("kind", [InPlace, CopyOnly, ObjectStore])
def test_a_text_is_kept_where_it_must_not_be_replaced(root, kind):
    writer = remote_writers.writer_for(RemoteFiles(kind(), uri="x://y"), str(root))
    for text in (b"first", b"second"):
        writer.put_text(text, f"{root}/.dicom/id", replace=False)
    assert writer.text(f"{root}/.dicom/id") == b"first"
