"""The spool: a maildir in which received objects lie until a retrieval claims them.

::

    root/
      lock                            held for the moments in which owners come and go
      tmp/{owner}/                    fragments of one running writer; its lock says that it lives
      new/{shard}/{UID}.{unique}.dcm  durable, whole, acknowledged; claimed by nobody
      claimed/{retrieval ID}/         what a retrieval has taken and not yet published
      claimed/{retrieval ID}.lock     one of its tries is running (:mod:`.claim_lock`)
      broken/                         acknowledged, but no data set: kept for a person to look at

An object is written to ``tmp``, made durable, renamed into ``new``, and the folder is made durable;
only then does its sender hear 0x0000. Each move is a rename, so at each moment an object is in one
place, whole, and a kill loses nothing. There is no database: a file is its own receipt
(:mod:`airflow_provider_varian.receiver.file_meta`).

``unique`` begins with the owner, the writer that received the object. As long as that writer lives,
what it received is its own; afterwards anybody may claim it. Folders are for their owner alone
(0700), files too (0600).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver.file_meta import FileMeta, read_file_meta
from airflow_provider_varian.receiver.head import DataSetError
from airflow_provider_varian.uids import is_uid

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".dcm"
_OWNER_DIGITS: Final = 12
_RECEIPT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledObject:
    """A durable object in the spool.

    :param path: where it lies.
    :param sop_instance_uid: which object it is.
    """

    path: Path
    sop_instance_uid: str

    def receipt(self) -> FileMeta:
        """Read who sent it, and in which transfer syntax.

        :raises DataSetError: when the file has no receipt.
        :raises OSError: when it cannot be read.
        """
        with self.path.open("rb") as file:
            return read_file_meta(file.read(_RECEIPT_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What was found when the spool was looked over.

    :param swept_fragments: how many fragments of dead writers were removed.
    :param without_receipt: files of ``new`` that do not say what they are.
    """

    swept_fragments: int
    without_receipt: tuple[Path, ...]


class Spool:
    """One spool directory, shared by the processes of one host.

    :param root: the directory; created for its owner alone when it does not exist.
    :raises ReceiverUnavailableError: when it cannot be created or used.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self.new = self.root / "new"
        self.broken = self.root / "broken"
        self._tmp = self.root / "tmp"
        self._claimed = self.root / "claimed"
        with self.usable():
            for folder in (self.root, self._tmp, self.new, self._claimed, self.broken):
                make_private_folder(folder)

    def register(self) -> Owner:
        """Come to life as a writer: a private folder for fragments, and a lock that dies with us."""
        with self.usable(), self.locked():
            self._make_shards()
            name = secrets.token_hex(_OWNER_DIGITS // 2)
            folder = self._tmp / name
            folder.mkdir(mode=0o700)
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return Owner(spool=self, name=name, folder=folder, descriptor=descriptor)

    def _make_shards(self) -> None:
        """Make all shards durable before anything is received.

        Made when first needed, one writer could acknowledge an object in a shard whose own entry another
        writer has made but not yet synced.
        """
        for number in range(0x100):
            (self.new / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        sync_folder(self.new)

    def shard(self, sop_instance_uid: str) -> Path:
        """Return the folder of ``new`` in which objects of this UID lie.

        :raises ValueError: when it is no UID; nothing else may become a path.
        """
        if not is_uid(sop_instance_uid):
            raise ValueError("no UID")
        digest = hashlib.sha256(sop_instance_uid.encode("ascii")).hexdigest()
        return self.new / digest[:2]

    def reconcile(self) -> Reconciliation:
        """Sweep the fragments of dead writers and name the files that have no receipt.

        Nothing that was acknowledged is touched.
        """
        swept = 0
        with self.usable(), self.locked():
            for folder in sorted(self._tmp.iterdir()):
                if not self._lives(folder.name):
                    swept += sum(1 for path in folder.iterdir() if path.name != "lock")
                    shutil.rmtree(folder)
        without_receipt = tuple(item.path for item in self.unclaimed() if not _has_receipt(item))
        if swept:
            logger.info("Spool %s: removed %d fragments that were never acknowledged", self.root, swept)
        for path in without_receipt:
            logger.warning("Spool: %s does not say who sent it; it stays where it is", path)
        return Reconciliation(swept_fragments=swept, without_receipt=without_receipt)

    def unclaimed(self, uids: Collection[str] | None = None) -> Iterator[SpooledObject]:
        """Iterate over the objects that nobody has claimed.

        :param uids: only these SOP Instance UIDs; ``None`` for all.
        """
        shards = sorted(self.new.iterdir()) if uids is None else sorted({self.shard(uid) for uid in uids})
        for shard in shards:
            for item in _objects(shard):
                if uids is None or item.sop_instance_uid in uids:
                    yield item

    def claim(self, retrieval_id: str, uids: Collection[str], *, owner: str | None = None) -> list[SpooledObject]:
        """Take objects for one retrieval, by rename.

        What a writer that still lives has received is its own and is left to it. An object that
        somebody else takes at the same moment is theirs.

        :param retrieval_id: who claims.
        :param uids: the SOP Instance UIDs to take.
        :param owner: the name of the claimer's own :class:`Owner`, when it has one.
        :return: what was taken; more than one per UID when it was received more than once.
        :raises ReceiverUnavailableError: when the spool cannot be used.
        """
        taken: list[SpooledObject] = []
        living: dict[str, bool] = {owner: False} if owner else {}
        with self.usable():
            folder = self._claim_folder(retrieval_id)
            for item in list(self.unclaimed(uids)):
                writer = _owner_of(item.path)
                if writer not in living:
                    living[writer] = self._lives(writer)
                if not living[writer] and (moved := _move(item, folder)):
                    taken.append(moved)
        return taken

    def claimed(self, retrieval_id: str) -> list[SpooledObject]:
        """Return what a retrieval has claimed and not yet let go of, e.g. before it was killed."""
        with self.usable():
            return list(_objects(self._claim_folder(retrieval_id)))

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
        return any(item.sop_instance_uid == sop_instance_uid for item in _objects(self.broken))

    def _claim_folder(self, retrieval_id: str) -> Path:
        folder = self._claim_path(retrieval_id)
        make_private_folder(folder)
        return folder

    def _claim_path(self, retrieval_id: str) -> Path:
        if not retrieval_id or not all(char.isalnum() or char == "-" for char in retrieval_id):
            raise ValueError("a retrieval ID has letters, digits and hyphens only")
        return self._claimed / retrieval_id

    def _lives(self, owner: str) -> bool:
        """Say whether a writer is still running: it holds the lock in its folder."""
        try:
            descriptor = os.open(self._tmp / owner / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Shared: two processes that look at the same time must not take each other for the writer.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

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
        return f"{self.name}{secrets.token_hex(8)}"

    def close(self) -> None:
        """End: remaining fragments are removed, what was received is anybody's. May be called twice."""
        if self.descriptor < 0:
            return
        with self.spool.locked():
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self.descriptor)
            self.descriptor = -1


def make_private_folder(folder: Path) -> None:
    """Create a folder (0700) with its parents, durably; harmless when it exists."""
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _objects(folder: Path) -> Iterator[SpooledObject]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        uid, dot, _ = name.removesuffix(_SUFFIX).rpartition(".")
        if name.endswith(_SUFFIX) and dot and is_uid(uid):
            yield SpooledObject(path=folder / name, sop_instance_uid=uid)


def _owner_of(path: Path) -> str:
    return path.name.removesuffix(_SUFFIX).rpartition(".")[2][:_OWNER_DIGITS]


def _move(item: SpooledObject, folder: Path) -> SpooledObject | None:
    target = folder / item.path.name
    try:
        os.rename(item.path, target)
    except FileNotFoundError:
        return None  # somebody else was faster
    return SpooledObject(path=target, sop_instance_uid=item.sop_instance_uid)


def _has_receipt(item: SpooledObject) -> bool:
    try:
        return item.receipt().sop_instance_uid == item.sop_instance_uid
    except (DataSetError, OSError):
        return False
