"""How a connection is ended or spoilt below DIMSE: by bytes, by time, by RST.

A :class:`SpoiltSocket` takes the place of an association's socket, so whoever writes to it - pynetdicom's
reactor or a sender of our own - writes through it.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

from airflow_provider_varian.dimse import parked
from airflow_provider_varian.simulator.daemon.faults import Kind

#: PS3.8 9.3.8: A-ABORT by the service user, no reason given.
_A_ABORT: Final = bytes((0x07, 0, 0, 0, 0, 4, 0, 0, 0, 0))
_A_ABORT_TYPE: Final = 0x07
_P_DATA_TYPE: Final = 0x04
_PDU_HEADER: Final = 6
#: How finely a slow connection is sliced.
_SLICE_SECONDS: Final = 0.02
#: How often a pause looks whether the association is to end.
_LOOK_SECONDS: Final = 0.02
_DRAIN_SECONDS: Final = 5.0


class SpoiltSocket:
    """A socket that ends, stops or dawdles as it is told; everything else is the real one's.

    :param raw: the real one.
    :param stopping: is set when the daemon stops, which ends all waiting.
    """

    def __init__(self, raw: socket.socket, stopping: threading.Event) -> None:
        self._raw = raw
        self._stopping = stopping
        self._bytes_per_second = 0
        self._half = self._dead = self._let_go = False
        self._farewell: Kind | None = None
        self._limit: tuple[int, Kind, float, float] | None = None
        self._sent = 0
        self._header = bytearray()
        self._left = self._type = 0
        #: P-DATA-TF: those that pynetdicom has sent, and those that it was given.
        self._pdus_sent = self._pdus_due = 0

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Be taken for the real one where it matters whether that is of TLS."""
        return type(self._raw)

    def __getattr__(self, name: str) -> Any:
        """Be the real socket in everything else."""
        return getattr(self._raw, name)

    def slow(self, bytes_per_second: int) -> None:
        """Send no faster from now on."""
        self._bytes_per_second = bytes_per_second

    def expect(self, stock: Callable[[Any], None], primitive: Any) -> None:
        """Note that pynetdicom's thread will send a PDU sooner or later."""
        self._pdus_due += isinstance(primitive, P_DATA)
        stock(primitive)

    def halve(self) -> None:
        """When all has been sent that was to be sent: send half of what comes next, and nothing more."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._pdus_sent < self._pdus_due and time.monotonic() < deadline:
            time.sleep(0.001)
        self._half = True

    def say_farewell(self, kind: Kind) -> None:
        """Reset or close the connection in place of the next A-ABORT."""
        self._farewell = kind

    def limit(self, count: int, kind: Kind, seconds: float = 0.0, patience: float = 0.0) -> None:
        """Let something happen after so many bytes more: an abort (at the end of their PDU), reset, close or stall.

        :param seconds: how long a stall lasts.
        :param patience: after so many seconds of it the connection is closed; 0 = never.
        """
        self._limit = (count, kind, seconds, patience)
        self._sent = 0

    def unlimit(self) -> None:
        """Forget a limit that was not reached."""
        self._limit = None

    def let_go(self) -> None:
        """End a pause that is under way, and what is being sent with it; make no more, so that an abort gets out."""
        self._let_go = True

    def sendall(self, data: Any) -> None:
        """Send all of it; see :meth:`send`."""
        view = memoryview(data).cast("B")
        while view:
            view = view[self.send(view) :]

    def sendmsg(self, buffers: Iterable[Any], *_: Any) -> int:
        """Send some of what they hold; see :meth:`send`. It is called for what does not go through pynetdicom."""
        before = self._pdus_sent
        sent = self.send(b"".join(bytes(each) for each in buffers))
        self._pdus_sent = before
        return sent

    def send(self, data: Any) -> int:
        """Send some of it, or do what was told instead; return how much went, or seems to have gone.

        :raises ConnectionError: when the connection has ended by it.
        """
        view = memoryview(data).cast("B")
        if self._dead:
            return len(view)
        if self._farewell is not None and len(view) and view[0] == _A_ABORT_TYPE:
            self._end(self._farewell)
        if self._half:
            self._dead = True
            self._raw.sendall(view[: len(view) // 2])
            return len(view)
        size = self._portion(view)
        sent = self._raw.send(view[:size])
        self._sent += sent
        self._follow(view[:sent])
        if self._limit is not None and self._limit[1] is Kind.ABORT and self._is_due(*self._limit[:2]):
            # Not before the next PDU, for an object's last one has none.
            self._strike(*self._limit[1:])
        return sent

    def _portion(self, view: memoryview) -> int:
        """Return how much may be sent now, after whatever is due before it."""
        size = len(view)
        if self._limit is not None:
            size = self._up_to_the_limit(view, *self._limit)
        if self._bytes_per_second:
            size = min(size, max(1, int(self._bytes_per_second * _SLICE_SECONDS)))
            self._pause(size / self._bytes_per_second)
        return size

    def _up_to_the_limit(self, view: memoryview, count: int, kind: Kind, seconds: float, patience: float) -> int:
        if self._is_due(count, kind):
            self._strike(kind, seconds, patience)
            return len(view)
        if kind is not Kind.ABORT:
            return min(len(view), count - self._sent)
        return min(len(view), self._left or _PDU_HEADER - len(self._header))

    def _is_due(self, count: int, kind: Kind) -> bool:
        between_pdus = not self._left and not self._header
        return self._sent >= count and (kind is not Kind.ABORT or between_pdus)

    def _follow(self, part: memoryview) -> None:
        """Follow the PDUs that go by (PS3.8 9.3.1: type, reserved, length)."""
        while part:
            if not self._left:
                head = part[: _PDU_HEADER - len(self._header)]
                self._header += head
                part = part[len(head) :]
                if len(self._header) < _PDU_HEADER:
                    return
                self._type, self._left = self._header[0], int.from_bytes(self._header[2:], "big")
                self._header.clear()
            step = min(len(part), self._left)
            self._left -= step
            part = part[step:]
            if not self._left:
                self._pdus_sent += self._type == _P_DATA_TYPE

    def _strike(self, kind: Kind, seconds: float, patience: float) -> None:
        self._limit = None
        if kind is Kind.STALL:
            self._pause(min(seconds, patience) if patience else seconds)
            if patience and seconds > patience:
                self._end(Kind.CLOSE)
            return
        self._end(kind)

    def _pause(self, seconds: float) -> None:
        if self._let_go:
            return
        deadline = time.monotonic() + seconds
        while not self._let_go and not self._stopping.wait(max(0.0, min(deadline - time.monotonic(), _LOOK_SECONDS))):
            if time.monotonic() >= deadline:
                return
        raise ConnectionAbortedError("the association is to end, or the daemon stops")

    def _end(self, kind: Kind) -> None:
        if kind is Kind.RESET:
            reset(self._raw)
        else:
            with suppress(OSError):
                if kind is Kind.ABORT:
                    self._raw.sendall(_A_ABORT)
                self._raw.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError("the simulator ended the connection")


def reset(raw: socket.socket) -> None:
    """Close a socket with RST rather than FIN, when all that was sent has been received."""
    with suppress(OSError):
        deadline = time.monotonic() + _DRAIN_SECONDS
        # RST throws away what the other side has not acknowledged yet.
        while time.monotonic() < deadline and any(fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4))):
            time.sleep(0.001)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()


def spoil(assoc: Association, stopping: threading.Event) -> SpoiltSocket:
    """Put a spoilt socket into an association, or return the one that is there already.

    :raises ConnectionError: when it has no connection any more.
    """
    wrapped: Any = assoc.dul.socket
    raw = wrapped.socket if wrapped is not None else None
    if raw is None:
        raise ConnectionAbortedError("the association has no connection")
    if not isinstance(raw, SpoiltSocket):
        spoilt = SpoiltSocket(raw, stopping)
        dul: Any = assoc.dul
        dul.send_pdu = partial(spoilt.expect, dul.send_pdu)
        wrapped.socket = spoilt
        return spoilt
    return raw


def is_spoilt(assoc: Association) -> bool:
    """Say whether an association's socket has been replaced."""
    return assoc.dul.socket is not None and isinstance(assoc.dul.socket.socket, SpoiltSocket)


def end(assoc: Association) -> None:
    """End an association at once, and wake whatever waits for a message on it, or has stalled."""
    wrapped: Any = assoc.dul.socket
    if wrapped is not None and type(wrapped.socket) is SpoiltSocket:
        wrapped.socket.let_go()
    if assoc.is_established:
        assoc.abort()
    else:
        # Negotiating, or a connection that never asked for anything: there is nobody to tell.
        parked.close_socket(assoc)
    assoc.dimse.msg_queue.put((None, None))


def finish(assoc: Association, kind: Kind, stopping: threading.Event) -> None:
    """End an association by abort, reset or close, after what has been said on it has been sent."""
    if kind is not Kind.ABORT:
        with suppress(ConnectionError):
            spoil(assoc, stopping).say_farewell(kind)
    assoc.abort()
    deadline = time.monotonic() + 1
    while assoc.dul.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
