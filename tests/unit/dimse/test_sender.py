"""The streaming sender: what it sends is what arrives, by its own path as by pynetdicom's, whatever the peer does."""

from __future__ import annotations

import logging
import socket
import threading
import time
import tracemalloc
from contextlib import contextmanager

import pytest
from pynetdicom import build_context, evt
from pynetdicom.pdu_primitives import A_RELEASE
from support.certificates import Authority
from support.ports import wait_until
from support.raw_peer import C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, RSP, parse_command, raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import library, outbox, parked, sender, stream
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.command_set import C_GET_RSP, RetrieveProgress, StoreRequest
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.dimse.sender import LibrarySender, StoreAnswer, StreamingSender
from airflow_provider_varian.dimse.slices import FileRange
from airflow_provider_varian.dimse.tls import server_context

STREAMED, BY_LIBRARY = StreamingSender, LibrarySender


@pytest.fixture(params=[STREAMED, BY_LIBRARY], ids=["streamed", "library"])
def path(request, monkeypatch):
    """Both ways of sending."""
    if request.param is BY_LIBRARY:
        monkeypatch.setattr(library, "missing_for_streaming", lambda: ["DULServiceProvider._recv_pdu"])
    return request.param


@pytest.fixture
def sending_to(peer_at):
    """Return a context manager: an association with a port, claimed, and who sends on it."""

    @contextmanager
    def open_(port, **settings):
        peer = peer_at(port, **settings)
        offered = [build_context(uids.CT_IMAGE, uids.IMPLICIT_VR_LITTLE_ENDIAN)]
        with associate(peer, offered, step="C-STORE") as association:
            parked.claim(association.assoc)
            try:
                with sender.sending(association.assoc) as found:
                    yield association.assoc, found
            finally:
                parked.hand_back(association.assoc)

    return open_


@pytest.fixture
def stored():
    """What a Storage SCP got: the requests, and their bytes."""
    return []


@pytest.fixture
def receiver(scp, stored):
    """Return a function that starts a Storage SCP which keeps what it gets."""

    def start(status=0x0000, **settings):
        def keep(event):
            stored.append((event.request, event.request.DataSet.getvalue()))
            return status

        return scp([(evt.EVT_C_STORE, keep)], services=[uids.VERIFICATION], storage=True, **settings)

    return start


def request(number=1, **more):
    fields = {"sop_class_uid": uids.CT_IMAGE, "sop_instance_uid": f"1.2.3.{number}", "message_id": number}
    return StoreRequest(**(fields | more))


def content(length):
    return bytes(n % 251 for n in range(length))


def in_fragments(command, size):
    """Return a command set as PDUs that hold so many bytes of it each."""
    for start in range(0, len(command), size):
        part = command[start : start + size]
        body = (len(part) + 2).to_bytes(4, "big") + bytes([1, 3 if start + size >= len(command) else 1]) + part
        yield b"\4\0" + len(body).to_bytes(4, "big") + body


SUCCESS = StoreAnswer(0x0000)


@pytest.mark.parametrize("max_pdu", [4096, 4097, 16382, 0])
def test_what_arrives_is_what_was_sent(sending_to, receiver, stored, path, max_pdu, tmp_path):
    lengths = [1, 2, 4089, 4090, 4091, 8180, 16376, 100_001, 700_000]
    file = tmp_path / "file"
    file.write_bytes(b"head" + content(700_000))
    with sending_to(receiver(maximum_pdu_size=max_pdu)) as (_, found):
        assert type(found) is path
        for number, length in enumerate(lengths, start=1):
            slices = [content(length // 2), FileRange(file, 4 + length // 2, length - length // 2)]
            assert found.store(1, request(number, originator=("MOVER", 77)), slices) == SUCCESS
    assert [data for _, data in stored] == [content(length) for length in lengths]
    assert [each.AffectedSOPInstanceUID for each, _ in stored] == [f"1.2.3.{n}" for n in range(1, len(lengths) + 1)]
    first = stored[0][0]
    assert (first.AffectedSOPClassUID, first.MessageID, first.Priority) == (uids.CT_IMAGE, 1, 0)
    assert (first.MoveOriginatorApplicationEntityTitle, first.MoveOriginatorMessageID) == ("MOVER", 77)


def test_tls_carries_the_same(sending_to, receiver, stored, path):
    authority = Authority()
    theirs, ours = authority.issue("aria.example.org"), authority.issue("airflow.example.org")

    def settings(issued):
        return TlsSettings(ca_certificate=authority.certificate, certificate=issued.certificate, private_key=issued.key)

    context = server_context(settings(theirs))
    ae_port = receiver(tls=context, maximum_pdu_size=65536)
    with sending_to(ae_port, tls=settings(ours)) as (_, found):
        for number, length in enumerate([1, 70_000, 1_500_001], start=1):
            assert found.store(1, request(number), [content(length)]) == SUCCESS
    assert [len(data) for _, data in stored] == [1, 70_000, 1_500_001]
    assert stored[-1][1] == content(1_500_001)


@pytest.mark.parametrize("status", [0xB007, 0xA700, 0xC001])
def test_warnings_and_failures_are_told_with_their_comment(sending_to, path, status):
    def play(wire):
        wire.accept()
        fields, data = wire.read_message()
        assert data == b"object"
        wire.respond(fields, status, affected_instance="1.2.3.1", comment="Disk is nearly full")
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (_, found):
        assert found.store(1, request(), [b"object"]) == StoreAnswer(status, "Disk is nearly full")


def test_an_answer_in_many_fragments_is_understood(sending_to):
    def play(wire):
        wire.accept()
        fields, _ = wire.read_message()
        (answer,) = wire.message(1, command=C_STORE_RQ | RSP, responds_to=fields["message_id"], status=0)
        wire.socket.sendall(b"".join(in_fragments(answer[12:], 7)))
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (_, found):
        assert found.store(1, request(), [b"object"]) == SUCCESS


def test_an_answer_to_another_message_is_none(sending_to, path):
    def play(wire):
        wire.accept()
        for answered in (99, 2):
            fields, _ = wire.read_message()
            wire.send(
                1, command=C_STORE_RQ | RSP, responds_to=answered, affected_class=fields["affected_class"], status=0
            )
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (_, found):
        assert found.store(1, request(1), [b"object"]) is None
        assert found.store(1, request(2), [b"object"]) == SUCCESS


def test_what_the_kernel_takes_in_small_pieces_arrives_all_the_same(sending_to, receiver, stored):
    with sending_to(receiver(maximum_pdu_size=65536)) as (assoc, found):
        assoc.dul.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert found.store(1, request(), [content(1_000_003), content(70_000)]) == SUCCESS
    assert stored[0][1] == content(1_000_003) + content(70_000)


def test_nothing_is_sent_of_what_cannot_be_sent(sending_to, receiver, stored, path, tmp_path):
    with sending_to(receiver()) as (_, found):
        with pytest.raises(ValueError, match="empty"):
            found.store(1, request(), [b""])
        with pytest.raises(FileNotFoundError):
            found.store(1, request(), [b"x", FileRange(tmp_path / "missing", 0, 1)])
        assert found.store(1, request(2), [b"object"]) == SUCCESS
    assert [data for _, data in stored] == [b"object"]


def test_a_file_that_shrinks_on_the_way_ends_the_association(sending_to, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(4_000_000))

    def play(wire):
        wire.accept(max_pdu=65536)
        wire.read_pdu()
        wire.read_pdu()
        file.write_bytes(b"short")
        while wire.read_pdu()[0] != 7:
            pass
        aborted.set()

    aborted = threading.Event()
    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        # The kernel takes much of an object before the peer has read any of it: so it is sent until it fails.
        with pytest.raises(OSError, match="shorter"):
            found.store(1, request(), [FileRange(file, 0, 4_000_000)] * 20)
        assert not assoc.is_established
        assert aborted.wait(5)


@pytest.mark.parametrize("length", [10, 30_000_000])
def test_a_peer_that_aborts_ends_the_run(sending_to, path, length):
    def play(wire):
        wire.accept()
        wire.read_pdu()
        wire.abort()

    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        start = time.monotonic()
        assert found.store(1, request(1), [bytes(length)]) is None
        assert found.store(1, request(2), [b"object"]) is None
        assert time.monotonic() - start < 4
        assert not assoc.is_established or parked.end_waits(assoc)


@pytest.mark.parametrize("length", [10, 30_000_000])
def test_a_peer_that_hangs_up_ends_the_run(sending_to, path, length):
    def play(wire):
        wire.accept()
        wire.read_pdu()
        wire.socket.close()

    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        start = time.monotonic()
        assert found.store(1, request(1), [bytes(length)]) is None
        assert found.store(1, request(2), [b"object"]) is None
        assert time.monotonic() - start < 4
        assert not assoc.is_established or parked.end_waits(assoc)


def test_a_peer_that_never_answers_is_aborted(sending_to, path, caplog):
    ended = threading.Event()

    def play(wire):
        wire.accept()
        wire.read_message()
        assert wire.read_pdu()[0] == 7
        ended.set()

    with raw_peer(play) as port, sending_to(port, dimse_timeout=0.3) as (assoc, found):
        start = time.monotonic()
        assert found.store(1, request(1), [b"object"]) is None
        assert 0.3 <= time.monotonic() - start < 2
        assert ended.wait(5)
        assert not assoc.is_established
        assert found.store(1, request(2), [b"object"]) is None
        assert time.monotonic() - start < 3


def test_a_peer_that_takes_nothing_is_given_up(sending_to):
    over = threading.Event()

    def play(wire):
        wire.accept()
        assert over.wait(20)

    with raw_peer(play) as port, sending_to(port, dimse_timeout=0.3) as (assoc, found):
        start = time.monotonic()
        assert found.store(1, request(), [bytes(30_000_000)]) is None
        assert 0.3 <= time.monotonic() - start < 4
        assert not assoc.is_established
        over.set()


def test_a_peer_that_answers_half_a_pdu_is_given_up(sending_to):
    def play(wire):
        wire.accept()
        wire.read_message()
        wire.socket.sendall(b"\4\0\0\0\0\x50half")
        wire.ignore_everything()

    with raw_peer(play) as port, sending_to(port, dimse_timeout=0.3) as (assoc, found):
        assert found.store(1, request(), [b"object"]) is None
        assert not assoc.is_established


@pytest.mark.parametrize(
    "pdu",
    [b"\4\0\x7f\xff\xff\xff", b"\4\0\0\0\0\3abc", b"\x63\0\0\0\0\0", b"\4\0\0\0\0\6\0\0\0\x09\1\3"],
    ids=["too long", "no item", "unknown", "item too long"],
)
def test_what_is_no_answer_is_left_to_pynetdicom_which_aborts(sending_to, pdu, caplog):
    aborted = threading.Event()

    def play(wire):
        wire.accept()
        wire.read_message()
        wire.socket.sendall(pdu)
        if wire.read_pdu()[0] == 7:
            aborted.set()

    with raw_peer(play) as port, sending_to(port) as (_, found):
        start = time.monotonic()
        assert found.store(1, request(), [b"object"]) is None
        assert time.monotonic() - start < 2
        assert aborted.wait(5)


def test_a_release_in_the_middle_is_left_to_pynetdicom(sending_to):
    answered = threading.Event()

    def play(wire):
        wire.accept()
        wire.read_message()
        wire.socket.sendall(b"\5\0\0\0\0\4\0\0\0\0")
        if wire.read_pdu()[0] == 6:
            answered.set()

    with raw_peer(play) as port:
        with sending_to(port) as (assoc, found):
            assert found.store(1, request(), [b"object"]) is None
            assert parked.end_waits(assoc)
        assert answered.wait(5)


@pytest.mark.parametrize("fragment", [1000, 11])
def test_another_message_is_left_to_pynetdicom(sending_to, fragment):
    def play(wire):
        wire.accept()
        wire.read_message()
        (echo,) = wire.message(1, command=C_ECHO_RQ, message_id=5, affected_class=uids.VERIFICATION)
        wire.socket.sendall(b"".join(in_fragments(echo[12:], fragment)))
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        assert found.store(1, request(), [b"object"]) is None
        _, message = assoc.dimse.get_msg(block=True)
        assert message.MessageID == 5


def test_a_cancel_request_is_where_pynetdicom_would_put_it(sending_to):
    def play(wire):
        wire.accept()
        fields, _ = wire.read_message()
        wire.send(1, command=C_CANCEL_RQ, responds_to=42)
        wire.respond(fields, 0)
        fields, _ = wire.read_message()
        answer = wire.message(1, command=C_STORE_RQ | RSP, responds_to=fields["message_id"], status=0)
        late = wire.message(1, command=C_CANCEL_RQ, responds_to=43)
        wire.socket.sendall(b"".join(answer + late))
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        assert found.store(1, request(1), [b"object"]) == SUCCESS
        assert list(assoc.dimse.cancel_req) == [42]
        assert found.store(1, request(2), [b"object"]) == SUCCESS
        assert assoc.dimse.cancel_req[43].MessageIDBeingRespondedTo == 43


def test_an_answer_counts_though_the_peer_ends_right_behind_it(sending_to, path):
    def play(wire):
        wire.accept()
        fields, _ = wire.read_message()
        answer = wire.message(1, command=C_STORE_RQ | RSP, responds_to=fields["message_id"], status=0)
        wire.socket.sendall(b"".join(answer) + b"\7\0\0\0\0\4\0\0\0\0")

    with raw_peer(play) as port, sending_to(port) as (_, found):
        assert found.store(1, request(1), [b"object"]) == SUCCESS
        assert found.store(1, request(2), [b"object"]) is None


@pytest.mark.parametrize("whole", [True, False])
def test_an_answer_before_the_end_counts_at_the_end(sending_to, whole):
    def play(wire):
        wire.accept(max_pdu=65536)
        _, command = wire.read_pdu()
        fields = parse_command(command[6:]) | {"context": 1}
        wire.respond(fields, 0xA700)
        if not whole:
            return
        while not wire.read_pdu()[1][5] & 2:
            pass
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (_, found):
        assert found.store(1, request(1), [bytes(30_000_000)]) == (StoreAnswer(0xA700) if whole else None)


def test_a_message_between_ours_in_the_middle_of_an_object_ends_the_association(sending_to):
    """The rest of the object will not come, and what comes instead would be taken for it."""
    begun, kinds = threading.Event(), []

    def play(wire):
        wire.accept(max_pdu=65536)
        wire.read_pdu()
        begun.set()
        assert given_up.wait(10)
        while not kinds or kinds[-1] == 4:
            kinds.append(wire.read_pdu()[0])

    given_up = threading.Event()
    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        # The kernel does not take that much from who is not read.
        sending = threading.Thread(target=lambda: answers.append(found.store(1, request(), [bytes(30_000_000)])))
        answers = []
        sending.start()
        assert begun.wait(10)
        assoc.send_c_cancel(1, 1)
        wait_until(lambda: assoc._sent_abort or not sending.is_alive(), what="the sender to give up")
        given_up.set()
        sending.join(10)
        assert answers == [None]
        assert not assoc.is_established
    assert kinds[-1] == 7


def test_another_message_in_the_middle_of_an_object_ends_the_association(sending_to):
    aborted = threading.Event()

    def play(wire):
        wire.accept(max_pdu=65536)
        wire.read_pdu()
        wire.send(1, command=C_ECHO_RQ, message_id=5, affected_class=uids.VERIFICATION)
        while (kind := wire.read_pdu()[0]) == 4:
            pass
        if kind == 7:
            aborted.set()

    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        assert found.store(1, request(), [bytes(30_000_000)]) is None
        assert not assoc.is_established
        assert aborted.wait(5)


def test_what_comes_slowly_behind_an_answer_is_waited_for(sending_to):
    def play(wire):
        wire.accept()
        fields, _ = wire.read_message()
        answer = wire.message(1, command=C_STORE_RQ | RSP, responds_to=fields["message_id"], status=0)
        (late,) = wire.message(1, command=C_CANCEL_RQ, responds_to=43)
        wire.socket.sendall(b"".join(answer) + late[:9])
        # Longer than a second, which was once too long.
        time.sleep(1.2)
        wire.socket.sendall(late[9:])
        fields, _ = wire.read_message()
        wire.respond(fields, 0)
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        assert found.store(1, request(1), [b"object"]) == SUCCESS
        assert list(assoc.dimse.cancel_req) == [43]
        assert found.store(1, request(2), [b"object"]) == SUCCESS


def test_an_answer_counts_though_what_is_behind_it_never_ends(sending_to):
    aborted = threading.Event()

    def play(wire):
        wire.accept()
        fields, _ = wire.read_message()
        answer = wire.message(1, command=C_STORE_RQ | RSP, responds_to=fields["message_id"], status=0)
        wire.socket.sendall(b"".join(answer) + b"\4\0\0")
        if wire.read_pdu()[0] == 7:
            aborted.set()

    with raw_peer(play) as port, sending_to(port, dimse_timeout=0.3) as (assoc, found):
        assert found.store(1, request(1), [b"object"]) == SUCCESS
        assert not assoc.is_established
        assert aborted.wait(5)
        assert found.store(1, request(2), [b"object"]) is None


def test_a_flood_of_other_messages_does_not_put_the_end_off(sending_to):
    def play(wire):
        wire.accept()
        wire.read_message()
        flood = b"".join(wire.message(1, command=C_CANCEL_RQ, responds_to=42)) * 100
        while True:
            wire.socket.sendall(flood)

    with raw_peer(play) as port, sending_to(port, dimse_timeout=0.3) as (assoc, found):
        start = time.monotonic()
        assert found.store(1, request(), [b"object"]) is None
        assert time.monotonic() - start < 4
        assert not assoc.is_established


def test_an_abort_from_here_ends_the_wait_at_once(sending_to, path, monkeypatch):
    # Nothing closes the socket meanwhile, which would end the wait too.
    monkeypatch.setattr(parked, "_ABORT_SECONDS", 15.0)
    reached = threading.Event()

    def play(wire):
        wire.accept()
        wire.read_message()
        reached.set()
        wire.ignore_everything()

    with raw_peer(play) as port, sending_to(port, dimse_timeout=20) as (assoc, found):
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(found.store(1, request(), [b"object"])))
        waiting.start()
        assert reached.wait(5)
        start = time.monotonic()
        assoc.abort()
        assoc.dimse.msg_queue.put((None, None))
        waiting.join(10)
        assert answers == [None]
        assert time.monotonic() - start < 8


def test_an_abort_by_the_sending_thread_between_two_objects_is_no_deadlock(sending_to, receiver, path, monkeypatch):
    monkeypatch.setattr(parked, "_ABORT_SECONDS", 15.0)
    with sending_to(receiver()) as (assoc, found):
        assert found.store(1, request(1), [b"object"]) == SUCCESS
        start = time.monotonic()
        assoc.abort()
        assert time.monotonic() - start < 8, "before the socket is closed under it"
        assert found.store(1, request(2), [b"object"]) is None


def test_what_pynetdicom_sends_between_two_objects_comes_between_them(sending_to, path):
    """As the pending responses of a C-GET do; whole, also in several PDUs."""
    came = []

    def play(wire):
        wire.accept(max_pdu=64)
        for _ in range(10):
            fields, data = wire.read_message()
            came.append((fields["command"], fields.get("remaining"), data))
            if fields["command"] == C_STORE_RQ:
                wire.respond(fields, 0)
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        for number in range(1, 6):
            assert found.store(1, request(number), [content(300)]) == SUCCESS
            report = RetrieveProgress(
                command_field=C_GET_RSP, sop_class_uid=uids.STUDY_ROOT_GET, responds_to=1, status=0xFF00,
                remaining=number, completed=0, failed=0, warning=0,
            )  # fmt: skip
            outbox.post(assoc, 1, report.encoded())
        wait_until(lambda: len(came) == 10, what="the last report")
    assert came == [each for n in range(1, 6) for each in ((C_STORE_RQ, None, content(300)), (C_GET_RSP, n, b""))]


def test_the_association_is_pynetdicoms_again_afterwards(sending_to, receiver, path):
    with sending_to(receiver()) as (assoc, found):
        before = assoc.dul.socket.socket.gettimeout()
        found.store(1, request(1), [b"object"])
        assert assoc.dul.socket.socket.gettimeout() == before
    # associate() released it, which it can only when it hears the answer.
    assert assoc.is_released


def test_who_reads_the_association_comes_to_the_gate_at_once(sending_to, receiver, monkeypatch):
    monkeypatch.setattr(stream, "_LOOK_SECONDS", 60.0)
    monkeypatch.setattr(LibrarySender, "store", lambda *_: pytest.fail("the line was not taken"))
    with sending_to(receiver()) as (_, found):
        for number in range(1, 4):
            assert found.store(1, request(number), [b"object"]) == SUCCESS


def test_an_answer_that_has_begun_before_the_question_is_left_to_who_has_read_it(sending_to):
    def play(wire):
        wire.accept()
        (answer,) = wire.message(1, command=C_STORE_RQ | RSP, responds_to=1, status=0)
        wire.socket.sendall(answer[:3])
        wire.read_message()
        wire.socket.sendall(answer[3:])
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (assoc, found):
        wait_until(lambda: assoc.dul.stream.holds_something)
        assert found.store(1, request(1), [b"object"]) == SUCCESS


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_others_put_over_the_sending_of_pynetdicom_stays_there(sending_to, receiver, when):
    """As the simulator does, to count what is to be sent."""
    counted = []

    def over(assoc):
        stock = assoc.dul.send_pdu

        def count(primitive):
            counted.append(primitive)
            stock(primitive)

        assoc.dul.send_pdu = count
        return count

    with sending_to(receiver()) as (assoc, _):
        line = assoc.dul.send_pdu.__self__  # of the fixture
        line.close()
        assert line not in {assoc.dul.send_pdu.__self__, assoc.dul._process_recv_primitive.__self__}
        count = over(assoc) if when == "before" else None
        with sender.sending(assoc) as found:
            count = count or over(assoc)
            assert found.store(1, request(1), [b"object"]) == SUCCESS
        assert assoc.dul.send_pdu is count
        with sender.sending(assoc) as found:
            assert found.store(1, request(2), [b"object"]) == SUCCESS
        assert assoc.dul.send_pdu is count
    assert [type(each) for each in counted] == [A_RELEASE], "objects do not go that way"


def test_memory_stays_flat(sending_to, scp, tmp_path):
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate(60_000_000)
    received = []

    def play(wire):
        wire.accept(max_pdu=131072)
        _, command = wire.read_pdu()
        count = 0
        while count < 60_000_000:
            count += len(wire.read_pdu()[1]) - 6
        received.append(count)
        wire.respond(parse_command(command[6:]) | {"context": 1}, 0)
        wire.wait_for_end()

    with raw_peer(play) as port, sending_to(port) as (_, found):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            assert found.store(1, request(), [FileRange(file, 0, 60_000_000)]) == SUCCESS
            assert tracemalloc.get_traced_memory()[1] - before < 4_000_000
        finally:
            tracemalloc.stop()
    assert received == [60_000_000]


def test_a_changed_library_is_told_once(sending_to, receiver, monkeypatch, caplog):
    monkeypatch.setattr(library, "_STREAMING_METHODS", ((library.DULServiceProvider, ("_renamed",)),))
    monkeypatch.setattr(sender, "_warned", threading.Event())
    caplog.set_level(logging.WARNING)
    port = receiver()
    for _ in range(2):
        with sending_to(port) as (_, found):
            assert type(found) is LibrarySender
    warnings = [each for each in caplog.records if "DULServiceProvider._renamed" in each.getMessage()]
    assert len(warnings) == 1


def test_this_library_has_what_streaming_needs():
    assert library.missing_for_streaming() == []
