"""The structure of a data set, read without decoding it (PS3.5 chapter 7).

Two questions are answered here about bytes that a peer sent: *does the head name the SOP instance
that the command set announced?* (before the answer; :func:`parse_head`), and *do the element
lengths walk to the end?* (when a retrieval claims the object; :func:`walk_elements`). Values are
stepped over, nothing is inflated, recursion is replaced by a bounded stack.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from airflow_provider_varian.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

Buffer = bytes | bytearray | memoryview


class Readable(Protocol):
    """Bytes by their place: in memory, or read from a file when they are asked for."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, part: slice, /) -> Buffer:
        """Return those of a part, fewer where it reaches over the end."""


#: How many bytes of a data set are kept to look for its UIDs; they sit in the first few hundred.
HEAD_BYTES: Final = 65536

#: Sequences in sequences; DCMTK stops at the same depth (prior-art 5.3).
MAX_DEPTH: Final = 64

_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_DELIMITER: Final = 0xFFFEE00D
_SEQUENCE_DELIMITER: Final = 0xFFFEE0DD
_PIXEL_DATA: Final = 0x7FE00010

SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
MODALITY: Final = 0x00080060
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E

#: VRs with a length of 16 bits (PS3.5 table 7.1-2); each other VR has one of 32 bits.
_SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(),
)
#: Transfer syntaxes whose data sets are not what the walk expects; none is ever negotiated.
UNREADABLE_TRANSFER_SYNTAXES: Final = frozenset({DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN})

#: What :class:`Head` tells.
_WANTED: Final = (SOP_CLASS_UID, SOP_INSTANCE_UID, MODALITY, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)
#: The group of items and delimiters, which have no VR in either encoding.
_DELIMITERS: Final = 0xFFFE

#: Tag, nothing, and a length of 32 bits; tag, VR and a length of 16 bits.
_IMPLICIT_HEAD: Final = struct.Struct("<HH0sI")
_SHORT_HEAD: Final = struct.Struct("<HH2sH")
#: Stands for the head of an element that has to be looked at closely.
_ODD: Final = (_DELIMITERS, 0, b"", 0)
_TAG: Final = struct.Struct("<HH")
_LENGTH: Final = struct.Struct("<I")
_SHORT_LENGTH: Final = struct.Struct("<H")


class DataSetError(Exception):
    """The bytes are not a well-formed data set of their transfer syntax."""


class _EndsInside(DataSetError):  # noqa: N818 - tells a cut buffer from a wrong one
    """The bytes end inside an element: wrong for a whole data set, normal for a cut head."""


class Element(NamedTuple):
    """One element of the top level: its tag as ``0xGGGGEEEE``, and where its value lies."""

    tag: int
    start: int
    length: int


class _Frame(NamedTuple):
    """What surrounds the current position: a data set, a sequence, an item, or pixel fragments."""

    kind: str
    explicit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The UIDs and the modality at the head of a data set; ``None`` where it does not show one.

    :param sop_class_uid: (0008,0016).
    :param sop_instance_uid: (0008,0018).
    :param study_instance_uid: (0020,000D).
    :param series_instance_uid: (0020,000E).
    :param modality: (0008,0060).
    """

    sop_class_uid: str | None
    sop_instance_uid: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    modality: str | None = None


def parse_head(data: Buffer, transfer_syntax_uid: str) -> Head:
    """Read the UIDs and the modality of a data set from its first bytes, up to (0020,000E).

    :param data: the beginning of the data set; it may end anywhere.
    :param transfer_syntax_uid: the transfer syntax that it came in.
    :raises DataSetError: when the bytes are no data set, or the transfer syntax is one that is
        never negotiated (deflated, big endian).
    """
    return _head(data, transfer_syntax_uid)[0]


def head_within(data: Buffer, transfer_syntax_uid: str) -> Head | None:
    """Read the same UIDs from the first piece of a data set, if they are all the head has, whatever follows.

    :return: ``None``: the piece ends before an element behind (0020,000E), so more bytes may tell more.
    :raises DataSetError: see :func:`parse_head`, which raises it of a longer beginning too.
    """
    head, is_whole = _head(data, transfer_syntax_uid)
    return head if is_whole else None


def _head(data: Buffer, transfer_syntax_uid: str) -> tuple[Head, bool]:
    """Return the UIDs of a head, and whether it was read to its end, and not to that of the bytes."""
    explicit = _is_explicit(transfer_syntax_uid)
    plain = _SHORT_HEAD.unpack_from if explicit else _IMPLICIT_HEAD.unpack_from
    found: dict[int, str | None] = dict.fromkeys(_WANTED)
    position, end, is_whole = 0, len(data), False
    try:
        while position < end:
            value = position + 8
            group, number, vr, length = plain(data, position) if value <= end else _ODD
            if group == _DELIMITERS or not (vr in _SHORT_VRS if explicit else length != _UNDEFINED):
                (tag, value, length), position = _element_at(data, position, explicit)
            else:
                # Nearly all are like this, and each object's sender waits meanwhile: no call for each of them.
                tag, position = group << 16 | number, value + length
                if position > end:
                    break
            if tag > SERIES_INSTANCE_UID:
                is_whole = True
                break
            if tag in found:
                found[tag] = _text(data, value, length)
    except _EndsInside:
        pass  # a head is cut somewhere; what was read before stands
    head = Head(
        sop_class_uid=found[SOP_CLASS_UID],
        sop_instance_uid=found[SOP_INSTANCE_UID],
        study_instance_uid=found[STUDY_INSTANCE_UID],
        series_instance_uid=found[SERIES_INSTANCE_UID],
        modality=found[MODALITY],
    )
    return head, is_whole


def walk_elements(data: Readable, transfer_syntax_uid: str, *, start: int = 0) -> int:
    """Walk a whole data set by its element lengths and return how many elements its top level has.

    :param data: the data set, e.g. a file mapped into memory.
    :param transfer_syntax_uid: the transfer syntax that it is encoded in.
    :param start: where in ``data`` it begins.
    :raises DataSetError: when the lengths do not end exactly at the end of ``data``.
    """
    return sum(1 for _ in iter_elements(data, transfer_syntax_uid, start=start))


def iter_elements(data: Readable, transfer_syntax_uid: str, *, start: int = 0) -> Iterator[Element]:
    """Iterate over the elements of the top level, stepping over what is nested in them.

    :param data: the data set.
    :param transfer_syntax_uid: the transfer syntax that it is encoded in.
    :param start: where in ``data`` it begins.
    :raises DataSetError: as soon as the bytes cannot be a data set.
    """
    explicit = _is_explicit(transfer_syntax_uid)
    position, end = start, len(data)
    while position < end:
        element, position = _element_at(data, position, explicit)
        yield element


def _is_explicit(transfer_syntax_uid: str) -> bool:
    if transfer_syntax_uid in UNREADABLE_TRANSFER_SYNTAXES:
        raise DataSetError(f"transfer syntax {transfer_syntax_uid} is not read here")
    # Every compressed transfer syntax is Explicit VR Little Endian (PS3.5 A.4).
    return transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN


def _element_at(data: Readable, position: int, explicit: bool) -> tuple[Element, int]:
    """Return the element that begins at a position, and where it ends."""
    tag, vr, length, value = _header(data, position, explicit)
    if length == _UNDEFINED:
        position = _step_over(data, value, _Frame(_nested_kind(tag, vr), _nested_explicit(vr, explicit)))
        return Element(tag, value, position - value), position
    position = _advance(data, value, length)
    return Element(tag, value, length), position


def _header(data: Readable, position: int, explicit: bool) -> tuple[int, bytes, int, int]:
    """Return tag, VR (empty when implicit), length, and where the value begins."""
    front = data[position : position + 12]
    try:
        group, number = _TAG.unpack_from(front)
        tag = group << 16 | number
        if not explicit or group == _DELIMITERS:
            return tag, b"", _LENGTH.unpack_from(front, 4)[0], position + 8
        vr = bytes(front[4:6])
        if vr in _SHORT_VRS:
            return tag, vr, _SHORT_LENGTH.unpack_from(front, 6)[0], position + 8
        if len(vr) == 2 and not vr.isalpha():
            raise DataSetError(f"no value representation at byte {position + 4}")
        return tag, vr, _LENGTH.unpack_from(front, 8)[0], position + 12
    except struct.error as error:
        raise _EndsInside(f"the data set ends inside the element at byte {position}") from error


def _advance(data: Readable, value: int, length: int) -> int:
    if value + length > len(data):
        raise _EndsInside(f"a value of {length} bytes at byte {value} reaches over the end")
    return value + length


def _nested_kind(tag: int, vr: bytes) -> str:
    if vr in (b"", b"SQ", b"UN"):
        return "sequence"
    if tag == _PIXEL_DATA and vr in (b"OB", b"OW"):
        return "fragments"
    raise DataSetError(f"undefined length with VR {vr.decode('ascii', 'replace')}")


def _nested_explicit(vr: bytes, explicit: bool) -> bool:
    # PS3.5 6.2.2 note 2: a sequence of VR UN and undefined length is Implicit VR inside.
    return explicit and vr != b"UN"


def _step_over(data: Readable, position: int, outermost: _Frame) -> int:
    """Walk a value of undefined length to behind its delimiter."""
    stack = [outermost]
    while stack:
        tag, vr, length, value = _header(data, position, stack[-1].explicit)
        if stack[-1].kind == "item":
            position = _element_of_item(data, stack, tag, vr, length, value)
        else:
            position = _item_of_sequence(data, stack, tag, length, value)
        if len(stack) > 2 * MAX_DEPTH:
            raise DataSetError(f"sequences are nested deeper than {MAX_DEPTH}")
    return position


def _element_of_item(data: Readable, stack: list[_Frame], tag: int, vr: bytes, length: int, value: int) -> int:
    if tag == _ITEM_DELIMITER:
        stack.pop()
        return _advance(data, value, length)
    if length == _UNDEFINED:
        stack.append(_Frame(_nested_kind(tag, vr), _nested_explicit(vr, stack[-1].explicit)))
        return value
    return _advance(data, value, length)


def _item_of_sequence(data: Readable, stack: list[_Frame], tag: int, length: int, value: int) -> int:
    if tag == _SEQUENCE_DELIMITER:
        stack.pop()
        return _advance(data, value, length)
    if tag != _ITEM:
        raise DataSetError(f"neither item nor delimiter at byte {value - 8}")
    if length != _UNDEFINED:
        return _advance(data, value, length)
    if stack[-1].kind == "fragments":
        raise DataSetError("a pixel data fragment has no length")
    stack.append(_Frame("item", stack[-1].explicit))
    return value


def _text(data: Buffer, start: int, length: int) -> str:
    # A UID has 64 characters at most; a longer value is cut so that it compares unequal, cheaply.
    return str(data[start : start + min(length, 128)], "ascii", "replace").rstrip("\0 ")
