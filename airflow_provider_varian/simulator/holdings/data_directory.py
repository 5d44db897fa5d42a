"""Anybody's DICOM files behind the daemon: the holdings of ``simulate --data DIR``.

Files are read once, at the start, without their pixels; a file is opened again when it is sent, and most of
it then goes out unread (:mod:`.stored_file`).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.level import LEVELS, UNIQUE_KEYS, Level
from airflow_provider_varian.simulator.holdings.stored_file import StoredFile
from airflow_provider_varian.simulator.holdings.structure import CutShortFileError
from airflow_provider_varian.simulator.holdings.tree import Node, Search

log = logging.getLogger(__name__)

#: Elements longer than this are left in the file until it is sent.
_DEFER_BYTES: Final = 4096

_Tree = dict[str, "_Branch"]


class _Branch:
    """A patient, study or series in the making: the head of its first file, and what lies below."""

    def __init__(self, head: Dataset) -> None:
        self.head = head
        self.branches: _Tree = {}
        self.files: list[Node] = []


class DataDirectory:
    """The DICOM files below a folder; implements ``Holdings``.

    :param folder: looked through with its subfolders; what is not DICOM, or cut short, is passed over.
    :raises ConfigurationError: when it is not a folder or holds no DICOM file that can be served.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is not a folder", hint="Give --data a folder with DICOM files")
        self._tree: _Tree = {}
        self._classes: set[str] = set()
        seen: set[str] = set()
        cut_short = 0
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            try:
                head = _read_head(path)
                if head is not None and head.SOPInstanceUID not in seen:
                    self._file(head, _instance(path, head))
                    seen.add(head.SOPInstanceUID)
            except CutShortFileError:
                cut_short += 1
        if cut_short:
            log.warning("%d files are cut short, and not served", cut_short)
        if not seen:
            raise ConfigurationError(
                f"{folder} holds no DICOM file that can be served",
                hint="Uncompressed or compressed little-endian DICOM files with SOP, study and series UIDs are served",
            )
        log.info("Serving %d instances from files", len(seen))

    def sop_classes(self) -> frozenset[str]:
        """Return the SOP classes of the instances held."""
        return frozenset(self._classes)

    def patients(self, wanted: Search) -> Iterator[Node]:
        """Yield the patients; those asked for by ID when IDs are given."""
        ids = wanted.uids(Level.PATIENT)
        for patient_id, branch in self._tree.items():
            if not ids or patient_id in ids:
                yield _node(Level.PATIENT, patient_id, branch)

    def _file(self, head: Dataset, instance: Node) -> None:
        tree = self._tree
        branch = None
        for level in LEVELS[:-1]:
            value = str(head.get(UNIQUE_KEYS[level]) or "")
            branch = tree.setdefault(value, _Branch(head))
            tree = branch.branches
        if branch is not None:
            branch.files.append(instance)
        self._classes.add(str(head.SOPClassUID))


def _read_head(path: Path) -> Dataset | None:
    """Return a file's attributes without pixels; ``None`` for a file that cannot be served.

    :raises CutShortFileError: when it ends in the head of an element before the pixels.
    """
    try:
        head = dcmread(path, stop_before_pixels=True, defer_size=_DEFER_BYTES)
    except (InvalidDicomError, OSError, ValueError):
        return None
    except (EOFError, struct.error):
        raise CutShortFileError from None
    syntax = head.file_meta.get("TransferSyntaxUID")
    if syntax is None or not syntax.is_little_endian or syntax.is_deflated:
        return None
    needed = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    return head if all(head.get(keyword) for keyword in needed) else None


def _node(level: Level, uid: str, branch: _Branch) -> Node:
    head = branch.head
    below = LEVELS[level.depth + 1]
    if level is Level.SERIES:
        return Node(
            level=level,
            uid=uid,
            values=lambda: head,
            children=lambda: branch.files,
        )
    return Node(
        level=level,
        uid=uid,
        values=lambda: head,
        children=lambda: [_node(below, key, lower) for key, lower in branch.branches.items()],
    )


def _instance(path: Path, head: Dataset) -> Node:
    """Return the node of a file.

    :raises CutShortFileError: when the file is.
    """
    transfer_syntax = str(head.file_meta.TransferSyntaxUID)
    return Node(
        level=Level.IMAGE,
        uid=str(head.SOPInstanceUID),
        values=lambda: head,
        sop_class_uid=str(head.SOPClassUID),
        transfer_syntax=transfer_syntax,
        fetch=partial(dcmread, path),
        file=StoredFile.look_through(path, transfer_syntax),
    )
