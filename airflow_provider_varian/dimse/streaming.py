"""Our own reading of one association's connection, in pynetdicom's own thread: bounded, and objects as they come.

pynetdicom reads a PDU of any length into memory, looks at its socket a thousand times a second, and makes an object
of each message (performance 7; prior-art 5.1). Here the same thread, at the same place of its loop, reads by
:mod:`.pdu_reader`, and waits in ``poll()`` while nothing comes. The data of messages for which there is a
:class:`~airflow_provider_varian.dimse.dispatch.Taker` goes to it from the buffer, e.g. that of a C-STORE into a sink,
whose answer is sent at once from the same thread. All else goes to pynetdicom as if it had read it: negotiation,
release, abort, other messages.

Everything is put on one association as instance attributes, of names that :mod:`.library` looks for. With a release
of pynetdicom that lacks one, its own path is used, after one warning; then a PDU has no bounds, and an object is in
memory before it is stored.

pynetdicom's events: a message that is handed over comes as one P-DATA-TF PDU, whatever it came in, so
``EVT_DATA_RECV`` and ``EVT_PDU_RECV`` happen once for it. For what a taker takes, and for answers sent from here,
none happens, ``EVT_C_STORE`` included.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association

from airflow_provider_varian.dimse import library, storage
from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.dimse.command_set import C_STORE_RQ
from airflow_provider_varian.dimse.sink import StorageSink
from airflow_provider_varian.dimse.storage import StoreObserver
from airflow_provider_varian.dimse.store_taker import StoreTaker
from airflow_provider_varian.dimse.stream import Stream

log = logging.getLogger(__name__)


def of(assoc: Association) -> Stream | None:
    """Return what reads an association; ``None``: pynetdicom does."""
    return getattr(assoc.dul, "stream", None)


def attach(
    event: evt.Event, sink: StorageSink, bounds: Bounds | None = None, observer: StoreObserver | None = None
) -> None:
    """Let an association that we accept store into a sink (handler of ``EVT_CONN_OPEN``).

    Binds ``EVT_C_STORE`` too, for what is left to pynetdicom and for its own path.

    :param event: of an association whose threads have not started yet.
    :param sink: where objects go.
    :param bounds: of what the peer may do. On pynetdicom's path only ``object_bytes`` and ``association_seconds`` hold.
    :param observer: is told what happens; on pynetdicom's path not of objects that were cut.
    """
    assoc: Any = event.assoc
    bounds, observer = bounds or Bounds(), observer or StoreObserver()
    assoc.acse_timeout = min(assoc.acse_timeout or bounds.association_seconds, bounds.association_seconds)
    assoc.bind(evt.EVT_C_STORE, storage.store_handler(sink, bounds=bounds, observer=observer))
    if missing := library.missing_for_streaming():
        _warn(missing)
        tell = observer
        assoc.bind(evt.EVT_DATA_RECV, lambda _event: tell.activity())
        return
    stream = Stream(assoc, bounds, observer)
    taker = StoreTaker(assoc, sink=sink, bounds=bounds, observer=observer, send=stream.answer)
    stream.give_to(C_STORE_RQ, taker)
    stream.install()


class _Hearing(StoreObserver):
    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard = heard

    def activity(self) -> None:
        self._heard()


def attach_requestor(event: evt.Event, bounds: Bounds, heard: Callable[[], None]) -> None:
    """Read an association that we request within bounds (handler of ``EVT_CONN_OPEN``).

    :param bounds: of what the peer may do; none holds on pynetdicom's path.
    :param heard: called when something came, ``EVT_PDU_RECV`` or not.
    """
    if missing := library.missing_for_streaming():
        _warn(missing)
    elif event.assoc.is_requestor:
        Stream(event.assoc, bounds, _Hearing(heard)).install()


_warned = threading.Event()


def _warn(missing: Sequence[str]) -> None:
    if not _warned.is_set():
        _warned.set()
        log.warning(
            "This release of pynetdicom lacks %s: it reads what comes by its own path, more slowly, and in memory",
            ", ".join(missing),
        )
