"""The store of a standing receiver, read without a copy: an object may be as large as the free space of a disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import IO, TypeVar

from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.remote_store import RemoteStore

_T = TypeVar("_T")


class ReadStore(Destination):
    """A destination that objects are read from.

    :param root: as :class:`.destination.Destination` takes it.
    """

    def reading(self, relative: PurePosixPath, read: Callable[[IO[bytes]], _T]) -> _T:
        """Open what is there as it is now, and return what ``read`` makes of it.

        :param relative: its path below the root.
        :param read: called with the open file; called again where the store says that somebody replaced it meanwhile.
        :raises DestinationWriteError: when it cannot be read.
        """
        if isinstance(self._store, RemoteStore):
            return self._store.reading(relative, read)
        with self.local_copy(relative) as path, path.open("rb") as file:
            return read(file)
