"""The Storage SCP's side of a C-STORE (PS3.4 Annex B): bytes into a sink, a status out of it.

Shared by C-GET and by receivers, by the streaming path and by pynetdicom's, so that there is one way in and one
decision. Nothing is decoded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from io import BytesIO
from typing import Final, cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE

from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.dimse.sink import IncomingObject, StorageRefused, StorageSink, StoreRequest
from airflow_provider_varian.uids import is_uid

log = logging.getLogger(__name__)

SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
_SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700
_CANNOT_UNDERSTAND = 0xC000

#: Why an association was ended by us; see :meth:`StoreObserver.ended_by_us`.
TIMEOUT: Final = "timeout"
PROTOCOL: Final = "protocol"

Status = tuple[int, str]


class StoreObserver:
    """Is told what comes over one association; each method does nothing until it is overridden.

    Called in the association's own threads, which wait for it. It must not raise.
    """

    def activity(self) -> None:
        """Something came: a whole PDU, or a few of them."""

    def stored(self, request: StoreRequest, size: int, seconds: float) -> None:
        """An object is committed, and not answered yet.

        :param size: bytes of the data set.
        :param seconds: from the command set to the commit; on pynetdicom's path from the last byte on.
        """

    def not_stored(self, request: StoreRequest, status: int | None, reason: str) -> None:
        """An object was not stored.

        :param status: what is answered next; ``None``: the association ended within the object, of which
            pynetdicom's path knows nothing.
        :param reason: a few words, fit for logs.
        """

    def ended_by_us(self, how: str) -> None:
        """The association is about to be aborted for what its peer did.

        :param how: :data:`TIMEOUT` or :data:`PROTOCOL`.
        """


class Storing:
    """One object on its way into a sink. Once it is refused, the rest of it is taken and forgotten.

    :param sink: takes it.
    :param request: what its command set says.
    :param object_bytes: the largest data set that is taken.
    :param observer: is told how it ends.
    :param refused: a status and comment to refuse it with, unread.
    """

    def __init__(
        self,
        sink: StorageSink,
        request: StoreRequest,
        *,
        object_bytes: int,
        observer: StoreObserver,
        refused: Status | None = None,
    ) -> None:
        self.request = request
        self.size = 0
        self._began = time.monotonic()
        self._bound = object_bytes
        self._observer = observer
        self._answer = refused
        self._incoming: IncomingObject | None = None
        if refused is None:
            try:
                self._incoming = sink.begin(request)
            except Exception as error:  # noqa: BLE001 - each has its status
                self._fail(error)

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next piece of the data set."""
        self.size += len(piece)
        if self._incoming is None:
            return
        if self.size > self._bound:
            self._refuse((_OUT_OF_RESOURCES, "the object is larger than what is taken here"))
            return
        try:
            self._incoming.write(piece)
        except Exception as error:  # noqa: BLE001 - each has its status
            self._fail(error)

    def finish(self) -> Status:
        """Commit the object; return what to answer.

        :return: status and Error Comment (0000,0902), which is empty for success. 0x0000 only after the sink has
            committed; 0xA700 when writing failed, 0xC000 for anything unexpected.
        """
        if self._incoming is not None:
            try:
                self._incoming.commit()
            except Exception as error:  # noqa: BLE001 - each has its status
                self._fail(error)
        self._let_go()
        if self._answer is None:
            self._observer.stored(self.request, self.size, time.monotonic() - self._began)
            return _SUCCESS, ""
        self._observer.not_stored(self.request, *self._answer)
        return self._answer

    def abandon(self, reason: str) -> None:
        """Leave no fragment of an object whose rest will not come.

        :param reason: a few words.
        """
        self._let_go()
        log.warning("Nothing is kept of %s: %s", _in_words(self.request.sop_instance_uid), reason)
        self._observer.not_stored(self.request, None, reason)

    def _let_go(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            # Leaves no fragment of what was refused or failed; harmless after a commit.
            incoming.abandon()

    def _refuse(self, answer: Status) -> None:
        self._answer = answer
        self._let_go()

    def _fail(self, error: Exception) -> None:
        """Answer what a sink has raised; called while it is being handled."""
        uid = _in_words(self.request.sop_instance_uid)
        if isinstance(error, StorageRefused):
            log.warning("Refused %s from %s: %s", uid, _loggable(self.request.calling_ae_title, 16), error)
            self._refuse((error.status, error.comment))
        elif isinstance(error, OSError):
            log.error("Writing %s failed: %s", uid, error.strerror or type(error).__name__)
            self._refuse((_OUT_OF_RESOURCES, "cannot be stored"))
        else:
            log.error("Storing %s failed unexpectedly", uid, exc_info=error)
            self._refuse((_CANNOT_UNDERSTAND, "internal error"))


def refusal(sop_class_uid: str, sop_instance_uid: str, abstract_syntax: str) -> Status | None:
    """Return the refusal of an object in a presentation context of another class, or without a UID, else ``None``.

    PS3.4 B.2.3.

    :param abstract_syntax: SOP class of the presentation context; empty: none that was accepted.
    """
    if sop_class_uid != abstract_syntax:
        return SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context"
    return None if is_uid(sop_instance_uid) else (_CANNOT_UNDERSTAND, "SOP Instance UID is not a UID")


def store_handler(
    sink: StorageSink, *, bounds: Bounds | None = None, observer: StoreObserver | None = None
) -> Callable[[evt.Event], Dataset | int]:
    """Return a handler of ``EVT_C_STORE`` that writes into a sink.

    :param sink: takes the objects; called from each association's thread.
    :param bounds: of an object's size.
    :param observer: is told of each object.
    """

    def handle(event: evt.Event) -> Dataset | int:
        requestor = event.assoc.requestor
        status, comment = store(
            sink,
            cast(C_STORE, event.request),
            abstract_syntax=str(event.context.abstract_syntax),
            transfer_syntax=str(event.context.transfer_syntax),
            calling_ae_title=requestor.ae_title,
            called_ae_title=str(requestor.primitive.called_ae_title or "") if requestor.primitive else "",
            source_address=requestor.address,
            bounds=bounds,
            observer=observer,
        )
        if not comment:
            return status
        answer = Dataset()
        answer.Status = status
        answer.ErrorComment = comment
        return answer

    return handle


def store(
    sink: StorageSink,
    request: C_STORE,
    *,
    abstract_syntax: str,
    transfer_syntax: str,
    calling_ae_title: str,
    called_ae_title: str,
    source_address: str,
    bounds: Bounds | None = None,
    observer: StoreObserver | None = None,
) -> Status:
    """Write the data set of one C-STORE request into a sink.

    :param request: pynetdicom's primitive.
    :param abstract_syntax: SOP class of the presentation context it came in; empty: none that we accepted.
    :return: see :meth:`Storing.finish`.
    """
    details = StoreRequest(
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        transfer_syntax_uid=transfer_syntax,
        calling_ae_title=calling_ae_title,
        called_ae_title=called_ae_title,
        source_address=source_address,
        move_originator_ae_title=str(request.MoveOriginatorApplicationEntityTitle or ""),
        move_originator_message_id=request.MoveOriginatorMessageID,
    )
    storing = Storing(
        sink,
        details,
        object_bytes=(bounds or Bounds()).object_bytes,
        observer=observer or StoreObserver(),
        refused=refusal(details.sop_class_uid, details.sop_instance_uid, abstract_syntax),
    )
    most = (bounds or Bounds()).object_bytes
    with (request.DataSet or BytesIO()).getbuffer() as content:
        # As it would come from the wire: what is too long is found out once it is.
        for piece in (content[:most], content[most:]):
            if piece:
                storing.write(piece)
    return storing.finish()


def _in_words(uid: str) -> str:
    """Name an object in a log: what is no UID is something that the peer made up."""
    return uid if is_uid(uid) else "an object"


def _loggable(text: str, length: int = 64) -> str:
    return "".join(char if " " < char <= "~" else "?" for char in text.strip()[:length])
