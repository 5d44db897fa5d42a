"""How the daemon's services get at DIMSE messages: the one module that leans on pynetdicom's inside.

pynetdicom's own Query/Retrieve service answers 0xA801 when a move destination cannot be reached,
and leaves no room for a daemon's other habits. So C-FIND, C-MOVE and C-GET requests are taken from
its acceptor on the way to that service: an ``EVT_CONN_OPEN`` handler replaces ``_serve_request``
on the one association. Everything else stays pynetdicom's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse import library
from airflow_provider_varian.dimse.status import Service
from airflow_provider_varian.errors import ConfigurationError

log = logging.getLogger(__name__)
library.check()
if not hasattr(Association, "_serve_request"):
    raise ConfigurationError(
        "this release of pynetdicom lacks Association._serve_request, which the simulator needs",
        hint="Install pynetdicom>=3.0.4,<3.1",
    )

Request = C_FIND | C_MOVE | C_GET
_SERVICES: Final[dict[type, Service]] = {C_FIND: "C-FIND", C_MOVE: "C-MOVE", C_GET: "C-GET"}


@dataclass(slots=True, kw_only=True)
class Counts:
    """Sub-operations of a retrieve (PS3.7 9.1.3.1.6 and following)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0


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
        status: int,
        *,
        identifier: Dataset | None = None,
        counts: Counts | None = None,
        remaining: bool = False,
        comment: str = "",
    ) -> None:
        """Send one response.

        :param status: Status (0000,0900).
        :param identifier: data set to go with it.
        :param counts: sub-operations to report.
        :param remaining: whether the number of remaining ones is among them.
        :param comment: Error Comment (0000,0902).
        """
        if self.broken:
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


def divert(event: evt.Event, serve: Callable[[Exchange], None]) -> None:
    """Take an acceptor's Query/Retrieve requests (handler of ``EVT_CONN_OPEN``).

    :param serve: answers one request completely, in the association's own thread.
    """
    assoc: Any = event.assoc
    stock = assoc._serve_request

    def serve_request(message: Any, context_id: int) -> None:
        contexts = [each for each in assoc.accepted_contexts if each.context_id == context_id]
        if type(message) not in _SERVICES or not message.is_valid_request or not contexts:
            stock(message, context_id)
            return
        assoc.dimse.cancel_req = {}
        # This is the reactor's own thread: it takes no messages while the service runs.
        assoc._is_paused = True
        try:
            serve(Exchange(assoc, message, contexts[0]))
        finally:
            assoc._is_paused = False

    assoc._serve_request = serve_request


def encoded(data_set: Dataset, context: PresentationContext) -> bytes:
    """Encode a data set in the transfer syntax of a context.

    :raises ValueError: when it holds a value that cannot be encoded.
    """
    syntax = context.transfer_syntax[0]
    result = encode(data_set, syntax.is_implicit_VR, syntax.is_little_endian)
    if result is None:
        raise ValueError("the data set cannot be encoded")
    return result


def store(
    assoc: Association,
    context: PresentationContext,
    data_set: Dataset,
    *,
    message_id: int,
    originator: tuple[str, int] | None = None,
) -> int | None:
    """Send one C-STORE and wait for its answer (PS3.7 9.1.1).

    :param assoc: an association on which we may be the Storage SCU; parked when we requested it.
    :param context: the accepted context of the SOP class.
    :param message_id: Message ID (0000,0110).
    :param originator: AE title and Message ID of the C-MOVE, for a sub-operation of one.
    :returns: the status of the answer; ``None`` when none came.
    """
    request = C_STORE()
    request.MessageID = message_id
    request.AffectedSOPClassUID = data_set.SOPClassUID
    request.AffectedSOPInstanceUID = data_set.SOPInstanceUID
    request.Priority = 0
    if originator is not None:
        request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID = originator
    request.DataSet = BytesIO(encoded(data_set, context))
    assoc.dimse.send_msg(request, context.context_id or 0)
    _, answer = assoc.dimse.get_msg(block=True)
    if not isinstance(answer, C_STORE) or answer.MessageIDBeingRespondedTo != message_id:
        return None
    return answer.Status
