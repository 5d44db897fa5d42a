"""When the spool may let go of what was dealt with: not before what was made of it is durable, or told.

Both are done for many objects together: a folder is synced once for all that was published into it, and the manifest
is as long as the list. A kill before that leaves them claimed, and the retry finds them filed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spooled import SpooledObject
from airflow_provider_varian.retrieval.destination import Destination

#: So many objects together, or as many as come in so long.
_TOGETHER: Final = 100
_TOGETHER_SECONDS: Final = 2.0


class LettingGo:
    """Claimed objects that the spool keeps a little longer.

    :param spool: where they lie.
    :param destination: where they were published.
    :param on_fetched: writes the manifest.
    """

    def __init__(self, spool: Spool, destination: Destination, on_fetched: Callable[[], None]) -> None:
        self._spool = spool
        self._destination = destination
        self._on_fetched = on_fetched
        self._durable = _Waiting()
        self._told = _Waiting()

    def when_durable(self, item: SpooledObject) -> None:
        """Let go of an object when what was made of it is durable."""
        self._durable.add(item)

    def when_told(self, item: SpooledObject) -> None:
        """Let go of an object when that is durable, and the manifest tells of it."""
        self._told.add(item)

    def if_due(self, *, is_hurried: bool = True) -> None:
        """Let go of those of which enough wait, or that have waited for long enough.

        :param is_hurried: False: time is no reason to write the manifest.
        :raises DestinationWriteError: when that fails; they stay, and it is tried again the next time.
        """
        if self._told.are_due(_TOGETHER_SECONDS if is_hurried else math.inf):
            self._let_go_of_told()
        if self._durable.are_due(_TOGETHER_SECONDS):
            self._let_go_of_durable()

    def all(self) -> None:
        """Let go of all of them; raises as :meth:`if_due`."""
        if self._told.items:
            self._let_go_of_told()
        if self._durable.items:
            self._let_go_of_durable()

    def _let_go_of_told(self) -> None:
        self._on_fetched()
        self._release(self._told)

    def _let_go_of_durable(self) -> None:
        self._destination.sync()
        self._release(self._durable)

    def _release(self, waiting: _Waiting) -> None:
        while waiting.items:
            self._spool.let_go(waiting.items.pop())


class _Waiting:
    """Objects that wait for the same."""

    def __init__(self) -> None:
        self.items: list[SpooledObject] = []
        self._since = 0.0

    def add(self, item: SpooledObject) -> None:
        """Let one more wait."""
        if not self.items:
            self._since = time.monotonic()
        self.items.append(item)

    def are_due(self, seconds: float) -> bool:
        """Say whether enough wait, or the first one has for longer than so."""
        return len(self.items) >= _TOGETHER or (bool(self.items) and time.monotonic() - self._since > seconds)
