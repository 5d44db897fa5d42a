"""PDUs out of a connection, each no longer than its place allows (PS3.8 9.3), with one buffer for all of them.

The data of P-DATA-TF PDUs goes to :class:`~airflow_provider_varian.dimse.incoming.Incoming` from the buffer, as it
comes; every other PDU is small, and is handed out whole. Nothing here blocks: who has nothing to read waits and
comes back, so that a thread can do something else between any two bytes.
"""

from __future__ import annotations

import struct
from typing import Final

from airflow_provider_varian.dimse.bounds import Bounds, MalformedError
from airflow_provider_varian.dimse.connection import Connection
from airflow_provider_varian.dimse.incoming import Incoming

_HEAD: Final = struct.Struct(">BxI")
P_DATA_TF: Final = 0x04
_KINDS: Final = range(0x01, 0x08)
#: A-ASSOCIATE-RJ, A-RELEASE-RQ and -RP, A-ABORT (PS3.8 9.3.4, 9.3.6 to 9.3.8); pynetdicom takes shorter ones.
_FOUR_BYTES: Final = frozenset({0x03, 0x05, 0x06, 0x07})
_FOUR: Final = 4

#: A CT image fits, with its command; larger reads gain nothing.
BUFFER_BYTES: Final = 1024 * 1024
#: Until there is an association and data comes over it; most association requests fit.
_FIRST_BYTES: Final = 16 * 1024
#: With less room at its end, what is unread moves to the front: a move now and then instead of many small reads.
_LEAST_ROOM: Final = 64 * 1024
#: Of TLS one record comes with each call.
_TLS_RECORDS: Final = 16


class PduReader:
    """Reads PDUs.

    :param connection: where from.
    :param bounds: of a PDU's length, and of what is waited for.
    :param incoming: takes what P-DATA-TF PDUs hold.
    """

    def __init__(self, connection: Connection, bounds: Bounds, incoming: Incoming) -> None:
        self._connection = connection
        self._bounds = bounds
        self._incoming = incoming
        # Made with the first byte, and no larger than what is wanted: who says nothing costs nothing.
        self._buffer = bytearray()
        self._wanted = _FIRST_BYTES
        self._view = memoryview(self._buffer)
        self._low = self._high = 0
        #: Seconds that were waited within a PDU or message, since the last PDU.
        self._waited = 0.0
        #: Counts the PDUs.
        self.pdus = 0
        #: Set it to make :meth:`next` return before the next message or PDU.
        self.paused = False

    @property
    def has_bytes(self) -> bool:
        """Whether there are bytes that were read and not dealt with."""
        return self._low < self._high

    @property
    def has_begun(self) -> bool:
        """Whether a PDU or a message has begun and is not read to its end."""
        return self._low < self._high or self._incoming.pdu_left > 0 or self._incoming.within_message

    @property
    def patience(self) -> float:
        """Seconds that may still be waited for the rest of what has begun; without end when nothing has."""
        return self._bounds.read_seconds - self._waited if self.has_begun else float("inf")

    def note_wait(self, seconds: float) -> None:
        """Count a wait in which nothing came; our own work does not count."""
        if self.has_begun:
            self._waited += seconds

    def fill(self, *, expected: bool = False) -> int | None:
        """Read what there is into the buffer.

        :param expected: wait for it for a moment; see :meth:`.connection.Connection.receive_into`.
        :return: how many bytes; 0: the connection has ended; ``None``: there is nothing now.
        """
        self._make_room()
        count = self._connection.receive_into(self._view[self._high :], expected=expected)
        if count:
            self._high += count
            if self._connection.is_tls:
                self._fill_with_records()
        return count

    def next(self, *, accepted: bool, longest_data: int) -> bytes | None:
        """Deal with what is in the buffer.

        :param accepted: whether there is an association: only then P-DATA-TF PDUs may come.
        :param longest_data: the maximum length that we announced for them (PS3.8 D.1); 0: none.
        :return: a PDU other than P-DATA-TF, head and all; ``None``: more bytes are needed, or ``paused`` is set.
        :raises MalformedError: a PDU of an unknown kind, one that is too long or does not belong here, or what
            :class:`Incoming` raises. Nothing may be read any more.
        """
        incoming, view = self._incoming, self._view
        while self._low < self._high and not self.paused:
            if not incoming.pdu_left:
                if self._high - self._low < _HEAD.size:
                    break
                kind, length = _HEAD.unpack_from(view, self._low)
                if kind != P_DATA_TF or not accepted:
                    return self._other_pdu(kind, length, accepted=accepted)
                if longest_data and length > longest_data:
                    raise MalformedError("a P-DATA-TF PDU is longer than announced")
                self._low += _HEAD.size
                self._wanted = BUFFER_BYTES
                incoming.begin_pdu(length)
            used = incoming.feed(view[self._low : self._high])
            self._low += used
            if not incoming.pdu_left:
                self._note_pdu()
            elif not used:
                break
        return None

    def _other_pdu(self, kind: int, length: int, *, accepted: bool) -> bytes | None:
        """Return a PDU that is no P-DATA-TF, once it is whole."""
        whole = _HEAD.size + self._checked(kind, length, accepted=accepted)
        if self._high - self._low < whole:
            self._wanted = max(self._wanted, whole)
            return None
        pdu = bytes(self._view[self._low : self._low + whole])
        self._low += whole
        self._note_pdu()
        return pdu

    def forget(self) -> None:
        """Drop what was read and not dealt with."""
        self._low = self._high = 0

    def close(self) -> None:
        """Give the buffer back: nothing is read any more, and what is left of an association may live on for long."""
        self.forget()
        self._view = memoryview(b"")
        self._buffer = bytearray()

    def _checked(self, kind: int, length: int, *, accepted: bool) -> int:
        if kind not in _KINDS or kind == P_DATA_TF:
            raise MalformedError("a PDU of an unknown kind" if kind != P_DATA_TF else "data without an association")
        if kind in _FOUR_BYTES and length < _FOUR:
            raise MalformedError("a PDU is too short")
        if length > (self._bounds.other_pdu_bytes if accepted else self._bounds.association_pdu_bytes):
            raise MalformedError("a PDU is far too long")
        return length

    def _note_pdu(self) -> None:
        self.pdus += 1
        self._waited = 0.0

    def _make_room(self) -> None:
        unread = self._high - self._low
        if len(self._buffer) < self._wanted:
            larger = bytearray(self._wanted)
            larger[:unread] = self._view[self._low : self._high]
            self._buffer, self._view = larger, memoryview(larger)
        elif unread:
            if not self._low or len(self._buffer) - self._high >= min(_LEAST_ROOM, self._low):
                return
            self._view[:unread] = self._view[self._low : self._high]
        self._low, self._high = 0, unread

    def _fill_with_records(self) -> None:
        for _ in range(_TLS_RECORDS - 1):
            room = self._view[self._high :]
            count = self._connection.receive_into(room) if room else None
            if not count:
                # The end, if it is that, is met again.
                return
            self._high += count
