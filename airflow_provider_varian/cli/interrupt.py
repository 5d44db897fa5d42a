"""Ctrl-C and SIGTERM as a cancellation that the peer hears of."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from airflow_provider_varian.dimse.cancellation import Cancellation

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[Cancellation]:
    """Give a cancellation that the first Ctrl-C or SIGTERM sets.

    The peer is then asked to stop (C-CANCEL, else abort) and the verb ends with
    :class:`~airflow_provider_varian.errors.CancelledError`. A second signal ends the process as usual.
    """
    from airflow_provider_varian.dimse.cancellation import Cancellation

    cancellation = Cancellation()
    if threading.current_thread() is not threading.main_thread():
        yield cancellation  # only the main thread may set signal handlers
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def cancel(number: int, frame: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        cancellation.cancel()

    for number in _SIGNALS:
        signal.signal(number, cancel)
    try:
        yield cancellation
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
