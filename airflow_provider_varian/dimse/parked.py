"""The parked requestor: an association's own thread must never take a response meant for the caller.

pynetdicom 3.0.4 runs a reactor thread for each association, also for the requestor's. It pauses for the
duration of a request, but may be preempted between the check and the pause, and then takes a *response*
off the queue and drops it: a C-FIND ends in Success with an answer missing (performance 7). A requestor
needs no such reactor. :func:`park` replaces it, on the one association, by a watch that leaves the message
queue alone and only notices the end of the association: release or abort by the peer, and silence.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, Final

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT, A_RELEASE

from airflow_provider_varian.dimse import library

log = logging.getLogger(__name__)
library.check()

_WATCH_SECONDS: Final = 0.02
#: How long an abort may take before the socket is closed under it.
_ABORT_SECONDS: Final = 1.0


def park(event: evt.Event) -> None:
    """Park a requestor's reactor (handler of ``EVT_CONN_OPEN``); an acceptor is left as it is."""
    # Instance attributes over methods: mypy has no words for that.
    assoc: Any = event.assoc
    if assoc.is_requestor:
        assoc._watch_lock = threading.Lock()
        #: Until when a release that runs may take, as ``time.monotonic()`` counts.
        assoc._release_limit = None
        assoc._run_reactor = MethodType(_watch, assoc)
        # pynetdicom waits for this before each request and before a release.
        assoc._is_paused = True


def claim(assoc: Association) -> None:
    """Tell the watch that a request or a release runs from now on, which deals with the end itself."""
    with assoc._watch_lock:  # type: ignore[attr-defined]  # park() has set it
        assoc._reactor_checkpoint.clear()


def hand_back(assoc: Association) -> None:
    """Let the watch look after the association again."""
    assoc._reactor_checkpoint.set()


def wait_for_end(assoc: Association) -> None:
    """Wait until the watch has dealt with the end that the peer asked for; one that takes long is cut short.

    An answer is out when pynetdicom's thread has ended, not yet when the association has: who closes the connection
    in between leaves the peer without one.
    """
    deadline = time.monotonic() + _ABORT_SECONDS
    while assoc.is_established or assoc.dul.is_alive():
        if time.monotonic() > deadline:
            if assoc.is_established:
                assoc.abort()
            return
        time.sleep(_WATCH_SECONDS)


def release(assoc: Association, seconds: float) -> None:
    """End an association in good manners; nobody's work depends on how it ends.

    :param assoc: a parked one, on which nothing is under way.
    :param seconds: how long the peer has for its answer, before the association is aborted.
    """
    claim(assoc)
    # A peer that has asked for the end itself gets its answer from the watch.
    if assoc.is_established and not end_waits(assoc):
        assoc.acse_timeout = min(assoc.acse_timeout or seconds, seconds)
        with bounded_release(assoc, 2 * seconds):
            assoc.release()
    hand_back(assoc)
    wait_for_end(assoc)


@contextmanager
def bounded_release(assoc: Association, seconds: float) -> Iterator[None]:
    """Let a release that runs in the block take no longer than so many seconds.

    A release by the peer that crosses ours at the wrong moment ends pynetdicom's thread, and the caller
    would wait for an answer that nobody can bring any more. The watch, which runs anyway, cuts that short.
    """
    assoc._release_limit = time.monotonic() + seconds  # type: ignore[attr-defined]  # park() has set it
    try:
        yield
    finally:
        assoc._release_limit = None  # type: ignore[attr-defined]


def bound_waiting(event: evt.Event) -> None:
    """Make sure that nothing waits for ever on this association (handler of ``EVT_CONN_OPEN``).

    Each wait of ours, and each of pynetdicom's, that takes too long ends in an abort; but that waits for a
    thread that may be reading half a PDU, from a socket without time-out. So an abort that takes long closes
    the socket.
    """
    assoc: Any = event.assoc
    abort = assoc._abort_blocking

    def bounded_abort(block: bool = True) -> None:
        timer = threading.Timer(_ABORT_SECONDS, close_socket, (assoc,))
        timer.daemon = True
        timer.start()
        try:
            abort(block)
        finally:
            if block:
                timer.cancel()

    assoc._abort_blocking = bounded_abort


def close_socket(assoc: Association) -> None:
    """Cut the connection, which wakes whatever reads from it."""
    wrapped = assoc.dul.socket
    if wrapped is not None:
        wrapped._shutdown_socket()


def _watch(assoc: Association) -> None:
    """Notice the end of an idle association; wake a request that waits on one that the peer released."""
    watched: Any = assoc
    watched._is_paused = True
    while not watched._kill or watched._release_limit is not None:
        with watched._watch_lock:
            if watched._release_limit is not None:
                _cut_short_when_late(watched)
            # Cleared by claim(): somebody runs a request or a release.
            elif watched._reactor_checkpoint.is_set():
                if _has_ended(assoc):
                    return
            # pynetdicom wakes who waits for a message when the peer aborts or hangs up, but not when it
            # releases, nor when it aborts by itself over a PDU that it does not understand.
            elif end_waits(assoc) and watched.dimse.msg_queue.empty():
                watched.dimse.msg_queue.put((None, None))
        time.sleep(_WATCH_SECONDS)


def _cut_short_when_late(assoc: Any) -> None:
    """Wake who waits for the answer to a release that cannot come any more, or takes too long."""
    limit = assoc._release_limit
    if limit is not None and (not assoc.dul.is_alive() or time.monotonic() > limit):
        close_socket(assoc)
        assoc.dul.to_user_queue.put(A_P_ABORT())
        assoc._release_limit = None


def end_waits(assoc: Association) -> bool:
    """Say whether the peer has released or aborted, and nobody has dealt with it yet."""
    primitive: Any = assoc.dul.peek_next_pdu()
    return isinstance(primitive, A_RELEASE | A_ABORT | A_P_ABORT)


def _has_ended(assoc: Association) -> bool:
    if assoc.is_established and assoc.acse.is_release_requested():
        assoc.acse.send_release(is_response=True)
        assoc.is_released, assoc.is_established = True, False
        evt.trigger(assoc, evt.EVT_RELEASED, {})
    elif assoc.acse.is_aborted():
        assoc.dul.receive_pdu(wait=False)
        assoc.is_aborted, assoc.is_established = True, False
        evt.trigger(assoc, evt.EVT_ABORTED, {})
    elif assoc.dul.idle_timer_expired():
        log.warning("Nothing was heard for %s s, the idle association is aborted", assoc.network_timeout)
        assoc.abort()
    elif assoc.dul.is_alive():
        return False
    assoc.kill()
    return True
