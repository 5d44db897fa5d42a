"""The spool keeps what was acknowledged, and nothing else."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pydicom
import pytest
from support.archive import ROOT, rt_image
from support.datasets import wire_bytes

from airflow_provider_varian.dimse.sink import StorageRefused, StoreRequest
from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver import spooled as spooled_module
from airflow_provider_varian.receiver import writers
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.receiver.spooled import spooled
from airflow_provider_varian.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLICIT_VR_LITTLE_ENDIAN,
    RT_IMAGE,
)

UID = rt_image(1).SOPInstanceUID


def request_for(uid):
    return StoreRequest(sop_class_uid=RT_IMAGE, sop_instance_uid=uid, transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN)


def everything(spool):
    found = (path for path in spool.root.rglob("*") if path.name not in {"lock", "standing"})
    return sorted(path for path in found if path.is_file())


def test_a_committed_object_is_a_file_that_says_where_it_came_from(spool, put, data_set):
    with SpoolSink(spool) as sink:
        put(sink)
    (item,) = spool.unclaimed()
    assert item.path.parent.parent == spool.new
    assert item.path.name.startswith(f"{UID}.")
    ds = pydicom.dcmread(item.path)
    assert ds.preamble == bytes(128)
    meta = ds.file_meta
    assert meta.MediaStorageSOPClassUID == RT_IMAGE
    assert meta.MediaStorageSOPInstanceUID == UID
    assert meta.TransferSyntaxUID == IMPLICIT_VR_LITTLE_ENDIAN
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert (meta.SourceApplicationEntityTitle, meta.ReceivingApplicationEntityTitle) == ("VMSDBD", "AIRFLOW")
    assert wire_bytes(item.path) == data_set(rt_image(1))
    receipt = item.receipt()
    assert (receipt.sop_instance_uid, receipt.source_ae_title) == (UID, "VMSDBD")


def test_pieces_of_any_size_make_the_same_file(spool, put, data_set):
    content = data_set(rt_image(1))
    with SpoolSink(spool) as sink:
        put(sink, pieces=[memoryview(content)[i : i + 7] for i in range(0, len(content), 7)])
    (item,) = spool.unclaimed()
    assert wire_bytes(item.path) == content


def test_folders_and_files_are_private(spool, put):
    with SpoolSink(spool) as sink:
        put(sink)
        for path in [spool.root, *spool.root.rglob("*")]:
            expected = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == expected, path


class Trace:
    """What was asked of the operating system, in order."""

    def __init__(self, monkeypatch):
        self.calls = []
        for name in ("open", "write", "writev", "fsync", "rename"):
            monkeypatch.setattr(os, name, self._traced(name, getattr(os, name)))

    def _traced(self, name, function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            if name in ("write", "writev", "fsync"):
                target = os.readlink(f"/proc/self/fd/{args[0]}")
                self.calls.append((name, Path(target)))
            elif name == "rename":
                self.calls.append((name, Path(args[1])))
            return result

        return call


def test_the_answer_comes_after_write_fsync_rename_and_fsync_of_the_folder(spool, put, monkeypatch):
    with SpoolSink(spool) as sink:
        trace = Trace(monkeypatch)
        put(sink, rt_image(1))
        trace.calls.append(("answer", Path()))
    shard = spool.shard(UID)
    names = [name for name, _ in trace.calls]
    fsync_file = next(
        i for i, (name, path) in enumerate(trace.calls) if name == "fsync" and path.parent == sink.owner.folder
    )
    rename = next(i for i, (name, path) in enumerate(trace.calls) if name == "rename" and path.parent == shard)
    fsync_folder = next(i for i, (name, path) in enumerate(trace.calls) if name == "fsync" and path == shard)
    last_write = max(i for i, name in enumerate(names) if name.startswith("write"))
    assert last_write < fsync_file < rename < fsync_folder < names.index("answer")


def test_all_shards_are_durable_before_anything_can_be_received(spool, monkeypatch):
    trace = Trace(monkeypatch)
    with SpoolSink(spool):
        shards = sorted(path.name for path in spool.new.iterdir())
        assert shards == [f"{number:02x}" for number in range(256)]
        assert ("fsync", spool.new) in trace.calls


@pytest.mark.parametrize("call", ["fsync", "write", "writev", "rename"])
def test_what_cannot_be_made_durable_is_refused_and_leaves_nothing(spool, put, data_set, monkeypatch, call):
    with SpoolSink(spool) as sink:

        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, call, fail)
        with pytest.raises(StorageRefused) as refused:
            put(sink, pieces=[data_set(rt_image(1))[:100], data_set(rt_image(1))[100:]])
        monkeypatch.undo()
        assert refused.value.status == 0xA700
        assert everything(spool) == []
        assert sink.in_flight == 0


def test_a_failing_fsync_of_the_folder_takes_the_object_back(spool, put, monkeypatch):
    with SpoolSink(spool) as sink:
        put(sink, rt_image(1))
        spool.claim("x", [UID], owner=sink.owner.name)
        fsync = os.fsync

        def fail_on_folders(descriptor):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EIO, "Input/output error")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fail_on_folders)
        with pytest.raises(StorageRefused):
            put(sink)
        assert list(spool.unclaimed()) == []


@pytest.mark.parametrize(
    "uid",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "1.2\0.3",
        "1.2/3",
        "1." + "2" * 63,
        "1\u20242\u20243",  # one dot leaders
        "\uff11.\uff12",  # full-width digits
        "1..2",
        "1.2.3 ",
        "1.2.3\n",
    ],
)
def test_a_hostile_uid_is_refused_before_any_path_is_made(spool, put, monkeypatch, uid):
    with SpoolSink(spool) as sink:
        before = everything(spool)
        monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("a file was opened"))
        for changes in ({"sop_instance_uid": uid}, {"sop_class_uid": uid}, {"transfer_syntax_uid": uid}):
            with pytest.raises(StorageRefused) as refused:
                put(sink, **changes)
            assert refused.value.status == 0xC000
        monkeypatch.undo()
        assert everything(spool) == before


@pytest.mark.parametrize("changes", [{"sop_instance_uid": "1.2.3"}, {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2"}])
def test_uids_of_command_and_data_set_must_be_the_same(spool, put, changes):
    with SpoolSink(spool) as sink:
        with pytest.raises(StorageRefused) as refused:
            put(sink, **changes)
        assert refused.value.status == 0xA900
        assert everything(spool) == []


@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_what_the_head_says_does_not_depend_on_the_pieces(spool, put, data_set, size):
    content = data_set(rt_image(1))
    another = content.replace(UID.encode(), UID[:-1].encode() + b"x")
    broken = content[: content.index(UID.encode()) + len(UID)] + b"\xff" * 300
    for sent, status in ((content, None), (another, 0xA900), (broken, 0xA900)):
        with SpoolSink(spool) as sink:
            pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
            try:
                put(sink, pieces=pieces)
                found = None
            except StorageRefused as refused:
                found = refused.status
        assert found == status
    assert len(list(spool.unclaimed())) == 1


@pytest.mark.parametrize("content", [b"", b"\0", b"garbage that is no data set at all", b"\x08\x00\x18\x00"])
def test_what_is_no_data_set_is_refused(spool, put, content):
    with SpoolSink(spool) as sink:
        with pytest.raises(StorageRefused) as refused:
            put(sink, pieces=[content])
        assert refused.value.status == 0xA900
        assert everything(spool) == []


def test_deflated_data_is_refused_unread(spool, put):
    with SpoolSink(spool) as sink, pytest.raises(StorageRefused):
        put(sink, transfer_syntax_uid=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


def test_an_abandoned_object_leaves_no_fragment(spool):
    with SpoolSink(spool) as sink:
        request = StoreRequest(
            sop_class_uid=RT_IMAGE, sop_instance_uid=UID, transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN
        )
        incoming = sink.begin(request)
        incoming.write(b"half")
        assert sink.in_flight == 1
        incoming.abandon()
        incoming.abandon()
        assert sink.in_flight == 0
        assert everything(spool) == []


def test_claiming_moves_and_letting_go_removes(spool, put):
    with SpoolSink(spool) as sink:
        put(sink)
        put(sink, rt_image(2))
        taken = spool.claim("r-1", [UID], owner=sink.owner.name)
        assert [item.sop_instance_uid for item in taken] == [UID]
        assert spool.claim("r-2", [UID], owner=sink.owner.name) == []
        assert [item.path for item in spool.claimed("r-1")] == [item.path for item in taken]
        spool.let_go(taken[0])
        spool.close_claim("r-1")
        assert not (spool.root / "claimed" / "r-1").exists()
        assert [item.sop_instance_uid for item in spool.unclaimed()] == [rt_image(2).SOPInstanceUID]


def test_what_a_living_receiver_holds_is_its_own(spool, put):
    with SpoolSink(spool) as mine, SpoolSink(Spool(spool.root)) as theirs:
        put(theirs)
        assert spool.claim("r-1", [UID], owner=mine.owner.name) == []
        theirs.close()
        assert len(spool.claim("r-1", [UID], owner=mine.owner.name)) == 1


def test_two_claimers_never_take_the_same_object(spool, put):
    with SpoolSink(spool) as sink:
        for number in range(40):
            put(sink, rt_image(number))
    uids = [rt_image(number).SOPInstanceUID for number in range(40)]
    taken = {name: [] for name in "abcd"}
    barrier = threading.Barrier(4)

    def claim(name):
        barrier.wait()
        taken[name] += spool.claim(name, uids)

    threads = [threading.Thread(target=claim, args=(name,)) for name in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item.sop_instance_uid for items in taken.values() for item in items) == sorted(uids)


KILLED = """
import os, signal, sys
from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
sink = SpoolSink(Spool(sys.argv[1]))
request = StoreRequest(sop_class_uid="1.2", sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2")
incoming = sink.begin(request)
incoming.write(b"x" * 100000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_fragments_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(spool):
    subprocess.run([sys.executable, "-c", KILLED, str(spool.root)], check=False)
    assert len(everything(spool)) == 1
    with SpoolSink(spool) as sink:
        request = StoreRequest(
            sop_class_uid="1.2", sop_instance_uid="1.2.4", transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN
        )
        living = sink.begin(request)
        assert spool.reconcile().swept_fragments == 1
        assert len(everything(spool)) == 1
        living.abandon()


def test_reconciling_names_files_without_a_receipt_and_touches_none(spool, put, caplog):
    with SpoolSink(spool) as sink:
        put(sink)
    stranger = spool.shard("1.2.3") / "1.2.3.0011.dcm"
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_bytes(b"no receipt")
    with caplog.at_level(logging.WARNING):
        report = spool.reconcile()
    assert report.without_receipt == (stranger,)
    assert str(stranger) in caplog.text
    assert len(list(spool.unclaimed())) == 2


def test_an_unusable_spool_says_what_to_change(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ReceiverUnavailableError, match="spool_root"):
        Spool(blocked / "spool")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "a.b"])
def test_a_retrieval_id_cannot_lead_out_of_the_spool(spool, name):
    with pytest.raises(ValueError, match="retrieval ID"):
        spool.claim(name, [UID])


def test_a_shard_is_made_of_uids_alone(spool):
    with pytest.raises(ValueError, match="no UID"):
        spool.shard("../x")
    assert spool.shard(f"{ROOT}.1").parent == spool.new


# Writers that stand, and what a retrieval asks of a spool that others write into


def test_what_a_standing_writer_received_is_anybodys(spool, put):
    with SpoolSink(spool) as task, SpoolSink(Spool(spool.root), standing=True) as standing:
        put(standing)
        put(task, rt_image(2))
        others = Spool(spool.root)
        items = {item.owner: item for item in others.unclaimed()}
        assert others.may_claim(items[standing.owner.name])
        assert not others.may_claim(items[task.owner.name])
        assert others.may_claim(items[task.owner.name], owner=task.owner.name)
        uids = [rt_image(number).SOPInstanceUID for number in (1, 2)]
        assert [item.sop_instance_uid for item in others.claim("r-1", uids)] == [UID]


def test_one_object_is_taken_once(spool, put):
    with SpoolSink(spool, standing=True) as sink:
        put(sink)
        (item,) = spool.unclaimed()
        taken = spool.take("r-1", item)
        assert spool.take("r-2", item) is None
    assert [each.path for each in spool.claimed("r-1")] == [taken.path]


def test_a_spool_tells_whether_somebody_stands(spool):
    assert not spool.has_standing()
    with SpoolSink(spool):
        assert not spool.has_standing()
        with SpoolSink(Spool(spool.root), standing=True):
            assert spool.has_standing()
    assert not spool.has_standing()


def test_a_standing_writer_that_was_killed_stands_no_more(spool):
    owner = spool.register(standing=True)
    os.close(owner.descriptor)  # what the kernel does
    assert not spool.has_standing()
    assert (owner.folder / "standing").exists()
    assert spool.sweep() == 0
    assert not owner.folder.exists()


def test_what_is_on_its_way_to_a_standing_writer_is_told(spool, put):
    request = request_for(UID)
    with SpoolSink(spool) as task, SpoolSink(Spool(spool.root), standing=True) as standing:
        own = task.begin(request_for(rt_image(2).SOPInstanceUID))
        assert list(spool.arriving()) == []
        arriving = standing.begin(request)
        arriving.write(b"the first piece, with which the receipt is written")
        (standing.owner.folder / "unreadable").write_bytes(b"x")
        assert [receipt.sop_instance_uid for receipt in spool.arriving()] == [UID]
        arriving.abandon()
        own.abandon()
        assert list(spool.arriving()) == []


def test_a_name_tells_when_its_reception_began(spool, put, monkeypatch):
    monkeypatch.setattr(spooled_module.time, "time_ns", lambda: 1_700_000_000_500_000_000)
    with SpoolSink(spool) as sink:
        put(sink)
        (item,) = spool.unclaimed()
        assert item.begun == 1_700_000_000.5
        assert item.owner == sink.owner.name
    earlier = spooled(Path(f"{UID}.{'0123456789ab'}{'f' * 16}.dcm"))
    assert (earlier.owner, earlier.begun) == ("0123456789ab", None)


@pytest.mark.parametrize("name", ["1.2.3.dcm.part", "lock", "../1.2.3.x.dcm", "a.b.dcm", ".x.dcm", "1..2.x.dcm"])
def test_what_has_not_the_name_of_an_object_is_none(name, spool, tmp_path):
    assert spooled(Path(name)) is None or "/" in name
    source = tmp_path / "file"
    source.write_bytes(b"x")
    with pytest.raises(ValueError, match="no name of an object"):
        spool.adopt("r-1", source, name)
    assert source.exists()


def test_a_file_of_ones_own_becomes_a_claimed_object_durably(spool, monkeypatch):
    with SpoolSink(spool) as sink:
        source = sink.owner.folder / "copy"
        source.write_bytes(b"content")
        trace = Trace(monkeypatch)
        item = spool.adopt("r-1", source, f"{UID}.{sink.owner.unique()}.dcm")
        assert [name for name, _ in trace.calls][-2:] == ["rename", "fsync"]
        assert trace.calls[-1][1] == item.path.parent
    assert [each.path for each in spool.claimed("r-1")] == [item.path]
    assert item.path.read_bytes() == b"content"


def test_a_claim_of_what_another_process_received_is_durable(spool, put, monkeypatch):
    with SpoolSink(spool, standing=True) as sink:
        put(sink)
        (item,) = spool.unclaimed()
        trace = Trace(monkeypatch)
        taken = spool.take("r-1", item, durably=True)
        assert trace.calls[-1] == ("fsync", taken.path.parent)
        assert spool.take("r-2", item, durably=True) is None, "somebody else was faster"
        monkeypatch.undo()
        put(sink)
        trace = Trace(monkeypatch)
        (taken,) = spool.claim("r-1", {UID})
        assert trace.calls[-1] == ("fsync", taken.path.parent)


def test_a_sweep_leaves_the_living_alone(spool):
    request = request_for(UID)
    with SpoolSink(spool, standing=True) as sink:
        living = sink.begin(request)
        dead = spool.register()
        (dead.folder / "fragment").write_bytes(b"half")
        os.close(dead.descriptor)
        assert spool.sweep() == 1
        assert not dead.folder.exists()
        assert len(everything(spool)) == 1, "the living writer's fragment"
        living.abandon()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM])
def test_a_writer_of_which_cannot_be_told_whether_it_lives_is_left_alone(spool, put, monkeypatch, number):
    open_ = os.open
    with SpoolSink(spool) as sink:
        put(sink)
        (item,) = spool.unclaimed()
        monkeypatch.setattr(writers, "_OURS", {})  # as if it were another process's

        def opened(path, *args, **options):
            if path == sink.owner.folder / "lock":
                raise OSError(number, os.strerror(number))
            return open_(path, *args, **options)

        monkeypatch.setattr(os, "open", opened)
        assert spool.sweep() == 0
        assert sink.owner.folder.exists()
        assert not spool.may_claim(item)
        monkeypatch.setattr(os, "open", open_)
        put(sink, rt_image(2))
    assert spool.may_claim(item)


def test_a_sweep_never_touches_a_writer_of_its_own_process(spool, put):
    with SpoolSink(spool) as sink:
        (sink.owner.folder / "lock").unlink()
        assert Spool(spool.root).sweep() == 0
        put(sink)
        (item,) = spool.unclaimed()
        assert not spool.may_claim(item)
    assert spool.may_claim(item)
    assert not sink.owner.folder.exists()
    assert sink.owner.name not in writers._OURS  # its lock's number may be another file's by now


def test_a_spool_remembers_that_somebody_stood(spool):
    with SpoolSink(spool):
        assert not spool.has_ever_stood()
    for _ in range(2):
        with SpoolSink(spool, standing=True):
            assert spool.has_ever_stood()
    assert not spool.has_standing()
    assert Spool(spool.root).has_ever_stood()
    assert stat.S_IMODE((spool.root / "standing").stat().st_mode) == 0o600


def test_that_somebody_stands_is_durable_before_anything_is_received(spool, monkeypatch):
    synced, fsync = [], os.fsync

    def traced(descriptor):
        found = os.fstat(descriptor)
        if os.path.samestat(found, spool.root.stat()):
            synced.append((spool.root / "standing").exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", traced)
    with SpoolSink(spool, standing=True):
        assert synced == [True]


def test_a_file_that_is_claimed_while_it_is_looked_at_is_not_one_without_a_receipt(spool, put, monkeypatch, caplog):
    with SpoolSink(spool) as sink:
        put(sink)
    unclaimed = Spool.unclaimed

    def claimed_meanwhile(self, uids=None):
        for item in list(unclaimed(self, uids)):
            item.path.unlink()
            yield item

    monkeypatch.setattr(Spool, "unclaimed", claimed_meanwhile)
    assert spool.reconcile().without_receipt == ()


def test_without_durability_nothing_is_synced_and_all_else_is_the_same(spool, put, monkeypatch, data_set):
    with SpoolSink(spool, durable=False) as sink:
        trace = Trace(monkeypatch)
        put(sink)
    assert [name for name, _ in trace.calls if not name.startswith("write")] == ["rename"]
    (item,) = spool.unclaimed()
    assert wire_bytes(item.path) == data_set(rt_image(1))


@pytest.mark.parametrize("written", [1, 200, 10**6])
def test_a_receipt_that_is_written_in_part_is_written_to_its_end(spool, put, data_set, monkeypatch, written):
    """A disk that is nearly full, or a signal, may take less of the first piece than it was given."""

    def some(descriptor, buffers):
        return os.write(descriptor, b"".join(buffers)[:written])

    monkeypatch.setattr(os, "writev", some)
    with SpoolSink(spool) as sink:
        put(sink)
    (item,) = spool.unclaimed()
    assert item.receipt().sop_instance_uid == UID
    assert wire_bytes(item.path) == data_set(rt_image(1))


def test_free_space_is_that_of_the_spools_file_system(spool):
    there = os.statvfs(spool.root)
    assert abs(spool.free_bytes() - there.f_bavail * there.f_frsize) < 1 << 30


def test_free_space_that_cannot_be_told_refuses(spool, put, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    with SpoolSink(spool, min_free_bytes=1) as sink:
        monkeypatch.setattr(Spool, "free_bytes", fail)
        with pytest.raises(StorageRefused) as refused:
            put(sink)
        assert refused.value.status == 0xA700
