"""The spool: a maildir in which received objects lie until a retrieval claims them.

::

    root/
      lock                            held for the moments in which owners come and go
      standing                        a standing receiver was here: no task sweeps what nobody claims
      tmp/{owner}/                    fragments of one running writer (:mod:`.writers`)
      new/{shard}/{UID}.{unique}.dcm  durable, whole, acknowledged; claimed by nobody
      claimed/{retrieval ID}/         what a retrieval has taken and not yet published
      claimed/{retrieval ID}.lock     one of its tries is running (:mod:`.claim_lock`)
      wanted/                         what retrievals wait for
      broken/                         acknowledged, but no data set: kept for a person to look at

An object is written to ``tmp``, made durable, renamed into ``new``, and the folder is made durable;
only then does its sender hear 0x0000. Each move is a rename, so at each moment an object is in one
place, whole, and a kill loses nothing. There is no database: a file is its own receipt
(:mod:`airflow_provider_varian.receiver.file_meta`).

``unique`` begins with the owner, the writer that received the object, and tells when its reception began. As long as
a writer lives that belongs to one retrieval, what it received is its own; afterwards anybody may claim it. What a
*standing* writer received may be claimed by anybody at once. Folders are for their owner alone (0700), files too
(0600).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver.file_meta import FileMeta
from airflow_provider_varian.receiver.folders import make_private_folder, sync_folder
from airflow_provider_varian.receiver.head import DataSetError
from airflow_provider_varian.receiver.spooled import SpooledObject, receipt_of, spooled, unique_part
from airflow_provider_varian.receiver.writers import Writers
from airflow_provider_varian.uids import is_uid

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What was found when the spool was looked over.

    :param swept_fragments: how many fragments of dead writers were removed.
    :param without_receipt: files of ``new`` that do not say what they are.
    :param unclaimed: how many objects nobody has claimed.
    """

    swept_fragments: int
    without_receipt: tuple[Path, ...]
    unclaimed: int = 0


class Spool:
    """One spool directory, shared by the processes of one host.

    :param root: the directory; created for its owner alone when it does not exist.
    :raises ReceiverUnavailableError: when it cannot be created or used.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self.new = self.root / "new"
        self.broken = self.root / "broken"
        self.wanted = self.root / "wanted"
        self._tmp = self.root / "tmp"
        self._claimed = self.root / "claimed"
        self._writers = Writers(self._tmp)
        # By the first byte of the SHA-256 of a UID.
        self._shards = tuple(self.new / f"{number:02x}" for number in range(0x100))
        with self.usable():
            for folder in (self.root, self._tmp, self.new, self._claimed, self.wanted, self.broken):
                make_private_folder(folder)

    def register(self, *, standing: bool = False, tls: bool = False) -> Owner:
        """Come to life as a writer: a private folder for fragments, and a lock that dies with us.

        :param standing: what we receive may be claimed by anybody, also while we live.
        :param tls: we receive over TLS alone.
        """
        with self.usable(), self.locked():
            self._make_shards()
            folder, descriptor = self._writers.enter(standing=standing, tls=tls)
            return Owner(spool=self, name=folder.name, folder=folder, descriptor=descriptor)

    def has_standing(self) -> bool:
        """Say whether a standing writer lives: somebody receives into this spool for whoever asks."""
        with self.usable():
            return any(True for _ in self._writers.standing())

    def has_ever_stood(self) -> bool:
        """Say whether a standing writer has ever lived here: how long its objects are kept is its receiver's to say."""
        with self.usable():
            return self._writers.has_ever_stood()

    def has_standing_in_clear(self) -> bool:
        """Say whether a standing writer lives that does not receive over TLS alone."""
        with self.usable():
            return not all(self._writers.has_tls(name) for name in self._writers.standing())

    def arriving(self) -> Iterator[FileMeta]:
        """Iterate over the receipts of what standing writers are receiving at this moment.

        What has no receipt yet, or is gone by now, is left out.
        """
        for path in self.fragments():
            with contextlib.suppress(DataSetError, OSError):
                yield receipt_of(path)

    def fragments(self) -> list[Path]:
        """Return the files that standing writers have begun and not ended."""
        with self.usable():
            return [path for name in self._writers.standing() for path in self._writers.fragments(name)]

    def free_bytes(self) -> int:
        """Return how much this process may still write to the spool's file system.

        :raises OSError: when that cannot be told.
        """
        there = os.statvfs(self.root)
        return there.f_bavail * there.f_frsize

    def _make_shards(self) -> None:
        """Make all shards durable before anything is received.

        Made when first needed, one writer could acknowledge an object in a shard whose own entry another
        writer has made but not yet synced.
        """
        there = set(os.listdir(self.new))
        for shard in self._shards:
            if shard.name not in there:
                shard.mkdir(mode=0o700, exist_ok=True)
        sync_folder(self.new)

    def shard(self, sop_instance_uid: str) -> Path:
        """Return the folder of ``new`` in which objects of this UID lie.

        :raises ValueError: when it is no UID; nothing else may become a path.
        """
        if not is_uid(sop_instance_uid):
            raise ValueError("no UID")
        return self._shards[hashlib.sha256(sop_instance_uid.encode("ascii")).digest()[0]]

    def reconcile(self) -> Reconciliation:
        """Sweep the fragments of dead writers and name the files that have no receipt.

        Nothing that was acknowledged is touched.
        """
        swept = self.sweep()
        unclaimed, without = 0, []
        for item in self.unclaimed():
            unclaimed += 1
            if not _has_receipt(item):
                without.append(item.path)
        for path in without:
            logger.warning("Spool: %s does not say who sent it; it stays where it is", path)
        return Reconciliation(swept_fragments=swept, without_receipt=tuple(without), unclaimed=unclaimed)

    def sweep(self) -> int:
        """Remove the fragments of dead writers, which were never acknowledged; return how many that were."""
        with self.usable(), self.locked():
            swept = self._writers.sweep()
        if swept:
            logger.info("Spool %s: removed %d fragments that were never acknowledged", self.root, swept)
        return swept

    def unclaimed(self, uids: Collection[str] | None = None) -> Iterator[SpooledObject]:
        """Iterate over the objects that nobody has claimed.

        :param uids: only these SOP Instance UIDs; ``None`` for all.
        """
        shards = sorted(self.new.iterdir()) if uids is None else sorted({self.shard(uid) for uid in uids})
        for shard in shards:
            for item in self.objects_in(shard):
                if uids is None or item.sop_instance_uid in uids:
                    yield item

    def objects_in(self, folder: Path) -> Iterator[SpooledObject]:
        """Iterate over the objects in one folder, by name; one that does not exist has none."""
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return
        for name in names:
            if (item := spooled(folder / name)) is not None:
                yield item

    def may_claim(self, item: SpooledObject, *, owner: str | None = None) -> bool:
        """Say whether an object may be claimed by anybody, or by the claimer whose own writer is ``owner``.

        What a writer has received that lives and belongs to one retrieval is its own.
        """
        writer = item.owner
        return writer == owner or self._writers.is_standing(writer) or not self._writers.lives(writer)

    def take(self, retrieval_id: str, item: SpooledObject, *, durably: bool = False) -> SpooledObject | None:
        """Claim one object for a retrieval, by rename; ``None`` when somebody else was faster.

        :param durably: make its new place durable too. For what another process received: when it is claimed before
            that one has synced the folder, what is synced then is a folder in which it is not any more.
        """
        with self.usable():
            folder = self._claim_folder(retrieval_id)
            moved = _move(item, folder)
            if moved and durably:
                sync_folder(folder)
            return moved

    def adopt(self, retrieval_id: str, source: Path, name: str) -> SpooledObject:
        """Make a durable file of one's own an object that a retrieval has claimed, durably.

        :param source: the file, on the spool's file system, e.g. in the folder of an :class:`Owner`.
        :param name: the name that an object of a spool has.
        :raises ValueError: when it is the name of no object.
        """
        with self.usable():
            folder = self._claim_folder(retrieval_id)
            item = spooled(folder / name)
            if item is None or Path(name).name != name:
                raise ValueError("no name of an object")
            os.rename(source, item.path)
            sync_folder(folder)
        return item

    def claim(self, retrieval_id: str, uids: Collection[str], *, owner: str | None = None) -> list[SpooledObject]:
        """Take objects for one retrieval, by rename.

        What a writer that still lives has received for one retrieval is its own and is left to it. An object that
        somebody else takes at the same moment is theirs.

        :param retrieval_id: who claims.
        :param uids: the SOP Instance UIDs to take.
        :param owner: the name of the claimer's own :class:`Owner`, when it has one.
        :return: what was taken; more than one per UID when it was received more than once.
        :raises ReceiverUnavailableError: when the spool cannot be used.
        """
        taken: list[SpooledObject] = []
        free: dict[str, bool] = {}
        with self.usable():
            folder = self._claim_folder(retrieval_id)
            for item in list(self.unclaimed(uids)):
                if item.owner not in free:
                    free[item.owner] = self.may_claim(item, owner=owner)
                if free[item.owner] and (moved := _move(item, folder)):
                    taken.append(moved)
            if taken:
                sync_folder(folder)  # see :meth:`take`
        return taken

    def claimed(self, retrieval_id: str) -> list[SpooledObject]:
        """Return what a retrieval has claimed and not yet let go of, e.g. before it was killed."""
        with self.usable():
            return list(self.objects_in(self._claim_folder(retrieval_id)))

    def let_go(self, item: SpooledObject) -> None:
        """Remove a claimed object once it is durable elsewhere."""
        with self.usable():
            item.path.unlink(missing_ok=True)

    def set_aside(self, item: SpooledObject) -> Path:
        """Keep a claimed object that is no well-formed data set where a person can look at it."""
        with self.usable():
            moved = _move(item, self.broken)
        return moved.path if moved else item.path

    def close_claim(self, retrieval_id: str) -> None:
        """Remove the folder of a retrieval, when nothing is left in it."""
        with contextlib.suppress(OSError):
            self._claim_folder(retrieval_id).rmdir()

    def claim_lock(self, retrieval_id: str) -> Path:
        """Return the file that one try of a retrieval locks for as long as it runs."""
        return self._claim_path(retrieval_id).with_suffix(".lock")

    def still_has(self, sop_instance_uid: str) -> bool:
        """Say whether an object lies here that nobody has published: unclaimed, or set aside."""
        if any(True for _ in self.unclaimed({sop_instance_uid})):
            return True
        return any(item.sop_instance_uid == sop_instance_uid for item in self.objects_in(self.broken))

    def _claim_folder(self, retrieval_id: str) -> Path:
        folder = self._claim_path(retrieval_id)
        make_private_folder(folder)
        return folder

    def _claim_path(self, retrieval_id: str) -> Path:
        if not retrieval_id or not all(char.isalnum() or char == "-" for char in retrieval_id):
            raise ValueError("a retrieval ID has letters, digits and hyphens only")
        return self._claimed / retrieval_id

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the spool for the moment in which a writer comes or goes."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def usable(self) -> Iterator[None]:
        """Say in words of the spool's what goes wrong with its files while the block runs."""
        try:
            yield
        except OSError as error:
            raise ReceiverUnavailableError(
                f"the spool {self.root} cannot be used: {error.strerror or error}",
                step="spool",
                hint="Point spool_root at a local folder that this process may write to, with free space",
            ) from error


@dataclass(slots=True, kw_only=True)
class Owner:
    """A living writer of a spool.

    :param spool: the spool.
    :param name: the beginning of the unique part of the names it gives.
    :param folder: where its fragments lie.
    :param descriptor: the open lock; the kernel lets go of it when the process ends.
    """

    spool: Spool
    name: str
    folder: Path
    descriptor: int

    def unique(self) -> str:
        """Return the unique part of a new name."""
        return unique_part(self.name)

    def close(self) -> None:
        """End: remaining fragments are removed, what was received is anybody's. May be called twice."""
        if self.descriptor < 0:
            return
        with self.spool.locked():
            shutil.rmtree(self.folder, ignore_errors=True)
            Writers.leave(self.name, self.descriptor)
            self.descriptor = -1


def _move(item: SpooledObject, folder: Path) -> SpooledObject | None:
    target = folder / item.path.name
    try:
        os.rename(item.path, target)
    except FileNotFoundError:
        return None  # somebody else was faster
    return SpooledObject(place=str(target), sop_instance_uid=item.sop_instance_uid)


def _has_receipt(item: SpooledObject) -> bool:
    try:
        return item.receipt().sop_instance_uid == item.sop_instance_uid
    except FileNotFoundError:
        return True  # claimed by somebody at this moment
    except (DataSetError, OSError):
        return False
