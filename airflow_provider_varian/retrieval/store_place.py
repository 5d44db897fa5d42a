"""The store to which a standing receiver on another host publishes: copies are found in it, and fetched.

What is fetched lies in the local spool as claimed, verified, before the store is told that it was (``claims/{name}/
{retrieval ID}``): the receiver then removes it. A kill in between leaves both, and the retry takes the local one. A
retry on another host finds no local one; where the receiver has removed the store's by then, the peer is asked again.

Two retrievals that look at the same time may fetch the same copy. Each of them asked for it, so nothing is amiss.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Final

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import DestinationWriteError, ReceiverUnavailableError
from airflow_provider_varian.receiver.head import DataSetError
from airflow_provider_varian.receiver.progress import Progress
from airflow_provider_varian.receiver.spool import Owner, Spool
from airflow_provider_varian.receiver.spooled import SpooledObject, spooled
from airflow_provider_varian.retrieval.addressee import was_sent_to
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.read_store import ReadStore
from airflow_provider_varian.retrieval.standing_place import Copy
from airflow_provider_varian.retrieval.store_progress import StoreProgress
from airflow_provider_varian.retrieval.verify import sha256_of
from airflow_provider_varian.uids import CHANGING_STORAGE

#: A look is a listing per folder: of a store that bills each.
_LOOK_SECONDS: Final = 2.0
#: An object is published about a second after it was received, and then found by the next look.
_LAG_SECONDS: Final = 5.0
#: Where the receiver does not say how far it is: others' objects may be in front, or a large one, or the store was
#: away: the longest pause of a publisher, after which it tries again, is as long.
_UNSEEN_SECONDS: Final = 300.0
#: Hosts that keep their clocks by NTP are much closer than this.
_SKEW_SECONDS: Final = 2.0
_PIECE_BYTES: Final = 1 << 20
_OBJECTS: Final = PurePosixPath("objects")
_CLAIMS: Final = PurePosixPath("claims")


class StorePlace:
    """A standing receiver's store.

    :param store: the store.
    :param name: what the receiver is called.
    :param peer: who sends, and to which AE title: what was sent to another is not claimed.
    :param spool: the local spool, into which copies are fetched.
    :param owner: our writer in it.
    :param retrieval_id: who claims.
    :param ledger: tells the class of an instance, as the peer lists it.
    :param cancellation: ends waits.
    """

    look_seconds = _LOOK_SECONDS
    lag_seconds = _LAG_SECONDS
    unseen_seconds = _UNSEEN_SECONDS
    skew_seconds = _SKEW_SECONDS

    def __init__(
        self,
        store: ReadStore,
        *,
        name: str,
        peer: Peer,
        spool: Spool,
        owner: Owner,
        retrieval_id: str,
        ledger: Ledger,
        cancellation: Cancellation,
    ) -> None:
        self._store = store
        self._name = name
        self._peer = peer
        self._spool = spool
        self._owner = owner
        self._id = retrieval_id
        self._ledger = ledger
        self._cancellation = cancellation
        self._progress = StoreProgress(store, skew_seconds=self.skew_seconds)

    @property
    def progress(self) -> Progress | None:
        """How far the receiver is with publishing, as it said by the last look; ``None`` when it says nothing."""
        return self._progress.valid()

    @property
    def where(self) -> str:
        """What it is called in messages."""
        return f"the standing receiver {self._name!r}"

    def open(self) -> None:
        """See that the store can be read."""
        with self._using():
            self._store.size(_OBJECTS / "00" / "-")

    def copies(self, uids: Collection[str], whole: Collection[str]) -> Iterable[Copy]:
        """List the folders of these instances. What nobody listed is not found: that would be a look at all of it."""
        # Before the listings: what was there by then they show.
        with self._using():
            self._progress.look()
        for shard in sorted({self._spool.shard(uid).name for uid in uids}):
            self._cancellation.raise_if_cancelled()
            with self._using():
                names = self._store.names_beside(_OBJECTS / shard / "-", "")
            for item in map(spooled, map(Path, names)):
                if item is not None and item.begun is not None and item.sop_instance_uid in uids:
                    yield Copy(
                        name=item.path.name,
                        sop_instance_uid=item.sop_instance_uid,
                        begun=item.begun,
                        may_change=self._may_change(item.sop_instance_uid),
                    )

    def arriving(self) -> Iterable[str]:
        """Return what is being received, as its receiver said by the last look."""
        progress = self.progress
        return () if progress is None else progress.arriving

    def pause(self, seconds: float) -> None:
        """Wait; see :class:`.standing_arrivals.Place`."""
        self._cancellation.pause(seconds)

    def bring(self, copy: Copy) -> SpooledObject | None:
        """Fetch a copy, verify it, then claim it; see :class:`.standing_arrivals.Place`."""
        self._cancellation.raise_if_cancelled()
        path = self._path(copy.sop_instance_uid, copy.name)
        with self._using():
            claims = {claim.name for claim in self._store.names_beside(_CLAIMS / copy.name / "-", "")}
            if claims - {self._id} or (claims and self._is_here(copy.sop_instance_uid)):
                return None
            try:
                fetched = self._fetch(path)
            except DestinationWriteError:
                if self._store.size(path) is None:
                    return None  # claimed by somebody else meanwhile, and removed
                raise
            if not self._is_for_us(fetched):
                return None
            item = self._spool.adopt(self._id, fetched, copy.name)
            self._claim(item)
        return item

    def resume(self) -> None:
        """Claim what a killed try has fetched and did not come to claim."""
        with self._using():
            for item in self._spool.claimed(self._id):
                if self._store.size(self._path(item.sop_instance_uid, item.path.name)) is not None:
                    self._claim(item)

    def _claim(self, item: SpooledObject) -> None:
        """Tell the store that a verified copy is durable here."""
        self._store.write_text(_CLAIMS / item.path.name / self._id, "fetched\n")

    def _path(self, uid: str, name: str) -> PurePosixPath:
        return _OBJECTS / self._spool.shard(uid).name / name

    def _is_here(self, uid: str) -> bool:
        entry = self._ledger.entries.get(uid)
        return entry is not None and entry.is_here

    def _fetch(self, path: PurePosixPath) -> Path:
        """Copy an object into our folder of the local spool, durably; read the store's again to compare."""
        local = self._owner.folder / self._owner.unique()
        with self._spool.usable():
            os.close(os.open(local, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            self._store.reading(path, lambda reader: self._write(reader, local))
            size, sha256 = self._store.reading(path, _size_and_sha256)
            with self._spool.usable():
                is_same = size == local.stat().st_size and sha256 == sha256_of(local)
            if not is_same or self._store.size(path) != size:
                raise DestinationWriteError(f"an object of {self._store.uri} reads differently the second time")
        except BaseException:
            with suppress(OSError):
                local.unlink(missing_ok=True)
            raise
        return local

    def _is_for_us(self, fetched: Path) -> bool:
        """Say whether a file was sent to us; else remove it: its name does not tell, so it had to be fetched."""
        receipt = None
        with suppress(DataSetError), self._spool.usable():
            receipt = SpooledObject(place=str(fetched), sop_instance_uid="").receipt()
        if receipt is not None and was_sent_to(self._peer, receipt):
            return True
        with self._spool.usable():
            fetched.unlink(missing_ok=True)
        return False

    def _write(self, reader: IO[bytes], local: Path) -> None:
        """Write a file durably, from its start. What cannot be read is the store's fault, else it is the spool's."""
        with self._spool.usable():
            descriptor = os.open(local, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as writer:
            while piece := reader.read(_PIECE_BYTES):
                with self._spool.usable():
                    writer.write(piece)
            with self._spool.usable():
                writer.flush()
                os.fsync(writer.fileno())

    def _may_change(self, uid: str) -> bool:
        entry = self._ledger.entries.get(uid)
        return entry is None or not entry.sop_class_uid or entry.sop_class_uid in CHANGING_STORAGE

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except DestinationWriteError as error:
            raise ReceiverUnavailableError(
                f"the store of {self.where} cannot be used: {error.what}", step="receiver", hint=error.hint
            ) from None


def _size_and_sha256(reader: IO[bytes]) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    while piece := reader.read(_PIECE_BYTES):
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()
