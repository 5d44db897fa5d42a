"""Notes of what was published from a spool, so that a restart knows what of a store is ours.

::

    {spool}/published/{store}/{shard}/{name}.begun   it may be in the store, whole
    {spool}/published/{store}/{shard}/{name}         it is in the store, and was compared
    {spool}/published/{store}/{shard}/{name}.gone    it is not in the store any more; claims of it may be

    {spool}/published/{store}.lock                   held by the process that publishes there
    {spool}/published/{store}.id                     what this spool is called there, by chance

A note is a file whose name changes by rename, so it is in one state at each moment; it holds the SHA-256 of the
object. ``{store}`` is a digest of the store's URI: who publishes elsewhere begins anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from airflow_provider_varian.receiver.folders import make_private_folder
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spooled import SpooledObject, spooled

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_STORE_DIGITS: Final = 16
_PUBLISHER: Final = re.compile(r"[0-9a-f]{16}")
#: A folder whose time is older than this, at the time of a look, changes it with its next change.
_TICK_SECONDS: Final = 1.0


class State(StrEnum):
    """What a note says; the end of its name."""

    BEGUN = ".begun"
    PUBLISHED = ""
    GONE = ".gone"


@dataclass(frozen=True, slots=True)
class Note:
    """One note.

    :param folder: of its shard.
    :param name: file name of the object.
    :param state: what it says.
    """

    folder: Path
    name: str
    state: State

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / f"{self.name}{self.state}"

    @property
    def age_seconds(self) -> float:
        """Since it was last changed."""
        return time.time() - self.path.stat().st_mtime

    def sha256(self) -> str | None:
        """Return the SHA-256 of the object; ``None`` when a power failure took it."""
        text = self.path.read_text(encoding="ascii", errors="replace").strip()
        return text if _SHA256.fullmatch(text) else None

    def becomes(self, state: State) -> Note:
        """Change what it says."""
        changed = Note(self.folder, self.name, state)
        os.utime(self.path)
        os.rename(self.path, changed.path)
        return changed

    def forget(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)


class Notes:
    """The notes of one spool and one store.

    :param spool: the spool.
    :param uri: the store.
    """

    def __init__(self, spool: Spool, uri: str) -> None:
        self.root = spool.root / "published" / hashlib.sha256(uri.encode()).hexdigest()[:_STORE_DIGITS]

    def lock(self) -> int | None:
        """Return an open lock that one process holds for this spool and store; ``None`` when another one has it."""
        make_private_folder(self.root)
        path = self.root.with_suffix(".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    @functools.cached_property
    def publisher(self) -> str:
        """What whoever publishes from this spool is called in the store, also after a restart."""
        path = self.root.with_suffix(".id")
        with contextlib.suppress(FileNotFoundError):
            if _PUBLISHER.fullmatch(text := path.read_text(encoding="ascii", errors="replace")):
                return text
        make_private_folder(path.parent)
        made, temporary = secrets.token_hex(8), path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, made.encode("ascii"))
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        return made

    def begin(self, item: SpooledObject, sha256: str) -> Note:
        """Note that an object is about to be brought to the store."""
        folder = self.root / item.path.parent.name
        make_private_folder(folder)
        note = Note(folder, item.path.name, State.BEGUN)
        descriptor = os.open(note.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, sha256.encode("ascii"))
        finally:
            os.close(descriptor)
        return note

    def of_shard(self, shard: str) -> dict[str, Note]:
        """Return the notes of the objects of one shard, by their names."""
        folder = self.root / shard
        with contextlib.suppress(FileNotFoundError):
            return {note.name: note for name in os.listdir(folder) if (note := _note(folder, name))}
        return {}

    def all(self) -> Iterator[Note]:
        """Iterate over all notes, as they are when it comes to their shard."""
        try:
            shards = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return
        for shard in shards:
            yield from self.of_shard(shard).values()


class Unpublished:
    """What lies in a spool without a note that it was published. Used by the process alone that makes the notes.

    Objects that nobody claims stay for days, and one looks after each object that comes: a folder that is certain not
    to have changed is not listed again.

    :param spool: the spool.
    :param notes: of the store.
    """

    def __init__(self, spool: Spool, notes: Notes) -> None:
        self._spool = spool
        self._notes = notes
        #: By shard: the times of its two folders, and what it held then.
        self._listed: dict[str, tuple[tuple[int, int], list[SpooledObject]]] = {}

    def __iter__(self) -> Iterator[SpooledObject]:
        """Iterate over the objects, in no order."""
        for shard in os.listdir(self._spool.new):
            yield from self._of_shard(shard)

    def _of_shard(self, shard: str) -> list[SpooledObject]:
        folder, notes = self._spool.new / shard, self._notes.root / shard
        now = time.time_ns()
        changed = _changed(folder), _changed(notes)
        if (before := self._listed.get(shard)) is not None and before[0] == changed:
            return before[1]
        noted = set(os.listdir(notes)) if changed[1] else set()
        found = [
            item
            for name in sorted(os.listdir(folder))
            if f"{name}{State.PUBLISHED}" not in noted and f"{name}{State.GONE}" not in noted
            if (item := spooled(folder / name)) is not None
        ]
        # Two changes within one tick of the clock leave one time.
        if max(changed) + _TICK_SECONDS * 1e9 < now:
            self._listed[shard] = changed, found
        else:
            self._listed.pop(shard, None)
        return found


def _changed(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0  # no note was made yet


def _note(folder: Path, file_name: str) -> Note | None:
    for state in (State.BEGUN, State.GONE, State.PUBLISHED):
        name = file_name.removesuffix(state)
        if file_name.endswith(state) and spooled(Path(name)) is not None:
            return Note(folder, name, state)
    return None
