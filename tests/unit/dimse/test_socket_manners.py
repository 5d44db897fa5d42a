"""No 40 ms stall, whoever leaves Nagle's algorithm on (performance 1)."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest
from pynetdicom import AE, evt
from support.raw_client import RawClient
from support.raw_peer import element, raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, socket_manners
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.echo import echo
from airflow_provider_varian.dimse.find import iter_matches

ROUNDS = 24
STALL_SECONDS = 0.035
#: A busy machine may be slow now and then, but not in half of all rounds.
FEW, MANY = 4, 12
STUDY_UID = element(0x0020000D, b"1.2.3")

linux = pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="TCP_QUICKACK is Linux's")


def stalls(verb):
    count = 0
    for _ in range(ROUNDS):
        start = time.monotonic()
        verb()
        count += time.monotonic() - start > STALL_SECONDS
    return count


def split_writer(wire):
    """Answer C-FINDs as DCMTK does: Nagle on, each PDU in two writes."""
    wire.accept()
    while True:
        request, _ = wire.read_message()
        for status, data in ((0xFF00, STUDY_UID), (0x0000, None)):
            pdus = wire.message(
                request["context"],
                data,
                command=0x8020,
                responds_to=request["message_id"],
                affected_class=request["affected_class"],
                status=status,
            )
            for pdu in pdus:
                wire.socket.send(pdu[:12])
                wire.socket.send(pdu[12:])


def count_find_stalls(peer, query):
    with associate(peer, contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND") as association:
        return stalls(lambda: list(iter_matches(association, uids.STUDY_ROOT_FIND, query)))


@linux
def test_a_peer_with_nagle_on_does_not_stall_us(peer_at, study_query):
    with raw_peer(split_writer) as port:
        # A stall that is ours comes back each time; those of a machine with other work do not.
        assert any(count_find_stalls(peer_at(port), study_query) <= FEW for _ in range(3))


@linux
def test_it_would_stall_us_without_quick_acknowledgements(peer_at, study_query, monkeypatch):
    """Shows that the peer of the test above has the power to stall."""
    monkeypatch.setattr(socket_manners, "_QUICKACK", None)
    with raw_peer(split_writer) as port:
        assert count_find_stalls(peer_at(port), study_query) >= MANY


@linux
def test_quick_acknowledgements_are_armed_again_after_each_send_and_receive(peer_at, study_query, monkeypatch):
    armed = []
    original = socket_manners.quick_ack

    def recording(event):
        armed.append(event.event.name)
        original(event)

    monkeypatch.setattr(socket_manners, "quick_ack", recording)
    with raw_peer(split_writer) as port:
        peer = peer_at(port)
        with associate(peer, contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND") as association:
            list(iter_matches(association, uids.STUDY_ROOT_FIND, study_query))
    assert {"EVT_CONN_OPEN", "EVT_DATA_SENT", "EVT_DATA_RECV"} <= set(armed)


def test_a_requestor_sends_without_delay(scp, peer_at):
    port = scp()
    with associate(peer_at(port), contexts.verification(), step="C-ECHO") as association:
        raw = association.assoc.dul.socket.socket
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        echo(association)


def test_an_acceptor_sends_without_delay(scp, peer_at):
    options = []
    seen = threading.Event()

    def look(event):
        raw = event.assoc.dul.socket.socket
        options.append(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        seen.set()

    port = scp([*socket_manners.handlers(), (evt.EVT_ACCEPTED, look)])
    with associate(peer_at(port), contexts.verification(), step="C-ECHO"):
        assert seen.wait(5)
    assert options == [1]


@pytest.mark.parametrize("asks", [True, False], ids=["associated", "without a word"])
def test_an_acceptor_closes_a_connection_that_its_peer_has_reset(scp, asks):
    """A reset connection cannot be shut down, and pynetdicom leaves it then to the garbage collector."""
    sockets = []
    opened, closed = threading.Event(), threading.Event()

    def look(event):
        sockets.append(event.assoc.dul.socket.socket)
        opened.set()

    port = scp(
        [*socket_manners.handlers(), (evt.EVT_CONN_OPEN, look), (evt.EVT_CONN_CLOSE, lambda event: closed.set())]
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        if asks:
            assert RawClient(connection).associate().end == "final"
        assert opened.wait(5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert closed.wait(5)
    # The event comes right after pynetdicom has closed what it could.
    assert sockets[0].fileno() == -1


def test_a_connection_that_is_gone_does_no_harm(scp):
    port = scp()
    ae = AE()
    ae.add_requested_context(uids.VERIFICATION)
    assoc = ae.associate("127.0.0.1", port, evt_handlers=list(socket_manners.handlers()))
    raw = assoc.dul.socket.socket
    assoc.release()

    class Wrapped:
        socket = raw

    class Dul:
        socket = Wrapped

    class Assoc:
        dul = Dul

    class Event:
        assoc = Assoc

    socket_manners.no_delay(Event)
    socket_manners.quick_ack(Event)
    Dul.socket = None
    socket_manners.quick_ack(Event)
