"""Those who watch a receiver are told what is wrong, in words, and cannot hold anybody up."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.ports import wait_until

from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver import health
from airflow_provider_varian.receiver.health import HealthServer
from airflow_provider_varian.receiver.metrics import Metrics
from airflow_provider_varian.receiver.readiness import Readiness


class Receiver:
    """What readiness asks of one."""

    def __init__(self, spool):
        self.listening = True
        self.draining = False
        self.min_free = 0
        self.trouble = None
        self.readiness = Readiness(
            spool,
            listening=lambda: self.listening,
            draining=lambda: self.draining,
            min_free_bytes=lambda: self.min_free,
            degraded=[lambda: self.trouble, lambda: None],
        )


@pytest.fixture
def receiver(spool, monkeypatch):
    monkeypatch.setattr("airflow_provider_varian.receiver.readiness._KEPT_SECONDS", 0.0)
    return Receiver(spool)


@pytest.fixture
def server(receiver, spool):
    running = HealthServer(receiver.readiness, Metrics(spool=spool).registry)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def get(server):
    def ask(path, method="GET"):
        connection = http.client.HTTPConnection(*server.address, timeout=20)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    return ask


def test_metrics_are_what_prometheus_reads(get):
    status, headers, body = get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert {"dicom_receiver_objects", "dicom_receiver_spool_free_bytes", "dicom_receiver_build_info"} <= names


def test_it_listens_on_the_loopback_unless_told_otherwise(server):
    assert server.address[0] == "127.0.0.1"


def test_alive_is_told_whatever_else_is_wrong(get, receiver):
    receiver.listening, receiver.draining = False, True
    status, _, body = get("/healthz")
    assert (status, json.loads(body)) == (200, {"alive": True, "pid": os.getpid()})


def ready(get):
    status, headers, body = get("/readyz")
    assert headers["Content-Type"] == "application/json"
    told = json.loads(body)
    assert told["ready"] is (status == 200)
    return status, told["problems"], told["degraded"]


def test_it_is_ready_when_nothing_is_wrong(get, spool):
    assert ready(get) == (200, [], [])
    assert sorted(path.name for path in spool.root.iterdir() if path.is_file() and path.name != "lock") == []


def test_it_is_not_ready_while_it_does_not_listen(get, receiver):
    receiver.listening = False
    assert ready(get) == (503, ["it is not listening"], [])


def test_it_is_not_ready_while_it_stops(get, receiver):
    receiver.draining = True
    status, problems, _ = ready(get)
    assert status == 503
    assert problems == ["it is stopping: open associations may end, no new ones are accepted"]


def test_it_is_not_ready_without_space(get, receiver):
    receiver.min_free = 1 << 62
    status, (problem,), _ = ready(get)
    assert status == 503
    assert f"no object is begun below {1 << 62}" in problem
    receiver.min_free = 0
    assert ready(get)[0] == 200


def test_it_is_not_ready_when_the_spool_cannot_be_written(get, spool, monkeypatch):
    opening = os.open

    def read_only(path, flags, *args, **kwargs):
        if flags & os.O_CREAT and str(path).startswith(str(spool.root)):
            raise OSError(30, "Read-only file system")
        return opening(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only)
    status, (problem,), _ = ready(get)
    assert status == 503
    assert problem == f"the spool {spool.root} cannot be written: Read-only file system"


def test_what_it_can_do_without_for_a_while_is_told_and_it_is_ready(get, receiver):
    receiver.trouble = "s3://x has taken nothing since 12:00"
    assert ready(get) == (200, [], ["s3://x has taken nothing since 12:00"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metrics/../etc/passwd", 404), ("POST", "/metrics", 405), ("GET", "/readyz?x=1", 200)],
)
def test_there_is_nothing_else(get, method, path, status):
    assert get(path, method)[0] == status


def test_a_head_has_no_body(get):
    status, headers, body = get("/healthz", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


def talk(server, data):
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
        return answer


def test_garbage_is_told_so(server, get):
    assert talk(server, b"\x16\x03\x01\x02\x00\x01\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert get("/healthz")[0] == 200


def send_until_hung_up_on(connection, data, *, times=10_000, every=0.0):
    def send():
        for _ in range(times):
            connection.sendall(data)
            time.sleep(every)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send()


@pytest.fixture
def patient(receiver, spool):
    running = HealthServer(receiver.readiness, Metrics(spool=spool).registry, request_seconds=600)
    running.start()
    yield running
    running.stop()


def test_a_head_without_end_is_not_read_to_the_end(patient):
    with socket.create_connection(patient.address, timeout=20) as connection:
        send_until_hung_up_on(connection, b"X-Header: " + b"x" * 8000 + b"\r\n")
    assert talk(patient, b"GET /healthz HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.fixture
def impatient(receiver, spool):
    running = HealthServer(receiver.readiness, Metrics(spool=spool).registry, request_seconds=0.3)
    running.start()
    yield running
    running.stop()


def serving():
    return [thread for thread in threading.enumerate() if thread.name == "dicom-health-request"]


def is_hung_up_on(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_silent_callers_take_no_more_than_their_threads_and_the_others_are_hung_up_on_at_once(patient):
    silent = [socket.create_connection(patient.address, timeout=20) for _ in range(2 * health.MAXIMUM_REQUESTS)]
    try:
        assert all(is_hung_up_on(connection) for connection in silent[health.MAXIMUM_REQUESTS :])
        assert len(serving()) == health.MAXIMUM_REQUESTS
    finally:
        for connection in silent:
            connection.close()
    wait_until(lambda: not serving(), what="the end of their threads")
    assert talk(patient, b"GET /healthz HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_silent_caller_is_hung_up_on(impatient):
    with socket.create_connection(impatient.address, timeout=20) as connection:
        assert is_hung_up_on(connection)
    wait_until(lambda: not serving(), what="the end of its thread")


def test_a_caller_that_drips_is_hung_up_on(impatient):
    with socket.create_connection(impatient.address, timeout=20) as connection:
        begun = time.monotonic()
        send_until_hung_up_on(connection, b"G", times=1000, every=0.02)
        assert time.monotonic() - begun < 15


def test_a_page_that_fails_harms_no_other(server, get, monkeypatch, caplog):
    def broken():
        raise RuntimeError("QA_SECRET")

    monkeypatch.setitem(server._pages, "/metrics", broken)
    assert talk(server, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
    wait_until(lambda: "RuntimeError" in caplog.text, what="the log")
    assert "QA_SECRET" not in caplog.text
    assert get("/healthz")[0] == 200


def test_a_port_that_is_taken_is_named(server, receiver):
    host, port = server.address
    other = HealthServer(receiver.readiness, Metrics().registry, host=host, port=port)
    with pytest.raises(ReceiverUnavailableError, match=f"port {port} of 127.0.0.1 is taken"):
        other.start()


def test_it_stops_at_once_and_twice_and_its_port_is_free(receiver, monkeypatch):
    monkeypatch.setattr(health, "_STOP_SECONDS", 60.0)
    server = HealthServer(receiver.readiness, Metrics().registry)
    with pytest.raises(ReceiverUnavailableError, match="not running"):
        _ = server.address
    server.start()
    host, port = server.address
    begun = time.monotonic()
    server.stop()
    server.stop()
    assert time.monotonic() - begun < 30
    again = HealthServer(receiver.readiness, Metrics().registry, host=host, port=port)
    again.start()
    again.stop()


def test_it_listens_on_ipv6_too(receiver):
    server = HealthServer(receiver.readiness, Metrics().registry, host="::1")
    server.start()
    try:
        assert talk(server, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    finally:
        server.stop()
