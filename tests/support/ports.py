"""Free ports, and waiting for something to be true."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

# Below the ports that systems hand out by themselves, to sockets that bind to port 0 and to those that call.
_FIRST, _LAST = 20000, 31999
# Not in the folder of temporary files, of which each run of the tests may have its own.
_LOCK_FILE = Path("/tmp") / f"dicom-test-ports-{os.getuid()}"
_candidates = itertools.cycle(range(_FIRST, _LAST + 1))
_next = threading.Lock()
_locks = _LOCK_FILE.open("ab")


def free_port() -> int:
    """Return a loopback port that nobody has, for programs that cannot pick their own.

    It stays this process's until that ends: tests that run at the same time in other processes get others.
    """
    with _next:
        for port in itertools.islice(_candidates, _LAST + 1 - _FIRST):
            if _reserve(port) and _can_be_bound(port):
                return port
    raise AssertionError(f"no port from {_FIRST} to {_LAST} is free")


def _reserve(port: int) -> bool:
    """Lock one byte of a file that no process writes to; however the process ends, the system unlocks it."""
    try:
        fcntl.lockf(_locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _can_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    condition: Callable[[], object], *, seconds: float = 30, what: str = "a condition", every: float = 0.02
) -> None:
    """Return as soon as the condition holds, asked for every so many seconds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(every)
