"""C-GET: objects reach the sink as they came, and what did not is not claimed."""

from __future__ import annotations

import threading
import time

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_GET
from support.ports import wait_until
from support.raw_peer import C_STORE_RQ, element, raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts, library, streaming
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.command_set import C_GET_RQ
from airflow_provider_varian.dimse.exchange import exchange
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.dimse.sink import StorageRefused
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    ContextRejectedError,
    PeerTimeoutError,
    RefusedByPeerError,
)


@pytest.fixture(params=[[], ["DULServiceProvider._recv_pdu"]], ids=["streamed", "library"], autouse=True)
def path(request, monkeypatch):
    """Both ways of receiving."""
    monkeypatch.setattr(library, "missing_for_streaming", lambda: request.param)
    return request.param


class MemorySink:
    """Keeps what was committed: SOP Instance UID -> (request, bytes)."""

    def __init__(self, refuse=None):
        self.committed = {}
        self.refuse = refuse
        self.commit_seconds = 0.0
        #: How many were begun, and how many of them are neither committed nor abandoned.
        self.begun = self.open = 0

    def begin(self, request):
        if self.refuse:
            raise self.refuse
        self.begun += 1
        self.open += 1
        return MemoryObject(self, request)


class MemoryObject:
    def __init__(self, sink, request):
        self.sink, self.request, self.data, self.over = sink, request, b"", False

    def write(self, data):
        self.data += bytes(data)

    def commit(self):
        time.sleep(self.sink.commit_seconds)
        self.sink.committed[self.request.sop_instance_uid] = (self.request, self.data)

    def abandon(self):
        self.sink.open -= not self.over
        self.over = True


@pytest.fixture
def identifier():
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.SeriesInstanceUID = "1.2.3"
    return keys


def get_from(peer, identifier, sink, *, classes=(uids.RT_IMAGE,), cancellation=None, **options):
    proposed = contexts.get(uids.STUDY_ROOT_GET, classes)
    with associate(peer, proposed, step="C-GET", cancellation=cancellation) as association:
        return get(association, uids.STUDY_ROOT_GET, identifier, sink=sink, **options)


def rt_image(uid, sop_class=uids.RT_IMAGE):
    image = Dataset()
    image.SOPClassUID = sop_class
    image.SOPInstanceUID = uid
    image.PatientID = "QA_TB_WL"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = sop_class
    image.file_meta.MediaStorageSOPInstanceUID = uid
    return image


OBJECT = element(0x00080016, uids.RT_IMAGE.encode()) + element(0x00080018, b"1.2.3.9") + element(0x00100020, b"QA")


def send_object(wire, request, uid="1.2.3.9", data=OBJECT, sop_class=uids.RT_IMAGE, context=None):
    """Send a C-STORE on the association of a C-GET and return the answer."""
    context = context or next(number for number, known in wire.contexts.items() if known == sop_class)
    wire.send(
        context,
        data,
        command=C_STORE_RQ,
        message_id=7,
        affected_class=sop_class,
        affected_instance=uid,
    )
    return wire.read_message()[0]


def player(script):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        script(wire, request)
        wire.wait_for_end()

    return play


@pytest.mark.parametrize("sop_class", [uids.RT_IMAGE, uids.VARIAN_HALCYON_RT_PLAN])
def test_objects_of_a_pynetdicom_peer_reach_the_sink(scp, peer_at, identifier, sop_class):
    def handle(event):
        yield 3
        for number in range(3):
            yield 0xFF00, rt_image(f"1.2.3.{number}", sop_class)

    port = scp([(evt.EVT_C_GET, handle)], storage=True)
    sink, progress = MemorySink(), []
    report = get_from(peer_at(port), identifier, sink, on_progress=progress.append)
    assert (report.status, report.completed, report.failed) == (0x0000, 3, 0)
    assert sorted(sink.committed) == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert [step.remaining for step in progress] == [2, 1, 0]
    request, data = sink.committed["1.2.3.0"]
    assert request.sop_class_uid == sop_class
    assert request.transfer_syntax_uid == uids.IMPLICIT_VR_LITTLE_ENDIAN
    assert (request.calling_ae_title, request.called_ae_title) == ("VMSDBD", "AIRFLOW")
    assert request.source_address == "127.0.0.1"
    assert element(0x00100020, b"QA_TB_WL") in data


def test_bytes_are_handed_on_as_they_came(peer_at, identifier):
    odd = OBJECT + b"\x11\x00\x11\x00\x03\x00\x00\x00odd"  # a private element of odd length stays as it is

    def script(wire, request):
        answer = send_object(wire, request, data=odd)
        assert answer["status"] == 0x0000
        assert answer["affected_instance"] == "1.2.3.9"
        wire.respond(request, 0x0000, completed=1)

    sink = MemorySink()
    with raw_peer(player(script)) as port:
        get_from(peer_at(port), identifier, sink)
    assert sink.committed["1.2.3.9"][1] == odd


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (StorageRefused(0xA900, "does not match"), 0xA900),
        (OSError(28, "No space left on device"), 0xA700),
        (ZeroDivisionError(), 0xC000),
    ],
    ids=["refused", "disk full", "bug"],
)
def test_what_the_sink_cannot_take_is_answered_with_a_failure(peer_at, identifier, problem, status):
    answers = []

    def script(wire, request):
        answers.append(send_object(wire, request))
        wire.respond(request, 0xB000, completed=0, failed=1)

    sink = MemorySink(refuse=problem)
    with raw_peer(player(script)) as port:
        report = get_from(peer_at(port), identifier, sink)
    assert answers[0]["status"] == status
    assert answers[0]["comment"]
    assert report.failed == 1
    assert sink.committed == {}


def test_object_in_a_context_of_another_class_is_refused(peer_at, identifier):
    answers = []

    def script(wire, request):
        dose = next(number for number, known in wire.contexts.items() if known == uids.RT_DOSE)
        answers.append(send_object(wire, request, context=dose))
        answers.append(send_object(wire, request, context=request["context"]))
        wire.respond(request, 0x0000, completed=0)

    sink = MemorySink()
    with raw_peer(player(script)) as port:
        get_from(peer_at(port), identifier, sink)
    assert [answer["status"] for answer in answers] == [0x0122, 0x0122]
    assert sink.committed == {}


def test_a_peer_that_dies_within_an_object_leaves_no_fragment(peer_at, identifier):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        send_object(wire, request)
        context = next(number for number, known in wire.contexts.items() if known == uids.RT_IMAGE)
        pdus = wire.message(
            context, OBJECT, command=C_STORE_RQ, message_id=8, affected_class=uids.RT_IMAGE, affected_instance="1.2.4"
        )
        wire.socket.sendall(pdus[0] + pdus[1][:-10])

    sink = MemorySink()
    with raw_peer(play) as port, pytest.raises(AssociationAbortedError):
        get_from(peer_at(port), identifier, sink)
    assert list(sink.committed) == ["1.2.3.9"]


def test_an_object_that_takes_longer_than_the_message_timeout_is_no_silence(peer_at, identifier):
    def script(wire, request):
        context = next(number for number, known in wire.contexts.items() if known == uids.RT_IMAGE)
        command, *_ = wire.message(
            context, b"", command=C_STORE_RQ, message_id=7, affected_class=uids.RT_IMAGE, affected_instance="1.2.3.9"
        )
        wire.socket.sendall(command)
        for number in range(6):
            time.sleep(0.6)
            wire.send_fragment(context, OBJECT[number * 10 : number * 10 + 10], last=False)
        wire.send_fragment(context, OBJECT[60:], last=True)
        assert wire.read_message()[0]["status"] == 0x0000
        wire.respond(request, 0x0000, completed=1)

    sink = MemorySink()
    with raw_peer(player(script)) as port:
        get_from(peer_at(port, dimse_timeout=3.0), identifier, sink)
    assert sink.committed["1.2.3.9"][1] == OBJECT


def test_a_peer_that_grants_no_role_but_sends_all_the_same(peer_at, identifier):
    def play(wire):
        wire.accept(roles=False)
        request, _ = wire.read_message()
        assert send_object(wire, request)["status"] == 0x0000
        wire.respond(request, 0x0000, completed=1)
        wire.wait_for_end()

    sink = MemorySink()
    with raw_peer(play) as port:
        get_from(peer_at(port), identifier, sink)
    assert "1.2.3.9" in sink.committed


def test_a_pynetdicom_peer_that_aborts_in_its_handler(scp, peer_at, identifier):
    def handle(event):
        yield 2
        yield 0xFF00, rt_image("1.2.3.0")
        event.assoc.abort()
        yield 0xFF00, rt_image("1.2.3.1")

    port = scp([(evt.EVT_C_GET, handle)], storage=True)
    sink = MemorySink()
    with pytest.raises(AssociationAbortedError, match="aborted"):
        get_from(peer_at(port), identifier, sink)
    assert list(sink.committed) == ["1.2.3.0"]


def test_refused_keys_are_an_error(peer_at, identifier):
    refused = pytest.raises(RefusedByPeerError, match="identifier does not match SOP class")
    with raw_peer(player(lambda wire, request: wire.respond(request, 0xA900))) as port, refused:
        get_from(peer_at(port), identifier, MemorySink())


def test_other_failures_are_reported(peer_at, identifier):
    with raw_peer(player(lambda wire, request: wire.respond(request, 0xC001, failed=4))) as port:
        report = get_from(peer_at(port), identifier, MemorySink())
    assert (report.status, report.failed) == (0xC001, 4)


def test_a_peer_without_c_get_says_to_move(scp, peer_at, identifier):
    port = scp(services=[uids.VERIFICATION], storage=True)
    with pytest.raises(ContextRejectedError, match="retrieve_method to move"):
        get_from(peer_at(port), identifier, MemorySink())


def test_deadline_bounds_a_peer_that_sends_for_ever(peer_at, identifier):
    def script(wire, request):
        while True:
            send_object(wire, request)

    with raw_peer(player(script)) as port, pytest.raises(PeerTimeoutError, match=r"not finished within 0\.5 s"):
        get_from(peer_at(port), identifier, MemorySink(), deadline=0.5)


def test_objects_on_their_way_are_still_taken_after_a_cancellation(peer_at, identifier):
    cancellation, cancelled = Cancellation(), threading.Event()
    seen = []

    def script(wire, request):
        wire.respond(request, 0xFF00, remaining=2, completed=0)
        wire.read_message()  # the C-CANCEL
        cancelled.set()
        seen.append(send_object(wire, request)["status"])
        wire.respond(request, 0xFE00, remaining=1, completed=1)

    sink = MemorySink()
    with raw_peer(player(script)) as port, pytest.raises(CancelledError):
        get_from(
            peer_at(port), identifier, sink, cancellation=cancellation, on_progress=lambda _: cancellation.cancel()
        )
    assert seen == [0x0000]
    assert "1.2.3.9" in sink.committed


def store_pdus(wire, data, uid="1.2.3.9"):
    context = next(number for number, known in wire.contexts.items() if known == uids.RT_IMAGE)
    command, *_ = wire.message(
        context, b"", command=C_STORE_RQ, message_id=7, affected_class=uids.RT_IMAGE, affected_instance=uid
    )
    return context, command


def test_both_paths_are_there(scp, peer_at, path):
    proposed = contexts.get(uids.STUDY_ROOT_GET, [uids.RT_IMAGE])
    with associate(peer_at(scp(storage=True)), proposed, step="C-GET") as association:
        assert (streaming.of(association.assoc) is None) is bool(path)


@pytest.mark.parametrize("path", [[]], ids=["streamed"], indirect=True)
def test_a_cancellation_is_told_in_the_middle_of_an_object(peer_at, identifier):
    cancellation, seen = Cancellation(), []

    def script(wire, request):
        context, command = store_pdus(wire, OBJECT)
        wire.socket.sendall(command)
        wire.send_fragment(context, OBJECT[:20], last=False)
        wire.socket.sendall(b"\4\0\0")  # and a PDU has begun
        cancellation.cancel()
        seen.append(wire.read_message()[0]["command"])
        item = (len(OBJECT) - 18).to_bytes(4, "big") + bytes([context, 2]) + OBJECT[20:]
        wire.socket.sendall(len(item).to_bytes(4, "big")[1:] + item)
        seen.append(wire.read_message()[0]["status"])
        wire.respond(request, 0xFE00, remaining=1, completed=1)

    sink = MemorySink()
    with raw_peer(player(script)) as port, pytest.raises(CancelledError):
        get_from(peer_at(port), identifier, sink, cancellation=cancellation)
    assert seen == [0x0FFF, 0x0000]
    assert sink.committed["1.2.3.9"][1] == OBJECT


@pytest.mark.parametrize("settings", [{"retrieve_deadline": 0.5}, {"dimse_timeout": 0.5}], ids=["deadline", "silence"])
def test_an_object_that_does_not_come_to_its_end_leaves_no_fragment(peer_at, identifier, settings):
    def script(wire, request):
        context, command = store_pdus(wire, OBJECT)
        wire.socket.sendall(command)
        wire.send_fragment(context, OBJECT[:20], last=False)

    sink = MemorySink()
    with raw_peer(player(script)) as port, pytest.raises(PeerTimeoutError):
        get_from(peer_at(port, **settings), identifier, sink)
    assert sink.committed == {}
    assert sink.open == 0


def test_the_end_of_a_get_waits_for_the_last_object(peer_at, identifier):
    def script(wire, request):
        context, command = store_pdus(wire, OBJECT)
        wire.socket.sendall(command)
        wire.send_fragment(context, OBJECT, last=True)
        # At once, without waiting for the answer.
        wire.respond(request, 0x0000, completed=1)

    sink = MemorySink()
    sink.commit_seconds = 0.3
    with raw_peer(player(script)) as port:
        get_from(peer_at(port), identifier, sink)
        assert list(sink.committed) == ["1.2.3.9"]


def test_a_cut_within_an_object_leaves_no_fragment(peer_at, identifier):
    def play(wire):
        wire.accept()
        wire.read_message()
        context, command = store_pdus(wire, OBJECT)
        wire.socket.sendall(command)
        wire.send_fragment(context, OBJECT[:20], last=False)

    sink = MemorySink()
    with raw_peer(play) as port, pytest.raises(AssociationAbortedError):
        get_from(peer_at(port), identifier, sink)
    assert (sink.committed, sink.open) == ({}, 0)


def test_a_sink_is_left_alone_once_the_get_is_over(peer_at, identifier):
    """A peer that goes on sending afterwards is not our sink's business."""
    over = threading.Event()

    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.respond(request, 0x0000, completed=0)
        assert over.wait(10)
        context, command = store_pdus(wire, OBJECT)
        wire.socket.sendall(command)
        wire.send_fragment(context, OBJECT, last=True)
        wire.wait_for_end()

    def ask_twice(association):
        get(association, uids.STUDY_ROOT_GET, identifier, sink=sink)
        over.set()
        wait_until(lambda: not association.assoc.dimse.msg_queue.empty())
        with exchange(association, "C-GET", uids.STUDY_ROOT_GET, C_GET) as running:
            running.send(C_GET_RQ, identifier)
            with pytest.raises(AssociationAbortedError, match="C-STORE message that answers nothing"):
                running.receive(C_GET)

    sink = MemorySink()
    proposed = contexts.get(uids.STUDY_ROOT_GET, [uids.RT_IMAGE])
    with raw_peer(play) as port, associate(peer_at(port), proposed, step="C-GET") as association:
        ask_twice(association)
    assert sink.begun == 0


def test_other_messages_and_objects_in_turn(peer_at, identifier):
    def script(wire, request):
        for number in range(20):
            assert send_object(wire, request, uid=f"1.2.3.{number}")["status"] == 0x0000
            wire.respond(request, 0xFF00, remaining=19 - number, completed=number + 1)
        wire.respond(request, 0x0000, completed=20)

    sink, progress = MemorySink(), []
    with raw_peer(player(script)) as port:
        report = get_from(peer_at(port), identifier, sink, on_progress=progress.append)
    assert report.completed == len(sink.committed) == 20
    assert [each.remaining for each in progress] == list(range(19, -1, -1))
