"""A task whose supervisor is gone ends; what nobody supervises goes on."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest
from airflow.sdk.execution_time import task_runner
from support.ports import wait_until

from airflow_provider_varian.errors import CancelledError
from airflow_provider_varian.operators.base import DicomOperator
from airflow_provider_varian.operators.supervision import supervised
from airflow_provider_varian.sensors.dicom import DicomEchoSensor


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


def test_a_sensor_that_is_left_alone_asks_no_more(supervisor, connect, monkeypatch):
    sensor = DicomEchoSensor(task_id="t", dicom_conn_id=connect("gone"), poke_interval=0.01, timeout=30)
    pokes = []

    def look():
        pokes.append(True)
        supervisor.close()
        wait_until(lambda: sensor.cancellation.cancelled, seconds=10, what="the cancellation")
        sensor.cancellation.raise_if_cancelled()

    monkeypatch.setattr(sensor, "look", look)
    with pytest.raises(CancelledError):
        sensor.execute({})
    assert pokes == [True]
