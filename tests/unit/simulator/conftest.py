"""A simulated daemon on loopback, its receiver, and its client."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.simulated import MATRIX, UNTIL, Client, Receiver, peer_of, receiving, trusted

from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.facts import PlanFact, facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def clinic() -> Clinic:
    return Clinic(seed=1, patients=5, days=3, until=UNTIL, matrix=MATRIX)


@pytest.fixture
def plans(clinic) -> dict[tuple[str, str], PlanFact]:
    """QA plans by course and label; the labels of the two machines differ."""
    return {(fact.course, fact.label): fact for fact in facts(clinic)}


@pytest.fixture
def daemon(clinic, receiver) -> Iterator[SimulatedDaemon]:
    with SimulatedDaemon(clinic, trusted=[trusted(receiver.port)]) as running:
        yield running


@pytest.fixture
def client(daemon) -> Client:
    return Client(peer_of(daemon))


@pytest.fixture
def habit(daemon):
    """Change habits of the running daemon."""

    def change(**settings) -> None:
        daemon.behaviour = replace(daemon.behaviour, **settings)

    return change


@pytest.fixture
def simulator_log(caplog):
    caplog.set_level(logging.DEBUG, logger="airflow_provider_varian.simulator")
    return caplog
