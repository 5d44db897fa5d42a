"""Work that a few threads share."""

from __future__ import annotations

import threading

import pytest
from support.ports import wait_until

from airflow_provider_varian.receiver.crew import Crew

NAME = "crew-under-test"


def threads():
    return [thread for thread in threading.enumerate() if thread.name == NAME]


class Gate:
    """Work that begins, and ends when it is let."""

    def __init__(self):
        self.begun = []
        self.let = threading.Event()

    def work(self, name):
        def run():
            self.begun.append(name)
            assert self.let.wait(60)

        return run


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.let.set()


def test_so_many_at_once_and_no_more_in_the_order_in_which_they_came_and_no_thread_stays(gate):
    crew = Crew(3, name=NAME)
    for name in "abcdef":
        crew.hand(name, gate.work(name), urgent=True)
    wait_until(lambda: len(gate.begun) == 3, what="three at once")
    assert sorted(gate.begun) == ["a", "b", "c"]
    assert len(threads()) == 3
    assert crew.names() == set("abcdef")
    assert crew.waiting(urgent=True) == 3
    assert crew.wait(0.01) is False
    gate.let.set()
    assert crew.wait(60) is True
    assert sorted(gate.begun) == list("abcdef")
    assert crew.names() == set()
    wait_until(lambda: not threads(), what="the end of the threads")


def test_what_is_urgent_comes_first_and_nothing_is_left_undone_for_ever():
    crew, order, ready = Crew(1, name=NAME), [], threading.Event()
    crew.hand("first", lambda: ready.wait(60), urgent=True)
    for number in range(3):
        crew.hand(f"other {number}", lambda number=number: order.append(f"other {number}"), urgent=False)
    for number in range(8):
        crew.hand(f"urgent {number}", lambda number=number: order.append(f"urgent {number}"), urgent=True)
    ready.set()
    assert crew.wait(60)
    assert order[:4] == ["urgent 0", "urgent 1", "other 0", "urgent 2"]
    assert order.index("other 1") < order.index("urgent 7")
    assert len(order) == 11


def test_an_error_is_raised_where_one_waits_and_drops_what_nobody_has_begun():
    crew, done, ready = Crew(1, name=NAME), [], threading.Event()

    def fail():
        ready.wait(60)
        raise ValueError("broken")

    crew.hand("bad", fail, urgent=True)
    crew.hand("next", lambda: done.append("next"), urgent=True)
    ready.set()
    with pytest.raises(ValueError, match="broken"):
        crew.wait(60)
    assert crew.wait(60) is True
    assert done == []
    crew.hand("later", lambda: done.append("later"), urgent=True)
    assert crew.wait(60)
    assert done == ["later"]


def test_what_is_dropped_is_not_done_and_what_was_begun_is_waited_for(gate):
    crew = Crew(1, name=NAME)
    crew.hand("a", gate.work("a"), urgent=True)
    crew.hand("b", gate.work("b"), urgent=True)
    crew.hand("c", gate.work("c"), urgent=False)
    wait_until(lambda: gate.begun, what="the first")
    crew.drop()
    assert crew.names() == {"a"}
    gate.let.set()
    assert crew.wait(60)
    assert gate.begun == ["a"]
