"""C-MOVE (PS3.4 C.4.2): the peer sends objects to a third AE, on an association of its own.

The destination is an AE title that the peer knows with an address and a port; ours, or somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_MOVE

from airflow_provider_varian.dimse.association import PeerAssociation
from airflow_provider_varian.dimse.command_set import C_MOVE_RQ
from airflow_provider_varian.dimse.exchange import exchange
from airflow_provider_varian.dimse.suboperations import Progress, SubOperations, follow
from airflow_provider_varian.errors import UnknownMoveDestinationError


def move(
    association: PeerAssociation,
    model_uid: str,
    identifier: Dataset,
    *,
    destination: str,
    on_progress: Progress | None = None,
    deadline: float | None = None,
    idle_for: Callable[[], float] | None = None,
    meanwhile: Callable[[], bool] | None = None,
) -> SubOperations:
    """Ask a C-MOVE and follow it to its final response.

    :param association: an open association with a context for the model.
    :param model_uid: SOP class UID of the MOVE information model.
    :param identifier: level, unique keys and Specific Character Set only (semantics 15).
    :param destination: AE title of the move destination.
    :param on_progress: called with each pending response; a peer may send none.
    :param deadline: seconds that the whole request may take; ``None``: the peer's ``retrieve_deadline``.
    :param idle_for: seconds since an object last arrived at our receiver: counts as a sign of life, because
        pending responses are optional (semantics 11).
    :param meanwhile: does a part of what there is to do with what has come, and says whether there was any; called in
        between, in the caller's thread. What it raises ends the request by C-CANCEL, and is raised here.
    :return: the peer's report, whatever its final status, but for the errors below.
    :raises UnknownMoveDestinationError: 0xA801.
    :raises RefusedByPeerError: 0x0122, 0x0124 or 0xA900.
    :raises AssociationAbortedError: the association ended; sub-operations may go on all the same.
    :raises PeerTimeoutError: silence for ``dimse_timeout``, or the deadline has passed.
    :raises CancelledError: cancelled.
    """
    seconds = association.peer.retrieve_deadline if deadline is None else deadline
    with exchange(
        association, "C-MOVE", model_uid, C_MOVE, deadline=seconds, idle_for=idle_for, meanwhile=meanwhile
    ) as running:
        running.send(C_MOVE_RQ, identifier, destination=destination)
        try:
            return follow(running, C_MOVE, on_progress)
        except UnknownMoveDestinationError as error:
            error.what = f"{error.what}; the destination asked for is {destination!r}"
            raise
