"""Answers of a peer to a sender, put together from P-DATA-TF PDUs (PS3.8 9.3.5, PS3.7 6.3.1).

Two messages are understood while objects are sent: C-STORE-RSP and C-CANCEL-RQ, both a command set alone.
Everything else belongs to pynetdicom, in the PDUs in which it came.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from airflow_provider_varian.dimse.command_set import C_CANCEL_RQ, C_STORE_RSP, Command

_PDU_HEAD_BYTES: Final = 6
_ITEM_HEAD: Final = struct.Struct(">IBB")
#: Of the item's length, which counts the context ID and the control header too.
_ITEM_MINIMUM: Final = 2
_COMMAND, _LAST = 1, 2
#: No command set that we understand comes near it.
_COMMAND_SET_BOUND: Final = 64 * 1024


class UnexpectedMessageError(Exception):
    """A message that the sender does not understand.

    :param pdus: the PDUs in which it came, whole.
    """

    def __init__(self, pdus: Sequence[bytearray]) -> None:
        super().__init__("unexpected message")
        self.pdus = pdus


class Assembly:
    """Puts command sets together, which may come in several fragments and PDUs."""

    def __init__(self) -> None:
        #: PDUs of a message whose last fragment has not come yet.
        self.unfinished: list[bytearray] = []
        self._command = b""

    def feed(self, pdu: bytearray) -> list[Command]:
        """Take one P-DATA-TF PDU; return the commands that it completes.

        :raises UnexpectedMessageError: for everything but C-STORE-RSP and C-CANCEL-RQ, and for what is malformed.
        """
        pdus = [*self.unfinished, pdu]
        try:
            commands = self._commands(pdu)
        except ValueError:
            raise UnexpectedMessageError(pdus) from None
        if any(each.has_data_set or each.command_field not in (C_STORE_RSP, C_CANCEL_RQ) for each in commands):
            raise UnexpectedMessageError(pdus)
        self.unfinished = pdus if self._command else []
        return commands

    def _commands(self, pdu: bytearray) -> list[Command]:
        commands = []
        position = _PDU_HEAD_BYTES
        while position < len(pdu):
            if len(pdu) - position < _ITEM_HEAD.size:
                raise ValueError("a PDU ends within the head of an item")
            length, _, flags = _ITEM_HEAD.unpack_from(pdu, position)
            end = position + 4 + length
            if length < _ITEM_MINIMUM or end > len(pdu) or not flags & _COMMAND:
                raise ValueError("an item is not a fragment of a command set")
            self._command += pdu[position + _ITEM_HEAD.size : end]
            if len(self._command) > _COMMAND_SET_BOUND:
                raise ValueError("a command set is far too long")
            if flags & _LAST:
                commands.append(Command(self._command))
                self._command = b""
            position = end
        return commands
