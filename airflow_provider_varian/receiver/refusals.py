"""Telling of who was sent away: to the log, once for each source, and to the observer.

Connections that are closed as soon as they are accepted have no thread of their own, and the thread that accepts must
not wait for a log or an observer: one thread here tells of them.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from airflow_provider_varian.receiver.admission import Admission
from airflow_provider_varian.receiver.connections import Connection
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.observer import Observer, Refusal
from airflow_provider_varian.receiver.once import Once

logger = logging.getLogger(__name__)

#: Refusals that wait to be told. Of a flood the rest is counted alone.
_WAITING: Final = 1000
_STOP_SECONDS: Final = 5.0
#: The first byte of a TLS handshake, and those of HTTP's words.
_TLS: Final = 0x16
_HTTP: Final = b"GPHODCT"


class Refusals:
    """Tells of refusals. Safe from any thread.

    :param admission: knows the words for who may not connect.
    :param limits: the numbers in the other words.
    :param observer: is told.
    """

    def __init__(self, admission: Admission, limits: Limits, observer: Observer) -> None:
        self._admission = admission
        self._limits = limits
        self._observer = observer
        self._said = Once()
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(_WAITING)
        self._untold = 0
        self._thread = threading.Thread(target=self._run, name="dicom-refusals", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell what waits, and end."""
        with suppress(queue.Full):  # an observer hangs
            self._waiting.put(None, timeout=_STOP_SECONDS)
            self._thread.join(_STOP_SECONDS)

    def at_the_door(self, source: str, reason: Refusal) -> None:
        """Tell of a connection that was closed as soon as it was accepted; returns at once."""
        advice = self._admission.refuse_address(source) if reason is Refusal.NETWORK else None

        def tell() -> None:
            self._observer.connected(source)
            if advice is not None:
                logger.warning("%s", advice)
            elif reason is not Refusal.NETWORK:
                self._log(source, reason)
            self._observer.refused(source, reason)
            self._observer.disconnected(source)

        try:
            self._waiting.put_nowait(tell)
        except queue.Full:
            self._untold += 1

    def of(self, connection: Connection) -> None:
        """Tell of a connection that ended before an association was there, in its own thread."""
        if connection.refusal is not None:
            self._log(connection.source, connection.refusal, connection)
            self._observer.refused(connection.source, connection.refusal)

    def tls(self, source: str, why: str) -> None:
        """Log why a TLS handshake failed."""
        if self._said.first(source, why):
            logger.warning("TLS handshake with %s failed: %s", source, why)

    def _log(self, source: str, reason: Refusal, connection: Connection | None = None) -> None:
        words = self._words(reason, connection)
        if words and self._said.first(source, words):
            logger.warning("%s: %s%s", source, words, self._admission.advice.limit(reason))

    def _words(self, reason: Refusal, connection: Connection | None) -> str:
        limits = self._limits
        if reason is Refusal.TOO_MANY_CONNECTIONS:
            return f"closed a connection without an association, since {limits.connections} are open"
        if reason is Refusal.TOO_MANY_OF_SOURCE:
            asked = connection is not None and connection.has_asked
            count, what = (limits.associations_per_source, "associations") if asked else (
                limits.connections_per_source, "connections")  # fmt: skip
            return f"sent away for now, since {count} {what} of this source are open"
        if reason is Refusal.TOO_MANY_ASSOCIATIONS:
            return f"an association was rejected for now, since {limits.associations} are open"
        if reason is Refusal.TIMEOUT:
            return "closed a connection that did not ask for an association in time"
        if reason is Refusal.PROTOCOL:
            return f"closed a connection that {_spoken(connection)}"
        return ""  # the others are logged where they are found

    def _run(self) -> None:
        while (tell := self._waiting.get()) is not None:
            tell()
            if self._untold and self._waiting.empty():
                untold, self._untold = self._untold, 0
                logger.warning("%d more connections were refused, too fast to tell of each", untold)


def _spoken(connection: Connection | None) -> str:
    first = connection.first_byte if connection is not None else None
    if first == _TLS:
        return "speaks TLS, and this port does not"
    if first is not None and first in _HTTP:
        return "speaks HTTP"
    return "does not speak DICOM, or not by its rules"
