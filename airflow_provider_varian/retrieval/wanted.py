"""What the retrievals that share a standing receiver ask for, so that none takes what another one waits for.

One small document per retrieval, ``wanted/{retrieval ID}.json`` in the spool or in the store: the UIDs that it asks a
C-MOVE for, which of them have not come, and to which AE title they are sent. It is written before the peer is asked, so
who sees a copy and looks here afterwards sees everybody who may have asked for it. It outlives its retrieval for a
while: what a killed try asked for is its retry's. Of the objects UIDs only; a hint among ourselves, on which no outcome
depends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Protocol

from airflow_provider_varian.receiver.claim_lock import is_running
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval.destination import Destination

logger = logging.getLogger(__name__)

#: For how long after the last sign of life of a retrieval an object may still be the answer to what it asked: the
#: default ``retrieve_deadline`` of a connection, since a peer goes on sending to a task that was killed.
ANSWERS_SECONDS: Final = 3600.0
#: Where no lock tells who lives: somebody who did not write for so long does not.
_LIVES_SECONDS: Final = 900.0
#: How often one who waits says that it lives.
_SIGN_SECONDS: Final = 300.0
#: Documents without a sign of life for so long are removed.
_KEPT_SECONDS: Final = 86400.0
_SUFFIX: Final = ".json"
_FOLDER: Final = PurePosixPath("wanted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What one retrieval asked for.

    :param ae_title: to which AE title it has them sent.
    :param asked: SOP Instance UIDs that it has asked for, or is about to.
    :param waits: those of them that have not come.
    :param whole: UIDs of series and studies that it asked for as a whole.
    :param began: when it began, seconds since the epoch.
    :param seen: its last sign of life.
    :param ended: it has come to its end by itself.
    :param lives: it is running.
    """

    ae_title: str
    asked: frozenset[str]
    waits: frozenset[str]
    whole: frozenset[str]
    began: float
    seen: float
    ended: bool
    lives: bool

    def waits_for(self, uid: str) -> bool:
        """Say whether it runs, and an instance has not come that it asked for."""
        return self.lives and uid in self.waits

    def explains(self, uid: str, begun: float, parents: Collection[str] = (), *, skew: float = 0.0) -> bool:
        """Say whether a copy may have come because it asked.

        :param uid: the SOP Instance UID.
        :param begun: when the receiver began to receive it.
        :param parents: the UIDs of its series and study, as far as they are known.
        :param skew: how many seconds the receiver's clock may be behind ours, or ahead.
        """
        if uid not in self.asked and self.whole.isdisjoint(parents):
            return False
        return self.began <= begun + skew and (self.lives or begun <= self.seen + ANSWERS_SECONDS + skew)


class Documents(Protocol):
    """Where the documents are."""

    def names(self) -> list[str]:
        """Return their names."""

    def read(self, name: str) -> str | None:
        """Return one; ``None`` when it is gone."""

    def write(self, name: str, text: str) -> None:
        """Write one, whole or not at all."""

    def remove(self, name: str) -> None:
        """Remove one, if it is there."""

    def lives(self, retrieval_id: str, seen: float) -> bool:
        """Say whether a retrieval that has not ended is running."""


class Wanted:
    """The document of one retrieval, and a look at those of the others.

    :param documents: where they are.
    :param retrieval_id: whose own one is.
    :param ae_title: to which AE title its peer sends. What is sent to others is not its matter.
    """

    def __init__(self, documents: Documents, retrieval_id: str, *, ae_title: str) -> None:
        self._documents = documents
        self._id = retrieval_id
        self._ae_title = ae_title
        self._began = time.time()
        self._written = 0.0
        self._said: dict[str, Any] = {}

    def tell(self, *, asked: Collection[str], waits: Collection[str], whole: Collection[str]) -> None:
        """Write what is asked for and waited for; nothing when that was said a short time ago."""
        said = {"asked": sorted(asked), "waits": sorted(waits), "whole": sorted(whole)}
        if said != self._said:
            self._write(said, ended=False)
            self._said = said
        self.give_sign()

    def give_sign(self) -> None:
        """Give a sign of life, when the last one is a while ago; nothing when nothing was said."""
        # Also when the clock was set back.
        if self._said and not 0 <= time.time() - self._written <= _SIGN_SECONDS:
            self._write(self._said, ended=False)

    def end(self) -> None:
        """Say that it is over; harmless when nothing was said."""
        if self._said:
            self._write(self._said | {"waits": []}, ended=True)
            self._said = {}

    def resume(self) -> Want | None:
        """Go on with what a killed try said, and return it: what it asked for may still come, and is ours."""
        text = self._documents.read(f"{self._id}{_SUFFIX}")
        before = self._parsed(text, self._id) if text is not None else None
        if before is None or before.ended:
            return None
        self._began = min(self._began, before.began)
        return before

    def others(self) -> list[Want]:
        """Return what the other retrievals ask for, and asked for lately, to be sent where ours is."""
        return [want for _, want in self._others() if want.ae_title == self._ae_title]

    def sweep(self) -> None:
        """Remove what was left long ago."""
        oldest = time.time() - _KEPT_SECONDS
        for name, want in self._others():
            if not want.lives and want.seen < oldest:
                self._documents.remove(name)

    def _others(self) -> Iterator[tuple[str, Want]]:
        for name in self._documents.names():
            retrieval_id = name.removesuffix(_SUFFIX)
            if retrieval_id == self._id or retrieval_id == name:
                continue
            text = self._documents.read(name)
            if text is not None and (want := self._parsed(text, retrieval_id)) is not None:
                yield name, want

    def _parsed(self, text: str, retrieval_id: str) -> Want | None:
        try:
            said = json.loads(text)
            seen, ended = float(said["seen"]), bool(said["ended"])
            return Want(
                ae_title=str(said["ae_title"]),
                asked=frozenset(said["asked"]),
                waits=frozenset(said["waits"]),
                whole=frozenset(said["whole"]),
                began=float(said["began"]),
                seen=seen,
                ended=ended,
                lives=not ended and self._documents.lives(retrieval_id, seen),
            )
        except (ValueError, TypeError, KeyError):
            logger.warning("What retrieval %s waits for cannot be read; it is left out", retrieval_id)
            return None

    def _write(self, said: dict[str, Any], *, ended: bool) -> None:
        now = time.time()
        about = {"ae_title": self._ae_title, "began": self._began, "seen": now, "ended": ended}
        text = json.dumps({**about, **said}, separators=(",", ":"))
        self._documents.write(f"{self._id}{_SUFFIX}", text)
        self._written = now


class SpoolDocuments:
    """In a spool of this host, where the claim lock tells who lives.

    :param spool: the spool.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._folder = spool.wanted
        self._read: dict[str, tuple[tuple[int, int, int], str]] = {}

    def names(self) -> list[str]:
        """Return their names; see :class:`Documents`."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(self._folder))
        return []

    def read(self, name: str) -> str | None:
        """Return one, as it was read before when it has not changed; see :class:`Documents`."""
        path = self._folder / name
        try:
            found = path.stat()
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            if (before := self._read.get(name)) is not None and before[0] == version:
                return before[1]
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None  # gone, or none of ours
        self._read[name] = (version, text)
        return text

    def write(self, name: str, text: str) -> None:
        """Write one by a rename; see :class:`Documents`."""
        with self._spool.usable():
            temporary = self._folder / f".{secrets.token_hex(8)}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, self._folder / name)

    def remove(self, name: str) -> None:
        """Remove one; see :class:`Documents`."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)

    def lives(self, retrieval_id: str, seen: float) -> bool:
        """Say whether a try of it holds the claim lock; see :class:`Documents`."""
        return is_running(self._spool, retrieval_id)


class StoreDocuments:
    """In a store, which knows no locks: who wrote a short time ago lives.

    :param store: the store.
    """

    def __init__(self, store: Destination) -> None:
        self._store = store

    def names(self) -> list[str]:
        """Return their names; see :class:`Documents`."""
        return [path.name for path in self._store.names_beside(_FOLDER / "-", "")]

    def read(self, name: str) -> str | None:
        """Return one; see :class:`Documents`."""
        return self._store.read_text(_FOLDER / name)

    def write(self, name: str, text: str) -> None:
        """Write one; see :class:`Documents`."""
        self._store.write_text(_FOLDER / name, text)

    def remove(self, name: str) -> None:
        """Remove one as it was read; see :class:`Documents`."""
        if (text := self.read(name)) is not None:
            digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
            self._store.remove(_FOLDER / name, sha256=digest)

    def lives(self, retrieval_id: str, seen: float) -> bool:
        """Say whether it gave a sign of life lately; see :class:`Documents`."""
        return time.time() < seen + _LIVES_SECONDS
