"""Tasks that want the same objects take turns, and nobody waits for who is gone."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from airflow_provider_varian.aria.turns import turn
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError, TransientDicomError


def test_the_second_waits_until_the_first_is_done(tmp_path):
    order: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def first():
        with turn(tmp_path, "patient", wait_seconds=10, cancellation=Cancellation()):
            order.append("first in")
            inside.set()
            go_on.wait(10)
            order.append("first out")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    threading.Timer(0.1, go_on.set).start()
    with turn(tmp_path, "patient", wait_seconds=30, cancellation=Cancellation()):
        order.append("second in")
    thread.join()
    assert order == ["first in", "first out", "second in"]
    assert list(tmp_path.iterdir()) == []


def test_other_names_do_not_wait(tmp_path):
    at_once = partial(turn, tmp_path, wait_seconds=0, cancellation=Cancellation())
    with at_once("one"), at_once("other"):
        assert {path.name for path in tmp_path.iterdir()} == {"one.lock", "other.lock"}


def test_who_waits_too_long_says_so_and_may_be_retried(tmp_path):
    at_once = partial(turn, tmp_path, wait_seconds=0, cancellation=Cancellation())
    told = pytest.raises(TransientDicomError, match="another task has worked on the same objects")
    with at_once("one"), told, at_once("one"):
        pytest.fail("two are in")


def test_waiting_can_be_cancelled(tmp_path):
    cancellation = Cancellation()
    with turn(tmp_path, "one", wait_seconds=0, cancellation=Cancellation()):
        threading.Timer(0.05, cancellation.cancel).start()
        with pytest.raises(CancelledError), turn(tmp_path, "one", wait_seconds=60, cancellation=cancellation):
            pytest.fail("two are in")


def test_where_there_are_no_locks_the_work_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    done = []
    with turn(tmp_path / "file" / "folder", "one", wait_seconds=0, cancellation=Cancellation()):
        done.append(True)
    assert done
    assert "going on without" in caplog.text
