"""What leaves a store: objects that were claimed there, or have left the spool another way, and claims of long ago."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

from airflow_provider_varian.receiver.crew import Work
from airflow_provider_varian.receiver.published import Note, Notes, State
from airflow_provider_varian.receiver.published_store import CLAIMS, OBJECTS, PublishedStore, sha256_in
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spooled import spooled

logger = logging.getLogger(__name__)

#: For how long after its object a claim is kept, so that a slower retrieval sees why it is gone.
CLAIMS_KEPT_SECONDS: Final = 3600.0


class Withdrawal:
    """Finds what has to leave the store, by our notes of what we brought there.

    :param spool: the spool.
    :param store: the store.
    :param notes: of the store.
    """

    def __init__(self, spool: Spool, store: PublishedStore, notes: Notes) -> None:
        self._spool = spool
        self._store = store
        self._notes = notes

    def look(self, busy: Collection[str], size: int) -> list[tuple[str, Work]]:
        """Ask the store for claims, and return what there is to do, each under the name of its object.

        :param busy: names with which somebody is at work. As of a moment before the look.
        :param size: how many at most.
        :raises DestinationWriteError: when the store does not answer.
        """
        claimed = set(self._store.folders_in(CLAIMS))
        return list(islice(self._work(busy, claimed), size))

    def _work(self, busy: Collection[str], claimed: Collection[str]) -> Iterator[tuple[str, Work]]:
        for note in self._notes.all():
            if note.name in busy:
                continue
            if note.state is State.GONE:
                if note.age_seconds >= CLAIMS_KEPT_SECONDS:
                    yield note.name, functools.partial(self._forget, note)
            elif not (self._spool.new / note.folder.name / note.name).exists():
                yield note.name, functools.partial(self._withdraw, note)
            elif note.state is State.PUBLISHED and note.name in claimed:
                yield note.name, functools.partial(self._release, note)

    def _release(self, note: Note) -> None:
        """Let go of an object, if somebody has claimed it in the store."""
        if self._store.names_beside(CLAIMS / note.name / "x", ""):
            path = self._spool.new / note.folder.name / note.name
            path.unlink(missing_ok=True)
            if (item := spooled(path)) is not None:
                logger.info("Published object %s was claimed", item.sop_instance_uid)
            self._withdraw(note)

    def _withdraw(self, note: Note) -> None:
        """Remove from the store what has left ``new``: claimed, or swept."""
        relative = OBJECTS / note.folder.name / note.name
        if self._store.size(relative) is not None:
            sha256 = note.sha256() or sha256_in(self._store, relative)
            if not self._store.remove(relative, sha256=sha256):
                logger.error("%s in %s is not what was published, and is left there", relative, self._store.uri)
        note.becomes(State.GONE)

    def _forget(self, note: Note) -> None:
        """Remove the claims of an object that has been gone for a while."""
        folder: PurePosixPath = CLAIMS / note.name
        for path in self._store.names_beside(folder / "x", ""):
            text = self._store.read_text(path)
            if text is not None:
                self._store.remove(path, sha256=hashlib.sha256(text.encode("utf-8")).hexdigest())
        self._store.drop_folder(folder)
        note.forget()
