"""Faults on the association on which a C-MOVE sends, as a receiver of bare sockets sees them."""

from __future__ import annotations

import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from support.ports import wait_until
from support.raw_peer import C_STORE_RQ, RSP, Closed, build_command, parse_command, raw_peer
from support.simulated import trusted

from airflow_provider_varian.errors import AssociationAbortedError
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind, Step

LARGEST_PDU = 4096
#: Somewhere in the third object, which is more than 8 kB long, and at no end of a PDU.
BYTES = 5000


@dataclass
class Heard:
    """What a receiver heard: whole objects, then bytes of an unfinished one, then the end."""

    objects: list[str] = field(default_factory=list)
    unfinished: int = 0
    end: str = ""
    seconds: list[float] = field(default_factory=list)


@contextmanager
def listening(max_pdu=LARGEST_PDU):
    """Receive with bare sockets, one association after the other; yields port and what is heard."""
    heard = []

    def play(wire):
        one = Heard()
        heard.append(one)
        wire.accept(max_pdu=max_pdu)
        try:
            listen(wire, one)
        except Closed:
            one.end = "closed"
        except ConnectionError:
            one.end = "reset"

    with raw_peer(play) as port:
        yield port, heard


def listen(wire, heard):
    while True:
        start, instance, whole = time.monotonic(), "", False
        while not whole:
            head = take(wire, heard, 6)
            kind, _, length = struct.unpack(">BBI", head)
            if kind == 5:
                wire.socket.sendall(b"\x06\0\0\0\0\4\0\0\0\0")
                heard.unfinished, heard.end = 0, "released"
                return
            if kind == 7:
                heard.unfinished -= 6
                heard.end = "abort"
                return
            body = take(wire, heard, length)
            _, context, flags = struct.unpack(">IBB", body[:6])
            if flags & 1:
                command = parse_command(body[6:])
                assert command["command"] == C_STORE_RQ
                instance = command["affected_instance"]
            whole = flags == 2
        heard.objects.append(instance)
        heard.seconds.append(time.monotonic() - start)
        heard.unfinished = 0
        answer = build_command(
            affected_class=command["affected_class"], command=C_STORE_RQ | RSP, responds_to=command["message_id"],
            data_set=0x0101, status=0, affected_instance=instance,
        )  # fmt: skip
        wire.socket.sendall(struct.pack(">BBIIBB", 4, 0, len(answer) + 6, len(answer) + 2, context, 3) + answer)


def take(wire, heard, count):
    data = b""
    while len(data) < count:
        piece = wire.socket.recv(count - len(data))
        if not piece:
            raise Closed
        heard.unfinished += len(piece)
        data += piece
    return data


@pytest.fixture
def heard(daemon):
    with listening() as (port, found):
        daemon.trust([trusted(port)])
        yield found


def ended(heard, number=0):
    wait_until(lambda: len(heard) > number and heard[number].end, what="the end of the association")
    return heard[number]


def test_without_a_fault_all_is_heard(client, heard, series, wanted):
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed) == (0x0000, 10)
    one = ended(heard)
    assert (one.objects, one.end) == (wanted, "released")


@pytest.mark.fault("abort")
@pytest.mark.fault("reset")
@pytest.mark.fault("close")
@pytest.mark.parametrize(("kind", "end"), [(Kind.ABORT, "abort"), (Kind.RESET, "reset"), (Kind.CLOSE, "closed")])
@pytest.mark.parametrize("count", [0, BYTES])
def test_an_object_is_cut_off_after_so_many_bytes(daemon, client, heard, series, wanted, kind, end, count):
    daemon.faults.arm(Fault(kind=kind, step=Step.OBJECT, at=3, bytes=count))
    report = client.move("SERIES", SeriesInstanceUID=series)
    one = ended(heard)
    assert (one.objects, one.end) == (wanted[:2], end)
    if kind is Kind.ABORT:
        assert one.unfinished - LARGEST_PDU < count <= one.unfinished, "at the end of a PDU"
    else:
        assert one.unfinished == count
    assert (report.status, report.completed, report.failed) == (0xB000, 2, 8)
    assert list(report.failed_sop_instance_uids) == wanted[2:]
    again = client.move("SERIES", SeriesInstanceUID=series)
    assert (again.status, again.completed) == (0x0000, 10), "it strikes once"


@pytest.mark.fault("abort")
def test_a_fault_beyond_the_end_of_an_object_does_not_strike_the_next(daemon, client, heard, series):
    daemon.faults.arm(Fault(kind=Kind.ABORT, step=Step.OBJECT, at=2, bytes=20_000))
    assert client.move("SERIES", SeriesInstanceUID=series).completed == 10
    assert ended(heard).end == "released"


@pytest.mark.fault("abort")
def test_an_object_of_one_pdu_is_struck_at_its_end(daemon, client, wanted):
    with listening(max_pdu=0) as (port, heard):
        daemon.trust([trusted(port)])
        daemon.faults.arm(Fault(kind=Kind.ABORT, step=Step.OBJECT, at=1, bytes=BYTES))
        report = client.move("IMAGE", SOPInstanceUID=wanted[0])
        assert (report.status, report.completed, report.failed) == (0xA702, 0, 1)
        one = ended(heard)
        assert (one.objects, one.end) == (wanted[:1], "abort"), "the object is whole, its answer comes too late"


@pytest.mark.fault("restart")
def test_a_restart_does_not_wait_for_an_object_that_stalls(daemon, client, heard, series, wanted):
    daemon.faults.arm(Fault(kind=Kind.STALL, step=Step.OBJECT, at=3, bytes=BYTES, seconds=600.0))
    reports = []

    def move():
        try:
            reports.append(client.move("SERIES", SeriesInstanceUID=series))
        except AssociationAbortedError as error:
            reports.append(error)

    moving = threading.Thread(target=move)
    moving.start()
    wait_until(lambda: heard and heard[0].objects == wanted[:2] and heard[0].unfinished == BYTES, what="the stall")
    restarting = threading.Thread(target=daemon.restart, args=(0.0,))
    restarting.start()
    restarting.join(30)
    assert not restarting.is_alive(), "it would wait for as long as a transaction may take"
    moving.join(20)
    assert isinstance(reports[0], AssociationAbortedError)
    assert ended(heard).objects == wanted[:2]
    wait_until(lambda: not daemon.counts["outgoing_open"], what="the end of the association")


@pytest.mark.fault("stall")
def test_an_object_stalls_in_the_middle_and_then_goes_on(daemon, client, heard, series):
    daemon.faults.arm(Fault(kind=Kind.STALL, step=Step.OBJECT, at=3, bytes=BYTES, seconds=3.0))
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed) == (0x0000, 10)
    late = [number for number, seconds in enumerate(ended(heard).seconds, start=1) if seconds >= 3.0]
    assert late == [3]


@pytest.mark.fault("stall")
@pytest.mark.quirk(20, "transaction_seconds")
def test_an_object_that_stalls_longer_than_a_transaction_is_cut_off(daemon, client, heard, habit, series):
    habit(transaction_seconds=3)
    daemon.faults.arm(Fault(kind=Kind.STALL, step=Step.OBJECT, at=3, bytes=BYTES, seconds=60.0))
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed, report.failed) == (0xB000, 2, 8)
    assert (len(ended(heard).objects), heard[0].unfinished) == (2, BYTES)


@pytest.mark.fault("slow")
def test_objects_come_slowly(daemon, client, heard, wanted):
    daemon.faults.arm(Fault(kind=Kind.SLOW, step=Step.OBJECT, at=2, bytes_per_second=25_000))
    assert client.move("IMAGE", SOPInstanceUID=wanted[:3]).completed == 3
    first, *slow = ended(heard).seconds
    assert min(slow) > max(0.2, first), "8 kB at 25 kB/s, from the second on"


@pytest.mark.fault("unreachable")
def test_the_daemon_never_connects(daemon, client, heard, series, wanted):
    daemon.faults.arm(Fault(kind=Kind.UNREACHABLE, step=Step.OUTGOING, seconds=0.1, times=2))
    for _ in range(2):
        began = time.monotonic()
        report = client.move("SERIES", SeriesInstanceUID=series)
        assert time.monotonic() - began >= 0.1
        assert (report.status, report.completed, report.failed) == (0xA702, 0, 10)
        assert list(report.failed_sop_instance_uids) == wanted
    assert heard == []
    assert daemon.counts["outgoing"] == 0
    assert client.move("SERIES", SeriesInstanceUID=series).completed == 10


@pytest.mark.fault("stall")
def test_the_daemon_takes_its_time_before_it_connects(daemon, client, heard, series):
    daemon.faults.arm(Fault(kind=Kind.STALL, step=Step.OUTGOING, seconds=0.3))
    start = time.monotonic()
    assert client.move("SERIES", SeriesInstanceUID=series).completed == 10
    assert time.monotonic() - start >= 0.3
