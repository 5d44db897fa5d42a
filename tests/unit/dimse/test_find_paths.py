"""C-FIND by our reading and by pynetdicom's, by our codec and by pydicom: the same matches, within the same bounds."""

from __future__ import annotations

import struct
import threading
import time

import pytest
from pydicom.dataset import Dataset
from support.raw_peer import build_command, element, raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import cancellation as cancelling
from airflow_provider_varian.dimse import contexts, exchange, streaming
from airflow_provider_varian.dimse.answers import Answer
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.dimse.find_taker import FindTaker
from airflow_provider_varian.errors import CancelledError, PeerFailureError, PeerTimeoutError

STUDY_UID = 0x0020000D
NAME = element(0x00080005, b"ISO_IR 192") + element(0x00100010, "Müller^王 ".encode())
#: An empty private element: pydicom's to read.
ODD = element(0x00091001, b"") + element(STUDY_UID, b"1.2\0")


@pytest.fixture
def query():
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = ""
    return identifier


def open_find(peer, **options):
    return associate(peer, contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND", **options)


def ask(association, query, **options):
    return iter_matches(association, uids.STUDY_ROOT_FIND, query, **options)


def pending(request, status=0xFF00):
    return build_command(
        affected_class=uids.STUDY_ROOT_FIND,
        command=0x8020,
        responds_to=request["message_id"],
        data_set=1,
        status=status,
    )


def fragment(context, flags, data):
    return struct.pack(">IBB", len(data) + 2, context, flags) + data


def pdu(*fragments):
    body = b"".join(fragments)
    return struct.pack(">BBI", 4, 0, len(body)) + body


def test_all_matches_arrive_in_order_and_as_they_are(reading, peer_at, query, monkeypatch):
    batches, take = [], FindTaker.take
    monkeypatch.setattr(FindTaker, "take", lambda taker, batch: batches.append(batch) or take(taker, batch))
    sent = [(0xFF00, element(STUDY_UID, f"1.2.{number}".encode())) for number in range(500)]
    sent[100:100] = [(0xFF00, NAME), (0xFF01, ODD)]

    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        for status, data in sent:
            wire.respond(request, status, data)
        wire.respond(request, 0x0000)
        wire.read_message()

    with raw_peer(play) as port, open_find(peer_at(port)) as association:
        assert (streaming.of(association.assoc) is not None) == (reading == "ours")
        found = list(ask(association, query))
    # In batches, or one by one.
    assert sum(len(batch.rows) for batch in batches) == (len(sent) if reading == "ours" else 0)
    assert [match.optional_keys_supported for match in found] == [status == 0xFF00 for status, _ in sent]
    assert [match.answer.encoded for match in found if isinstance(match.answer, Answer)] == [
        data for _, data in sent if data is not ODD
    ]
    assert isinstance(found[101].answer, Dataset)
    assert found[101].identifier.StudyInstanceUID == "1.2"
    assert found[100].identifier.PatientName == "Müller^王"


def test_it_does_not_matter_how_a_match_is_cut_to_pieces(reading, peer_at, query):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        context, command = request["context"], pending(request)
        one = fragment(context, 3, command) + fragment(context, 2, NAME)
        wire.socket.sendall(pdu(one))
        wire.socket.sendall(pdu(fragment(context, 1, command[:50])) + pdu(fragment(context, 3, command[50:])))
        for position in range(len(NAME) - 1):
            wire.socket.sendall(pdu(fragment(context, 0, NAME[position : position + 1])))
        wire.socket.sendall(pdu(fragment(context, 2, NAME[-1:])))
        if reading == "ours":
            # Several messages in one PDU, of which pynetdicom understands the first alone.
            wire.socket.sendall(pdu(one, one, one[: len(command) + 6], fragment(context, 0, NAME[:9])))
            wire.socket.sendall(pdu(fragment(context, 2, NAME[9:])))
        wire.respond(request, 0x0000)
        wire.read_message()

    with raw_peer(play) as port, open_find(peer_at(port)) as association:
        assert [match.answer.encoded for match in ask(association, query)] == [NAME] * (5 if reading == "ours" else 2)


def test_several_requests_on_one_association_do_not_mix(reading, peer_at, query):
    def play(wire):
        wire.accept()
        for number in range(5):
            request, _ = wire.read_message()
            for _ in range(number):
                wire.respond(request, 0xFF00, element(STUDY_UID, f"1.{number}\0".encode()))
            wire.respond(request, 0x0000)
        wire.read_message()

    with raw_peer(play) as port, open_find(peer_at(port)) as association:
        for number in range(5):
            found = [str(match.identifier.StudyInstanceUID) for match in ask(association, query)]
            assert found == [f"1.{number}"] * number


def test_an_empty_match_is_an_error_after_the_ones_before(reading, peer_at, query):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.respond(request, 0xFF00, NAME)
        wire.socket.sendall(
            pdu(fragment(request["context"], 3, pending(request)), fragment(request["context"], 2, b""))
        )
        wire.ignore_everything()

    with raw_peer(play) as port, open_find(peer_at(port)) as association:
        matches = ask(association, query)
        assert next(matches).answer.encoded == NAME
        with pytest.raises(PeerFailureError, match="announced a match and sent none"):
            next(matches)


class Flood:
    """Sends matches without end, as fast as they are taken."""

    def __init__(self, size=40):
        self.asked, self.stalled = threading.Event(), threading.Event()
        self.sent = 0
        self._size = size

    def __call__(self, wire):
        wire.accept()
        request, _ = wire.read_message()
        one = pdu(fragment(request["context"], 3, pending(request)))
        one += pdu(fragment(request["context"], 2, element(0x00104000, b"x" * self._size)))
        self.asked.set()
        wire.socket.settimeout(0.4)
        view = memoryview(one * (65536 // len(one) + 1))
        position = 0
        while True:
            try:
                count = wire.socket.send(view[position:])
            except TimeoutError:
                self.stalled.set()
                continue
            except OSError:
                return
            self.sent += count
            position = (position + count) % len(view)


def test_a_deadline_ends_a_flood(reading, peer_at, query):
    flood = Flood()
    start = time.monotonic()
    with (
        raw_peer(flood) as port,
        open_find(peer_at(port)) as association,
        pytest.raises(PeerTimeoutError, match=r"not finished within 0\.3 s"),
    ):
        for _ in ask(association, query, deadline=0.3):
            pass
    assert time.monotonic() - start < 10


def test_a_cancellation_ends_a_flood(peer_at, query, monkeypatch):
    monkeypatch.setattr(cancelling, "GRACE_SECONDS", 0.2)
    flood, cancellation = Flood(), Cancellation()

    def cancel():
        flood.asked.wait(10)
        cancellation.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    start = time.monotonic()
    with (
        raw_peer(flood) as port,
        pytest.raises(CancelledError),
        open_find(peer_at(port), cancellation=cancellation) as association,
    ):
        for _ in ask(association, query):
            pass
    canceller.join()
    assert time.monotonic() - start < 10


def test_stopping_in_a_flood_ends_the_association(peer_at, query, monkeypatch):
    monkeypatch.setattr(exchange, "GRACE_SECONDS", 0.2)
    with raw_peer(Flood()) as port, open_find(peer_at(port)) as association:
        matches = ask(association, query)
        next(matches)
        matches.close()
        assert not association.assoc.is_established


def test_a_peer_has_to_wait_for_who_asked(peer_at, query, monkeypatch):
    """What was not taken yet is bounded, whatever the peer would send."""
    monkeypatch.setattr(exchange, "GRACE_SECONDS", 0.2)
    flood = Flood(size=8000)
    with raw_peer(flood) as port, open_find(peer_at(port, dimse_timeout=30)) as association:
        matches = ask(association, query)
        next(matches)
        assert flood.stalled.wait(20)
        before = flood.sent
        # The kernel holds some of it too, 6 MB at either end.
        assert before < 16 * 1024 * 1024
        # And it goes on where it stopped.
        for _ in range(4000):
            next(matches)
        assert flood.sent > before
        matches.close()
