"""What of a spool waits to be published: whose turn it is, how much it is, and since when.

A look lists it; what is brought to the store after that is counted off. Up to when all that was received is there
follows from both: the oldest that waits, or the look itself where nothing does.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
import time
from collections.abc import Collection, Iterator
from typing import Final, TypeAlias

from airflow_provider_varian.receiver.published import Notes, Unpublished
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spooled import SpooledObject

#: How long an object that alone fails is put off.
_LATER_SECONDS: Final = 60.0
_MAXIMUM_LATER: Final = 1000

_Turn: TypeAlias = tuple[float, str, SpooledObject]


class Backlog:
    """What waits. One thread looks; the others may be any.

    :param spool: the spool.
    :param notes: of the store.
    """

    def __init__(self, spool: Spool, notes: Notes) -> None:
        self._spool = spool
        self._unpublished = Unpublished(spool, notes)
        self._lock = threading.Lock()
        self._looked = 0.0
        self._count = 0
        #: When those were written whose turn it is.
        self._turn: dict[str, float] = {}
        #: What was brought there since the last look began.
        self._done: set[str] = set()
        #: The oldest of those whose turn it is not: because others are older, or because they alone fail.
        self._next: float | None = None
        self._off: float | None = None
        #: What alone failed, and until when it is put off.
        self._later: dict[str, float] = {}

    @property
    def count(self) -> int:
        """How many objects wait."""
        return self._count

    @property
    def has_more(self) -> bool:
        """Whether more wait than those whose turn it is."""
        return self._next is not None

    def until(self) -> float:
        """Return up to when all that was received has been brought there, but for what alone fails."""
        with self._lock:
            turn = [written for name, written in self._turn.items() if name not in self._later]
            return min([self._looked, *turn, *([] if self._next is None else [self._next])])

    def since(self) -> float | None:
        """Return when the oldest was written that waits, whatever it waits for."""
        with self._lock:
            others = [written for written in (self._next, self._off) if written is not None]
            return min([*self._turn.values(), *others], default=None)

    def look(self, busy: Collection[str], size: int) -> list[SpooledObject]:
        """Look at all that waits, and return those whose turn it is by now, the oldest first.

        :param busy: names of those whose turn it was before, and is. As of a moment before the look.
        :param size: how many at most.
        """
        with self._lock:
            self._done.clear()
            later = dict(self._later)
        looked, count = time.time(), 0
        turn: dict[str, float] = {}
        off: list[float] = []

        def waiting() -> Iterator[_Turn]:
            nonlocal count
            now = time.monotonic()
            for written, name, item in self._all():
                count += 1
                if name in busy:
                    turn[name] = written
                elif later.get(name, 0.0) > now:
                    off.append(written)
                else:
                    yield written, name, item

        batch = heapq.nsmallest(size + 1, waiting())
        with self._lock:
            turn.update((name, written) for written, name, _ in batch[:size])
            for name in self._done & turn.keys():
                del turn[name]
                count -= 1
            self._looked, self._count, self._turn = looked, count, turn
            self._next = batch[size][0] if len(batch) > size else None
            self._off = min(off, default=None)
        return [item for _, _, item in batch[:size]]

    def done(self, name: str) -> None:
        """Count off what is in the store, or was claimed by somebody."""
        with self._lock:
            self._done.add(name)
            self._later.pop(name, None)
            if self._turn.pop(name, None) is not None:
                self._count -= 1

    def put_off(self, name: str) -> bool:
        """Let others come before an object that alone fails; say whether that is new."""
        with self._lock:
            is_new = name not in self._later
            if is_new and len(self._later) >= _MAXIMUM_LATER:
                self._later.clear()
            self._later[name] = time.monotonic() + _LATER_SECONDS
            return is_new

    def put_off_none(self) -> None:
        """Try all again: it was not they who failed."""
        with self._lock:
            self._later.clear()

    def _all(self) -> Iterator[_Turn]:
        free: dict[str, bool] = {}
        for item in self._unpublished:
            if item.owner not in free:
                # What a retrieval receives itself is its own.
                free[item.owner] = self._spool.may_claim(item)
            if free[item.owner]:
                with contextlib.suppress(FileNotFoundError):
                    yield item.path.lstat().st_mtime, item.path.name, item
