"""A simulated DB Daemon, and the program run against it in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import date

import pytest
from support.ports import free_port

from airflow_provider_varian.aria import profile
from airflow_provider_varian.cli.main import main
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

#: The last day of the clinic that all these tests look at.
TODAY = date(2026, 1, 5)


@dataclass
class Ended:
    """How a run of the program ended."""

    status: int
    out: str = field(repr=False)
    err: str = field(repr=False)

    @property
    def json(self):
        return json.loads(self.out)


@dataclass
class Program:
    """Runs the program against one daemon, and tells how often that was asked for what."""

    daemon: SimulatedDaemon
    listen: int
    capsys: pytest.CaptureFixture = field(repr=False)

    @property
    def address(self):
        host, port = self.daemon.address
        return f"VMSDBD@{host}:{port}"

    def __call__(self, verb, *arguments):
        self.daemon.counts.clear()
        self.capsys.readouterr()
        status = main([verb, "--peer", self.address, *map(str, arguments)])
        out, err = self.capsys.readouterr()
        return Ended(status, out, err)


@pytest.fixture(scope="session")
def clinic():
    return Clinic(days=3, until=TODAY, matrix=32, patients=2)


@pytest.fixture(autouse=True)
def no_time_to_lose(monkeypatch):
    """Nothing grows here while it is listed, and nothing comes late: neither is waited for as long as at a clinic."""
    waits = {"stable_interval_seconds": 0.01, "settle_seconds": 0.2}
    quick = {name: replace(each, **waits) for name, each in profile.PROFILES.items()}
    monkeypatch.setattr(profile, "PROFILES", quick)


@pytest.fixture
def program(clinic, capsys):
    """The program, and a daemon that trusts it; overrides nothing of the daemon's habits."""
    listen = free_port()
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=listen)]
    with SimulatedDaemon(clinic, trusted=trusted) as daemon:
        yield Program(daemon, listen, capsys)


@pytest.fixture
def program_with_get(program):
    program.daemon.behaviour = replace(program.daemon.behaviour, get=True)
    return program
