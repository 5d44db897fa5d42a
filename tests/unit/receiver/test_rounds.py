"""Work in a thread of its own goes on whatever happens to one round, and ends when it is told to."""

from __future__ import annotations

import threading
import time

from support.ports import wait_until

from airflow_provider_varian.receiver.rounds import Rounds


def test_a_round_that_fails_is_logged_and_the_next_one_comes(caplog):
    rounds = []

    def work():
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise RuntimeError("once")
        return 1000.0

    running = Rounds(work, name="the work", after_error_seconds=0.01)
    running.start()
    wait_until(lambda: len(rounds) == 2, what="a second round")
    assert running.stop(30)
    assert "the work: a round failed unexpectedly; the next one is in 0 s" in caplog.text


def test_it_is_woken_also_while_a_round_runs():
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def work():
        begun.release()
        go_on.acquire(timeout=30)
        return 1000.0

    running = Rounds(work, name="the work")
    running.start()
    for _ in range(3):
        assert begun.acquire(timeout=30)
        running.wake()  # in the middle of a round: one more is wanted
        go_on.release()
    go_on.release()
    assert running.stop(30)


def test_it_ends_in_the_middle_of_a_wait_and_says_when_it_does_not_end():
    begun, go_on = threading.Event(), threading.Event()
    waiting = Rounds(lambda: 1000.0, name="waiting")
    waiting.start()
    at = time.monotonic()
    assert waiting.stop(30)
    assert waiting.stop(30)
    assert time.monotonic() - at < 20

    def work():
        begun.set()
        go_on.wait(30)
        return 0.0

    busy = Rounds(work, name="busy")
    busy.start()
    assert begun.wait(30)
    assert busy.stop(0.01) is False
    assert busy.is_stopping
    go_on.set()


def test_a_pause_in_a_round_ends_with_it():
    paused = threading.Event()

    def work():
        paused.set()
        running.pause(1000.0)
        return 1000.0

    running = Rounds(work, name="pausing")
    running.start()
    assert paused.wait(30)
    assert running.stop(30)
