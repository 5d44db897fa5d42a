"""The structure of a DICOM file: whether its element lengths lead to its end (PS3.5 7), and what stands at its front.

pydicom says nothing of a file that was cut short within a value, or in the head of an element. So the lengths are
followed here, into all sequences; pixels and other long values are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR
from pydicom.valuerep import STANDARD_VR

from airflow_provider_varian.uids import IMPLICIT_VR_LITTLE_ENDIAN

#: Up to here elements belong to the front of a data set: (0008,0013) Instance Creation Time.
LAST_OF_FRONT: Final = 0x00080013

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA: Final = 0x7FE00010
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_KNOWN_VRS: Final = frozenset(each.value.encode("ascii") for each in STANDARD_VR)
#: In these a character set makes a difference, or, being unknown, might.
_TEXT_VRS: Final = frozenset({b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT", b"UN"})
_CHUNK_BYTES: Final = 64 * 1024
#: Longer text than this is not looked at, and then counts as not plain.
_LONGEST_TEXT: Final = 16 * 1024 * 1024
_DEEPEST: Final = 32
_PREAMBLE_BYTES: Final = 132
_META_HEAD: Final = struct.Struct("<4sHH2sHI")
_HEAD: Final = struct.Struct("<HHI")


class CutShortFileError(ValueError):
    """A file ends within an element, or one of its elements is longer than what holds it."""


def check_whole(content: bytes, transfer_syntax: str) -> None:
    """See that the element lengths of a file lead to its end.

    :param content: the file, with its meta information.
    :raises CutShortFileError: when they do not. What cannot be followed, say for a missing VR, passes.
    """
    reader = Reader(lambda count, position: content[position : position + count], len(content))
    try:
        Walker(reader, implicit=transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN).walk(after_meta(reader))
    except CutShortFileError:
        raise
    except ValueError:
        return


def after_meta(reader: Reader) -> int:
    """Return where the data set begins: behind the file meta information (PS3.10 7.1).

    :raises ValueError: when its length is missing or wrong.
    """
    prefix, group, element, vr, length, meta = _META_HEAD.unpack(reader.at(_PREAMBLE_BYTES - 4, _META_HEAD.size))
    if (prefix, group, element, vr, length) != (b"DICM", 2, 0, b"UL", 4):
        raise ValueError("the file meta information does not begin with its length")
    begin: int = _PREAMBLE_BYTES - 4 + _META_HEAD.size + meta
    if reader.at(begin, 2) == b"\2\0":
        raise ValueError("the file meta information is longer than it says")
    return begin


class Reader:
    """Bytes of a file at any place, read in chunks.

    :param read: returns up to so many bytes from a place on.
    :param size: of the file, bytes.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        self.size = size
        self._chunk = b""
        self._start = 0

    def at(self, position: int, count: int) -> bytes:
        """Return bytes.

        :raises CutShortFileError: when the file ends before.
        """
        offset = position - self._start
        if offset < 0 or offset + count > len(self._chunk):
            self._chunk = self._read(max(count, _CHUNK_BYTES), position)
            self._start, offset = position, 0
            if len(self._chunk) < count:
                raise CutShortFileError("the file ends within an element")
        return self._chunk[offset : offset + count]


class Walker:
    """Goes through the elements of a data set, and into its sequences.

    ``front`` are the elements up to :data:`LAST_OF_FRONT`, as bytes, by tag, and ``rest`` says where the others begin.
    ``plain`` says whether all text is ASCII without escape sequences, and ``regular`` whether elements are in order,
    lengths even (PS3.5 7.1.1) and group lengths absent: what pydicom would write.
    """

    def __init__(self, reader: Reader, *, implicit: bool) -> None:
        self._reader = reader
        self._implicit = implicit
        self.plain = True
        self.regular = True
        self.front: dict[int, bytes] = {}
        self.rest = 0

    def walk(self, begin: int) -> None:
        """Go through the whole data set.

        :raises CutShortFileError: when its lengths do not lead to the end of the file.
        :raises ValueError: when they cannot be followed.
        """
        position, last = begin, -1
        self.rest = begin
        if self._implicit and self._reader.at(begin, 6)[4:] in _KNOWN_VRS:
            raise ValueError("the elements have a VR, which the transfer syntax says they have not")
        while position < self._reader.size:
            tag, end = self._element(position, self._reader.size, 0)
            if tag <= last or not tag & 0xFFFF:
                self.regular = False
            if tag <= LAST_OF_FRONT:
                self.front[tag] = self._reader.at(position, end - position)
                self.rest = end
            position, last = end, tag

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
        end = self._end(value, length)
        if end > limit:
            raise CutShortFileError("an element is longer than what holds it")
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
            raise CutShortFileError("an item is longer than its sequence")
        return position

    def _item(self, position: int, end: int | None, limit: int, depth: int) -> int:
        if end is not None and end > limit:
            raise CutShortFileError("an item is longer than its sequence")
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
            if tag != _ITEM:
                raise ValueError("encapsulated pixel data hold something else than fragments")
            position = self._end(value, length)
            if position > self._reader.size:
                raise CutShortFileError("a fragment is longer than the file")

    def _end(self, value: int, length: int) -> int:
        self.regular = self.regular and length % 2 == 0
        return value + length

    def _is_plain(self, position: int, length: int) -> bool:
        text = self._reader.at(position, length)
        return text.isascii() and b"\x1b" not in text


@lru_cache(maxsize=8192)
def _vr_of(tag: int) -> bytes:
    try:
        return dictionary_VR(tag).encode("ascii")[:2]
    except KeyError:
        return b"UN"
