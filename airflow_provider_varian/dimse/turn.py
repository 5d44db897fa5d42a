"""Waiting for one's turn with a peer: past its quiet hours, its pause, and until its budget has an association left.

All associations are opened through here, so nothing above has to think of it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from airflow_provider_varian.dimse import quiet_hours
from airflow_provider_varian.dimse.budget import Line, Slot
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import AssociationBudgetError, ConfigurationError

log = logging.getLogger(__name__)

#: How often somebody who waits for a slot looks again, on average.
_LOOK_SECONDS: Final = 0.1
#: How long a task waits at least for who holds an association for less than a retrieval may.
_TASK_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long somebody waits for a peer that has no time.

    :param slot_seconds: for an association of its budget; ``None``: for as long as a retrieval of the same peer may
        hold one (``retrieve_deadline``), and for ten minutes at least.
    :param waits: for the end of quiet hours, and for the pause between requests; else neither is looked at.
    :param past_quiet_hours: whether their end is waited for; else :class:`QuietHoursError` is raised, at once.
    """

    slot_seconds: float | None = None
    waits: bool = True
    past_quiet_hours: bool = True

    def seconds_for(self, peer: Peer) -> float:
        """Return how long to wait for an association of a peer."""
        return max(_TASK_SECONDS, peer.retrieve_deadline) if self.slot_seconds is None else self.slot_seconds


#: A task has time, and nobody looks on.
TASK: Final = Patience()
#: Somebody looks on and wants to know whether the peer answers now.
BY_HAND: Final = Patience(slot_seconds=5.0, waits=False)
#: Asks again in a minute or so: whoever works with the peer now goes first, and nobody sits out its quiet hours.
POLL: Final = Patience(slot_seconds=10.0, past_quiet_hours=False)


@contextmanager
def turn(
    peer: Peer,
    *,
    step: str,
    cancellation: Cancellation,
    patience: Patience = TASK,
    on_wait: Callable[[float], None] | None = None,
) -> Iterator[None]:
    """Wait until a peer may be called, and hold one of its associations for the length of the block.

    :param peer: whom to call.
    :param step: what it is for: errors say it.
    :param cancellation: ends the wait.
    :param patience: how long to wait.
    :param on_wait: called with the seconds waited, before the block runs or an error is raised.
    :raises AssociationBudgetError: no association of the budget came free.
    :raises ConfigurationError: this thread holds them all itself.
    :raises QuietHoursError: it is quiet time, and ``patience`` does not wait for its end.
    :raises CancelledError: cancelled while waiting.
    """
    began = time.monotonic()
    try:
        slot = _slot(peer, step, cancellation, patience)
    finally:
        if on_wait is not None:
            on_wait(time.monotonic() - began)
    try:
        yield
    finally:
        slot.release()


def pause_between(peer: Peer, cancellation: Cancellation) -> None:
    """Wait until ``request_pause_seconds`` have passed since this process last had a peer at work.

    :raises CancelledError: cancelled meanwhile.
    """
    with _lock:
        ended = _last_request.get(_who(peer))
    left = 0.0 if ended is None else ended + peer.request_pause_seconds - time.monotonic()
    if left > 0:
        cancellation.pause(left)


def note_request(peer: Peer) -> None:
    """Remember that a request to a peer ended now; :func:`pause_between` counts from here."""
    if peer.request_pause_seconds:
        with _lock:
            _last_request[_who(peer)] = time.monotonic()


_last_request: Final[dict[tuple[str, int, str], float]] = {}
_lock: Final = threading.Lock()


def _who(peer: Peer) -> tuple[str, int, str]:
    return peer.host.lower(), peer.port, peer.called_ae_title


def _slot(peer: Peer, step: str, cancellation: Cancellation, patience: Patience) -> Slot:
    line = Line(peer)
    gives_up: float | None = None
    if patience.waits:
        pause_between(peer, cancellation)
    try:
        while True:
            if patience.waits and (until := quiet_hours.quiet_until(peer)) is not None:
                if not patience.past_quiet_hours:
                    raise quiet_hours.error_of(peer, step, until)
                # While nobody is to call there is no line either, and the wait for a slot begins anew.
                line.leave()
                quiet_hours.wait_past(peer, cancellation)
                gives_up = None
            if (slot := line.take()) is not None:
                return slot
            if line.held_by_this_thread():
                raise _held_by_ourselves(peer, step)
            if gives_up is None:
                gives_up = time.monotonic() + patience.seconds_for(peer)
                log.info(
                    "%s: %s in use on this machine: waiting for up to %g s",
                    peer.name,
                    _all_of_them(peer),
                    patience.seconds_for(peer),
                )
            elif time.monotonic() >= gives_up:
                raise _too_long(peer, step, patience)
            cancellation.pause(_LOOK_SECONDS * random.uniform(0.5, 1.5))
    finally:
        line.leave()


def _all_of_them(peer: Peer) -> str:
    """Name the whole budget, and what bounds it."""
    if peer.max_associations == 1:
        return "the one association that max_associations allows is"
    return f"the {peer.max_associations} associations that max_associations allows are"


def _too_long(peer: Peer, step: str, patience: Patience) -> AssociationBudgetError:
    return AssociationBudgetError(
        f"{_all_of_them(peer)} in use on this machine, for {patience.seconds_for(peer):g} s now",
        peer=peer.name,
        step=step,
        hint="Give the tasks of this connection an Airflow pool with as many slots, or raise max_associations as far "
        "as the peer can bear",
    )


def _held_by_ourselves(peer: Peer, step: str) -> ConfigurationError:
    return ConfigurationError(
        f"{_all_of_them(peer)} in use by the very code that asks for another one",
        peer=peer.name,
        step=step,
        hint="End the first association, session or iteration before, or raise max_associations",
    )
