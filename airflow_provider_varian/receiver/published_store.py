"""What a publisher needs of a store, and where things are in it.

::

    {store}/objects/{shard}/{name}        as in the spool: new/{shard}/{name}
    {store}/claims/{name}/{retrieval ID}  written by a retrieval that has a verified copy of its own

:class:`airflow_provider_varian.retrieval.destination.Destination` is such a store.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

OBJECTS: Final = PurePosixPath("objects")
CLAIMS: Final = PurePosixPath("claims")


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

    def write_text(self, relative: PurePosixPath, text: str) -> None:
        """Write a text file, whole or not at all, in the place of what is there."""

    def folders_in(self, relative: PurePosixPath) -> list[str]:
        """Return the names of the folders in a folder."""

    def drop_folder(self, relative: PurePosixPath) -> None:
        """Remove an empty folder, where the store has folders."""


class OneAtATime:
    """A store that several threads share, of which one at a time uses it: its client may be for one thread.

    :param store: the store.
    """

    def __init__(self, store: PublishedStore) -> None:
        self._store = store
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """The root as text."""
        return self._store.uri

    def publish(self, source: Path, relative: PurePosixPath, *, sha256: str) -> bool:
        """See :class:`PublishedStore`, here and below."""
        with self._lock:
            return self._store.publish(source, relative, sha256=sha256)

    def size(self, relative: PurePosixPath) -> int | None:
        """As above."""
        with self._lock:
            return self._store.size(relative)

    def remove(self, relative: PurePosixPath, *, sha256: str) -> bool:
        """As above."""
        with self._lock:
            return self._store.remove(relative, sha256=sha256)

    @contextmanager
    def local_copy(self, relative: PurePosixPath) -> Iterator[Path]:
        """As above."""
        with self._lock, self._store.local_copy(relative) as path:
            yield path

    def names_beside(self, path: PurePosixPath, prefix: str) -> list[PurePosixPath]:
        """As above."""
        with self._lock:
            return self._store.names_beside(path, prefix)

    def read_text(self, relative: PurePosixPath) -> str | None:
        """As above."""
        with self._lock:
            return self._store.read_text(relative)

    def write_text(self, relative: PurePosixPath, text: str) -> None:
        """As above."""
        with self._lock:
            self._store.write_text(relative, text)

    def folders_in(self, relative: PurePosixPath) -> list[str]:
        """As above."""
        with self._lock:
            return self._store.folders_in(relative)

    def drop_folder(self, relative: PurePosixPath) -> None:
        """As above."""
        with self._lock:
            self._store.drop_folder(relative)


def sha256_in(store: PublishedStore, relative: PurePosixPath) -> str:
    """Return the SHA-256 of what is in a store, in hexadecimal."""
    with store.local_copy(relative) as path, path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
