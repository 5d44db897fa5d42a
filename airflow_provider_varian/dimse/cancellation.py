"""Stopping work from outside: a killed task, an interrupted command line.

Airflow calls ``on_kill`` in the main thread, in a signal handler, while ``execute`` goes on; SIGKILL
follows after 5 s. So :meth:`Cancellation.cancel` takes no lock and waits for nothing: it sets a flag
and lets helper threads tell the peer (semantics 11).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from airflow_provider_varian.errors import CancelledError

log = logging.getLogger(__name__)

#: Seconds that a peer gets to answer a C-CANCEL before the association is aborted (semantics 11).
GRACE_SECONDS: Final = 3.0
_SLICE_SECONDS: Final = 0.05


class Stoppable(Protocol):
    """Something that a cancellation can bring to an end, from another thread."""

    def stop(self, grace_seconds: float) -> None:
        """End what is running: politely for so many seconds, then without asking."""


class Cancellation:
    """A flag that every loop, fallback and retry looks at, and that ends what it is attached to.

    Safe to share between threads; :meth:`cancel` may be called from a signal handler.
    """

    def __init__(self) -> None:
        self._cancelled = False
        # Re-entrant and never taken by cancel() itself: a signal handler runs on top of the main
        # thread, which may hold it.
        self._lock = threading.RLock()
        self._attached: list[Stoppable] = []

    @property
    def cancelled(self) -> bool:
        """Whether the work is to stop."""
        return self._cancelled

    def cancel(self) -> None:
        """Ask for the end: returns at once, may be called again, also from a signal handler."""
        if self._cancelled:
            return
        self._cancelled = True
        threading.Thread(target=self._stop_attached, name="dicom-cancellation", daemon=True).start()

    def raise_if_cancelled(self) -> None:
        """Raise :class:`CancelledError` when the work is to stop."""
        if self._cancelled:
            raise CancelledError("the work was cancelled")

    def pause(self, seconds: float) -> None:
        """Sleep, but wake up and raise :class:`CancelledError` when the work is to stop.

        :param seconds: how long to sleep at most.
        """
        # Not an Event: setting one from a signal handler while this thread waits on it can deadlock.
        end = time.monotonic() + seconds
        self.raise_if_cancelled()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE_SECONDS))
            self.raise_if_cancelled()

    @contextmanager
    def attach(self, target: Stoppable) -> Iterator[None]:
        """Let a cancellation end something for as long as the block runs.

        :param target: what :meth:`cancel` stops, each target in a helper thread of its own.
        :raises CancelledError: when the work is to stop already.
        """
        with self._lock:
            self._attached.append(target)
        try:
            self.raise_if_cancelled()
            yield
        finally:
            with self._lock:
                self._attached.remove(target)

    def _stop_attached(self) -> None:
        with self._lock:
            targets = list(self._attached)
        for target in targets:
            threading.Thread(target=_stop, args=(target,), name="dicom-stop", daemon=True).start()


def _stop(target: Stoppable) -> None:
    try:
        target.stop(GRACE_SECONDS)
    except Exception:
        log.exception("Stopping cancelled work failed")
