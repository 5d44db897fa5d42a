"""Objects of a spool, brought to a store that workers on other hosts read.

::

    {store}/objects/{shard}/{name}        as in the spool: new/{shard}/{name}
    {store}/claims/{name}/{retrieval ID}  written by a retrieval that has a verified copy of its own
    {store}/published/{spool}.json        how far we are (:mod:`.progress`)
    {spool}/published/{store}/...         our notes of what we brought there (:mod:`.published`)

Each object is written once to its final name and read back; it stays in ``new`` until somebody claims it, here by a
rename or there by a claim, or until it is swept. What has left ``new`` is removed from the store. A note is made
before anything is written there, so nothing of ours lies in the store without one, and a kill at any moment is made
good by the next round. Several receivers may publish to one store: each touches only what it has a note of.

One thread looks what there is to do, and says how far it is; a few others do it, one object each.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError, DicomError
from airflow_provider_varian.receiver.backlog import Backlog
from airflow_provider_varian.receiver.crew import Crew, Work
from airflow_provider_varian.receiver.observer import AssociationFacts, Observer
from airflow_provider_varian.receiver.published import Notes, State
from airflow_provider_varian.receiver.published_store import OBJECTS, OneAtATime, PublishedStore, sha256_in
from airflow_provider_varian.receiver.rounds import Rounds
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spooled import SpooledObject
from airflow_provider_varian.receiver.telling import Telling
from airflow_provider_varian.receiver.upkeep import UpkeepObserver
from airflow_provider_varian.receiver.withdrawing import Withdrawal

logger = logging.getLogger(__name__)

#: Objects at once. An object is some six requests, one after the other, and little work in between: four threads bring
#: nearly four times as much as one, about twenty a second where the store answers in 30 ms. What they read and hash,
#: they take from the processor that receives; so not many more.
THREADS: Final = 4
#: s3fs has ten connections for all threads.
MAXIMUM_THREADS: Final = 10
#: Objects of this size come one at a time. s3fs sends them in parts, and holds ten of 50 MB in memory; how many
#: requests there are does not matter.
_LARGE_BYTES: Final = 100 << 20
#: How often the store is asked for claims. 30 s: one listing, and a claimed object is in nobody's way.
CLAIMS_SECONDS: Final = 30.0
#: How long after an object the look for what is new begins: while many come, once for all of them.
_GATHER_SECONDS: Final = 1.0
#: And how long is waited for what is being done, before one looks again and says how far it is.
_LOOK_SECONDS: Final = 1.0
#: How often it is looked what is arriving, while nothing has to be done: one listing of the spool's.
_IDLE_SECONDS: Final = 5.0
#: Objects whose turn it is: enough that looks cost little beside uploads, few enough to be held in memory and be old.
_BATCH: Final = 1000
#: One looks again when no more than so many of them have not been begun: what a few seconds need.
_FEW: Final = 100
#: Waits after the store, or an object, failed: doubled from the first to the last.
_FIRST_WAIT_SECONDS: Final = 1.0
_LAST_WAIT_SECONDS: Final = 300.0
#: Failures of objects one after the other that mean that the store is down, not that something is wrong with one.
_FAILURES_OF_STORE: Final = 2
_STOP_SECONDS: Final = 15.0


class Publisher(Observer):
    """Brings what lies in a spool to a store, oldest first, in threads of its own.

    :param spool: the spool.
    :param store: where to.
    :param observer: is told what came of it.
    :param again: returns the same store anew, for one that several threads may use at the same time, each an object of
        its own. Without it one object at a time is published, and whatever else is asked of the store waits for it.
    :param threads: how many objects at once, 1 to 10, where ``again`` is given. 4: each object is several requests one
        after the other, which a store takes its time to answer; more would take from the processor what receiving
        needs.
    :raises ConfigurationError: when it is another number of threads.
    """

    def __init__(
        self,
        spool: Spool,
        store: PublishedStore,
        *,
        observer: UpkeepObserver | None = None,
        again: Callable[[], PublishedStore] | None = None,
        threads: int = THREADS,
    ) -> None:
        if not 1 <= threads <= MAXIMUM_THREADS:
            raise ConfigurationError(
                f"{threads} objects at once cannot be published", step="publish", hint=f"1 to {MAXIMUM_THREADS} can"
            )
        if again is None:
            store = OneAtATime(store)
        #: For who looks; and one for each thread of the crew, as many as are at rest.
        self._store = store
        self._stores = deque([store] if again is None else [again() for _ in range(threads)])
        self._observer = observer or UpkeepObserver()
        self._notes = Notes(spool, store.uri)
        self._backlog = Backlog(spool, self._notes)
        self._withdrawal = Withdrawal(spool, store, self._notes)
        self._telling = Telling(spool, store, self._notes, self._backlog)
        self._rounds = Rounds(self._round, name="dicom-publish")
        self._crew = Crew(len(self._stores), name="dicom-publish-one")
        self._claims_at: float | None = None
        #: What the threads of the crew change, too.
        self._changing = threading.Lock()
        self._large = threading.Lock()
        self._failures = 0
        self._brought = 0
        self._since = ""
        self._why = ""
        self._held: int | None = None

    @property
    def backlog(self) -> int:
        """How many objects wait to be published."""
        return self._backlog.count

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
        end = time.monotonic() + _STOP_SECONDS
        has_ended = self._rounds.stop(_STOP_SECONDS)
        self._crew.drop()
        try:
            has_ended = self._crew.wait(max(0.0, end - time.monotonic())) and has_ended
        except Exception:
            logger.exception("Publishing failed unexpectedly")
        if not has_ended:
            logger.warning("Publishing to %s does not end in time; the next start goes on with it", self._store.uri)
        elif self._held is not None:
            os.close(self._held)
            self._held = None

    def stored(
        self, facts: AssociationFacts, request: StoreRequest, size: int, seconds: float, study_instance_uid: str = ""
    ) -> None:
        """Look soon; the receiver calls it."""
        self._rounds.wake()

    def run_once(self) -> bool:
        """Follow claims, if it is time, and publish one batch; say whether more waits."""
        more = self._look()
        self._crew.wait()
        self._tell()
        return more

    def _round(self) -> float:
        self._rounds.pause(_GATHER_SECONDS)
        try:
            if self._held is None:
                self._held = self._notes.lock()
            if self._held is None:
                return CLAIMS_SECONDS  # another receiver of this spool does it; ours takes over when that has ended
            more = self._look()
            is_done = self._crew.wait(_LOOK_SECONDS)
            self._tell()
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
        return 0.0 if more or not is_done else min(_IDLE_SECONDS, CLAIMS_SECONDS)

    def _look(self) -> bool:
        """Have done what there is to do, as far as it is its turn; say whether more waits."""
        probe = self._backlog.look(self._crew.names(), 1) if self.troubled else []
        if probe and not self._publish(probe[0], self._store, in_crew=False):
            return True
        now = time.monotonic()
        if self._claims_at is None or now - self._claims_at >= CLAIMS_SECONDS:
            self._claims_at = now
            self._follow()
        if not self.troubled and (begun := self._crew.waiting(urgent=True)) <= _FEW:
            for item in self._backlog.look(self._crew.names(), max(0, _BATCH - begun)):
                self._hand(item.path.name, functools.partial(self._publish_one, item), urgent=True)
        return self._backlog.has_more

    def _follow(self) -> None:
        """Have removed from the store what was claimed, or has left ``new`` another way."""
        if self._crew.waiting(urgent=False):
            return
        try:
            found = self._withdrawal.look(self._crew.names(), _BATCH)
        except (ConfigurationError, DestinationWriteError) as error:
            self._ill(error, asked_by_itself=True)
            return
        if self.troubled and not self.backlog:
            self._well()
        for name, work in found:
            self._hand(name, functools.partial(self._withdraw_one, work), urgent=False)

    def _hand(self, name: str, work: Work, *, urgent: bool) -> None:
        if self._may_begin():
            self._crew.hand(name, work, urgent=urgent)

    def _may_begin(self) -> bool:
        """Say whether anything is to be begun: not when all is to end, nor while the store is down."""
        return not (self._rounds.is_stopping or self.troubled)

    def _withdraw_one(self, work: Work) -> None:
        if not self._may_begin():
            return
        try:
            work()
        except (ConfigurationError, DestinationWriteError) as error:
            self._ill(error)

    def _publish_one(self, item: SpooledObject) -> None:
        if not self._may_begin():
            return
        store = self._stores.popleft()
        try:
            self._publish(item, store, in_crew=True)
        finally:
            self._stores.append(store)

    def _publish(self, item: SpooledObject, store: PublishedStore, *, in_crew: bool) -> bool:
        """Bring one object to the store; False when that failed."""
        name, relative = item.path.name, _final(item.path)
        try:
            with item.path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                found = os.fstat(file.fileno())
        except FileNotFoundError:
            self._backlog.done(name)  # claimed in this moment
            return True
        except OSError as error:
            logger.error("Publishing: %s cannot be read: %s", item.path, error.strerror or type(error).__name__)
            self._observer.publish_failed("spool")
            self._backlog.put_off(name)
            return True
        note = self._notes.begin(item, sha256)
        try:
            with self._large if found.st_size >= _LARGE_BYTES else contextlib.nullcontext():
                is_there = _bring(store, item.path, relative, size=found.st_size, sha256=sha256)
        except (ConfigurationError, DestinationWriteError) as error:
            if not item.path.exists():
                self._backlog.done(name)
                return True  # claimed while it was read; what is in the store of it is removed by its note
            self._observer.publish_failed("store")
            self._backlog.put_off(name)
            self._ill(error, asked_by_itself=not in_crew)
            return False
        self._well()
        if not is_there:
            self._observer.publish_failed("store")
            if self._backlog.put_off(name):
                logger.error(
                    "Publishing: %s in %s is not what was received, and is left there. Look at it, and remove it; what "
                    "was received is still in the spool",
                    relative,
                    self._store.uri,
                )
            return True
        note.becomes(State.PUBLISHED)
        self._backlog.done(name)
        with self._changing:
            self._brought += 1
        self._observer.published(name, found.st_size, time.time() - found.st_mtime)
        return True

    def _tell(self) -> None:
        if not self.troubled:
            self._telling.tell(brought=self._brought)

    def _well(self) -> None:
        with self._changing:
            was_troubled, self._failures = self.troubled, 0
        if was_troubled:
            logger.info("Publishing: %s takes objects again", self._store.uri)

    def _ill(self, error: DicomError, *, asked_by_itself: bool = False) -> None:
        """Note that the store failed.

        :param asked_by_itself: nothing else was asked of it at the same time: then it failed once more.
        """
        with self._changing:
            was_troubled = self.troubled
            if asked_by_itself or not was_troubled:
                # No more than what the longest wait needs.
                self._failures = min(self._failures + 1, 32)
            self._why = error.explanation
            has_begun = self.troubled and not was_troubled
            if has_begun:
                self._since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        if self.troubled:
            # It was not they who failed.
            self._backlog.put_off_none()
        if has_begun:
            logger.error("Publishing: %s. It is tried again; receiving goes on", error.explanation)


def _bring(store: PublishedStore, path: Path, relative: PurePosixPath, *, size: int, sha256: str) -> bool:
    """Write an object, unless something is there: a killed publisher may have brought it. False when it differs."""
    if store.publish(path, relative, sha256=sha256):
        return True
    return store.size(relative) == size and sha256_in(store, relative) == sha256


def _final(path: Path) -> PurePosixPath:
    return OBJECTS / path.parent.name / path.name
