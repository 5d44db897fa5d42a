"""The files of a store that fsspec knows: looked at anew each time, and compared with what they should be."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

from airflow_provider_varian.errors import DestinationWriteError

#: How often a file that is replaced while it is read is begun again.
_TRIES: Final = 5
_T = TypeVar("_T")


class RemoteFiles:
    """Looks at files by their full path in an fsspec file system.

    :param fs: the file system.
    :param uri: the root, as errors name it; never a path below it, since a layout may put a PatientID there.
    """

    def __init__(self, fs: Any, *, uri: str) -> None:
        self.fs = fs
        self.uri = uri

    def info(self, path: str) -> dict[str, Any] | None:
        """Return what the store says of a file or folder now; ``None`` when nothing is there."""
        self.forget_listings()
        try:
            return dict(self.fs.info(path))
        except OSError as error:
            if not _is_missing(error):
                raise
            return None

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes; ``None`` when nothing, or a folder, is there."""
        found = self.info(path)
        return None if found is None or found["type"] == "directory" else int(found["size"])

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder itself, sorted; none when there is no such folder."""
        return self._listed(folder, folders=False)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, sorted; none when there is no such folder."""
        return self._listed(folder, folders=True)

    def _listed(self, folder: str, *, folders: bool) -> list[str]:
        self.forget_listings()
        try:
            found = self.fs.ls(folder, detail=True)
        except OSError as error:
            if not _is_missing(error):
                raise
            return []
        # A store may list the folder itself too.
        paths = [str(item["name"]).rstrip("/") for item in found if (item["type"] == "directory") == folders]
        return sorted({path.rpartition("/")[2] for path in paths if path.strip("/") != folder.strip("/")})

    def content(self, path: str) -> bytes | None:
        """Return what is in a (small) file; ``None`` when it is not there."""
        try:
            return self.reading(path, lambda reader: bytes(reader.read()))
        except OSError as error:
            if not _is_missing(error):
                raise
            return None

    def reading(self, path: str, read: Callable[[Any], _T]) -> _T:
        """Open a file as it is now, and return what ``read`` makes of it.

        :param read: called with the open file; called again when the store says that somebody replaced it meanwhile.
        """
        for _ in range(_TRIES - 1):
            try:
                return self._reading(path, read)
            except OSError as error:
                if type(error).__name__ != "FileExpired":  # s3fs's: what it reads is not what it has opened any more
                    raise
        return self._reading(path, read)

    def _reading(self, path: str, read: Callable[[Any], _T]) -> _T:
        self.forget_listings()
        with self.fs.open(path, "rb") as reader:
            return read(reader)

    def check(self, path: str, *, size: int, sha256: str, remove: bool = True) -> None:
        """Read a file back.

        :param remove: whether it is removed when it is not what was written.
        :raises DestinationWriteError: when it is not.
        """
        if self._digest(path) != sha256 or self.size(path) != size:
            if remove:
                self.fs.rm_file(path)
            raise DestinationWriteError(
                f"a file below {self.uri} reads back differently than it was written", step="publish"
            )

    def sha256(self, path: str) -> str | None:
        """Return the SHA-256 of a file, in hexadecimal; ``None`` when it is not there."""
        try:
            return self._digest(path)
        except OSError as error:
            if not _is_missing(error):
                raise
            return None

    def _digest(self, path: str) -> str:
        return self.reading(path, _sha256)

    def discard(self, path: str) -> None:
        """Remove a file if that is possible."""
        with contextlib.suppress(Exception):
            self.fs.rm_file(path)

    def forget_listings(self) -> None:
        """Make the file system look anew.

        It may remember folders, and would then neither see what others wrote nor miss what they removed. All of
        them are forgotten, since file systems differ in the key under which they remember one.
        """
        self.fs.invalidate_cache()


def _sha256(reader: Any) -> str:
    digest = hashlib.sha256()
    while chunk := reader.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _is_missing(error: OSError) -> bool:
    """Say whether an error is that nothing is there. SMB's is told by its number only, fsspec's own by its class."""
    return isinstance(error, FileNotFoundError) or error.errno == errno.ENOENT
