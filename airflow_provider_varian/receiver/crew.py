"""Work that a few threads share, which live only while there is some."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

Work: TypeAlias = Callable[[], None]

#: While something is urgent, each so many-th piece of work is one that is not: it is late, and never left undone.
_SHARE: Final = 4


class Crew:
    """Does what it is handed, one piece of work under a name at a time, in the order in which it came.

    The threads end when nothing is left to do; the process does not wait for them.

    :param size: how many threads at most.
    :param name: of the threads.
    """

    def __init__(self, size: int, *, name: str) -> None:
        self._size = size
        self._name = name
        self._changed = threading.Condition()
        self._urgent: deque[tuple[str, Work]] = deque()
        self._other: deque[tuple[str, Work]] = deque()
        self._names: set[str] = set()
        self._threads = 0
        self._begun = 0
        self._error: BaseException | None = None

    def names(self) -> frozenset[str]:
        """Return under which names there is work that waits or is being done."""
        with self._changed:
            return frozenset(self._names)

    def waiting(self, *, urgent: bool) -> int:
        """Return how much of one kind nobody has begun."""
        with self._changed:
            return len(self._urgent if urgent else self._other)

    def hand(self, name: str, work: Work, *, urgent: bool) -> None:
        """Have something done.

        :param name: under which nothing waits or is being done.
        :param work: what to do. When it raises, what nobody has begun is dropped, and :meth:`wait` raises that.
        :param urgent: do it before what is not.
        """
        with self._changed:
            if self._threads < self._size:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
                self._threads += 1
            (self._urgent if urgent else self._other).append((name, work))
            self._names.add(name)

    def drop(self) -> None:
        """Leave undone what nobody has begun."""
        with self._changed:
            self._drop()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all is done; raise what a piece of work has raised.

        :param seconds: for how long at most.
        :return: whether all is done.
        """
        with self._changed:
            is_done = self._changed.wait_for(lambda: not self._names, seconds)
            error, self._error = self._error, None
            if error is not None:
                raise error
            return is_done

    def _drop(self) -> None:
        for queue in (self._urgent, self._other):
            self._names.difference_update(name for name, _ in queue)
            queue.clear()
        self._changed.notify_all()

    def _run(self) -> None:
        while (next_one := self._next()) is not None:
            name, work = next_one
            error: BaseException | None = None
            try:
                work()
            except BaseException as raised:  # noqa: BLE001 - raised again where one waits
                error = raised
            with self._changed:
                self._names.discard(name)
                if error is not None:
                    self._error = self._error or error
                    self._drop()
                self._changed.notify_all()

    def _next(self) -> tuple[str, Work] | None:
        with self._changed:
            queues = [self._urgent, self._other]
            if self._begun % _SHARE == _SHARE - 1:
                queues.reverse()
            for queue in queues:
                if queue:
                    self._begun += 1
                    return queue.popleft()
            self._threads -= 1
            return None
