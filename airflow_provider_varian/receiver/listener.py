"""The listening socket of a receiver, and the thread that accepts connections.

pynetdicom's own server shakes hands of TLS on the thread that accepts, where a caller who says nothing keeps all
others out (prior-art 5.1). Here that thread accepts, counts, and hands over; it waits for nobody.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from pynetdicom import AE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationServer

logger = logging.getLogger(__name__)

_ANY_IPV6: Final = "::"
_ANY_IPV4: Final = "0.0.0.0"
#: Out of descriptors or memory: there is nothing to accept with, and asking again at once would only take time.
_NOTHING_LEFT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 10.0

Accepted = Callable[[socket.socket, Any], None]


class Listener(AssociationServer):
    """pynetdicom's server as far as it binds, and makes an association of a connection; it accepts none itself."""

    #: Connections that wait to be accepted: they are taken as fast as threads start.
    request_queue_size = 128

    def server_bind(self) -> None:
        """Bind; all interfaces of IPv6 means those of IPv4 too, whatever the system's default is."""
        if self.server_address[0] == _ANY_IPV6 and self.socket is not None:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port on which it listens."""
        host, port = self.server_address[:2]
        return str(host), int(port)


class Door:
    """Accepts connections on a listener until it is closed.

    :param listener: bound, and listening.
    :param accepted: takes each connection with its address, on the thread that accepts: it must not wait.
    """

    def __init__(self, listener: Listener, accepted: Accepted) -> None:
        self._socket = cast(socket.socket, listener.socket)
        self._accepted = accepted
        self._asleep, self._waker = socket.socketpair()
        self._closing = threading.Event()
        self._said = False
        self._thread = threading.Thread(target=self._run, name="dicom-receiver", daemon=True)

    def open(self) -> None:
        """Begin to accept."""
        # Somebody who hangs up between the selector and accept() must not make it wait.
        self._socket.setblocking(False)
        self._thread.start()

    def close(self) -> None:
        """Accept nobody more, and give the port back. May be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._waker.close()
        self._thread.join(_STOP_SECONDS)
        self._socket.close()
        self._asleep.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._asleep, selectors.EVENT_READ)
            while not self._closing.is_set():
                selector.select()
                self._accept_all()

    def _accept_all(self) -> None:
        while not self._closing.is_set():
            try:
                raw, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            try:
                self._accepted(raw, address)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next one is accepted
                logger.error("Receiver: a connection was not served: %s", type(error).__name__)
                with suppress(OSError):
                    raw.close()

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno in _NOTHING_LEFT:
            if not self._said:
                self._said = True
                logger.error("Receiver: no connection can be accepted now: %s. Raise the limit of open files", error)
            time.sleep(_PAUSE_SECONDS)


def bind(ae: AE, host: str, port: int, handlers: list[Any], contexts: list[PresentationContext]) -> Listener:
    """Listen on a port.

    :param host: address or name; empty: all interfaces of IPv6 and IPv4, in one socket.
    :param port: 0 takes a free one.
    :param handlers: pynetdicom's, for each association.
    :param contexts: what is accepted.
    :raises OSError: when the port cannot be had.
    """

    def bound(where: str) -> Listener:
        server_class: Any = Listener
        server = ae.make_server((where, port), contexts=contexts, evt_handlers=handlers, server_class=server_class)
        return cast(Listener, server)

    if host:
        return bound(host)
    if socket.has_dualstack_ipv6():
        try:
            return bound(_ANY_IPV6)
        except OSError as error:
            # IPv6 is built in and switched off.
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
    return bound(_ANY_IPV4)


def is_taken(error: BaseException) -> bool:
    """Say whether a port cannot be had because somebody else has it."""
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE
