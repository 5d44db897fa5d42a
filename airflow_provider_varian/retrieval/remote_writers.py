"""How files get to their final path in a store that fsspec knows, so that no half of one is ever seen there.

Two ways, by what the store promises:

*Straight* to the final path, where a key shows nothing before its upload is complete. That is so in Amazon S3, in
Google Cloud Storage and in Azure Blob Storage, but for what fsspec does on top: a file that is opened there and closed
by an error commits what it got so far, and Azure's removes what was there at the first byte. So nothing is opened for
writing: whole files go by ``put_file`` and ``pipe_file``. They go on a condition, which the store itself checks in the
instant in which it lets an upload be seen: that nothing is there yet, or, in S3, that what is there is what was looked
at. A store that says that it knows no such condition is written without. An upload in parts that is killed leaves parts
that nobody sees; a rule of the bucket can remove them.

*Aside*, everywhere else (SFTP, SMB, FTP, WebDAV, HDFS, memory, and all that nobody here knows): into ``.dicom/tmp``
below the root, read back, then renamed. A writer that is killed leaves its half there. It is removed by the first
write of any later process, a day after it was begun: its name says when, by the clock of the writer, since not every
store tells times. A writer removes its own file itself, also when it fails. Two writers never share a name, and
a file that is swept too early (by a clock a day off) makes its writer fail, with nothing at the final path.

Where a store cannot rename, the file is copied within the store, and read back at its final path too. If such a store
copies in place, a kill while copying leaves a half at the final path. No store is known to do so: those that write in
place can rename, and copies within object stores are seen when they are whole. Only the size and the SHA-256 of the
manifest would tell (``verify="hash"``).

A rename, and an upload without a condition, may replace what another writer published since we looked: both are whole,
and the last one stays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError
from airflow_provider_varian.retrieval.remote_files import RemoteFiles

logger = logging.getLogger(__name__)

#: Protocols of file systems whose uploads are seen when they are complete, as s3fs, gcsfs and adlfs name them. Not
#: among them: ``adl`` (Azure Data Lake Gen1 appends in place). Rapid Storage (zonal buckets of Google Cloud) shows
#: objects while they are appended to, under ``gs`` as well: it is no destination.
ATOMIC_PROTOCOLS: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})

_S3: Final = frozenset({"s3", "s3a"})

_TEMPORARY: Final = ".dicom/tmp"
_TEMPORARY_NAME: Final = re.compile(r"(?P<begun>\d{1,12})\.[0-9a-f]{16}\.part")
#: No upload takes so long: what was begun earlier was left by a killed process.
_LEFT_OVER_SECONDS: Final = 86400
#: Where a text is for a moment while a store that renames onto nothing gets a new one in its place.
_BEFORE: Final = ".before"


class Writer(Protocol):
    """Brings files to their final paths, whole or not at all."""

    def put(self, source: Path, final: str, sha256: str) -> bool:
        """Write a file once and say whether it is new; False when something is there already."""

    def replace(self, source: Path, final: str, sha256: str, instead_of: str) -> bool:
        """Write a file in the place of another; False when something else than ``instead_of`` is there."""

    def put_text(self, text: bytes, final: str, *, replace: bool) -> None:
        """Write a text; keep what is there unless ``replace``."""

    def text(self, final: str) -> bytes | None:
        """Return a text; ``None`` when there is none."""


def writer_for(files: RemoteFiles, root: str) -> Writer:
    """Return the writer that a store needs.

    :param files: the store's files.
    :param root: the destination's root in it.
    """
    return AsideWriter(files, root) if has_folders(files.fs) else StraightWriter(files)


def has_folders(fs: Any) -> bool:
    """Say whether a store has folders; object stores, whose uploads are seen when they are whole, have keys alone."""
    protocols = _protocols(fs)
    return not protocols or not protocols <= ATOMIC_PROTOCOLS


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


class StraightWriter:
    """Uploads to the final path, in a store that shows whole uploads only."""

    def __init__(self, files: RemoteFiles) -> None:
        self._files = files

    def put(self, source: Path, final: str, sha256: str) -> bool:
        """Upload a file; see :class:`Writer`."""
        if self._files.size(final) is not None:
            return False
        try:
            self._files.fs.put_file(str(source), final, mode="create")
        except Exception as error:
            # Stores tell in different words that another writer was faster. What is there is whole, by whomever.
            if self._files.size(final) is not None:
                return False
            if not _is_unknown_condition(error):
                raise
            self._put_unconditionally(source, final)
            # It may be another writer's by now: the caller compares the two, and nothing is removed.
            return self._files.sha256(final) == sha256
        self._files.check(final, size=source.stat().st_size, sha256=sha256)
        return True

    def replace(self, source: Path, final: str, sha256: str, instead_of: str) -> bool:
        """Upload a file over another; see :class:`Writer`."""
        condition = self._unchanged(final)
        if self._files.sha256(final) != instead_of:
            return False
        try:
            self._files.fs.put_file(str(source), final, mode="overwrite", **condition)
        except Exception as error:
            found = self._files.sha256(final)
            if found != instead_of:
                return found == sha256  # only the answer was lost; else another writer was faster
            if not condition or not _is_unknown_condition(error):
                raise
            self._put_unconditionally(source, final)
        # What differs stays: another writer may have replaced ours in turn.
        self._files.check(final, size=source.stat().st_size, sha256=sha256, remove=False)
        return True

    def _unchanged(self, final: str) -> dict[str, str]:
        """Return the condition that what is there now is still there, for stores with which fsspec can make it one.

        It is PutObject's: s3fs leaves it out from 100 MiB on, where it sends in parts.
        """
        if not _protocols(self._files.fs) <= _S3:
            return {}
        etag = (self._files.info(final) or {}).get("ETag")
        return {"IfMatch": str(etag)} if etag else {}

    def _put_unconditionally(self, source: Path, final: str) -> None:
        logger.warning(
            "The store of %s cannot write on a condition: two tasks that write the same object at the same instant may "
            "replace what the other wrote",
            self._files.uri,
        )
        self._files.fs.put_file(str(source), final, mode="overwrite")

    def put_text(self, text: bytes, final: str, *, replace: bool) -> None:
        """Upload a text; see :class:`Writer`."""
        if replace:
            self._files.fs.pipe_file(final, text)
            return
        if self._files.size(final) is not None:
            return
        try:
            self._files.fs.pipe_file(final, text, mode="create")
        except Exception:  # noqa: BLE001 - as above: another writer was faster, or the store knows no conditions
            if self._files.size(final) is None:
                self._files.fs.pipe_file(final, text)

    def text(self, final: str) -> bytes | None:
        """Read a text; see :class:`Writer`."""
        return self._files.content(final)


class AsideWriter:
    """Writes aside, reads back, and moves to the final path.

    :param files: the store's files.
    :param root: the root, below which ``.dicom/tmp`` is.
    """

    def __init__(self, files: RemoteFiles, root: str) -> None:
        self._files = files
        self._folder = f"{root}/{_TEMPORARY}"
        self._swept = False
        self._can_rename = _can_rename(files.fs)

    def put(self, source: Path, final: str, sha256: str) -> bool:
        """Write a file; see :class:`Writer`."""
        if self._files.size(final) is not None:
            return False
        size = source.stat().st_size
        with self._aside() as aside:
            self._write(source, aside, sha256)
            return self._move(aside, final, size=size, sha256=sha256)

    def replace(self, source: Path, final: str, sha256: str, instead_of: str) -> bool:
        """Put a file in the place of another; see :class:`Writer`."""
        if self._files.sha256(final) != instead_of:
            return False
        with self._aside() as aside:
            self._write(source, aside, sha256)
            self._put_over(aside, final, size=source.stat().st_size, sha256=sha256)
        return True

    def _write(self, source: Path, aside: str, sha256: str) -> None:
        with source.open("rb") as reader, self._files.fs.open(aside, "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
        self._files.check(aside, size=source.stat().st_size, sha256=sha256)

    def put_text(self, text: bytes, final: str, *, replace: bool) -> None:
        """Write a text; see :class:`Writer`."""
        if not replace and self.text(final) is not None:
            return
        size, sha256 = len(text), hashlib.sha256(text).hexdigest()
        with self._aside() as aside:
            with self._files.fs.open(aside, "wb") as writer:
                writer.write(text)
            self._files.check(aside, size=size, sha256=sha256)
            if replace:
                self._put_over(aside, final, size=size, sha256=sha256)
            else:
                self._move(aside, final, size=size, sha256=sha256)

    def text(self, final: str) -> bytes | None:
        """Read a text; see :class:`Writer`."""
        # The last look is for a writer that brought the new text in between.
        for path in (final, final + _BEFORE, final):
            if (text := self._files.content(path)) is not None:
                return text
        return None

    @contextlib.contextmanager
    def _aside(self) -> Iterator[str]:
        """Give a path to write to; nothing is there afterwards."""
        self._make_folder(self._folder)
        if not self._swept:
            self._swept = True
            self._sweep()
        path = f"{self._folder}/{int(time.time())}.{secrets.token_hex(8)}.part"
        try:
            yield path
        finally:
            self._files.discard(path)

    def _sweep(self) -> None:
        """Remove what killed writers left; what another one writes now stays."""
        oldest = time.time() - _LEFT_OVER_SECONDS
        with contextlib.suppress(Exception):  # what is left harms nobody
            for name in self._files.names(self._folder):
                match = _TEMPORARY_NAME.fullmatch(name)
                if match and int(match["begun"]) < oldest:
                    self._files.discard(f"{self._folder}/{name}")

    def _move(self, aside: str, final: str, *, size: int, sha256: str) -> bool:
        """Give a file its final name; False when that is taken."""
        self._make_folder(final.rpartition("/")[0])
        found = self._files.info(final)
        if found is not None:
            if found["type"] == "directory":  # some stores would move the file into it
                raise DestinationWriteError(
                    f"a folder lies where a file below {self._files.uri} has to be",
                    step="publish",
                    hint="Remove it, or choose another destination",
                )
            return False
        if not self._can_rename:
            return self._copy_new(aside, final, size=size, sha256=sha256)
        try:
            self._files.fs.mv(aside, final)
        except Exception:
            # Another writer may have been faster, where names are not taken twice.
            if self._files.size(final) is None:
                raise
            return False
        if self._files.info(aside) is not None and self._files.size(final) is not None:
            return False  # as above, in a store that does not say so (WebHDFS)
        if self._files.size(final) != size:
            raise DestinationWriteError(f"a file below {self._files.uri} could not be given its name", step="publish")
        return True

    def _put_over(self, aside: str, final: str, *, size: int, sha256: str) -> None:
        """Give a file its final name, whatever is there."""
        if self._can_rename:
            self._replace(aside, final)
            return
        self._make_folder(final.rpartition("/")[0])
        self._copy(aside, final)
        self._files.check(final, size=size, sha256=sha256)

    def _replace(self, aside: str, final: str) -> None:
        """Put a file in the place of another; see :meth:`text` for the moment between the two."""
        fs, before = self._files.fs, final + _BEFORE
        self._make_folder(final.rpartition("/")[0])
        if self._files.info(final) is None:
            fs.mv(aside, final)
            self._files.discard(before)
            return
        with contextlib.suppress(Exception):
            fs.mv(aside, final)
        if self._files.info(aside) is None:
            return
        # The store does not rename onto what exists (SMB, HDFS, FTP of some servers).
        self._files.discard(before)
        fs.mv(final, before)
        fs.mv(aside, final)
        self._files.discard(before)

    def _copy_new(self, aside: str, final: str, *, size: int, sha256: str) -> bool:
        """Copy to where nothing is, and leave nothing half there; False when the name is taken by now."""
        try:
            self._copy(aside, final)
        except FileExistsError:
            return False
        except BaseException:
            with contextlib.suppress(Exception):
                if self._files.size(final) is not None:
                    self._files.check(final, size=size, sha256=sha256)  # removes it, if it is not whole
            raise
        self._files.check(final, size=size, sha256=sha256)
        return True

    def _copy(self, aside: str, final: str) -> None:
        try:
            self._files.fs.cp_file(aside, final)
        except NotImplementedError:
            raise ConfigurationError(
                f"the store of {self._files.uri} can neither rename nor copy, so nothing can be published whole",
                step="publish",
                hint="Choose another destination",
            ) from None

    def _make_folder(self, folder: str) -> None:
        with contextlib.suppress(FileExistsError):  # another writer was faster
            self._files.fs.makedirs(folder, exist_ok=True)


def _can_rename(fs: object) -> bool:
    """Say whether a file system has a way of its own to move; fsspec's is a copy with wildcards, and a removal."""
    from fsspec import AbstractFileSystem

    return getattr(getattr(fs, "mv", None), "__func__", None) is not AbstractFileSystem.mv


def _is_unknown_condition(error: Exception) -> bool:
    """Say whether a store refuses an upload because it knows no conditions: S3's word for it is NotImplemented."""
    return isinstance(error, OSError) and error.errno == errno.ENOSYS
