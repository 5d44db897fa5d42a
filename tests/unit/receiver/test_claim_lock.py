"""One living try of a retrieval at a time; a kill frees its lock."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError, ReceiverUnavailableError, TransientDicomError
from airflow_provider_varian.receiver import claim_lock
from airflow_provider_varian.receiver.claim_lock import is_running, only_try
from airflow_provider_varian.receiver.spool import Spool

HOLD = """
import sys
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.receiver.claim_lock import only_try
from airflow_provider_varian.receiver.spool import Spool
with only_try(Spool(sys.argv[1]), "r-1", cancellation=Cancellation()):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def at_once(spool, retrieval_id="r-1"):
    return only_try(spool, retrieval_id, cancellation=Cancellation(), wait_seconds=0.0)


def test_a_second_try_is_refused_and_one_of_another_retrieval_is_not(spool):
    another = pytest.raises(TransientDicomError, match="another try of retrieval r-1")
    with at_once(spool), at_once(spool, "r-2"), another, at_once(spool):
        pass
    with at_once(spool):
        pass
    assert list((spool.root / "claimed").iterdir()) == []


def test_others_can_see_that_it_runs_and_do_not_keep_it_from_starting(spool):
    assert not is_running(spool, "r-1")
    with at_once(spool):
        assert is_running(spool, "r-1")
        assert is_running(spool, "r-1")
        assert not is_running(spool, "r-2")
    assert not is_running(spool, "r-1")
    with at_once(spool):
        pass


def test_of_which_cannot_be_told_whether_it_runs_it_runs(spool, monkeypatch):
    def opened(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", opened)
    assert is_running(spool, "r-1")


def test_a_kill_frees_it(spool):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(spool.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(ReceiverUnavailableError), at_once(spool):
                pass
        finally:
            process.kill()
            process.wait(60)
    assert (spool.root / "claimed" / "r-1.lock").exists()
    assert not is_running(spool, "r-1")
    with at_once(spool):
        pass
    assert list((spool.root / "claimed").iterdir()) == []


def test_a_cancellation_ends_the_wait(spool, monkeypatch):
    cancellation = Cancellation()
    asked = claim_lock._locked

    def cancelled_by_then(*arguments):
        descriptor = asked(*arguments)
        cancellation.cancel()
        return descriptor

    with at_once(spool):
        monkeypatch.setattr(claim_lock, "_locked", cancelled_by_then)
        with pytest.raises(CancelledError), only_try(spool, "r-1", cancellation=cancellation, wait_seconds=60.0):
            pass


def test_a_file_that_was_removed_meanwhile_is_no_lock(spool, monkeypatch):
    """Who waited has opened the file of the one before; whoever comes then would open another."""
    flock = claim_lock.fcntl.flock
    path = spool.claim_lock("r-1")

    def removed_in_between(descriptor, operation):
        monkeypatch.setattr(claim_lock.fcntl, "flock", flock)
        path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(claim_lock.fcntl, "flock", removed_in_between)
    with only_try(spool, "r-1", cancellation=Cancellation(), wait_seconds=60.0):
        assert path.exists()


def test_many_at_once_are_never_two(spool):
    inside, most = [], []

    def work():
        for _ in range(5):
            with only_try(spool, "r-1", cancellation=Cancellation()):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    claim_lock_threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in claim_lock_threads:
        thread.start()
    for thread in claim_lock_threads:
        thread.join(60)
    assert (max(most), len(most)) == (1, 15)


def test_a_spool_that_cannot_be_used_is_said(spool):
    (spool.root / "claimed" / "r-1.lock").symlink_to("elsewhere")
    with pytest.raises(ReceiverUnavailableError, match="cannot be used"), at_once(spool):
        pass
