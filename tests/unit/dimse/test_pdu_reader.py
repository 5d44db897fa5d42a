"""PDUs out of a connection: what may be waited for, and how they are found in one buffer."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.raw_peer import _pdu
from support.store_client import COMMAND, DATA, LAST, associate_rq, item, message, pdu, store_command

from airflow_provider_varian.dimse import connection as connections
from airflow_provider_varian.dimse import pdu_reader
from airflow_provider_varian.dimse.bounds import Bounds, MalformedError
from airflow_provider_varian.dimse.connection import Connection
from airflow_provider_varian.dimse.incoming import Incoming
from airflow_provider_varian.dimse.pdu_reader import PduReader


class Messages:
    def __init__(self):
        self.whole, self._data = [], b""

    def begin(self, context_id, command):
        self._data = b""

    def data(self, piece):
        self._data += bytes(piece)

    def end(self):
        self.whole.append(self._data)


@pytest.fixture
def wire():
    """A reader, the other end of what it reads, and where messages go."""
    ours, theirs = socket.socketpair()
    messages = Messages()
    connection = Connection(ours)
    bounds = Bounds(read_seconds=1.0)
    with ours, theirs:
        yield PduReader(connection, bounds, Incoming(bounds, messages)), theirs, messages
    connection.close_bell()


def read(reader, **options):
    while reader.fill():
        pass
    return reader.next(**({"accepted": True, "longest_data": 16384} | options))


def test_pdus_are_handed_out_whole_and_data_goes_on(wire):
    reader, peer, messages = wire
    release = _pdu(5, bytes(4))
    peer.sendall(message(store_command(), b"object") + release + release)
    assert read(reader) == release
    assert messages.whole == [b"object"]
    assert reader.next(accepted=True, longest_data=0) == release
    assert reader.next(accepted=True, longest_data=0) is None
    assert reader.pdus == 4
    assert not reader.has_begun


def test_nothing_is_handed_out_before_it_is_whole(wire):
    reader, peer, _ = wire
    request = associate_rq()
    for byte in request[:-1]:
        peer.sendall(bytes([byte]))
        assert read(reader, accepted=False) is None
    peer.sendall(request[-1:])
    assert read(reader, accepted=False) == request


@pytest.mark.parametrize("size", [20_000, 200_000, 256 * 1024])
def test_the_longest_pdus_fit_wherever_they_begin(wire, size):
    """What is unread moves to the front of the buffer when there is no room behind it."""
    reader, peer, _ = wire
    long = struct.pack(">BBI", 1, 0, size) + bytes(range(250)) * (size // 250) + bytes(size % 250)
    said, found = long * 5, []
    for start in range(0, len(said), 7_000):
        peer.sendall(said[start : start + 7_000])
        if (pdu := read(reader, accepted=False)) is not None:
            found.append(pdu)
    assert found == [long] * 5
    assert len(reader._buffer) <= max(16 * 1024, len(long))


def test_a_head_that_is_cut_by_the_end_of_the_buffer_is_whole_with_the_next_bytes(wire, monkeypatch):
    monkeypatch.setattr(pdu_reader, "BUFFER_BYTES", 1)
    reader, peer, messages = wire
    content = bytes(range(250)) * 20
    wire_bytes = pdu(item(COMMAND | LAST, store_command()))
    wire_bytes += b"".join(pdu(item(DATA, content[at : at + 1])) for at in range(len(content)))
    wire_bytes += pdu(item(DATA | LAST, b""))
    for start in range(0, len(wire_bytes), 10_000):
        peer.sendall(wire_bytes[start : start + 10_000])
        while reader.fill():
            reader.next(accepted=True, longest_data=16384)
    assert messages.whole == [content]
    assert len(reader._buffer) == 16 * 1024


def test_patience_ends_with_what_was_waited_for_one_pdu(wire):
    reader, peer, _ = wire
    assert reader.patience == float("inf")
    reader.note_wait(10)
    begun = pdu(item(COMMAND | LAST, store_command()))
    peer.sendall(begun[:3])
    read(reader)
    assert reader.patience == 1.0
    reader.note_wait(0.6)
    peer.sendall(begun[3:-1])
    read(reader)
    assert reader.patience == pytest.approx(0.4), "more of the same PDU is no new one"
    reader.note_wait(0.4)
    assert reader.patience <= 0
    peer.sendall(begun[-1:])
    read(reader)
    assert reader.patience == 1.0, "within a message the next PDU is waited for as long"
    reader.note_wait(0.7)
    peer.sendall(pdu(item(DATA, b"x")))
    read(reader)
    assert reader.patience == 1.0
    peer.sendall(pdu(item(DATA | LAST, b"x")))
    read(reader)
    assert reader.patience == float("inf")


@pytest.mark.parametrize(
    ("head", "options"),
    [
        (struct.pack(">BBI", 4, 0, 16385), {}),
        (struct.pack(">BBI", 5, 0, 64 * 1024 + 1), {}),
        (struct.pack(">BBI", 5, 0, 3), {}),
        (struct.pack(">BBI", 8, 0, 4), {}),
        (struct.pack(">BBI", 0, 0, 4), {}),
        (struct.pack(">BBI", 1, 0, 256 * 1024 + 1), {"accepted": False}),
        (struct.pack(">BBI", 4, 0, 20), {"accepted": False}),
    ],
)
def test_a_head_is_enough_to_refuse_a_pdu(wire, head, options):
    reader, peer, _ = wire
    peer.sendall(head)
    with pytest.raises(MalformedError):
        read(reader, **options)


def test_data_may_be_as_long_as_it_likes_when_no_limit_was_announced(wire):
    reader, peer, _ = wire
    peer.sendall(pdu(item(COMMAND | LAST, store_command())) + struct.pack(">BBI", 4, 0, 0xFFFFFFFF))
    assert read(reader, longest_data=0) is None
    assert reader.has_begun


def test_the_end_of_the_connection_is_not_nothing(wire):
    reader, peer, _ = wire
    assert reader.fill() is None
    peer.close()
    assert reader.fill() == 0


def test_a_buffer_is_as_large_as_what_the_peer_may_say(wire):
    reader, peer, _ = wire
    assert len(reader._buffer) == 0
    peer.sendall(b"\1\0\0")
    read(reader, accepted=False)
    assert len(reader._buffer) == 16 * 1024
    peer.sendall(b"\0\0\4abcd" + pdu(item(COMMAND | LAST, store_command())))
    assert read(reader, accepted=False) is not None
    read(reader)
    peer.sendall(pdu(item(DATA, b"x")))
    read(reader)
    assert len(reader._buffer) == pdu_reader.BUFFER_BYTES
    reader.close()
    assert len(reader._buffer) == 0


@pytest.fixture
def reads():
    """Runs reads in a thread of their own, which may hang."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit


def test_a_read_waits_for_what_is_expected_and_for_nothing_else(monkeypatch, reads):
    monkeypatch.setattr(connections, "_TIMEVAL", struct.pack("ll", 60, 0))
    ours, theirs = socket.socketpair()
    view = memoryview(bytearray(10))
    with theirs:
        connection = Connection(ours)
        try:
            assert reads(connection.receive_into, view).result(5) is None
            expecting = reads(connection.receive_into, view, expected=True)
            with pytest.raises(TimeoutError):
                expecting.result(0.1)
            theirs.sendall(b"object")
            assert expecting.result(5) == 6
        finally:
            # Whatever hangs is woken.
            ours.shutdown(socket.SHUT_RDWR)
            connection.close_bell()
            ours.close()


def test_nobody_waits_for_long_for_what_is_expected_and_does_not_come(wire, reads):
    reader, peer, _ = wire
    expecting = reads(reader.fill, expected=True)
    try:
        assert expecting.result(5) is None
    finally:
        peer.shutdown(socket.SHUT_RDWR)


def test_what_came_is_acknowledged_at_once_unless_an_answer_does(wire, monkeypatch):
    """A peer that leaves Nagle's algorithm on waits for it (performance 1)."""
    reader, peer, _ = wire
    connection, acknowledged = reader._connection, []
    monkeypatch.setattr(connections.socket_manners, "acknowledge_at_once", acknowledged.append)
    peer.sendall(b"\4\0\0")
    reader.fill()
    connection.wait(0, bool)
    connection.wait(0, bool)
    assert len(acknowledged) == 1
    peer.sendall(b"\0\0\x10")
    reader.fill()
    connection.send(b"answer", 1, bool)
    connection.wait(0, bool)
    assert len(acknowledged) == 1
