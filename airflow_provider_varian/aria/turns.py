"""One at a time: an advisory lock on a file, for tasks that would do the same work at the same time.

Two plans of a patient share images and structure sets. Who waits for its turn finds what the other one brought, and
need not have it sent again. The lock is ``flock``: a kill frees it, and where a file system has none (some network
file systems) both go ahead, which costs a transfer and harms nothing, since everything is written once.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import TransientDicomError
from airflow_provider_varian.receiver.file_lock import lock_file, unlock_file

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
            unlock_file(path, descriptor)


def _waited_for(path: Path, wait_seconds: float, cancellation: Cancellation) -> int:
    end = time.monotonic() + wait_seconds
    told = False
    while True:
        cancellation.raise_if_cancelled()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = lock_file(path)
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
