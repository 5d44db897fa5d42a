"""What a connection needs that pynetdicom does not give it: small messages at once, and an end for good.

TCP options without which each small message costs 40 ms (performance 1, 7):

pynetdicom leaves Nagle's algorithm on, and so do DCMTK and others, which send each message in several
small writes. Nagle waits for an acknowledgement that the other side delays by 40 ms. ``TCP_NODELAY``
cures what we send; ``TCP_QUICKACK`` cures what a peer sends that leaves Nagle on. The kernel
forgets the latter by itself, so it is armed again after each send and receive.

A socket that cannot be shut down, because nobody accepted the connection or the peer has reset it, pynetdicom
does not close.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pynetdicom import evt

#: Linux has it, others do not.
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


def no_delay(event: evt.Event) -> None:
    """Send each message at once (handler of ``EVT_CONN_OPEN``)."""
    _set(event, socket.TCP_NODELAY)


def quick_ack(event: evt.Event) -> None:
    """Acknowledge at once what the peer sends (``EVT_CONN_OPEN``, ``EVT_DATA_SENT``, ``EVT_DATA_RECV``)."""
    if _QUICKACK is not None:
        _set(event, _QUICKACK)


def acknowledge_at_once(connection: socket.socket) -> None:
    """Arm quick acknowledgement again, for who sends and receives without pynetdicom's events."""
    if _QUICKACK is not None:
        # As in _set(): a connection that is gone is noticed elsewhere.
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def close_for_good(event: evt.Event) -> None:
    """Make pynetdicom close the socket even when it cannot be shut down (``EVT_CONN_OPEN``, ``EVT_ACSE_SENT``).

    For a requestor the latter: its socket is made for the association request, and no event comes between
    that and a refused connection.
    """
    wrapped: Any = event.assoc.dul.socket
    if wrapped is None:
        return

    def shut_down_and_close() -> None:
        raw = wrapped.socket
        if raw is not None:
            with suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                raw.close()

    wrapped._shutdown_socket = shut_down_and_close


def handlers() -> list[tuple[evt.EventType, Callable[..., Any]]]:
    """Return the event handlers that a requestor or an acceptor of pynetdicom binds."""
    return [
        (evt.EVT_CONN_OPEN, no_delay),
        (evt.EVT_CONN_OPEN, quick_ack),
        (evt.EVT_DATA_SENT, quick_ack),
        (evt.EVT_DATA_RECV, quick_ack),
        (evt.EVT_CONN_OPEN, close_for_good),
        (evt.EVT_ACSE_SENT, close_for_good),
    ]


def _set(event: evt.Event, option: int) -> None:
    wrapped = event.assoc.dul.socket
    raw = wrapped.socket if wrapped is not None else None
    if raw is not None:
        # A connection that is gone by now has no manners to keep; its end is noticed elsewhere.
        with suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, option, 1)
