"""The pending responses of a C-GET or C-MOVE from the wire to who asked (PS3.7 9.3.3.2, 9.3.4.2).

A peer sends one after each sub-operation, and pynetdicom's data sets take longer for it than we for the object: here it
is the few numbers that count of it. Responses of another kind, the final one among them, still come by way of
pynetdicom.
"""

from __future__ import annotations

import queue
from typing import Any, Final, NamedTuple

from pynetdicom.dimse_primitives import C_GET, C_MOVE

from airflow_provider_varian.dimse import status
from airflow_provider_varian.dimse.command_set import C_GET_RSP, C_MOVE_RSP, Command, Counts

#: The Command Field of the responses that a primitive of pynetdicom stands for.
COMMAND_FIELDS: Final = {C_GET: C_GET_RSP, C_MOVE: C_MOVE_RSP}


class _Pending(NamedTuple):
    """What counts of a response."""

    status: int
    counts: Counts


class ProgressTaker:
    """Takes the pending responses of one request; a :class:`~airflow_provider_varian.dimse.dispatch.Taker`.

    :param messages: pynetdicom's queue of messages to who asked.
    :param response: the primitive that stands for a response.
    :param context_id: the presentation context of the request.
    :param message_id: its Message ID.
    :param model_uid: its SOP class UID.
    """

    #: What waits is bounded with the queue.
    full = False

    def __init__(
        self,
        messages: queue.Queue[Any],
        response: type[C_GET | C_MOVE],
        *,
        context_id: int,
        message_id: int,
        model_uid: str,
    ) -> None:
        self._messages = messages
        self._response = response
        self._context_id = context_id
        self._message_id = message_id
        self._model_uid = model_uid
        self._pending: _Pending | None = None

    def begin(self, context_id: int, command: Command) -> bool:
        """Take a pending response of our request that holds nothing but numbers; else pynetdicom deals with it."""
        answered = command.status or 0
        ours = context_id == self._context_id and command.responds_to == self._message_id
        if command.has_data_set or not ours or not status.is_pending(answered):
            return False
        if command.sop_class_uid not in ("", self._model_uid) or command.error_comment:
            return False
        try:
            self._pending = _Pending(answered, command.counts())
        except ValueError:
            return False
        return True

    def data(self, piece: memoryview) -> None:
        """Nothing: no data set follows."""

    def end(self) -> None:
        """Pass it on."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        message = self._response()
        message.MessageIDBeingRespondedTo = self._message_id
        message.Status = pending.status
        message.NumberOfRemainingSuboperations = pending.counts.remaining
        message.NumberOfCompletedSuboperations = pending.counts.completed
        message.NumberOfFailedSuboperations = pending.counts.failed
        message.NumberOfWarningSuboperations = pending.counts.warning
        self._messages.put((self._context_id, message))

    def abandon(self) -> None:
        """Forget it."""
        self._pending = None
