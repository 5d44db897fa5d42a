"""C-GET: objects reach the sink as they came, and what did not is not claimed."""

from __future__ import annotations

import threading
import time

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import evt
from support.raw_peer import C_STORE_RQ, element, raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.dimse.sink import StorageRefused
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    ContextRejectedError,
    PeerTimeoutError,
    RefusedByPeerError,
)


class MemorySink:
    """Keeps what was committed: SOP Instance UID -> (request, bytes)."""

    def __init__(self, refuse=None):
        self.committed = {}
        self.abandoned = 0
        self.refuse = refuse

    def begin(self, request):
        if self.refuse:
            raise self.refuse
        return MemoryObject(self, request)


class MemoryObject:
    def __init__(self, sink, request):
        self.sink, self.request, self.data = sink, request, b""

    def write(self, data):
        self.data += bytes(data)

    def commit(self):
        self.sink.committed[self.request.sop_instance_uid] = (self.request, self.data)

    def abandon(self):
        if self.request.sop_instance_uid not in self.sink.committed:
            self.sink.abandoned += 1


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
            time.sleep(0.2)
            wire.send_fragment(context, OBJECT[number * 10 : number * 10 + 10], last=False)
        wire.send_fragment(context, OBJECT[60:], last=True)
        assert wire.read_message()[0]["status"] == 0x0000
        wire.respond(request, 0x0000, completed=1)

    sink = MemorySink()
    with raw_peer(player(script)) as port:
        get_from(peer_at(port, dimse_timeout=1.0), identifier, sink)
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
