"""C-GET (PS3.4 C.4.3): objects come back on the association that asked for them.

For the sub-operations the requestor is a Storage SCP (Annex B), by role selection: what arrives goes, as it
comes, into a :class:`~airflow_provider_varian.dimse.sink.StorageSink`, in the thread that reads the association. The
report that ends the C-GET is read after the last object has been committed. With a release of pynetdicom that does not
let us read (:mod:`.streaming`), an object is in memory first, and stored in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_GET, C_STORE

from airflow_provider_varian.dimse import storage, streaming
from airflow_provider_varian.dimse.association import PeerAssociation
from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.dimse.command_set import C_GET_RQ, C_STORE_RQ
from airflow_provider_varian.dimse.exchange import exchange
from airflow_provider_varian.dimse.sink import StorageSink
from airflow_provider_varian.dimse.store_taker import Parties, StoreTaker
from airflow_provider_varian.dimse.suboperations import Progress, SubOperations, follow


def get(
    association: PeerAssociation,
    model_uid: str,
    identifier: Dataset,
    *,
    sink: StorageSink,
    on_progress: Progress | None = None,
    deadline: float | None = None,
    meanwhile: Callable[[], bool] | None = None,
) -> SubOperations:
    """Ask a C-GET and hand each object that comes to a sink.

    :param association: an open association with the contexts of :func:`.contexts.get`.
    :param model_uid: SOP class UID of the GET information model.
    :param identifier: level, unique keys and Specific Character Set only (semantics 15).
    :param sink: takes the objects; of its calls none runs any more when this returns.
    :param on_progress: called with each pending response.
    :param deadline: seconds that the whole request may take; ``None``: the peer's ``retrieve_deadline``.
    :param meanwhile: does a part of what there is to do with what has come, and says whether there was any; called in
        between, in the caller's thread. What it raises ends the request by C-CANCEL, and is raised here.
    :return: the peer's report, whatever its final status, but for the errors below.
    :raises RefusedByPeerError: 0x0122, 0x0124 or 0xA900.
    :raises AssociationAbortedError: the association ended; what the sink committed stays valid.
    :raises PeerTimeoutError: silence for ``dimse_timeout``, or the deadline has passed.
    :raises CancelledError: cancelled.
    """
    seconds = association.peer.retrieve_deadline if deadline is None else deadline
    on_store = partial(_answer, association, sink)
    with (
        _streaming(association, sink),
        exchange(
            association, "C-GET", model_uid, C_GET, deadline=seconds, on_store=on_store, meanwhile=meanwhile
        ) as running,
    ):
        running.send(C_GET_RQ, identifier)
        return follow(running, C_GET, on_progress)


@contextmanager
def _streaming(association: PeerAssociation, sink: StorageSink) -> Iterator[None]:
    """Let objects that come go into the sink while the block runs, if we read the association."""
    assoc, peer = association.assoc, association.peer
    stream = streaming.of(assoc)
    if stream is None:
        yield
        return
    taker = StoreTaker(
        assoc,
        sink=sink,
        bounds=Bounds(),
        observer=storage.StoreObserver(),
        send=stream.answer,
        parties=Parties(
            calling_ae_title=peer.called_ae_title,
            called_ae_title=peer.calling_ae_title,
            source_address=assoc.acceptor.address,
        ),
    )
    with stream.taking(C_STORE_RQ, taker):
        yield


def _answer(association: PeerAssociation, sink: StorageSink, context_id: int, request: C_STORE) -> None:
    """Take one object that pynetdicom has put together, and answer its C-STORE."""
    assoc, peer = association.assoc, association.peer
    response = C_STORE()
    response.MessageID = request.MessageID
    response.MessageIDBeingRespondedTo = request.MessageID
    response.AffectedSOPClassUID = request.AffectedSOPClassUID
    response.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
    # Whether the peer granted us the SCP role does not matter when it sends all the same.
    context = next((cx for cx in assoc.accepted_contexts if cx.context_id == context_id), None)
    status, comment = storage.store(
        sink,
        request,
        abstract_syntax=str(context.abstract_syntax) if context else "",
        transfer_syntax=str(context.transfer_syntax[0]) if context else "",
        calling_ae_title=peer.called_ae_title,
        called_ae_title=peer.calling_ae_title,
        source_address=assoc.acceptor.address,
    )
    response.Status = status
    if comment:
        response.ErrorComment = comment  # type: ignore[assignment]  # annotated as None in pynetdicom
    assoc.dimse.send_msg(response, context_id)
