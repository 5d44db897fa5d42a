"""One at a time: an advisory lock on a file, for tasks that would do the same work at the same time.

Two plans of a patient share images and structure sets. Who waits for its turn finds what the other one brought, and
need not have it sent again. The lock is ``flock``: a kill frees it, and where a file system has none (some network
file systems) both go ahead, which costs a transfer and harms nothing, since everything is written once.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import TransientDicomError

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.25


@contextlib.contextmanager
def turn(folder: Path, name: str, *, wait_seconds: float, cancellation: Cancellation) -> Iterator[None]:
    """Be the only one that works under a name, for as long as the block runs.

    :param folder: where the lock is; made when it is not there.
    :param name: what to lock: a file name, free of identifiers.
    :param wait_seconds: how long to wait for another one to end.
    :param cancellation: ends the wait.
    :raises TransientDicomError: when another one goes on for longer.
    :raises CancelledError: cancelled.
    """
    path = folder / f"{name}.lock"
    try:
        descriptor = _waited_for(path, wait_seconds, cancellation)
    except OSError as error:
        logger.warning("No lock can be had in %s (%s): going on without", folder, error.strerror)
        descriptor = None
    try:
        yield
    finally:
        if descriptor is not None:
            # Removed while it is held: who has opened it meanwhile sees that it is not the one that others find there.
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _waited_for(path: Path, wait_seconds: float, cancellation: Cancellation) -> int:
    end = time.monotonic() + wait_seconds
    told = False
    while True:
        cancellation.raise_if_cancelled()
        descriptor = _locked(path)
        if descriptor is not None:
            return descriptor
        if time.monotonic() >= end:
            raise TransientDicomError(
                f"another task has worked on the same objects for {wait_seconds:g} s and does not end",
                step="export",
                hint="Wait for it, or end its process: it may be a task that Airflow has given up and that goes on",
            )
        if not told:
            logger.info("Another task works on the same objects; waiting for it to end")
            told = True
        cancellation.pause(_LOOK_SECONDS)


def _locked(path: Path) -> int | None:
    """Return the open file that is locked; ``None`` when somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
