"""A simulated daemon on loopback, connections to it, and a context like Airflow's."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from support.faulty import Faulty
from support.ports import free_port

from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

ZONE = ZoneInfo("Europe/Zurich")
LAST_DAY = date(2026, 11, 20)


HERE = Path(__file__).parent


def pytest_collection_modifyitems(items) -> None:
    """Mark all of the face's tests: they run on the oldest and the newest Airflow."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.airflow)


@pytest.fixture
def receiver_port() -> int:
    return free_port()


@pytest.fixture
def daemon(receiver_port):
    clinic = Clinic(days=5, patients=2, matrix=16, until=LAST_DAY, timezone=ZONE)
    trusted = [
        TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=receiver_port),
        TrustedEntity(ae_title="NOBODY", host="127.0.0.1", port=1),
    ]
    with SimulatedDaemon(Faulty(clinic), trusted=trusted, timezone=ZONE) as running:
        yield running


@pytest.fixture
def connect(monkeypatch):
    """Make a connection in the environment: ``connect("aria", port=..., calling_ae_title=...)``."""

    def make(name: str, *, conn_type: str = "dicom", host: str = "127.0.0.1", port: int = 104, **extra: Any) -> str:
        fields = {"called_ae_title": "VMSDBD"} | extra
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{name.upper()}",
            json.dumps({"conn_type": conn_type, "host": host, "port": port, "extra": fields}),
        )
        return name

    return make


@pytest.fixture
def aria(daemon, receiver_port, connect) -> str:
    """A connection to the daemon, quick about late objects."""
    return connect(
        "aria",
        port=daemon.address[1],
        receiver_host="127.0.0.1",
        receiver_port=receiver_port,
        timezone=str(ZONE),
        profile_overrides={"settle_seconds": 0.2, "stable_interval_seconds": 0.01},
    )


@pytest.fixture(autouse=True)
def storage(tmp_path, monkeypatch):
    """Storage and spool of each test are its own."""
    monkeypatch.setenv("AIRFLOW__VARIAN__STORAGE_ROOT", str(tmp_path / "storage"))
    monkeypatch.setenv("AIRFLOW__VARIAN__SPOOL_ROOT", str(tmp_path / "spool"))
    return tmp_path / "storage"


@dataclass
class TaskInstance:
    """What our operators use of a task instance."""

    task_id: str = "task"
    map_index: int = -1
    dag_id: str = "dag"
    run_id: str = "run"
    #: Of a try, as Airflow gives it.
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    pushed: list[tuple[str, Any]] = field(default_factory=list)

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)  # what is no JSON never comes back from XCom
        self.pushed.append((key, value))

    def begin_try(self) -> None:
        """Become another try, as where a task is cleared, or retried."""
        self.id = str(uuid.uuid4())

    def xcoms(self, key: str) -> list[Any]:
        return [value for name, value in self.pushed if name == key]


@pytest.fixture
def context():
    """Make a context: ``context(end=...)`` with a data interval, ``context()`` without a logical date."""

    def make(
        *, start: datetime | None = None, end: datetime | None = None, run_after: datetime | None = None, **ti: Any
    ) -> dict[str, Any]:
        run = SimpleNamespace(
            data_interval_start=start,
            data_interval_end=end,
            run_after=run_after or end or datetime(2026, 11, 20, 8, tzinfo=ZONE),
        )
        return {"ti": TaskInstance(**ti), "dag_run": run}

    return make


@pytest.fixture
def dag_run(context):
    """Make a run: ``dag_run(end=...)`` with a data interval, ``dag_run()`` without a logical date."""
    return lambda **instants: context(**instants)["dag_run"]


@pytest.fixture
def morning(context):
    """The context of the run that judges the last day of the clinic."""

    def make(**ti: Any) -> dict[str, Any]:
        return context(
            start=datetime(2026, 11, 19, 7, 45, tzinfo=ZONE), end=datetime(2026, 11, 20, 7, 45, tzinfo=ZONE), **ti
        )

    return make
