"""Who writes into a spool: a folder for fragments for each writer, with a lock that tells whether it lives.

::

    tmp/{owner}/lock       held (``flock``) for as long as the writer lives; the kernel lets go of it when it is killed
    tmp/{owner}/standing   it receives for whoever asks, not for one retrieval of its own
    tmp/{owner}/tls        over TLS alone; made before ``standing``, so who sees that one knows about this one
    tmp/{owner}/{unique}   a fragment; named as its object will be, and it begins with the object's receipt
    standing               beside ``tmp``: a standing writer was here at some time

Standard library only: nothing here knows what an object is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Hexadecimal digits of a writer's name.
OWNER_DIGITS: Final = 12
_LOCK: Final = "lock"
_STANDING: Final = "standing"
_TLS: Final = "tls"
#: The living writers of this process, by name: their open locks, and which files those are.
_OURS: Final[dict[str, tuple[int, os.stat_result]]] = {}


@dataclass(frozen=True, slots=True)
class Writers:
    """The writers of one spool, living and dead.

    :param tmp: the spool's folder of fragments.
    """

    tmp: Path

    def enter(self, *, standing: bool, tls: bool = False) -> tuple[Path, int]:
        """Come to life: make a folder and lock it; return it with the open lock. The spool is locked by the caller.

        :param standing: it receives for whoever asks.
        :param tls: over TLS alone.
        """
        if standing:
            self._mark()
        folder = self.tmp / secrets.token_hex(OWNER_DIGITS // 2)
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for mark in [_TLS] * tls + [_STANDING] * standing:
            os.close(os.open(folder / mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _OURS[folder.name] = descriptor, os.fstat(descriptor)
        return folder, descriptor

    @staticmethod
    def leave(name: str, descriptor: int) -> None:
        """End: let go of the lock. The spool is locked by the caller."""
        _OURS.pop(name, None)
        os.close(descriptor)

    def has_ever_stood(self) -> bool:
        """Say whether a standing writer was here at some time, living or dead by now."""
        try:
            os.lstat(self._stood)
        except FileNotFoundError:
            return False
        return True

    @property
    def _stood(self) -> Path:
        return self.tmp.with_name(_STANDING)

    def _mark(self) -> None:
        """Note durably that a standing writer was here, before it receives anything."""
        os.close(os.open(self._stood, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        root = os.open(self.tmp.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(root)
        finally:
            os.close(root)

    def lives(self, name: str) -> bool:
        """Say whether a writer is still running: it holds the lock in its folder.

        Where that cannot be told, e.g. because this process has no descriptors left, it lives: what a dead one left
        can wait, and what a living one writes must not be removed.
        """
        if _is_ours(name):
            return True
        try:
            descriptor = os.open(self.tmp / name / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        try:
            # Shared: two processes that look at the same time must not take each other for the writer.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # locked by the writer, or it cannot be told
            return True
        finally:
            os.close(descriptor)
        return False

    def is_standing(self, name: str) -> bool:
        """Say whether a writer receives for whoever asks."""
        return (self.tmp / name / _STANDING).exists()

    def has_tls(self, name: str) -> bool:
        """Say whether a writer receives over TLS alone."""
        return (self.tmp / name / _TLS).exists()

    def standing(self) -> Iterator[str]:
        """Iterate over the names of the standing writers that live."""
        for name in os.listdir(self.tmp):
            if self.is_standing(name) and self.lives(name):
                yield name

    def fragments(self, name: str) -> list[Path]:
        """Return the files that a writer has begun."""
        try:
            names = sorted(os.listdir(self.tmp / name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [self.tmp / name / each for each in names if each not in {_LOCK, _STANDING, _TLS}]

    def sweep(self) -> int:
        """Remove the folders of dead writers; return how many fragments that were.

        The spool is locked by the caller.
        """
        swept = 0
        for name in sorted(os.listdir(self.tmp)):
            if not self.lives(name):
                swept += len(self.fragments(name))
                # Who claims looks for the folder without a lock of the spool's: it may be gone, and that is all right.
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(self.tmp / name)
        return swept


def _is_ours(name: str) -> bool:
    """Say whether a writer is one of this process that lives; asked of its open lock, so it needs no descriptor."""
    if (ours := _OURS.get(name)) is None:
        return False
    descriptor, lock = ours
    try:
        return os.path.samestat(os.fstat(descriptor), lock)
    except OSError:
        return False
