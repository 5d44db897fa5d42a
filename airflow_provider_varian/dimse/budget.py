"""The budget of associations: how many a peer holds at a time for all processes of one user on this machine.

A slot is an advisory lock on a small file (``flock``), so whoever is killed frees it, and nothing has to be cleaned up.
Several machines, and containers without a common temporary directory, are bounded by an Airflow pool.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import stat
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import ConfigurationError

log = logging.getLogger(__name__)


class Slot:
    """One of a peer's associations, for as long as it is not released.

    :param lock: what holds it; ``None`` where files cannot be locked, and nothing is counted.
    """

    def __init__(self, lock: _FileLock | None) -> None:
        self._lock = lock

    def release(self) -> None:
        """Give it back. May be called twice, and in a forked process, where it does nothing."""
        if self._lock is not None:
            self._lock.release()


class Line:
    """A place in the line of those who want an association with a peer.

    Only the first in line is given a slot, so that who asks again and again does not keep out who waits. Connections
    that set different budgets for one peer have a line each; the one with fewer waits for its own slots. Who stood in
    line has to :meth:`leave` it.

    :param peer: whom to call, and how many associations with it there may be.
    """

    def __init__(self, peer: Peer) -> None:
        self._name = _name_of(peer)
        self._limit = peer.max_associations
        self._place: _FileLock | None = None

    def take(self) -> Slot | None:
        """Return a slot if it is our turn and one is free; it may be asked again.

        :raises ConfigurationError: when the folder of the locks is not ours alone.
        """
        try:
            return self._take()
        except FileNotFoundError:
            return None  # somebody tidies the temporary directory: next time the folder is made anew
        except OSError as error:
            self.leave()
            _warn(error)
            return Slot(None)

    def leave(self) -> None:
        """Give up the place. May be called twice."""
        if self._place is not None:
            self._place.release()
            self._place = None

    def held_by_this_thread(self) -> bool:
        """Say whether the thread holds all slots itself, so that waiting for one would never end."""
        with _guard:
            mine = [lock for lock in _held if lock.thread == threading.get_ident()]
        return sum(lock.path.name.startswith(f"{self._name}.slot-") for lock in mine) >= self._limit

    def _take(self) -> Slot | None:
        folder = _folder()
        if self._place is None:
            self._place = _try(folder / f"{self._name}.line-{self._limit}")
        if self._place is None:
            return None
        for number in range(self._limit):
            lock = _try(folder / f"{self._name}.slot-{number}")
            if lock is not None:
                self.leave()
                return Slot(lock)
        return None


class _FileLock:
    """A lock on a file by a descriptor of its own, so that threads of one process count as well."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor: int | None = descriptor
        self.thread = threading.get_ident()

    def is_current(self) -> bool:
        """Say whether the file that is locked is the one that others find there."""
        if self.descriptor is None:
            return False
        ours = os.fstat(self.descriptor)
        with suppress(FileNotFoundError):
            there = self.path.lstat()
            return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
        return False

    def release(self) -> None:
        """Unlock, and leave no file behind."""
        with _guard:
            _held.discard(self)
            if self.descriptor is None:
                return
            # Before it is unlocked, so that nobody else can have it already; who waits for the old file sees
            # that it is gone.
            with suppress(OSError):
                if self.is_current():
                    self.path.unlink()
            # Said, because a process that was forked meanwhile may have the same lock by a copy of the descriptor.
            with suppress(OSError):
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            self.close()

    def close(self) -> None:
        """Close the descriptor: the lock, if there is one, ends with its last copy."""
        with _guard:
            _held.discard(self)
            descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)


#: All locks of this process, for :func:`_let_go`; held while a descriptor is opened, so that no fork falls between.
_held: Final[set[_FileLock]] = set()
_guard: Final = threading.RLock()


def _let_go() -> None:
    """Close what a forked process has inherited: a child that lives longer must not keep a slot."""
    for lock in list(_held):
        lock.close()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_let_go)


def _try(path: Path) -> _FileLock | None:
    """Lock a file; ``None`` when somebody else has it."""
    while True:
        with _guard:
            lock = _FileLock(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            _held.add(lock)
        try:
            fcntl.flock(lock.descriptor or 0, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        except BaseException:
            lock.close()
            raise
        if lock.is_current():
            return lock
        # Its last holder removed it, or a cleaner of old files: the lock is on nothing that others see.
        lock.close()


def _folder() -> Path:
    """Return the folder of the locks, one per user and machine, made if it is missing.

    :raises ConfigurationError: when it is a link, or somebody else's: they could keep us out, or watch us.
    """
    folder = Path(tempfile.gettempdir()) / f"varian-dicom-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{folder}, where associations are counted, is not a folder of this user",
            step="association",
            hint="Remove it, or let TMPDIR name another directory for temporary files",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def _name_of(peer: Peer) -> str:
    """Return the beginning of a peer's file names: a digest, since an AE title may hold anything but a backslash."""
    who = f"{peer.host.lower()}\n{peer.port}\n{peer.called_ae_title}"
    return hashlib.sha256(who.encode()).hexdigest()[:24]


def _warn(error: OSError) -> None:
    """Say once that nothing is counted here."""
    global _warned
    if not _warned:
        _warned = True
        log.warning(
            "max_associations has no effect here: files in %s cannot be locked (%s). Bound the tasks by a pool",
            tempfile.gettempdir(),
            errno.errorcode.get(error.errno or 0, type(error).__name__),
        )


_warned = False
