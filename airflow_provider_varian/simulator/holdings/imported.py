"""What clients have stored, and holdings with it laid over them.

A daemon's import adds to what it holds, and never takes away: :class:`Overlay` serves the clinic's own and the
imported objects as one tree, in which patients are the same when their IDs are, and studies, series and instances
when their UIDs are. What the clinic says of a patient, study or series counts; of an instance, what was imported.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.level import LEVELS, UNIQUE_KEYS, Level
from airflow_provider_varian.simulator.holdings.stored_file import StoredFile
from airflow_provider_varian.simulator.holdings.structure import CutShortFileError
from airflow_provider_varian.simulator.holdings.tree import Holdings, Node, Search
from airflow_provider_varian.uids import is_uid

log = logging.getLogger(__name__)

#: Pixels and what follows them, which no query asks for.
_FIRST_PIXEL_GROUP: Final = 0x7FE0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """One imported instance: its attributes without pixels, and its node."""

    head: Dataset
    node: Node

    def uid(self, level: Level) -> str:
        return unique_value(self.head, level)


class Imported:
    """The instances that clients have stored; safe for use by several threads.

    :param folder: holds them as DICOM files, and is made when it is missing; what lies there already has been
        imported before. ``None`` keeps them in memory, for as long as this object lives.
    :raises ConfigurationError: when the folder cannot be had.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        #: By Patient ID and SOP Instance UID, in the order in which they came.
        self._patients: dict[str, dict[str, _Kept]] = {}
        if folder is not None:
            self._read(folder)

    def over(self, holdings: Holdings) -> Overlay:
        """Return holdings with the imported instances laid over them, as long as these holdings are served."""
        return Overlay(holdings, self)

    def keep(self, head: Dataset, content: bytes) -> None:
        """Keep an instance, in place of one with the same SOP Instance UID.

        :param head: its data set with Patient ID and valid UIDs; pixels are taken off it.
        :param content: the whole DICOM file that it makes, meta information included.
        :raises OSError: when it cannot be written.
        """
        source: Path | bytes = content
        if self._folder is not None:
            source = self._folder / f"{unique_value(head, Level.IMAGE)}.dcm"
            beside = source.with_suffix(".part")
            beside.write_bytes(content)
            os.replace(beside, source)
        self._enter(head, source)

    def sop_classes(self) -> frozenset[str]:
        """Return the SOP classes of what was imported."""
        with self._lock:
            return frozenset(each.node.sop_class_uid for held in self._patients.values() for each in held.values())

    def patients(self, ids: frozenset[str]) -> dict[str, Node]:
        """Return the imported part of patients, by Patient ID.

        :param ids: whose; empty means everybody's.
        """
        with self._lock:
            held = {each: list(kept.values()) for each, kept in self._patients.items() if not ids or each in ids}
        return {patient_id: _node(Level.PATIENT, patient_id, kept) for patient_id, kept in held.items()}

    def owners(self, wanted: Search) -> frozenset[str]:
        """Return the IDs of patients with an imported instance that has the UIDs asked for."""
        named = {level: wanted.uids(level) for level in LEVELS}
        with self._lock:
            return frozenset(
                patient_id
                for patient_id, held in self._patients.items()
                if any(
                    all(not uids or each.uid(level) in uids for level, uids in named.items()) for each in held.values()
                )
            )

    def _enter(self, head: Dataset, source: Path | bytes) -> None:
        node = _instance(head, source)
        for tag in [tag for tag in tuple(head.keys()) if tag.group >= _FIRST_PIXEL_GROUP]:
            del head[tag]
        with self._lock:
            self._patients.setdefault(unique_value(head, Level.PATIENT), {})[node.uid] = _Kept(head=head, node=node)

    def _read(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot hold what is imported: {error.strerror}", hint="Give --import a folder to write to"
            ) from error
        number = cut_short = 0
        for path in sorted(folder.glob("*.dcm")):
            try:
                head = dcmread(path, stop_before_pixels=True)
                if "TransferSyntaxUID" in head.file_meta and is_filed(head):
                    self._enter(head, path)
                    number += 1
            except (CutShortFileError, EOFError, struct.error):
                cut_short += 1
            except (InvalidDicomError, OSError, ValueError):
                continue
        if cut_short:
            log.warning("%d files of imports are cut short, and not served", cut_short)
        log.info("%d instances were imported before", number)


class Overlay:
    """Holdings and what was imported, as one; implements ``Holdings``.

    :param own: the holdings beneath.
    """

    def __init__(self, own: Holdings, imported: Imported) -> None:
        self._own = own
        self._imported = imported

    def sop_classes(self) -> frozenset[str]:
        """Return the SOP classes of the instances held."""
        return self._own.sop_classes() | self._imported.sop_classes()

    def patients(self, wanted: Search) -> Iterator[Node]:
        """Yield the patients, those of the holdings beneath first."""
        added = self._imported.patients(wanted.uids(Level.PATIENT))
        for patient in self._own.patients(wanted):
            more = added.pop(patient.uid, None)
            yield patient if more is None else _merged(patient, more)
        # The holdings know not of UIDs that came with an import, so they may have left its patient out.
        for patient_id in self._imported.owners(wanted) & added.keys():
            own = self._own_patient(patient_id)
            yield added[patient_id] if own is None else _merged(own, added[patient_id])

    def patient(self, patient_id: str) -> Node | None:
        """Return the patient with an ID, if there is one."""
        own, added = self._own_patient(patient_id), self._imported.patients(frozenset({patient_id}))
        return own if own is not None else added.get(patient_id)

    def _own_patient(self, patient_id: str) -> Node | None:
        keys = Dataset()
        keys.PatientID = patient_id
        # An ID may look like a pattern (PS3.4 C.2.2.2.4), and then finds others too.
        found = self._own.patients(Search(Level.PATIENT, keys))
        return next((patient for patient in found if patient.uid == patient_id), None)


def unique_value(head: Dataset, level: Level) -> str:
    """Return the value that a data set has of a level's unique key; empty when it has none."""
    return str(head.get(UNIQUE_KEYS[level]) or "").strip()


def is_filed(head: Dataset) -> bool:
    """Say whether a data set tells where it belongs: to a patient, and by valid UIDs to study, series and itself."""
    return bool(unique_value(head, Level.PATIENT)) and all(is_uid(unique_value(head, each)) for each in LEVELS[1:])


def _node(level: Level, uid: str, kept: list[_Kept]) -> Node:
    below = LEVELS[level.depth + 1]

    def children() -> Iterable[Node]:
        if below is Level.IMAGE:
            return [each.node for each in kept]
        parts: dict[str, list[_Kept]] = {}
        for each in kept:
            parts.setdefault(each.uid(below), []).append(each)
        return [_node(below, lower, part) for lower, part in parts.items()]

    return Node(level=level, uid=uid, values=lambda: kept[0].head, children=children)


def _instance(head: Dataset, source: Path | bytes) -> Node:
    transfer_syntax = str(head.file_meta.TransferSyntaxUID)
    return Node(
        level=Level.IMAGE,
        uid=unique_value(head, Level.IMAGE),
        values=lambda: head,
        sop_class_uid=str(head.SOPClassUID),
        transfer_syntax=transfer_syntax,
        fetch=partial(_read_whole, source),
        file=StoredFile.look_through(source, transfer_syntax) if isinstance(source, Path) else None,
    )


def _read_whole(source: Path | bytes) -> FileDataset:
    return dcmread(source if isinstance(source, Path) else BytesIO(source))


def _merged(own: Node, added: Node) -> Node:
    """Return a node with the children of both; what was known of all that lies below is so no more."""
    return replace(own, children=lambda: _union(own.children(), added.children()), shared=dict, spans=dict)


def _union(own: Iterable[Node], added: Iterable[Node]) -> Iterator[Node]:
    more = {node.uid: node for node in added}
    for node in own:
        also = more.pop(node.uid, None)
        if also is None:
            yield node
        else:
            yield also if node.level is Level.IMAGE else _merged(node, also)
    yield from more.values()
