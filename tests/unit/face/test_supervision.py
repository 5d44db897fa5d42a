"""A task whose supervisor is gone ends; what nobody supervises goes on."""

from __future__ import annotations

import json
import socket
import threading
from types import SimpleNamespace

import pytest
from airflow.sdk.execution_time import task_runner
from support.ports import free_port, wait_until
from support.quiet import QUIET, WITHIN, Clock

from airflow_provider_varian.errors import CancelledError
from airflow_provider_varian.operators.base import DicomOperator
from airflow_provider_varian.operators.supervision import supervised
from airflow_provider_varian.sensors.dicom import DicomEchoSensor, DicomFindSensor, DicomReceivedSensor


@pytest.fixture
def supervisor(monkeypatch):
    """The supervisor's end of the pair over which Airflow talks to a task."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(socket=ours), raising=False)
        yield theirs


def watches():
    return [thread for thread in threading.enumerate() if thread.name == "dicom-supervision"]


def test_who_is_left_alone_is_told_once(supervisor):
    told = threading.Event()
    calls = []
    with supervised(lambda: (calls.append(True), told.set())):
        supervisor.close()
        assert told.wait(10)
    assert calls == [True]
    assert watches() == []


def test_what_the_supervisor_says_is_left_to_airflow(supervisor):
    told = threading.Event()
    with supervised(told.set):
        supervisor.sendall(b"an answer")
        assert not told.wait(0.2)
        assert task_runner.SUPERVISOR_COMMS.socket.recv(100) == b"an answer"
    assert not told.is_set()
    assert watches() == []


def test_whoever_raises_is_not_watched_any_more(supervisor):
    def fail():
        with supervised(lambda: None):
            assert len(watches()) == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert watches() == []


@pytest.mark.parametrize("comms", [None, SimpleNamespace(), SimpleNamespace(socket=None), SimpleNamespace(socket=0)])
def test_without_a_supervisor_nobody_is_watched(monkeypatch, comms):
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    with supervised(pytest.fail):
        assert watches() == []


def test_a_task_that_is_left_alone_is_cancelled(supervisor):
    class Waiting(DicomOperator):
        def run_dicom(self, context):
            supervisor.close()
            self.cancellation.pause(30)

    with pytest.raises(CancelledError):
        Waiting(task_id="t").execute({})


@pytest.fixture(params=["echo", "find", "received", "quiet"])
def sensor(request, connect, monkeypatch, tmp_path):
    """A sensor of each kind that waits in vain."""
    often = {"task_id": "t", "poke_interval": 0.01, "timeout": 60, "max_transient_failures": 1000}
    conn = {"dicom_conn_id": connect("gone", port=free_port())}
    if request.param == "received":
        spool = tmp_path / "spool"
        spool.mkdir()
        monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", json.dumps({"night": str(spool)}))
        return DicomReceivedSensor(receiver="night", **often)
    if request.param == "find":
        return DicomFindSensor(level="STUDY", keys={"PatientID": "P"}, **conn, **often)
    if request.param == "quiet":
        Clock(monkeypatch, WITHIN)
        conn = {"dicom_conn_id": connect("quiet", **QUIET)}
    return DicomEchoSensor(**conn, **often)


def test_a_sensor_that_is_left_alone_asks_no_more(supervisor, sensor, monkeypatch):
    real, looks = sensor.look, []

    def look():
        looks.append(True)
        supervisor.close()
        wait_until(lambda: sensor.cancellation.cancelled, seconds=10, what="the cancellation")
        return real()

    monkeypatch.setattr(sensor, "look", look)
    with pytest.raises(CancelledError):
        sensor.execute({})
    assert looks == [True]
