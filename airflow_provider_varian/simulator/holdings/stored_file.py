"""A DICOM file as it lies there: sent by ranges, with a few elements at its front exchanged.

What an export changes stands at the front of a data set, in group 0008: the character set's name, and date
and time of creation (varian-daemon 1.4, quirks 16 and 23). So the rest of the file can go out as it is,
unread - when its structure is sound (PS3.5 7), its transfer syntax is the one negotiated, and its text means
the same in the other character set, which is certain of plain ASCII. The file is looked through once, at
the start; pixels and other long values are skipped.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from airflow_provider_varian.dimse.slices import FileRange, Slice, stamp
from airflow_provider_varian.simulator.holdings.structure import CutShortFileError, Reader, Walker, after_meta
from airflow_provider_varian.uids import IMPLICIT_VR_LITTLE_ENDIAN

SPECIFIC_CHARACTER_SET: Final = 0x00080005
INSTANCE_CREATION_DATE: Final = 0x00080012
INSTANCE_CREATION_TIME: Final = 0x00080013
_VRS: Final = {SPECIFIC_CHARACTER_SET: b"CS", INSTANCE_CREATION_DATE: b"DA", INSTANCE_CREATION_TIME: b"TM"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file with a sound structure, as it was at the start.

    :param path: the file.
    :param transfer_syntax: UID of its transfer syntax.
    :param front: its elements up to (0008,0013), as bytes, by tag.
    :param begin: where its data set begins, bytes.
    :param rest: where the elements behind the front begin.
    :param stamp: size, time and number of the file, to see whether it is still the same.
    :param plain: whether all its text is ASCII without escape sequences.
    """

    path: Path
    transfer_syntax: str
    front: Mapping[int, bytes]
    begin: int
    rest: int
    stamp: tuple[int, int, int]
    plain: bool

    @classmethod
    def look_through(cls, path: Path, transfer_syntax: str) -> StoredFile | None:
        """Look through a file; ``None`` when it had better be read and written again by pydicom.

        :raises CutShortFileError: when its element lengths do not lead to its end.
        """
        try:
            with path.open("rb", buffering=0) as file:
                return _look_through(path, file.fileno(), transfer_syntax)
        except CutShortFileError:
            raise
        except (OSError, ValueError):
            return None

    @property
    def character_set(self) -> str:
        """Value of Specific Character Set; empty when there is none."""
        element = self.front.get(SPECIFIC_CHARACTER_SET, b"")
        return element[8:].decode("ascii", "replace").strip(" \0")

    def is_unchanged(self) -> bool:
        """Say whether the file is still the one that was looked through."""
        try:
            return stamp(os.stat(self.path)) == self.stamp
        except OSError:
            return False

    def slices(self, changes: Mapping[int, str | None]) -> list[Slice]:
        """Return the data set with elements of the front exchanged.

        :param changes: ASCII values by tag, of the three tags named above; ``None`` leaves an element out.
        """
        front = dict(self.front)
        for tag, value in changes.items():
            if value is None:
                front.pop(tag, None)
            else:
                front[tag] = self._element(tag, value)
        size = self.stamp[0]
        if front == self.front:
            return [FileRange(self.path, self.begin, size - self.begin, self.stamp)]
        rest = FileRange(self.path, self.rest, size - self.rest, self.stamp)
        return [b"".join(front[tag] for tag in sorted(front)), rest]

    def _element(self, tag: int, value: str) -> bytes:
        text = value.encode("ascii")
        text += b" " * (len(text) % 2)
        if self.transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN:
            return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(text)) + text
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, _VRS[tag], len(text)) + text


def _look_through(path: Path, descriptor: int, transfer_syntax: str) -> StoredFile | None:
    status = os.fstat(descriptor)
    reader = Reader(partial(os.pread, descriptor), status.st_size)
    begin = after_meta(reader)
    walker = Walker(reader, implicit=transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN)
    walker.walk(begin)
    if not walker.regular:
        return None
    return StoredFile(
        path=path,
        transfer_syntax=transfer_syntax,
        front=walker.front,
        begin=begin,
        rest=walker.rest,
        stamp=stamp(status),
        plain=walker.plain,
    )
