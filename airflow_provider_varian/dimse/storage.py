"""The Storage SCP's side of a C-STORE (PS3.4 Annex B): bytes into a sink, a status out of it.

Shared by C-GET and by receivers, so that there is one way in. Nothing is decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from io import BytesIO
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE

from airflow_provider_varian.dimse.sink import StorageRefused, StorageSink, StoreRequest

log = logging.getLogger(__name__)

_SUCCESS = 0x0000
_SOP_CLASS_NOT_SUPPORTED = 0x0122
_OUT_OF_RESOURCES = 0xA700
_CANNOT_UNDERSTAND = 0xC000


def store_handler(sink: StorageSink) -> Callable[[evt.Event], Dataset | int]:
    """Return a handler of ``EVT_C_STORE`` that writes into a sink.

    :param sink: takes the objects; called from each association's thread.
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
) -> tuple[int, str]:
    """Write the data set of one C-STORE request into a sink.

    :param request: pynetdicom's primitive.
    :param abstract_syntax: SOP class of the presentation context it came in; empty: none that we accepted.
    :return: status to answer and Error Comment (0000,0902), which is empty for success. 0x0000 only after
        the sink has committed; 0xA700 when writing failed, 0xC000 for anything unexpected.
    """
    if request.AffectedSOPClassUID != abstract_syntax:
        return _SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context"
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
    try:
        _write(sink, details, request.DataSet or BytesIO())
    except StorageRefused as refusal:
        log.warning("Refused %s from %s: %s", details.sop_instance_uid, calling_ae_title, refusal)
        return refusal.status, refusal.comment
    except OSError as error:
        log.error("Writing %s failed: %s", details.sop_instance_uid, error.strerror or type(error).__name__)
        return _OUT_OF_RESOURCES, "cannot be stored"
    except Exception:
        log.exception("Storing %s failed unexpectedly", details.sop_instance_uid)
        return _CANNOT_UNDERSTAND, "internal error"
    return _SUCCESS, ""


def _write(sink: StorageSink, details: StoreRequest, data_set: BytesIO) -> None:
    incoming = sink.begin(details)
    try:
        with data_set.getbuffer() as content:
            incoming.write(content)
        incoming.commit()
    finally:
        # Leaves no fragment of what was refused or failed; harmless after a commit.
        incoming.abandon()
