"""The connections of a receiver: how many there are, of whom, and which one makes room for another.

A connection counts from the moment it is accepted, before a word is said. When there is no room the oldest one
that has no association yet is closed for the new one: whoever connects and says nothing keeps nobody out.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from pynetdicom.association import Association

from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.observer import AssociationFacts, Ending, Refusal


@dataclass(slots=True, eq=False)
class Connection:
    """One connection, from its acceptance to its end.

    :param source: IP address of the peer.
    :param raw: the socket; with TLS it is replaced by the one that encrypts.
    """

    source: str
    raw: socket.socket
    began: float = field(default_factory=time.monotonic)
    #: pynetdicom's, once the connection is handed to it.
    association: Association | None = None
    #: Of the association, once it is accepted.
    facts: AssociationFacts | None = None
    #: Whether the peer has asked for an association.
    has_asked: bool = False
    #: What it said first, where that could be seen without TLS.
    first_byte: int | None = None
    #: Whether it holds a place among the associations.
    holds_place: bool = False
    #: Why it was sent away, or is about to be.
    refusal: Refusal | None = None
    #: How its association ended, as far as that is known by now.
    ending: Ending | None = None
    _cut: bool = False

    def cut(self) -> None:
        """End the connection from another thread, which wakes whoever reads from it."""
        self._cut = True
        self._shut_down()

    def replace(self, raw: socket.socket) -> None:
        """Go on with another socket of the same connection."""
        self.raw = raw
        if self._cut:  # meanwhile, and the socket of before did not hear of it
            self._shut_down()

    @property
    def is_cut(self) -> bool:
        """Whether it was ended by :meth:`cut`."""
        return self._cut

    def close(self) -> None:
        """Close it for good."""
        self._shut_down()
        with suppress(OSError):
            self.raw.close()

    def _shut_down(self) -> None:
        # Not SSLSocket's own: that lets go of the encryption first, under the feet of who writes.
        with suppress(OSError):
            socket.socket.shutdown(self.raw, socket.SHUT_RDWR)


class Connections:
    """All connections of a receiver. Safe from any thread.

    :param limits: how many there may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._open: dict[Connection, None] = {}  # the oldest first
        self._of_source: Counter[str] = Counter()
        self._associations: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many there are."""
        with self._changed:
            return len(self._open)

    @property
    def associations(self) -> int:
        """How many associations there are."""
        with self._changed:
            return self._associations.total()

    def enter(self, connection: Connection) -> Refusal | None:
        """Count a connection, after making room for it where that is needed; return why there is none."""
        with self._changed:
            limits, source = self._limits, connection.source
            full = len(self._open) >= limits.connections and Refusal.TOO_MANY_CONNECTIONS
            full_of_source = self._of_source[source] >= limits.connections_per_source and Refusal.TOO_MANY_OF_SOURCE
            if reason := full_of_source or full:
                victim = self._oldest_idle(source if full_of_source else None)
                if victim is None:
                    return reason
                victim.refusal = reason
                self._take_out(victim)
                victim.cut()
            self._open[connection] = None
            self._of_source[source] += 1
            return None

    def associate(self, connection: Connection) -> Refusal | None:
        """Count an association; return why there is no place for it, or why the connection has to go anyway."""
        with self._changed:
            if connection.refusal is not None:
                return connection.refusal
            if self._associations.total() >= self._limits.associations:
                return Refusal.TOO_MANY_ASSOCIATIONS
            if self._associations[connection.source] >= self._limits.associations_per_source:
                return Refusal.TOO_MANY_OF_SOURCE
            self._associations[connection.source] += 1
            connection.holds_place = True
            return None

    def send_away(self, connection: Connection, reason: Refusal) -> None:
        """Cut a connection, unless its association has come to be by now."""
        with self._changed:
            if connection.facts is None and not connection.holds_place:
                connection.refusal = connection.refusal or reason
                connection.cut()

    def part(self, connection: Connection) -> None:
        """Give the place of an association back. May be repeated."""
        with self._changed:
            self._part(connection)

    def leave(self, connection: Connection) -> None:
        """Forget a connection that has ended. May be repeated."""
        with self._changed:
            self._part(connection)
            self._take_out(connection)

    def all(self) -> list[Connection]:
        """Return those that there are, the oldest first."""
        with self._changed:
            return list(self._open)

    def wait_until_no_associations(self, seconds: float) -> bool:
        """Wait for the last association to end; say whether it did in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._associations.total(), seconds)

    def wait_until_empty(self, seconds: float) -> bool:
        """Wait for the last connection to end; say whether it did in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    def _oldest_idle(self, source: str | None) -> Connection | None:
        return next(
            (each for each in self._open if not each.holds_place and (source is None or each.source == source)), None
        )

    def _part(self, connection: Connection) -> None:
        if connection.holds_place:
            connection.holds_place = False
            self._less(self._associations, connection.source)

    def _take_out(self, connection: Connection) -> None:
        if connection in self._open:
            del self._open[connection]
            self._less(self._of_source, connection.source)

    def _less(self, counter: Counter[str], source: str) -> None:
        counter[source] -= 1
        if not counter[source]:
            del counter[source]  # addresses that are not there any more cost nothing
        self._changed.notify_all()
