"""One poll round for all who wait for the same: a registry in each triggerer process.

Whoever waits joins with a question and a time at which it is due. A round takes all that are due, and asks them of the
peer, or of whatever they wait for, in one thread of a small pool; who comes meanwhile joins the next one. Rounds of one
peer never overlap. Times lie on a grid, so that those who wait equally long ask together, whenever they came.

Who is cancelled leaves without a trace, and with the last one what runs is cancelled. Nothing here waits in the loop,
and nothing is alive while nobody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import time
import weakref
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.hooks.worker_threads import shared_pool

if TYPE_CHECKING:
    from airflow_provider_varian.dimse.cancellation import Cancellation

#: The first poll of a trigger is on this grid: those that a triggerer takes over together ask together.
FIRST_SECONDS: Final = 0.5
#: However short an interval is set, nobody asks more often.
LEAST_SECONDS: Final = 0.1
#: What an asker knows, e.g. of the objects of a spool, is kept for who comes back.
_KEPT_SECONDS: Final = 300.0


class Asker(Protocol):
    """Asks many questions at once, in a thread."""

    def __call__(self, questions: Sequence[Any], cancellation: Cancellation) -> Sequence[Any | DicomError]:
        """Return what each came to.

        :raises CancelledError: cancelled.
        """


def next_due(interval: float) -> float:
    """Return the next time on the grid of an interval, as ``time.monotonic()``.

    :param interval: seconds.
    """
    grid = max(interval, LEAST_SECONDS)
    return (math.floor(time.monotonic() / grid) + 1) * grid


class Waiter:
    """One who waits for the outcome of one question; made by :meth:`Registry.join`."""

    def __init__(self, rounds: Rounds, question: Any, due: float) -> None:
        self.question = question
        self.due = due
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._rounds = rounds

    async def answer(self) -> Any:
        """Wait for it; cancelling this leaves.

        :raises DicomError: why there is none.
        """
        try:
            outcome = await self.outcome
        finally:
            self.leave()
        if isinstance(outcome, Exception):
            # Each raises its own: one error may be that of a thousand, and would hold the traces of all.
            raise copy.copy(outcome)
        return outcome

    def leave(self) -> None:
        """Wait no more. May be called twice."""
        self.outcome.cancel()
        self._rounds.left_by(self)


class Several:
    """One who waits for the outcomes of several questions, which are asked in the same round.

    :param waiters: of which each is one.
    """

    def __init__(self, waiters: Sequence[Waiter]) -> None:
        self._waiters = waiters

    async def answer(self) -> list[Any]:
        """Wait for all of them; cancelling this leaves.

        :raises DicomError: why there is one that has none.
        """
        try:
            return [await waiter.answer() for waiter in self._waiters]
        finally:
            self.leave()

    def leave(self) -> None:
        """Wait no more. May be called twice."""
        for waiter in self._waiters:
            waiter.leave()


class Rounds:
    """The poll rounds of one peer, or of one receiver. Lives in one event loop.

    :param asker: asks.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._waiting: dict[Waiter, None] = {}
        #: Whose questions are being asked, and what ends that.
        self._asked: set[Waiter] = set()
        self._cancellation: Cancellation | None = None
        self._runner: asyncio.Task[None] | None = None
        #: Until when the runner sleeps, and what wakes it before.
        self._sleeps_until = math.inf
        self._wake = asyncio.Event()
        self._used = time.monotonic()

    @property
    def is_forgotten(self) -> bool:
        """Whether nobody has waited for long, and nothing runs."""
        idle = not self._waiting and (self._runner is None or self._runner.done())
        return idle and time.monotonic() - self._used > _KEPT_SECONDS

    def join(self, question: Any, due: float) -> Waiter:
        """Wait for the first round that begins at a time or after it."""
        waiter = Waiter(self, question, due)
        self._waiting[waiter] = None
        if self._runner is None or self._runner.done():
            # In a context of its own: what a round logs is not the first waiter's.
            self._runner = asyncio.get_running_loop().create_task(self._run(), context=Context())
        elif due < self._sleeps_until:
            self._wake.set()
        return waiter

    def left_by(self, waiter: Waiter) -> None:
        """Let somebody go; with the last one ends what runs."""
        self._used = time.monotonic()
        self._waiting.pop(waiter, None)
        if waiter in self._asked:
            self._asked.discard(waiter)
            if not self._asked and self._cancellation is not None:
                self._cancellation.cancel()
        if not self._waiting:
            self._wake.set()

    async def _run(self) -> None:
        try:
            while self._waiting:
                now = time.monotonic()
                due = [waiter for waiter in self._waiting if waiter.due <= now]
                if due:
                    for waiter in due:
                        del self._waiting[waiter]
                    await self._round(due)
                else:
                    await self._sleep(min(waiter.due for waiter in self._waiting))
        except asyncio.CancelledError:  # the loop ends
            for waiter in [*self._waiting, *self._asked]:
                waiter.outcome.cancel()
            raise

    async def _sleep(self, until: float) -> None:
        self._sleeps_until = until
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._wake.wait()
        self._sleeps_until = -math.inf

    async def _round(self, due: Sequence[Waiter]) -> None:
        """Ask, and tell each who is still there what came of it."""
        from airflow_provider_varian.dimse.cancellation import Cancellation

        cancellation = self._cancellation = Cancellation()
        self._asked = set(due)
        outcomes: Sequence[Any]
        try:
            outcomes = await self._ask([waiter.question for waiter in due], cancellation)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            # CancelledError of ours too: all have left then, which is why.
            outcomes = [error] * len(due)
        self._cancellation, self._asked = None, set()
        for waiter, outcome in zip(due, outcomes, strict=True):
            if not waiter.outcome.done():
                waiter.outcome.set_result(outcome)

    async def _ask(self, questions: Sequence[Any], cancellation: Cancellation) -> Sequence[Any | DicomError]:
        def ask() -> Sequence[Any | DicomError]:
            cancellation.raise_if_cancelled()  # all have left while no thread was free
            return self._asker(questions, cancellation)

        return await asyncio.get_running_loop().run_in_executor(shared_pool(), ask)


class Registry:
    """The rounds of all that is waited for in one event loop."""

    def __init__(self) -> None:
        #: A peer has mappings in it, and cannot be a key; there are few.
        self._rounds: list[tuple[object, Rounds]] = []

    def join(self, place: object, make_asker: Callable[[], Asker], question: Any, due: float) -> Waiter:
        """Join the rounds of a place, with all others that wait for an equal one.

        :param place: a peer with all of its connection's settings, or a receiver.
        :param make_asker: makes what asks it, when there is none yet.
        :param question: what is asked.
        :param due: see :func:`next_due`.
        """
        for known, rounds in self._rounds:
            if known == place:
                return rounds.join(question, due)
        self._rounds = [(known, rounds) for known, rounds in self._rounds if not rounds.is_forgotten]
        rounds = Rounds(make_asker())
        self._rounds.append((place, rounds))
        return rounds.join(question, due)


_registries: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Registry]] = weakref.WeakKeyDictionary()


def registry() -> Registry:
    """Return the registry of the running loop; a triggerer process has one loop."""
    return _registries.setdefault(asyncio.get_running_loop(), Registry())
