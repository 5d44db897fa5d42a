"""To which connection an object was sent: several may share a receiver, each under an AE title of its own.

Two peers may hold different objects under one UID, e.g. a T-Box that was cloned from the clinical database. The title
under which a receiver was called is certain, since it was let in under it, and is kept in the object's receipt.
"""

from __future__ import annotations

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.receiver.file_meta import FileMeta


def was_sent_to(peer: Peer, receipt: FileMeta) -> bool:
    """Say whether an object was sent to the destination of a connection.

    What came over a C-GET was not, where our own AE title is another one than that: to tell two connections apart
    matters more than that a killed try's C-GET is not put again.

    :param peer: the connection.
    :param receipt: what the object's file says of to whom it was sent: Receiving Application Entity Title (0002,0018).
    """
    return receipt.receiving_ae_title == peer.move_destination
