"""A peer holds no more associations for this machine than it was promised, whoever asks and however they end."""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from pynetdicom import evt
from support.ports import wait_until
from support.quiet import AFTER, BEFORE, QUIET, WITHIN, Clock

from airflow_provider_varian.dimse import budget, check, contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.budget import Line
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.echo import echo, echo_peer
from airflow_provider_varian.dimse.turn import BY_HAND, TASK, Patience, pause_between, turn
from airflow_provider_varian.errors import (
    AssociationBudgetError,
    CancelledError,
    ConfigurationError,
    TransientDicomError,
)

SOON = Patience(slot_seconds=0.2)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of the locks, below a temporary directory of this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"varian-dicom-{os.geteuid()}"


@contextmanager
def taken(peer, count=1):
    """Hold slots on behalf of somebody else: of another thread."""
    done, ready, slots = threading.Event(), threading.Event(), []

    def hold():
        slots.extend(Line(peer).take() for _ in range(count))
        ready.set()
        done.wait(30)
        for slot in slots:
            slot.release()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(10)
    assert all(slots)

    def release():
        done.set()
        thread.join()

    try:
        yield release
    finally:
        release()


def is_free(peer):
    """Say whether somebody who comes now would get a slot."""
    line = Line(peer)
    slot = line.take()
    line.leave()
    if slot is not None:
        slot.release()
    return slot is not None


@contextmanager
def process(peer, code):
    """Run code in another Python, with ``peer`` and ``Line``; yields it when it has said ``ready``."""
    given = f"host={peer.host!r}, port={peer.port}, called_ae_title={peer.called_ae_title!r}"
    code = (
        "import os, signal, sys, tempfile\n"
        f"tempfile.tempdir = {tempfile.tempdir!r}\n"
        "from airflow_provider_varian.dimse.budget import Line\n"
        "from airflow_provider_varian.dimse.peer import Peer\n"
        f"peer = Peer({given}, max_associations={peer.max_associations})\n" + code
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield SimpleNamespace(process=running, said=running.stdout.readline().strip())
        finally:
            running.kill()


def waits_in(caplog):
    """Return what was said by those who began to wait for a slot."""
    return [record.getMessage() for record in caplog.records if "waiting for up to" in record.getMessage()]


def test_no_more_than_the_budget_at_a_time_and_everybody_gets_a_turn(scp, peer_at, caplog):
    caplog.set_level(logging.INFO, "airflow_provider_varian")
    peer = peer_at(scp(), max_associations=2)
    lock, inside, peak, done = threading.Lock(), [0], [0], []
    both = threading.Barrier(2, timeout=30)

    def work():
        with associate(peer, contexts.verification(), step="C-ECHO") as association:
            with lock:
                inside[0] += 1
                peak[0] = max(peak[0], inside[0])
            echo(association)
            # Two at a time, and the first two leave when the other four have found no room.
            both.wait()
            wait_until(lambda: len(waits_in(caplog)) == 4, what="the others to come and wait")
            with lock:
                inside[0] -= 1
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 6
    assert peak == [2]


def test_who_waits_for_too_long_is_told_what_to_do(peer_at, caplog):
    caplog.set_level(logging.INFO, "airflow_provider_varian")
    peer = peer_at(104, max_associations=2)
    with taken(peer, 2), pytest.raises(AssociationBudgetError) as caught:
        echo_peer(peer, patience=SOON)
    error = caught.value
    assert isinstance(error, TransientDicomError)
    assert str(error).startswith(
        "C-ECHO with VMSDBD@127.0.0.1:104: the 2 associations that max_associations allows are in use on this machine"
    )
    assert "Airflow pool" in error.hint
    assert waits_in(caplog) == [
        "VMSDBD@127.0.0.1:104: the 2 associations that max_associations allows are in use on this machine: "
        "waiting for up to 0.2 s"
    ]


def test_a_task_waits_as_long_as_a_retrieval_may_take_and_who_looks_on_for_seconds(peer_at):
    for deadline, seconds in ((60.0, 600), (600.0, 600), (7200.0, 7200)):
        peer = peer_at(104, retrieve_deadline=deadline)
        assert TASK.seconds_for(peer) == seconds
        assert BY_HAND.seconds_for(peer) <= 5
    assert TASK.waits
    assert not BY_HAND.waits


@pytest.mark.parametrize(("deadline", "waited"), [(60.0, 600), (900.0, 900)])
def test_who_holds_an_association_for_as_long_as_it_may_is_waited_for(peer_at, seconds, deadline, waited):
    peer = peer_at(104, max_associations=1, retrieve_deadline=deadline)
    cancellation = Cancellation()
    # A hundred looks in all, so that no test waits for a minute of them.
    cancellation.pause = lambda _: seconds.pause(waited / 100)
    with taken(peer), pytest.raises(AssociationBudgetError, match=f"for {waited} s now"):
        echo_peer(peer, cancellation=cancellation)
    assert waited <= sum(seconds.pauses) < 1.02 * waited


class Seconds:
    """What :mod:`.turn` takes for the monotonic clock: pauses let it go on by as much as they would last."""

    def __init__(self, monkeypatch):
        self.now, self.looks, self.pauses = 1000.0, 0, []
        monkeypatch.setattr("airflow_provider_varian.dimse.turn.time", SimpleNamespace(monotonic=self._look))

    def _look(self):
        self.looks += 1
        return self.now

    def pause(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def seconds(monkeypatch):
    return Seconds(monkeypatch)


def test_a_slot_that_comes_free_is_taken_and_the_time_is_told(scp, peer_at, seconds):
    peer = peer_at(scp(), max_associations=1)
    cancellation, waited = Cancellation(), []
    with taken(peer) as release:

        def pause(some):
            seconds.pause(some)
            if len(seconds.pauses) == 3:
                release()

        cancellation.pause = pause
        how = {"cancellation": cancellation, "on_wait": waited.append}
        with associate(peer, contexts.verification(), step="C-ECHO", **how) as association:
            echo(association)
    assert len(seconds.pauses) == 3
    assert waited == [pytest.approx(sum(seconds.pauses))]


def test_the_wait_can_be_cancelled(peer_at):
    peer = peer_at(104, max_associations=1)
    cancellation = Cancellation()
    with taken(peer):
        threading.Timer(0.1, cancellation.cancel).start()
        with pytest.raises(CancelledError):
            echo_peer(peer, cancellation=cancellation)
    assert is_free(peer)


def test_a_slot_is_given_back_when_there_is_no_association(free_port_peer):
    for _ in range(3):
        with pytest.raises(TransientDicomError, match="refused"):
            echo_peer(free_port_peer, patience=SOON)


@pytest.fixture
def free_port_peer(peer_at):
    from support.ports import free_port

    return peer_at(free_port(), max_associations=1)


def test_who_holds_all_of_them_is_not_left_to_wait_for_itself(scp, peer_at):
    peer = peer_at(scp(), max_associations=1)
    with associate(peer, contexts.verification(), step="C-ECHO"):
        started = time.monotonic()
        with pytest.raises(ConfigurationError, match="in use by the very code that asks"):
            echo_peer(peer)
        assert time.monotonic() - started < 10


def test_each_peer_has_a_budget_of_its_own(peer_at):
    peer = peer_at(104, max_associations=1)
    others = [replace(peer, port=105), replace(peer, host="127.0.0.2"), replace(peer, called_ae_title="OTHER")]
    with taken(peer):
        assert not is_free(peer)
        assert not is_free(replace(peer, calling_ae_title="US TOO"))
        assert all(is_free(other) for other in others)


def test_who_waits_comes_before_who_asks_again(peer_at):
    peer = peer_at(104, max_associations=1)
    first = Line(peer)
    with taken(peer) as release:
        assert first.take() is None  # and is first in line from now on
        release()
        assert not is_free(peer)
        slot = first.take()
        assert slot is not None
        slot.release()


# --------------------------------------------------------------------------------------------------- processes


def test_other_processes_count_and_one_that_is_killed_frees_its_slot(peer_at):
    peer = peer_at(104, max_associations=1)
    with process(peer, "slot = Line(peer).take(); print('held', bool(slot), flush=True); sys.stdin.read()") as other:
        assert other.said == "held True"
        assert not is_free(peer)
        other.process.send_signal(signal.SIGKILL)
        other.process.wait()
        assert is_free(peer)


def test_a_forked_process_keeps_no_slot_of_its_parent(peer_at):
    peer = peer_at(104, max_associations=1)
    code = (
        "slot = Line(peer).take()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.stdin.read()\n"  # lives on when its parent is dead
        "    os._exit(0)\n"
        "print('held', bool(slot), flush=True)\n"
        "signal.pause()\n"
    )
    with process(peer, code) as parent:
        assert parent.said == "held True"
        assert not is_free(peer)
        parent.process.send_signal(signal.SIGKILL)
        parent.process.wait()
        # As soon as the child has come to run at all.
        wait_until(lambda: is_free(peer), seconds=20)


def test_a_forked_process_takes_no_slot_from_its_parent(peer_at):
    code = (
        "slot = Line(peer).take()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    slot.release()\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print('free', bool(Line(peer).take()), flush=True)\n"
    )
    with process(peer_at(104, max_associations=1), code) as parent:
        assert parent.said == "free False"


# ------------------------------------------------------------------------------------------------- the folder


def test_the_folder_is_private_and_its_names_say_nothing(folder, peer_at):
    peer = peer_at(104, called_ae_title="../../X *", max_associations=1)
    with taken(peer):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (name,) = [path.name for path in folder.rglob("*")]
        assert name.removesuffix(".slot-0").isalnum()
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_too_open_is_closed(folder, peer_at):
    folder.mkdir(mode=0o755)
    folder.chmod(0o777)
    assert is_free(peer_at(104))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_is_refused(folder, peer_at, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="is not a folder of this user"):
        echo_peer(peer_at(104))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_somebody_elses_folder_is_refused(monkeypatch, peer_at, tmp_path):
    (tmp_path / "varian-dicom-4711").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigurationError, match="is not a folder of this user"):
        echo_peer(peer_at(104))


def test_a_file_that_is_removed_meanwhile_is_no_lock(folder, peer_at, monkeypatch):
    real, removed = budget.fcntl.flock, []

    def flock(descriptor, how):
        real(descriptor, how)
        slots = list(folder.glob("*.slot-0"))
        if slots and not removed:
            removed.append(slots[0].unlink())

    monkeypatch.setattr(budget.fcntl, "flock", flock)
    peer = peer_at(104, max_associations=1)
    with taken(peer):
        assert removed
        assert not is_free(peer)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_files_cannot_be_locked_nothing_is_counted_and_that_is_said_once(scp, peer_at, monkeypatch, caplog, code):
    def no_locks(descriptor, how):
        raise OSError(code, "no locks")

    monkeypatch.setattr(budget.fcntl, "flock", no_locks)
    monkeypatch.setattr(budget, "_warned", False)
    peer = peer_at(scp(), max_associations=1)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(associate(peer, contexts.verification(), step="C-ECHO"))
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "max_associations has no effect here" in warning.getMessage()
    assert errno.errorcode[code] in warning.getMessage()


# ------------------------------------------------------------------------------------------------- who looks on


def test_the_test_button_says_that_the_budget_is_in_use(scp, peer_at, monkeypatch):
    monkeypatch.setattr(check, "BY_HAND", replace(BY_HAND, slot_seconds=0.2))
    peer = peer_at(scp(), max_associations=1)
    with taken(peer):
        report = check.check(peer)
    assert not report.ok
    assert "association failed: the one association that max_associations allows is in use" in report.summary


def test_a_budget_of_one_suffices_for_the_test_button(scp, peer_at, find_handler):
    assert check.check(peer_at(scp([find_handler(0)]), max_associations=1)).ok


# ---------------------------------------------------------------------------------- quiet hours and pauses


def test_the_wait_for_a_slot_stands_still_in_quiet_hours(peer_at, monkeypatch, seconds, caplog):
    caplog.set_level(logging.INFO, "airflow_provider_varian")
    clock = Clock(monkeypatch, BEFORE)
    peer = peer_at(104, max_associations=1, **QUIET)
    ended = []

    def ask():
        try:
            with turn(peer, step="C-ECHO", cancellation=Cancellation(), patience=Patience(slot_seconds=1.0)):
                ended.append(clock.now)
        except AssociationBudgetError as error:
            ended.append(error)

    def looks_again(times):
        before = seconds.looks
        wait_until(lambda: ended or seconds.looks >= before + times, what="a look at the clock")

    thread = threading.Thread(target=ask)
    with taken(peer) as release:
        thread.start()
        wait_until(lambda: waits_in(caplog), what="somebody who waits")
        seconds.now += 0.9
        looks_again(3)
        clock.now = WITHIN
        wait_until(lambda: clock.looks, what="the quiet hours to be seen")
        seconds.now += 1.5  # longer than it would wait
        release()
        looks = clock.looks
        wait_until(lambda: clock.looks > looks + 10)
        assert not ended
        # Nobody stands in line meanwhile: others may have other quiet hours.
        assert is_free(replace(peer, quiet_hours=None))
    with taken(peer):
        clock.now = AFTER
        wait_until(lambda: ended or len(waits_in(caplog)) == 2, what="the wait to begin anew")
        seconds.now += 0.9  # more than was left of its patience, had it run on
        looks_again(3)
        assert not ended
    thread.join(20)
    assert ended == [AFTER]


def test_the_pause_counts_from_the_end_of_the_last_request_of_this_process(scp, peer_at, monkeypatch, seconds):
    def answer_late(event):
        seconds.now += 30.0
        return 0x0000

    monkeypatch.setattr(Cancellation, "pause", lambda _, some: seconds.pause(some))
    peer = peer_at(scp([(evt.EVT_C_ECHO, answer_late)]), request_pause_seconds=0.4)
    echo_peer(peer)
    assert not seconds.pauses
    seconds.now += 0.1
    echo_peer(peer)
    assert seconds.pauses == [pytest.approx(0.3)]
    pause_between(replace(peer, port=1), Cancellation())
    seconds.now += 0.4
    pause_between(peer, Cancellation())
    assert len(seconds.pauses) == 1
