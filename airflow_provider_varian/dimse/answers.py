"""The structure of a C-FIND answer, by a small codec of our own: elements and items, their values as they came.

pydicom takes 200 us for an answer, of which a long list has ten thousand (performance 5). Here only the structure is
read: who looks at a value decodes it, and text by pydicom's character-set code (semantics 16). The codec knows data
sets as PS3.5 chapter 7 draws them. What is odd in any way it leaves alone, and pydicom decides as ever what it means,
or that it means nothing: lengths that do not add up, Explicit VR where Implicit was negotiated, character sets
that pydicom would guess at, and the elements whose reading depends on others.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO
from typing import Final, Protocol, TypeAlias

from pydicom.charset import STAND_ALONE_ENCODINGS, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR
from pynetdicom.dsutils import decode

#: The bytes of a value, or the items of a sequence.
Content: TypeAlias = "bytes | tuple[Answer, ...]"

#: Specific Character Set.
CHARACTER_SET: Final = 0x00080005
# pydicom decodes it together with each sequence beside it.
_PIXEL_REPRESENTATION: Final = 0x00280103
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_DELIMITERS: Final = 0xFFFE
_UNDEFINED: Final = 0xFFFFFFFF
#: Nobody nests deeper; a hostile peer is left to pydicom, which fails in good order.
_DEPTH_BOUND: Final = 16
_KNOWN_TAGS_BOUND: Final = 8192

_HEAD: Final = struct.Struct("<HHI")
_EXPLICIT_HEAD: Final = struct.Struct("<HH2sH")
_LENGTH: Final = struct.Struct("<I")
_HEAD_BYTES: Final = 8
_LONG_HEAD_BYTES: Final = 12
#: VR as encoded, to its name and the bytes of an element's head (PS3.5 7.1.2).
_VRS: Final = {
    str(vr).encode("ascii"): (str(vr), _LONG_HEAD_BYTES if vr in EXPLICIT_VR_LENGTH_32 else _HEAD_BYTES)
    for vr in STANDARD_VR
}

# Kinds of tags.
_PLAIN: Final = 0
_SEQUENCE: Final = 1
_SPECIAL: Final = 2


class Answer:
    """An answer, or an item of one, whose structure is understood.

    :param contents: by tag, the bytes of a value or the items of a sequence; an element may be empty.
    :param vrs: by tag, the VR on the wire; None when it was not there (Implicit VR).
    :param encoded: the whole data set, for :meth:`data_set`; empty for items.
    """

    __slots__ = ("contents", "encoded", "vrs")

    def __init__(self, contents: dict[int, Content], vrs: dict[int, str] | None, encoded: bytes = b"") -> None:
        self.contents = contents
        self.vrs = vrs
        self.encoded = encoded

    def data_set(self) -> Dataset:
        """Return the same answer as pydicom reads it."""
        return decode(BytesIO(self.encoded), self.vrs is None, True)

    def __repr__(self) -> str:
        return f"<Answer of {len(self.contents)} elements>"


#: An answer as the wire's readers leave it: pydicom's data set where the codec does not understand it.
Answered: TypeAlias = Answer | Dataset


class _UnclearError(Exception):
    """What stands there has to be read by pydicom."""


class _Reader(Protocol):
    """Reads elements, see :func:`_implicit`."""

    def __call__(
        self, data: bytes, position: int, end: int, depth: int, *, delimited: bool
    ) -> tuple[dict[int, Content], dict[int, str] | None, int]: ...


def answer_of(encoded: bytes, *, implicit_vr: bool) -> Answer | None:
    """Return the structure of a data set in Little Endian, or None when pydicom has to read it.

    :param encoded: the whole data set.
    :param implicit_vr: Implicit VR was negotiated, not Explicit VR.
    """
    try:
        if not implicit_vr:
            contents, vrs, _ = _explicit(encoded, 0, len(encoded), 0, delimited=False)
            return Answer(contents, vrs, encoded)
        if _looks_explicit(encoded):
            return None
        return Answer(_implicit(encoded, 0, len(encoded), 0, delimited=False)[0], None, encoded)
    except (_UnclearError, struct.error):
        return None


def _looks_explicit(encoded: bytes) -> bool:
    """Say whether pydicom would take the first length for a VR, and the data set for Explicit VR."""
    vr = encoded[4:6]
    return vr.isalpha() and vr.isupper()


class _Kinds(dict[int, int]):
    """The kind of each tag, looked up once."""

    def __missing__(self, tag: int) -> int:
        if len(self) >= _KNOWN_TAGS_BOUND:
            # A hostile peer may send any number of tags.
            self.clear()
        kind = _PLAIN
        if tag >> 16 == _DELIMITERS or tag in (CHARACTER_SET, _PIXEL_REPRESENTATION):
            kind = _SPECIAL
        elif _dictionary_vr(tag) == "SQ":
            kind = _SEQUENCE
        self[tag] = kind
        return kind


_KINDS: Final = _Kinds()


def _dictionary_vr(tag: int) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""


def _implicit(
    data: bytes, position: int, end: int, depth: int, *, delimited: bool
) -> tuple[dict[int, Content], None, int]:
    """Read elements without VR.

    :param delimited: up to an Item Delimitation Item, and ``end`` is only a bound; else up to ``end`` exactly.
    :return: the contents by tag, None for the VRs, and where the elements end.
    """
    contents: dict[int, Content] = {}
    unpack_from, kinds = _HEAD.unpack_from, _KINDS
    while position < end:
        group, element, length = unpack_from(data, position)
        tag = group << 16 | element
        start = position + _HEAD_BYTES
        position = start + length
        kind = kinds[tag]
        if not kind and length and position <= end:
            contents[tag] = data[start:position]
        elif kind == _SEQUENCE:
            contents[tag], position = _sequence(_implicit, data, start, end, length, depth)
        elif tag == _ITEM_END and delimited and not length:
            return contents, None, start
        else:
            contents[tag] = _special(data, tag, start, position, end)
    if delimited:
        raise _UnclearError
    return contents, None, position


def _explicit(
    data: bytes, position: int, end: int, depth: int, *, delimited: bool
) -> tuple[dict[int, Content], dict[int, str], int]:
    """Read elements with VR, see :func:`_implicit`; the VRs by tag are returned too."""
    contents: dict[int, Content] = {}
    vrs: dict[int, str] = {}
    while position < end:
        group, element, encoded_vr, length = _EXPLICIT_HEAD.unpack_from(data, position)
        tag = group << 16 | element
        if encoded_vr not in _VRS:
            if tag == _ITEM_END and delimited and encoded_vr == b"\0\0" and not length:
                return contents, vrs, position + _HEAD_BYTES
            raise _UnclearError
        vr, head_bytes = _VRS[encoded_vr]
        start = position + head_bytes
        if head_bytes == _LONG_HEAD_BYTES:
            (length,) = _LENGTH.unpack_from(data, position + _HEAD_BYTES)
        position = start + length
        kind = _KINDS[tag]
        vrs[tag] = vr
        if vr == "SQ":
            _check_sequence(tag, kind, length)
            contents[tag], position = _sequence(_explicit, data, start, end, length, depth)
        elif (vr == "UN" and kind == _SEQUENCE) or (tag == CHARACTER_SET and vr != "CS"):
            raise _UnclearError
        elif kind == _SPECIAL or not length or position > end:
            contents[tag] = _special(data, tag, start, position, end)
        else:
            contents[tag] = data[start:position]
    if delimited:
        raise _UnclearError
    return contents, vrs, position


def _check_sequence(tag: int, kind: int, length: int) -> None:
    # Reading a private sequence, pydicom decodes its creator too.
    if kind == _SPECIAL or (tag >> 16 & 1 and length):
        raise _UnclearError


def _special(data: bytes, tag: int, start: int, position: int, end: int) -> bytes:
    """Return the value of an element that needs a second look, if it is clear."""
    if position > end or tag >> 16 == _DELIMITERS or tag == _PIXEL_REPRESENTATION:
        raise _UnclearError
    value = data[start:position]
    clear = _clear_character_set(value) if tag == CHARACTER_SET else bool(value) or _clear_when_empty(tag)
    if not clear:
        raise _UnclearError
    return value


@lru_cache(maxsize=_KNOWN_TAGS_BOUND)
def _clear_when_empty(tag: int) -> bool:
    """Say whether an empty element means nothing but that: pydicom decodes such elements at once.

    It then looks at others too, for VRs that depend on them and for private elements.
    """
    vr = _dictionary_vr(tag)
    return bool(vr) and " or " not in vr and not tag >> 16 & 1


@lru_cache(maxsize=64)
def _clear_character_set(value: bytes) -> bool:
    """Say whether pydicom knows the character sets as they are spelt, and may combine them."""
    names = value.decode("ascii", errors="replace").rstrip(" \0").split("\\")
    known = all(name in python_encoding for name in names)
    return known and (len(names) == 1 or not any(name in STAND_ALONE_ENCODINGS for name in names))


def _sequence(
    read: _Reader, data: bytes, start: int, end: int, length: int, depth: int
) -> tuple[tuple[Answer, ...], int]:
    """Read the items of a sequence (PS3.5 7.5); return them, and where the sequence ends."""
    delimited = length == _UNDEFINED
    if depth >= _DEPTH_BOUND or (not delimited and start + length > end):
        raise _UnclearError
    stop = end if delimited else start + length
    items: list[Answer] = []
    position = start
    while position < stop:
        group, element, size = _HEAD.unpack_from(data, position)
        tag = group << 16 | element
        position += _HEAD_BYTES
        if tag == _SEQUENCE_END and delimited and not size:
            return tuple(items), position
        if tag != _ITEM:
            raise _UnclearError
        last = stop if size == _UNDEFINED else position + size
        if last > stop:
            raise _UnclearError
        contents, vrs, position = read(data, position, last, depth + 1, delimited=size == _UNDEFINED)
        items.append(Answer(contents, vrs))
    if delimited or position != stop:
        raise _UnclearError
    return tuple(items), stop
