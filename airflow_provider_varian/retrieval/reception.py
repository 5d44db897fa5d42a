"""What this process receives itself: over a C-GET of its own, or by a receiver inside the task.

Whoever receives puts an object into the spool and its head into a queue; the retrieval's own thread empties it.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import NamedTuple

from airflow_provider_varian.receiver.head import Head
from airflow_provider_varian.receiver.spool import Owner, Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.receiver.spooled import SpooledObject


class Received(NamedTuple):
    """A durable object, not yet claimed.

    :param item: where it lies.
    :param head: its UIDs.
    :param is_ours: it came over an association that we opened, so it can only be meant for us. What comes to a receiver
        may be the straggler of another retrieval.
    """

    item: SpooledObject
    head: Head
    is_ours: bool


class Reception:
    """A writer of a spool, and the queue of what it wrote.

    :param spool: where objects are received.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._queue: queue.SimpleQueue[Received] = queue.SimpleQueue()
        #: For a receiver.
        self.sink = SpoolSink(spool, on_received=lambda item, head: self._queue.put(Received(item, head, False)))
        #: For C-GET.
        self.own_sink = self.sink.telling(lambda item, head: self._queue.put(Received(item, head, True)))

    @property
    def owner(self) -> Owner:
        """The writer."""
        return self.sink.owner

    def drain(self) -> Iterator[Received]:
        """Give what arrived since the last call."""
        while True:
            try:
                yield self._queue.get_nowait()
            except queue.Empty:
                return

    def close(self) -> None:
        """Stop writing: what is not claimed is anybody's."""
        self.sink.close()
