"""Messages as P-DATA-TF PDUs, in pieces that one system call sends (PS3.8 9.3.5, Annex E).

A command set and its data set become PDUs of the size that the peer announced, each holding one
presentation data value: a head of twelve bytes, and references to the bytes, which are not copied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from airflow_provider_varian.dimse.slices import BLOCK_BYTES, Content

Buffers = list[bytes | memoryview]

#: For peers that announce no limit, and those whose limit is larger: no gain beyond (performance 3).
LARGEST_PDU: Final = 256 * 1024
#: Heads and slices of one system call; Linux takes 1024.
_MOST_PDUS: Final = 400

_COMMAND: Final = 1
_LAST: Final = 2
_HEAD: Final = struct.Struct(">BBIIBB")
#: Of the presentation data value item, within the PDU's length: item length, context ID, control header.
_ITEM_HEAD: Final = 6


def fragment_size(max_pdu: int | None) -> int:
    """Return how many bytes of a message fit in a PDU (PS3.8 D.1); even, as DCMTK wants it.

    :param max_pdu: Maximum Length Received of the peer; 0 or ``None``: no limit.
    :raises ValueError: when not a byte fits.
    """
    size = min(max_pdu or LARGEST_PDU, LARGEST_PDU) - _ITEM_HEAD
    if size < 1:
        raise ValueError(f"the peer takes PDUs of {max_pdu} bytes at most, which is too small for any message")
    return size - size % 2 if size > 1 else size


def command_alone(context_id: int, command: bytes, size: int) -> bytes:
    """Return a message without a data set as the bytes of its PDUs; see :func:`message` for the parameters."""
    if len(command) <= size:
        return _HEAD.pack(4, 0, len(command) + _ITEM_HEAD, len(command) + 2, context_id, _COMMAND | _LAST) + command
    return b"".join(part for buffers in message(context_id, command, None, size) for part in buffers)


def message(context_id: int, command: bytes, content: Content | None, size: int) -> Iterator[Buffers]:
    """Yield a message as buffers to be sent one after the other; each list is valid until the next.

    :param context_id: the presentation context.
    :param command: the command set.
    :param content: the data set, opened; ``None`` when there is none.
    :param size: bytes of a fragment; see :func:`fragment_size`.
    :raises OSError: when a file has become shorter.
    """
    ready = _framed(context_id, _COMMAND, [memoryview(command)], size, last=True)
    if content is None:
        yield ready
        return
    block = max(1, min(BLOCK_BYTES // size, _MOST_PDUS)) * size
    while content.left:
        parts = content.take(block)
        yield ready + _framed(context_id, 0, parts, size, last=not content.left)
        ready = []


def _framed(context_id: int, kind: int, parts: Iterable[memoryview], size: int, *, last: bool) -> Buffers:
    """Cut bytes into PDUs; only the last one may be shorter than ``size``."""
    full = _HEAD.pack(4, 0, size + _ITEM_HEAD, size + 2, context_id, kind)
    groups = list(_cut(parts, size))
    framed: Buffers = []
    for group in groups[:-1]:
        framed.append(full)
        framed += group
    length = sum(map(len, groups[-1]))
    flags = kind | (_LAST if last else 0)
    framed.append(_HEAD.pack(4, 0, length + _ITEM_HEAD, length + 2, context_id, flags))
    framed += groups[-1]
    return framed


def _cut(parts: Iterable[memoryview], size: int) -> Iterator[list[memoryview]]:
    group: list[memoryview] = []
    room = size
    for part in parts:
        start, left = 0, len(part)
        while left >= room:
            group.append(part[start : start + room])
            start, left = start + room, left - room
            yield group
            group, room = [], size
        if left:
            group.append(part[start:])
            room -= left
    if group:
        yield group
