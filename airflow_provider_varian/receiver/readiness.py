"""Whether a receiver can take objects now, and what is wrong when it cannot, in words."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from airflow_provider_varian.receiver.spool import Spool

#: For how long a look at the spool is told again: probes come every few seconds, from several places.
_KEPT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a probe is told.

    :param problems: why objects cannot be taken now; empty when they can.
    :param degraded: what is wrong beside that; objects are taken all the same.
    """

    problems: tuple[str, ...]
    degraded: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether objects can be taken."""
        return not self.problems


def _no() -> bool:
    return False


class Readiness:
    """Looks whether a receiver can take objects. Safe from any thread.

    :param spool: where they go.
    :param listening: says whether associations are accepted.
    :param draining: says whether the receiver is about to end.
    :param min_free_bytes: free space of the spool's file system below which no object is taken, or what returns it.
    :param degraded: each returns what is wrong with a part of the receiver that it can do without for a while (the
        store that is published to, the audit trail), or ``None``.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        listening: Callable[[], bool],
        draining: Callable[[], bool] = _no,
        min_free_bytes: Callable[[], int] | int = 0,
        degraded: Sequence[Callable[[], str | None]] = (),
    ) -> None:
        self._spool = spool
        self._listening = listening
        self._draining = draining
        self._min_free_bytes = min_free_bytes
        self._degraded = tuple(degraded)
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._spool_problems: tuple[str, ...] = ()

    def report(self) -> Report:
        """Look, and say what is wrong."""
        problems: list[str] = []
        if self._draining():
            problems.append("it is stopping: open associations may end, no new ones are accepted")
        elif not self._listening():
            problems.append("it is not listening")
        problems += self._problems_of_spool()
        return Report(
            problems=tuple(problems), degraded=tuple(text for trouble in self._degraded if (text := trouble()))
        )

    def _problems_of_spool(self) -> tuple[str, ...]:
        with self._lock:
            now = time.monotonic()
            if self._looked_at is None or now - self._looked_at >= _KEPT_SECONDS:
                self._spool_problems = tuple(self._look_at_spool())
                self._looked_at = now
            return self._spool_problems

    def _look_at_spool(self) -> list[str]:
        problems = []
        try:
            wanted = self._min_free_bytes if isinstance(self._min_free_bytes, int) else self._min_free_bytes()
            free = self._spool.free_bytes()
            if free < wanted:
                problems.append(
                    f"the spool's file system has {free} bytes left, and no object is begun below {wanted}: "
                    "let retrievals claim what lies in the spool, shorten the retention, or give it more space"
                )
            self._write()
        except OSError as error:
            problems.append(f"the spool {self._spool.root} cannot be written: {error.strerror or type(error).__name__}")
        return problems

    def _write(self) -> None:
        """Write and remove a file: what permissions promise, a file system mounted read-only does not hold."""
        path = self._spool.root / f"probe.{os.getpid()}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"x")
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
