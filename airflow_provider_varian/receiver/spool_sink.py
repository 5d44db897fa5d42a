"""The durable way in: a :class:`~airflow_provider_varian.dimse.sink.StorageSink` on a spool.

Order is what this module is about (semantics 7, 30): write, fsync of the file, rename, fsync of the
folder; only then may the caller answer 0x0000. What is refused leaves no fragment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from airflow_provider_varian.dimse.sink import IncomingObject, StorageRefused, StorageSink, StoreRequest
from airflow_provider_varian.receiver.file_meta import encode_file_meta
from airflow_provider_varian.receiver.head import (
    HEAD_BYTES,
    UNREADABLE_TRANSFER_SYNTAXES,
    DataSetError,
    Head,
    parse_head,
)
from airflow_provider_varian.receiver.spool import Owner, Spool, SpooledObject, sync_folder
from airflow_provider_varian.uids import is_uid

logger = logging.getLogger(__name__)

OUT_OF_RESOURCES: Final = 0xA700
DOES_NOT_MATCH_SOP_CLASS: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000

Received = Callable[[SpooledObject, Head], None]


class SpoolSink:
    """Writes what arrives into a spool. Safe from any thread; a context manager that ends its owner.

    :param spool: where to write.
    :param on_received: called with each object once it is durable, before its sender is answered,
        in the thread that received it.
    """

    def __init__(self, spool: Spool, *, on_received: Received | None = None) -> None:
        self.spool = spool
        self.owner: Owner = spool.register()
        self._on_received = on_received
        self._activity = time.monotonic()
        self._lock = threading.Lock()
        self._in_flight = 0

    def __enter__(self) -> SpoolSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop writing: fragments are removed, what was received may be claimed by anybody."""
        self.owner.close()

    @property
    def in_flight(self) -> int:
        """How many objects are on their way in."""
        return self._in_flight

    @property
    def last_activity(self) -> float:
        """When the last piece of an object came, on the clock of :func:`time.monotonic`."""
        return self._activity

    def telling(self, on_received: Received) -> StorageSink:
        """Return the same sink for objects that come another way, so that they can be told from the others.

        :param on_received: called with them, in place of the sink's own.
        """
        return _OtherWay(self, on_received)

    def begin(self, request: StoreRequest) -> IncomingObject:
        """Start taking one object; see :class:`~airflow_provider_varian.dimse.sink.StorageSink`."""
        return self._begin(request, self._on_received)

    def _begin(self, request: StoreRequest, on_received: Received | None) -> IncomingObject:
        for uid, what in (
            (request.sop_instance_uid, "SOP Instance UID"),
            (request.sop_class_uid, "SOP Class UID"),
            (request.transfer_syntax_uid, "transfer syntax"),
        ):
            if not is_uid(uid):
                # The value is not logged: it is made up by the peer.
                logger.warning("Refused an object of %s: its %s is no UID", request.calling_ae_title, what)
                raise StorageRefused(CANNOT_UNDERSTAND, f"{what} is not a UID")
        if request.transfer_syntax_uid in UNREADABLE_TRANSFER_SYNTAXES:
            raise StorageRefused(CANNOT_UNDERSTAND, "transfer syntax not supported")
        return _SpoolWriter(self, request, on_received)

    def _started(self) -> None:
        with self._lock:
            self._in_flight += 1
        self._activity = time.monotonic()

    def _ended(self) -> None:
        with self._lock:
            self._in_flight -= 1
        self._activity = time.monotonic()

    def _wrote(self) -> None:
        self._activity = time.monotonic()


class _OtherWay:
    """A sink of which another is told."""

    def __init__(self, sink: SpoolSink, on_received: Received) -> None:
        self._sink = sink
        self._on_received = on_received

    def begin(self, request: StoreRequest) -> IncomingObject:
        """Start taking one object."""
        return self._sink._begin(request, self._on_received)


class _SpoolWriter:
    """One object on its way into the spool."""

    def __init__(self, sink: SpoolSink, request: StoreRequest, on_received: Received | None) -> None:
        self._sink = sink
        self._on_received = on_received
        self._request = request
        self._unique = sink.owner.unique()
        self._path: Path = sink.owner.folder / self._unique
        self._descriptor = -1
        self._head = bytearray()
        try:
            self._descriptor = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            _write_all(self._descriptor, encode_file_meta(request))
        except OSError as error:
            self._close()
            raise _out_of_resources(error) from error
        sink._started()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece."""
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        try:
            _write_all(self._descriptor, data)
        except OSError as error:
            self.abandon()
            raise _out_of_resources(error) from error
        self._sink._wrote()

    def commit(self) -> None:
        """Make it durable under its final name."""
        try:
            head = self._checked_head()
            item = self._make_durable()
        except StorageRefused:
            self.abandon()
            raise
        except OSError as error:
            self.abandon()
            raise _out_of_resources(error) from error
        try:
            if self._on_received is not None:
                self._on_received(item, head)
        finally:
            self._sink._ended()

    def abandon(self) -> None:
        """Leave no fragment."""
        if self._descriptor >= 0:
            self._close()
            self._sink._ended()

    def _checked_head(self) -> Head:
        """Compare the UIDs of data set and command set (PS3.4 B.2.3: 0xA900)."""
        try:
            head = parse_head(self._head, self._request.transfer_syntax_uid)
        except DataSetError as error:
            logger.warning("Refused %s: %s", self._request.sop_instance_uid, error)
            raise StorageRefused(DOES_NOT_MATCH_SOP_CLASS, "the data set cannot be read") from error
        if head.sop_instance_uid != self._request.sop_instance_uid:
            raise StorageRefused(DOES_NOT_MATCH_SOP_CLASS, "SOP Instance UID differs from the data set's")
        if head.sop_class_uid != self._request.sop_class_uid:
            raise StorageRefused(DOES_NOT_MATCH_SOP_CLASS, "SOP Class UID differs from the data set's")
        return head

    def _make_durable(self) -> SpooledObject:
        os.fsync(self._descriptor)
        uid = self._request.sop_instance_uid
        shard = self._sink.spool.shard(uid)
        target = shard / f"{uid}.{self._unique}.dcm"
        os.rename(self._path, target)
        try:
            sync_folder(shard)
        except OSError:
            # Not durable, so not acknowledged, so not to be found.
            target.unlink(missing_ok=True)
            raise
        os.close(self._descriptor)
        self._descriptor = -1
        return SpooledObject(path=target, sop_instance_uid=uid)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _out_of_resources(error: OSError) -> StorageRefused:
    logger.error("The spool cannot be written: %s", error.strerror or error)
    return StorageRefused(OUT_OF_RESOURCES, "the spool cannot be written")
