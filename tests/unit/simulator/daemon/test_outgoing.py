"""The association on which a C-MOVE sends, with a destination of bare sockets that has no manners."""

from __future__ import annotations

import socket
import threading

import pytest
from support.ports import wait_until
from support.raw_client import raw_client
from support.raw_peer import Closed, raw_peer
from support.simulated import identifier, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.daemon import outgoing

A_RELEASE_RQ = b"\5\0\0\0\0\4\0\0\0\0"


@pytest.fixture
def keys(plans):
    return identifier("IMAGE", SOPInstanceUID=plans["QA", "WL_10MV"].sop_instance_uid)


def ask(daemon, keys):
    """Move one object, and release."""
    with raw_client(daemon, patience=15.0) as client:
        client.associate()
        told = client.ask(uids.STUDY_ROOT_MOVE, keys, destination="AIRFLOW")
        client.release()
    return told


@pytest.mark.parametrize("answers", [True, False], ids=["politely", "without an answer"])
def test_a_destination_that_releases_first_does_not_hold_the_client_up(daemon, keys, monkeypatch, answers):
    monkeypatch.setattr(outgoing, "_RELEASE_SECONDS", 0.3)
    kinds = []

    def play(wire):
        wire.accept()
        fields, _ = wire.read_message()
        answer = b"".join(
            wire.message(1, command=0x8001, responds_to=fields["message_id"], status=0, affected_class=uids.RT_PLAN)
        )
        wire.socket.sendall(answer + A_RELEASE_RQ)
        if not answers:
            wire.ignore_everything()
            return
        kinds.append(wire.read_pdu()[0])

    with raw_peer(play) as port:
        daemon.trust([trusted(port)])
        assert ask(daemon, keys).final["completed"] == 1
        wait_until(lambda: not daemon.counts["outgoing_open"])
    assert not kinds or kinds[0] in (5, 6), "its release is answered, or crosses ours"


def test_a_destination_that_ignores_the_release_does_not_hold_the_client_up(daemon, keys, monkeypatch):
    monkeypatch.setattr(outgoing, "_RELEASE_SECONDS", 0.3)
    asked = threading.Event()

    def play(wire):
        wire.accept()
        fields, _ = wire.read_message()
        wire.respond(fields, 0)
        if wire.read_pdu()[0] == 5:
            asked.set()
        wire.ignore_everything()

    with raw_peer(play) as port:
        daemon.trust([trusted(port)])
        assert ask(daemon, keys).final["completed"] == 1
        assert asked.is_set()


@pytest.mark.parametrize("way", ["stop", "restart"])
def test_the_end_of_the_daemon_ends_a_negotiation(daemon, keys, way):
    reached, ended = threading.Event(), threading.Event()

    def play(wire):
        assert wire.read_pdu()[0] == 1
        reached.set()
        try:
            wire.read(1)
        except (Closed, ConnectionError):
            ended.set()

    with raw_peer(play) as port, raw_client(daemon) as client:
        daemon.trust([trusted(port)])
        client.associate()
        client.socket.sendall(client.request(uids.STUDY_ROOT_MOVE, keys, destination="AIRFLOW"))
        assert reached.wait(10)
        daemon.stop() if way == "stop" else daemon.restart(0.1)
        assert ended.wait(10), "the time for an answer is much longer"
        assert client.listen().end == "abort"


def test_the_end_of_the_daemon_ends_a_connection_that_is_not_made_yet(daemon, keys):
    """As to a destination behind a firewall that says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, raw_client(daemon) as client:
        held = [socket.socket() for _ in range(4)]
        for each in held:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        daemon.trust([trusted(full.getsockname()[1])])
        client.associate()
        client.socket.sendall(client.request(uids.STUDY_ROOT_MOVE, keys, destination="AIRFLOW"))
        wait_until(lambda: daemon._outgoing._open, what="the association to be begun")
        threads = [each.dul for each in daemon._outgoing._open]
        daemon.stop()
        wait_until(lambda: not any(each.is_alive() for each in threads), seconds=7, what="its thread to end")
        for each in held:
            each.close()


def test_an_association_for_a_request_that_is_over_is_not_made(daemon, keys, monkeypatch):
    """The daemon restarts after the request has come, and before its association is begun."""
    associate, over = outgoing._associate, threading.Event()

    def late(*arguments):
        daemon.restart(0.1)
        assoc = associate(*arguments)
        found.append(assoc)
        over.set()
        return assoc

    found = []
    monkeypatch.setattr(outgoing, "_associate", late)

    def play(wire):
        # A connection may be made before its request is known to be over.
        wire.accept()
        wire.wait_for_end()

    with raw_peer(play) as port, raw_client(daemon) as client:
        daemon.trust([trusted(port)])
        client.associate()
        told = client.ask(uids.STUDY_ROOT_MOVE, keys, destination="AIRFLOW")
        assert told.end == "abort"
        assert over.wait(10)
    assert found == [None]
    wait_until(lambda: not daemon._outgoing._open)
