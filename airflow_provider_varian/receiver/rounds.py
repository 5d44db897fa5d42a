"""Work that is done again and again in a thread of its own, until it is stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Rounds:
    """Calls a function in a thread, waits for as many seconds as it returns, and calls it again.

    :param work: one round; returns the seconds until the next one.
    :param name: of the thread.
    :param after_error_seconds: until the next round, when one raised something unexpected.
    """

    def __init__(self, work: Callable[[], float], *, name: str, after_error_seconds: float = 60.0) -> None:
        self._work = work
        self._name = name
        self._after_error_seconds = after_error_seconds
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether a round should come to its end."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Begin with the first round."""
        self._stopping.clear()
        self._wake.clear()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """End after the round that runs, and wait for that. May be called twice.

        :param seconds: how long to wait.
        :return: whether it has ended.
        """
        thread, self._thread = self._thread, None
        self._stopping.set()
        self._wake.set()
        if thread is None:
            return True
        thread.join(seconds)
        return not thread.is_alive()

    def wake(self) -> None:
        """Do not wait any longer for the next round; costs less than a microsecond."""
        self._wake.set()

    def pause(self, seconds: float) -> None:
        """Wait inside of a round; returns early when it should come to its end."""
        self._stopping.wait(seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                seconds = self._work()
            except Exception:
                logger.exception(
                    "%s: a round failed unexpectedly; the next one is in %.0f s", self._name, self._after_error_seconds
                )
                seconds = self._after_error_seconds
            self._wake.wait(seconds)
