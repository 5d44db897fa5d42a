"""C-FIND (PS3.4 C.4.1): matches one by one, as the peer sends them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND

from airflow_provider_varian.dimse import reasons, status
from airflow_provider_varian.dimse.association import PeerAssociation
from airflow_provider_varian.dimse.exchange import Exchange, exchange
from airflow_provider_varian.errors import DicomError, PeerFailureError


@dataclass(frozen=True, slots=True)
class FindMatch:
    """One match.

    :param identifier: what the peer answered, element values not yet decoded.
    :param optional_keys_supported: false when the status was 0xFF01, so that no optional key of this
        match may be trusted (semantics 12).
    """

    identifier: Dataset
    optional_keys_supported: bool


def iter_matches(
    association: PeerAssociation, model_uid: str, identifier: Dataset, *, deadline: float | None = None
) -> Generator[FindMatch, None, None]:
    """Ask a C-FIND and yield its matches while they come.

    Closing the iterator early sends a C-CANCEL and reads on to the final response, so that the association
    can be used again.

    :param association: an open association with a context for the model.
    :param model_uid: SOP class UID of the FIND information model.
    :param identifier: the keys, with Query/Retrieve Level (0008,0052).
    :param deadline: seconds that the whole request may take; ``None``: only silence is bounded.
    :raises CroppedAnswerError: 0xFE00 that nobody here asked for.
    :raises OutOfResourcesError: 0xA700.
    :raises RefusedByPeerError: 0xA900, 0x0122 or 0x0124.
    :raises PeerFailureError: any other failure, e.g. 0xC001: the daemon found the query too broad.
    :raises AssociationAbortedError: the association ended before the final response: what was yielded is not whole.
    :raises PeerTimeoutError: silence for ``dimse_timeout``.
    :raises CancelledError: cancelled.
    """
    with exchange(association, "C-FIND", model_uid, C_FIND, deadline=deadline) as running:
        running.send(C_FIND(), identifier)
        while (match := _next(running)) is not None:
            yield match


def _next(running: Exchange) -> FindMatch | None:
    while True:
        response = running.receive(C_FIND)
        if not status.is_pending(response.Status or 0):
            error = _final_error(running, response)
            if error is not None:
                raise error
            return None
        # After a cancel the peer may send what it already had: read on, to find the end.
        if not running.cancelled:
            return _match(running, response)


def _final_error(running: Exchange, response: C_FIND) -> DicomError | None:
    peer = running.association.peer
    if running.cancelled:
        return reasons.cancelled(peer, running.step)
    return status.error_for("C-FIND", response.Status or 0, peer=peer.name, comment=response.ErrorComment or "")


def _match(running: Exchange, response: C_FIND) -> FindMatch:
    if response.Identifier is None or not response.Identifier.getbuffer().nbytes:
        running.association.abort()
        raise PeerFailureError(
            "the peer announced a match and sent none", peer=running.association.peer.name, step=running.step
        )
    return FindMatch(running.decode(response.Identifier), response.Status != status.PENDING_OPTIONAL_KEYS_UNSUPPORTED)
