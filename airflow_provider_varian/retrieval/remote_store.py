"""A destination in a store that fsspec knows (object stores, SFTP, memory): written once, read back."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError, DicomError

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath


class RemoteStore:
    """Objects below a ``UPath``.

    :param root: a ``UPath`` or an ``ObjectStoragePath``.
    :raises ConfigurationError: when there is no file system for its protocol.
    """

    def __init__(self, root: DestinationPath) -> None:
        self._uri = str(root).rstrip("/")
        try:
            # The file system itself is used from here on: what UPath and ObjectStoragePath wrap around it
            # differs between their versions, and reports each path to whoever collects lineage.
            self._fs: Any = root.fs
            self._root = str(root.path).rstrip("/")
        except Exception as error:
            raise ConfigurationError(
                f"the destination {root} cannot be opened: {error}",
                step="publish",
                hint="Install the package of that protocol, and check the connection it names",
            ) from error

    def uri(self, relative: PurePosixPath) -> str:
        """Return the URI."""
        return f"{self._uri}/{relative}" if relative.parts else self._uri

    def size(self, relative: PurePosixPath) -> int | None:
        """Return the size of an object."""
        with self._using():
            return self._size(self._path(relative))

    def publish(self, source: Path, relative: PurePosixPath, sha256: str) -> bool:
        """Write an object to its final key; see :class:`.destination.Store`."""
        with self._using():
            target = self._path(relative)
            if self._size(target) is not None:
                return False
            try:
                with source.open("rb") as reader, self._open_new(target) as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
            except FileExistsError:
                return False
            except BaseException:
                # fsspec commits what was written so far when a file is closed, also on errors.
                with contextlib.suppress(Exception):
                    self._fs.rm_file(target)
                raise
            self._compare(source, target, sha256)
            return True

    def read(self, relative: PurePosixPath, target: Path) -> None:
        """Copy an object into a local file."""
        with self._using(), self._fs.open(self._path(relative), "rb") as reader, target.open("xb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)

    def read_text(self, relative: PurePosixPath) -> str | None:
        """Read a text object."""
        with self._using():
            try:
                with self._fs.open(self._path(relative), "rb") as reader:
                    return bytes(reader.read()).decode("utf-8")
            except FileNotFoundError:
                return None

    def write_text(self, relative: PurePosixPath, text: str, *, replace: bool = True) -> None:
        """Write a text object; see :class:`.destination.Store`."""
        with self._using():
            target = self._path(relative)
            if not replace and self._size(target) is not None:
                return
            with self._open(target, "wb") as writer:
                writer.write(text.encode("utf-8"))

    def _path(self, relative: PurePosixPath) -> str:
        return f"{self._root}/{relative}"

    def _size(self, path: str) -> int | None:
        try:
            return int(self._fs.info(path)["size"])
        except FileNotFoundError:
            return None

    def _open_new(self, path: str) -> Any:
        """Open for writing what must not exist, where the store can tell."""
        try:
            return self._open(path, "xb")
        except (ValueError, NotImplementedError, TypeError):
            return self._open(path, "wb")

    def _open(self, path: str, mode: str) -> Any:
        """Open for writing; folders are made where the store has such."""
        try:
            return self._fs.open(path, mode)
        except FileNotFoundError:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            return self._fs.open(path, mode)

    def _compare(self, source: Path, target: str, sha256: str) -> None:
        digest = hashlib.sha256()
        with self._fs.open(target, "rb") as reader:
            while chunk := reader.read(1 << 20):
                digest.update(chunk)
        if self._size(target) != source.stat().st_size or digest.hexdigest() != sha256:
            self._fs.rm_file(target)
            raise DestinationWriteError(
                f"an object below {self._uri} reads back differently than it was written", step="publish"
            )

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
