"""A connected socket, plain or TLS, that one thread reads and writes and that others can wake from its wait.

It never blocks but in :meth:`Connection.wait`, which waits in ``poll()`` (``select()`` fails for descriptors of 1024
and more) on the socket and on a descriptor that :meth:`Connection.wake` writes to; and for a moment, that nobody can
cut short, where something is expected at once.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from airflow_provider_varian.dimse import socket_manners

#: What a socket raises when there is nothing to read, or no room to write.
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
#: How often a wait for room looks around; what it waits for wakes it, so that nothing depends on it.
_LOOK_SECONDS: Final = 0.5
#: How long a read waits for what is expected at once; the kernel counts in steps of some milliseconds.
_EXPECTED_SECONDS: Final = 0.002
#: ``struct timeval``, as SO_RCVTIMEO takes it.
_TIMEVAL: Final = struct.pack("ll", 0, int(_EXPECTED_SECONDS * 1_000_000))


class Connection:
    """See above. :meth:`wake` is for any thread, all else for one at a time.

    :param connected: from now on nobody else may read, write or change its mode for long.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._lock = threading.Lock()
        self._bell = -1
        self.socket = connected
        self.is_tls = isinstance(connected, ssl.SSLSocket)
        # A plain socket may block, and each call says that it must not, but for a read that is to wait for a moment.
        self._can_expect = type(connected) is socket.socket
        self._flags = socket.MSG_DONTWAIT if self._can_expect else 0
        connected.setblocking(self._can_expect)
        if self._can_expect:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL)
        self._number = connected.fileno()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waits = False
        #: Events of the socket that are waited for.
        self._watched = 0
        #: Something came that TCP may not have acknowledged yet: what we send next carries that with it.
        self._unacknowledged = False
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)

    def __del__(self) -> None:
        self.close_bell()

    def close_bell(self) -> None:
        """Give the descriptor back that :meth:`wake` writes to; waits no longer, nor is to be woken, from now on."""
        with self._lock:
            bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

    def receive_into(self, view: memoryview, *, expected: bool = False) -> int | None:
        """Read what there is.

        :param expected: wait for it for 2 ms, or a little more, when there is nothing; with TLS do not. This takes one
            call to the system, where :meth:`wait` and reading take two, each of which gives way to all other threads.
        :return: how many bytes; 0: the connection has ended; ``None``: there is nothing now.
        """
        try:
            if self._can_expect:
                count = self.socket.recv_into(view, 0, 0 if expected else self._flags)
            else:
                count = self.socket.recv_into(view)
        except _NOT_NOW:
            return None
        except OSError:
            return 0
        self._unacknowledged = True
        return count

    def wait(self, seconds: float, unless: Callable[[], object], *, reading: bool = True) -> bool:
        """Wait until there may be something to read, or somebody calls :meth:`wake`.

        :param seconds: how long at most.
        :param unless: looked at before; what makes it true is followed by a call of :meth:`wake`.
        :param reading: else only for :meth:`wake`.
        :return: whether there may be something to read.
        """
        if self._unacknowledged:
            # A peer that leaves Nagle's algorithm on may wait for it with what comes next.
            socket_manners.acknowledge_at_once(self.socket)
            self._unacknowledged = False
        return self._wait(select.POLLIN if reading else 0, seconds, unless)

    def wake(self) -> None:
        """End the wait, if somebody waits."""
        if self._waits:
            with self._lock:
                if self._bell >= 0:
                    os.eventfd_write(self._bell, 1)

    def send(self, data: bytes, seconds: float, unless: Callable[[], object]) -> None:
        """Send all of it.

        :param seconds: how long the peer may take nothing of it.
        :param unless: gives up when it becomes true, as in :meth:`wait`.
        :raises OSError: the connection has ended, the peer takes nothing, or ``unless`` has become true. Part of it
            may have been sent, so nothing else can follow.
        """
        view, limit = memoryview(data), 0.0
        while True:
            try:
                sent = self.socket.send(view, self._flags)
            except _NOT_NOW:
                limit = limit or time.monotonic() + seconds
                if time.monotonic() >= limit or unless():
                    raise TimeoutError("the peer takes nothing") from None
                self._wait(select.POLLOUT, min(_LOOK_SECONDS, seconds), unless)
                continue
            if sent == len(view):
                break
            view, limit = view[sent:], 0.0
        self._unacknowledged = False

    def _wait(self, events: int, seconds: float, unless: Callable[[], object]) -> bool:
        if events != self._watched:
            if self._watched:
                self._poll.unregister(self._number)
            if events:
                self._poll.register(self._number, events)
            self._watched = events
        self._waits = True
        try:
            ready = () if unless() or self._bell < 0 else self._poll.poll(max(0, seconds) * 1000)
        finally:
            self._waits = False
        readable = False
        for number, _ in ready:
            # When it was closed meanwhile, and the number is somebody else's by now, reading finds out.
            if number == self._number:
                readable = True
            else:
                with suppress(BlockingIOError):
                    os.eventfd_read(number)
        return readable
