"""An object of a spool, and its name: ``{SOP Instance UID}.{unique}.dcm``.

``unique`` begins with the writer that received the object, and tells when its reception began.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from airflow_provider_varian.receiver.file_meta import FileMeta, read_file_meta
from airflow_provider_varian.receiver.writers import OWNER_DIGITS
from airflow_provider_varian.uids import is_uid

_SUFFIX: Final = ".dcm"
_TIME_DIGITS: Final = 16
_NUMBER_DIGITS: Final = 8
_UNIQUE_DIGITS: Final = OWNER_DIGITS + _TIME_DIGITS + _NUMBER_DIGITS
#: Counts the names that this process has given.
_numbers: Final = itertools.count()
_RECEIPT_BYTES: Final = 4096


@dataclass(frozen=True, kw_only=True)
class SpooledObject:
    """A durable object in the spool.

    :param place: where it lies, as text: one is told of while its sender waits, and to make a path takes longer than
        all else about it.
    :param sop_instance_uid: which object it is.
    """

    place: str
    sop_instance_uid: str

    @cached_property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self.place)

    @property
    def owner(self) -> str:
        """The name of the writer that received it."""
        return _unique_of(self.path)[:OWNER_DIGITS]

    @property
    def begun(self) -> float | None:
        """When its reception began, in seconds since the epoch; ``None`` when its name does not tell."""
        unique = _unique_of(self.path)
        if len(unique) != _UNIQUE_DIGITS:
            return None  # of an earlier version
        try:
            return int(unique[OWNER_DIGITS : OWNER_DIGITS + _TIME_DIGITS], 16) / 1e9
        except ValueError:
            return None

    def receipt(self) -> FileMeta:
        """Read who sent it, and in which transfer syntax.

        :raises DataSetError: when the file has no receipt.
        :raises OSError: when it cannot be read.
        """
        return receipt_of(self.path)


def unique_part(writer: str) -> str:
    """Return the unique part of a new name: the writer, the time in nanoseconds, and a number, should that stand."""
    return f"{writer}{time.time_ns():016x}{next(_numbers) & 0xFFFFFFFF:08x}"


def spooled(path: Path) -> SpooledObject | None:
    """Return the object that a file of a spool is, told by its name alone; ``None`` when it is none."""
    if not path.name.endswith(_SUFFIX):
        return None
    uid, dot, _ = path.name.removesuffix(_SUFFIX).rpartition(".")
    return SpooledObject(place=str(path), sop_instance_uid=uid) if dot and is_uid(uid) else None


def _unique_of(path: Path) -> str:
    return path.name.removesuffix(_SUFFIX).rpartition(".")[2]


def receipt_of(path: Path) -> FileMeta:
    """Read the receipt with which a file of a spool begins; see :meth:`SpooledObject.receipt`."""
    with path.open("rb") as file:
        return read_file_meta(file.read(_RECEIPT_BYTES))
