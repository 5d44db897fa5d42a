"""Saying a thing once: who is refused tries again each minute, and a log is for people."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

#: What is remembered: more than a department has machines.
REMEMBERED: Final = 1000
#: After a day a thing may be said again: the log of the day before may be gone.
_AGAIN_SECONDS: Final = 86400.0


class Once:
    """Remembers what was said, a bounded number of things. Safe from any thread.

    :param remembered: how many; of more the one that was asked for longest ago is forgotten.
    :param again_seconds: after so long a thing may be said again.
    """

    def __init__(self, remembered: int = REMEMBERED, *, again_seconds: float = _AGAIN_SECONDS) -> None:
        self._remembered = remembered
        self._again_seconds = again_seconds
        self._lock = threading.Lock()
        self._said: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def first(self, *what: str) -> bool:
        """Say whether this is asked for the first time, or was not for long enough."""
        now = time.monotonic()
        with self._lock:
            said = self._said.get(what)
            is_first = said is None or now - said > self._again_seconds
            if is_first:
                self._said[what] = now
            self._said.move_to_end(what)
            if len(self._said) > self._remembered:
                self._said.popitem(last=False)
        return is_first

    def all(self) -> list[tuple[str, ...]]:
        """Return what is remembered."""
        with self._lock:
            return list(self._said)
