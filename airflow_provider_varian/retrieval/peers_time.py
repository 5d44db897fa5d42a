"""The time that a peer has for a retrieval or a move: ``retrieve_deadline``, without that in which nobody asked it."""

from __future__ import annotations

import math
from collections.abc import Callable

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import PeerTimeoutError


class PeersTime:
    """A clock that runs down; it stands while a port, an association or the end of quiet hours is waited for.

    :param peer: whose time it is.
    :param step: what it is asked for: errors say it.
    :param work: what is done, as a noun ...
    :param verb: ... and as a verb.
    :param clock: tells seconds; whoever gives time goes by the same.
    """

    def __init__(self, peer: Peer, *, step: str, work: str, verb: str, clock: Callable[[], float]) -> None:
        self._peer = peer
        self._clock = clock
        self._step = step
        self._work = work
        self._verb = verb
        #: When it is over, by the clock; never, before it begins.
        self.end = math.inf

    def begin(self) -> None:
        """Let it run from now."""
        self.end = self._clock() + self._peer.retrieve_deadline

    def give(self, seconds: float) -> None:
        """Give time in which the peer was not asked for anything."""
        self.end += seconds

    @property
    def rest(self) -> float:
        """How many seconds are left; fewer than none, when it is over."""
        return self.end - self._clock()

    def left(self) -> float:
        """Return how many seconds are left.

        :raises PeerTimeoutError: none.
        """
        left = self.rest
        if left <= 0:
            raise PeerTimeoutError(
                f"the {self._work} takes longer than {self._peer.retrieve_deadline:g} s",
                peer=self._peer.name,
                step=self._step,
                hint=f"Raise retrieve_deadline of the connection, or {self._verb} less at a time",
            )
        return left
