"""A task that is ended while its peer is sending: the peer is let go, nothing is left, and the missing alone come then.

By Airflow's own scheduler and workers, in each of the ways in which a task meets its end: marked failed and cleared by
a person, cleared while it runs, out of its time, and its process ended by SIGTERM and by SIGKILL.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from support.airflow_page import standalone
from support.airflow_process import connection_to, new_home
from support.faulty import Faulty
from support.ports import free_port, wait_until

from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(420)]

ZONE = ZoneInfo("Europe/Zurich")
DAGS = Path(__file__).parent / "dags"
#: What is there when a task is ended.
BEFORE = 2
WAYS = ("marked_failed", "cleared", "timed_out", "terminated", "killed")


@dataclass
class Gate:
    """Holds up the object after the first ones when it is asked for first, until the end."""

    asked: Counter[str] = field(default_factory=Counter)
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, uid: str) -> bool:
        with self.lock:
            self.asked[uid] += 1
            if len(self.asked) <= BEFORE or self.reached.is_set():
                return False
            self.reached.set()
        self.opened.wait(300)
        return False


class Site:
    """One Airflow, and for each way to end a task a peer, a connection and a run of its own."""

    def __init__(self, page, home, peers) -> None:
        self.page, self.home, self.peers = page, home, peers
        self.runs = {}

    def ask_for_runs(self) -> None:
        for way in WAYS:
            dag = "ended_by_its_time" if way == "timed_out" else "ended_on_purpose"
            body = {"logical_date": None, "conf": {"peer": way}}
            run = self.page.rest("POST", f"dags/{dag}/dagRuns", body)["dag_run_id"]
            self.runs[way] = SimpleNamespace(dag=dag, id=run, path=f"dags/{dag}/dagRuns/{run}")

    def task(self, way: str) -> dict:
        return self.page.rest("GET", f"{self.runs[way].path}/taskInstances/retrieve")

    def clear(self, way: str) -> None:
        run = self.runs[way]
        self.page.rest(
            "POST",
            f"dags/{run.dag}/clearTaskInstances",
            {"dry_run": False, "dag_run_id": run.id, "task_ids": ["retrieve"], "only_failed": False},
        )

    def manifest(self, way: str) -> dict:
        """What the last try wrote down."""
        path = f"{self.runs[way].path}/taskInstances/retrieve/xcomEntries/dicom_manifest?deserialize=true"
        uri = self.page.rest("GET", path)["value"]["uri"]
        return json.loads(Path(uri.removeprefix("file://")).read_text())

    def log(self, way: str, number: int) -> str:
        path = f"{self.runs[way].path}/taskInstances/retrieve/logs/{number}?full_content=true"
        return json.dumps(self.page.rest("GET", path))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    clinic = Clinic(days=2, patients=0, matrix=16, until=date(2026, 11, 20), timezone=ZONE)
    with ExitStack() as stack:
        peers, connections = {}, {}
        for way in WAYS:
            port, gate = free_port(), Gate()
            trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
            daemon = SimulatedDaemon(Faulty(clinic, broken=gate), trusted=trusted, timezone=ZONE)
            stack.enter_context(daemon)
            stack.callback(gate.opened.set)
            peers[way] = SimpleNamespace(daemon=daemon, gate=gate, port=port)
            connections[way] = connection_to(daemon.address[1], receiver_port=port, zone=ZONE)
        home = new_home(tmp_path_factory.mktemp("airflow"), dags=DAGS, connections=connections)
        # A worker learns that its task is to end by its next heartbeat.
        home.environment["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] = "1"
        with standalone(home, parallelism=len(WAYS)) as page:
            asked = Site(page, home, peers)
            _wait(lambda: len(page.rest("GET", "dags")["dags"]) >= 2, "the DAGs")
            asked.ask_for_runs()
            yield asked


def _wait(condition, what: str) -> None:
    wait_until(condition, seconds=300, what=what, every=0.5)


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return attempt.connect_ex(("127.0.0.1", port)) != 0


def _end(site: Site, way: str) -> None:
    """End the task of a way, once its peer is amid its objects."""
    peer = site.peers[way]
    assert peer.gate.reached.wait(300)
    if way != "timed_out":  # it may be over by now
        assert peer.daemon.counts["open"] == 1
    run = site.runs[way]
    if way == "marked_failed":
        site.page.rest("PATCH", f"{run.path}/taskInstances/retrieve", {"new_state": "failed"})
    elif way == "cleared":
        site.clear(way)
    elif way in ("terminated", "killed"):
        os.kill(site.task(way)["pid"], signal.SIGTERM if way == "terminated" else signal.SIGKILL)


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_is_ended_leaves_nothing_and_its_next_try_brings_the_missing_alone(site, way):
    peer = site.peers[way]
    daemon, gate = peer.daemon, peer.gate
    _end(site, way)
    if way == "marked_failed":
        # While the daemon still holds up the object: it is the task that lets go.
        _wait(lambda: daemon.counts["open"] == 0, f"the peer of {way} to be let go")
        _wait(lambda: _is_free(peer.port), f"the port of {way}")
        assert site.task(way)["state"] == "failed"
        assert site.manifest(way)["outcome"] == "pending"
        site.clear(way)
    _wait(lambda: site.task(way)["state"] in ("success", "failed"), f"the next try of {way}")
    task = site.task(way)
    assert (task["state"], task["try_number"]) == ("success", 2), site.log(way, task["try_number"])
    manifest = site.manifest(way)
    assert manifest["outcome"] == "complete"
    assert daemon.counts["open"] == 0
    # What was sent before was not sent again.
    held_up = list(gate.asked)[BEFORE]
    assert {uid for uid, number in gate.asked.items() if number > 1} <= {held_up}
    assert len(gate.asked) == len(manifest["instances"]) > BEFORE + 1
    assert _is_free(peer.port)


def test_nothing_of_all_that_is_left_in_the_spool(site):
    """After the tests above, which see all of it come to its end."""
    left = [path for name in ("new", "claimed", "tmp", "broken") for path in (site.home.spool / name).rglob("*")]
    assert [path for path in left if path.suffix == ".dcm" or path.parent.name in ("claimed", "tmp")] == []
    filed = Counter(path.name for path in site.home.storage.rglob("*.dcm"))
    assert set(filed.values()) == {len(WAYS)}
