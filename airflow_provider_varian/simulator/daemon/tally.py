"""What a daemon has done, so that tests can hold a budget."""

from __future__ import annotations

import threading
from collections import Counter


class Tally(Counter[str]):
    """Counts by name. What has not happened is 0.

    ==================== ====================================================================
    ``association``      associations of clients that were accepted
    ``rejected``         those that were rejected
    ``lost``             those that a fault ended before they were accepted
    ``open``             those that are open now; ``most_open``: at the most
    ``C-ECHO``           requests; so ``C-FIND``, ``C-MOVE`` and ``C-GET``
    ``requests``         the latter three together
    ``C-STORE``          requests of clients; ``imported``: those whose object was kept
    ``rows``             pending responses of C-FIND
    ``sub-operations``   C-STORE requests sent
    ``outgoing``         associations of C-MOVE to a destination, tried
    ``outgoing_open``    those that are open now; ``most_outgoing_open``: at the most
    ``faults``           faults that struck
    ``restarts``         restarts
    ==================== ====================================================================
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._inside: dict[str, set[object]] = {}

    def add(self, name: str, number: int = 1) -> int:
        """Count, from any thread; return the new count."""
        with self._lock:
            if number:
                self[name] += number
            return self[name]

    def enter(self, name: str, member: object, limit: int = 0) -> bool:
        """Count something that is open from now on, and how many there were at the most.

        :param limit: how many may be open at once; 0 = any number.
        :return: whether it is among them.
        """
        with self._lock:
            inside = self._inside.setdefault(name, set())
            if limit and len(inside) >= limit:
                return False
            inside.add(member)
            self[name] = len(inside)
            self[f"most_{name}"] = max(self[f"most_{name}"], len(inside))
            return True

    def leave(self, name: str, member: object) -> None:
        """Count that it is open no more; harmless when it never was."""
        with self._lock:
            inside = self._inside.get(name, set())
            if member in inside:
                inside.discard(member)
                self[name] = len(inside)

    def __str__(self) -> str:
        """Return all counts in one line."""
        with self._lock:
            return ", ".join(f"{name} {number}" for name, number in sorted(self.items())) or "nothing"
