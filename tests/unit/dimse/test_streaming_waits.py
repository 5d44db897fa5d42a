"""Waiting: nothing spins, and whoever wants something of an association is heard at once."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import threading
import time
import tracemalloc

import pytest
from pynetdicom import evt
from pynetdicom.transport import ThreadedAssociationServer
from support.ports import wait_until
from support.store_client import (
    COMMAND,
    DATA,
    LAST,
    RELEASE_RQ,
    associate_rq,
    echo_command,
    item,
    message,
    pdu,
    store_client,
    store_command,
)
from support.streamed import receiving

from airflow_provider_varian.dimse import acceptor, stream
from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.dimse.connection import Connection

BEGUN = pdu(item(COMMAND | LAST, store_command())) + pdu(item(DATA, bytes(1000)))


@pytest.fixture(autouse=True)
def nobody_looks_by_chance(monkeypatch):
    """What is waited for ends a wait, and not that somebody looks now and then all the same."""
    monkeypatch.setattr(stream, "_LOOK_SECONDS", 60.0)
    monkeypatch.setattr(acceptor, "_REST_SECONDS", 60.0)


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


@pytest.fixture
def client(receiver):
    """A client with an association, and the receiver's side of it."""
    with store_client(receiver.port) as found:
        found.associate()
        wait_until(lambda: receiver.associations and receiver.associations[-1].is_established, every=0.001)
        yield found, receiver.associations[-1]


@pytest.mark.parametrize("begun", [b"", BEGUN[:3], BEGUN[:-10], BEGUN], ids=["idle", "head", "fragment", "object"])
@pytest.mark.parametrize("how", ["abort", "cut"])
def test_who_wants_the_end_is_heard_at_once(receiver, client, begun, how):
    peer, assoc = client
    peer.send(begun)
    if begun[3:]:
        wait_until(lambda: receiver.sink.requests, every=0.001)
    began = time.monotonic()
    if how == "abort":
        threading.Thread(target=assoc.abort).start()
        assert peer.read()[0] == 7
    else:
        assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        assert peer.end() == "closed"
    # 50 ms are what is promised; the rest is for a machine that is busy with other things.
    assert time.monotonic() - began < 5
    peer.socket.close()
    wait_until(lambda: not receiver.server.active_associations and not assoc.dul.is_alive())
    assert receiver.sink.open == 0


def test_who_wants_the_end_is_heard_while_the_next_object_is_expected(receiver, client):
    peer, assoc = client
    peer.send(message(store_command(), b"object"))
    assert peer.answer()["status"] == 0
    threading.Thread(target=assoc.abort).start()
    assert peer.read()[0] == 7
    assert peer.end() == "closed"


def test_a_connection_without_an_association_is_closed_by_an_abort(receiver):
    with store_client(receiver.port) as peer:
        wait_until(
            lambda: receiver.associations and receiver.associations[-1].dul.state_machine.current_state == "Sta2"
        )
        receiver.associations[-1].abort()
        assert peer.end() == "closed"
    wait_until(lambda: not receiver.server.active_associations)


def test_a_sink_that_aborts_its_own_association_does_not_wait_for_itself(receiver, client):
    peer, assoc = client
    receiver.sink.trouble = lambda step, uid: assoc.abort() if step == "commit" else None
    peer.send(message(store_command(), b"object"))
    assert peer.end() == "aborted"
    wait_until(lambda: not assoc.is_alive())


def test_an_idle_association_sleeps(receiver, client, monkeypatch):
    _, assoc = client
    waits, rests = [], []
    stock_wait, stock_rest = Connection.wait, assoc._reactor_checkpoint.wait
    monkeypatch.setattr(Connection, "wait", lambda *args, **options: waits.append(1) or stock_wait(*args, **options))
    monkeypatch.setattr(assoc._reactor_checkpoint, "wait", lambda *args: rests.append(1) or stock_rest(*args))
    time.sleep(0.8)
    assert len(waits) < 8
    assert len(rests) < 8


def test_messages_that_come_at_once_are_all_answered(receiver, client):
    peer, _ = client
    wire = b"".join(
        message(store_command(f"1.2.3.{number}", message_id=number), b"object") + message(echo_command(number), None, 5)
        for number in range(5)
    )
    peer.send(wire)
    answers = [peer.answer() for _ in range(10)]
    assert {answer["responds_to"] for answer in answers} == set(range(5))
    peer.send(RELEASE_RQ)
    assert peer.end() == "released"
    assert len(receiver.sink.objects) == 5


def test_several_messages_may_share_a_pdu(receiver, client):
    peer, _ = client
    parts = [
        part
        for number in range(3)
        for part in (item(COMMAND | LAST, store_command(f"1.2.3.{number}")), item(DATA | LAST, b"object"))
    ]
    peer.send(pdu(*parts))
    assert [peer.answer()["affected_instance"] for _ in range(3)] == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]


def test_nothing_is_stored_before_the_association_was_told_to_be_there(receiver):
    order = []
    receiver.sink.trouble = lambda step, uid: order.append(step)

    def slow(event):
        time.sleep(0.2)
        order.append("established")

    receiver.server.bind(evt.EVT_ESTABLISHED, slow)
    with store_client(receiver.port) as peer:
        peer.associate()
        peer.send(message(store_command(), b"object"))
        assert peer.answer()["status"] == 0x0000
    assert order == ["established", "begin", "write", "commit"]


def test_a_peer_that_is_silent_for_too_long_is_aborted():
    with receiving(network_timeout=0.3) as receiver, store_client(receiver.port) as peer:
        peer.associate()
        began = time.monotonic()
        assert peer.end() == "aborted"
        assert time.monotonic() - began < 5
        assert receiver.observer.calls == [("ended by us", "timeout")]


def test_a_peer_at_work_is_not_taken_for_silent():
    with receiving(network_timeout=3.0) as receiver, store_client(receiver.port) as peer:
        peer.associate()
        for number in range(8):
            peer.send(message(store_command(f"1.2.3.{number}"), b"object"))
            assert peer.answer()["status"] == 0x0000
            time.sleep(0.5)
        assert receiver.observer.active >= 9


def test_a_peer_that_asks_for_no_association_is_sent_away():
    with receiving(Bounds(association_seconds=0.3)) as receiver, store_client(receiver.port) as peer:
        began = time.monotonic()
        assert peer.end() == "closed"
        assert 0.2 < time.monotonic() - began < 5
        wait_until(lambda: not receiver.server.active_associations)
        assert receiver.observer.calls == [("ended by us", "timeout")]


def test_who_is_sent_away_before_there_is_an_association_keeps_no_thread(receiver):
    with store_client(receiver.port) as peer:
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        assert peer.end() == "aborted"
        wait_until(lambda: not receiver.server.active_associations, seconds=10)


def test_an_association_that_is_refused_ends():
    with receiving(require_called_aet=True) as receiver, store_client(receiver.port) as peer:
        peer.send(associate_rq(called="SOMEBODY"))
        assert peer.read()[0] == 3
        assert peer.end() == "closed"
        wait_until(lambda: not receiver.server.active_associations)


class HighNumbers(ThreadedAssociationServer):
    """Gives connections descriptors that select() does not take."""

    def get_request(self):
        connection, address = super().get_request()
        high = fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, 1500)
        connection.close()
        return socket.socket(fileno=high), address


def test_descriptors_of_more_than_1024_are_served():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this process may not have so many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    try:
        with receiving(server_class=HighNumbers) as receiver, store_client(receiver.port) as peer:
            peer.associate()
            peer.send(message(store_command(), b"object"))
            assert peer.answer()["status"] == 0x0000
            assert receiver.associations[-1].dul.socket.socket.fileno() >= 1500
            peer.release()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_are_given_back(receiver):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    with store_client(receiver.port) as peer:
        peer.associate()
        peer.release()
    wait_until(lambda: not receiver.server.active_associations)
    before = descriptors()
    for _ in range(10):
        with store_client(receiver.port) as peer:
            peer.associate()
            peer.send(message(store_command(), b"object"))
            peer.answer()
    wait_until(lambda: not receiver.server.active_associations)
    wait_until(lambda: descriptors() <= before)


def test_memory_stays_flat(receiver, client):
    class Counting:
        total = 0

        def begin(self, request):
            return self

        def write(self, data):
            self.total += len(data)

        def commit(self):
            pass

        abandon = commit

    sink = Counting()
    peer, assoc = client
    assoc.dul.stream._dispatch._takers[1]._sink = sink
    fragment = pdu(item(DATA, bytes(16000)))
    peer.send(pdu(item(COMMAND | LAST, store_command())))
    tracemalloc.start()
    for _ in range(2000):
        peer.send(fragment)
    peer.send(pdu(item(DATA | LAST, b"")))
    assert peer.answer()["status"] == 0x0000
    assert tracemalloc.get_traced_memory()[1] < 1_500_000
    tracemalloc.stop()
    assert sink.total == 2000 * 16000
