"""Command sets: the few elements of group 0000 before each data set, by a small codec of our own.

They are Implicit VR Little Endian whatever was negotiated (PS3.7 6.3.1), and their elements are those of
PS3.7 Annex E. pynetdicom takes them through pydicom's data sets, which costs 0.7 ms for each C-STORE
(performance 1.4, 7), more than the object itself on a local network.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
C_GET_RQ: Final = 0x0010
C_GET_RSP: Final = 0x8010
C_FIND_RQ: Final = 0x0020
C_FIND_RSP: Final = 0x8020
C_MOVE_RQ: Final = 0x0021
C_MOVE_RSP: Final = 0x8021
C_ECHO_RQ: Final = 0x0030
C_CANCEL_RQ: Final = 0x0FFF

#: Command Data Set Type (0000,0800): this value says that no data set follows, any other that one does.
NO_DATA_SET: Final = 0x0101
_DATA_SET: Final = 0x0001
#: Priority (0000,0700).
_MEDIUM: Final = 0

_GROUP_LENGTH: Final = 0x0000
_AFFECTED_SOP_CLASS_UID: Final = 0x0002
_COMMAND_FIELD: Final = 0x0100
_MESSAGE_ID: Final = 0x0110
_RESPONDED_TO: Final = 0x0120
_MOVE_DESTINATION: Final = 0x0600
_PRIORITY: Final = 0x0700
_DATA_SET_TYPE: Final = 0x0800
_STATUS: Final = 0x0900
_ERROR_COMMENT: Final = 0x0902
_AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
_REMAINING: Final = 0x1020
_COMPLETED: Final = 0x1021
_FAILED: Final = 0x1022
_WARNING: Final = 0x1023
_ORIGINATOR: Final = 0x1030
_ORIGINATOR_MESSAGE_ID: Final = 0x1031

#: Elements of two bytes that are asked for here.
_NUMBERS: Final = (
    _COMMAND_FIELD,
    _MESSAGE_ID,
    _RESPONDED_TO,
    _PRIORITY,
    _DATA_SET_TYPE,
    _STATUS,
    _ORIGINATOR_MESSAGE_ID,
)
#: Others, of responses to C-GET and C-MOVE alone.
_COUNTS: Final = (_REMAINING, _COMPLETED, _FAILED, _WARNING)

_HEAD: Final = struct.Struct("<HHI")
_NUMBER: Final = struct.Struct("<HHIH")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 9.3.1.1).

    :param sop_class_uid: Affected SOP Class UID.
    :param sop_instance_uid: Affected SOP Instance UID.
    :param message_id: Message ID, 0 to 65535.
    :param priority: 0 medium, 1 high, 2 low.
    :param originator: AE title and Message ID of the C-MOVE-RQ, for a sub-operation of one.
    """

    sop_class_uid: str
    sop_instance_uid: str
    message_id: int
    priority: int = 0
    originator: tuple[str, int] | None = None

    def encoded(self) -> bytes:
        """Return the command set.

        :raises ValueError: for a number or a text that does not fit its element.
        """
        body = (
            _text(_AFFECTED_SOP_CLASS_UID, self.sop_class_uid, 64, b"\0")
            + _number(_COMMAND_FIELD, C_STORE_RQ)
            + _number(_MESSAGE_ID, self.message_id)
            + _number(_PRIORITY, self.priority)
            + _number(_DATA_SET_TYPE, _DATA_SET)
            + _text(_AFFECTED_SOP_INSTANCE_UID, self.sop_instance_uid, 64, b"\0")
        )
        if self.originator is not None:
            ae_title, message_id = self.originator
            body += _text(_ORIGINATOR, ae_title, 16, b" ") + _number(_ORIGINATOR_MESSAGE_ID, message_id)
        return _whole(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A C-FIND-RQ, C-MOVE-RQ, C-GET-RQ or C-ECHO-RQ (PS3.7 9.3.2.1, 9.3.4.1, 9.3.3.1, 9.3.5.1).

    :param command_field: :data:`C_FIND_RQ`, :data:`C_MOVE_RQ`, :data:`C_GET_RQ`, or :data:`C_ECHO_RQ`, which alone has
        neither an identifier nor a priority.
    :param sop_class_uid: Affected SOP Class UID.
    :param message_id: Message ID, 0 to 65535.
    :param move_destination: AE title, of a C-MOVE.
    """

    command_field: int
    sop_class_uid: str
    message_id: int
    move_destination: str | None = None

    def encoded(self) -> bytes:
        """Return the command set.

        :raises ValueError: for a number or a text that does not fit its element.
        """
        body = (
            _sop_class(self.sop_class_uid)
            + _number(_COMMAND_FIELD, self.command_field)
            + _number(_MESSAGE_ID, self.message_id)
        )
        if self.command_field == C_ECHO_RQ:
            return _whole(body + _number(_DATA_SET_TYPE, NO_DATA_SET))
        if self.move_destination is not None:
            body += _text(_MOVE_DESTINATION, self.move_destination, 16, b" ")
        return _whole(body + _number(_PRIORITY, _MEDIUM) + _number(_DATA_SET_TYPE, _DATA_SET))


# One is made for each object that comes, and a named tuple is made faster than a frozen dataclass.
class StoreResponse(NamedTuple):
    """A C-STORE-RSP (PS3.7 9.3.1.2).

    :param sop_class_uid: of the request, as are the next two.
    :param sop_instance_uid: left out when it is empty.
    :param responds_to: Message ID of the request.
    :param error_comment: for a failure; what is not ASCII in it becomes ``?``, and 64 characters are kept.
    """

    sop_class_uid: str
    sop_instance_uid: str
    responds_to: int
    status: int
    error_comment: str = ""

    def encoded(self) -> bytes:
        """Return the command set.

        :raises ValueError: for a number or a text that does not fit its element.
        """
        comment = self.error_comment and self.error_comment[:64].encode("ascii", "replace").decode()
        return _whole(
            _sop_class(self.sop_class_uid)
            + _STORE_RSP_FIELD
            + _number(_RESPONDED_TO, self.responds_to)
            + _NO_DATA_SET_FOLLOWS
            + _number(_STATUS, self.status)
            + (_text(_ERROR_COMMENT, comment, 64, b" ") if comment else b"")
            + (_text(_AFFECTED_SOP_INSTANCE_UID, self.sop_instance_uid, 64, b"\0") if self.sop_instance_uid else b"")
        )


class FindResponse(NamedTuple):
    """A C-FIND-RSP without a comment (PS3.7 9.3.2.2).

    :param sop_class_uid: of the information model.
    :param responds_to: Message ID of the request.
    :param has_identifier: whether a match goes with it.
    """

    sop_class_uid: str
    responds_to: int
    status: int
    has_identifier: bool

    def encoded(self) -> bytes:
        """Return the command set.

        :raises ValueError: for a number or a text that does not fit its element.
        """
        return _whole(
            _sop_class(self.sop_class_uid)
            + _number(_COMMAND_FIELD, C_FIND_RSP)
            + _number(_RESPONDED_TO, self.responds_to)
            + _number(_DATA_SET_TYPE, _DATA_SET if self.has_identifier else NO_DATA_SET)
            + _number(_STATUS, self.status)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveProgress:
    """A C-MOVE-RSP or C-GET-RSP without an identifier (PS3.7 9.3.4.2, 9.3.3.2): what a pending one is.

    :param command_field: :data:`C_MOVE_RSP` or :data:`C_GET_RSP`.
    :param sop_class_uid: of the information model.
    :param responds_to: Message ID of the request.
    """

    command_field: int
    sop_class_uid: str
    responds_to: int
    status: int
    remaining: int
    completed: int
    failed: int
    warning: int

    def encoded(self) -> bytes:
        """Return the command set.

        :raises ValueError: for a number or a text that does not fit its element.
        """
        return _whole(
            _text(_AFFECTED_SOP_CLASS_UID, self.sop_class_uid, 64, b"\0")
            + _number(_COMMAND_FIELD, self.command_field)
            + _number(_RESPONDED_TO, self.responds_to)
            + _number(_DATA_SET_TYPE, NO_DATA_SET)
            + _number(_STATUS, self.status)
            + _number(_REMAINING, self.remaining)
            + _number(_COMPLETED, self.completed)
            + _number(_FAILED, self.failed)
            + _number(_WARNING, self.warning)
        )


class Counts(NamedTuple):
    """Sub-operations of a C-GET or C-MOVE, as far as a response tells them."""

    remaining: int | None
    completed: int | None
    failed: int | None
    warning: int | None


class Command:
    """A command set as it came from a peer.

    :param data: its bytes, all fragments together.
    :raises ValueError: when its elements do not fit into each other, or a number has not two bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        elements = self._elements = _elements(data)
        # All of them now, so that nobody who asks for one meets what is wrong with it in the middle of a message.
        numbers = _numbers(elements, _NUMBERS)
        for element in (_COMMAND_FIELD, _DATA_SET_TYPE):
            if element not in numbers:
                raise ValueError(f"element (0000,{element:04X}) is missing")
        self._numbers = numbers
        self.command_field = numbers[_COMMAND_FIELD]
        #: Whether a data set follows.
        self.has_data_set = numbers[_DATA_SET_TYPE] != NO_DATA_SET

    @property
    def responds_to(self) -> int | None:
        """Message ID Being Responded To (0000,0120) of a response."""
        return self._numbers.get(_RESPONDED_TO)

    @property
    def status(self) -> int | None:
        """Status (0000,0900) of a response."""
        return self._numbers.get(_STATUS)

    @property
    def error_comment(self) -> str:
        """Error Comment (0000,0902), LO: what is not ASCII in it becomes ``?``."""
        return self._elements.get(_ERROR_COMMENT, b"").decode("ascii", "replace").replace("\ufffd", "?").strip(" \0")

    @property
    def message_id(self) -> int | None:
        """Message ID (0000,0110) of a request."""
        return self._numbers.get(_MESSAGE_ID)

    @property
    def sop_class_uid(self) -> str:
        """Affected SOP Class UID (0000,0002) without its padding, whatever it is; empty when absent."""
        return self._text(_AFFECTED_SOP_CLASS_UID)

    @property
    def sop_instance_uid(self) -> str:
        """Affected SOP Instance UID (0000,1000) without its padding, whatever it is; empty when absent."""
        return self._text(_AFFECTED_SOP_INSTANCE_UID)

    @property
    def priority(self) -> int | None:
        """Priority (0000,0700) of a request."""
        return self._numbers.get(_PRIORITY)

    @property
    def originator_ae_title(self) -> str:
        """Move Originator Application Entity Title (0000,1030) without its padding, whatever it is."""
        return self._elements.get(_ORIGINATOR, b"").decode("latin-1").strip()

    @property
    def originator_message_id(self) -> int | None:
        """Move Originator Message ID (0000,1031)."""
        return self._numbers.get(_ORIGINATOR_MESSAGE_ID)

    def counts(self) -> Counts:
        """Return the Numbers of Sub-operations (0000,1020) to (0000,1023) of a response.

        :raises ValueError: when one of them has not two bytes.
        """
        numbers = _numbers(self._elements, _COUNTS)
        return Counts(*map(numbers.get, _COUNTS))

    def _text(self, element: int) -> str:
        return self._elements.get(element, b"").decode("latin-1").rstrip("\0 ")


def _elements(data: bytes) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    position, end = 0, len(data)
    while position < end:
        if end - position < _HEAD.size:
            raise ValueError("a command set ends within an element")
        group, element, length = _HEAD.unpack_from(data, position)
        start = position + _HEAD.size
        position = start + length
        if group or position > end:
            raise ValueError("a command set holds what is no command element")
        elements[element] = data[start:position]
    return elements


def _numbers(elements: Mapping[int, bytes], wanted: Sequence[int]) -> dict[int, int]:
    """Return those of the wanted elements that are there and not empty.

    :raises ValueError: when one of them has not two bytes.
    """
    numbers: dict[int, int] = {}
    for element in wanted:
        if value := elements.get(element):
            if len(value) != 2:
                raise ValueError(f"element (0000,{element:04X}) has {len(value)} bytes instead of 2")
            numbers[element] = value[0] | value[1] << 8
    return numbers


def _number(element: int, value: int) -> bytes:
    if not 0 <= value <= 0xFFFF:
        raise ValueError(f"element (0000,{element:04X}) does not take {value}")
    return _NUMBER.pack(0, element, 2, value)


def _text(element: int, value: str, limit: int, padding: bytes) -> bytes:
    # encode() raises UnicodeEncodeError, which is a ValueError.
    encoded = value.encode("ascii")
    if len(encoded) > limit:
        raise ValueError(f"element (0000,{element:04X}) takes {limit} bytes, not {len(encoded)}")
    encoded += padding * (len(encoded) % 2)
    return _HEAD.pack(0, element, len(encoded)) + encoded


@lru_cache(maxsize=128)
def _sop_class(uid: str) -> bytes:
    """Return the element of a SOP class: there are few, and each answer repeats one."""
    return _text(_AFFECTED_SOP_CLASS_UID, uid, 64, b"\0")


def _whole(body: bytes) -> bytes:
    return struct.pack("<HHII", 0, _GROUP_LENGTH, 4, len(body)) + body


# Of each C-STORE-RSP.
_STORE_RSP_FIELD: Final = _number(_COMMAND_FIELD, C_STORE_RSP)
_NO_DATA_SET_FOLLOWS: Final = _number(_DATA_SET_TYPE, NO_DATA_SET)
