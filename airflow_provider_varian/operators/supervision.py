"""Learning that nobody supervises a task's process any more.

Airflow's supervisor is the parent of a task's process, and talks to it over a pair of sockets. A supervisor that is
killed cannot end its task: what the task comes to could be told to no one, while it goes on receiving, on the port and
with the association that its next try is waiting for.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def supervised(on_gone: Callable[[], None]) -> Iterator[None]:
    """Call a function, in another thread, when the supervisor goes while the block runs.

    Without one, as in ``dag.test()``, this does nothing.

    :param on_gone: must return soon, and raise nothing.
    """
    theirs = _socket_to_supervisor()
    if theirs is None:
        yield
        return
    ours, end = socket.socketpair()
    watch = threading.Thread(target=_watch, args=(theirs, end, on_gone), name="dicom-supervision", daemon=True)
    with ours, end:
        watch.start()
        try:
            yield
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            watch.join()


def _socket_to_supervisor() -> socket.socket | None:
    # Not imported: where it is not yet, this is no task's process. In dag.test() the supervisor is part of the process.
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    theirs = getattr(getattr(runner, "SUPERVISOR_COMMS", None), "socket", None)
    return theirs if isinstance(theirs, socket.socket) else None


def _watch(theirs: socket.socket, end: socket.socket, on_gone: Callable[[], None]) -> None:
    poll = select.poll()
    poll.register(theirs, 0)  # hanging up is told unasked; what is there to be read is Airflow's
    poll.register(end, 0)
    hung_up = {descriptor for descriptor, _ in poll.poll()}
    if end.fileno() not in hung_up:
        on_gone()  # and nothing is logged: whoever would write it down is gone
