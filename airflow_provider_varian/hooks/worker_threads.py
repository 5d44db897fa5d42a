"""Synchronous verbs for asynchronous callers: run in a bounded pool of threads.

pynetdicom is threads, not asyncio; a second DIMSE client would be a second set of faults.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from airflow_provider_varian.dimse.peer import Peer

_Result = TypeVar("_Result")

#: How many peers a process waits for at a time.
WORKERS: Final = 8

_pool: ThreadPoolExecutor | None = None
_pool_lock: Final = threading.Lock()
#: Another one: who is given the pool must not wait for imports.
_import_lock: Final = threading.Lock()


async def in_thread(peer: Peer, verb: Callable[..., _Result]) -> _Result:
    """Run a verb in the pool, past the quiet hours of its peer; cancelling the coroutine cancels the verb.

    :param peer: whom it calls.
    :param verb: takes ``cancellation``.
    """
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.dimse.quiet_hours import await_past

    # Quiet hours would take a place in the pool from other peers.
    await await_past(peer)
    cancellation = Cancellation()
    call = partial(verb, cancellation=cancellation)
    try:
        return await asyncio.get_running_loop().run_in_executor(shared_pool(), call)
    except asyncio.CancelledError:
        cancellation.cancel()
        raise


def shared_pool() -> ThreadPoolExecutor:
    """Return the pool of this process."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="dicom-async", initializer=_import_libraries)
        return _pool


def _import_libraries() -> None:
    """Have one thread import what all of them need, and the others wait for it.

    The modules of pydicom import each other: of two threads that begin to, one is given a module that is not whole.
    """
    with _import_lock:
        import pydicom  # noqa: F401
        import pynetdicom  # noqa: F401
