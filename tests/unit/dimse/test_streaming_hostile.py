"""What a peer does wrong ends its association, and nothing else: no fragment, no memory, no other association."""

from __future__ import annotations

import logging
import struct
import threading
import time
import tracemalloc

import pytest
from pynetdicom import evt
from support.ports import wait_until
from support.raw_peer import _item, _pdu, build_command
from support.store_client import (
    ABORT,
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

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import acceptor, library, stream
from airflow_provider_varian.dimse.bounds import Bounds

OBJECT = bytes(range(256)) * 40
BEGUN = pdu(item(COMMAND | LAST, store_command())) + pdu(item(DATA, OBJECT))


@pytest.fixture(scope="module")
def receiver():
    # Patient with the request of an association: on a busy machine a good peer's may be seen late.
    bounds = Bounds(read_seconds=0.4, association_seconds=20.0, message_bytes=50_000, object_bytes=100_000)
    with receiving(bounds, max_pdu=16384) as found:
        yield found


@pytest.fixture(autouse=True)
def others_are_served(receiver):
    """After each of these a good peer stores as ever."""
    receiver.fresh()
    yield
    sink, _ = receiver.fresh()
    with store_client(receiver.port) as client:
        client.associate()
        client.send(message(store_command("1.2.840.1"), OBJECT))
        assert client.answer()["status"] == 0x0000
        client.release()
    assert [data for _, data in sink.objects] == [OBJECT]


GIBIBYTES = struct.pack(">BBI", 4, 0, 0xFFFFFFFF)
HOSTILE = {
    "4 GiB of data": GIBIBYTES,
    "4 GiB of nothing known": struct.pack(">BBI", 0x7F, 0, 0xFFFFFFFF),
    "4 GiB of a release": struct.pack(">BBI", 5, 0, 0xFFFFFFFF),
    "more than announced": pdu(item(COMMAND | LAST, store_command()), item(DATA, bytes(16384))),
    "an unknown PDU": b"GET / HTTP/1.1\r\n\r\n",
    "a second association": associate_rq(),
    "an answer to no request": b"\2" + associate_rq()[1:],
    "a rejection": _pdu(3, bytes(4)),
    "a release of nothing": _pdu(6, bytes(4)),
    "a release that is too short": _pdu(5, b""),
    "an abort that is too short": _pdu(7, b""),
    "a data set first": pdu(item(DATA | LAST, OBJECT)),
    "no item": pdu(),
    "an item that ends outside": _pdu(4, struct.pack(">IBB", 500, 1, 3) + b"x" * 400),
    "an empty command": pdu(item(COMMAND | LAST, b"")),
    "a command of garbage": pdu(item(COMMAND | LAST, b"garbage!" * 9)),
    "a command without end": b"".join(pdu(item(COMMAND, bytes(16000))) for _ in range(5)),
    "an unknown command": pdu(item(COMMAND | LAST, build_command(command=0x4711, message_id=1, data_set=0x0101))),
    "an event report": pdu(item(COMMAND | LAST, build_command(command=0x0100, message_id=1, data_set=0x0101))),
    "a context that was not accepted": message(store_command(), OBJECT, 99),
    "context 0": message(store_command(), OBJECT, 0),
    "an echo with a book": pdu(item(COMMAND | LAST, echo_command().replace(b"\1\1", b"\1\0"), 5))
    + b"".join(pdu(item(DATA, bytes(16000), 5)) for _ in range(5)),
    "a hostile class with a book": pdu(item(COMMAND | LAST, store_command(sop_class="../" * 9)))
    + b"".join(pdu(item(DATA, bytes(16000))) for _ in range(5)),
}
WITHIN = {
    "an empty fragment": pdu(item(DATA, b"")),
    "another context": pdu(item(DATA | LAST, OBJECT, 3)),
    "another command": message(store_command("1.2.3.5"), OBJECT),
    "a command in another context": message(echo_command(), None, 5),
    "4 GiB of data": GIBIBYTES,
    "an unknown PDU": b"\xff" * 20,
    "a second association": associate_rq(),
    "no end": b"".join(pdu(item(DATA, bytes(16000))) for _ in range(20)),
}


@pytest.mark.parametrize("wire", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_association_ends_by_abort(receiver, wire):
    with store_client(receiver.port) as client:
        client.associate()
        client.send(wire)
        assert client.end() == "aborted"
    wait_until(lambda: not receiver.server.active_associations, what="the end of the association")
    assert receiver.sink.requests == []
    assert all(call == ("ended by us", "protocol") for call in receiver.observer.calls)


@pytest.mark.parametrize("uid", ["", "a\\b", "../" * 9, "9" * 65, "1" * 300, "1..2", "\u0661.2"])
def test_a_uid_that_is_none_is_answered(receiver, uid, caplog):
    with store_client(receiver.port) as client:
        client.associate()
        for wire in (message(store_command(uid), OBJECT), message(store_command("1.2.3"), OBJECT)):
            client.send(wire)
            status = client.answer()["status"]
        client.release()
    assert status == 0x0000
    assert [call[2] for call in receiver.observer.calls if call[0] == "not stored"] == [0xC000]
    assert [request.sop_instance_uid for request in receiver.sink.requests] == ["1.2.3"]
    assert not uid or uid not in caplog.text


def test_a_number_of_another_size_ends_the_association_without_a_traceback(receiver, caplog):
    command = store_command().replace(struct.pack("<HHIH", 0, 0x0110, 2, 7), struct.pack("<HHII", 0, 0x0110, 4, 7))
    with store_client(receiver.port) as client:
        client.associate()
        client.send(message(command, OBJECT))
        assert client.end() == "aborted"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("command", [0x8001, 0x8030, 0x0020, 0x0010, 0x0021])
def test_what_a_receiver_is_not_for_ends_the_association(receiver, command):
    with store_client(receiver.port) as client:
        client.associate()
        client.send(pdu(item(COMMAND | LAST, build_command(command=command, message_id=1, data_set=0x0101))))
        assert client.end() == "aborted"


def test_a_peer_that_is_sending_is_not_cut_off_before_it_can_see_the_abort(receiver, monkeypatch):
    """Closed with something unread, a connection is reset, which may take the A-ABORT away from a peer."""
    monkeypatch.setattr(stream, "_LINGER_SECONDS", 20.0)
    monkeypatch.setattr(acceptor, "_END_SECONDS", 30.0)
    with store_client(receiver.port) as client:
        client.associate()
        client.send(GIBIBYTES + bytes(300_000))
        for _ in range(4):
            time.sleep(0.05)
            client.send(bytes(50_000))
        assert client.read()[0] == 7


@pytest.mark.parametrize("wire", WITHIN.values(), ids=WITHIN.keys())
def test_an_association_that_ends_within_an_object_leaves_no_fragment(receiver, wire):
    sink, observer = receiver.fresh()
    with store_client(receiver.port) as client:
        client.associate()
        client.send(BEGUN + wire)
        assert client.end() == "aborted"
    wait_until(lambda: not receiver.server.active_associations, what="the end of the association")
    assert (sink.objects, sink.open, len(sink.requests)) == ([], 0, 1)
    # Of a second association pynetdicom's state machine knows by itself.
    assert observer.calls[1:] in ([("ended by us", "protocol")], [])
    assert observer.calls[0][:3] == ("not stored", "1.2.3.4", None)


@pytest.mark.parametrize("end", [ABORT, RELEASE_RQ, b""], ids=["abort", "release", "cut"])
def test_a_peer_that_ends_it_within_an_object_leaves_no_fragment(receiver, end):
    sink, observer = receiver.fresh()
    with store_client(receiver.port) as client:
        client.associate()
        client.send(BEGUN + end)
    wait_until(lambda: observer.calls, what="the end")
    assert observer.calls == [("not stored", "1.2.3.4", None, "the association ended within it")]
    assert (sink.objects, sink.open) == ([], 0)


def test_a_cut_after_any_byte_leaves_no_fragment(receiver):
    wire = message(store_command(), b"0123456789" * 3)
    for length in range(0, len(wire), 7):
        sink, _ = receiver.fresh()
        with store_client(receiver.port) as client:
            client.associate()
            client.send(wire[:length])
        wait_until(lambda: not receiver.server.active_associations, what="the end of the association")
        assert (sink.objects, sink.open) == ([], 0)


@pytest.mark.parametrize(
    "wire",
    [
        struct.pack(">BBI", 1, 0, 0xFFFFFFFF),
        struct.pack(">BBI", 1, 0, 256 * 1024 + 1),
        struct.pack(">BBI", 4, 0, 100),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        associate_rq(more=_item(0x20, b"\1\0\0\0") * 3),
        _pdu(1, bytes(68)),
        associate_rq(called="   "),
        associate_rq(calling="A\\B"),
        RELEASE_RQ,
        ABORT,
    ],
    ids=[
        "4 GiB",
        "just too long",
        "data",
        "TLS",
        "a context twice",
        "zeros",
        "no called title",
        "a title with a backslash",
        "a release",
        "an abort",
    ],
)
def test_a_connection_ends_that_brings_no_association_request(receiver, wire):
    before = threading.active_count()
    with store_client(receiver.port) as client:
        client.send(wire)
        began = time.monotonic()
        assert client.end() in ("aborted", "closed")
        assert time.monotonic() - began < 5
    wait_until(lambda: threading.active_count() <= before, what="the end of its threads")


def test_a_hundred_thousand_presentation_items_are_not_decoded(receiver):
    body = associate_rq(more=_item(0x20, b"\1\0\0\0") * 32_000)
    with store_client(receiver.port) as client:
        began = time.monotonic()
        client.send(body)
        assert client.end() == "aborted"
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("accepted", [False, True], ids=["before", "after"])
def test_a_claim_of_four_gibibytes_takes_no_memory(receiver, accepted):
    with store_client(receiver.port) as client:
        if accepted:
            client.associate()
        tracemalloc.start()
        client.send((GIBIBYTES if accepted else b"\1" + GIBIBYTES[1:]) + bytes(1000))
        assert client.end() == "aborted"
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
        tracemalloc.stop()


def test_peers_that_begin_and_stop_are_sent_away(receiver):
    _, observer = receiver.fresh()
    clients = [store_client(receiver.port) for _ in range(10)]
    opened = [each.__enter__() for each in clients]
    for each in opened:
        each.send(b"\1\0\0")
    began = time.monotonic()
    for each in opened:
        assert each.end() in ("closed", "aborted")
    assert 0.3 < time.monotonic() - began < 10
    for each in clients:
        each.__exit__(None, None, None)
    wait_until(lambda: not receiver.server.active_associations, what="the end of the threads")
    assert observer.calls == [("ended by us", "timeout")] * 10


@pytest.mark.parametrize(
    ("wire", "fragments"),
    [(b"\4\0\0", 0), (BEGUN[:20], 0), (BEGUN[:-1], 1), (BEGUN, 1), (pdu(item(COMMAND | LAST, store_command())), 1)],
    ids=["a head", "a command", "a fragment", "the next fragment", "the data set"],
)
def test_what_has_begun_is_not_waited_for_without_end(receiver, wire, fragments):
    sink, observer = receiver.fresh()
    with store_client(receiver.port) as client:
        client.associate()
        began = time.monotonic()
        client.send(wire)
        assert client.end() == "aborted"
        assert 0.3 < time.monotonic() - began < 10
    assert observer.calls[-1] == ("ended by us", "timeout")
    assert (len(sink.requests), sink.objects, sink.open) == (fragments, [], 0)


def test_a_peer_that_trickles_is_not_waited_for_without_end(receiver):
    sink, observer = receiver.fresh()
    with store_client(receiver.port) as client:
        client.associate()
        began = time.monotonic()
        client.send(BEGUN[:-5000])
        try:
            while time.monotonic() - began < 10:
                client.send(b"x")
                time.sleep(0.02)
        except OSError:
            pass
        assert 0.3 < time.monotonic() - began < 8
    wait_until(lambda: observer.calls, what="the end")
    assert ("ended by us", "timeout") in observer.calls
    assert sink.open == 0


def test_an_idle_association_has_no_deadline_of_the_readers(receiver):
    with store_client(receiver.port) as client:
        client.associate()
        time.sleep(0.9)
        client.send(message(echo_command(), None, 5))
        assert client.answer()["status"] == 0x0000


@pytest.mark.parametrize("length", [100_001, 199_000])
def test_an_object_that_is_too_large_is_refused_and_the_association_goes_on(receiver, length):
    sink, observer = receiver.fresh()
    fragments = [pdu(item(DATA, bytes(1000))) for _ in range(length // 1000)]
    with store_client(receiver.port) as client:
        client.associate()
        client.send(b"".join([pdu(item(COMMAND | LAST, store_command())), *fragments, pdu(item(DATA | LAST, b"xy"))]))
        answer = client.answer()
        assert (answer["status"], answer["comment"]) == (0xA700, "the object is larger than what is taken here")
        client.send(message(store_command("1.2.3.5"), OBJECT))
        assert client.answer()["status"] == 0x0000
        client.release()
    assert [call[:2] for call in observer.calls] == [("not stored", "1.2.3.4"), ("stored", "1.2.3.5")]
    assert sink.open == 0


def test_who_does_not_read_its_answers_is_not_waited_for(receiver):
    """Answers of more than the connection takes; the thread that sends them ends all the same."""
    with store_client(receiver.port) as client:
        client.associate()
        before = receiver.associations[-1]
        echo = message(echo_command(), None, 5) * 500
        client.socket.settimeout(1)
        try:
            for _ in range(400):
                client.send(echo)
        except OSError:
            pass
        assert receiver.associations[-1] is before
        assert before.dimse.msg_queue.qsize() <= 300
    wait_until(lambda: not receiver.server.active_associations, what="the end of the association")


def test_an_answer_that_comes_after_the_end_harms_nobody(receiver, caplog):
    """pynetdicom's thread dies of what is sent where there is no association any more."""

    ended = threading.Event()

    def slow(event):
        assert ended.wait(30)
        return 0x0000

    receiver.server.bind(evt.EVT_C_ECHO, slow)
    try:
        with store_client(receiver.port) as client:
            client.associate()
            client.send(message(echo_command(), None, 5) + b"garbage")
            assert client.end() == "aborted"
            ended.set()
        wait_until(lambda: not receiver.server.active_associations, what="the end of the association")
    finally:
        receiver.server.bind(evt.EVT_C_ECHO, lambda event: 0x0000)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_nothing_is_logged_of_what_came(receiver, caplog):
    caplog.set_level(logging.DEBUG)
    hostile = store_command("../../SECRET^NAME", originator="SECRET^NAME")
    with store_client(receiver.port) as client:
        client.associate()
        client.send(message(hostile, b"SECRET^NAME"))
        client.answer()
        client.send(pdu(item(COMMAND | LAST, b"SECRET^NAME")))
        client.end()
    assert "SECRET" not in "".join(record.getMessage() for record in caplog.records if "varian" in record.name)


def test_without_the_names_the_same_object_comes_by_pynetdicoms_path(receiver, monkeypatch, caplog):
    monkeypatch.setattr(library, "missing_for_streaming", lambda: ["DULServiceProvider._recv_pdu"])
    monkeypatch.setattr("airflow_provider_varian.dimse.streaming._warned", threading.Event())
    sink, observer = receiver.fresh()
    for number in range(2):
        with store_client(receiver.port) as client:
            client.associate()
            client.send(message(store_command(f"1.2.3.{number}"), OBJECT))
            assert client.answer()["status"] == 0x0000
            client.release()
    assert [data for _, data in sink.objects] == [OBJECT] * 2
    assert [call[0] for call in observer.calls] == ["stored"] * 2
    assert observer.active >= 6
    assert sum("more slowly" in record.getMessage() for record in caplog.records) == 1


def test_an_object_is_of_the_class_of_its_context_or_refused(receiver):
    with store_client(receiver.port) as client:
        client.associate()
        client.send(message(store_command(sop_class=uids.CT_IMAGE), OBJECT))
        assert client.answer()["status"] == 0x0122
    assert receiver.observer.calls[0][:3] == ("not stored", "1.2.3.4", 0x0122)


def test_what_was_right_for_one_context_or_class_is_not_for_another(receiver):
    image, slice_ = uids.RT_IMAGE, uids.CT_IMAGE
    objects = [(1, image, 0), (3, slice_, 0), (1, slice_, 0x0122), (1, image, 0), (3, image, 0x0122), (3, slice_, 0)]
    with store_client(receiver.port) as client:
        client.associate(contexts={1: image, 3: slice_})
        for number, (context_id, sop_class, status) in enumerate(objects):
            client.send(message(store_command(f"1.2.3.{number}", sop_class=sop_class), OBJECT, context_id))
            assert client.answer()["status"] == status
    stored = [(f"1.2.3.{number}", each[1]) for number, each in enumerate(objects) if each[2] == 0]
    assert [(request.sop_instance_uid, request.sop_class_uid) for request, _ in receiver.sink.objects] == stored
