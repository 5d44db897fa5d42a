"""Senders, the raw copy and the stub, over real connections: what they send is what arrives."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.query.find import find
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.receiver.in_task import InTaskReceiver
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.uids import STUDY_ROOT_GET
from benchmarks import arrived, find_answers, load, raw_copy, receivers, sender, wire
from benchmarks.load import CopiesLoad, FilesLoad, of_study
from benchmarks.processes import ContestantError
from benchmarks.raw_copy import RawCopy
from benchmarks.stub import Stub


@pytest.fixture
def receiver(tmp_path):
    """Return the port of a receiver of ours, and a function that returns what is in its spool."""
    peer = Peer(
        host="127.0.0.1",
        port=1,
        called_ae_title=sender.CALLING,
        calling_ae_title=sender.CALLED,
        receiver_host="127.0.0.1",
        receiver_port=0,
        network_timeout=20,
    )
    spool = Spool(tmp_path / "spool")
    with SpoolSink(spool) as sink, InTaskReceiver(peer, sink) as running:
        yield running.address[1], lambda: arrived.in_files(spool.new.glob("*/*.dcm"))


def served(serve, connections=1):
    """Serve so many connections in threads; return the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept():
        with server:
            for _ in range(connections):
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()[1]


@pytest.mark.parametrize("halting", [False, True])
def test_prebuilt_pdus_arrive_as_the_objects_they_are(plans, receiver, halting):
    port, found = receiver
    done = sender.send(port, of_study(plans), halting=halting)
    assert (done.objects, len(done.latencies)) == (3, 3)
    assert 0 < max(done.latencies) <= done.seconds
    assert arrived.difference(of_study(plans).digests(), found()) == ""


def test_what_is_not_in_memory_is_read_while_it_is_sent_each_time(plans, receiver, monkeypatch):
    monkeypatch.setattr(load, "_IN_MEMORY_BYTES", 1000)
    port, found = receiver
    objects = of_study(plans)
    for _ in range(2):
        sender.send(port, objects)
    twice = found()
    assert set(twice) == set(objects.digests())
    assert set(twice.values()) == {2}


def test_no_more_is_sent_than_asked_for(plans, receiver):
    port, found = receiver
    assert sender.send(port, of_study(plans), limit=2).objects == 2
    assert found().total() == 2


def test_copies_arrive_under_uids_of_their_own(plans, receiver):
    port, found = receiver
    copies = CopiesLoad(plans.files[0], 5)
    sender.send(port, copies)
    assert arrived.difference(copies.digests(), found()) == ""


def test_several_senders_at_once_send_all_of_it(plans, tmp_path):
    # In a process of its own: the senders are forked from this one, which should have no threads that serve.
    loads = [FilesLoad(plans.files[:2]), FilesLoad(plans.files[2:])]
    with receivers.in_task(tmp_path / "receiver", durable=False) as receiver:
        done = receiver.sent_at_once(loads)
        assert done.objects == 3
        assert done.seconds > 0
        assert arrived.difference(of_study(plans).digests(), receiver.arrived()) == ""
        receiver.clear()
        assert receiver.files() == []


def test_a_sender_that_fails_is_told_of(plans, capfd):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises((ContestantError, OSError)):
        sender.send_at_once(port, [of_study(plans)])
    with pytest.raises(ContestantError, match="senders failed"):
        sender.copy_at_once(port, [of_study(plans)])
    assert "ConnectionRefusedError" in capfd.readouterr().err


def test_a_refusal_is_a_failure(plans, receiver):
    port, found = receiver
    objects = of_study(plans)
    # Another object than the command set says.
    first, second, _ = objects._objects
    objects._objects = [replace(first, content=second.content)]
    with pytest.raises(ContestantError, match="object 1 was refused: 0xA900"):
        sender.send(port, objects)
    assert not found()


def test_the_end_of_an_association_is_a_failure(plans):
    def leave(connection):
        with connection:
            wire.answer(connection)
            wire.read_pdu(connection)
            wire.read_pdu(connection)
            connection.sendall(wire.RELEASE_RP)

    with pytest.raises(ContestantError, match="PDU of type 6"):
        sender.send(served(leave), of_study(plans))


@pytest.mark.parametrize("durable", [False, True])
def test_a_raw_copy_holds_what_it_was_sent(plans, tmp_path, durable):
    copy = RawCopy(tmp_path, durable=durable)
    done = sender.copy(served(copy.serve), of_study(plans))
    assert done.objects == 3
    assert arrived.difference(of_study(plans).digests(), arrived.in_files((tmp_path / "new").iterdir())) == ""
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_durable_copy_is_on_the_disk_before_it_is_acknowledged(plans, tmp_path, monkeypatch):
    calls = []

    def note(name, call):
        def noted(*arguments):
            calls.append(name)
            return call(*arguments)

        monkeypatch.setattr(raw_copy.os, name, noted)

    note("fsync", os.fsync)
    note("rename", os.rename)
    copy = RawCopy(tmp_path, durable=True)
    sender.copy(served(copy.serve), of_study(plans), limit=1)
    assert calls == ["fsync", "rename", "fsync"]


def _peer(port):
    return Peer(host="127.0.0.1", port=port, called_ae_title="STUB", network_timeout=20)


def test_the_stub_answers_a_c_find_with_what_can_be_checked():
    stub = Stub(10, [])
    found = find(
        _peer(served(stub._serve)),
        Query.build(Level.STUDY, dict.fromkeys(find_answers.KEYWORDS, "")),
        profile=Profile(name="generic"),
    )
    answers = found.answers
    assert len(answers) == 10
    read = find_answers.fingerprint((row["StudyInstanceUID"], row["PatientName"]) for row in answers)
    assert read == find_answers.expected(10)
    assert read != find_answers.expected(9)
    assert answers[3]["ModalitiesInStudy"] == ["CT", "RTPLAN", "RTSTRUCT"]


def test_the_stub_answers_a_c_get_with_its_files(plans, tmp_path):
    from pydicom.dataset import Dataset

    stub = Stub(0, list(plans.files))
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", plans.uid
    spool = Spool(tmp_path)
    proposed = contexts.get(STUDY_ROOT_GET, [plans.sop_class_uid])
    with SpoolSink(spool) as sink, associate(_peer(served(stub._serve)), proposed, step="C-GET") as association:
        report = get(association, STUDY_ROOT_GET, identifier, sink=sink)
    assert (report.status, report.completed) == (0, 3)
    assert arrived.difference(of_study(plans).digests(), arrived.in_files(spool.new.glob("*/*.dcm"))) == ""


def test_file_meta_information_is_not_compared(plans):
    (path, *_) = plans.files
    head = Path(path).read_bytes()[:144]
    assert arrived.data_set_offset(head) > 144
    assert arrived.data_set_offset(b"\0" * 144) == 0
