"""Publishing a file that is given away: by another name where that gives what a copy gives, by copying elsewhere."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path, PurePosixPath

import pytest

from airflow_provider_varian.errors import DestinationWriteError
from airflow_provider_varian.retrieval import local_store
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.verify import FileState, Given

REL = PurePosixPath("1.2/1.2.3/RTIMAGE.1.2.3.4.dcm")
CONTENT = b"object" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path):
    """A file as it lies in a spool."""
    path = tmp_path / "spool" / "object"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(CONTENT)
    path.chmod(0o600)
    return path


@pytest.fixture
def root(tmp_path):
    return tmp_path / "out"


def publish(root, source, relative=REL, *, destination=None, given=None, is_durable=False, later=False):
    given = Given(given or FileState.of(source.stat()), is_durable)
    return (destination or Destination(root)).publish(source, relative, sha256=SHA256, given=given, later=later)


def is_linked(root, source):
    return os.path.samefile(root / REL, source)


def test_it_is_the_file_itself_under_its_final_name(root, source):
    assert publish(root, source) is True
    assert is_linked(root, source)
    source.unlink()
    assert (root / REL).read_bytes() == CONTENT
    assert list((root / ".dicom" / "tmp").iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_it_is_like_a_copy_in_all_but_its_age(root, source, umask):
    before = os.umask(umask)
    try:
        assert publish(root, source)
        assert Destination(root).publish(source, REL.with_name("copy"), sha256=SHA256)
    finally:
        os.umask(before)
    found, copy = (root / REL).stat(), (root / REL.with_name("copy")).stat()
    assert found.st_ino != copy.st_ino
    assert stat.S_IMODE(found.st_mode) == 0o666 & ~umask
    assert (found.st_mode, found.st_uid, found.st_gid) == (copy.st_mode, copy.st_uid, copy.st_gid)


@pytest.mark.parametrize("attribute", ["device", "user", "group", "extended"])
def test_what_a_copy_would_not_have_is_not_given_a_name(root, source, monkeypatch, attribute):
    read = local_store._Attributes.of

    def other(descriptor):
        found = read(descriptor)
        if os.path.samestat(os.fstat(descriptor), source.stat()):
            return found._replace(**{attribute: (("user.x", b""),) if attribute == "extended" else -1})
        return found

    monkeypatch.setattr(local_store._Attributes, "of", other)
    assert publish(root, source)
    assert not is_linked(root, source)
    assert (root / REL).read_bytes() == CONTENT
    assert stat.S_IMODE(source.stat().st_mode) == 0o600


def test_where_attributes_cannot_be_told_it_is_copied(root, source, monkeypatch):
    monkeypatch.setattr(local_store, "_extended", lambda descriptor: None)
    assert publish(root, source)
    assert not is_linked(root, source)


def test_a_file_of_two_names_is_copied(root, source):
    os.link(source, source.with_name("other"))
    assert publish(root, source)
    assert not is_linked(root, source)


def test_a_symbolic_link_is_not_given_a_name(root, source):
    link = source.with_name("link")
    link.symlink_to(source)
    with pytest.raises(DestinationWriteError):
        publish(root, link, given=FileState.of(source.stat()))
    assert not (root / REL).exists()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES])
def test_where_no_name_can_be_had_it_is_copied(root, source, monkeypatch, number):
    link, tried = os.link, []

    def refusing(old, new):
        if Path(old) == source:
            tried.append(new)
            raise OSError(number, os.strerror(number))
        link(old, new)

    monkeypatch.setattr(os, "link", refusing)
    destination = Destination(root)
    assert publish(root, source, destination=destination) is True
    assert publish(root, source, destination=destination) is False
    assert publish(root, source, REL.with_name("second"), destination=destination) is True
    assert not is_linked(root, source)
    assert (root / REL).read_bytes() == CONTENT
    assert tried == [root / REL], "it is tried once"


def test_another_error_is_told(root, source, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(DestinationWriteError, match="No space"):
        publish(root, source)
    assert not (root / REL).exists()


def test_what_is_there_is_never_replaced(root, source, monkeypatch):
    (root / REL).parent.mkdir(parents=True)
    (root / REL).write_bytes(b"first")
    assert publish(root, source) is False
    link = os.link

    def another_is_faster(old, new):
        Path(new).write_bytes(b"first")
        link(old, new)

    monkeypatch.setattr(os, "link", another_is_faster)
    assert publish(root, source, REL.with_name("second")) is False
    assert (root / REL).read_bytes() == (root / REL.with_name("second")).read_bytes() == b"first"


@pytest.mark.parametrize("when", ["before", "while it is named"])
def test_a_file_that_changed_since_it_was_hashed_is_not_published(root, source, monkeypatch, when):
    given, link = FileState.of(source.stat()), os.link

    def change():
        source.write_bytes(CONTENT[::-1])
        os.utime(source, ns=(0, given.modified_ns + 1))

    def change_and_link(old, new):
        change()
        link(old, new)

    if when == "before":
        change()
    else:
        monkeypatch.setattr(os, "link", change_and_link)
    with pytest.raises(DestinationWriteError, match="reads back"):
        publish(root, source, given=given)
    assert not (root / REL).exists()


@pytest.fixture
def calls(monkeypatch):
    """What is done to which file, or folder, in order."""
    done = []

    def note(name, call):
        def noted(*arguments):
            call(*arguments)
            where = arguments[0]
            path = Path(os.readlink(f"/proc/self/fd/{where}")) if isinstance(where, int) else Path(arguments[1])
            done.append((name, path))

        return noted

    for name in ("fsync", "link", "fchmod"):
        monkeypatch.setattr(os, name, note(name, getattr(os, name)))
    return done


def test_it_is_durable_before_it_has_its_name_and_its_name_before_it_is_said(root, source, calls):
    assert publish(root, source)
    linked = calls.index(("link", root / REL))
    assert calls[linked - 1] == ("fsync", source)
    assert ("fchmod", source) in calls[: linked - 1], "a kill leaves no file that others cannot read"
    assert calls[linked + 1 :] == [("fsync", (root / REL).parent)]


def test_what_is_durable_for_certain_is_not_synced_again(root, source, calls):
    assert publish(root, source, is_durable=True)
    assert ("fsync", source) not in calls
    assert calls[-2:] == [("link", root / REL), ("fsync", (root / REL).parent)]


@pytest.mark.parametrize("tells", ["sync", "write_text"])
def test_names_of_many_are_made_durable_at_once_and_before_anything_tells_of_them(root, source, calls, tells):
    destination = Destination(root)
    assert publish(root, source, destination=destination, later=True)
    assert publish(root, source, destination=destination, later=True) is False
    assert calls[-1] == ("link", root / REL), "its name is not durable yet"
    calls.clear()
    if tells == "sync":
        destination.sync()
    else:
        destination.write_text(PurePosixPath("told.json"), "{}")
    assert calls[0] == ("fsync", (root / REL).parent)
    assert [call for call in calls if call[1] == (root / REL).parent] == calls[:1]
    destination.sync()
    assert [call for call in calls if call[1] == (root / REL).parent] == calls[:1], "once is enough"


def test_what_could_not_be_made_durable_is_tried_again(root, source, monkeypatch):
    destination, tried = Destination(root), []

    def failing(folder):
        tried.append(folder)
        if len(tried) == 1:
            raise OSError(errno.EIO, "Input/output error")

    assert publish(root, source, destination=destination, later=True)
    monkeypatch.setattr(local_store, "sync_folder", failing)
    with pytest.raises(DestinationWriteError, match="Input/output error"):
        destination.sync()
    destination.sync()
    assert tried == [(root / REL).parent] * 2


def test_a_folder_that_is_gone_needs_no_sync(root, source):
    destination = Destination(root)
    assert publish(root, source, destination=destination, later=True)
    (root / REL).unlink()
    (root / REL).parent.rmdir()
    destination.sync()


def test_links_inside_the_destination_are_followed_and_those_out_of_it_are_not(root, source, tmp_path):
    (root / "real").mkdir(parents=True)
    (root / "1.2").symlink_to(root / "real")
    assert publish(root, source)
    assert (root / "real" / "1.2.3" / REL.name).exists()
    (root / "out").symlink_to(tmp_path)
    for relative in ("out/x.dcm", "out/spool/object", "real/../../x.dcm"):
        with pytest.raises(DestinationWriteError, match="leads out"):
            local_store.LocalStore(root).size(PurePosixPath(relative))


def test_a_destination_that_is_a_link_itself_is_used(root, source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    assert publish(root, source)
    assert (tmp_path / "elsewhere" / REL).read_bytes() == CONTENT
