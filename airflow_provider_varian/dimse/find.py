"""C-FIND (PS3.4 C.4.1): matches one by one, as the peer sends them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND

from airflow_provider_varian.dimse import reasons, status, streaming
from airflow_provider_varian.dimse.answers import Answer, Answered, answer_of
from airflow_provider_varian.dimse.association import PeerAssociation
from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.dimse.command_set import C_FIND_RQ, C_FIND_RSP
from airflow_provider_varian.dimse.exchange import Exchange, exchange
from airflow_provider_varian.dimse.find_taker import Batch, FindTaker
from airflow_provider_varian.errors import DicomError, PeerFailureError


class FindMatch(NamedTuple):
    """One match.

    :param answer: what the peer answered, element values not yet decoded.
    :param optional_keys_supported: false when the status was 0xFF01, so that no optional key of this
        match may be trusted (semantics 12).
    """

    answer: Answered
    optional_keys_supported: bool

    @property
    def identifier(self) -> Dataset:
        """The answer as a data set of pydicom's."""
        return self.answer.data_set() if isinstance(self.answer, Answer) else self.answer


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
    with exchange(association, "C-FIND", model_uid, C_FIND, deadline=deadline) as running, _taking(running) as taker:
        running.send(C_FIND_RQ, identifier)
        read = _reading(running)
        while (responses := _next(running, taker)) is not None:
            for answered_status, encoded in responses:
                # After a cancel the peer may send what it already had: read on, to find the end.
                if not running.cancelled:
                    yield FindMatch(read(encoded), answered_status != status.PENDING_OPTIONAL_KEYS_UNSUPPORTED)


@contextmanager
def _taking(running: Exchange) -> Iterator[FindTaker | None]:
    """Take the matches past pynetdicom while the block runs, where its reading is ours."""
    stream = streaming.of(running.association.assoc)
    if stream is None:
        yield None
        return
    taker = FindTaker(
        running.association.assoc.dimse.msg_queue,
        context_id=running.context.context_id or 0,
        message_id=running.message_id,
        model_uid=str(running.context.abstract_syntax),
        longest=Bounds().message_bytes,
        wake=stream.wake,
    )
    with stream.taking(C_FIND_RSP, taker):
        yield taker


def _next(running: Exchange, taker: FindTaker | None) -> Sequence[tuple[int, bytes]] | None:
    """Wait for the next pending responses; return status and identifier of each, None once there are no more."""
    response = running.receive(C_FIND)
    if taker is not None and isinstance(response, Batch):
        return taker.take(response)
    if status.is_pending(response.Status or 0):
        return [(response.Status or 0, response.Identifier.getvalue() if response.Identifier is not None else b"")]
    error = _final_error(running, response)
    if error is not None:
        raise error
    return None


def _final_error(running: Exchange, response: C_FIND) -> DicomError | None:
    peer = running.association.peer
    if running.cancelled:
        return reasons.cancelled(peer, running.step)
    return status.error_for("C-FIND", response.Status or 0, peer=peer.name, comment=response.ErrorComment or "")


def _reading(running: Exchange) -> Callable[[bytes], Answered]:
    """Return what reads the answers of a request: our codec, and pydicom what that does not understand."""
    syntax = running.context.transfer_syntax[0]
    known, implicit_vr = syntax.is_little_endian and not syntax.is_deflated, syntax.is_implicit_VR

    def read(encoded: bytes) -> Answered:
        if not encoded:
            running.association.abort()
            raise PeerFailureError(
                "the peer announced a match and sent none", peer=running.association.peer.name, step=running.step
            )
        answer = answer_of(encoded, implicit_vr=implicit_vr) if known else None
        return running.decode(BytesIO(encoded)) if answer is None else answer

    return read
