"""What a standing receiver has received and nobody has claimed, for those who wait for it: nothing is claimed here.

A look goes through the receiver's spool on this host, or through the store to which it publishes. What an object is,
its receipt and the head of its data set tell; they are read once for each object, since it never changes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from airflow_provider_varian.errors import DestinationWriteError, QueryError, ReceiverUnavailableError
from airflow_provider_varian.receiver.file_meta import FileMeta, read_front
from airflow_provider_varian.receiver.head import DataSetError, Head
from airflow_provider_varian.receiver.listed import ListedFolders
from airflow_provider_varian.receiver.published_store import CLAIMS, OBJECTS
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spooled import SpooledObject, spooled
from airflow_provider_varian.retrieval.read_store import ReadStore
from airflow_provider_varian.retrieval.receivers import NamedReceiver
from airflow_provider_varian.retrieval.store_progress import StoreProgress
from airflow_provider_varian.uids import is_uid

#: Keywords by which objects are told apart, and where :class:`Unclaimed` has their values.
FIELDS: Final = {
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
    "Modality": "modality",
}
#: Hosts that keep their clocks by NTP are much closer than this.
_SKEW_SECONDS: Final = 2.0

Wanted = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclaimed:
    """An object that nobody has claimed; ``None`` where its head does not tell.

    :param received: when it was written, in seconds since the epoch; in a store when its reception began.
    :param receiving_ae_title: to whom it was sent.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    modality: str | None
    receiving_ae_title: str
    received: float

    def was_sent_to(self, ae_title: str | None) -> bool:
        """Say whether it was sent to an AE title; to ``None`` everything was."""
        return ae_title is None or self.receiving_ae_title == ae_title

    def fits(self, wanted: Wanted) -> bool:
        """Say whether it has one of the wanted values for each keyword."""
        return all(getattr(self, FIELDS[keyword]) in values for keyword, values in wanted.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look saw.

    :param objects: what nobody has claimed.
    :param arriving: what is being received at this moment, as far as it tells yet.
    :param arriving_uids: the same where only its SOP Instance UIDs are told.
    :param is_running: whether a receiver takes objects there; ``None`` where that cannot be told.
    """

    objects: tuple[Unclaimed, ...]
    arriving: tuple[Unclaimed, ...] = ()
    arriving_uids: frozenset[str] = frozenset()
    is_running: bool | None

    def fitting(self, wanted: Wanted, receiving_ae_title: str | None = None) -> list[Unclaimed]:
        """Return the objects that fit.

        :param wanted: see :func:`wanted_of`.
        :param receiving_ae_title: only what was sent to it; ``None``: to whomever.
        """
        return [each for each in self.objects if each.was_sent_to(receiving_ae_title) and each.fits(wanted)]

    def has_arriving(self, wanted: Wanted, receiving_ae_title: str | None = None) -> bool:
        """Say whether something is being received that fits, or may fit as far as it tells."""
        uids = wanted.get("SOPInstanceUID")
        if self.arriving_uids and (uids is None or not uids.isdisjoint(self.arriving_uids)):
            return True
        return any(each.was_sent_to(receiving_ae_title) and each.fits(wanted) for each in self.arriving)


class Place(Protocol):
    """Where a standing receiver's objects are found."""

    def look(self) -> Look:
        """Look at all that nobody has claimed.

        :raises ReceiverUnavailableError: when the place cannot be read.
        """


def place_of(receiver: NamedReceiver) -> Place:
    """Return where to look for a receiver's objects.

    :raises ReceiverUnavailableError: when its spool is not on this host.
    """
    spool = receiver.spool()
    if spool is not None:
        return SpoolLook(spool)
    if receiver.store is None:
        raise TypeError("a receiver has a spool or a store")
    return StoreLook(ReadStore(receiver.store), receiver.name)


def wanted_of(keys: Mapping[str, Any]) -> Wanted:
    """Check what is waited for.

    :param keys: DICOM keywords to a value or a list of values, of which one has to fit; those of :data:`FIELDS`.
    :raises QueryError: for another keyword, and for a value that cannot be one of it.
    """
    wanted: dict[str, frozenset[str]] = {}
    for keyword, value in keys.items():
        if keyword not in FIELDS:
            near = get_close_matches(keyword, FIELDS, 1)
            raise QueryError(
                f"received objects are not told apart by {keyword}",
                step="receiver",
                hint=f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(FIELDS)}",
            )
        values = [value] if isinstance(value, str) else value
        is_list = isinstance(values, (list, tuple)) and bool(values)
        if not is_list or not all(isinstance(each, str) and _may_be(keyword, each) for each in values):
            raise QueryError(
                f"a value of {keyword} cannot be one",
                step="receiver",
                hint="Give a UID or a modality, or a list of them",
            )
        wanted[keyword] = frozenset(values)
    return wanted


def _may_be(keyword: str, value: str) -> bool:
    return is_uid(value) if keyword.endswith("UID") else bool(value.strip()) and len(value) <= 16


class _Known:
    """What is known of objects by their names, of which each is given once."""

    def __init__(self) -> None:
        self._fronts: dict[str, tuple[FileMeta, Head] | None] = {}

    def of(self, items: Iterable[tuple[SpooledObject, float]], read: _Reader) -> Iterator[Unclaimed]:
        """Yield the objects that say what they are; forget all that are not among these."""
        before, self._fronts = self._fronts, {}
        for item, received in items:
            name = item.path.name
            if name in before:
                front = before[name]
            else:
                try:
                    front = read(item)
                except FileNotFoundError:
                    continue  # claimed in this moment
                except DataSetError:
                    front = None
            self._fronts[name] = front
            if front is not None:
                yield _unclaimed(*front, received)


def _unclaimed(meta: FileMeta, head: Head, received: float) -> Unclaimed:
    return Unclaimed(
        sop_instance_uid=meta.sop_instance_uid,
        sop_class_uid=meta.sop_class_uid,
        study_instance_uid=head.study_instance_uid,
        series_instance_uid=head.series_instance_uid,
        modality=head.modality,
        receiving_ae_title=meta.receiving_ae_title,
        received=received,
    )


class _Reader(Protocol):
    def __call__(self, item: SpooledObject) -> tuple[FileMeta, Head]: ...


class SpoolLook:
    """Looks into the spool of a standing receiver on this host.

    :param spool: the spool.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._listed = ListedFolders(spool)
        self._known = _Known()

    def look(self) -> Look:
        """Look at all that anybody may claim; see :class:`Place`."""
        # Before the folders are listed: what ends its arrival meanwhile is seen in one of the two.
        arriving = tuple(self._arriving())
        is_running = self._spool.has_standing()
        with self._spool.usable():
            objects = tuple(self._known.of(self._items(), _read_file))
        return Look(objects=objects, arriving=arriving, is_running=is_running)

    def _arriving(self) -> Iterator[Unclaimed]:
        for path in self._spool.fragments():
            # What has not said yet what it is may be anything; the next look will tell.
            with contextlib.suppress(DataSetError, OSError), path.open("rb") as file:
                yield _unclaimed(*read_front(file), time.time())

    def _items(self) -> Iterator[tuple[SpooledObject, float]]:
        free: dict[str, bool] = {}
        for shard in sorted(self._spool.new.iterdir()):
            for item in self._listed.objects_in(shard):
                if item.owner not in free:
                    # What a retrieval receives itself is its own.
                    free[item.owner] = self._spool.may_claim(item)
                if free[item.owner]:
                    with contextlib.suppress(FileNotFoundError):
                        yield item, item.path.stat().st_mtime


def _read_file(item: SpooledObject) -> tuple[FileMeta, Head]:
    with item.path.open("rb") as file:
        return read_front(file)


class StoreLook:
    """Looks into the store to which a standing receiver publishes: a listing for each of its folders.

    :param store: the store.
    :param name: what the receiver is called.
    """

    def __init__(self, store: ReadStore, name: str) -> None:
        self._store = store
        self._name = name
        self._known = _Known()
        self._progress = StoreProgress(store, skew_seconds=_SKEW_SECONDS)

    def look(self) -> Look:
        """Look at all that no claim names; see :class:`Place`."""
        try:
            self._progress.look()
            # Before the objects: what is claimed is removed, and its claim after it.
            claimed = frozenset(self._store.folders_in(CLAIMS))
            objects = tuple(self._known.of(self._items(claimed), partial(_read_stored, self._store)))
        except DestinationWriteError as error:
            raise ReceiverUnavailableError(
                f"the store of the standing receiver {self._name!r} cannot be used: {error.what}",
                step="receiver",
                hint=error.hint,
            ) from None
        progress = self._progress.valid()
        return Look(
            objects=objects,
            arriving_uids=frozenset() if progress is None else frozenset(progress.arriving),
            is_running=None if progress is None else True,
        )

    def _items(self, claimed: Collection[str]) -> Iterator[tuple[SpooledObject, float]]:
        for shard in self._store.folders_in(OBJECTS):
            for path in self._store.names_beside(OBJECTS / shard / "-", ""):
                item = spooled(Path(OBJECTS / shard / path.name))
                if item is not None and item.begun is not None and path.name not in claimed:
                    yield item, item.begun


def _read_stored(store: ReadStore, item: SpooledObject) -> tuple[FileMeta, Head]:
    path = PurePosixPath(item.path)
    try:
        return store.reading(path, read_front)
    except DestinationWriteError:
        if store.size(path) is None:
            raise FileNotFoundError from None
        raise
