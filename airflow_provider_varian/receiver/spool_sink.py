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
from types import TracebackType
from typing import Final

from airflow_provider_varian.dimse.sink import IncomingObject, StorageRefused, StorageSink, StoreRequest
from airflow_provider_varian.receiver.file_meta import encode_file_meta
from airflow_provider_varian.receiver.folders import sync_folder
from airflow_provider_varian.receiver.head import (
    HEAD_BYTES,
    UNREADABLE_TRANSFER_SYNTAXES,
    DataSetError,
    Head,
    head_within,
    parse_head,
)
from airflow_provider_varian.receiver.spool import Owner, Spool
from airflow_provider_varian.receiver.spooled import SpooledObject
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
    :param durable: whether to sync what is written. Without it an object that was acknowledged is lost when the machine
        loses power soon after; when the process alone is killed it is not.
    :param min_free_bytes: free space of the spool's file system below which no object is begun; 0: no limit.
    :param standing: what is received may be claimed by anybody, also while the sink is open.
    :param tls: what is received comes over TLS alone; who reads the spool is told.
    :raises ReceiverUnavailableError: when the spool cannot be used.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        on_received: Received | None = None,
        durable: bool = True,
        min_free_bytes: int = 0,
        standing: bool = False,
        tls: bool = False,
    ) -> None:
        self.spool = spool
        self.durable = durable
        self.owner: Owner = spool.register(standing=standing, tls=tls)
        #: Where fragments lie, as text.
        self.folder = str(self.owner.folder)
        self._min_free_bytes = min_free_bytes
        self._full = self._failing = False
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

    def also_telling(self, on_received: Received) -> StorageSink:
        """Return the same sink for objects of which somebody else is told too, before the sink's own.

        :param on_received: called with them.
        """
        mine = self._on_received
        if mine is None:
            return _OtherWay(self, on_received)

        def both(item: SpooledObject, head: Head) -> None:
            on_received(item, head)
            mine(item, head)

        return _OtherWay(self, both)

    def begin(self, request: StoreRequest) -> IncomingObject:
        """Start taking one object; see :class:`~airflow_provider_varian.dimse.sink.StorageSink`."""
        return self._begin(request, self._on_received)

    def _begin(self, request: StoreRequest, on_received: Received | None) -> IncomingObject:
        if not (is_uid(request.sop_instance_uid) and is_uid(request.sop_class_uid)):
            # The value is not told: it is made up by the peer.
            what = "SOP Class UID" if is_uid(request.sop_instance_uid) else "SOP Instance UID"
            raise StorageRefused(CANNOT_UNDERSTAND, f"{what} is not a UID")
        if not is_uid(request.transfer_syntax_uid):
            raise StorageRefused(CANNOT_UNDERSTAND, "transfer syntax is not a UID")
        if request.transfer_syntax_uid in UNREADABLE_TRANSFER_SYNTAXES:
            raise StorageRefused(CANNOT_UNDERSTAND, "transfer syntax not supported")
        if self._min_free_bytes:
            self._refuse_when_full()
        return _SpoolWriter(self, request, on_received)

    def _refuse_when_full(self) -> None:
        """Leave room for what has been begun, and for others who use the disk; said once, until there is room again."""
        try:
            free = self.spool.free_bytes()
        except OSError as error:
            raise self._out_of_resources(error) from error
        full = free < self._min_free_bytes
        if full and not self._full:
            logger.error(
                "The file system of the spool %s has %d MB left, and %d MB are kept free: objects are refused (0xA700) "
                "until there is room again. Retrieve or remove what lies there, or lower the limit",
                self.spool.root,
                free >> 20,
                self._min_free_bytes >> 20,
            )
        elif self._full and not full:
            logger.warning("The file system of the spool %s has room again: objects are taken", self.spool.root)
        self._full = full
        if full:
            raise StorageRefused(OUT_OF_RESOURCES, "not enough free space")

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

    def _succeeded(self) -> None:
        if self._failing:
            self._failing = False
            logger.warning("The spool %s can be written again", self.spool.root)

    def _out_of_resources(self, error: OSError) -> StorageRefused:
        """Return the answer to what cannot be written; logged once, until something can be."""
        if not self._failing:
            self._failing = True
            logger.error(
                "The spool %s cannot be written: %s. Objects are refused (0xA700) until it can be",
                self.spool.root,
                error.strerror or error,
            )
        return StorageRefused(OUT_OF_RESOURCES, "the spool cannot be written")


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
        # Text: it is used a few times for each object, and a Path is slow at that.
        self._path = f"{sink.folder}/{self._unique}"
        self._descriptor = -1
        #: The receipt, until it is written together with the first piece.
        self._receipt = encode_file_meta(request)
        #: What the head says, once it is known; until then the first bytes of the data set.
        self._head: Head | None = None
        self._front = bytearray()
        try:
            self._descriptor = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise sink._out_of_resources(error) from error
        sink._started()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece."""
        if self._head is None and len(self._front) < HEAD_BYTES:
            self._look_at(data)
        try:
            if self._receipt:
                self._write_receipt_and(data)
            else:
                _write_all(self._descriptor, data)
        except OSError as error:
            self.abandon()
            raise self._sink._out_of_resources(error) from error
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
            raise self._sink._out_of_resources(error) from error
        self._sink._succeeded()
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

    def _look_at(self, data: bytes | bytearray | memoryview) -> None:
        """Read the head from the first piece, which nearly always has all of it, or keep bytes for later."""
        if not self._front:
            # What is wrong with it is answered at the end.
            with contextlib.suppress(DataSetError):
                self._head = head_within(data[:HEAD_BYTES], self._request.transfer_syntax_uid)
        if self._head is None:
            self._front += data[: HEAD_BYTES - len(self._front)]

    def _checked_head(self) -> Head:
        """Compare the UIDs of data set and command set (PS3.4 B.2.3: 0xA900)."""
        try:
            head = self._head or parse_head(self._front, self._request.transfer_syntax_uid)
        except DataSetError as error:
            logger.warning("Refused %s: %s", self._request.sop_instance_uid, error)
            raise StorageRefused(DOES_NOT_MATCH_SOP_CLASS, "the data set cannot be read") from error
        if head.sop_instance_uid != self._request.sop_instance_uid:
            raise StorageRefused(DOES_NOT_MATCH_SOP_CLASS, "SOP Instance UID differs from the data set's")
        if head.sop_class_uid != self._request.sop_class_uid:
            raise StorageRefused(DOES_NOT_MATCH_SOP_CLASS, "SOP Class UID differs from the data set's")
        return head

    def _make_durable(self) -> SpooledObject:
        durable = self._sink.durable
        if durable:
            os.fsync(self._descriptor)
        uid = self._request.sop_instance_uid
        shard = self._sink.spool.shard(uid)
        target = f"{shard}/{uid}.{self._unique}.dcm"
        os.rename(self._path, target)
        try:
            if durable:
                sync_folder(shard)
        except OSError:
            # Not durable, so not acknowledged, so not to be found.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)
            raise
        os.close(self._descriptor)
        self._descriptor = -1
        return SpooledObject(place=target, sop_instance_uid=uid)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _write_receipt_and(self, data: bytes | bytearray | memoryview) -> None:
        """Write the receipt and the first piece in one call, as most objects need two in all."""
        receipt, self._receipt = self._receipt, b""
        written = os.writev(self._descriptor, (receipt, data))
        if written == len(receipt) + len(data):
            return
        if written < len(receipt):
            _write_all(self._descriptor, receipt[written:])
            written = len(receipt)
        _write_all(self._descriptor, memoryview(data).cast("B")[written - len(receipt) :])


def _write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]
