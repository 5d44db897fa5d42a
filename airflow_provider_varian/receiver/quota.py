"""How much one association, and one source in an hour, may bring; off unless somebody sets it.

What is over the quota is refused with 0xA700 (out of resources), which a sender takes for something that passes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from airflow_provider_varian.dimse.sink import IncomingObject, StorageRefused, StorageSink, StoreRequest
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.once import REMEMBERED

logger = logging.getLogger(__name__)

_OUT_OF_RESOURCES: Final = 0xA700
_HOUR: Final = 3600.0


@dataclass(slots=True)
class _Account:
    """What was brought since a moment."""

    since: float
    objects: int = 0
    size: int = 0


class Quotas:
    """The quotas of a receiver. Safe from any thread.

    An hour begins with the first object of a source; what is refused counts as an object too, and its bytes up to
    there, so that nobody fills the line with what is refused.

    :param limits: tells the quotas.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._sources: OrderedDict[str, _Account] = OrderedDict()

    @property
    def is_off(self) -> bool:
        """Whether nothing is limited: then no object needs to come by here."""
        limits = self._limits
        return all(
            limit is None
            for limit in (
                limits.objects_per_association,
                limits.bytes_per_association,
                limits.objects_per_source_hour,
                limits.bytes_per_source_hour,
            )
        )

    def sink(self, sink: StorageSink, source: str, on_exceeded: Callable[[], None]) -> StorageSink:
        """Return the sink for one association.

        :param sink: where its objects go.
        :param source: IP address of the peer.
        :param on_exceeded: called once, when something is refused for the first time.
        """
        return sink if self.is_off else _LimitedSink(sink, self, source, on_exceeded)

    def count(self, source: str, association: _Account, objects: int, size: int) -> str:
        """Count what comes; return which quota it exceeds, or nothing."""
        limits = self._limits
        with self._lock:
            hour = self._hour_of(source)
            for account in (association, hour):
                account.objects += objects
                account.size += size
            return (
                _exceeded("of objects of an association", association.objects, limits.objects_per_association)
                or _exceeded("of bytes of an association", association.size, limits.bytes_per_association)
                or _exceeded("of objects in an hour", hour.objects, limits.objects_per_source_hour)
                or _exceeded("of bytes in an hour", hour.size, limits.bytes_per_source_hour)
            )

    def _hour_of(self, source: str) -> _Account:
        account = self._sources.get(source)
        if account is None or time.monotonic() - account.since > _HOUR:
            account = self._sources[source] = _Account(time.monotonic())
            self._sources.move_to_end(source)
            if len(self._sources) > REMEMBERED:
                self._sources.popitem(last=False)
        return account


def _exceeded(what: str, count: int, limit: int | None) -> str:
    return what if limit is not None and count > limit else ""


class _LimitedSink:
    """The sink of one association, as far as its quotas go."""

    def __init__(self, sink: StorageSink, quotas: Quotas, source: str, on_exceeded: Callable[[], None]) -> None:
        self._sink = sink
        self._quotas = quotas
        self._source = source
        self._on_exceeded = on_exceeded
        self._account = _Account(time.monotonic())
        self._said = False

    def begin(self, request: StoreRequest) -> IncomingObject:
        """Start taking one object, unless it is one too many."""
        self.count(1, 0)
        return _LimitedObject(self._sink.begin(request), self)

    def count(self, objects: int, size: int) -> None:
        """Count what comes, and refuse what is too much."""
        which = self._quotas.count(self._source, self._account, objects, size)
        if not which:
            return
        if not self._said:
            self._said = True
            logger.warning("%s has used up its quota %s: what it sends beyond is refused", self._source, which)
            self._on_exceeded()
        raise StorageRefused(_OUT_OF_RESOURCES, f"quota {which} used up")


class _LimitedObject:
    """One object on its way in; its bytes count."""

    def __init__(self, incoming: IncomingObject, sink: _LimitedSink) -> None:
        self._incoming = incoming
        self._sink = sink

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece."""
        try:
            self._sink.count(0, len(data))
        except StorageRefused:
            self._incoming.abandon()
            raise
        self._incoming.write(data)

    def commit(self) -> None:
        """Make it durable."""
        self._incoming.commit()

    def abandon(self) -> None:
        """Leave no fragment."""
        self._incoming.abandon()
