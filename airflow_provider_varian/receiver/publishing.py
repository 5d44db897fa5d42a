"""Objects of a spool, brought to a store that workers on other hosts read.

::

    {store}/objects/{shard}/{name}        as in the spool: new/{shard}/{name}
    {store}/claims/{name}/{retrieval ID}  written by a retrieval that has a verified copy of its own
    {spool}/published/{store}/...         our notes of what we brought there (:mod:`.published`)

Each object is written once to its final name and read back; it stays in ``new`` until somebody claims it, here by a
rename or there by a claim, or until it is swept. What has left ``new`` is removed from the store. A note is made
before anything is written there, so nothing of ours lies in the store without one, and a kill at any moment is made
good by the next round. Several receivers may publish to one store: each touches only what it has a note of.

The receiver knows of stores what :class:`PublishedStore` says;
:class:`airflow_provider_varian.retrieval.destination.Destination` is one.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError, DicomError
from airflow_provider_varian.receiver.observer import AssociationFacts, Observer
from airflow_provider_varian.receiver.published import Note, Notes, State, Unpublished
from airflow_provider_varian.receiver.rounds import Rounds
from airflow_provider_varian.receiver.spool import Spool, SpooledObject, spooled
from airflow_provider_varian.receiver.upkeep import UpkeepObserver

logger = logging.getLogger(__name__)

OBJECTS: Final = PurePosixPath("objects")
CLAIMS: Final = PurePosixPath("claims")

#: How often the store is asked for claims. 30 s: one listing, and a claimed object is in nobody's way.
CLAIMS_SECONDS: Final = 30.0
#: For how long after its object a claim is kept, so that a slower retrieval sees why it is gone.
CLAIMS_KEPT_SECONDS: Final = 3600.0
#: How long after an object the look for what is new begins: while many come, once for all of them.
_GATHER_SECONDS: Final = 1.0
#: Objects of one look: enough that looks cost little beside uploads, few enough to be held in memory and to be old.
_BATCH: Final = 1000
#: Waits after the store, or an object, failed: doubled from the first to the last.
_FIRST_WAIT_SECONDS: Final = 1.0
_LAST_WAIT_SECONDS: Final = 300.0
#: Failures of objects one after the other that mean that the store is down, not that something is wrong with one.
_FAILURES_OF_STORE: Final = 2
_LATER_SECONDS: Final = 60.0
_MAXIMUM_LATER: Final = 1000
_STOP_SECONDS: Final = 15.0


class PublishedStore(Protocol):
    """What is needed of a store. Errors are ``DestinationWriteError``; paths are relative to its root."""

    @property
    def uri(self) -> str:
        """The root as text."""

    def publish(self, source: Path, relative: PurePosixPath, *, sha256: str) -> bool:
        """Write a file once, whole, read it back; False when something is there already."""

    def size(self, relative: PurePosixPath) -> int | None:
        """Return how many bytes are there; ``None`` when nothing is."""

    def remove(self, relative: PurePosixPath, *, sha256: str) -> bool:
        """Remove a file; False when something else, or nothing, is there."""

    def local_copy(self, relative: PurePosixPath) -> AbstractContextManager[Path]:
        """Give what is there as a local file."""

    def names_beside(self, path: PurePosixPath, prefix: str) -> list[PurePosixPath]:
        """Return the files in the folder of a path whose names start with ``prefix``."""

    def read_text(self, relative: PurePosixPath) -> str | None:
        """Return a text file; ``None`` when nothing is there."""

    def folders_in(self, relative: PurePosixPath) -> list[str]:
        """Return the names of the folders in a folder."""

    def drop_folder(self, relative: PurePosixPath) -> None:
        """Remove an empty folder, where the store has folders."""


class Publisher(Observer):
    """Brings what lies in a spool to a store, oldest first, in a thread of its own.

    :param spool: the spool.
    :param store: where to.
    :param observer: is told what came of it.
    """

    def __init__(self, spool: Spool, store: PublishedStore, *, observer: UpkeepObserver | None = None) -> None:
        self._spool = spool
        self._store = store
        self._observer = observer or UpkeepObserver()
        self._notes = Notes(spool, store.uri)
        self._unpublished = Unpublished(spool, self._notes)
        self._rounds = Rounds(self._round, name="dicom-publish")
        self._claims_at: float | None = None
        self._failures = 0
        self._since = ""
        self._why = ""
        self._later: dict[str, float] = {}
        self._lock: int | None = None
        self.backlog = 0

    @property
    def troubled(self) -> bool:
        """Whether the store does not take objects."""
        return self._failures >= _FAILURES_OF_STORE

    def trouble(self) -> str | None:
        """Return in words what is wrong with the store; ``None`` when it takes objects."""
        if not self.troubled:
            return None
        return f"{self._store.uri} has taken nothing since {self._since}, {self.backlog} objects wait: {self._why}"

    def start(self) -> None:
        """Begin to publish."""
        self._rounds.start()

    def stop(self) -> None:
        """End. An upload that takes too long is left alone, and the next start goes on with it. May be called twice."""
        if not self._rounds.stop(_STOP_SECONDS):
            logger.warning("Publishing to %s does not end in time; the next start goes on with it", self._store.uri)
        elif self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def stored(
        self, facts: AssociationFacts, request: StoreRequest, size: int, seconds: float, study_instance_uid: str = ""
    ) -> None:
        """Look soon; the receiver calls it."""
        self._rounds.wake()

    def run_once(self) -> bool:
        """Follow claims, if it is time, and publish one batch; say whether more waits."""
        answered = self._ask()
        batch = self._look()
        if not batch and answered:
            self._well()
        for item in batch:
            if self._rounds.is_stopping or (not self._publish(item) and self.troubled):
                break
        return len(batch) == _BATCH

    def _ask(self) -> bool:
        """Follow claims, if it is time; say whether the store answered."""
        now = time.monotonic()
        if self._claims_at is not None and now - self._claims_at < CLAIMS_SECONDS:
            return False
        self._claims_at = now
        try:
            self._follow()
        except (ConfigurationError, DestinationWriteError) as error:
            self._ill(error)
            return False
        return True

    def _round(self) -> float:
        self._rounds.pause(_GATHER_SECONDS)
        try:
            if self._lock is None and (lock := self._notes.lock()) is not None:
                self._lock = lock
            if self._lock is None:
                return CLAIMS_SECONDS  # another receiver of this spool does it; ours takes over when that has ended
            more = self.run_once()
        except OSError as error:
            logger.error("Publishing: the spool cannot be used: %s", error.strerror or type(error).__name__)
            self._observer.publish_failed("spool")
            return _LAST_WAIT_SECONDS
        if self.troubled:
            # Not woken by what arrives: pause() is ended by stop() alone.
            self._rounds.pause(
                min(_FIRST_WAIT_SECONDS * 2 ** (self._failures - _FAILURES_OF_STORE), _LAST_WAIT_SECONDS)
            )
            return 0.0
        return 0.0 if more else CLAIMS_SECONDS

    def _look(self) -> list[SpooledObject]:
        """Return the oldest objects that are not published, and count all of them."""
        counted = 0

        def waiting() -> Iterator[tuple[float, str, SpooledObject]]:
            nonlocal counted
            free: dict[str, bool] = {}
            now = time.monotonic()
            for item in self._unpublished:
                if not self._is_free(item, free):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    written = item.path.lstat().st_mtime
                    counted += 1
                    if self._later.get(item.path.name, 0.0) <= now:
                        yield written, item.path.name, item

        batch = heapq.nsmallest(_BATCH, waiting())
        self.backlog = counted
        return [item for _, _, item in batch]

    def _is_free(self, item: SpooledObject, free: dict[str, bool]) -> bool:
        """Say whether an object is not that of a retrieval which receives it itself."""
        if item.owner not in free:
            free[item.owner] = self._spool.may_claim(item)
        return free[item.owner]

    def _publish(self, item: SpooledObject) -> bool:
        """Bring one object to the store; False when that failed."""
        relative = _final(item.path)
        try:
            with item.path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                found = os.fstat(file.fileno())
        except FileNotFoundError:
            return True  # claimed in this moment
        except OSError as error:
            logger.error("Publishing: %s cannot be read: %s", item.path, error.strerror or type(error).__name__)
            self._observer.publish_failed("spool")
            self._put_off(item)
            return True
        note = self._notes.begin(item, sha256)
        try:
            if not self._store.publish(item.path, relative, sha256=sha256):
                self._compare(relative, size=found.st_size, sha256=sha256)
        except (ConfigurationError, DestinationWriteError) as error:
            if not item.path.exists():
                return True  # claimed while it was read; what is in the store of it is removed by its note
            self._observer.publish_failed("store")
            self._ill(error)
            self._put_off(item)
            return False
        note.becomes(State.PUBLISHED)
        self._well()
        self.backlog = max(0, self.backlog - 1)
        self._later.pop(item.path.name, None)
        self._observer.published(item.path.name, found.st_size, time.time() - found.st_mtime)
        return True

    def _compare(self, relative: PurePosixPath, *, size: int, sha256: str) -> None:
        """Compare what is in the store with what should be there: a killed publisher may have brought it."""
        if self._store.size(relative) != size or self._sha256_in_store(relative) != sha256:
            raise DestinationWriteError(
                f"{relative} in {self._store.uri} is not what was received",
                step="publish",
                hint="Look at it, and remove it there; what was received is still in the spool",
            )

    def _sha256_in_store(self, relative: PurePosixPath) -> str:
        with self._store.local_copy(relative) as path, path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _follow(self) -> None:
        """Let go of what was claimed in the store, and remove from it what has left ``new``."""
        for name in self._store.folders_in(CLAIMS):
            item = spooled(Path(name))
            if item is None:
                continue
            shard = self._spool.shard(item.sop_instance_uid)
            note = self._notes.of_shard(shard.name).get(name)
            if note is None or note.state is not State.PUBLISHED or not (shard / name).exists():
                continue
            if self._store.names_beside(CLAIMS / name / "x", ""):
                (shard / name).unlink(missing_ok=True)
                logger.info("Published object %s was claimed", item.sop_instance_uid)
        for shard_name in self._notes.shards():
            for note in self._notes.of_shard(shard_name).values():
                if self._rounds.is_stopping:
                    return
                if note.state is State.GONE:
                    self._forget_claims(note)
                elif not (self._spool.new / shard_name / note.name).exists():
                    self._withdraw(note)

    def _withdraw(self, note: Note) -> None:
        """Remove from the store what has left ``new``: claimed, or swept."""
        relative = OBJECTS / note.folder.name / note.name
        if self._store.size(relative) is not None:
            sha256 = note.sha256() or self._sha256_in_store(relative)
            if not self._store.remove(relative, sha256=sha256):
                logger.error("%s in %s is not what was published, and is left there", relative, self._store.uri)
        note.becomes(State.GONE)

    def _forget_claims(self, note: Note) -> None:
        """Remove the claims of an object that has been gone for a while."""
        if note.age_seconds < CLAIMS_KEPT_SECONDS:
            return
        folder = CLAIMS / note.name
        for path in self._store.names_beside(folder / "x", ""):
            text = self._store.read_text(path)
            if text is not None:
                self._store.remove(path, sha256=hashlib.sha256(text.encode("utf-8")).hexdigest())
        self._store.drop_folder(folder)
        note.forget()

    def _put_off(self, item: SpooledObject) -> None:
        """Let others come before an object that alone fails; all are tried again when the store was down."""
        if self.troubled or len(self._later) >= _MAXIMUM_LATER:
            self._later.clear()
        else:
            self._later[item.path.name] = time.monotonic() + _LATER_SECONDS

    def _well(self) -> None:
        if self.troubled:
            logger.info("Publishing: %s takes objects again", self._store.uri)
        self._failures = 0

    def _ill(self, error: DicomError) -> None:
        was_troubled = self.troubled
        # No more than what the longest wait needs.
        self._failures = min(self._failures + 1, 32)
        self._why = error.explanation
        if self.troubled and not was_troubled:
            self._since = time.strftime("%Y-%m-%d %H:%M:%S %z")
            logger.error("Publishing: %s. It is tried again; receiving goes on", error.explanation)


def _final(path: Path) -> PurePosixPath:
    return OBJECTS / path.parent.name / path.name
