"""The end of what nobody wants: objects that no retrieval claimed for the whole retention, and what dead tries left.

A claim is a rename out of ``new``, and a removal is one of a name in ``new``: of the two, one finds the object and the
other does not. What is claimed is never looked at, and of what was set aside as broken nothing is removed. Nothing in
``tmp`` of a writer that lives is touched (:meth:`~airflow_provider_varian.receiver.spool.Spool.sweep`).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver.file_meta import read_front
from airflow_provider_varian.receiver.head import DataSetError
from airflow_provider_varian.receiver.rounds import Rounds
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spooled import SpooledObject
from airflow_provider_varian.receiver.upkeep import Removed, UpkeepObserver

logger = logging.getLogger(__name__)

#: For how long an object waits for a retrieval. 14 days: a task that failed before a holiday finds after it what its
#: peer had sent; patient data that nobody asks for do not pile up without end.
RETENTION_SECONDS: Final = 14 * 86400.0
#: How often a sweeper looks. An hour: retention is days, and a full spool is told by its metrics, not by the sweeper.
INTERVAL_SECONDS: Final = 3600.0
#: Claims without a file, locks that nobody holds, and notes that are being written are left alone for as long: their
#: try may have begun just now.
_DEAD_SECONDS: Final = 3600.0
_DAY: Final = 86400.0
_STOP_SECONDS: Final = 10.0
#: As :class:`airflow_provider_varian.retrieval.wanted.SpoolDocuments` names what it is writing.
_NOTE: Final = re.compile(r"\.[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did.

    :param removed: objects that nobody had claimed in time.
    :param fragments: of dead writers, never acknowledged.
    :param claims: folders of retrievals with nothing left in them.
    :param locks: of retrievals that do not run.
    :param notes: of what retrievals wait for, which a kill cut off before they had their name.
    """

    removed: int = 0
    fragments: int = 0
    claims: int = 0
    locks: int = 0
    notes: int = 0


class Sweeper:
    """Sweeps a spool now and then, in a thread of its own.

    :param spool: the spool.
    :param retention_seconds: for how long an object waits for a retrieval, from its last byte on; 0: for ever.
    :param observer: is told of each object that is removed.
    :param interval_seconds: how often.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        retention_seconds: float = RETENTION_SECONDS,
        observer: UpkeepObserver | None = None,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._spool = spool
        self._retention_seconds = retention_seconds
        self._observer = observer or UpkeepObserver()
        self._interval_seconds = interval_seconds
        self._trouble: str | None = None
        self._rounds = Rounds(self._round, name="dicom-sweep")

    def start(self) -> None:
        """Sweep now, and then again and again."""
        self._rounds.start()

    def stop(self) -> None:
        """End; an object that is being removed is removed. May be called twice."""
        self._rounds.stop(_STOP_SECONDS)

    def trouble(self) -> str | None:
        """Return in words why the last sweep did not come to its end; ``None`` when it did."""
        return self._trouble

    def sweep(self) -> Swept:
        """Sweep once.

        :raises ReceiverUnavailableError: when the spool cannot be used.
        """
        fragments = self._spool.sweep()
        with self._spool.usable():
            removed = self._remove_old() if self._retention_seconds > 0 else 0
            return Swept(
                removed=removed,
                fragments=fragments,
                claims=self._close_claims(),
                locks=self._open_locks(),
                notes=self._remove_notes(),
            )

    def _round(self) -> float:
        try:
            self.sweep()
        except ReceiverUnavailableError as error:
            self._trouble = f"the spool could not be swept: {error.explanation}"
            logger.error("Sweep: %s", error)
        else:
            self._trouble = None
        return self._interval_seconds

    def _remove_old(self) -> int:
        removed = 0
        for item in self._spool.unclaimed():
            if self._rounds.is_stopping:
                break
            with contextlib.suppress(FileNotFoundError):  # claimed in this moment: theirs
                found = item.path.lstat()
                age = time.time() - found.st_mtime
                if stat.S_ISREG(found.st_mode) and age > self._retention_seconds:
                    self._remove(item, size=found.st_size, age=age)
                    removed += 1
        return removed

    def _remove(self, item: SpooledObject, *, size: int, age: float) -> None:
        sop_class, study = _read(item)
        item.path.unlink()
        logger.warning(
            "Spool %s: removed %s, which nobody claimed in the %.1f days since it was received",
            self._spool.root,
            item.sop_instance_uid,
            age / _DAY,
        )
        self._observer.removed(
            Removed(
                sop_instance_uid=item.sop_instance_uid,
                sop_class_uid=sop_class,
                study_instance_uid=study,
                size=size,
                age_seconds=age,
            )
        )

    def _close_claims(self) -> int:
        """Remove the empty folders of retrievals of which no try runs."""
        closed = 0
        for folder in _old(self._spool, is_folder=True):
            with _held(folder.with_suffix(".lock"), create=True) as is_ours, contextlib.suppress(OSError):
                if is_ours:
                    folder.rmdir()  # says no when something is in it
                    closed += 1
        return closed

    def _open_locks(self) -> int:
        """Remove the lock files that killed tries left."""
        opened = 0
        for path in _old(self._spool, is_folder=False):
            with _held(path, create=False) as is_ours:
                opened += is_ours
        return opened

    def _remove_notes(self) -> int:
        """Remove what a kill left of a note in ``wanted``: its name begins with a point until it is whole."""
        oldest = time.time() - _DEAD_SECONDS
        with os.scandir(self._spool.wanted) as found:
            left = [entry.path for entry in found if _NOTE.fullmatch(entry.name) and _is_old(entry, oldest)]
        for path in left:
            Path(path).unlink(missing_ok=True)
        return len(left)


def _is_old(entry: os.DirEntry[str], oldest: float) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_mtime < oldest
    except FileNotFoundError:
        return False  # it has its name by now


def sweep_if_due(spool: Spool, *, retention_seconds: float = RETENTION_SECONDS) -> Swept | None:
    """Sweep a spool that has no sweeper, as those of tasks have none: at most once an hour, whoever asks.

    Never one in which a standing receiver has ever run, running now or not: how long that one keeps what nobody claims
    is not known here, and what it removes is in its audit trail and its metrics. When a sweep was done is told by the
    time of the spool's lock file. Costs a look at that when it was done lately.

    :param spool: the spool.
    :param retention_seconds: as of :class:`Sweeper`.
    :return: what was done; ``None`` when it was done lately, the spool is new, or it is a standing receiver's.
    """
    stamp = spool.root / "lock"
    try:
        if spool.has_ever_stood():
            return None
        age = time.time() - stamp.stat().st_mtime
        if 0 <= age < INTERVAL_SECONDS:
            return None
        os.utime(stamp)
        return Sweeper(spool, retention_seconds=retention_seconds).sweep()
    except FileNotFoundError:
        return None
    except (OSError, ReceiverUnavailableError) as error:
        # What the task is there for does not depend on it, and would say by itself that the spool cannot be used.
        logger.warning("Spool %s could not be swept: %s", spool.root, error)
        return None


def _old(spool: Spool, *, is_folder: bool) -> list[Path]:
    """Return the claims, or the locks of claims, that nobody has changed lately."""
    oldest = time.time() - _DEAD_SECONDS
    with os.scandir(spool.root / "claimed") as found:
        return [
            Path(entry.path)
            for entry in found
            if entry.is_dir(follow_symlinks=False) == is_folder
            and (is_folder or entry.name.endswith(".lock"))
            and entry.stat(follow_symlinks=False).st_mtime < oldest
        ]


@contextlib.contextmanager
def _held(path: Path, *, create: bool) -> Iterator[bool]:
    """Hold a retrieval's lock, and remove its file in the end; say whether it could be had."""
    try:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        yield False
        return
    try:
        if not _locked(descriptor, path):
            yield False
            return
        try:
            yield True
        finally:
            # As its owner does it: removed while it is held, so who has opened it meanwhile sees that it is not theirs.
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _read(item: SpooledObject) -> tuple[str, str]:
    """Return SOP class and study of an object; what its file does not say is empty."""
    try:
        with item.path.open("rb") as file:
            meta, head = read_front(file)
    except DataSetError:
        return "", ""
    return meta.sop_class_uid, head.study_instance_uid or ""
