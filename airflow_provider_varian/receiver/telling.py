"""Says in a store how far its publisher is; see :mod:`.progress`."""

from __future__ import annotations

import hashlib
import logging
import time
from typing import Final

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError, ReceiverUnavailableError
from airflow_provider_varian.receiver.backlog import Backlog
from airflow_provider_varian.receiver.progress import FOLDER, SAID_SECONDS, SUFFIX, Progress, bounded
from airflow_provider_varian.receiver.published import Notes
from airflow_provider_varian.receiver.published_store import PublishedStore
from airflow_provider_varian.receiver.spool import Spool

logger = logging.getLogger(__name__)

#: Who has said nothing for so long publishes there no more; who looks for objects reads each document again and again.
_LEFT_SECONDS: Final = 86400.0


class Telling:
    """The document of one publisher. Used from one thread.

    :param spool: tells what is arriving.
    :param store: where it is written.
    :param notes: of the store.
    :param backlog: tells what waits.
    """

    def __init__(self, spool: Spool, store: PublishedStore, notes: Notes, backlog: Backlog) -> None:
        self._spool = spool
        self._store = store
        self._notes = notes
        self._backlog = backlog
        self._said: tuple[object, ...] = ()
        self._tried: float | None = None
        self._is_failing = False
        self._has_swept = False

    def tell(self, *, brought: int) -> None:
        """Write it, when there is something new to say, or the last time is a while ago.

        :param brought: how many objects were brought to the store by now.
        """
        backlog, now = self._backlog, time.monotonic()
        count, arriving = backlog.count, self._arriving()
        # While something waits, also that it still does: whoever waits for it goes on.
        news = (count, arriving, brought, now if count else None)
        if self._tried is not None and now - self._tried < SAID_SECONDS and (self._is_failing or news == self._said):
            return
        said = Progress(
            written=time.time(), until=backlog.until(), waiting=count, since=backlog.since(), arriving=arriving
        )
        self._tried = now
        try:
            self._write(said)
        except (ConfigurationError, DestinationWriteError) as error:
            if not self._is_failing:
                logger.warning("Publishing: how far it is cannot be told in the store: %s", error.explanation)
            self._is_failing = True
        else:
            self._said, self._is_failing = news, False

    def _write(self, said: Progress) -> None:
        ours = FOLDER / f"{self._notes.publisher}{SUFFIX}"
        self._store.write_text(ours, said.text())
        if self._has_swept:
            return
        self._has_swept = True
        for path in self._store.names_beside(ours, ""):
            text = self._store.read_text(path) if path != ours and path.suffix == SUFFIX else None
            other = Progress.parsed(text) if text is not None else None
            if text is not None and other is not None and said.written - other.written > _LEFT_SECONDS:
                self._store.remove(path, sha256=hashlib.sha256(text.encode("utf-8")).hexdigest())

    def _arriving(self) -> tuple[str, ...]:
        """Return what is being received, that which was begun first before the rest."""
        try:
            return bounded(receipt.sop_instance_uid for receipt in self._spool.arriving())
        except ReceiverUnavailableError:
            return ()  # what is wrong with the spool, others say
