"""Looking into the folder where the destination of a third-party move files what it gets.

Names mean nothing here: a File Daemon makes its own, below a folder per patient, so a file is known by the UID in its
head. Each file is read when it is new, or has another size or time than before, and never otherwise: such folders hold
tens of thousands of files of others. What is below the root may be named after a patient: nothing of it is logged.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import DestinationWriteError, DicomError
from airflow_provider_varian.receiver.file_meta import read_file_meta
from airflow_provider_varian.receiver.head import DataSetError
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.verify import Inspection, inspect

if TYPE_CHECKING:
    from airflow_provider_varian.retrieval.destination import DestinationPath

#: Enough for preamble and file meta information as anybody writes them.
_HEAD_BYTES: Final = 8192
#: What a store that fsspec knows may say of when, or as what, a file was written.
_WRITTEN: Final = ("mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag")

#: Size and time of a file: it is read again when they differ.
Stamp = tuple[int, str]


@dataclass(slots=True)
class _Seen:
    """What is known of one file.

    :param stamp: its size and time when it was read.
    :param since: when it was first seen so, by the monotonic clock.
    :param sop_instance_uid: what its head names; empty when it is no DICOM file, or not yet.
    :param old: it was there before, and may hold an earlier version of its object.
    :param inspection: what a look at the whole of it told; None before that.
    :param problem: why it is not whole.
    """

    stamp: Stamp
    since: float
    sop_instance_uid: str
    old: bool = False
    inspection: Inspection | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A whole file.

    :param path: where it is below the root.
    :param inspection: its UIDs, size and hashes.
    :param others: how many more files hold the same instance.
    """

    path: PurePosixPath = field(repr=False)
    inspection: Inspection
    others: int = 0


class _Files(Protocol):
    """The files below a root."""

    def stamps(self) -> Mapping[str, Stamp]:
        """Return size and time of each, by relative path."""

    def head(self, name: str) -> bytes:
        """Return the first bytes of one."""


class WatchedFolder:
    """A folder that somebody else writes to, and we read.

    :param root: a path, a URI, or a ``UPath``.
    :param quiet_seconds: how long a file must have been as it is before it is looked at as a whole: element lengths
        alone do not show that a writer stopped between two elements.
    :param cancellation: ends the reading from outside.
    :raises ConfigurationError: when it is no usable path.
    """

    def __init__(
        self,
        root: str | Path | DestinationPath,
        *,
        quiet_seconds: float,
        cancellation: Cancellation | None = None,
    ) -> None:
        self._place = Destination(root)
        self._files: _Files = _LocalFiles(Path(self._place.uri)) if self._place.is_local else _RemoteFiles(root)
        self._quiet = quiet_seconds
        self._cancellation = cancellation or Cancellation()
        self._seen: dict[str, _Seen] = {}
        self._names: dict[str, set[str]] = {}
        self._looked = False
        #: When a file that matters was gone, or one without a head was new.
        self._moved = -math.inf

    @property
    def uri(self) -> str:
        """The root as text."""
        return self._place.uri

    def refresh(self, wanted: Iterable[str], *, now: float) -> float:
        """Read what is new or changed.

        :param wanted: SOP Instance UIDs that matter.
        :param now: the monotonic clock.
        :return: when a file that matters, or may come to matter, was last seen to be new, changed or gone, by that
            clock; minus infinity for never.
        :raises DestinationWriteError: when the folder cannot be listed.
        :raises CancelledError: cancelled.
        """
        wanted = set(wanted)
        stamps = self._stamps()
        for name in [name for name in self._seen if name not in stamps]:
            if self._forget(name) in wanted:
                self._moved = now
        for name, stamp in stamps.items():
            before = self._seen.get(name)
            if before is not None and before.stamp == stamp:
                continue
            self._cancellation.raise_if_cancelled()
            uid = self._uid_of(name)
            if uid is None:
                continue  # gone again, or still locked by its writer: the next look tells
            self._forget(name)
            self._seen[name] = _Seen(stamp, now, uid)
            self._names.setdefault(uid, set()).add(name)
            # A file without a head yet may become one of ours; at the first look it lay there before.
            if not uid and self._looked:
                self._moved = now
        self._looked = True
        ours = (self._seen[name] for uid in wanted for name in self._names.get(uid, ()))
        return max([self._moved, *(seen.since for seen in ours if not seen.old)])

    def disregard(self, uids: Iterable[str]) -> None:
        """Take the files that hold some instances now for earlier versions: only what is written from here on counts.

        :param uids: SOP Instance UIDs.
        """
        for uid in uids:
            for name in self._names.get(uid, ()):
                self._seen[name].old = True

    def whole(self, uid: str, *, sop_class_uid: str, now: float) -> FoundFile | None:
        """Return a file that holds an instance, is whole, and has been as it is for long enough.

        :param uid: its SOP Instance UID.
        :param sop_class_uid: what it must be; empty when that is not known.
        :param now: the monotonic clock.
        """
        names = [name for name in sorted(self._names.get(uid, ())) if not self._seen[name].old]
        for name in names:
            seen = self._seen[name]
            if now - seen.since < self._quiet:
                continue
            if seen.inspection is None and not seen.problem:
                self._cancellation.raise_if_cancelled()
                self._inspect(name, seen)
            found = seen.inspection
            if found is not None and sop_class_uid not in ("", found.sop_class_uid):
                seen.inspection, seen.problem = None, "is of another SOP class"
            elif found is not None:
                return FoundFile(path=PurePosixPath(name), inspection=found, others=len(names) - 1)
        return None

    def hashes(self, uid: str) -> set[str]:
        """Return the SHA-256 of each whole file that holds an instance, as it was at the last look."""
        found: set[str] = set()
        for name in self._names.get(uid, ()):
            seen = self._seen[name]
            if seen.inspection is None and not seen.problem:
                self._inspect(name, seen)
            if seen.inspection is not None:
                found.add(seen.inspection.sha256_file)
        return found

    def problem_of(self, uid: str) -> str:
        """Say why what is there of an instance does not count; empty when nothing is there."""
        for name in sorted(self._names.get(uid, ())):
            seen = self._seen[name]
            if seen.old:
                return "a file of it was there before and has not changed since, so it may be an earlier version"
            return f"a file of it is there, but {seen.problem or 'is still being written'}"
        return ""

    def _inspect(self, name: str, seen: _Seen) -> None:
        try:
            with self._private_copy(name) as path:
                inspection = inspect(path)
            # Else it was written to in this moment: the next look finds it changed.
            seen.inspection = inspection if inspection.file_bytes == seen.stamp[0] else None
        except DataSetError as error:
            seen.problem = f"is not whole: {error}"
        except (OSError, DicomError) as error:
            seen.problem = f"cannot be read ({type(error).__name__})"

    @contextmanager
    def _private_copy(self, name: str) -> Iterator[Path]:
        """Give a file as one that nobody else writes to: to read a mapped file that shrinks would end this process."""
        with self._place.local_copy(PurePosixPath(name)) as path:
            if not self._place.is_local:
                yield path
                return
            with TemporaryDirectory(prefix="dicom-") as folder:
                yield Path(shutil.copyfile(path, Path(folder) / "object"))

    def _forget(self, name: str) -> str:
        before = self._seen.pop(name, None)
        if before is None:
            return ""
        self._names[before.sop_instance_uid].discard(name)
        return before.sop_instance_uid

    def _stamps(self) -> Mapping[str, Stamp]:
        try:
            return self._files.stamps()
        except Exception as error:  # noqa: BLE001 - each store raises what its client library raises
            raise DestinationWriteError(
                f"the folder {self.uri} cannot be read: {type(error).__name__}",
                step="verify_path",
                hint="Check that it is there, mounted on this machine, and readable by this user",
            ) from None

    def _uid_of(self, name: str) -> str | None:
        """Return the SOP Instance UID that a file's head names, empty when none; None when it cannot be read."""
        try:
            return read_file_meta(self._files.head(name)).sop_instance_uid
        except DataSetError:
            return ""
        except Exception:  # noqa: BLE001 - each store raises what its client library raises
            return None


class _LocalFiles:
    def __init__(self, root: Path) -> None:
        self._root = root

    def stamps(self) -> Mapping[str, Stamp]:
        return dict(self._walk(""))

    def _walk(self, below: str) -> Iterator[tuple[str, Stamp]]:
        with os.scandir(self._root / below) as entries:
            found: Sequence[os.DirEntry[str]] = list(entries)
        for entry in found:
            name = f"{below}/{entry.name}" if below else entry.name
            try:
                # A link to a folder may lead in a circle.
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(name)
                elif entry.is_file():
                    about = entry.stat()
                    yield name, (about.st_size, str(about.st_mtime_ns))
            except (FileNotFoundError, PermissionError):
                continue  # moved away in between, or not for us; what is missing then is said to be missing

    def head(self, name: str) -> bytes:
        with (self._root / name).open("rb") as file:
            return file.read(_HEAD_BYTES)


class _RemoteFiles:
    def __init__(self, root: Any) -> None:
        if isinstance(root, str):
            from upath import UPath

            root = UPath(root)
        self._fs: Any = root.fs
        self._root = str(root.path).rstrip("/")

    def stamps(self) -> Mapping[str, Stamp]:
        # It may remember folders, and would not see what others wrote.
        self._fs.invalidate_cache()
        found = self._fs.find(self._root or "/", detail=True)
        start = len(self._root.strip("/"))
        return {str(path).strip("/")[start:].strip("/"): _stamp(about) for path, about in found.items()}

    def head(self, name: str) -> bytes:
        with self._fs.open(f"{self._root}/{name}", "rb") as file:
            return bytes(file.read(_HEAD_BYTES))


def _stamp(about: Mapping[str, Any]) -> Stamp:
    return int(about.get("size") or 0), " ".join(str(about[key]) for key in _WRITTEN if about.get(key) is not None)
