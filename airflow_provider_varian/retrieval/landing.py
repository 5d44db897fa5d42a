"""Where what a retrieval brings lands: which arrivals it has, by its connection and by what C-MOVE may be used for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.sweep import sweep_if_due
from airflow_provider_varian.retrieval.arrivals import Arrivals, InTaskArrivals
from airflow_provider_varian.retrieval.claims import Claims
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.held import Held
from airflow_provider_varian.retrieval.intake import Intake
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.means import Means
from airflow_provider_varian.retrieval.read_store import ReadStore
from airflow_provider_varian.retrieval.receivers import NamedReceiver
from airflow_provider_varian.retrieval.reception import Reception
from airflow_provider_varian.retrieval.spool_place import SpoolPlace
from airflow_provider_varian.retrieval.standing_arrivals import StandingArrivals
from airflow_provider_varian.retrieval.standing_place import Place
from airflow_provider_varian.retrieval.store_place import StorePlace
from airflow_provider_varian.retrieval.versions import Versions
from airflow_provider_varian.retrieval.wanted import Documents, SpoolDocuments, StoreDocuments, Wanted


@contextmanager
def taking(
    means: Means,
    spool: Spool,
    *,
    manifest: Manifest,
    earlier: Ledger | None,
    destination: Destination,
    layout: Layout,
    held: Held,
    versions: Versions,
    on_fetched: Callable[[], None],
    retention_seconds: float,
) -> Iterator[tuple[Arrivals, Intake]]:
    """Take what arrives, for as long as the block runs.

    :param means: what the transfer works with.
    :param spool: where objects are received.
    :param manifest: the account.
    :param earlier: that of an earlier try of the same retrieval; ``None`` when this is the first.
    :param destination: where objects are filed.
    :param layout: how.
    :param held: what is held.
    :param versions: which version of it.
    :param on_fetched: writes the account.
    :param retention_seconds: for how long an object that nobody claims is kept in a spool of tasks; 0: for ever.
    """
    if spool.has_standing():
        spool.sweep()  # its receiver looks at the rest, when it starts
    else:
        spool.reconcile()
    with closing(Reception(spool)) as reception:
        claims = Claims(spool, retrieval_id=manifest.id, owner=reception.owner, peer=means.peer, earlier=earlier)
        arrivals = arrivals_of(means, reception, claims, retrieval_id=manifest.id, ledger=manifest.ledger)
        intake = Intake(
            reception,
            claims=claims,
            arrivals=arrivals,
            ledger=manifest.ledger,
            destination=destination,
            layout=layout,
            profile=means.profile,
            held=held,
            versions=versions,
            on_fetched=on_fetched,
            cancellation=means.cancellation,
        )
        try:
            yield arrivals, intake
        finally:
            intake.close()
    if means.receiver is None or means.receiver.spool_root is None:  # else it is that one's to sweep, running or not
        # Afterwards: what lay there may have been what this retrieval came for.
        sweep_if_due(spool, retention_seconds=retention_seconds)


def arrivals_of(means: Means, reception: Reception, claims: Claims, *, retrieval_id: str, ledger: Ledger) -> Arrivals:
    """Return where what C-MOVE sends arrives.

    :param means: peer, and standing receiver, if there is one.
    :param reception: what this process receives itself; its spool is that of a standing receiver on this host.
    :param claims: what of that spool is ours.
    :param retrieval_id: who claims.
    :param ledger: the account.
    """
    if means.receiver is None or not means.can_move:
        return InTaskArrivals(
            means.peer,
            reception,
            claims,
            wait_seconds=means.port_wait_seconds,
            cancellation=means.cancellation,
            observer=means.observer,
        )
    place, documents = _place_of(means, means.receiver, reception, retrieval_id=retrieval_id, ledger=ledger)
    wanted = Wanted(documents, retrieval_id, ae_title=means.peer.move_destination)
    return StandingArrivals(place, wanted, ledger=ledger, peer=means.peer)


def spool_of(means: Means, spool_root: str | os.PathLike[str]) -> Spool:
    """Return the spool in which a retrieval works.

    All of it is in one, where that is possible: what one try has claimed there the next one finds there.

    :param means: names the standing receiver, if there is one.
    :param spool_root: the spool of receivers inside a task.
    :raises ReceiverUnavailableError: when it cannot be used.
    """
    if means.receiver is not None and means.can_move and (spool := means.receiver.spool()) is not None:
        return spool
    return Spool(spool_root)


def _place_of(
    means: Means, receiver: NamedReceiver, reception: Reception, *, retrieval_id: str, ledger: Ledger
) -> tuple[Place, Documents]:
    spool = reception.spool
    if receiver.store is None:
        place = SpoolPlace(
            spool,
            name=receiver.name,
            peer=means.peer,
            retrieval_id=retrieval_id,
            owner=reception.owner.name,
            wait_seconds=means.port_wait_seconds,
            cancellation=means.cancellation,
        )
        return place, SpoolDocuments(spool)
    store = ReadStore(receiver.store)
    return (
        StorePlace(
            store,
            name=receiver.name,
            peer=means.peer,
            spool=spool,
            owner=reception.owner,
            retrieval_id=retrieval_id,
            ledger=ledger,
            cancellation=means.cancellation,
        ),
        StoreDocuments(store),
    )
