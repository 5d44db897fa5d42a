"""A destination in a store that fsspec knows (object stores, SFTP, SMB, memory): written once, read back."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeVar

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError, DicomError
from airflow_provider_varian.retrieval.remote_files import RemoteFiles
from airflow_provider_varian.retrieval.remote_writers import has_folders, writer_for

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath, Pause

_T = TypeVar("_T")


class RemoteStore:
    """Objects below a ``UPath``; how they get to their final paths: :mod:`.remote_writers`.

    :param root: a ``UPath`` or an ``ObjectStoragePath``.
    :raises ConfigurationError: when there is no file system for its protocol.
    """

    def __init__(self, root: DestinationPath) -> None:
        self._uri = str(root).rstrip("/")
        try:
            # The file system itself is used from here on: what UPath and ObjectStoragePath wrap around it
            # differs between their versions, and reports each path to whoever collects lineage.
            fs: Any = root.fs
            self._root = str(root.path).rstrip("/")
        except Exception as error:
            raise ConfigurationError(
                f"the destination {root} cannot be opened: {error}",
                step="publish",
                hint="Install what knows that protocol (in a task, the provider of the store, for s3 "
                "apache-airflow-providers-amazon[s3fs]; else s3fs), and check the connection it names",
            ) from error
        self._files = RemoteFiles(fs, uri=self._uri)
        self._writer = writer_for(self._files, self._root)

    def uri(self, relative: PurePosixPath) -> str:
        """Return the URI."""
        return f"{self._uri}/{relative}" if relative.parts else self._uri

    def size(self, relative: PurePosixPath) -> int | None:
        """Return the size of an object; None for anything else, a folder among it."""
        with self._using():
            return self._files.size(self._path(relative))

    def publish(self, source: Path, relative: PurePosixPath, sha256: str) -> bool:
        """Write an object to its final path; see :class:`.destination.Store`."""
        with self._using():
            return self._writer.put(source, self._path(relative), sha256)

    def replace(self, source: Path, relative: PurePosixPath, sha256: str, instead_of: str, pause: Pause) -> bool:
        """Write an object in the place of another; see :class:`.destination.Store`. There is no lock to wait for."""
        with self._using():
            return self._writer.replace(source, self._path(relative), sha256, instead_of)

    def remove(self, relative: PurePosixPath, sha256: str, pause: Pause) -> bool:
        """Remove an object; see :class:`.destination.Store`."""
        with self._using():
            path = self._path(relative)
            if self._files.sha256(path) != sha256:
                return False
            self._files.fs.rm_file(path)
            return True

    def names_beside(self, relative: PurePosixPath, prefix: str) -> list[PurePosixPath]:
        """List the objects of one folder; see :class:`.destination.Store`."""
        with self._using():
            names = self._files.names(self._path(relative.parent))
            return sorted(relative.with_name(name) for name in names if name.startswith(prefix))

    def folders_in(self, relative: PurePosixPath) -> list[str]:
        """List the folders in a folder; see :class:`.destination.Store`."""
        with self._using():
            return self._files.folders(self._path(relative))

    def drop_folder(self, relative: PurePosixPath) -> None:
        """Remove an empty folder, if the store lets it be removed; see :class:`.destination.Store`."""
        if not has_folders(self._files.fs):
            return
        with contextlib.suppress(Exception):  # not empty, or not there: an empty folder harms nobody
            self._files.fs.rmdir(self._path(relative))

    def read(self, relative: PurePosixPath, target: Path) -> None:
        """Copy an object into a local file."""

        def copy(reader: Any) -> None:
            with target.open("wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)

        with self._using():
            self._files.reading(self._path(relative), copy)

    def reading(self, relative: PurePosixPath, read: Callable[[IO[bytes]], _T]) -> _T:
        """Open an object as it is now, and return what ``read`` makes of it; it may be called again."""
        with self._using():
            return self._files.reading(self._path(relative), read)

    def read_text(self, relative: PurePosixPath) -> str | None:
        """Read a text object."""
        with self._using():
            text = self._writer.text(self._path(relative))
            return None if text is None else text.decode("utf-8")

    def write_text(self, relative: PurePosixPath, text: str, *, replace: bool = True) -> None:
        """Write a text object; see :class:`.destination.Store`."""
        with self._using():
            self._writer.put_text(text.encode("utf-8"), self._path(relative), replace=replace)

    def _path(self, relative: PurePosixPath) -> str:
        return f"{self._root}/{relative}" if relative.parts else self._root or "/"

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except DicomError:
            raise
        except Exception as error:  # noqa: BLE001 - each store raises what its client library raises
            # Neither path nor the client's own words are told, not even as a cause that a traceback shows: a layout
            # may have put a PatientID into the path.
            raise DestinationWriteError(
                f"the destination {self._uri} cannot be used: {type(error).__name__}",
                step="publish",
                hint=_hint(error),
            ) from None


def _hint(error: Exception) -> str:
    """Say what to do, by the kind of an error alone."""
    if isinstance(error, PermissionError):
        return "The store denies it: its credentials have to list, read, write and remove below the destination"
    if isinstance(error, FileNotFoundError):
        return "There is no such bucket or folder: make it, or correct the destination"
    if type(error).__name__ == "NoCredentialsError":  # botocore's, an OSError of no kind
        return "There are no credentials for the store: set them where its client looks for them, or in the connection"
    return "Check that the store runs, can be reached from here, and that its connection may write to it"
