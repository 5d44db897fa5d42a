"""Faults of the simulated daemon, each on the wire as a client of bare sockets sees it."""

from __future__ import annotations

import time
from contextlib import nullcontext

import pytest
from support.ports import wait_until
from support.raw_client import raw_client
from support.simulated import Client, CountingSink, identifier, peer_of

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.echo import echo_peer
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    ConfigurationError,
    OutOfResourcesError,
    PeerTimeoutError,
    TransientRejectionError,
)
from airflow_provider_varian.simulator.daemon.faults import FAULT_KINDS, Fault, Kind, Step

ENDS = [(Kind.ABORT, "abort"), (Kind.RESET, "reset"), (Kind.CLOSE, "closed")]
#: Where in a C-FIND of ten rows, and how many come before.
IN_A_QUERY = [(Step.REQUEST, 1, 0), (Step.ROW, 3, 3), (Step.FINAL, 1, 10)]
#: Where in a C-MOVE of ten objects, how many pending responses come before, and how many objects.
IN_A_MOVE = [
    (Step.REQUEST, 1, 0, 0),
    (Step.BEFORE_SUBOPERATION, 3, 2, 2),
    (Step.AFTER_SUBOPERATION, 3, 2, 3),
    (Step.FINAL, 1, 9, 10),
]
COUNTERS = {"completed", "failed", "warning"}


@pytest.fixture
def ask(daemon, series):
    """Ask for ten rows or ten objects with bare sockets."""

    def send(service, patience=10.0):
        with raw_client(daemon, patience=patience) as client:
            told = client.associate()
            if told.end != "final":
                return told
            if service == "C-FIND":
                return client.ask(uids.STUDY_ROOT_FIND, identifier("IMAGE", SeriesInstanceUID=series))
            keys = identifier("SERIES", SeriesInstanceUID=series)
            told = client.ask(uids.STUDY_ROOT_MOVE, keys, destination="AIRFLOW")
            told.rest = client.drain() if told.end in ("reset", "closed", "abort") else b""
            return told

    return send


@pytest.mark.fault("abort")
@pytest.mark.fault("reset")
@pytest.mark.fault("close")
@pytest.mark.parametrize(("kind", "end"), ENDS)
@pytest.mark.parametrize(("step", "at", "rows"), IN_A_QUERY)
def test_a_query_ends_where_it_shall_and_how(daemon, ask, kind, end, step, at, rows):
    daemon.faults.arm(Fault(kind=kind, step=step, at=at))
    told = ask("C-FIND")
    assert (told.end, told.pending) == (end, rows)
    again = ask("C-FIND")
    assert (again.end, again.pending) == ("final", 10), "it strikes once"
    assert daemon.counts["faults"] == 1


@pytest.mark.fault("abort")
@pytest.mark.fault("reset")
@pytest.mark.fault("close")
@pytest.mark.parametrize(("kind", "end"), ENDS)
@pytest.mark.parametrize(("step", "at", "pending", "objects"), IN_A_MOVE)
def test_a_move_ends_where_it_shall_and_how(daemon, ask, receiver, kind, end, step, at, pending, objects):
    daemon.faults.arm(Fault(kind=kind, step=step, at=at))
    told = ask("C-MOVE")
    assert (told.end, told.pending, len(receiver.stored)) == (end, pending, objects)
    if objects:
        assert receiver.ended.wait(10), "the association to the receiver ends too"


@pytest.mark.fault("abort")
@pytest.mark.fault("reset")
@pytest.mark.fault("close")
@pytest.mark.parametrize(("kind", "end"), ENDS)
def test_an_association_ends_before_it_begins(daemon, ask, kind, end):
    daemon.faults.arm(Fault(kind=kind, step=Step.ASSOCIATION, at=2, times=2))
    assert [ask("C-FIND").end for _ in range(5)] == ["final", end, end, "final", "final"]
    wait_until(lambda: not daemon.counts["open"])
    assert daemon.counts["lost"] == 2


@pytest.mark.fault("reset")
@pytest.mark.fault("close")
@pytest.mark.parametrize(("kind", "end"), ENDS[1:])
def test_a_connection_ends_before_a_word(daemon, ask, kind, end):
    daemon.faults.arm(Fault(kind=kind, step=Step.CONNECT))
    with raw_client(daemon) as client:
        told = client.listen()
    assert told.end == end
    assert ask("C-FIND").end == "final"


@pytest.mark.fault("reject")
@pytest.mark.parametrize("reason", ["2/3/2", "2/3/1", "1/1/1", "1/1/7", "2/2/2"])
def test_an_association_is_rejected_with_the_reason_that_was_asked_for(daemon, ask, reason):
    daemon.faults.arm(Fault(kind=Kind.REJECT, step=Step.ASSOCIATION, reason=reason))
    told = ask("C-FIND")
    assert (told.end, told.reason) == ("reject", tuple(int(part) for part in reason.split("/")))
    assert daemon.counts["rejected"] == 1
    assert ask("C-FIND").end == "final"


@pytest.mark.fault("reject")
def test_our_client_takes_local_limit_exceeded_for_something_that_passes(daemon):
    daemon.faults.arm(Fault(kind=Kind.REJECT, step=Step.ASSOCIATION))
    with pytest.raises(TransientRejectionError):
        echo_peer(peer_of(daemon))


@pytest.mark.fault("stall")
@pytest.mark.parametrize("service", ["C-FIND", "C-MOVE"])
@pytest.mark.parametrize("step", [Step.ASSOCIATION, Step.REQUEST, Step.FINAL])
def test_a_stall_is_silence_and_then_it_goes_on(daemon, ask, service, step):
    fault = Fault(kind=Kind.STALL, step=step, seconds=0.9, times=1)
    daemon.faults.arm(fault)
    assert ask(service, patience=0.3).end == "silence"
    daemon.faults.arm(fault)
    start = time.monotonic()
    told = ask(service)
    assert told.end == "final"
    assert told.final["status"] == 0x0000
    assert time.monotonic() - start >= 0.9


@pytest.mark.fault("stall")
@pytest.mark.parametrize(
    ("service", "step", "before"),
    [("C-FIND", Step.ROW, 4), ("C-MOVE", Step.BEFORE_SUBOPERATION, 3), ("C-MOVE", Step.AFTER_SUBOPERATION, 3)],
)
def test_a_stall_in_the_middle_comes_after_what_was_said(daemon, ask, receiver, simulator_log, service, step, before):
    daemon.faults.arm(Fault(kind=Kind.STALL, step=step, at=4, seconds=60.0))
    told = ask(service, patience=0.6)
    assert (told.end, told.pending) == ("silence", before)
    wait_until(
        lambda: f"A {service} ended with its association" in simulator_log.text, what="it to notice that nobody waits"
    )


@pytest.mark.fault("stall")
def test_a_stall_does_not_hold_up_the_end_of_the_daemon(daemon):
    for step in (Step.REQUEST, Step.ASSOCIATION):
        daemon.faults.arm(Fault(kind=Kind.STALL, step=step, seconds=60.0, at=1 if step is Step.REQUEST else 2))
    with raw_client(daemon) as first, raw_client(daemon, patience=0.2) as second:
        assert first.associate().end == "final"
        first.socket.settimeout(0.2)
        assert first.ask(uids.STUDY_ROOT_FIND, identifier("STUDY", PatientID="QA_TB_WL")).end == "silence"
        assert second.associate().end == "silence"
        start = time.monotonic()
        daemon.stop()
        assert time.monotonic() - start < 10


@pytest.mark.fault("slow")
def test_responses_come_late_one_by_one(daemon, ask):
    daemon.faults.arm(Fault(kind=Kind.SLOW, step=Step.ROW, at=5, seconds=0.05))
    start = time.monotonic()
    told = ask("C-FIND")
    assert (told.end, told.pending) == ("final", 10)
    assert time.monotonic() - start >= 6 * 0.05, "five rows and the final response"


@pytest.mark.fault("slow")
def test_responses_come_at_so_many_bytes_per_second(daemon, ask, series):
    daemon.faults.arm(Fault(kind=Kind.SLOW, step=Step.REQUEST, bytes_per_second=8000))
    start = time.monotonic()
    assert ask("C-FIND").pending == 10
    assert time.monotonic() - start > 0.15, "some 2 kB at 8 kB/s"


@pytest.mark.fault("half")
@pytest.mark.parametrize(("service", "step", "at", "whole"), [
    ("C-FIND", Step.REQUEST, 1, 0),
    ("C-FIND", Step.ROW, 3, 3),
    ("C-FIND", Step.FINAL, 1, 10),
    ("C-MOVE", Step.AFTER_SUBOPERATION, 3, 2),
    ("C-MOVE", Step.FINAL, 1, 9),
])  # fmt: skip
def test_half_a_response_is_followed_by_silence_and_an_end(daemon, series, service, step, at, whole):
    daemon.faults.arm(Fault(kind=Kind.HALF, step=step, at=at, seconds=0.3))
    with raw_client(daemon) as client:
        client.associate()
        model, level = (uids.STUDY_ROOT_FIND, "IMAGE") if service == "C-FIND" else (uids.STUDY_ROOT_MOVE, "SERIES")
        received = bytearray()
        keep(client, received)
        destination = "" if service == "C-FIND" else "AIRFLOW"
        start = time.monotonic()
        told = client.ask(model, identifier(level, SeriesInstanceUID=series), destination=destination)
        assert time.monotonic() - start >= 0.3
    assert (told.end, told.pending) == ("closed", whole)
    assert 0 < unfinished(bytes(received)) < 0x10000, "a PDU has begun that never ends"


def keep(client, received):
    """Note what a client reads, byte by byte."""
    stock = client.wire.socket.recv

    class Noting:
        def recv(self, count):
            data = stock(count)
            received.extend(data)
            return data

        def __getattr__(self, name):
            return getattr(client.socket, name)

    client.wire.socket = Noting()


def unfinished(data):
    """Return how many bytes of a last, unfinished PDU there are."""
    while len(data) >= 6:
        end = 6 + int.from_bytes(data[2:6], "big")
        if len(data) < end:
            break
        data = data[end:]
    return len(data)


@pytest.mark.fault("status")
@pytest.mark.parametrize(("step", "at", "rows"), IN_A_QUERY)
@pytest.mark.parametrize("status", [0xA700, 0x0110])
def test_a_query_ends_with_the_status_that_was_asked_for(daemon, ask, step, at, rows, status):
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=step, at=at, status=status))
    told = ask("C-FIND")
    assert (told.final["status"], told.pending) == (status, rows)


@pytest.mark.fault("status")
@pytest.mark.parametrize(("step", "at", "pending", "objects"), IN_A_MOVE)
@pytest.mark.parametrize("status", [0xA701, 0xA702])
def test_a_move_runs_out_of_resources(daemon, ask, receiver, step, at, pending, objects, status):
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=step, at=at, status=status))
    told = ask("C-MOVE")
    assert (told.final["status"], told.pending, len(receiver.stored)) == (status, pending, objects)
    assert told.final["completed"] == objects
    assert told.final["failed"] == (0 if step is Step.REQUEST else 10 - objects)


@pytest.mark.fault("status")
def test_our_client_takes_a700_for_something_that_passes(daemon, client, series):
    daemon.faults.arm(Fault(kind=Kind.STATUS, step=Step.ROW, at=2))
    with pytest.raises(OutOfResourcesError):
        client.find("IMAGE", SeriesInstanceUID=series)
    assert len(client.find("IMAGE", SeriesInstanceUID=series)) == 10


@pytest.mark.fault("no-status")
@pytest.mark.parametrize(("service", "step", "at"), [
    ("C-FIND", Step.REQUEST, 1),
    ("C-FIND", Step.ROW, 3),
    ("C-FIND", Step.FINAL, 1),
    ("C-MOVE", Step.AFTER_SUBOPERATION, 2),
    ("C-MOVE", Step.FINAL, 1),
])  # fmt: skip
def test_a_response_has_no_status(daemon, ask, service, step, at):
    daemon.faults.arm(Fault(kind=Kind.NO_STATUS, step=step, at=at))
    told = ask(service, patience=0.3 if step is Step.FINAL else 10.0)
    without = [number for number, each in enumerate(told.responses) if "status" not in each]
    assert without == [{Step.REQUEST: 0, Step.ROW: 3, Step.AFTER_SUBOPERATION: 1}.get(step, len(told.responses) - 1)]
    assert told.end == ("silence" if step is Step.FINAL else "final")


@pytest.mark.fault("no-counters")
def test_a_final_response_has_no_counters(daemon, ask):
    assert ask("C-MOVE").final.keys() >= COUNTERS
    daemon.faults.arm(Fault(kind=Kind.NO_COUNTERS, step=Step.FINAL, service="C-MOVE"))
    told = ask("C-MOVE")
    assert COUNTERS.isdisjoint(told.final)
    assert told.final["status"] == 0x0000


@pytest.mark.fault("restart")
@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("step", [Step.ASSOCIATION, Step.REQUEST, Step.AFTER_SUBOPERATION])
def test_the_daemon_restarts_in_the_middle_of_something(daemon, ask, receiver, refuses, step):
    daemon.faults.arm(Fault(kind=Kind.RESTART, step=step, seconds=0.5, refuses=refuses))
    began = time.monotonic()
    assert ask("C-MOVE").end == "abort"
    assert len(receiver.stored) == (1 if step is Step.AFTER_SUBOPERATION else 0)
    if refuses:
        with pytest.raises(ConnectionRefusedError):
            ask("C-FIND")
    else:
        assert ask("C-FIND").end == "abort"

    def works():
        try:
            return ask("C-FIND").end == "final"
        except OSError:
            return False

    wait_until(works)
    assert time.monotonic() - began >= 0.5
    assert daemon.counts["restarts"] == 1


@pytest.mark.fault("abort")
@pytest.mark.parametrize(
    ("fault", "error", "objects"),
    [
        (Fault(kind=Kind.ABORT, step=Step.REQUEST), AssociationAbortedError, 0),
        (Fault(kind=Kind.ABORT, step=Step.BEFORE_SUBOPERATION, at=3), AssociationAbortedError, 2),
        (Fault(kind=Kind.RESET, step=Step.AFTER_SUBOPERATION, at=3), AssociationAbortedError, 3),
        (Fault(kind=Kind.CLOSE, step=Step.AFTER_SUBOPERATION, at=3), AssociationAbortedError, 3),
        (Fault(kind=Kind.HALF, step=Step.AFTER_SUBOPERATION, at=3, seconds=0.2), AssociationAbortedError, 3),
        (Fault(kind=Kind.RESTART, step=Step.AFTER_SUBOPERATION, at=3, seconds=0.1), AssociationAbortedError, 3),
        (Fault(kind=Kind.STALL, step=Step.AFTER_SUBOPERATION, at=3, seconds=60.0), PeerTimeoutError, 3),
        (Fault(kind=Kind.STATUS, step=Step.AFTER_SUBOPERATION, at=3, status=0xA702), None, 3),
        (Fault(kind=Kind.SLOW, step=Step.AFTER_SUBOPERATION, at=3, seconds=0.02), None, 10),
    ],
    ids=lambda value: f"{value.kind}-{value.step}" if isinstance(value, Fault) else "",
)
def test_a_get_suffers_as_a_move_does(daemon, habit, series, fault, error, objects):
    habit(get=True)
    daemon.faults.arm(fault)
    sink = CountingSink()
    peer = peer_of(daemon, dimse_timeout=4 if fault.kind is Kind.STALL else 20)
    offered = contexts.get(uids.STUDY_ROOT_GET, [uids.RT_IMAGE])
    expected = nullcontext() if error is None else pytest.raises(error)
    with expected, associate(peer, offered, step="C-GET") as association:
        keys = identifier("SERIES", SeriesInstanceUID=series)
        report = get(association, uids.STUDY_ROOT_GET, keys, sink=sink)
        assert (report.completed, report.failed) == (objects, 10 - objects)
    assert sink.brought == objects
    wait_until(lambda: not daemon.counts["open"])


@pytest.mark.fault("abort")
def test_a_fault_may_be_permanent_and_of_one_service_and_be_forgotten(daemon, ask):
    daemon.faults.arm(Fault(kind=Kind.ABORT, step=Step.REQUEST, service="C-MOVE", times=0))
    assert [ask(service).end for service in ("C-MOVE", "C-FIND", "C-MOVE", "C-MOVE")] == [
        "abort", "final", "abort", "abort",
    ]  # fmt: skip
    assert len(daemon.faults.armed) == 1
    daemon.faults.disarm()
    assert ask("C-MOVE").end == "final"


def test_faults_of_one_step_strike_one_after_the_other(daemon, ask):
    daemon.faults.arm(
        Fault(kind=Kind.ABORT, step=Step.REQUEST),
        Fault(kind=Kind.STATUS, step=Step.REQUEST, status=0xA700, times=2),
    )
    ends = [ask("C-FIND") for _ in range(4)]
    assert [told.end for told in ends] == ["abort", "final", "final", "final"]
    assert [told.final["status"] for told in ends[1:]] == [0xA700, 0xA700, 0x0000]
    assert daemon.faults.armed == ()


def test_every_kind_strikes_at_every_step_it_names(clinic):
    for kind in FAULT_KINDS:
        for step in Step:
            if step in kind.steps:
                assert Fault(kind=kind.kind, step=step).step is step
            else:
                with pytest.raises(ConfigurationError, match="cannot strike"):
                    Fault(kind=kind.kind, step=step)


def test_a_fault_is_read_as_the_command_line_gives_it():
    fault = Fault.parse("slow@row:at=3, times=0,bytes_per_second=1000,service=C-FIND")
    assert fault == Fault(kind=Kind.SLOW, step=Step.ROW, at=3, times=0, bytes_per_second=1000, service="C-FIND")
    assert Fault.parse("status@final:status=0xA702").status == 0xA702
    assert Fault.parse("reject@association:reason=2/3/1").rejection() == (2, 3, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("abort", "KIND@STEP"),
        ("explode@row", "Kinds: abort"),
        ("abort@lunch", "Steps: connect"),
        ("abort@row:seconds=1", "not a setting of the fault abort"),
        ("abort@row:at=0", "from 1"),
        ("abort@row:at=x", "a whole number"),
        ("half@association", "strikes at request"),
        ("reject@association:reason=no", "result/source/reason"),
        (
            "abort@request:service=N-GET",
            "'N-GET' does not fit service .* one of C-ECHO, C-FIND, C-MOVE, C-GET, C-STORE",
        ),
        ("half@request:service=C-STORE", "one of C-FIND, C-MOVE, C-GET$"),
        ("abort@row:service=C-ECHO", "one of C-FIND$"),
        ("abort@object:service=C-GET", "one of C-MOVE$"),
        ("abort@association:service=C-FIND", "not known there"),
        ("status@final:status=0x10000", "0x10000 does not fit status.*0x0000 to 0xFFFF"),
        ("stall@final:seconds=604801", "604801.* does not fit seconds.*604800"),
        ("reject@association:reason=9/9/9", "'9/9/9' does not fit reason.*Table 9-21"),
        ("reject@association:reason=0/1/1", "result 1 .permanent. or 2"),
        ("reject@association:reason=1/1/4", "reason 1, 2, 3 or 7"),
        ("reject@association:reason=1/2/3", "source 2 or 3 with reason 1 or 2"),
        ("reject@association:reason=2/3", "result/source/reason"),
    ],
)
def test_what_is_no_fault_is_refused_with_what_is(text, words):
    with pytest.raises(ConfigurationError, match=words):
        Fault.parse(text)


def test_a_fault_that_cannot_strike_a_request_is_not_spent_on_it(daemon, ask):
    daemon.faults.arm(Fault(kind=Kind.NO_COUNTERS, step=Step.FINAL))
    assert ask("C-FIND").end == "final"
    assert COUNTERS.isdisjoint(ask("C-MOVE").final)
    assert daemon.counts["faults"] == 1


def test_a_daemon_without_faults_works_through_its_own_sockets(daemon, client, series):
    from airflow_provider_varian.simulator.daemon import harm

    assert len(Client(peer_of(daemon)).find("IMAGE", SeriesInstanceUID=series)) == 10
    assert not any(harm.is_spoilt(assoc) for assoc in daemon._server.active_associations)
