"""The files of a store that fsspec knows: looked at anew each time, and compared with what they should be."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from typing import Any

from airflow_provider_varian.errors import DestinationWriteError


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
        self.forget_listings()
        try:
            found = self.fs.ls(folder, detail=True)
        except OSError as error:
            if not _is_missing(error):
                raise
            return []
        # A store may list the folder itself, and sub-folders.
        paths = [str(item["name"]).rstrip("/") for item in found if item["type"] != "directory"]
        return sorted({path.rpartition("/")[2] for path in paths if path.strip("/") != folder.strip("/")})

    def content(self, path: str) -> bytes | None:
        """Return what is in a (small) file; ``None`` when it is not there."""
        try:
            with self.open(path) as reader:
                return bytes(reader.read())
        except OSError as error:
            if not _is_missing(error):
                raise
            return None

    def open(self, path: str) -> Any:
        """Open a file as it is now, to read from it."""
        self.forget_listings()
        return self.fs.open(path, "rb")

    def check(self, path: str, *, size: int, sha256: str) -> None:
        """Read a file back.

        :raises DestinationWriteError: when it is not what was written; it is removed then.
        """
        digest = hashlib.sha256()
        with self.open(path) as reader:
            while chunk := reader.read(1 << 20):
                digest.update(chunk)
        if self.size(path) != size or digest.hexdigest() != sha256:
            self.fs.rm_file(path)
            raise DestinationWriteError(
                f"a file below {self.uri} reads back differently than it was written", step="publish"
            )

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


def _is_missing(error: OSError) -> bool:
    """Say whether an error is that nothing is there. SMB's is told by its number only, fsspec's own by its class."""
    return isinstance(error, FileNotFoundError) or error.errno == errno.ENOENT
