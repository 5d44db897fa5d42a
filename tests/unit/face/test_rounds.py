"""Poll rounds: who joins which, that they never overlap, and that nothing stays behind who has left."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from support.ports import wait_until

from airflow_provider_varian.errors import CancelledError, PeerFailureError
from airflow_provider_varian.triggers import rounds as rounds_module
from airflow_provider_varian.triggers.rounds import Registry, Several, next_due, registry


class Asker:
    """Answers each question by itself, when it may; keeps all rounds."""

    def __init__(self) -> None:
        self.rounds: list[list[str]] = []
        self.running = 0
        self.overlapped = False
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.cancelled = threading.Event()
        self.error: Exception | None = None
        self.cancellations = []

    def __call__(self, questions, cancellation):
        self.cancellations.append(cancellation)
        self.rounds.append(list(questions))
        self.running += 1
        self.overlapped = self.overlapped or self.running > 1
        try:
            if self.error is not None:
                raise self.error
            while not self.may_answer.wait(0.01):
                cancellation.raise_if_cancelled()
            return [f"answer to {question}" for question in questions]
        except CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1


@pytest.fixture
def asker():
    made = Asker()
    yield made
    made.may_answer.set()
    wait_until(lambda: not made.running, what="the thread's end")


def join(question, asker, place="peer", due=0.0):
    return registry().join(place, lambda: asker, question, due)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def settled():
    """Let the loop turn until all that was ready has run; what it starts then waits for time or a thread."""
    for _ in range(20):
        await asyncio.sleep(0)


def begun(asker, count=1):
    return lambda: len(asker.rounds) == count


def run(coroutine):
    async def bounded():
        async with asyncio.timeout(60):
            return await coroutine

    return asyncio.run(bounded())


def test_those_who_are_due_share_one_round_and_get_each_their_answer(asker):
    async def scene():
        waiters = [join(str(number), asker) for number in range(50)]
        return await asyncio.gather(*(waiter.answer() for waiter in waiters))

    assert run(scene()) == [f"answer to {number}" for number in range(50)]
    assert asker.rounds == [[str(number) for number in range(50)]]


def test_who_comes_during_a_round_joins_the_next_and_rounds_do_not_overlap(asker):
    asker.may_answer.clear()

    async def scene():
        first = asyncio.create_task(join("first", asker).answer())
        await until(begun(asker))
        others = [asyncio.create_task(join(each, asker).answer()) for each in ("second", "third")]
        await settled()
        assert asker.rounds == [["first"]]
        asker.may_answer.set()
        await asyncio.gather(first, *others)

    run(scene())
    assert asker.rounds == [["first"], ["second", "third"]]
    assert not asker.overlapped


def test_who_is_due_later_is_left_for_later(asker):
    async def scene():
        later = asyncio.create_task(join("later", asker, due=time.monotonic() + 2).answer())
        await asyncio.sleep(0)
        assert await join("now", asker).answer() == "answer to now"
        assert asker.rounds == [["now"]]
        await later

    run(scene())
    assert asker.rounds == [["now"], ["later"]]


def test_an_earlier_one_is_not_kept_by_a_late_one(asker):
    async def scene():
        late = asyncio.create_task(join("late", asker, due=time.monotonic() + 3600).answer())
        await settled()  # it sleeps by now
        assert await join("now", asker).answer() == "answer to now"
        late.cancel()

    run(scene())


def test_those_who_wait_equally_long_are_due_together(monkeypatch):
    times = iter([960.1, 990.0, 1019.9, 1020.0])
    monkeypatch.setattr(rounds_module.time, "monotonic", lambda: next(times))
    assert [next_due(60) for _ in range(4)] == [1020.0, 1020.0, 1020.0, 1080.0]


def test_nobody_asks_without_a_pause():
    assert next_due(0) > time.monotonic()


def test_one_place_does_not_wait_for_another(asker):
    asker.may_answer.clear()
    quick = Asker()

    async def scene():
        slow = asyncio.create_task(join("slow", asker, place="slow").answer())
        await until(begun(asker))
        assert await join("quick", quick, place="quick").answer() == "answer to quick"
        assert not slow.done()
        asker.may_answer.set()
        await slow

    run(scene())


def test_equal_places_are_one():
    first, second = Asker(), Asker()

    async def scene():
        waiters = [join("a", first, place={"host": "x"}), join("b", second, place={"host": "x"})]
        await asyncio.gather(*(waiter.answer() for waiter in waiters))

    run(scene())
    assert (first.rounds, second.rounds) == ([["a", "b"]], [])


def test_one_who_leaves_disturbs_nobody(asker):
    asker.may_answer.clear()

    async def scene():
        stays = asyncio.create_task(join("stays", asker).answer())
        leaves = asyncio.create_task(join("leaves", asker).answer())
        await until(begun(asker))
        leaves.cancel()
        await settled()
        assert not asker.cancellations[0].cancelled
        asker.may_answer.set()
        assert await stays == "answer to stays"
        with pytest.raises(asyncio.CancelledError):
            await leaves

    run(scene())


def test_who_leaves_before_its_round_is_not_asked_for(asker):
    async def scene():
        stays = asyncio.create_task(join("stays", asker, due=time.monotonic() + 0.2).answer())
        join("leaves", asker, due=time.monotonic() + 0.2).leave()
        await stays

    run(scene())
    assert asker.rounds == [["stays"]]


def test_with_the_last_who_leaves_what_runs_is_cancelled(asker):
    asker.may_answer.clear()

    async def scene():
        tasks = [asyncio.create_task(join(each, asker).answer()) for each in "ab"]
        await until(begun(asker))
        for task in tasks:
            task.cancel()
        await until(asker.cancelled.is_set)
        # Who comes then has a round of its own, and it begins when the old one has ended.
        asker.may_answer.set()
        assert await join("new", asker).answer() == "answer to new"

    run(scene())
    assert asker.rounds == [["a", "b"], ["new"]]
    assert not asker.overlapped


def test_a_round_that_waits_for_a_thread_is_dropped_with_the_last_who_leaves(asker, monkeypatch):
    release, pool = threading.Event(), ThreadPoolExecutor(max_workers=1)
    pool.submit(release.wait, 30)
    monkeypatch.setattr(rounds_module, "shared_pool", lambda: pool)

    async def scene():
        task = asyncio.create_task(join("a", asker).answer())
        await settled()  # it is in the pool's line by now
        task.cancel()
        await asyncio.wait([task])
        release.set()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    run(scene())
    assert asker.rounds == []


def test_the_end_of_the_loop_cancels_what_runs(asker):
    asker.may_answer.clear()

    async def scene():
        task = asyncio.create_task(join("a", asker).answer())
        await until(begun(asker))
        assert not task.done()  # and is left to the loop

    run(scene())
    assert asker.cancelled.wait(10)


def test_nothing_runs_while_nobody_waits(asker):
    async def scene():
        await join("a", asker).answer()
        late = join("b", asker, due=time.monotonic() + 3600)
        await settled()  # it sleeps by now
        late.leave()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    run(scene())


def test_an_error_is_everybodys_and_each_raises_its_own(asker):
    asker.error = PeerFailureError("no", peer="VMSDBD@h:1", step="C-FIND", status=0xC001)

    async def scene():
        return await asyncio.gather(*(join(each, asker).answer() for each in "ab"), return_exceptions=True)

    first, second = run(scene())
    assert type(first) is type(second) is PeerFailureError
    assert str(first) == str(second) == str(asker.error)
    assert first is not second  # else the traces of a thousand would hang on it


def test_an_error_that_nobody_thought_of_leaves_nobody_waiting(asker):
    asker.error = ZeroDivisionError("oh")

    async def scene():
        with pytest.raises(ZeroDivisionError):
            await join("a", asker).answer()
        asker.error = None
        assert await join("b", asker).answer() == "answer to b"

    run(scene())


def test_what_a_round_logs_is_not_the_first_waiters(asker, monkeypatch):
    # Airflow tells by context variables to whose log a line belongs.
    variable = ContextVar("variable", default="nobody's")
    seen, pool = [], rounds_module.shared_pool

    def looked():
        seen.append(variable.get())
        return pool()

    monkeypatch.setattr(rounds_module, "shared_pool", looked)

    async def scene():
        variable.set("the first one's")
        await join("a", asker).answer()

    run(scene())
    assert seen == ["nobody's"]


def test_places_that_nobody_waits_for_are_forgotten(asker, monkeypatch):
    monkeypatch.setattr(rounds_module, "_KEPT_SECONDS", 0.0)

    async def scene():
        made = Registry()
        for number in range(5):
            await made.join(number, lambda: asker, "a", 0.0).answer()
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        assert len(made._rounds) == 1

    run(scene())


def test_who_waits_for_several_has_all_of_them_from_one_round(asker):
    async def scene():
        return await Several([join("one", asker), join("two", asker)]).answer()

    assert run(scene()) == ["answer to one", "answer to two"]
    assert asker.rounds == [["one", "two"]]


def test_who_waits_for_several_and_is_cancelled_leaves_with_all_of_them(asker):
    async def scene():
        several = Several([join("one", asker, due=float("inf")), join("two", asker, due=float("inf"))])
        waiting = asyncio.create_task(several.answer())
        await settled()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        ((_, rounds),) = registry()._rounds
        return list(rounds._waiting)

    assert run(scene()) == []
