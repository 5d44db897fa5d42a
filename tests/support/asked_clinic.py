"""A session of queries with a simulated daemon, by way of a real association on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from support.simulated import peer_of, trusted

from airflow_provider_varian.aria.profile import ARIA
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

#: The profile of ARIA, without the pauses between two equal lists.
QUICK = ARIA.overridden({"stable_interval_seconds": 0.0})
#: And asked once.
ONCE = QUICK.overridden({"stable_counts": 1})


@contextmanager
def daemon_of(clinic: Clinic, **habits: object) -> Iterator[SimulatedDaemon]:
    with SimulatedDaemon(clinic, trusted=[trusted()], behaviour=Behaviour(**habits)) as daemon:
        yield daemon


@contextmanager
def session_with(
    daemon: SimulatedDaemon, *, profile: Profile = ONCE, timezone: str = "Europe/Zurich"
) -> Iterator[FindSession]:
    with FindSession(peer_of(daemon, timezone=timezone), profile=profile) as session:
        yield session


@contextmanager
def asked(
    clinic: Clinic, *, profile: Profile = ONCE, timezone: str = "Europe/Zurich", **habits
) -> Iterator[FindSession]:
    """Serve a clinic with some habits, and open a session with it."""
    with daemon_of(clinic, **habits) as daemon, session_with(daemon, profile=profile, timezone=timezone) as session:
        yield session
