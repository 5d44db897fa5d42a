"""Connections looked up without holding up the triggerer's loop, and once for all who ask at the same time."""

from __future__ import annotations

import asyncio
import copy
import time
import weakref
from contextvars import Context
from typing import TYPE_CHECKING, Final

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_varian.errors import ConnectionLookupError, DicomError
from airflow_provider_varian.hooks.dicom import DicomHook

if TYPE_CHECKING:
    from airflow_provider_varian.dimse.peer import Peer

#: A triggerer takes over a thousand triggers within seconds, and each look-up is a request to Airflow's API.
FRESH_SECONDS: Final = 30.0

_Lookup = tuple[float, "asyncio.Task[Peer]"]
_lookups: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Lookup]]] = weakref.WeakKeyDictionary()


async def peer_of(dicom_conn_id: str) -> Peer:
    """Return the peer of a connection, as it was looked up within the last half minute.

    :raises ConfigurationError: when a field of it is wrong.
    :raises ConnectionLookupError: when Airflow gives none. A worker had it, and Airflow says the same of one that does
        not exist and of an API that does not answer.
    """
    loop = asyncio.get_running_loop()
    known = _lookups.setdefault(loop, {})
    began, looking_up = known.get(dicom_conn_id, (0.0, None))
    failed = looking_up is not None and looking_up.done() and (looking_up.cancelled() or looking_up.exception())
    if looking_up is None or failed or time.monotonic() - began > FRESH_SECONDS:
        # In a context of its own: what it logs is not the first trigger's.
        looking_up = loop.create_task(DicomHook(dicom_conn_id).apeer(), context=Context())
        known[dicom_conn_id] = time.monotonic(), looking_up
        looking_up.add_done_callback(_retrieved)
    try:
        # Shielded: who is cancelled must not take the look-up from the others.
        return await asyncio.shield(looking_up)
    except DicomError as error:
        if isinstance(error.__cause__, AirflowNotFoundException):
            raise ConnectionLookupError(
                f"Airflow gives the triggerer no connection {dicom_conn_id!r}",
                step="connection",
                hint="The task had it when it was deferred: look whether it is still there, and Airflow's API well",
            ) from None
        # Each raises its own: one error may be that of a thousand, and would hold the traces of all.
        raise copy.copy(error) from None


def _retrieved(looking_up: asyncio.Task[Peer]) -> None:
    """Look at an error that nobody may have waited for: they were all cancelled."""
    if not looking_up.cancelled():
        looking_up.exception()
