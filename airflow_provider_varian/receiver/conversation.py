"""One connection from its first byte to its last, in a thread of its own: a deadline for each step.

Handing it to pynetdicom before anything has come would cost two threads and a copy of all presentation contexts for
each caller who says nothing.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

from pynetdicom.association import Association

from airflow_provider_varian.receiver.connections import Connection, Connections
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.observer import Ending, Observer, Refusal
from airflow_provider_varian.receiver.refusals import Refusals
from airflow_provider_varian.receiver.tls_peer import HandshakeError, shake_hands

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.05
#: How much longer than it should a reading thread may take to end, and how long once its connection is cut.
_LATE_SECONDS: Final = 5.0
_END_SECONDS: Final = 5.0


class Conversation:
    """How connections are served.

    :param connections: all there are.
    :param limits: how long each step may take.
    :param tls_context: of the receiver; ``None``: it speaks plain TCP.
    :param hand_over: makes pynetdicom's association of a connection, and starts it.
    :param refusals: tells of who was sent away.
    :param observer: is told of the rest; it does not raise.
    """

    def __init__(
        self,
        connections: Connections,
        limits: Limits,
        *,
        tls_context: ssl.SSLContext | None,
        hand_over: Callable[[Connection, Any], None],
        refusals: Refusals,
        observer: Observer,
    ) -> None:
        self._connections = connections
        self._limits = limits
        self._tls_context = tls_context
        self._hand_over = hand_over
        self._refusals = refusals
        self._observer = observer

    def serve(self, connection: Connection, address: Any) -> None:
        """Serve a connection to its end.

        :param address: of the peer, as :meth:`socket.socket.accept` returns it.
        """
        try:
            self._observer.connected(connection.source)
            self._serve(connection, address)
        except Exception as error:  # noqa: BLE001 - the end is told in any case
            logger.warning("Receiver: serving %s failed: %s", connection.source, type(error).__name__)
        finally:
            connection.close()
            # Before the observer hears of it: who was told of the end may count on the place.
            self._connections.part(connection)
            if connection.facts is not None:
                self._observer.ended(connection.facts, connection.ending or Ending.CUT)
            else:
                self._refusals.of(connection)
            self._observer.disconnected(connection.source)
            self._connections.leave(connection)

    def _serve(self, connection: Connection, address: Any) -> None:
        if self._tls_context is not None and not self._secure(connection, self._tls_context):
            return
        if not self._wait_for_a_word(connection):
            return
        # A peer that stops in the middle of a PDU is not waited for without end.
        connection.raw.settimeout(self._limits.bounds.read_seconds)
        self._hand_over(connection, address)
        association = connection.association
        if association is not None:
            self._wait_for_association(connection, association)
            association.join()
            self._see_off(connection, association)

    def _secure(self, connection: Connection, context: ssl.SSLContext) -> bool:
        try:
            shake_hands(connection, context, self._limits.handshake_seconds)
        except TimeoutError:
            why = f"it did not finish within {self._limits.handshake_seconds:g} s"
        except HandshakeError as error:
            why = str(error)
        else:
            return not connection.is_cut
        if connection.refusal is None:  # not sent away meanwhile
            connection.refusal = Refusal.TLS
            self._refusals.tls(connection.source, why)
        return False

    def _wait_for_a_word(self, connection: Connection) -> bool:
        """Wait for the first byte; say whether it came."""
        raw = connection.raw
        if isinstance(raw, ssl.SSLSocket) and raw.pending():
            return True
        poll = select.poll()
        poll.register(raw, select.POLLIN)
        if not poll.poll(max(0.0, self._left(connection)) * 1000):
            self._connections.send_away(connection, Refusal.TIMEOUT)
            return False
        if connection.is_cut:
            return False
        if isinstance(raw, ssl.SSLSocket):
            return True
        try:
            first = raw.recv(1, socket.MSG_PEEK)
        except OSError:
            return False
        if first:
            connection.first_byte = first[0]
        return bool(first)

    def _wait_for_association(self, connection: Connection, association: Association) -> None:
        """Wait until the peer has asked for an association, and end the connection when that takes too long."""
        is_over = False
        while not is_over and connection.facts is None:
            is_over = not association.is_alive()
            # pynetdicom's own timers may have been faster.
            if self._left(connection) <= 0:
                self._connections.send_away(connection, Refusal.TIMEOUT)
            # Set by its reading thread itself: a thread that is only just starting is not alive either.
            if association._dul_ready.is_set() and not association.dul.is_alive():
                # The connection has ended, and pynetdicom does not wake who waits for a request.
                association.dul.to_user_queue.put(None)
            association.join(_LOOK_SECONDS)

    def _see_off(self, connection: Connection, association: Association) -> None:
        """Wait for the reading thread of an association that is over; its connection does not stay without one."""
        dul = association.dul
        # After an A-ABORT or an A-ASSOCIATE-RJ it waits for the peer to hang up, for as long (Sta13, PS3.8 9.1.4).
        dul.join(self._limits.bounds.association_seconds + _LATE_SECONDS)
        if dul.is_alive():
            logger.warning("Receiver: the connection of %s did not end with its association; cut", connection.source)
            connection.cut()
            dul.join(_END_SECONDS)  # before anybody hears that the connection has ended

    def _left(self, connection: Connection) -> float:
        return connection.began + self._limits.bounds.association_seconds - time.monotonic()
