"""A spoilt socket, between two real ones."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress

import pytest
from pynetdicom.pdu_primitives import P_DATA

from airflow_provider_varian.simulator.daemon import harm
from airflow_provider_varian.simulator.daemon.faults import Kind

A_ABORT = bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0))


@contextmanager
def connected(*, receive_buffer=0):
    """Yield both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.socket()
        if receive_buffer:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        near.connect(server.getsockname())
        far, _ = server.accept()
    with near, far:
        near.settimeout(10)
        far.settimeout(10)
        yield far, near


def read_all(near):
    """Return what comes, and how it ends."""
    data = b""
    try:
        while piece := near.recv(65536):
            data += piece
    except ConnectionResetError:
        return data, "reset"
    return data, "closed"


def pdu(length, kind=4):
    return struct.pack(">BBI", kind, 0, length) + bytes(length)


def test_a_reset_lets_what_was_sent_arrive_first():
    content = bytes(range(256)) * 400
    with connected(receive_buffer=4096) as (far, near):
        far.sendall(content)
        ending = threading.Thread(target=harm.reset, args=(far,))
        ending.start()
        assert read_all(near) == (content, "reset")
        ending.join(10)


@pytest.mark.parametrize("count", [0, 1, 106, 107, 109, 111, 112, 150, 212])
@pytest.mark.parametrize("slice_size", [1, 5, 64, 1000])
def test_an_abort_comes_at_the_end_of_a_pdu_whoever_slices_it(count, slice_size):
    stream = pdu(100) + pdu(100) + pdu(100)
    whole = next(end for end in (0, 106, 212, 318) if end >= count)
    with connected() as (far, near):
        spoilt = harm.SpoiltSocket(far, threading.Event())
        spoilt.limit(count, Kind.ABORT)
        with suppress(ConnectionAbortedError):
            for start in range(0, len(stream), slice_size):
                spoilt.sendall(stream[start : start + slice_size])
        assert read_all(near) == (stream[:whole] + A_ABORT, "closed")


@pytest.mark.parametrize("count", [1, 106])
def test_an_abort_comes_at_the_end_of_the_last_pdu_too(count):
    with connected() as (far, near):
        spoilt = harm.SpoiltSocket(far, threading.Event())
        spoilt.limit(count, Kind.ABORT)
        with pytest.raises(ConnectionAbortedError):
            spoilt.sendall(pdu(100))
        assert read_all(near) == (pdu(100) + A_ABORT, "closed")


def test_buffers_are_sent_in_their_order_and_counted_together():
    with connected() as (far, near):
        spoilt = harm.SpoiltSocket(far, threading.Event())
        spoilt.limit(5, Kind.CLOSE)
        assert spoilt.sendmsg([b"abc", memoryview(b"defg")]) == 5
        with pytest.raises(ConnectionAbortedError):
            spoilt.sendmsg([b"fg"])
        assert read_all(near) == (b"abcde", "closed")


@pytest.mark.parametrize("aside", [[], [pdu(10)], [pdu(10, kind=6)]], ids=["nothing", "streamed", "no data"])
def test_half_is_of_what_comes_after_all_that_was_to_be_sent(aside):
    """What is streamed past pynetdicom's thread, and what holds no data, is not among what that has to send."""
    with connected() as (far, near):
        spoilt = harm.SpoiltSocket(far, threading.Event())
        for data in aside:
            spoilt.sendmsg([data[:8], data[8:]]) if data[0] == 4 else spoilt.sendall(data)
        queue = []
        spoilt.expect(queue.append, P_DATA())
        halving = threading.Thread(target=spoilt.halve)
        halving.start()
        halving.join(0.1)
        assert halving.is_alive(), "there is something to be sent"
        spoilt.sendall(pdu(20))
        halving.join(10)
        spoilt.sendall(pdu(30))
        far.close()
        assert read_all(near) == (b"".join(aside) + pdu(20) + pdu(30)[:18], "closed")


def test_the_end_of_the_daemon_ends_a_stall():
    stopping = threading.Event()
    with connected() as (far, _):
        spoilt = harm.SpoiltSocket(far, stopping)
        spoilt.limit(0, Kind.STALL, seconds=60.0)
        stopping.set()
        with pytest.raises(ConnectionAbortedError):
            spoilt.sendall(b"abc")


def test_who_lets_go_ends_a_stall_and_what_comes_then_is_not_held_up():
    with connected() as (far, near):
        spoilt = harm.SpoiltSocket(far, threading.Event())
        spoilt.limit(0, Kind.STALL, seconds=60.0)
        ended = []

        def send():
            try:
                spoilt.sendall(b"abc")
            except ConnectionAbortedError as error:
                ended.append(error)

        sending = threading.Thread(target=send)
        sending.start()
        spoilt.let_go()
        sending.join(20)
        assert len(ended) == 1
        spoilt.slow(1)
        spoilt.sendall(A_ABORT)
        assert near.recv(100) == A_ABORT
