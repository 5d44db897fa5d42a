"""Where verified objects are published: a local folder, or any store that universal-pathlib knows.

Each object is written once, whole, and under its final name only: locally by a hard link, to the durable file itself
where that may be given away and to a durable copy where not, elsewhere by an upload that is seen when it is whole, or
else written aside and moved (:mod:`.remote_writers`). What was written is read back and compared.
What is at its final path is therefore whole, and *held* (semantics 3).
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError
from airflow_provider_varian.retrieval.local_store import LocalStore
from airflow_provider_varian.retrieval.remote_store import RemoteStore
from airflow_provider_varian.retrieval.verify import Given

if TYPE_CHECKING:
    from upath import UPath
    from upath.extensions import ProxyUPath  # universal-pathlib >= 0.3; with Airflow 3.1 it is not there

    DestinationPath: TypeAlias = UPath | ProxyUPath

#: Folder of manifests and of what else is ours, in each destination.
OWN_FOLDER: Final = PurePosixPath(".dicom")
_ID_FILE: Final = OWN_FOLDER / "id"
_LOCAL_PROTOCOLS: Final = ("", "file", "local")
#: Sleeps for so many seconds, or raises when the work is to stop.
Pause: TypeAlias = Callable[[float], object]


class Store(Protocol):
    """What a destination needs of a kind of storage. Errors are ``DestinationWriteError``."""

    def uri(self, relative: PurePosixPath) -> str:
        """Return the full path or URI of a relative path."""

    def size(self, relative: PurePosixPath) -> int | None:
        """Return how many bytes are there; ``None`` when nothing is."""

    def publish(self, source: Path, relative: PurePosixPath, sha256: str) -> bool:
        """Write a file once, whole, and say whether it is new; False when something is there already."""

    def replace(self, source: Path, relative: PurePosixPath, sha256: str, instead_of: str, pause: Pause) -> bool:
        """Put a file in the place of another, in one step; False when what is there is not ``instead_of`` any more."""

    def remove(self, relative: PurePosixPath, sha256: str, pause: Pause) -> bool:
        """Remove a file durably; False when something else, or nothing, is there."""

    def names_beside(self, relative: PurePosixPath, prefix: str) -> list[PurePosixPath]:
        """Return the files in the folder of a path whose names start with ``prefix``, sorted."""

    def folders_in(self, relative: PurePosixPath) -> list[str]:
        """Return the names of the folders in a folder, sorted; none when there is no such folder."""

    def drop_folder(self, relative: PurePosixPath) -> None:
        """Remove a folder if it is empty, where the store has folders."""

    def read(self, relative: PurePosixPath, target: Path) -> None:
        """Copy what is there into a local file."""

    def read_text(self, relative: PurePosixPath) -> str | None:
        """Return a text file; ``None`` when nothing is there."""

    def write_text(self, relative: PurePosixPath, text: str, *, replace: bool = True) -> None:
        """Write a text file, whole or not at all; keep what is there unless ``replace``."""


class Destination:
    """A root under which objects are filed.

    :param root: a path, a URI, a :class:`pathlib.Path`, a ``UPath`` or an ``ObjectStoragePath``.
    :raises ConfigurationError: when it is no usable path.
    """

    def __init__(self, root: str | Path | DestinationPath) -> None:
        self._store: Store = _store(root)

    @property
    def is_local(self) -> bool:
        """Whether objects become files of this machine."""
        return isinstance(self._store, LocalStore)

    @property
    def uri(self) -> str:
        """The root as text."""
        return self._store.uri(PurePosixPath("."))

    def uri_of(self, relative: PurePosixPath) -> str:
        """Return the full path or URI of an object."""
        return self._store.uri(_checked(relative))

    def size(self, relative: PurePosixPath) -> int | None:
        """Return the size in bytes of what is held under a relative path; ``None`` when nothing is."""
        return self._store.size(_checked(relative))

    def publish(
        self,
        source: Path,
        relative: PurePosixPath,
        *,
        sha256: str,
        given: Given | None = None,
        later: bool = False,
    ) -> bool:
        """Write an object under its final name, once.

        :param source: a whole file.
        :param relative: its path below the root.
        :param sha256: what the written file must hash to.
        :param given: the source, where it may be given away: then a local destination on its file system gives it the
            final name instead of copying it. The published file is as a new one there either way.
        :param later: whether it is enough that the final name is durable after :meth:`sync`, or after the next
            :meth:`write_text`: a local destination then syncs a folder once for all that was published into it.
        :return: False when something is there already; nothing is changed then.
        :raises DestinationWriteError: when it cannot be written, or reads back differently.
        """
        if isinstance(self._store, LocalStore):
            return self._store.publish(source, _checked(relative), sha256, given=given, later=later)
        return self._store.publish(source, _checked(relative), sha256)

    def sync(self) -> None:
        """Make durable what was published to be so later.

        :raises DestinationWriteError: when that fails; it is tried again the next time.
        """
        if isinstance(self._store, LocalStore):
            self._store.sync()

    def replace(
        self, source: Path, relative: PurePosixPath, *, sha256: str, instead_of: str, pause: Pause = time.sleep
    ) -> bool:
        """Put a newer version of an object in the place of an older one.

        At each moment one of the two is there, whole; in a store that does not rename onto what exists (SMB, some FTP
        servers), nothing is for an instant.

        :param source: a whole, durable file.
        :param relative: path of what is held.
        :param sha256: what the written file must hash to.
        :param instead_of: SHA-256 of what is to be replaced.
        :param pause: how to wait while another process replaces something.
        :return: False when something else, or nothing, is there by now; nothing is changed then.
        :raises DestinationWriteError: when it cannot be written, or reads back differently, or others do not come to an
            end of replacing.
        """
        return self._store.replace(source, _checked(relative), sha256, instead_of, pause)

    def remove(self, relative: PurePosixPath, *, sha256: str, pause: Pause = time.sleep) -> bool:
        """Remove an object of which a copy is kept elsewhere.

        :param relative: its path.
        :param sha256: what is to be removed.
        :param pause: as in :meth:`replace`.
        :return: False when something else, or nothing, is there by now; nothing is changed then.
        :raises DestinationWriteError: when it cannot be removed.
        """
        return self._store.remove(_checked(relative), sha256, pause)

    def names_beside(self, path: PurePosixPath, prefix: str) -> list[PurePosixPath]:
        """Return the files that lie in the same folder as ``path``, in it itself and not below.

        :param path: a path below the root, there or not.
        :param prefix: what their names start with; empty for all.
        :return: their paths below the root, sorted; empty when the folder does not exist.
        :raises DestinationWriteError: when the folder cannot be listed.
        """
        return self._store.names_beside(_checked(path), prefix)

    def folders_in(self, relative: PurePosixPath) -> list[str]:
        """Return the names of the folders in a folder, sorted; none when there is no such folder.

        :raises DestinationWriteError: when the folder cannot be listed.
        """
        return self._store.folders_in(_checked(relative))

    def drop_folder(self, relative: PurePosixPath) -> None:
        """Remove a folder if it is empty; in object stores there is none to remove."""
        self._store.drop_folder(_checked(relative))

    @contextlib.contextmanager
    def local_copy(self, relative: PurePosixPath) -> Iterator[Path]:
        """Give what is held as a local file, for the length of a block.

        :raises DestinationWriteError: when it cannot be read, also while the block reads it.
        """
        if isinstance(self._store, LocalStore):
            path = self._store.path(_checked(relative))
            try:
                yield path
            except OSError as error:
                # As in the stores: the path is not told, not even as a cause.
                raise DestinationWriteError(
                    f"something that lies in {self.uri} cannot be read: {error.strerror or type(error).__name__}",
                    hint="Let this process read it, or remove it",
                ) from None
            return
        folder = Path(tempfile.mkdtemp(prefix="dicom-"))  # mkdtemp makes it private
        try:
            self._store.read(_checked(relative), folder / "object")
            yield folder / "object"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def read_text(self, relative: PurePosixPath) -> str | None:
        """Return a text file below the root; ``None`` when there is none."""
        return self._store.read_text(_checked(relative))

    def write_text(self, relative: PurePosixPath, text: str) -> None:
        """Replace a text file below the root, whole or not at all, after what it may tell of is durable."""
        self._store.write_text(_checked(relative), text)

    def random_id(self) -> str:
        """Return the random ID kept in the destination; made at the first call."""
        found = self._store.read_text(_ID_FILE)
        if not found:
            self._store.write_text(_ID_FILE, secrets.token_hex(16), replace=False)
            found = self._store.read_text(_ID_FILE)
        return (found or "").strip()


def _checked(relative: PurePosixPath) -> PurePosixPath:
    """Refuse what could lead out of the root; layouts make no such path."""
    if relative.is_absolute() or any(part == ".." or "\0" in part for part in relative.parts):
        raise ConfigurationError("a path leads out of the destination", step="layout")
    return relative


def _store(root: Any) -> Store:
    if isinstance(root, str):
        if not root.strip():
            raise ConfigurationError("the destination is empty", hint="Give a folder or a URI such as s3://bucket/qa")
        if "://" not in root:
            return LocalStore(Path(root))
        from upath import UPath

        try:
            root = UPath(root)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(
                f"the destination cannot be opened: {error}", hint="Install the fsspec package of that protocol"
            ) from error
    if getattr(root, "protocol", "") in _LOCAL_PROTOCOLS:
        return LocalStore(Path(getattr(root, "path", None) or root))
    return RemoteStore(root)
