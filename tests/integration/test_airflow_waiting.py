"""Sensors under real Airflow: poked, rescheduled and deferred they come to the same, and name nobody.

And an operator is deferred and goes on.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from support.airflow_process import new_home, run_dags
from support.archive import rt_image
from support.identifiers import forms_of, found_in
from support.ports import free_port
from support.spooled import receive
from support.third_party import FilingStation

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.query.find import find
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

ZONE = ZoneInfo("Europe/Zurich")
MODES = ("poked", "rescheduled", "deferred")


@pytest.fixture(scope="module")
def waited(tmp_path_factory):
    """One run of the DAG: its result, its output, its home, and the patients that were and were not to be named."""
    clinic = Clinic(days=5, patients=2, matrix=16, until=date(2026, 11, 20), timezone=ZONE)
    root = tmp_path_factory.mktemp("airflow")
    sink = SpoolSink(Spool(root / "standing"), standing=True)
    for number in (1, 2):
        receive(sink, rt_image(number))
    with FilingStation(ae_title="AIRFLOW") as post, _daemon(clinic, post) as daemon:
        host, port = daemon.address
        extra = {"called_ae_title": "VMSDBD", "receiver": "night", "timezone": str(ZONE)}
        aria = {"conn_type": "dicom", "host": host, "port": port, "extra": extra}
        # Long enough to be left to the triggerer.
        late = {**aria, "extra": {**extra, "profile_overrides": {"settle_seconds": 60}}}
        dead = {"conn_type": "dicom", "host": host, "port": free_port(), "extra": extra}
        waited_for, named = _patients(Peer(host=host, port=port, called_ae_title="VMSDBD"))
        connections = {"aria": aria, "late": late, "dead": dead}
        made = new_home(root / "home", dags=Path(__file__).parent / "dags", connections=connections)
        more = {
            "AIRFLOW__VARIAN__RECEIVERS": json.dumps({"night": str(root / "standing")}),
            "WAITED_FOR": waited_for["PatientID"],
            "NAMED": named["PatientID"],
        }
        home = replace(made, environment=made.environment | more)
        with _sent_late(post, sink, home):
            (result,), output = run_dags(home, [{"dag_id": "waiting_in_three_ways"}])
    yield SimpleNamespace(result=result, output=output, home=home, spool=sink.spool, waited_for=waited_for, named=named)
    sink.close()


def _daemon(clinic, post):
    host, port = post.address
    return SimulatedDaemon(clinic, trusted=[TrustedEntity(ae_title="AIRFLOW", host=host, port=port)], timezone=ZONE)


@contextmanager
def _sent_late(post, sink, home):
    """Let what the daemon sends come to the standing receiver once a task's manifest says that it is waited for."""
    kept, over = [], threading.Event()
    post.on_store = kept.append

    def deliver():
        while not over.wait(0.1):
            manifests = (home.storage / ".dicom").glob("*.json")
            if kept and any('"waiting"' in path.read_text() for path in manifests):
                for data_set in kept:
                    receive(sink, data_set)
                return

    thread = threading.Thread(target=deliver)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _patients(peer):
    keys = Query.build("PATIENT", {"PatientID": "*", "PatientName": ""})
    answers = find(peer, keys, profile=Profile(name="plain", relational_queries=True)).answers
    first, second = (answer for answer in answers if "QA" not in answer["PatientID"])
    return first, second


def test_a_sensor_comes_to_the_same_in_each_mode(waited):
    told = [waited.result.xcom(f"find_{mode}") for mode in MODES]
    assert told == [[{"count": told[0][0]["count"], "whole": True}]] * 3
    assert told[0][0]["count"] >= 1
    assert [waited.result.states(f"find_{mode}") for mode in MODES] == [["success"]] * 3


def test_each_sensor_waits_deferred(waited):
    (echo,), received = waited.result.xcom("echo"), waited.result.xcom("received")
    assert list(echo) == ["seconds"]
    assert received == [{"count": 2, "studies": 1, "series": 1}]


def test_what_is_wrong_fails(waited):
    assert [waited.result.states(name) for name in ("wrong", "dead")] == [["failed"]] * 2
    assert "Did you mean PatientID" in waited.output
    assert "could not be reached" in waited.output or "refused" in waited.output


def test_it_was_deferred_and_rescheduled_indeed(waited):
    with sqlite3.connect(waited.home.database) as database:
        triggers = [row[0].rpartition(".")[2] for row in database.execute("select classpath from trigger")]
        ((rescheduled,),) = database.execute("select count(*) from task_reschedule")
    # What is wrong with a query is found before.
    expected = ["DicomEchoTrigger"] * 2 + ["DicomFindTrigger", "DicomLateTrigger", "DicomReceivedTrigger"]
    assert sorted(triggers) == expected
    assert rescheduled == 1


def test_an_operator_goes_on_with_what_came_while_it_was_deferred(waited):
    (told,) = waited.result.xcom("late")
    assert (told["outcome"], waited.result.states("late")) == ("complete", ["success"])
    manifest = json.loads(Path(told["manifest"].removeprefix("file://")).read_text())
    counts = manifest["counts"]
    assert (manifest["attempts"], counts["verified"], counts["held"]) == (1, counts["found"], 0)
    assert len(manifest["requests"]) == counts["found"]  # none was asked for twice


def test_nothing_was_claimed(waited):
    assert len(list(waited.spool.unclaimed())) == 2


def test_who_was_waited_for_is_named_nowhere(waited):
    def named(patient):
        words = set(forms_of(patient["PatientID"], str(patient["PatientName"])))
        kept = [waited.home.database, *waited.home.root.rglob("*.json"), *waited.home.root.rglob("*.log")]
        return found_in(b"\n".join([waited.output.encode(), *(path.read_bytes() for path in kept)]), words)

    assert named(waited.named)  # the search finds the one that a task has told
    assert not named(waited.waited_for)
