"""The matches of a C-FIND from the wire to who asked, many at a time (PS3.7 9.3.2.2).

pynetdicom makes several objects of each response, and passes them from thread to thread one by one; a long list
spends nine tenths of its time there (performance 5). Here a response that brings a match is what counts of it, a
status and bytes, and those that come together are one message for who waits: :class:`Batch`. Responses of another
kind, the final one among them, still come by way of pynetdicom.

What waits is bounded: while who asked is busy, no more is read, and TCP makes the peer wait.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from pynetdicom.dimse_primitives import C_FIND

from airflow_provider_varian.dimse import status
from airflow_provider_varian.dimse.bounds import MalformedError
from airflow_provider_varian.dimse.command_set import Command

#: The deadline is looked at between batches, and what a batch holds is in memory: some 50 KB of answers as they are.
_MOST_ROWS: Final = 128
#: Of answers that wait; a row weighs a little in itself.
_MOST_WAITING_BYTES: Final = 1024 * 1024
_ROW_BYTES: Final = 128


class Batch(C_FIND):
    """Pending responses that came one after the other, as one message."""

    def __init__(self, message_id: int) -> None:
        super().__init__()
        self.MessageIDBeingRespondedTo = message_id
        self.Status = 0xFF00
        #: Status (0000,0900) and identifier of each.
        self.rows: list[tuple[int, bytes]] = []
        self.weight = 0


class FindTaker:
    """Takes the matches of one C-FIND; a :class:`~airflow_provider_varian.dimse.dispatch.Taker`.

    :param messages: pynetdicom's queue of messages to who asked.
    :param context_id: the presentation context of the request.
    :param message_id: its Message ID.
    :param model_uid: its SOP class UID.
    :param longest: bytes that the identifier of one response may have.
    :param wake: makes reading go on, once there is room again.
    """

    def __init__(
        self,
        messages: queue.Queue[Any],
        *,
        context_id: int,
        message_id: int,
        model_uid: str,
        longest: int,
        wake: Callable[[], None],
    ) -> None:
        self._messages = messages
        self._context_id = context_id
        self._message_id = message_id
        self._model_uid = model_uid
        self._longest = longest
        self._wake = wake
        self._lock = threading.Lock()
        self._open: Batch | None = None
        self._waiting = 0
        self._command: Command | None = None
        self._status = 0
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def full(self) -> bool:
        """Whether enough waits."""
        return self._waiting >= _MOST_WAITING_BYTES

    def begin(self, context_id: int, command: Command) -> bool:
        """Take a response that brings a match, of our request, and in order; else pynetdicom deals with it."""
        # The command sets of a list are all the same, and one object then.
        if command is not self._command or context_id != self._context_id:
            ours = context_id == self._context_id and command.responds_to == self._message_id
            if not command.has_data_set or not ours or not status.is_pending(command.status or 0):
                return False
            if command.sop_class_uid not in ("", self._model_uid):
                return False
            self._command, self._status = command, command.status or 0
        self._size = 0
        return True

    def data(self, piece: memoryview) -> None:
        """Keep a piece of the identifier."""
        self._size += len(piece)
        if self._size > self._longest:
            raise MalformedError("an answer that is far too long")
        self._pieces.append(bytes(piece))

    def end(self) -> None:
        """Add the match to those that wait."""
        pieces = self._pieces
        encoded = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        weight = len(encoded) + _ROW_BYTES
        with self._lock:
            batch = self._open
            if batch is None:
                batch = self._open = Batch(self._message_id)
                self._messages.put((self._context_id, batch))
            batch.rows.append((self._status, encoded))
            batch.weight += weight
            self._waiting += weight
            if len(batch.rows) == _MOST_ROWS:
                self._open = None

    def abandon(self) -> None:
        """Drop half a match."""
        self._pieces.clear()

    def take(self, batch: Batch) -> Sequence[tuple[int, bytes]]:
        """Return what a batch holds; nothing is added to it any more."""
        with self._lock:
            if batch is self._open:
                self._open = None
            was_full = self.full
            self._waiting -= batch.weight
        if was_full:
            self._wake()
        return batch.rows
