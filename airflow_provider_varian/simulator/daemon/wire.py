"""How the daemon's services get at DIMSE messages: the one module that leans on pynetdicom's inside.

pynetdicom's own Query/Retrieve service answers 0xA801 when a move destination cannot be reached,
and leaves no room for a daemon's other habits. So C-FIND, C-MOVE and C-GET requests are taken from
its acceptor on the way to that service: an ``EVT_CONN_OPEN`` handler replaces ``_serve_request``
on the one association. Everything else stays pynetdicom's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_FIND_RQ, C_GET_RQ, C_MOVE_RQ
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse import framing, library, outbox, sender
from airflow_provider_varian.dimse.command_set import (
    C_GET_RSP,
    C_MOVE_RSP,
    FindResponse,
    RetrieveProgress,
    StoreRequest,
)
from airflow_provider_varian.dimse.slices import Slice
from airflow_provider_varian.dimse.status import Service
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.simulator.holdings.tree import Node

log = logging.getLogger(__name__)
library.check()
if not hasattr(Association, "_serve_request"):
    raise ConfigurationError(
        "this release of pynetdicom lacks Association._serve_request, which the simulator needs",
        hint="Install pynetdicom>=3.0.4,<3.1",
    )

Request = C_FIND | C_MOVE | C_GET
_RESPONSES: Final[dict[type, int]] = {C_MOVE: C_MOVE_RSP, C_GET: C_GET_RSP}
_SERVICES: Final[dict[type, Service]] = {C_FIND: "C-FIND", C_MOVE: "C-MOVE", C_GET: "C-GET"}


@dataclass(slots=True, kw_only=True)
class Counts:
    """Sub-operations of a retrieve (PS3.7 9.1.3.1.6 and following)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0

    @property
    def total(self) -> int:
        """All of them, done or not."""
        return self.remaining + self.completed + self.failed + self.warning


class Exchange:
    """One request under way: reads its identifier, sends its responses.

    :param assoc: the association on which it came.
    :param request: the request primitive.
    :param context: the presentation context that it came in.
    """

    def __init__(self, assoc: Association, request: Request, context: PresentationContext) -> None:
        self.assoc = assoc
        self.request = request
        self.context = context
        self.service: Service = _SERVICES[type(request)]

    @property
    def model_uid(self) -> str:
        """SOP class UID of the information model."""
        return str(self.context.abstract_syntax)

    @property
    def client(self) -> str:
        """AE title of the requestor."""
        return str(self.assoc.requestor.ae_title).strip()

    @property
    def cancelled(self) -> bool:
        """Whether a C-CANCEL for this request has come in (PS3.7 9.3.2.3)."""
        return self.request.MessageID in self.assoc.dimse.cancel_req

    @property
    def broken(self) -> bool:
        """Whether the association has ended, so that nobody is left to answer."""
        return not self.assoc.is_established or self.assoc.acse.is_aborted()

    def identifier(self) -> Dataset:
        """Decode the identifier. Raises whatever pydicom raises for bytes that are none."""
        syntax = self.context.transfer_syntax[0]
        keys = decode(self.request.Identifier or BytesIO(), syntax.is_implicit_VR, syntax.is_little_endian)
        return Dataset({element.tag: element for element in keys})

    def respond(
        self,
        status: int | None,
        *,
        identifier: Dataset | None = None,
        counts: Counts | None = None,
        remaining: bool = False,
        comment: str = "",
    ) -> None:
        """Send one response.

        :param status: Status (0000,0900); ``None`` leaves the element out, as only a broken peer does.
        :param identifier: data set to go with it.
        :param counts: sub-operations to report.
        :param remaining: whether the number of remaining ones is among them.
        :param comment: Error Comment (0000,0902).
        """
        if self.broken:
            return
        if status is not None and not comment:
            # What comes once for each object or row goes by the fast codec.
            if counts is not None and remaining and identifier is None:
                self._report(status, counts)
                return
            if counts is None and type(self.request) is C_FIND:
                self._match(status, identifier)
                return
        response: Any = type(self.request)()
        response.MessageID = self.request.MessageID
        response.MessageIDBeingRespondedTo = self.request.MessageID
        response.AffectedSOPClassUID = self.request.AffectedSOPClassUID
        response.Status = status
        if comment:
            response.ErrorComment = comment
        if counts is not None:
            response.NumberOfCompletedSuboperations = counts.completed
            response.NumberOfFailedSuboperations = counts.failed
            response.NumberOfWarningSuboperations = counts.warning
            if remaining:
                response.NumberOfRemainingSuboperations = counts.remaining
        if identifier is not None:
            response.Identifier = BytesIO(encoded(identifier, self.context))
        self.assoc.dimse.send_msg(response, self.context.context_id or 0)

    def _match(self, status: int, identifier: Dataset | None) -> None:
        """Send a response to a C-FIND."""
        data_set = b"" if identifier is None else encoded(identifier, self.context)
        response = FindResponse(
            str(self.request.AffectedSOPClassUID), self.request.MessageID or 0, status, has_identifier=bool(data_set)
        )
        outbox.post(self.assoc, self.context.context_id or 0, response.encoded(), data_set)

    def _report(self, status: int, counts: Counts) -> None:
        """Send a response that says how far a retrieve is."""
        report = RetrieveProgress(
            command_field=_RESPONSES[type(self.request)],
            sop_class_uid=str(self.request.AffectedSOPClassUID),
            responds_to=self.request.MessageID or 0,
            status=status,
            remaining=counts.remaining,
            completed=counts.completed,
            failed=counts.failed,
            warning=counts.warning,
        )
        outbox.post(self.assoc, self.context.context_id or 0, report.encoded())


def divert(event: evt.Event, serve: Callable[[Exchange], None]) -> None:
    """Take an acceptor's Query/Retrieve requests (handler of ``EVT_CONN_OPEN``).

    :param serve: answers one request completely, in the association's own thread.
    """
    assoc: Any = event.assoc
    stock = assoc._serve_request

    def serve_request(message: Any, context_id: int) -> None:
        try:
            framing.fragment_size(assoc.dimse.maximum_pdu_size)
        except ValueError as error:
            log.info("An association is aborted, since nothing can be answered on it: %s", error)
            assoc.abort()
            return
        contexts = [each for each in assoc.accepted_contexts if each.context_id == context_id]
        if type(message) not in _SERVICES or not message.is_valid_request or not contexts:
            stock(message, context_id)
            return
        # This is the reactor's own thread: it takes no messages while the service runs.
        assoc._is_paused = True
        try:
            serve(Exchange(assoc, message, contexts[0]))
        finally:
            assoc._is_paused = False
            # Not before it: a C-CANCEL may come right behind its request.
            assoc.dimse.cancel_req = {}
            # A transaction is one step: however long the whole took, the client has as long for its next request.
            assoc.dul._idle_timer.restart()

    assoc._serve_request = serve_request


def forget_cancel(event: evt.Event) -> None:
    """Forget a C-CANCEL that came too late for an earlier request of the same Message ID (``EVT_DIMSE_RECV``)."""
    message: Any = event.message
    if isinstance(message, C_FIND_RQ | C_MOVE_RQ | C_GET_RQ):
        event.assoc.dimse.cancel_req.pop(message.command_set.get("MessageID"), None)


def encoded(data_set: Dataset, context: PresentationContext) -> bytes:
    """Encode a data set in the transfer syntax of a context.

    :raises ValueError: when it holds a value that cannot be encoded.
    """
    syntax = context.transfer_syntax[0]
    result = encode(data_set, syntax.is_implicit_VR, syntax.is_little_endian)
    if result is None:
        raise ValueError("the data set cannot be encoded")
    return result


#: Who sends on the associations on which a run of sub-operations is under way.
_senders: Final[WeakKeyDictionary[Association, sender.Sender]] = WeakKeyDictionary()


@contextmanager
def sending(assoc: Association) -> Iterator[None]:
    """Let :func:`store` have an association's connection for a run of objects; see :mod:`.dimse.sender`."""
    with sender.sending(assoc) as found:
        _senders[assoc] = found
        try:
            yield
        finally:
            del _senders[assoc]


def store(
    assoc: Association,
    context: PresentationContext,
    instance: Node,
    slices: Sequence[Slice],
    *,
    message_id: int,
    originator: tuple[str, int] | None = None,
) -> int | None:
    """Send one C-STORE and wait for its answer (PS3.7 9.1.1).

    :param assoc: an association on which we may be the Storage SCU; parked when we requested it.
    :param context: the accepted context of the SOP class.
    :param instance: which instance it is.
    :param slices: its data set as the context encodes it.
    :param message_id: Message ID (0000,0110).
    :param originator: AE title and Message ID of the C-MOVE, for a sub-operation of one.
    :returns: the status of the answer; ``None`` when none came.
    :raises ValueError: when the data set is empty, or a value does not fit the command set.
    :raises OSError: when a file is gone, or shorter than it was.
    """
    request = StoreRequest(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.uid,
        message_id=message_id,
        originator=originator,
    )
    if assoc not in _senders:
        with sending(assoc):
            answer = _senders[assoc].store(context.context_id or 0, request, slices)
    else:
        answer = _senders[assoc].store(context.context_id or 0, request, slices)
    return answer.status if answer is not None else None
