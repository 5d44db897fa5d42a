"""A simulated daemon over small objects, and what a retrieval from it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from support.ports import free_port

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.retrieve import RetrievalResult, retrieve
from airflow_provider_varian.simulator.daemon import wire
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.tree import Holdings

#: ARIA's habits, as far as a retrieval allows for them; in less of a hurry tests pass waiting times as arguments.
ARIA = Profile(
    name="aria",
    relational_queries=True,
    uid_lists=False,
    volatile_attributes=frozenset({"InstanceCreationDate", "InstanceCreationTime"}),
    too_broad_statuses=frozenset({0xC001}),
)
RETRIEVAL_ID = "r-1"
METHODS = {"C-GET": "get", "C-MOVE": "move"}


@dataclass
class Site:
    """One daemon, one destination, one spool.

    :param daemon: it runs.
    :param port: where our receiver listens.
    :param folder: of destination and spool.
    """

    daemon: SimulatedDaemon
    port: int
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "out"

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def spooled(self) -> set[str]:
        """SOP Instance UIDs of what lies in the spool, whole."""
        return {path.name.rsplit(".", 2)[0] for path in self.spool.glob("*/*/*.dcm")}

    def peer(self, **settings: Any) -> Peer:
        host, port = self.daemon.address
        return peer_at(host, port, self.port, **settings)

    def retrieve(
        self, request: RetrievalRequest, *, method: str, peer: Peer | None = None, **more: Any
    ) -> RetrievalResult:
        arguments = waiting() | {"destination": self.root, "spool_root": self.spool} | more
        return retrieve(peer or self.peer(), request, method=METHODS[method], **arguments)


def peer_at(host: str, port: int, receiver_port: int, **settings: Any) -> Peer:
    """Return the connection to a daemon; waiting is long, so that a slow machine changes nothing."""
    fields: dict[str, Any] = {
        "called_ae_title": "VMSDBD",
        "calling_ae_title": "AIRFLOW",
        "receiver_host": "127.0.0.1",
        "receiver_port": receiver_port,
        "connect_timeout": 20.0,
        "acse_timeout": 20.0,
        "dimse_timeout": 20.0,
        "network_timeout": 20.0,
        "retrieve_deadline": 60.0,
    }
    return Peer(host=host, port=port, **(fields | settings))


def waiting() -> dict[str, Any]:
    """Return how a test has a retrieval wait: hardly."""
    return {
        "profile": ARIA,
        "retrieval_id": RETRIEVAL_ID,
        "stable_counts": 1,
        "stable_interval_seconds": 0.0,
        "settle_seconds": 0.2,
        "port_wait_seconds": 30.0,
    }


def series_request(*uids: str, **more: Any) -> RetrievalRequest:
    return RetrievalRequest(level=Level.SERIES, keys={"SeriesInstanceUID": list(uids)}, **more)


@contextmanager
def acknowledged() -> Iterator[set[str]]:
    """Note which objects daemons of this process have heard 0x0000 about."""
    heard: set[str] = set()
    real = wire.store

    def store(assoc: Any, context: Any, instance: Any, slices: Any, **more: Any) -> int | None:
        status = real(assoc, context, instance, slices, **more)
        if status == 0:
            heard.add(instance.uid)
        return status

    with patch.object(wire, "store", store):
        yield heard


@contextmanager
def site(folder: Path, holdings: Holdings, behaviour: Behaviour | None = None) -> Iterator[Site]:
    """Run a daemon that trusts us; C-GET is on."""
    port = free_port()
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
    habits = replace(behaviour or Behaviour(), get=True)
    with SimulatedDaemon(holdings, trusted=trusted, behaviour=habits) as daemon:
        yield Site(daemon, port, folder)
