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
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydicom.datadict import dictionary_VR

from airflow_provider_varian.dimse.slices import FileRange, Slice
from airflow_provider_varian.uids import IMPLICIT_VR_LITTLE_ENDIAN

SPECIFIC_CHARACTER_SET: Final = 0x00080005
INSTANCE_CREATION_DATE: Final = 0x00080012
INSTANCE_CREATION_TIME: Final = 0x00080013
_VRS: Final = {SPECIFIC_CHARACTER_SET: b"CS", INSTANCE_CREATION_DATE: b"DA", INSTANCE_CREATION_TIME: b"TM"}

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA: Final = 0x7FE00010
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
#: In these a character set makes a difference, or, being unknown, might.
_TEXT_VRS: Final = frozenset({b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT", b"UN"})
_CHUNK_BYTES: Final = 64 * 1024
#: Longer text than this is not looked at, and then counts as not plain.
_LONGEST_TEXT: Final = 16 * 1024 * 1024
_DEEPEST: Final = 32
_PREAMBLE_BYTES: Final = 132
_META_HEAD: Final = struct.Struct("<4sHH2sHI")
_HEAD: Final = struct.Struct("<HHI")


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
        """Look through a file; ``None`` when it had better be read and written again by pydicom."""
        try:
            with path.open("rb", buffering=0) as file:
                return _look_through(path, file.fileno(), transfer_syntax)
        except (OSError, ValueError):
            return None

    @property
    def character_set(self) -> str:
        """Value of Specific Character Set; empty when there is none."""
        element = self.front.get(SPECIFIC_CHARACTER_SET, b"")
        return element[_HEAD.size :].decode("ascii", "replace").strip(" \0")

    def is_unchanged(self) -> bool:
        """Say whether the file is still the one that was looked through."""
        try:
            return _stamp(os.stat(self.path)) == self.stamp
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
            return [FileRange(self.path, self.begin, size - self.begin)]
        return [b"".join(front[tag] for tag in sorted(front)), FileRange(self.path, self.rest, size - self.rest)]

    def _element(self, tag: int, value: str) -> bytes:
        text = value.encode("ascii")
        text += b" " * (len(text) % 2)
        if self.transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN:
            return _HEAD.pack(tag >> 16, tag & 0xFFFF, len(text)) + text
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, _VRS[tag], len(text)) + text


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _look_through(path: Path, descriptor: int, transfer_syntax: str) -> StoredFile:
    status = os.fstat(descriptor)
    reader = _Reader(descriptor, status.st_size)
    begin = _after_meta(reader)
    walker = _Walker(reader, implicit=transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN)
    walker.walk(begin)
    return StoredFile(
        path=path,
        transfer_syntax=transfer_syntax,
        front=walker.front,
        begin=begin,
        rest=walker.rest,
        stamp=_stamp(status),
        plain=walker.plain,
    )


def _after_meta(reader: _Reader) -> int:
    """Return where the data set begins: behind the file meta information (PS3.10 7.1)."""
    prefix, group, element, vr, length, meta = _META_HEAD.unpack(reader.at(_PREAMBLE_BYTES - 4, _META_HEAD.size))
    if (prefix, group, element, vr, length) != (b"DICM", 2, 0, b"UL", 4):
        raise ValueError("the file meta information does not begin with its length")
    begin: int = _PREAMBLE_BYTES - 4 + _META_HEAD.size + meta
    if reader.at(begin, 2) == b"\2\0":
        raise ValueError("the file meta information is longer than it says")
    return begin


class _Reader:
    """Bytes of a file at any place, read in chunks."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size
        self._chunk = b""
        self._start = 0

    def at(self, position: int, count: int) -> bytes:
        """Return bytes.

        :raises ValueError: when the file ends before.
        """
        offset = position - self._start
        if offset < 0 or offset + count > len(self._chunk):
            self._chunk = os.pread(self._descriptor, max(count, _CHUNK_BYTES), position)
            self._start, offset = position, 0
            if len(self._chunk) < count:
                raise ValueError("the file ends within an element")
        return self._chunk[offset : offset + count]


class _Walker:
    """Goes through the elements of a data set, and into its sequences."""

    def __init__(self, reader: _Reader, *, implicit: bool) -> None:
        self._reader = reader
        self._implicit = implicit
        self.plain = True
        self.front: dict[int, bytes] = {}
        self.rest = 0

    def walk(self, begin: int) -> None:
        """Go through the whole data set.

        :raises ValueError: when its structure is not sound, or not what pydicom would write.
        """
        position, last = begin, -1
        self.rest = begin
        while position < self._reader.size:
            tag, end = self._element(position, self._reader.size, 0)
            # pydicom puts elements into order, and writes no group lengths.
            if tag <= last or not tag & 0xFFFF:
                raise ValueError("elements are out of order, or group lengths among them")
            if tag <= INSTANCE_CREATION_TIME:
                self.front[tag] = self._reader.at(position, end - position)
                self.rest = end
            position, last = end, tag
        if position != self._reader.size:
            raise ValueError("the last element is longer than the file")

    def _element(self, position: int, limit: int, depth: int) -> tuple[int, int]:
        """Return the tag of an element and where it ends."""
        tag, vr, value, length = self._head(position)
        if tag >> 16 == _ITEM >> 16:
            raise ValueError("an item stands where an element should")
        if length == _UNDEFINED:
            if tag == _PIXEL_DATA:
                return tag, self._fragments(value)
            if vr == b"UN" and not self._implicit:
                raise ValueError("a sequence of unknown VR is encoded in another way")
            return tag, self._items(value, None, limit, depth + 1)
        end = value + length
        if end > limit:
            raise ValueError("an element is longer than what holds it")
        if vr == b"SQ":
            self._items(value, end, limit, depth + 1)
        elif vr in _TEXT_VRS and self.plain:
            self.plain = length <= _LONGEST_TEXT and self._is_plain(value, length)
        return tag, end

    def _head(self, position: int) -> tuple[int, bytes, int, int]:
        """Return tag, VR, where the value begins, and its length."""
        group, element, length = _HEAD.unpack(self._reader.at(position, _HEAD.size))
        tag = group << 16 | element
        if tag >> 16 == _ITEM >> 16:
            return tag, b"", position + _HEAD.size, length
        if self._implicit:
            return tag, _vr_of(tag), position + _HEAD.size, length
        vr = self._reader.at(position + 4, 2)
        if vr in _LONG_VRS:
            return tag, vr, position + 12, int.from_bytes(self._reader.at(position + 8, 4), "little")
        if not vr.isalpha() or not vr.isupper():
            raise ValueError("an element has no VR")
        return tag, vr, position + 8, length >> 16

    def _items(self, position: int, end: int | None, limit: int, depth: int) -> int:
        """Go through a sequence up to its end, or its delimiter; return where that is."""
        if depth > _DEEPEST:
            raise ValueError("sequences are nested too deeply")
        while end is None or position < end:
            tag, _, value, length = self._head(position)
            if end is None and tag == _SEQUENCE_END:
                return value
            if tag != _ITEM:
                raise ValueError("a sequence holds something else than items")
            position = self._item(value, None if length == _UNDEFINED else value + length, end or limit, depth)
        if position != end:
            raise ValueError("an item is longer than its sequence")
        return position

    def _item(self, position: int, end: int | None, limit: int, depth: int) -> int:
        if end is not None and end > limit:
            raise ValueError("an item is longer than its sequence")
        while end is None or position < end:
            if end is None and self._head(position)[0] == _ITEM_END:
                return position + _HEAD.size
            _, position = self._element(position, end or limit, depth)
        return position

    def _fragments(self, position: int) -> int:
        """Skip encapsulated pixel data (PS3.5 A.4)."""
        while True:
            tag, _, value, length = self._head(position)
            if tag == _SEQUENCE_END:
                return value
            if tag != _ITEM or value + length > self._reader.size:
                raise ValueError("encapsulated pixel data hold something else than fragments")
            position = value + length

    def _is_plain(self, position: int, length: int) -> bool:
        text = self._reader.at(position, length)
        return text.isascii() and b"\x1b" not in text


@lru_cache(maxsize=8192)
def _vr_of(tag: int) -> bytes:
    try:
        return dictionary_VR(tag).encode("ascii")[:2]
    except KeyError:
        return b"UN"
