"""The receiver inside a task: who may send, what is answered, and the port."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from support.archive import rt_image, sendable
from support.certificates import Authority
from support.parking import PARKED
from support.ports import is_listening, wait_until

from airflow_provider_varian.dimse import tls
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer, TlsSettings
from airflow_provider_varian.errors import (
    CancelledError,
    ConfigurationError,
    PeerUnreachableError,
    ReceiverUnavailableError,
)
from airflow_provider_varian.receiver.in_task import InTaskReceiver
from airflow_provider_varian.receiver.listener import Listener
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.uids import RT_IMAGE, VARIAN_HALCYON_RT_PLAN, VERIFICATION


def peer_with(**settings):
    defaults = {
        "host": "127.0.0.1",
        "port": 104,
        "called_ae_title": "VMSDBD",
        "receiver_host": "127.0.0.1",
        "receiver_port": 0,
        "network_timeout": 5.0,
        "connect_timeout": 1.0,
    }
    return Peer(**(defaults | settings))


@pytest.fixture
def sink(spool):
    with SpoolSink(spool) as opened:
        yield opened


@pytest.fixture
def receiver(sink):
    with InTaskReceiver(peer_with(), sink) as running:
        yield running


def call(receiver, *, called="AIRFLOW", contexts=((RT_IMAGE, ImplicitVRLittleEndian),), tls_args=None):
    ae = AE("ANYBODY")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
    for abstract, transfer in contexts:
        ae.add_requested_context(abstract, transfer)
    return ae.associate(*receiver.address, ae_title=called, tls_args=tls_args, evt_handlers=PARKED)


def is_hung_up_on(receiver, *, tls_context=None):
    """Say whether the receiver ends a connection on which an association request is made."""
    with socket.create_connection(receiver.address, timeout=10) as plain:
        try:
            with tls_context.wrap_socket(plain, server_hostname="airflow") if tls_context else plain as opened:
                opened.sendall(b"\x01\x00\x00\x00\x00\x44" + bytes(68))
                return opened.recv(1) == b""
        except OSError:
            return True


def test_a_store_is_durable_when_it_is_answered(receiver, spool):
    assoc = call(receiver)
    status = assoc.send_c_store(sendable(rt_image(1))).Status
    here = [item.sop_instance_uid for item in spool.unclaimed()]
    assoc.release()
    assert status == 0x0000
    assert here == [rt_image(1).SOPInstanceUID]
    assert receiver.saw_inbound
    assert receiver.accepted == 1


def test_the_answer_is_sent_after_everything_is_on_disk(receiver, monkeypatch):
    calls = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), calls.append("fsync"))[0])
    monkeypatch.setattr(os, "rename", lambda *args: (rename(*args), calls.append("rename"))[0])
    assoc = call(receiver)
    (connection,) = receiver._server._connections.all()
    send = connection.association.dul.socket.send
    connection.association.dul.socket.send = lambda data: (calls.append("answer"), send(data))[1]
    assoc.send_c_store(sendable(rt_image(1)))
    assoc.release()
    assert calls[-4:] == ["fsync", "rename", "fsync", "answer"]


def test_a_failing_spool_answers_a700(receiver, spool, monkeypatch):
    assoc = call(receiver)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    answer = assoc.send_c_store(sendable(rt_image(1)))
    monkeypatch.undo()
    assoc.release()
    assert answer.Status == 0xA700
    assert list(spool.unclaimed()) == []


def test_a_data_set_of_another_instance_answers_a900(receiver, spool, monkeypatch):
    assoc = call(receiver)
    # pynetdicom takes the command's UID from the data set, so the command is changed on its way.
    true = C_STORE.AffectedSOPInstanceUID
    lie = property(true.fget, lambda self, _: true.fset(self, "9.9.9"))
    monkeypatch.setattr(C_STORE, "AffectedSOPInstanceUID", lie)
    answer = assoc.send_c_store(sendable(rt_image(2)))
    monkeypatch.undo()
    assoc.release()
    assert answer.Status == 0xA900
    assert list(spool.unclaimed()) == []


def test_an_echo_is_answered(receiver):
    assoc = call(receiver, contexts=[(VERIFICATION, ImplicitVRLittleEndian)])
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()


def test_private_radiotherapy_classes_are_taken_and_deflated_is_not(receiver):
    assoc = call(
        receiver,
        contexts=[
            (VARIAN_HALCYON_RT_PLAN, ExplicitVRLittleEndian),
            (RT_IMAGE, DeflatedExplicitVRLittleEndian),
        ],
    )
    accepted = {str(cx.abstract_syntax) for cx in assoc.accepted_contexts}
    assoc.release()
    assert accepted == {VARIAN_HALCYON_RT_PLAN}


def test_a_private_object_is_stored(receiver, spool):
    assoc = call(receiver, contexts=[(VARIAN_HALCYON_RT_PLAN, ImplicitVRLittleEndian)])
    answer = assoc.send_c_store(sendable(rt_image(1, SOPClassUID=VARIAN_HALCYON_RT_PLAN)))
    assoc.release()
    assert answer.Status == 0x0000
    assert len(list(spool.unclaimed())) == 1


def test_another_called_title_is_rejected_and_the_log_says_what_to_allow(receiver, caplog):
    with caplog.at_level(logging.WARNING):
        assoc = call(receiver, called="SOMEBODY")
    assert assoc.is_rejected
    assert "'SOMEBODY'" in caplog.text
    assert "move_destination" in caplog.text
    assert receiver.accepted == 0
    assert receiver.refused == ("called AE title 'SOMEBODY'",)


def test_another_address_is_refused_and_the_log_says_what_to_allow(sink, caplog):
    with InTaskReceiver(peer_with(host="127.0.0.2"), sink) as receiver, caplog.at_level(logging.WARNING):
        assert is_hung_up_on(receiver)
        wait_until(lambda: receiver.refused)
        assert receiver.refused == ("address 127.0.0.1",)
        assert receiver.saw_inbound
    assert "127.0.0.2" in caplog.text
    assert "resolves to this address" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_without_a_host_all_interfaces_are_listened_on(sink, host):
    if host == "::1" and not has_ipv6():
        pytest.skip("this system has no IPv6")
    with InTaskReceiver(peer_with(host=host, receiver_host=""), sink) as receiver:
        ae = AE("ANYBODY")
        ae.add_requested_context(RT_IMAGE, ImplicitVRLittleEndian)
        assoc = ae.associate(host, receiver.address[1], ae_title="AIRFLOW", evt_handlers=PARKED)
        assert assoc.is_established
        assert assoc.send_c_store(sendable(rt_image(1))).Status == 0x0000
        assoc.release()


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_where_ipv6_is_switched_off_ipv4_is_listened_on(sink, monkeypatch, error):
    bind = Listener.server_bind

    def without_ipv6(server):
        if server.address_family == socket.AF_INET6:
            raise OSError(error, os.strerror(error))
        bind(server)

    monkeypatch.setattr(Listener, "server_bind", without_ipv6)
    with InTaskReceiver(peer_with(receiver_host=""), sink) as receiver:
        assert receiver.address[0] == "0.0.0.0"
        assert is_listening(receiver.address[1])


@pytest.mark.parametrize("words", [b"", b"\1\0\0"])
def test_a_caller_who_has_not_asked_for_anything_is_hung_up_on_when_the_receiver_stops(sink, words):
    # An A-ABORT is not defined then: pynetdicom's thread would die of it, which fails this test.
    with InTaskReceiver(peer_with(), sink) as receiver:
        silent = socket.create_connection(receiver.address, timeout=10)
        silent.sendall(words)
        wait_until(lambda: receiver._server.connections, what="the connection")
        (connection,) = receiver._server._connections.all()
        wait_until(lambda: not words or connection.association, what="its association")
    with silent:
        assert silent.recv(1) == b""


def test_an_unknown_host_is_an_error(sink):
    with pytest.raises(PeerUnreachableError, match="not known"):
        InTaskReceiver(peer_with(host="nowhere.invalid"), sink).start()


def test_no_port_names_the_field(sink):
    with pytest.raises(ConfigurationError, match="receiver_port"):
        InTaskReceiver(peer_with(receiver_port=None), sink)


def test_a_taken_port_is_waited_for_said_once_and_given_up(sink, caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = time.monotonic()
        with caplog.at_level(logging.INFO), pytest.raises(ReceiverUnavailableError, match=f"{port}.*pool") as caught:
            InTaskReceiver(peer_with(receiver_port=port), sink, wait_seconds=1.5).start()
    assert time.monotonic() - started > 0.5
    assert caught.value.transient
    waits = [record for record in caplog.records if "is taken" in record.message]
    assert len(waits) == 1
    assert "pool" in waits[0].message


def test_a_port_that_becomes_free_is_taken(sink):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    threading.Timer(0.3, taken.close).start()
    with InTaskReceiver(peer_with(receiver_port=port), sink, wait_seconds=20) as receiver:
        assert receiver.address[1] == port


def test_the_wait_for_a_port_can_be_cancelled(sink):
    cancellation = Cancellation()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        threading.Timer(0.2, cancellation.cancel).start()
        receiver = InTaskReceiver(
            peer_with(receiver_port=taken.getsockname()[1]), sink, wait_seconds=60, cancellation=cancellation
        )
        with pytest.raises(CancelledError):
            receiver.start()


def test_an_address_that_is_not_ours_says_what_to_check(sink):
    with pytest.raises(ReceiverUnavailableError, match="receiver_host"):
        InTaskReceiver(peer_with(receiver_host="203.0.113.1"), sink).start()


def test_stopping_ends_open_associations_and_frees_the_port(sink):
    receiver = InTaskReceiver(peer_with(), sink)
    receiver.start()
    port = receiver.address[1]
    assoc = call(receiver)
    assert assoc.is_established
    receiver.stop()
    receiver.stop()
    assert not is_listening(port)
    wait_until(lambda: not assoc.is_established)
    with pytest.raises(ReceiverUnavailableError):
        _ = receiver.address


def test_what_comes_counts_as_activity(receiver):
    assoc = call(receiver)
    wait_until(lambda: receiver.idle_for() > 0.2)
    before = time.monotonic()
    assoc.send_c_store(sendable(rt_image(1)))
    idle = receiver.idle_for()
    assert idle <= time.monotonic() - before
    assoc.release()


def test_a_caller_that_stops_in_the_middle_is_let_go(sink):
    with (
        InTaskReceiver(peer_with(network_timeout=0.5), sink) as receiver,
        socket.create_connection(receiver.address) as stalled,
    ):
        stalled.sendall(b"\x01\x00\x00")
        stalled.settimeout(10)
        while stalled.recv(100):
            pass  # an A-ABORT comes first


@pytest.fixture(scope="module")
def authority():
    return Authority()


def secured(authority, **settings):
    ours = authority.issue("airflow")
    return peer_with(
        tls=TlsSettings(ca_certificate=authority.certificate, certificate=ours.certificate, private_key=ours.key),
        **settings,
    )


def test_with_tls_the_receiver_shows_its_certificate_and_wants_one(sink, spool, authority):
    theirs = authority.issue("daemon")
    client = tls.client_context(
        TlsSettings(ca_certificate=authority.certificate, certificate=theirs.certificate, private_key=theirs.key)
    )
    with InTaskReceiver(secured(authority), sink) as receiver:
        assoc = call(receiver, tls_args=(client, "airflow"))
        assert assoc.send_c_store(sendable(rt_image(1))).Status == 0x0000
        assoc.release()
        nobody = tls.client_context(TlsSettings(ca_certificate=authority.certificate))
        assert is_hung_up_on(receiver, tls_context=nobody)
        assert is_hung_up_on(receiver)
    assert len(list(spool.unclaimed())) == 1


def test_a_silent_tls_caller_keeps_nobody_out(sink, authority):
    theirs = authority.issue("daemon")
    client = tls.client_context(
        TlsSettings(ca_certificate=authority.certificate, certificate=theirs.certificate, private_key=theirs.key)
    )
    with (
        InTaskReceiver(secured(authority, connect_timeout=30.0), sink) as receiver,
        socket.create_connection(receiver.address),
    ):
        started = time.monotonic()
        assoc = call(receiver, tls_args=(client, "airflow"))
        assert assoc.is_established
        assert time.monotonic() - started < 5
        assoc.release()
