"""The server of both ways of running: who gets in, how many, for how long, and what observers are told."""

from __future__ import annotations

import gc
import logging
import socket
import ssl
import struct
import threading
import time
import weakref

import pytest
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.acse import ACSE
from pynetdicom.dul import DULServiceProvider
from support.archive import rt_image, sendable
from support.certificates import Authority
from support.ports import is_listening, wait_until
from support.receiving import (
    MemorySink,
    Recorder,
    association_request,
    call,
    connect,
    entry,
    is_closed,
    is_open,
    limits,
    rejection,
    running,
)

from airflow_provider_varian.dimse import library, streaming, tls
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.receiver import conversation, refusals
from airflow_provider_varian.receiver import server as server_module
from airflow_provider_varian.receiver.admission import Admission
from airflow_provider_varian.receiver.observer import Observer
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.uids import RT_IMAGE, VERIFICATION

THREE_BYTES = b"\x01\x00\x00"
A_ABORT = bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0))


@pytest.fixture(params=["streaming", "library"])
def path(request, monkeypatch):
    """Both ways in which objects come: our reading, and pynetdicom's where a name that ours needs is missing."""
    if request.param == "library":
        monkeypatch.setattr(library, "missing_for_streaming", lambda: ["DULServiceProvider.gone"])
    return request.param


def store(association, number=1):
    return association.send_c_store(sendable(rt_image(number))).Status


# What observers are told


def test_an_observer_is_told_everything_in_the_order_in_which_it_happens(path, spool):
    with SpoolSink(spool) as sink, running(sink) as server:
        association = call(server)
        assert [store(association, number) for number in (1, 2)] == [0, 0]
        association.release()
        server.recorder.await_("disconnected")
        calls = server.recorder.calls
    sizes = [call[3] for call in calls if call[0] == "stored"]
    images = [rt_image(1), rt_image(2)]
    assert calls == [
        ("connected", "127.0.0.1"),
        ("associated", 1),
        *(
            ("stored", 1, image.SOPInstanceUID, size, image.StudyInstanceUID)
            for image, size in zip(images, sizes, strict=True)
        ),
        ("ended", 1, "released"),
        ("disconnected", "127.0.0.1"),
    ]
    assert all(size > 100 for size in sizes)


def test_an_object_is_told_of_before_its_sender_is_answered(path):
    with running() as server:
        association = call(server)
        for number in range(20):
            store(association, number)
            assert len(server.recorder.named("stored")) == number + 1
        association.release()


def test_who_is_at_the_other_end_is_told():
    with running(entries=[entry("AIRFLOW")]) as server:
        for calling in ("DB DAEMON", "16 CHARACTERS OK"):
            with connect(server, association_request(calling=calling), source="127.0.0.7") as peer:
                assert peer.recv(1) == b"\x02"
        first, second = server.recorder.facts
    assert (first.number, first.source_address, first.tls_subject) == (1, "127.0.0.7", "")
    assert (first.calling_ae_title, first.called_ae_title) == ("DB DAEMON", "AIRFLOW")
    assert (second.number, second.calling_ae_title) == (2, "16 CHARACTERS OK")


class Failing(Recorder):
    """Fails at everything, after it has written it down."""

    def _note(self, *call):
        super()._note(*call)
        raise RuntimeError("patient Doe")


def test_an_observer_that_fails_harms_nobody(path, caplog):
    failing, well = Failing(), Recorder()
    both = server_module.observers(failing, well)
    with caplog.at_level(logging.ERROR), running(observer=both) as server:
        for number in (1, 2):
            association = call(server)
            assert [store(association, number) for number in (1, 2)] == [0, 0]
            association.release()
            # Two associations at once would be told of in either order, and each observer has its own.
            well.await_("disconnected", number)
    assert failing.calls == well.calls
    assert len(well.named("stored")) == 4
    failures = [record.message for record in caplog.records if "Failing failed to note" in record.message]
    assert len(failures) == 5, "each kind of call once"
    assert "Doe" not in caplog.text


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("aborted", A_ABORT),
        ("cut", b""),
        ("protocol", b"\xff" * 20),
        ("protocol", association_request()),
        ("protocol", struct.pack(">BxI", 4, 1 << 30)),
    ],
)
def test_the_end_of_an_association_is_told_as_it_was(how, words):
    with running() as server:
        with connect(server, association_request()) as peer:
            assert peer.recv(1) == b"\x02"
            peer.sendall(words)
            if words:
                assert is_closed(peer)
        server.recorder.await_("disconnected")
        assert server.recorder.named("ended") == [(1, how)]
        assert server.associations == server.connections == 0


def test_an_association_that_is_silent_for_too_long_is_ended(path):
    with running(limits=limits(idle_seconds=0.3)) as server, connect(server, association_request()) as peer:
        assert is_closed(peer)
        server.recorder.await_("disconnected")
        assert server.recorder.named("ended") == [(1, "timeout")]


def test_somebody_who_hangs_up_at_once_is_neither_refused_nor_associated(path):
    with running() as server:
        connect(server).close()
        connect(server, THREE_BYTES).close()
        server.recorder.await_("disconnected", 2)
        names = [call[0] for call in server.recorder.calls]
        wait_until(lambda: not server.connections, what="both to be forgotten")
    assert {"associated", "ended"}.isdisjoint(names)


# Who gets in


def test_titles_and_networks_are_looked_at_for_each_title(caplog):
    entries = [entry("AIRFLOW", "127.0.0.1"), entry("RESEARCH", "127.0.0.2", calling=["PACS"])]
    answers = {}
    with caplog.at_level(logging.WARNING), running(entries=entries) as server:
        for source, called, calling in [
            ("127.0.0.1", "AIRFLOW", "ANYBODY"),
            ("127.0.0.1", "RESEARCH", "PACS"),
            ("127.0.0.2", "RESEARCH", "PACS"),
            ("127.0.0.2", "RESEARCH", "ANYBODY"),
            ("127.0.0.2", "airflow", "PACS"),
        ]:
            with connect(server, association_request(called, calling), source=source) as peer:
                answers[source[-1], called, calling] = rejection(peer)
        server.recorder.await_("disconnected", 5)
        # Each is told when its connection has ended.
        assert sorted(server.recorder.refusals) == ["called-ae-title", "calling-ae-title", "network"]
        assert [facts.called_ae_title for facts in server.recorder.facts] == ["AIRFLOW", "RESEARCH"]
    assert answers == {
        ("1", "AIRFLOW", "ANYBODY"): None,
        ("1", "RESEARCH", "PACS"): (1, 1, 3),
        ("2", "RESEARCH", "PACS"): None,
        ("2", "RESEARCH", "ANYBODY"): (1, 1, 3),
        ("2", "airflow", "PACS"): (1, 1, 7),
    }
    assert "--allow-from 127.0.0.1 after --ae-title 'RESEARCH'" in caplog.text
    assert "--allow-calling 'ANYBODY' after --ae-title 'RESEARCH'" in caplog.text
    assert "it called 'airflow', and we are 'AIRFLOW', 'RESEARCH'" in caplog.text


def test_a_connection_from_outside_all_networks_is_closed_at_once_and_logged_once(caplog):
    entries = [entry("AIRFLOW", "127.0.0.9"), entry("B", "127.0.0.8")]
    with caplog.at_level(logging.WARNING), running(entries=entries) as server:
        for _ in range(3):
            with connect(server) as peer:
                assert is_closed(peer)
        server.recorder.await_("disconnected", 3)
        assert server.recorder.refusals == ["network"] * 3
        assert server.inbound == 3
        with connect(server, association_request("B"), source="127.0.0.8") as peer:
            assert rejection(peer) is None
    said = [record.message for record in caplog.records if "--allow-from" in record.message]
    assert len(said) == 1
    assert "127.0.0.8/32, 127.0.0.9/32 may" in said[0]
    assert said[0].endswith("--allow-from 127.0.0.1")


@pytest.mark.parametrize(("application", "answer"), [("1.2.840.10008.3.1.1.1", None), ("1.2.3.4", (1, 1, 2))])
def test_another_application_than_dicoms_is_rejected(application, answer):
    with running() as server, connect(server, association_request(application=application)) as peer:
        assert rejection(peer) == answer
        if answer:
            server.recorder.await_("refused")
            assert server.recorder.refusals == ["protocol"]


def test_who_cannot_be_judged_is_not_let_in(monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("patient Doe")

    monkeypatch.setattr(Admission, "judge", fail)
    with running() as server, connect(server, association_request()) as peer:
        assert rejection(peer) == (2, 1, 1)
        server.recorder.await_("disconnected")
        assert server.recorder.refusals == ["protocol"]
    assert "Doe" not in caplog.text


def test_an_association_that_cannot_be_made_ours_does_not_come_to_be(monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(streaming, "attach", fail)
    with running() as server, connect(server, association_request()) as peer:
        assert is_closed(peer)
        wait_until(lambda: not server.connections, what="it to be forgotten")
        assert server.recorder.facts == []
    assert "cannot be served: RuntimeError" in caplog.text


# How many


def test_a_full_house_is_told_to_come_back(path, caplog):
    with running(limits=limits(associations=1)) as server:
        first = call(server)
        assert store(first) == 0
        for _ in range(2):
            with connect(server, association_request()) as peer:
                assert rejection(peer) == (2, 3, 2)
        assert store(first, 2) == 0
        first.release()
        server.recorder.await_("disconnected", 3)
        assert server.recorder.refusals == ["too-many-associations"] * 2
    said = [record.message for record in caplog.records if "--max-associations" in record.message]
    assert said == [
        "127.0.0.1: an association was rejected for now, since 1 are open (--max-associations)",
    ]


def test_a_place_is_free_when_its_release_is_answered(path):
    with running(limits=limits(associations=1)) as server:
        for _ in range(15):
            with connect(server, association_request()) as peer:
                assert peer.recv(4096)[:1] == b"\x02"
                peer.sendall(struct.pack(">BxIxxxx", 5, 4))
                assert peer.recv(4096)[:1] == b"\x06"
        assert server.recorder.refusals == []


def test_one_source_leaves_room_for_others():
    with running(limits=limits(associations=3, associations_per_source=2)) as server:
        held = [connect(server, association_request(), source="127.0.0.3") for _ in range(2)]
        assert [peer.recv(1) for peer in held] == [b"\x02"] * 2
        with connect(server, association_request(), source="127.0.0.3") as third:
            assert rejection(third) == (2, 3, 2)
        with connect(server, association_request(), source="127.0.0.4") as other:
            assert rejection(other) is None
        server.recorder.await_("refused")
        assert server.recorder.refusals == ["too-many-of-source"]
        for peer in held:
            peer.close()


@pytest.mark.parametrize("words", [b"", THREE_BYTES])
def test_peers_that_stop_never_keep_a_good_one_out(path, words):
    with running(limits=limits(connections=6)) as server:
        stalled = [connect(server, words) for _ in range(40)]
        for number in range(8):
            association = call(server)
            assert association.is_established
            assert store(association, number) == 0
            association.release()
        wait_until(lambda: server.connections <= 6)
        open_yet = [peer for peer in stalled if is_open(peer)]
        assert len(open_yet) <= 6
        assert all(peer in stalled[-6:] for peer in open_yet), "the oldest made room"
        assert set(server.recorder.refusals) == {"too-many-connections"}
        for peer in stalled:
            peer.close()


def test_an_association_is_not_closed_for_a_new_connection():
    with running(limits=limits(connections=2)) as server:
        held = [connect(server, association_request()) for _ in range(2)]
        assert [peer.recv(1) for peer in held] == [b"\x02"] * 2
        with connect(server, association_request()) as third:
            assert is_closed(third)
        server.recorder.await_("refused")
        assert server.recorder.refusals == ["too-many-connections"]
        assert server.associations == 2
        for peer in held:
            peer.close()


def test_a_source_with_too_many_connections_makes_room_of_its_own():
    with running(limits=limits(connections=5, connections_per_source=2)) as server:
        other = connect(server, source="127.0.0.5")
        first, second, third = [connect(server, source="127.0.0.6") for _ in range(3)]
        assert is_closed(first)
        server.recorder.await_("refused")
        assert server.recorder.refusals == ["too-many-of-source"]
        assert [is_open(peer) for peer in (other, second, third)] == [True] * 3
        for peer in (other, first, second, third):
            peer.close()


# For how long


@pytest.mark.parametrize("words", [b"", THREE_BYTES, association_request()[:-1]])
def test_who_asks_for_no_association_is_closed_in_time(path, words):
    with running(limits=limits(association_seconds=0.4)) as server, connect(server, words) as peer:
        assert is_closed(peer)
        server.recorder.await_("disconnected")
        assert server.recorder.refusals == ["timeout"]


def test_who_asks_byte_by_byte_is_closed_in_time(path):
    with running(limits=limits(association_seconds=0.6)) as server, connect(server) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def drip():
            for byte in association_request():
                try:
                    peer.sendall(bytes((byte,)))
                except OSError:
                    return
                time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        assert is_closed(peer)
        server.recorder.await_("disconnected")
        assert server.recorder.refusals == ["timeout"]
        assert server.recorder.facts == []


def test_many_that_stop_are_all_sent_away_in_time():
    others = set(threading.enumerate())
    with running(limits=limits(connections=200, connections_per_source=200, association_seconds=1.0)) as server:
        stalled = [connect(server, THREE_BYTES) for _ in range(60)]
        assert all(is_closed(peer) for peer in stalled)
        wait_until(lambda: not server.connections, what="all to be forgotten")
        assert threads_of_connections() <= others
        for peer in stalled:
            peer.close()


def test_nothing_is_kept_of_an_association_that_has_ended():
    with running() as server:
        kept = []
        for how in (association_request(), THREE_BYTES):
            peer = connect(server, how)
            wait_until(lambda: server._connections.all() and server._connections.all()[0].association)
            kept.append(weakref.ref(server._connections.all()[0].association))
            peer.close()
            wait_until(lambda: not server.connections, what="it to be forgotten")
        assert server._of_association == {}
        wait_until(lambda: gc.collect() is not None and not any(each() for each in kept), what="them to be gone")


def test_a_reading_thread_that_starts_slowly_is_not_taken_for_one_that_has_ended(monkeypatch):
    start = DULServiceProvider.start

    def start_slowly(dul):
        time.sleep(0.3)
        start(dul)

    # A thread has its number a moment before it is alive.
    monkeypatch.setattr(DULServiceProvider, "ident", property(lambda _: 1))
    monkeypatch.setattr(DULServiceProvider, "start", start_slowly)
    with running() as server, connect(server, association_request()) as peer:
        assert peer.recv(1) == b"\x02"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_connection_does_not_outlive_an_association_that_has_failed(path, monkeypatch, caplog):
    def fail(_acse):
        raise IndexError("as the library has failed at what a peer sent")

    class Watching(Recorder):
        def disconnected(self, source):
            reading.extend(each for each in threading.enumerate() if isinstance(each, DULServiceProvider))
            super().disconnected(source)

    reading = []
    monkeypatch.setattr(ACSE, "negotiate_association", fail)
    monkeypatch.setattr(conversation, "_LATE_SECONDS", 0.1)
    short = limits(association_seconds=0.3)
    with running(limits=short, observer=Watching()) as server, connect(server, association_request()) as peer:
        assert is_closed(peer)
        wait_until(lambda: not server.connections, what="it to be forgotten")
        assert reading == []
    assert "did not end with its association" in caplog.text


def threads_of_connections():
    """Those of other servers, which tests before have left to end by themselves, are among them."""
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "dicom-connection"])
    return {each for each in threading.enumerate() if "AcceptorThread" in each.name}


# TLS


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def secured(authority):
    """Contexts of a receiver that demands a certificate, of one that demands none, and of a client that has one."""
    ours, theirs = authority.issue("receiver"), authority.issue("sender")
    settings = TlsSettings(ca_certificate=authority.certificate, certificate=ours.certificate, private_key=ours.key)
    return {
        "mutual": tls.server_context(settings),
        "one-sided": tls.server_context(settings, demand_certificate=False),
        "client": tls.client_context(
            TlsSettings(ca_certificate=authority.certificate, certificate=theirs.certificate, private_key=theirs.key)
        ),
        "nobody": tls.client_context(TlsSettings(ca_certificate=authority.certificate)),
    }


def test_the_subject_of_a_certificate_is_told(secured):
    with running(tls_context=secured["mutual"]) as server:
        association = call(server, tls=(secured["client"], "receiver"))
        assert store(association) == 0
        association.release()
        server.recorder.await_("disconnected")
        assert [facts.tls_subject for facts in server.recorder.facts] == ["CN=sender"]


def test_a_certificate_is_demanded_where_an_authority_is_given_and_nowhere_else(secured, caplog):
    with running(tls_context=secured["one-sided"]) as server:
        association = call(server, tls=(secured["nobody"], "receiver"))
        assert store(association) == 0
        association.release()
    with running(tls_context=secured["mutual"]) as server:
        assert not call(server, tls=(secured["nobody"], "receiver")).is_established
        server.recorder.await_("disconnected")
        assert server.recorder.refusals == ["tls"]
    assert "it showed no certificate" in caplog.text


def test_tls_older_than_1_2_is_refused(secured):
    assert {secured[name].minimum_version for name in secured} == {ssl.TLSVersion.TLSv1_2}


def test_plain_dicom_on_a_port_of_tls_is_told_as_that(secured, caplog):
    with running(tls_context=secured["mutual"]) as server, connect(server, association_request()) as peer:
        assert is_closed(peer)
        server.recorder.await_("disconnected")
        assert server.recorder.refusals == ["tls"]
    assert "plain DICOM on a port of TLS" in caplog.text


def test_tls_on_a_plain_port_is_told_as_that(secured, caplog):
    with running() as server:
        assert not call(server, tls=(secured["client"], "receiver")).is_established
        server.recorder.await_("disconnected")
        assert server.recorder.refusals == ["protocol"]
    assert "speaks TLS, and this port does not" in caplog.text


def test_silent_tls_peers_keep_nobody_waiting(secured):
    with running(tls_context=secured["mutual"], limits=limits(connections=6)) as server:
        silent = [connect(server) for _ in range(10)]
        started = time.monotonic()
        association = call(server, tls=(secured["client"], "receiver"))
        assert association.is_established
        assert time.monotonic() - started < 5, "not after the 60 s that a handshake may take"
        association.release()
        for peer in silent:
            peer.close()


def test_a_handshake_has_its_time(secured):
    with (
        running(tls_context=secured["mutual"], limits=limits(handshake_seconds=0.3)) as server,
        connect(server, b"\x16\x03\x01") as peer,
    ):
        assert is_closed(peer)
        server.recorder.await_("disconnected")
        assert server.recorder.refusals == ["tls"]


# The end


def test_a_drain_lets_associations_finish_and_nobody_new_in(path):
    with running() as server:
        association = call(server)
        pending = connect(server)
        wait_until(lambda: server.connections == 2)
        drained = []
        drain = threading.Thread(target=lambda: drained.append(server.drain(60)))
        drain.start()
        wait_until(lambda: not is_listening(server.address[1]), what="the port to be given back")
        assert not server.is_listening
        pending.sendall(association_request())
        assert rejection(pending) == (2, 3, 1)
        assert store(association) == 0
        assert drained == []
        association.release()
        drain.join(30)
        assert drained == [True]
        server.recorder.await_("disconnected", 2)
        assert server.recorder.refusals == ["stopping"]
        pending.close()


def test_what_does_not_end_in_time_is_aborted(path):
    with running() as server:
        peer = connect(server, association_request())
        assert peer.recv(4096)[:1] == b"\x02"
        assert not server.drain(0.05)
        server.stop()
        assert peer.recv(10)[:1] == b"\x07"
        assert is_closed(peer)
        peer.close()
        assert server.recorder.named("ended") == [(1, "stopped")]
        assert server.recorder.named("disconnected") == [("127.0.0.1",)]


def test_a_stop_does_not_wait_for_a_peer_in_the_middle_of_an_object(path):
    with running() as server:
        peer = connect(server, association_request())
        assert peer.recv(4096)[:1] == b"\x02"
        peer.sendall(struct.pack(">BxI", 4, 10000) + b"\0\0\1\0\1\3")
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 20, "not the 60 s that the rest of a PDU may take"
        assert is_closed(peer)
        peer.close()
        assert server.sink.objects == []


def test_the_port_is_given_back(path):
    with running() as server:
        port = server.address[1]
    assert not is_listening(port)
    server.stop()


# What is announced, and what goes wrong


def test_the_maximum_pdu_is_announced():
    with running(max_pdu=5000) as server:
        association = call(server)
        assert association.acceptor.maximum_length == 5000
        association.release()


def test_associations_share_the_contexts_and_leave_them_as_they_are():
    with running() as server:
        before = [(each.abstract_syntax, list(each.transfer_syntax)) for each in server._listener.contexts]
        for contexts in ((RT_IMAGE,), (VERIFICATION,)):
            association = call(server, contexts=contexts)
            assert [each.abstract_syntax for each in association.accepted_contexts] == list(contexts)
            assert association.accepted_contexts[0].transfer_syntax == [ImplicitVRLittleEndian]
            (connection,) = server._connections.all()
            assert connection.association.acceptor._contexts is server._listener.contexts
            association.release()
            wait_until(lambda: not server.connections)
        assert [(each.abstract_syntax, list(each.transfer_syntax)) for each in server._listener.contexts] == before
        with running() as another:
            assert another._listener.contexts is server._listener.contexts


def test_a_connection_for_which_there_is_no_thread_is_closed_and_forgotten(monkeypatch):
    with running() as server:
        start = threading.Thread.start

        def fail(thread):
            if thread.name == "dicom-connection":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", fail)
        with connect(server) as peer:
            assert is_closed(peer)
        monkeypatch.undo()
        assert server.connections == 0
        association = call(server)
        assert association.is_established
        association.release()


def test_who_accepts_goes_on_when_there_are_no_descriptors_left(caplog):
    class Exhausted:
        """A listening socket that has nothing to accept with, three times."""

        def __init__(self, real):
            self.real, self.times = real, 3

        def __getattr__(self, name):
            return getattr(self.real, name)

        def accept(self):
            self.times -= 1
            if self.times >= 0:
                raise OSError(24, "Too many open files")
            return self.real.accept()

    with caplog.at_level(logging.ERROR), running() as server:
        server._door._socket = Exhausted(server._door._socket)
        association = call(server)
        assert association.is_established
        association.release()
    assert len([record for record in caplog.records if "Too many open files" in record.message]) == 1


def test_refused_connections_are_told_of_by_a_thread_that_may_wait():
    """An observer that hangs keeps nobody from being accepted."""
    go_on = threading.Event()

    class Slow(Observer):
        def refused(self, source, reason):
            go_on.wait(60)

    with running(entries=[entry("AIRFLOW", "127.0.0.2")], observer=Slow()) as server:
        for _ in range(3):
            with connect(server) as refused:
                assert is_closed(refused)
        association = call(server, source="127.0.0.2")
        assert association.is_established
        association.release()
        go_on.set()


def test_of_a_flood_of_refusals_the_rest_is_counted(monkeypatch, caplog):
    monkeypatch.setattr(refusals, "_WAITING", 3)
    go_on, noted = threading.Event(), []
    at_the_door = refusals.Refusals.at_the_door

    def note(*those):
        at_the_door(*those)
        noted.append(those)

    monkeypatch.setattr(refusals.Refusals, "at_the_door", note)

    class Slow(Recorder):
        def connected(self, source):
            go_on.wait(60)

    with caplog.at_level(logging.WARNING), running(entries=[entry("A", "127.0.0.2")], observer=Slow()) as server:
        for _ in range(20):
            with connect(server) as refused:
                assert is_closed(refused)
        # A caller sees the end before it is noted here.
        wait_until(lambda: len(noted) == 20, what="all to be noted")
        go_on.set()
        wait_until(lambda: "more connections were refused" in caplog.text, what="the rest to be told of")
        told = len(server.recorder.refusals)
    assert 3 <= told <= 4
    assert f"{20 - told} more connections were refused" in caplog.text


def test_observers_of_observers_are_told_once_each():
    first, second = Recorder(), Recorder()
    server_module.observers(first, server_module.observers(second)).connected("10.0.0.1")
    assert first.calls == second.calls == [("connected", "10.0.0.1")]


def test_an_object_that_the_peer_does_not_finish_is_told_of():
    with running(MemorySink()) as server:
        peer = connect(server, association_request())
        assert peer.recv(4096)[:1] == b"\x02"
        command = c_store_request(rt_image(1).SOPInstanceUID)
        peer.sendall(struct.pack(">BxI", 4, len(command) + 6) + struct.pack(">IBB", len(command) + 2, 1, 3) + command)
        peer.sendall(struct.pack(">BxI", 4, 16) + struct.pack(">IBB", 12, 1, 0) + bytes(10))
        peer.close()
        server.recorder.await_("disconnected")
        assert server.recorder.named("not_stored") == [(1, rt_image(1).SOPInstanceUID, None)]
        assert server.sink.objects == []
        assert server.sink.abandoned == 1


def c_store_request(uid):
    """Return the command set of a C-STORE-RQ (PS3.7 9.3.1.1)."""

    def element(number, value):
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    elements = [
        element(0x0002, RT_IMAGE.encode()),
        element(0x0100, struct.pack("<H", 1)),
        element(0x0110, struct.pack("<H", 1)),
        element(0x0700, struct.pack("<H", 0)),
        element(0x0800, struct.pack("<H", 1)),
        element(0x1000, uid.encode()),
    ]
    rest = b"".join(elements)
    return element(0x0000, struct.pack("<I", len(rest))) + rest
