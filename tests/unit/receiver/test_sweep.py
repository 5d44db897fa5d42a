"""What nobody claims is removed in the end, and nothing else is."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import threading
import time

import pytest
from support.archive import ROOT, rt_image
from support.ports import wait_until

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.receiver import sweep as sweeping
from airflow_provider_varian.receiver.claim_lock import only_try
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.receiver.sweep import RETENTION_SECONDS, Sweeper, Swept, sweep_if_due
from airflow_provider_varian.receiver.upkeep import UpkeepObserver, upkeep_observers
from airflow_provider_varian.retrieval.wanted import SpoolDocuments
from airflow_provider_varian.uids import RT_IMAGE

DAY = 86400
OLD = 15 * DAY


class Told(UpkeepObserver):
    """Remembers what it was told."""

    def __init__(self):
        self.items = []

    def removed(self, item):
        self.items.append(item)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def received(spool, put):
    """Receive images, and make them as old as is said; return their objects by number."""

    def receive(**ages):
        with SpoolSink(spool) as sink:
            for name in ages:
                put(sink, rt_image(int(name[1:])))
        uids = {rt_image(int(name[1:])).SOPInstanceUID: name for name in ages}
        found = {uids[item.sop_instance_uid]: item for item in spool.unclaimed()}
        for name, item in found.items():
            age(item.path, ages[name])
        return found

    return receive


def age(path, seconds):
    os.utime(path, (0, time.time() - seconds), follow_symlinks=False)


def unclaimed(spool):
    return {item.sop_instance_uid for item in spool.unclaimed()}


def test_an_object_that_nobody_claimed_in_time_is_removed_and_told_of(spool, received, told, caplog):
    items = received(_1=OLD, _2=13 * DAY)
    size = items["_1"].path.stat().st_size
    with caplog.at_level(logging.WARNING):
        assert Sweeper(spool, observer=told).sweep() == Swept(removed=1)
    assert unclaimed(spool) == {rt_image(2).SOPInstanceUID}
    (item,) = told.items
    assert item.sop_instance_uid == rt_image(1).SOPInstanceUID
    assert (item.sop_class_uid, item.study_instance_uid) == (RT_IMAGE, f"{ROOT}.1")
    assert item.size == size
    assert OLD <= item.age_seconds < OLD + 600
    assert f"removed {rt_image(1).SOPInstanceUID}, which nobody claimed in the 15.0 days" in caplog.text


def test_the_default_is_fourteen_days(spool):
    assert RETENTION_SECONDS == 14 * DAY
    assert Sweeper(spool)._retention_seconds == RETENTION_SECONDS


def test_zero_is_for_ever(spool, received, told):
    received(_1=3650 * DAY)
    assert Sweeper(spool, retention_seconds=0, observer=told).sweep() == Swept()
    assert len(unclaimed(spool)) == 1


def test_what_is_claimed_or_broken_is_kept(spool, received, told):
    items = received(_1=OLD, _2=OLD, _3=OLD)
    uids = {name: item.sop_instance_uid for name, item in items.items()}
    (claimed,) = spool.claim("r-1", {uids["_1"]})
    (broken,) = spool.claim("r-1", {uids["_2"]})
    aside = spool.set_aside(broken)
    assert Sweeper(spool, observer=told).sweep().removed == 1
    assert claimed.path.exists()
    assert aside.exists()
    assert [item.sop_instance_uid for item in told.items] == [uids["_3"]]


def test_what_is_no_object_is_left_to_whoever_put_it_there(spool, received):
    received(_1=OLD)
    strange = [spool.new / "00" / "notes.txt", spool.new / "00" / "A.2.dcm"]
    for path in strange:
        path.write_text("x")
        age(path, OLD)
    link = spool.new / "00" / f"1.2.{'0' * 36}.dcm"
    link.symlink_to(strange[0])
    age(link, OLD)
    assert Sweeper(spool).sweep().removed == 1
    assert all(path.exists() for path in (*strange, link))


def test_an_object_without_a_receipt_is_removed_too(spool, told):
    (spool.new / "00").mkdir()
    path = spool.new / "00" / f"1.2.3.{'0' * 36}.dcm"
    path.write_bytes(b"nothing")
    age(path, OLD)
    assert Sweeper(spool, observer=told).sweep().removed == 1
    (item,) = told.items
    assert (item.sop_instance_uid, item.sop_class_uid, item.study_instance_uid, item.size) == ("1.2.3", "", "", 7)


def test_what_a_standing_writer_received_is_swept_while_it_lives_and_its_fragments_are_not(spool, put):
    with SpoolSink(spool) as sink:
        put(sink)
        (item,) = spool.unclaimed()
        age(item.path, OLD)
        fragment = sink.owner.folder / "fragment"
        fragment.touch()
        age(fragment, OLD)
        assert Sweeper(spool).sweep() == Swept(removed=1)
        assert fragment.exists()
    assert unclaimed(spool) == set()


def test_the_fragments_of_the_dead_are_swept(spool):
    script = f"""
import os
from airflow_provider_varian.receiver.spool import Spool
owner = Spool({str(spool.root)!r}).register()
(owner.folder / "fragment").touch()
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 9
    assert Sweeper(spool).sweep().fragments == 1
    assert list((spool.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("first", ["claim", "sweep"])
def test_of_a_claim_and_a_removal_at_once_one_finds_the_object(spool, received, told, monkeypatch, first):
    (item,) = received(_1=OLD).values()
    reading = sweeping._read
    claims = []

    def claim_then_read(found):
        if first == "claim":
            claims.extend(spool.claim("r-1", {found.sop_instance_uid}))
        return reading(found) if found.path.exists() else ("", "")

    monkeypatch.setattr(sweeping, "_read", claim_then_read)
    swept = Sweeper(spool, observer=told).sweep()
    claims.extend(spool.claim("r-1", {item.sop_instance_uid}))
    assert unclaimed(spool) == set()
    if first == "claim":
        assert (swept.removed, told.items) == (0, [])
        assert [found.path.exists() for found in claims] == [True]
    else:
        assert (swept.removed, claims) == (1, [])
        assert len(told.items) == 1


def test_claims_and_removals_at_once_lose_nothing(spool, received, told):
    names = {f"_{number}": OLD for number in range(1, 41)}
    uids = [item.sop_instance_uid for item in received(**names).values()]
    claimed = []

    def claim():
        for uid in uids:
            claimed.extend(spool.claim("r-1", {uid}))

    claimer = threading.Thread(target=claim)
    claimer.start()
    Sweeper(spool, observer=told).sweep()
    claimer.join()
    swept = {item.sop_instance_uid for item in told.items}
    held = {item.sop_instance_uid for item in claimed}
    assert swept | held == set(uids)
    assert swept & held == set()
    assert all(item.path.exists() for item in claimed)


def test_old_empty_claims_are_closed_and_others_are_not(spool, received):
    (item, _) = received(_1=1, _2=1).values()
    spool.claim("full", {item.sop_instance_uid})
    for name in ("full", "empty", "young", "running"):
        spool.claimed(name)
    for name in ("full", "empty", "running"):
        age(spool.root / "claimed" / name, 2 * 3600)
    with only_try(spool, "running", cancellation=Cancellation()):
        swept = Sweeper(spool).sweep()
        assert swept.claims == 1
        assert {path.name for path in (spool.root / "claimed").iterdir()} == {
            "full",
            "young",
            "running",
            "running.lock",
        }


def test_locks_of_dead_tries_are_removed_and_those_of_the_living_are_not(spool):
    dead, young = spool.claim_lock("dead"), spool.claim_lock("young")
    for path in (dead, young):
        path.touch()
    age(dead, 2 * 3600)
    with only_try(spool, "living", cancellation=Cancellation()):
        age(spool.claim_lock("living"), 2 * 3600)
        assert Sweeper(spool).sweep().locks == 1
        assert not dead.exists()
        assert young.exists()
        assert spool.claim_lock("living").exists()
        descriptor = os.open(spool.claim_lock("living"), os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


def test_it_sweeps_at_once_and_again_until_it_is_stopped(spool, received, told):
    received(_1=OLD)
    sweeper = Sweeper(spool, observer=told, interval_seconds=0.05)
    sweeper.start()
    wait_until(lambda: len(told.items) == 1, what="the first sweep")
    received(_2=OLD)
    wait_until(lambda: len(told.items) == 2, what="the next one")
    sweeper.stop()
    sweeper.stop()
    received(_3=OLD)
    assert len(unclaimed(spool)) == 1


def test_a_spool_that_cannot_be_swept_is_said_and_swept_later(spool, received, told):
    received(_1=OLD)
    claimed = spool.root / "claimed"
    claimed.rename(spool.root / "elsewhere")
    sweeper = Sweeper(spool, observer=told, interval_seconds=0.05)
    assert sweeper.trouble() is None
    sweeper.start()
    try:
        wait_until(sweeper.trouble, what="the trouble")
        assert "could not be swept" in sweeper.trouble()
        (spool.root / "elsewhere").rename(claimed)
        wait_until(lambda: sweeper.trouble() is None, what="its end")
    finally:
        sweeper.stop()
    assert unclaimed(spool) == set()


def test_an_observer_that_fails_harms_nobody(spool, received, told, caplog):
    class Broken(UpkeepObserver):
        def removed(self, item):
            raise RuntimeError("QA_SECRET")

    received(_1=OLD, _2=OLD)
    assert Sweeper(spool, observer=upkeep_observers(Broken(), told)).sweep().removed == 2
    assert len(told.items) == 2
    assert "Broken failed to note 'removed': RuntimeError" in caplog.text
    assert "QA_SECRET" not in caplog.text


def test_a_spool_of_tasks_is_swept_at_most_once_an_hour(spool, received):
    received(_1=OLD)
    lock = spool.root / "lock"
    assert sweep_if_due(spool) is None, "a new spool holds nothing old"
    age(lock, 2 * 3600)
    assert sweep_if_due(spool) == Swept(removed=1)
    received(_2=OLD)
    assert sweep_if_due(spool) is None
    assert len(unclaimed(spool)) == 1
    age(lock, 2 * 3600)
    assert sweep_if_due(spool, retention_seconds=0) == Swept()
    age(lock, -2 * 3600)
    assert sweep_if_due(spool) == Swept(removed=1), "a clock that was set back does not keep it from sweeping"


def test_a_spool_in_which_a_standing_receiver_has_run_is_its_own_to_sweep(spool, received):
    received(_1=OLD)
    with SpoolSink(spool, standing=True):
        pass
    age(spool.root / "lock", 2 * 3600)
    assert sweep_if_due(spool) is None
    assert len(unclaimed(spool)) == 1
    assert Sweeper(spool).sweep() == Swept(removed=1)


def test_a_task_goes_on_when_its_spool_cannot_be_swept(spool, received, caplog):
    assert sweep_if_due(spool) is None
    received(_1=OLD)
    age(spool.root / "lock", 2 * 3600)
    (spool.root / "claimed").rmdir()
    assert sweep_if_due(spool) is None
    assert "could not be swept" in caplog.text


def test_what_a_kill_left_of_a_note_is_removed_and_no_other(spool):
    left, fresh = spool.wanted / f".{'0a' * 8}", spool.wanted / f".{'0b' * 8}"
    others = [spool.wanted / name for name in ("r-1.json", ".hidden", f".{'0c' * 8}.json", f".{'0G' * 8}")]
    for path in (left, fresh, *others):
        path.touch()
        age(path, 7200 if path is not fresh else 60)
    assert Sweeper(spool).sweep() == Swept(notes=1)
    assert sorted(spool.wanted.iterdir()) == sorted([fresh, *others])


def test_a_note_that_a_kill_cuts_off_is_one_that_the_sweep_knows(spool, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        SpoolDocuments(spool).write("r-1.json", "{}")
    (left,) = spool.wanted.iterdir()
    age(left, 7200)
    assert Sweeper(spool).sweep() == Swept(notes=1)
