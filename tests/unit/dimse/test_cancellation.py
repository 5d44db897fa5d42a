"""A cancellation ends what runs, at once for whoever calls it."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError


class Target:
    """Notes that it was stopped, as soon as it may."""

    def __init__(self, *, may_stop=True, problem=None):
        self.stopped, self.may_stop = threading.Event(), threading.Event()
        self.count, self.problem = 0, problem
        if may_stop:
            self.may_stop.set()

    def stop(self, grace_seconds):
        self.count += 1
        self.grace_seconds = grace_seconds
        if not self.may_stop.wait(5):
            return
        self.stopped.set()
        if self.problem:
            raise self.problem


def test_what_is_attached_is_stopped_in_another_thread_with_three_seconds_of_grace():
    cancellation, target = Cancellation(), Target(may_stop=False)
    with cancellation.attach(target):
        cancellation.cancel()
        assert cancellation.cancelled
        target.may_stop.set()  # too late, had cancel() waited for it
        assert target.stopped.wait(5)
    assert target.grace_seconds == 3.0


def test_cancelling_twice_stops_once():
    cancellation, target = Cancellation(), Target()
    with cancellation.attach(target):
        cancellation.cancel()
        assert target.stopped.wait(5)
        cancellation.cancel()
        time.sleep(0.05)
    assert target.count == 1


def test_a_target_that_hangs_or_fails_does_not_keep_the_others_running(caplog):
    cancellation = Cancellation()
    hanging, broken, good = Target(may_stop=False), Target(problem=RuntimeError("x")), Target()
    with cancellation.attach(hanging), cancellation.attach(broken), cancellation.attach(good):
        cancellation.cancel()
        assert good.stopped.wait(4)  # before the first one gives up
        assert broken.stopped.wait(4)
        hanging.may_stop.set()
        assert hanging.stopped.wait(5)


def test_what_is_detached_is_left_alone():
    cancellation, target = Cancellation(), Target()
    with cancellation.attach(target):
        pass
    cancellation.cancel()
    time.sleep(0.05)
    assert target.count == 0


def test_nothing_can_be_attached_afterwards():
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError), cancellation.attach(Target()):
        pytest.fail("work began after the cancellation")


def test_a_pause_ends_early():
    cancellation = Cancellation()
    start = time.monotonic()
    threading.Timer(0.1, cancellation.cancel).start()
    with pytest.raises(CancelledError):
        cancellation.pause(30)
    assert time.monotonic() - start < 2


def test_a_pause_lasts_as_long_as_it_says():
    start = time.monotonic()
    Cancellation().pause(0.12)
    assert time.monotonic() - start >= 0.12
