"""DIMSE messages out of the bytes of P-DATA-TF PDUs, as they come (PS3.8 9.3.5 and Annex E, PS3.7 6.3.1).

Pure: bytes in, calls out, no socket and no pynetdicom. Command sets are put together and read; data sets are passed
on in the pieces in which they lie in the caller's buffer, neither copied nor looked at. What cannot be a message
raises, and no more is held than :class:`~airflow_provider_varian.dimse.bounds.Bounds` allows.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

from airflow_provider_varian.dimse.bounds import Bounds, MalformedError
from airflow_provider_varian.dimse.command_set import Command

_ITEM: Final = struct.Struct(">IBB")
#: Of the item's length, which counts the context ID and the control header too.
_ITEM_MINIMUM: Final = 2
_COMMAND, _LAST = 1, 2


class Messages(Protocol):
    """What is called with messages; each is begun, and then ended unless the association ends within it.

    Whatever these raise goes through :meth:`Incoming.feed`, after which nothing may be fed any more.
    """

    def begin(self, context_id: int, command: Command) -> None:
        """Take a command set that is whole."""

    def data(self, piece: memoryview) -> None:
        """Take the next piece of its data set, never empty; valid until this returns."""

    def end(self) -> None:
        """Take note that the message is whole."""


class Incoming:
    """Puts messages together; it can stop and go on at every byte.

    For each P-DATA-TF PDU, call :meth:`begin_pdu` with its length, and :meth:`feed` until :attr:`pdu_left` is 0.

    :param bounds: what a message may take.
    :param messages: whom to call.
    """

    def __init__(self, bounds: Bounds, messages: Messages) -> None:
        self._messages = messages
        self._command_bound = bounds.command_set_bytes
        self._command = bytearray()
        self._context_id = 0
        self._flags = 0
        #: Bytes that are still to come of the fragment, and of the PDU.
        self._left = 0
        self.pdu_left = 0
        self._awaits_data = False
        #: A list of answers repeats its command set: it is read once.
        self._last: Command | None = None

    @property
    def within_message(self) -> bool:
        """Whether a message has begun and not ended: a fragment of its command set has come."""
        return bool(self._context_id)

    def begin_pdu(self, length: int) -> None:
        """Begin a P-DATA-TF PDU.

        :param length: as its head says (PS3.8 table 9-22): without the head itself.
        :raises MalformedError: when it holds no item.
        """
        if length < _ITEM.size:
            raise MalformedError("a P-DATA-TF PDU without an item")
        self.pdu_left = length

    def feed(self, view: memoryview) -> int:
        """Take bytes of the PDU; return how many were used.

        Stops at the end of a message, at the end of the PDU, and before the head of an item that is not whole yet:
        then come back with it and more.

        :param view: the next bytes, also of what comes after the PDU.
        :raises MalformedError: what came is no message, or breaks a bound.
        """
        end = min(len(view), self.pdu_left)
        position = 0
        while True:
            if not self._left:
                if end - position < _ITEM.size:
                    break
                self._begin_item(view, position, self.pdu_left - position)
                position += _ITEM.size
            taken = min(self._left, end - position)
            if taken:
                piece = view[position : position + taken]
                if self._awaits_data:
                    self._messages.data(piece)
                else:
                    self._command += piece
                position += taken
                self._left -= taken
            if self._left or (self._flags & _LAST and self._end_fragments()):
                break
        self.pdu_left -= position
        if 0 < self.pdu_left < _ITEM.size and not self._left:
            raise MalformedError("a P-DATA-TF PDU ends within the head of an item")
        return position

    def _begin_item(self, view: memoryview, position: int, pdu_left: int) -> None:
        length, context_id, flags = _ITEM.unpack_from(view, position)
        if length < _ITEM_MINIMUM or length + 4 > pdu_left:
            raise MalformedError("the length of an item of a P-DATA-TF PDU is not true")
        if bool(flags & _COMMAND) is self._awaits_data:
            raise MalformedError("a command set within a data set, or a data set without a command set")
        if context_id != self._context_id or not context_id:
            if self._context_id or not context_id:
                raise MalformedError("a fragment of another presentation context within a message")
            self._context_id = context_id
        left = length - _ITEM_MINIMUM
        if not left and not flags & _LAST:
            raise MalformedError("an empty fragment")
        if flags & _COMMAND and len(self._command) + left > self._command_bound:
            raise MalformedError("a command set that is far too long")
        self._flags, self._left = flags, left

    def _end_fragments(self) -> bool:
        """Deal with the end of a command set or data set; say whether the message ended with it."""
        self._flags = 0
        if not self._awaits_data:
            command = self._read_command()
            self._messages.begin(self._context_id, command)
            self._awaits_data = command.has_data_set
            if self._awaits_data:
                return False
        self._context_id, self._awaits_data = 0, False
        self._messages.end()
        return True

    def _read_command(self) -> Command:
        command = self._last
        if command is None or command.data != self._command:
            try:
                command = self._last = Command(bytes(self._command))
            except ValueError as error:
                raise MalformedError(str(error)) from error
        self._command.clear()
        return command
