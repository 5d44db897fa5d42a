"""A destination on a file system of this machine: durable, atomic, never overwriting."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from airflow_provider_varian.errors import DestinationWriteError
from airflow_provider_varian.receiver.folders import sync_folder
from airflow_provider_varian.retrieval.verify import FileState, Given, sha256_of

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import Pause

#: What file systems without hard links answer.
_NO_HARD_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
#: What is answered where a file of elsewhere cannot have a name here.
_NOT_FROM_THERE: Final = (*_NO_HARD_LINKS, errno.EXDEV, errno.EACCES)
_TEMPORARY: Final = PurePosixPath(".dicom/tmp")
#: Held while one object takes the place of another, beside the temporary files.
_REPLACING: Final = "replacing.lock"
#: How long another process may hold it: it does for the moment in which it compares and renames.
_REPLACING_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
#: Temporary files that nobody has written to for so long were left by a killed process.
_LEFT_OVER_SECONDS: Final = 86400.0


class _Attributes(NamedTuple):
    """What a file has beside its content, and a new file gets from its folder, the umask and the process."""

    device: int
    user: int
    group: int
    mode: int
    #: Such as access lists and security labels; ``None`` where they cannot be told.
    extended: tuple[tuple[str, bytes], ...] | None

    @classmethod
    def of(cls, descriptor: int) -> _Attributes:
        """Read them."""
        found = os.fstat(descriptor)
        mode = stat.S_IMODE(found.st_mode)
        return cls(found.st_dev, found.st_uid, found.st_gid, mode, _extended(descriptor))


class LocalStore:
    """Files below a folder.

    :param root: the folder; created when the first object is published.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._swept = False
        #: What our new files are like; not yet known.
        self._new_file: _Attributes | None = None
        self._may_link = True
        #: Folders with entries that are not durable yet.
        self._unsynced: set[Path] = set()

    def uri(self, relative: PurePosixPath) -> str:
        """Return the absolute path."""
        return str(self._root / relative)

    def path(self, relative: PurePosixPath) -> Path:
        """Return the absolute path, after checking that no symbolic link leads out of the root.

        :raises DestinationWriteError: when one does.
        """
        path = self._root / relative
        if self._has_links(relative) and not path.resolve().is_relative_to(self._root.resolve()):
            raise DestinationWriteError(
                f"a path leads out of {self._root}", step="publish", hint="Remove the symbolic link in the destination"
            )
        return path

    def _has_links(self, relative: PurePosixPath) -> bool:
        """Say whether anything of a path below the root may lead elsewhere: without that it cannot lead out."""
        if relative.is_absolute() or ".." in relative.parts:
            return True
        path = str(self._root)
        for part in relative.parts:
            path = f"{path}/{part}"
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    return True
            except (FileNotFoundError, NotADirectoryError):
                return False  # nor is there anything below it
            except OSError:
                return True  # nobody can tell
        return False

    def size(self, relative: PurePosixPath) -> int | None:
        """Return the size of a regular file; None for anything else, a folder among it."""
        with self._using():
            try:
                found = self.path(relative).stat()
            except FileNotFoundError:
                return None
            return found.st_size if stat.S_ISREG(found.st_mode) else None

    def publish(
        self, source: Path, relative: PurePosixPath, sha256: str, *, given: Given | None = None, later: bool = False
    ) -> bool:
        """Give a file its final path durably; see :meth:`.destination.Destination.publish`."""
        with self._using():
            final = self.path(relative)
            is_new = not final.exists() and self._published(source, final, sha256, given)
            # Also where it was there already: whoever linked it may have died before its folder was synced, and the
            # caller lets go of its copy.
            if later:
                self._unsynced.add(final.parent)
            else:
                sync_folder(final.parent)
            return is_new

    def _published(self, source: Path, final: Path, sha256: str, given: Given | None) -> bool:
        make_folder(final.parent)
        linked = self._linked(source, final, given) if given is not None and self._may_link else None
        if linked is None:
            with self._temporary() as temporary:
                self._write(source, temporary, sha256)
                linked = _link(temporary, final)
        return linked

    def sync(self) -> None:
        """Make durable what was published to be so later."""
        with self._using():
            self._sync()

    def _sync(self) -> None:
        while self._unsynced:
            folder = next(iter(self._unsynced))
            # One that was removed since, with what was in it, has nothing to keep.
            with contextlib.suppress(FileNotFoundError):
                sync_folder(folder)
            self._unsynced.discard(folder)

    def _linked(self, source: Path, final: Path, given: Given) -> bool | None:
        """Give a file that was hashed its final name as well, once; ``None`` when it has to be copied.

        It has to where a name of it cannot be had here, where it would not be like a new file here (its owner, say, or
        an access list), and where it is not the file that was hashed, as it was then: copying finds that out.
        """
        if self._new_file is None:
            with self._temporary() as temporary, temporary.open("xb") as file:
                self._new_file = _Attributes.of(file.fileno())
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            there = os.fstat(descriptor)
            like_new = _Attributes.of(descriptor)._replace(mode=self._new_file.mode) == self._new_file
            # A file of two names is not ours alone.
            is_ours = there.st_nlink == 1 and FileState.of(there) == given.file
            if not like_new or self._new_file.extended is None or not is_ours:
                return None
            if stat.S_IMODE(there.st_mode) != self._new_file.mode:
                os.fchmod(descriptor, self._new_file.mode)
            if not given.is_durable:
                os.fsync(descriptor)
            try:
                os.link(source, final)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NOT_FROM_THERE:
                    raise
                self._may_link = False
                return None
            if FileState.of(os.fstat(descriptor)) != given.file or FileState.of(os.lstat(final)) != given.file:
                final.unlink()
                raise self._reads_differently()
            return True
        finally:
            os.close(descriptor)

    def replace(self, source: Path, relative: PurePosixPath, sha256: str, instead_of: str, pause: Pause) -> bool:
        """Rename a durable copy over what is there; see :class:`.destination.Store`."""
        with self._using():
            final = self.path(relative)
            with self._temporary() as temporary:
                self._write(source, temporary, sha256)
                with self._replacing(pause):
                    if not final.is_file() or sha256_of(final) != instead_of:
                        return False
                    os.replace(temporary, final)
            sync_folder(final.parent)
            return True

    def remove(self, relative: PurePosixPath, sha256: str, pause: Pause) -> bool:
        """Remove a file durably; see :class:`.destination.Store`."""
        with self._using():
            final = self.path(relative)
            make_folder(self._root / _TEMPORARY)
            with self._replacing(pause):
                if not final.is_file() or sha256_of(final) != sha256:
                    return False
                final.unlink()
            sync_folder(final.parent)
            return True

    def _write(self, source: Path, temporary: Path, sha256: str) -> None:
        _copy(source, temporary)
        if sha256_of(temporary) != sha256:
            raise self._reads_differently()

    def _reads_differently(self) -> DestinationWriteError:
        return DestinationWriteError(
            f"a file below {self._root} reads back differently than it was written", step="publish"
        )

    @contextlib.contextmanager
    def _replacing(self, pause: Pause) -> Iterator[None]:
        """Keep others from replacing anything: what is looked at is what is replaced."""
        with (self._root / _TEMPORARY / _REPLACING).open("ab") as lock:
            end = time.monotonic() + _REPLACING_SECONDS
            while not _locked(lock):
                if time.monotonic() > end:
                    raise DestinationWriteError(
                        f"another process has been replacing something in {self._root} for {_REPLACING_SECONDS:g} s",
                        step="publish",
                        hint="Look for a task that hangs there, and end it",
                    )
                pause(_LOOK_SECONDS)
            yield

    def names_beside(self, relative: PurePosixPath, prefix: str) -> list[PurePosixPath]:
        """List the files of one folder; see :class:`.destination.Store`."""
        with self._using():
            try:
                with os.scandir(self.path(relative.parent)) as found:
                    names = [entry.name for entry in found if entry.name.startswith(prefix) and entry.is_file()]
            except FileNotFoundError:
                return []
            return sorted(relative.with_name(name) for name in names)

    def folders_in(self, relative: PurePosixPath) -> list[str]:
        """List the folders in a folder; see :class:`.destination.Store`."""
        with self._using():
            try:
                with os.scandir(self.path(relative)) as found:
                    return sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []

    def drop_folder(self, relative: PurePosixPath) -> None:
        """Remove an empty folder; see :class:`.destination.Store`."""
        with self._using(), contextlib.suppress(FileNotFoundError):
            try:
                self.path(relative).rmdir()
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def read(self, relative: PurePosixPath, target: Path) -> None:
        """Copy a file."""
        with self._using():
            shutil.copyfile(self.path(relative), target)

    def read_text(self, relative: PurePosixPath) -> str | None:
        """Read a text file."""
        with self._using():
            try:
                return self.path(relative).read_text(encoding="utf-8")
            except FileNotFoundError:
                return None

    def write_text(self, relative: PurePosixPath, text: str, *, replace: bool = True) -> None:
        """Write a text file durably, after what it may tell of; see :class:`.destination.Store`."""
        with self._using():
            self._sync()
            final = self.path(relative)
            make_folder(final.parent)
            with self._temporary() as temporary:
                with temporary.open("w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                if replace:
                    os.replace(temporary, final)
                else:
                    _link(temporary, final)
            sync_folder(final.parent)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Give the path of a temporary file on the destination's file system; it is gone afterwards."""
        folder = self._root / _TEMPORARY
        make_folder(folder)
        if not self._swept:
            self._swept = True
            _sweep(folder)
        path = folder / f"{secrets.token_hex(8)}.part"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # The relative path is not told, not even as a cause that a traceback shows: a layout may have put a
            # PatientID into it.
            raise DestinationWriteError(
                f"the destination {self._root} cannot be used: {error.strerror or type(error).__name__}",
                step="publish",
                hint="Check that the destination exists, has space, and may be written by this process",
            ) from None


def make_folder(folder: Path) -> None:
    """Create a folder with its parents, durably; harmless when it exists. Permissions as the umask says."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind; other writers' files of today stay."""
    oldest = time.time() - _LEFT_OVER_SECONDS
    for left in folder.glob("*.part"):
        # Another process may sweep at the same time, and what another user left harms nobody.
        with contextlib.suppress(OSError):
            if left.lstat().st_mtime < oldest:
                left.unlink()


def _locked(lock: IO[bytes]) -> bool:
    """Lock a file; False when another process has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Where there are no locks (some network file systems), the look and the rename are an instant apart.
        return True
    return True


def _copy(source: Path, temporary: Path) -> None:
    with source.open("rb") as reader, temporary.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _extended(descriptor: int) -> tuple[tuple[str, bytes], ...] | None:
    """Return the extended attributes of a file, ``None`` when they cannot be told; some file systems have none."""
    if not hasattr(os, "listxattr"):
        return None
    try:
        return tuple((name, os.getxattr(descriptor, name)) for name in sorted(os.listxattr(descriptor)))
    except OSError as error:
        return () if error.errno == errno.ENOTSUP else None


def _link(temporary: Path, final: Path) -> bool:
    """Give a file its final name without ever replacing another; False when the name is taken."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _rename(temporary, final)
    return True


def _rename(temporary: Path, final: Path) -> bool:
    # Without hard links there is no atomic "unless it exists"; two writers would write the same object.
    if final.exists():
        return False
    os.rename(temporary, final)
    return True
