"""A destination in a store that fsspec knows (object stores, SFTP, SMB, memory): written once, read back."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError, DicomError
from airflow_provider_varian.retrieval.remote_files import RemoteFiles
from airflow_provider_varian.retrieval.remote_writers import writer_for

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath


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
                hint="Install the package of that protocol, and check the connection it names",
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

    def names_beside(self, relative: PurePosixPath, prefix: str) -> list[PurePosixPath]:
        """List the objects of one folder; see :class:`.destination.Store`."""
        with self._using():
            names = self._files.names(self._path(relative.parent))
            return sorted(relative.with_name(name) for name in names if name.startswith(prefix))

    def read(self, relative: PurePosixPath, target: Path) -> None:
        """Copy an object into a local file."""
        with self._using(), self._files.open(self._path(relative)) as reader, target.open("xb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)

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
                hint="Check that the store exists and that its connection may write to it",
            ) from None
