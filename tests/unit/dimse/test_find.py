"""C-FIND: every match arrives, and an answer that is not whole is never taken for one."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

import pydicom.config
import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from support.ports import wait_until
from support.raw_peer import C_CANCEL_RQ, element, raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, exchange
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    ContextRejectedError,
    CroppedAnswerError,
    OutOfResourcesError,
    PeerFailureError,
    PeerTimeoutError,
    QueryError,
    RefusedByPeerError,
)

STUDY_UID = element(0x0020000D, b"1.2.3")


def open_find(peer, **options):
    return associate(peer, contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND", **options)


def find_all(peer, query, **options):
    with open_find(peer) as association:
        return list(iter_matches(association, uids.STUDY_ROOT_FIND, query, **options))


def test_all_matches_arrive_in_order(scp, peer_at, find_handler, study_query):
    port = scp([find_handler(300)])
    found = find_all(peer_at(port), study_query)
    assert [match.identifier.StudyInstanceUID for match in found] == [f"1.2.3.{number}" for number in range(300)]
    assert all(match.optional_keys_supported for match in found)


def test_matches_come_while_the_peer_still_searches(peer_at, study_query):
    seen = threading.Event()

    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.respond(request, 0xFF00, STUDY_UID)
        assert seen.wait(5), "the first match was held back"
        wire.respond(request, 0xFF01, STUDY_UID)
        wire.respond(request, 0x0000)
        wire.read_message()

    with raw_peer(play) as port, open_find(peer_at(port)) as association:
        matches = iter_matches(association, uids.STUDY_ROOT_FIND, study_query)
        assert next(matches).optional_keys_supported
        seen.set()
        assert not next(matches).optional_keys_supported
        assert list(matches) == []


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (0xA700, OutOfResourcesError, "out of resources"),
        (0xA900, RefusedByPeerError, "identifier does not match SOP class"),
        (0x0122, RefusedByPeerError, "SOP class not supported"),
        (0xC001, PeerFailureError, "unable to process"),
        (0xC000, PeerFailureError, "unable to process"),
        (0xFE00, CroppedAnswerError, "cancel"),
        (0x0110, PeerFailureError, "processing failure"),
        (0x1234, PeerFailureError, "unknown status"),
    ],
)
def test_final_failures_are_errors_with_the_status_in_words(
    scp, peer_at, find_handler, study_query, status, error, words
):
    port = scp([find_handler(2, final=status)])
    with pytest.raises(error, match=words) as caught:
        find_all(peer_at(port), study_query)
    assert caught.value.status == status
    assert caught.value.step == "C-FIND"
    assert caught.value.peer == f"VMSDBD@127.0.0.1:{port}"


def test_refused_model_is_named(scp, peer_at, study_query):
    port = scp(services=[uids.STUDY_ROOT_FIND])
    with open_find(peer_at(port)) as association, pytest.raises(ContextRejectedError, match="Patient Root"):
        next(iter_matches(association, uids.PATIENT_ROOT_FIND, study_query))


def test_stopping_early_cancels_and_leaves_the_association_usable(scp, peer_at, study_query):
    cancelled = threading.Event()

    def handle(event):
        for number in range(3):
            match = Dataset()
            match.StudyInstanceUID = f"1.2.{event.message_id}.{number}"
            yield 0xFF00, match
        # pynetdicom sends before it reads: it would not see a C-CANCEL while it has more to say.
        wait_until(lambda: event.is_cancelled, what="the C-CANCEL")
        cancelled.set()
        yield 0xFE00, None

    port = scp([(evt.EVT_C_FIND, handle)])
    with open_find(peer_at(port, dimse_timeout=20)) as association:
        first = iter_matches(association, uids.STUDY_ROOT_FIND, study_query)
        next(first)
        first.close()
        assert cancelled.wait(1)
        second = iter_matches(association, uids.STUDY_ROOT_FIND, study_query)
        assert next(second).identifier.StudyInstanceUID == "1.2.2.0"
        second.close()


def test_stopping_early_at_a_peer_that_does_not_listen_ends_the_association(peer_at, study_query, monkeypatch):
    monkeypatch.setattr(exchange, "GRACE_SECONDS", 0.3)

    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.respond(request, 0xFF00, STUDY_UID)
        wire.wait_for_end()

    with raw_peer(play) as port, open_find(peer_at(port)) as association:
        matches = iter_matches(association, uids.STUDY_ROOT_FIND, study_query)
        next(matches)
        matches.close()
        assert not association.assoc.is_established
        with pytest.raises(AssociationAbortedError):
            next(iter_matches(association, uids.STUDY_ROOT_FIND, study_query))


def abort(wire, request):
    wire.abort()
    wire.wait_for_end()


def close(wire, request):
    pass


def close_within_a_message(wire, request):
    wire.socket.sendall(wire.message(request["context"], STUDY_UID, command=0x8020, responds_to=1, status=0xFF00)[0])


def close_within_a_pdu(wire, request):
    wire.socket.sendall(wire.message(request["context"], command=0x8020, responds_to=1, status=0)[0][:20])


def release(wire, request):
    wire.socket.sendall(b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00")
    wire.wait_for_end()


def unknown_pdu(wire, request):
    wire.socket.sendall(b"\x42\x00\x00\x00\x00\x04\x00\x00\x00\x00")
    wire.wait_for_end()


def broken_command(wire, request):
    wire.socket.sendall(b"\x04\x00\x00\x00\x00\x0a\x00\x00\x00\x06\x01\x03\xff\xff\xff\xff")
    wire.wait_for_end()


def associate_again(wire, request):
    wire.socket.sendall(b"\x02\x00\x00\x00\x00\x04\x00\x00\x00\x00")
    wire.wait_for_end()


def other_answer(wire, request):
    wire.send(request["context"], command=0x8021, responds_to=1, affected_class=request["affected_class"], status=0)
    wire.wait_for_end()


def answer_to_another_message(wire, request):
    wire.send(request["context"], command=0x8020, responds_to=77, affected_class=request["affected_class"], status=0)
    wire.wait_for_end()


def answer_without_status(wire, request):
    wire.send(request["context"], command=0x8020, responds_to=1, affected_class=request["affected_class"])
    wire.wait_for_end()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "die",
    [
        abort,
        close,
        close_within_a_message,
        close_within_a_pdu,
        release,
        unknown_pdu,
        broken_command,
        associate_again,
        other_answer,
        answer_to_another_message,
        answer_without_status,
    ],
    ids=lambda function: function.__name__,
)
def test_peer_that_dies_in_the_middle_of_its_answer_is_an_error(peer_at, study_query, die):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.respond(request, 0xFF00, STUDY_UID)
        die(wire, request)

    with raw_peer(play) as port:
        found, start = [], time.monotonic()
        with pytest.raises(AssociationAbortedError) as caught:
            found.extend(find_all(peer_at(port), study_query))
        assert time.monotonic() - start < 4.5, "noticed only by the time-out"
    assert caught.value.transient
    assert "C-FIND" in str(caught.value)


def test_the_message_tells_an_abort_from_a_lost_connection_and_a_release(peer_at, study_query):
    words = []
    for die in (abort, close, release):

        def play(wire, die=die):
            wire.accept()
            die(wire, wire.read_message()[0])

        with raw_peer(play) as port, pytest.raises(AssociationAbortedError) as caught:
            find_all(peer_at(port), study_query)
        words.append(caught.value.what)
    assert "aborted" in words[0]
    assert "closed" in words[1]
    assert "released" in words[2]


def test_silence_times_out(peer_at, study_query):
    def play(wire):
        wire.accept()
        wire.read_message()
        wire.wait_for_end()

    with raw_peer(play) as port:
        start = time.monotonic()
        with pytest.raises(PeerTimeoutError, match=r"silence for 0\.4 s.*dimse_timeout"):
            find_all(peer_at(port, dimse_timeout=0.4), study_query)
        assert time.monotonic() - start < 4


def test_half_a_pdu_and_then_silence_times_out(peer_at, study_query):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.socket.sendall(wire.message(request["context"], command=0x8020, responds_to=1, status=0)[0][:20])
        wire.wait_for_end()

    with raw_peer(play) as port:
        start = time.monotonic()
        with pytest.raises(PeerTimeoutError):
            find_all(peer_at(port, dimse_timeout=0.4, network_timeout=60), study_query)
        assert time.monotonic() - start < 5


def test_a_pdu_that_trickles_in_for_ever_times_out(peer_at, study_query):
    def play(wire):
        wire.accept()
        wire.read_message()
        wire.socket.sendall(b"\x04\x00\x00\x00\x40\x00")
        for byte in b"\x00\x00\x3f\xfc\x01\x01" + bytes(10_000):
            wire.socket.sendall(bytes([byte]))
            time.sleep(0.05)

    with raw_peer(play) as port:
        start = time.monotonic()
        with pytest.raises(PeerTimeoutError):
            find_all(peer_at(port, dimse_timeout=0.4), study_query)
        assert time.monotonic() - start < 5


def test_deadline_bounds_a_peer_that_never_comes_to_an_end(peer_at, study_query):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        while True:
            wire.respond(request, 0xFF00, STUDY_UID)
            time.sleep(0.05)

    with raw_peer(play) as port, pytest.raises(PeerTimeoutError, match=r"not finished within 0\.5 s"):
        find_all(peer_at(port), study_query, deadline=0.5)


@pytest.mark.parametrize("data", [b"\x08\x00\x20\x00\xff\xff\xff\x00Muster", None], ids=["broken", "absent"])
def test_match_that_cannot_be_read_is_an_error_that_quotes_nothing(peer_at, study_query, data, monkeypatch):
    monkeypatch.setattr(exchange, "GRACE_SECONDS", 0.3)

    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.respond(request, 0xFF00, data)
        wire.wait_for_end()

    with raw_peer(play) as port, pytest.raises(PeerFailureError) as caught:
        find_all(peer_at(port), study_query)
    assert "Muster" not in str(caught.value)


def test_cancellation_from_a_signal_handler_cancels_at_the_peer_and_ends_the_wait(peer_at, study_query):
    cancellation, asked, cancelled_at_peer = Cancellation(), threading.Event(), threading.Event()

    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        asked.set()
        command, _ = wire.read_message()
        assert command["command"] == C_CANCEL_RQ
        assert command["responds_to"] == request["message_id"]
        cancelled_at_peer.set()
        wire.respond(request, 0xFF00, STUDY_UID)  # already on its way
        wire.respond(request, 0xFE00)
        wire.wait_for_end()

    def kill():
        asked.wait(5)
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, lambda *_: cancellation.cancel())
    try:
        with raw_peer(play) as port:
            threading.Thread(target=kill).start()
            start = time.monotonic()
            found = []
            with pytest.raises(CancelledError), open_find(peer_at(port), cancellation=cancellation) as association:
                found.extend(iter_matches(association, uids.STUDY_ROOT_FIND, study_query))
            assert found == [], "a match after the cancellation"
            assert time.monotonic() - start < 2.5
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert cancelled_at_peer.is_set()


def test_cancellation_aborts_at_a_peer_that_does_not_listen(peer_at, study_query, monkeypatch):
    monkeypatch.setattr("airflow_provider_varian.dimse.cancellation.GRACE_SECONDS", 0.3)
    cancellation, aborted = Cancellation(), threading.Event()

    def play(wire):
        wire.accept()
        wire.read_message()
        threading.Thread(target=cancellation.cancel).start()
        wire.read_message()
        kind, _ = wire.read_pdu()
        assert kind == 7
        aborted.set()

    with raw_peer(play) as port:
        start = time.monotonic()
        with (
            pytest.raises(CancelledError),
            open_find(peer_at(port, dimse_timeout=60), cancellation=cancellation) as association,
        ):
            list(iter_matches(association, uids.STUDY_ROOT_FIND, study_query))
        assert time.monotonic() - start < 4
        assert aborted.wait(5)


def test_keys_that_cannot_be_encoded_are_refused_without_their_values(scp, peer_at, caplog, study_query):
    study_query.add_new(0x00280010, "US", 1)
    study_query["Rows"]._value = "Muster"
    study_query.PatientComments = "Muster"
    port = scp()
    with caplog.at_level(logging.DEBUG), pytest.raises(QueryError, match="Rows") as caught:
        find_all(peer_at(port), study_query)
    assert "Muster" not in str(caught.value) + caplog.text


def test_no_identifier_reaches_the_log(scp, peer_at, caplog):
    def handle(event):
        match = Dataset()
        match.PatientID = "Answered-4711"
        match.PatientName = "Muster^Hans"
        match.add_new(0x00100030, "DA", "19700101")
        yield 0xFF00, match
        yield 0x0000, None

    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.PatientID = "Asked-4711"
    query.PatientName = ""
    port = scp([(evt.EVT_C_FIND, handle)])
    with caplog.at_level(logging.DEBUG):
        for match in find_all(peer_at(port), query):
            str(match.identifier)
    assert "4711" not in caplog.text
    assert "Muster" not in caplog.text


def test_no_odd_value_reaches_a_warning(peer_at, study_query, recwarn, caplog):
    """pydicom quotes a value that breaks its VR, e.g. a name in a number."""

    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.respond(request, 0xFF00, element(0x00200013, b"Muster"))
        wire.respond(request, 0x0000)
        wire.wait_for_end()

    # Whoever imported pydicom before us may have left its default.
    pydicom.config.settings.reading_validation_mode = pydicom.config.WARN
    with raw_peer(play) as port:
        for match in find_all(peer_at(port), study_query):
            assert "Muster" in str(match.identifier)
    assert "Muster" not in caplog.text + "".join(str(warning.message) for warning in recwarn.list)
