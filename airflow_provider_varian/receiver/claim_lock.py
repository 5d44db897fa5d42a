"""One living try of a retrieval at a time: a lock beside what it claims of a spool.

Two tries with one retrieval ID take each other's claimed objects for leftovers of their own. That happens when Airflow
gives a task up whose process goes on, and starts the retry. The lock is advisory (``flock``), so a kill frees it; the
file that it is on is made anew each time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver.file_lock import lock_file, unlock_file
from airflow_provider_varian.receiver.spool import Spool

logger = logging.getLogger(__name__)

#: How long a try waits for another one of the same retrieval to end.
WAIT_SECONDS: Final = 60.0
_ASK_AGAIN_SECONDS: Final = 0.25


@contextmanager
def only_try(
    spool: Spool, retrieval_id: str, *, cancellation: Cancellation, wait_seconds: float | None = None
) -> Iterator[None]:
    """Be the only try of a retrieval that uses a spool, for as long as the block runs.

    :param spool: the spool.
    :param retrieval_id: the retrieval ID.
    :param cancellation: ends the wait.
    :param wait_seconds: how long to wait for another try to end; ``None``: :data:`WAIT_SECONDS`.
    :raises ReceiverUnavailableError: when another try goes on for longer, or the spool cannot be used.
    :raises CancelledError: cancelled.
    """
    path = spool.claim_lock(retrieval_id)
    end = time.monotonic() + (WAIT_SECONDS if wait_seconds is None else wait_seconds)
    cancellation.raise_if_cancelled()
    waited = False
    while (descriptor := _locked(spool, path)) is None:
        if time.monotonic() >= end:
            raise ReceiverUnavailableError(
                f"another try of retrieval {retrieval_id} is running on this machine and does not end",
                step="spool",
                hint="Wait for it, or end its process: it may be a task that Airflow has given up and that goes on",
            )
        if not waited:
            logger.info("Retrieval %s: another try of it is running; waiting for it to end", retrieval_id)
            waited = True
        cancellation.pause(_ASK_AGAIN_SECONDS)
    try:
        yield
    finally:
        unlock_file(path, descriptor)


def is_running(spool: Spool, retrieval_id: str) -> bool:
    """Say whether a try of a retrieval uses a spool now; where that cannot be told, it does.

    :param spool: the spool.
    :param retrieval_id: the retrieval ID.
    """
    try:
        descriptor = os.open(spool.claim_lock(retrieval_id), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # e.g. no descriptors left: what a living one waits for is not to be taken for nobody's
        return True
    try:
        # Shared: two that look at the same time must not take each other for the try.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # locked, or it cannot be told
        return True
    finally:
        os.close(descriptor)
    return False


def _locked(spool: Spool, path: Path) -> int | None:
    """Return the open file that is locked, or ``None`` when somebody else has it."""
    with spool.usable():
        return lock_file(path)
