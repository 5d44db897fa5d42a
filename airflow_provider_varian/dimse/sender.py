"""The streaming sender: C-STORE requests from memory and files to the socket in large slices (PS3.7 9.3.1).

For a run of objects on one association::

    with sending(assoc) as sender:
        for ...:
            answer = sender.store(context_id, StoreRequest(...), slices)

Within the block the thread owns the connection (:mod:`.line`), on associations that we requested and, for the
sub-operations of a C-GET, on those that we accepted; a C-CANCEL that comes meanwhile is where pynetdicom would
have put it, in ``assoc.dimse.cancel_req``. pynetdicom's events of data, PDUs and messages do not happen for what
is sent and understood here; the socket keeps its manners all the same. With a release of pynetdicom whose inside
is not what :mod:`.line` expects, the same objects go by pynetdicom's own path, slower.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Protocol

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE

from airflow_provider_varian.dimse import framing, library, parked
from airflow_provider_varian.dimse.assembly import Assembly, UnexpectedMessageError
from airflow_provider_varian.dimse.command_set import C_CANCEL_RQ, Command, StoreRequest
from airflow_provider_varian.dimse.line import P_DATA_TF, Line, LineLostError
from airflow_provider_varian.dimse.slices import BLOCK_BYTES, Content, Slice, joined, length_of

log = logging.getLogger(__name__)

#: For associations without a DIMSE time-out; a wait has an end.
_ANSWER_SECONDS: Final = 120.0
#: pynetdicom keeps no more of them for one request.
_MOST_CANCELS: Final = 10


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """A C-STORE-RSP.

    :param status: Status (0000,0900); see :mod:`.status`.
    :param error_comment: Error Comment (0000,0902), empty when there is none.
    """

    status: int
    error_comment: str = ""


class Sender(Protocol):
    """Sends objects on one association, one after the other."""

    def store(self, context_id: int, request: StoreRequest, slices: Sequence[Slice]) -> StoreAnswer | None:
        """Send one object and wait for its answer.

        An association whose peer does not answer within the DIMSE time-out, or takes nothing of what is sent for so
        long, is aborted, as is one on which a file came to an end in the middle of an object.

        :param context_id: the accepted presentation context.
        :param request: the command set.
        :param slices: the data set as the context encodes it.
        :return: the answer; ``None`` when none came, and for each further object once the association has ended.
        :raises ValueError: before anything is sent: the data set is empty, a value does not fit the command set, or
            the peer's PDUs are too small.
        :raises OSError: a file is gone or shorter than its range.
        """


@contextmanager
def sending(assoc: Association) -> Iterator[Sender]:
    """Own an association's connection within a block.

    :param assoc: an established association: one of ours, parked, with nothing under way on it; or one that we
        accepted, in the thread that serves its request.
    """
    if missing := library.missing_for_streaming():
        _warn(missing)
        yield LibrarySender(assoc)
        return
    line = Line(assoc)
    line.set_up()
    try:
        yield StreamingSender(assoc, line)
    finally:
        line.close()


class StreamingSender:
    """Sends on a line that is held; see :func:`sending`."""

    def __init__(self, assoc: Association, line: Line) -> None:
        self._assoc = assoc
        self._line = line
        self._assembly = Assembly()
        self._buffer: bytearray | None = None
        self._answers: list[Command] = []

    def store(self, context_id: int, request: StoreRequest, slices: Sequence[Slice]) -> StoreAnswer | None:
        """Send one object; see :class:`Sender`."""
        command, size = _checked(self._assoc, request, slices)
        if self._buffer is None and not all(isinstance(each, bytes | bytearray | memoryview) for each in slices):
            self._buffer = bytearray(BLOCK_BYTES)
        with Content(slices, self._buffer) as content:
            if not self._line.take():
                # Where there is an association, its peer has begun to speak unasked, and pynetdicom to listen.
                return LibrarySender(self._assoc).store(context_id, request, slices) if self._line.established else None
            try:
                self._send(context_id, command, content, size)
                return self._await_answer(request.message_id)
            except LineLostError as lost:
                if lost.silent:
                    self._give_up()
                return None
            finally:
                self._line.give_back()

    def _give_up(self) -> None:
        log.warning("The peer was silent for %g s, the association is aborted", self._seconds)
        self._assoc.abort()

    @property
    def _seconds(self) -> float:
        return self._assoc.dimse_timeout or _ANSWER_SECONDS

    def _send(self, context_id: int, command: bytes, content: Content, size: int) -> None:
        """Send a whole request; an answer that comes before its end is kept until then."""
        self._answers.clear()
        try:
            for buffers in framing.message(context_id, command, content, size):
                self._line.write(buffers, self._seconds)
                # A large object is not sent to somebody who has hung up.
                if content.left and self._line.readable():
                    self._take_in(time.monotonic() + self._seconds)
        except OSError:
            # Half an object is out, and nothing but the end of the association tells the peer that it is none.
            self._line.give_back()
            self._assoc.abort()
            raise
        except LineLostError as lost:
            # So here, unless it has come to its end.
            if not lost.silent and not parked.end_waits(self._assoc):
                self._assoc.abort()
            raise

    def _await_answer(self, message_id: int) -> StoreAnswer | None:
        deadline = time.monotonic() + self._seconds
        while not self._answers:
            self._take_in(deadline)
        # A C-CANCEL behind the answer is to be known before the next object; an end does not take the answer back.
        try:
            for _ in range(_MOST_CANCELS):
                if not self._line.readable():
                    break
                # What has begun is read to its end: nobody could go on in the middle of it.
                self._take_in(time.monotonic() + self._seconds)
        except LineLostError as lost:
            if lost.silent:
                self._give_up()
        answer = self._answers[0]
        return _read(answer.responds_to, answer.status, answer.error_comment, message_id)

    def _take_in(self, deadline: float) -> None:
        """Read one PDU and deal with the messages that it completes."""
        pdu = self._line.read_pdu(deadline)
        if pdu[0] != P_DATA_TF:
            self._line.hand_over([*self._assembly.unfinished, pdu])
        try:
            commands = self._assembly.feed(pdu)
        except UnexpectedMessageError as unexpected:
            self._line.hand_over(unexpected.pdus)
        for command in commands:
            if command.command_field == C_CANCEL_RQ and command.responds_to is not None:
                self._cancel(command.responds_to)
            else:
                self._answers.append(command)

    def _cancel(self, message_id: int) -> None:
        wanted: dict[int, C_CANCEL] = self._assoc.dimse.cancel_req
        if len(wanted) < _MOST_CANCELS:
            cancel = C_CANCEL()
            cancel.MessageIDBeingRespondedTo = message_id
            wanted[message_id] = cancel


class LibrarySender:
    """Sends by pynetdicom's own path, one PDU at a time through its threads; see :func:`sending`."""

    def __init__(self, assoc: Association) -> None:
        self._assoc = assoc

    def store(self, context_id: int, request: StoreRequest, slices: Sequence[Slice]) -> StoreAnswer | None:
        """Send one object; see :class:`Sender`."""
        if not self._assoc.is_established or self._assoc.acse.is_aborted():
            return None
        _checked(self._assoc, request, slices)
        primitive = C_STORE()
        primitive.MessageID = request.message_id
        primitive.AffectedSOPClassUID = request.sop_class_uid
        primitive.AffectedSOPInstanceUID = request.sop_instance_uid
        primitive.Priority = request.priority
        if request.originator is not None:
            primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = request.originator
        primitive.DataSet = BytesIO(joined(slices))
        self._assoc.dimse.send_msg(primitive, context_id)
        answer: Any = self._assoc.dimse.get_msg(block=True)[1]
        if isinstance(answer, C_STORE):
            comment = str(getattr(answer, "ErrorComment", None) or "")
            return _read(answer.MessageIDBeingRespondedTo, answer.Status, comment, request.message_id)
        if answer is None and self._assoc.is_established and not self._assoc.acse.is_aborted():
            self._assoc.abort()
        return None


def _checked(assoc: Association, request: StoreRequest, slices: Sequence[Slice]) -> tuple[bytes, int]:
    """Return the command set and the size of a fragment, or refuse what cannot be sent."""
    if not length_of(slices):
        raise ValueError("the data set of an object is empty")
    return request.encoded(), framing.fragment_size(assoc.dimse.maximum_pdu_size)


def _read(responds_to: int | None, status: int | None, comment: str, message_id: int) -> StoreAnswer | None:
    """Return what an answer says; one to another message, or without a status, is none."""
    return StoreAnswer(status, comment) if responds_to == message_id and status is not None else None


_warned = threading.Event()


def _warn(missing: Sequence[str]) -> None:
    if not _warned.is_set():
        _warned.set()
        log.warning(
            "This release of pynetdicom lacks %s: objects are sent by its own path, more slowly", ", ".join(missing)
        )
