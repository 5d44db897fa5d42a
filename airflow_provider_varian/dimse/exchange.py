"""One DIMSE request and the messages that answer it (PS3.7 8.1), on an open association.

pynetdicom encodes, decodes and transports the messages. Waiting for them is done here, because each end
of the wait has to be told apart: the peer is gone, is silent, is too slow in all, or we were cancelled.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Final, TypeVar

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse import outbox, reasons, status
from airflow_provider_varian.dimse.association import PeerAssociation
from airflow_provider_varian.dimse.cancellation import GRACE_SECONDS
from airflow_provider_varian.dimse.command_set import Request
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    DicomError,
    PeerFailureError,
    PeerTimeoutError,
    QueryError,
)
from airflow_provider_varian.privacy import key_names

log = logging.getLogger(__name__)

#: How often the life of the connection's thread is looked at while nothing comes.
_SLICE_SECONDS: Final = 0.25
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF

Response = TypeVar("Response", C_ECHO, C_FIND, C_GET, C_MOVE)


class Exchange:
    """A running request: receives what answers it.

    :param association: the association it runs on.
    :param step: the service, e.g. ``"C-FIND"``.
    :param deadline: seconds that the whole request may take from now; ``None``: no limit.
    :param idle_for: seconds since something else showed that the peer is at work, e.g. since an object
        arrived at our receiver: pending responses of a C-MOVE are optional (semantics 11).
    :param on_store: answers a C-STORE request that comes in between, given the context's ID and the request.
    :param meanwhile: does a part of some other work, and says whether there was any: called while nothing has come yet,
        before each wait. What it raises ends the request.
    """

    def __init__(
        self,
        association: PeerAssociation,
        step: status.Service,
        context: PresentationContext,
        message_id: int,
        *,
        deadline: float | None = None,
        idle_for: Callable[[], float] | None = None,
        on_store: Callable[[int, C_STORE], None] | None = None,
        meanwhile: Callable[[], bool] | None = None,
    ) -> None:
        self.association = association
        self.step = step
        self.context = context
        self.message_id = message_id
        self._deadline_seconds = deadline
        self._deadline = None if deadline is None else time.monotonic() + deadline
        self._idle_for = idle_for
        self._on_store = on_store
        self._meanwhile = meanwhile
        self._open = False

    @property
    def cancelled(self) -> bool:
        """Whether the work was cancelled from outside."""
        return self.association.cancellation.cancelled

    def send(self, command_field: int, identifier: Dataset | None = None, *, destination: str | None = None) -> None:
        """Send the request.

        :param command_field: Command Field (0000,0100); see :class:`.command_set.Request`.
        :param identifier: the query's or retrieval's keys.
        :param destination: AE title, of a C-MOVE.
        :raises QueryError: when the identifier, or the AE title, cannot be encoded.
        :raises PeerFailureError: when the peer takes no PDU that is large enough for a message.
        """
        request = Request(
            command_field=command_field,
            sop_class_uid=str(self.context.abstract_syntax),
            message_id=self.message_id,
            move_destination=destination,
        )
        try:
            command = request.encoded()
        except ValueError as error:
            raise QueryError(
                f"the request cannot be encoded: {error}", step=self.step, hint="An AE title has 1 to 16 ASCII letters"
            ) from None
        data_set = b"" if identifier is None else self._encode(identifier)
        assoc = self.association.assoc
        if not assoc.is_established:
            raise self.association.lost(self.step)
        try:
            outbox.post(assoc, self.context.context_id or 0, command, data_set)
        except ValueError as error:
            raise PeerFailureError(
                str(error), peer=self.association.peer.name, step=self.step, hint="Look into the peer's configuration"
            ) from None
        self._open = True

    def receive(self, expected: type[Response]) -> Response:
        """Wait for the next response and return it; C-STORE requests are answered on the way.

        :param expected: the primitive class of the response.
        :raises AssociationAbortedError: the association ended, or the message does not belong here.
        :raises PeerTimeoutError: silence for ``dimse_timeout``, or the deadline has passed.
        :raises CancelledError: cancelled, and the association is gone.
        """
        while True:
            context_id, message = self._wait()
            if self._on_store is None or not isinstance(message, C_STORE) or not message.is_valid_request:
                break
            self._on_store(context_id, message)
        if (
            not isinstance(message, expected)
            or not message.is_valid_response
            or message.MessageIDBeingRespondedTo != self.message_id
        ):
            self.association.abort()
            raise AssociationAbortedError(
                f"the peer sent a {type(message).__name__.replace('_', '-')} message that answers nothing we asked",
                peer=self.association.peer.name,
                step=self.step,
                hint="The peer breaks the protocol: look into its log",
            )
        self._open = status.is_pending(message.Status or 0)
        return message

    def abandon(self, expected: type[Response]) -> None:
        """Bring an unfinished request to its end, so that the association can be used again.

        Sends a C-CANCEL and reads on to the final response; a peer that takes longer than 3 s to come to it
        loses the association. Harmless when the request is finished.
        """
        if not self._open or not self.association.assoc.is_established:
            return
        self._meanwhile = None
        self.association.cancel_request()
        self._deadline_seconds = GRACE_SECONDS
        self._deadline = time.monotonic() + GRACE_SECONDS
        try:
            while self._open:
                self.receive(expected)
        except DicomError as error:
            log.info("%s did not end in good order after C-CANCEL: %s", self.step, error.what)

    def decode(self, identifier: BytesIO) -> Dataset:
        """Decode the identifier of a response in the transfer syntax of the context."""
        syntax = self.context.transfer_syntax[0]
        try:
            data_set = decode(identifier, syntax.is_implicit_VR, syntax.is_little_endian)
            _check_lengths(data_set)
            return data_set
        except Exception as error:  # noqa: BLE001 - a hostile data set can raise anything
            # The text of the exception may quote the bytes it stumbled over.
            raise PeerFailureError(
                f"an answer of the peer could not be decoded ({type(error).__name__})",
                peer=self.association.peer.name,
                step=self.step,
                hint="The peer sends broken data sets: look at the object in question there",
            ) from None

    def _encode(self, identifier: Dataset) -> bytes:
        syntax = self.context.transfer_syntax[0]
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
        try:
            write_dataset(buffer, identifier)
        except Exception as error:  # noqa: BLE001 - pydicom raises what it stumbles over, and quotes the value
            raise QueryError(
                f"the keys cannot be encoded ({type(error).__name__})",
                step=self.step,
                hint=f"Check the types of the values of {key_names(str(element.keyword) for element in identifier)}",
            ) from None
        return buffer.getvalue()

    def _wait(self) -> tuple[int, Any]:
        assoc = self.association.assoc
        heard = time.monotonic()
        while True:
            while self._did_something_else():
                # Whether the peer is silent, nobody could have seen in that time.
                heard = time.monotonic()
            now = time.monotonic()
            silent_until = self._silent_until(heard, now)
            end = silent_until if self._deadline is None else min(silent_until, self._deadline)
            try:
                item = assoc.dimse.msg_queue.get(timeout=max(0.001, min(end - now, _SLICE_SECONDS)))
            except queue.Empty:
                if not assoc.dul.is_alive() and assoc.dimse.msg_queue.empty():
                    raise self.association.lost(self.step) from None
                if time.monotonic() >= end:
                    raise self._timed_out(past_deadline=end == self._deadline) from None
                continue
            if item[1] is None:
                self._note_ending()
                raise self.association.lost(self.step)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                raise self._timed_out(past_deadline=True)
            return int(item[0] or 0), item[1]

    def _did_something_else(self) -> bool:
        """Do a part of the other work, if there is any, nothing has come and there is time left; say whether."""
        if self._meanwhile is None or not self.association.assoc.dimse.msg_queue.empty():
            return False
        return (self._deadline is None or time.monotonic() < self._deadline) and self._meanwhile()

    def _silent_until(self, heard: float, now: float) -> float:
        # A large object comes in many parts, and is a message only when it is whole.
        heard = max(heard, self.association.heard)
        if self._idle_for is not None:
            heard = max(heard, now - self._idle_for())
        return heard + self.association.peer.dimse_timeout

    def _note_ending(self) -> None:
        primitive = self.association.assoc.dul.peek_next_pdu()
        if words := reasons.ending(primitive):
            self.association.note_ending(words)
        elif type(primitive).__name__ == "A_RELEASE":
            self.association.note_ending("the peer released the association in the middle of the request")

    def _timed_out(self, *, past_deadline: bool) -> Exception:
        association, peer = self.association, self.association.peer
        if association.cancellation.cancelled:
            association.abort()
            return association.lost(self.step)
        association.cancel_request()
        association.abort()
        if past_deadline:
            what, hint = f"not finished within {self._deadline_seconds:g} s", "Raise retrieve_deadline, or ask for less"
        else:
            what, hint = (
                f"silence for {peer.dimse_timeout:g} s",
                "Raise dimse_timeout, or look for the cause at the peer",
            )
        return PeerTimeoutError(what, peer=peer.name, step=self.step, hint=hint)


def _check_lengths(data_set: Dataset) -> None:
    """Raise ``EOFError`` for an element that promises more bytes than came: pydicom takes what there is."""
    for tag in data_set.keys():  # noqa: SIM118 - a data set iterates over decoded elements
        element: Any = data_set.get_item(tag)
        if not isinstance(element, RawDataElement) or element.length == _UNDEFINED_LENGTH:
            continue
        if len(element.value or b"") != element.length:
            raise EOFError


@contextmanager
def exchange(
    association: PeerAssociation,
    step: status.Service,
    model_uid: str,
    response: type[Response],
    *,
    deadline: float | None = None,
    idle_for: Callable[[], float] | None = None,
    on_store: Callable[[int, C_STORE], None] | None = None,
    meanwhile: Callable[[], bool] | None = None,
) -> Iterator[Exchange]:
    """Run one request on an association; see :class:`Exchange` for the parameters.

    A request that the block leaves unfinished is cancelled, so that no late response is taken for an
    answer to the next one.

    :param model_uid: SOP class UID of the service.
    :param response: the primitive class of its responses.
    :raises ContextRejectedError: when the peer accepted no context for it.
    :raises CancelledError: when the work was cancelled before.
    """
    if association.cancellation.cancelled:
        raise reasons.cancelled(association.peer, step)
    context = association.context_for(model_uid, step=step)
    with association.running(context) as message_id:
        running = Exchange(
            association,
            step,
            context,
            message_id,
            deadline=deadline,
            idle_for=idle_for,
            on_store=on_store,
            meanwhile=meanwhile,
        )
        try:
            yield running
        finally:
            running.abandon(response)
