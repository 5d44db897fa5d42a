"""C-ECHO (PS3.4 Annex A): does the peer answer at all?

A daemon answers C-ECHO while its database is down; availability is a bounded, empty C-FIND (semantics 4).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pynetdicom.dimse_primitives import C_ECHO

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, status
from airflow_provider_varian.dimse.association import Negotiated, PeerAssociation, associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.command_set import C_ECHO_RQ
from airflow_provider_varian.dimse.exchange import exchange
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.turn import TASK, Patience


@dataclass(frozen=True, slots=True)
class EchoResult:
    """A C-ECHO that was answered.

    :param seconds: from request to answer, without the time for the association.
    :param negotiated: what the peer said about itself.
    """

    seconds: float
    negotiated: Negotiated


def echo(association: PeerAssociation) -> EchoResult:
    """Send a C-ECHO on an open association.

    :raises DicomError: when the answer is not success, or does not come.
    """
    start = time.monotonic()
    with exchange(association, "C-ECHO", uids.VERIFICATION, C_ECHO) as running:
        running.send(C_ECHO_RQ)
        response = running.receive(C_ECHO)
    error = status.error_for("C-ECHO", response.Status or 0, peer=association.peer.name)
    if error is not None:
        raise error
    return EchoResult(time.monotonic() - start, association.negotiated)


def echo_peer(peer: Peer, *, cancellation: Cancellation | None = None, patience: Patience = TASK) -> EchoResult:
    """Open an association, send a C-ECHO, release.

    :param peer: whom to ask.
    :param cancellation: ends it from outside.
    :param patience: how long to wait until the peer may be called.
    """
    opened = associate(peer, contexts.verification(), step="C-ECHO", cancellation=cancellation, patience=patience)
    with opened as association:
        return echo(association)
