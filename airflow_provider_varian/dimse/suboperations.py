"""The account that a peer gives of a C-GET or C-MOVE (PS3.4 C.4.2.1.6 ff., C.4.3.1.4 ff.).

It is a report, not a fact: daemons have ended in success after sending half a series. What was received
is counted elsewhere, instance by instance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pynetdicom.dimse_primitives import C_GET, C_MOVE

from airflow_provider_varian.dimse import reasons, status, streaming
from airflow_provider_varian.dimse.exchange import Exchange
from airflow_provider_varian.dimse.progress_taker import COMMAND_FIELDS, ProgressTaker
from airflow_provider_varian.errors import DicomError, RefusedByPeerError, UnknownMoveDestinationError

log = logging.getLogger(__name__)

Response = TypeVar("Response", C_GET, C_MOVE)

#: Asking again, or for less, does not help against these.
_RAISED: Final = (UnknownMoveDestinationError, RefusedByPeerError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubOperations:
    """What the peer reported; a count that it left out is ``None``.

    :param status: Status (0000,0900): a pending one in progress reports, else the final one.
    :param completed: Number of Completed Sub-operations (0000,1021).
    :param failed: Number of Failed Sub-operations (0000,1022).
    :param warning: Number of Warning Sub-operations (0000,1023).
    :param remaining: Number of Remaining Sub-operations (0000,1020).
    :param failed_sop_instance_uids: Failed SOP Instance UID List (0008,0058) of the final response.
    :param error_comment: Error Comment (0000,0902) as received: may name a patient, so not for logs.
    """

    status: int
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    remaining: int | None = None
    failed_sop_instance_uids: tuple[str, ...] = ()
    error_comment: str = ""


Progress = Callable[[SubOperations], None]


def follow(running: Exchange, response: type[Response], on_progress: Progress | None) -> SubOperations:
    """Read responses up to the final one and return what it reports.

    :param response: the primitive class, C_GET or C_MOVE of pynetdicom.
    :param on_progress: called with each pending response.
    :raises UnknownMoveDestinationError: 0xA801.
    :raises RefusedByPeerError: 0x0122, 0x0124 or 0xA900.
    :raises CancelledError: cancelled.
    """
    with _taking_progress(running, response):
        while True:
            report = _read(running, running.receive(response))
            if not status.is_pending(report.status):
                break
            if on_progress is not None and not running.cancelled:
                on_progress(report)
    peer = running.association.peer
    if running.cancelled:
        raise reasons.cancelled(peer, running.step)
    error = status.error_for(running.step, report.status, peer=peer.name, comment=report.error_comment)
    if isinstance(error, _RAISED):
        raise error
    return report


@contextmanager
def _taking_progress(running: Exchange, response: type[Response]) -> Iterator[None]:
    """Take pending responses past pynetdicom while the block runs, where its reading is ours."""
    assoc = running.association.assoc
    stream = streaming.of(assoc)
    if stream is None:
        yield
        return
    taker = ProgressTaker(
        assoc.dimse.msg_queue,
        response,
        context_id=running.context.context_id or 0,
        message_id=running.message_id,
        model_uid=str(running.context.abstract_syntax),
    )
    with stream.taking(COMMAND_FIELDS[response], taker):
        yield


def _read(running: Exchange, message: Any) -> SubOperations:
    final = not status.is_pending(message.Status)
    return SubOperations(
        status=message.Status,
        completed=message.NumberOfCompletedSuboperations,
        failed=message.NumberOfFailedSuboperations,
        warning=message.NumberOfWarningSuboperations,
        remaining=message.NumberOfRemainingSuboperations,
        failed_sop_instance_uids=_failed_uids(running, message) if final else (),
        error_comment=message.ErrorComment or "",
    )


def _failed_uids(running: Exchange, message: Any) -> tuple[str, ...]:
    if message.Identifier is None:
        return ()
    try:
        value = running.decode(message.Identifier).get("FailedSOPInstanceUIDList")
    except DicomError as error:
        # The list is a hint; the ledger knows by itself what is missing.
        log.warning("The list of failed instances from %s is unreadable: %s", error.peer, error.what)
        return ()
    if not value:
        return ()
    return (str(value),) if isinstance(value, str) else tuple(str(uid) for uid in value)
