"""Looking through an A-ASSOCIATE-RQ or -AC before it is decoded (PS3.8 9.3.2, 9.3.3; PS3.7 Annex D.3.3).

pynetdicom makes objects of everything in it, some twenty microseconds and a kilobyte for each item of five bytes.
So first it is counted and measured: that the items fill the PDU, that lengths within lengths are true, that there
are no more of them than an association can use. What the values mean is left to pynetdicom.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from airflow_provider_varian.dimse.bounds import Bounds, MalformedError

Buffer = bytes | bytearray | memoryview

_FIXED_BYTES: Final = 68
_ITEM: Final = struct.Struct(">BxH")
_LENGTH: Final = struct.Struct(">H")

_APPLICATION_CONTEXT: Final = 0x10
_ASKED, _ANSWERED = 0x20, 0x21
_ABSTRACT_SYNTAX: Final = 0x30
_TRANSFER_SYNTAX: Final = 0x40
_USER_INFORMATION: Final = 0x50
_IMPLEMENTATION_CLASS: Final = 0x52
#: Context ID, a reserved byte, result or reserved, a reserved byte.
_CONTEXT_HEAD_BYTES: Final = 4
_LONGEST_UID: Final = 64
_LONGEST_NAME: Final = 16


class _Item(NamedTuple):
    kind: int
    start: int
    end: int


#: AE: no control characters, and no backslash, which separates values. UI: digits and dots, padded (PS3.5 6.2). Of an
#: empty transfer syntax pynetdicom's thread dies.
_AE_TITLE: Final = re.compile(rb"[ -\[\]-~]*")
_NAME: Final = re.compile(rb"[ -~]*\0*")
_UID: Final = re.compile(rb"[0-9.]+[\0 ]*")


def check(body: Buffer, bounds: Bounds, *, answer: bool = False) -> None:
    """Look through the body of an A-ASSOCIATE-RQ, or of an A-ASSOCIATE-AC.

    Items of kinds that PS3.8 does not know are stepped over, as it asks (9.3.1).

    :param body: the PDU without its head of six bytes.
    :param answer: whether it is an A-ASSOCIATE-AC.
    :raises MalformedError: a length is not true, a context ID even or used twice, a UID longer than 64 bytes, a part
        missing or there twice, or there are more of them than ``bounds`` allows. In an A-ASSOCIATE-RQ also where AE
        titles, UIDs or a version name have bytes that cannot be in one: pynetdicom would log them as they are.
    """
    if len(body) < _FIXED_BYTES:
        raise MalformedError("an association PDU ends within its fixed part")
    if not answer and not (_AE_TITLE.fullmatch(body, 4, 20) and _AE_TITLE.fullmatch(body, 20, 36)):
        raise MalformedError("an AE title holds what cannot be in one")
    wanted, unwanted = (_ANSWERED, _ASKED) if answer else (_ASKED, _ANSWERED)
    once = {_APPLICATION_CONTEXT: 0, _USER_INFORMATION: 0}
    contexts: set[int] = set()
    others = 0
    for item in _items(body, _FIXED_BYTES, len(body)):
        if item.kind in once:
            once[item.kind] += 1
            if item.kind == _USER_INFORMATION:
                _check_user_information(body, item, bounds, answer=answer)
            else:
                _check_uid(body, item, answer=answer)
        elif item.kind == unwanted:
            raise MalformedError("a presentation context of the other direction")
        elif item.kind == wanted:
            contexts.add(_check_context(body, item, bounds, contexts, answer=answer))
        else:
            others += 1
        if others > bounds.user_items or max(once.values()) > 1:
            raise MalformedError("an association PDU has too many items")
    if min(once.values()) < 1 or not contexts:
        raise MalformedError("an association PDU lacks an item that it must have")


def _items(body: Buffer, start: int, end: int) -> Iterator[_Item]:
    """Walk over items that have to fill their place exactly."""
    while start < end:
        if end - start < _ITEM.size:
            raise MalformedError("an association PDU ends within the head of an item")
        kind, length = _ITEM.unpack_from(body, start)
        start += _ITEM.size
        if length > end - start:
            raise MalformedError("an item is longer than what it lies in")
        yield _Item(kind, start, start + length)
        start += length


def _check_context(body: Buffer, item: _Item, bounds: Bounds, known: set[int], *, answer: bool) -> int:
    """Look through a presentation context; return its ID (PS3.8 9.3.2.2, 9.3.3.2)."""
    if item.end - item.start < _CONTEXT_HEAD_BYTES:
        raise MalformedError("a presentation context is too short")
    number = body[item.start]
    if number % 2 == 0 or number in known:
        raise MalformedError("the ID of a presentation context is even, or used twice")
    if len(known) >= bounds.presentation_contexts:
        raise MalformedError("an association PDU has too many presentation contexts")
    counts = {_ABSTRACT_SYNTAX: 0, _TRANSFER_SYNTAX: 0}
    others = 0
    for each in _items(body, item.start + _CONTEXT_HEAD_BYTES, item.end):
        if each.kind in counts:
            _check_uid(body, each, answer=answer)
            counts[each.kind] += 1
        else:
            others += 1
        if max(counts[_TRANSFER_SYNTAX], others) > bounds.transfer_syntaxes:
            raise MalformedError("a presentation context has too many items")
    # An answer repeats no abstract syntax, and where it refuses it may name no transfer syntax.
    if counts[_ABSTRACT_SYNTAX] != (0 if answer else 1) or (not answer and not counts[_TRANSFER_SYNTAX]):
        raise MalformedError("a presentation context names no abstract or no transfer syntax, or two abstract ones")
    return number


def _check_user_information(body: Buffer, item: _Item, bounds: Bounds, *, answer: bool) -> None:
    for count, each in enumerate(_items(body, item.start, item.end), start=1):
        if count > bounds.user_items:
            raise MalformedError("the user information has too many items")
        check_one = _SUB_ITEMS.get(each.kind)
        if check_one is not None and not check_one(body, each.start, each.end):
            raise MalformedError("an item of the user information has a wrong length, or holds what cannot be in one")
        if each.kind == _IMPLEMENTATION_CLASS and each.end > each.start:
            _check_uid(body, each, answer=answer)


def _check_uid(body: Buffer, item: _Item, *, answer: bool) -> None:
    if item.end - item.start > _LONGEST_UID:
        raise MalformedError("a UID is longer than 64 bytes")
    # In an answer some have no meaning, and are not to be tested (PS3.8 9.3.3.2).
    if not answer and not _UID.fullmatch(body, item.start, item.end):
        raise MalformedError("a UID holds what cannot be in one")


def _is_name(body: Buffer, start: int, end: int) -> bool:
    return _NAME.fullmatch(body, start, end) is not None


def _after(body: Buffer, start: int, end: int, limit: int = 0xFFFF) -> int | None:
    """Return where a field with its length in front ends; ``None`` when it does not fit."""
    if end - start < _LENGTH.size:
        return None
    length: int = _LENGTH.unpack_from(body, start)[0]
    start += _LENGTH.size
    return start + length if length <= min(limit, end - start) else None


def _role(body: Buffer, start: int, end: int) -> bool:
    """PS3.7 table D.3-9: a UID and two bytes."""
    after = _after(body, start, end, _LONGEST_UID)
    return after is not None and end - after == 2


def _extended(body: Buffer, start: int, end: int) -> bool:
    """PS3.7 table D.3-11: a UID, and anything."""
    return _after(body, start, end, _LONGEST_UID) is not None


def _common_extended(body: Buffer, start: int, end: int) -> bool:
    """PS3.7 table D.3-12: two UIDs, and a field that holds related UIDs."""
    after = _after(body, start, end, _LONGEST_UID)
    after = None if after is None else _after(body, after, end, _LONGEST_UID)
    related = None if after is None else _after(body, after, end)
    if after is None or related is None:
        return False
    after += _LENGTH.size
    while after is not None and after < related:
        after = _after(body, after, related, _LONGEST_UID)
    return after is not None


def _user_identity(body: Buffer, start: int, end: int) -> bool:
    """PS3.7 table D.3-14: kind, whether an answer is wanted, and two fields."""
    if end - start < 2:
        return False
    after = _after(body, start + 2, end)
    return after is not None and _after(body, after, end) == end


#: What is known of each sub-item's length (PS3.8 D.1, PS3.7 D.3.3); those of other kinds may be anything.
_SUB_ITEMS: Final[dict[int, Callable[[Buffer, int, int], bool]]] = {
    0x51: lambda body, start, end: end - start == 4,  # maximum length received
    0x52: lambda body, start, end: end - start <= _LONGEST_UID and _is_name(body, start, end),  # class UID
    0x53: lambda body, start, end: end - start == 4,  # asynchronous operations window
    0x54: _role,
    0x55: lambda body, start, end: end - start <= _LONGEST_NAME and _is_name(body, start, end),  # version name
    0x56: _extended,
    0x57: _common_extended,
    0x58: _user_identity,
    0x59: lambda body, start, end: _after(body, start, end) == end,  # answer to a user identity
}
