"""The receiver that stands: what it lets in, what it leaves in its spool, and how it starts and ends."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom import AE
from support.archive import rt_image, sendable
from support.certificates import Authority
from support.ports import is_listening, wait_until
from support.receiving import PATIENT, Recorder, association_request, call, connect, entry, rejection

from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.errors import ConfigurationError, ReceiverUnavailableError
from airflow_provider_varian.receiver import standing
from airflow_provider_varian.receiver.admission import Entry
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.receiver.standing import ReceiverSettings, StandingReceiver
from airflow_provider_varian.uids import RT_IMAGE

UID = str(rt_image(1).SOPInstanceUID)


@pytest.fixture
def settings(tmp_path):
    return ReceiverSettings(
        spool=tmp_path / "spool", entries=(entry("AIRFLOW"),), host="127.0.0.1", port=0, limits=PATIENT
    )


def store(association, number=1):
    return association.send_c_store(sendable(rt_image(number))).Status


def fragments(spool):
    return [path for path in (spool.root / "tmp").glob("*/*") if path.name not in ("lock", "standing")]


# Who may send


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1", "no.such.host.invalid"])
def test_without_a_list_nobody_may_send_and_it_says_how(tmp_path, host):
    with pytest.raises(
        ConfigurationError, match=r"nobody may send to 'B'.*--allow-from.*--allow-any.*--host 127"
    ) as why:
        ReceiverSettings(spool=tmp_path, entries=(entry("A"), Entry(ae_title="B", networks=())), host=host)
    assert not why.value.transient


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_no_list_is_needed(tmp_path, host):
    settings = ReceiverSettings(spool=tmp_path, entries=(Entry(ae_title="A", networks=()),), host=host)
    assert settings.admission().judge("A", "X", "127.0.0.1") is None


def test_a_title_is_given_once(tmp_path):
    with pytest.raises(ConfigurationError, match="'A' is given twice"):
        ReceiverSettings(spool=tmp_path, entries=(entry("A"), entry("A")))


@pytest.mark.parametrize("max_pdu", [0, 4095, 1048577])
def test_no_limit_of_a_pdu_is_never_announced(settings, max_pdu):
    with pytest.raises(ConfigurationError, match="--max-pdu takes 4096 to 1048576"):
        replace(settings, max_pdu=max_pdu)


def test_the_default_of_a_pdu_is_announced(settings):
    with StandingReceiver(settings) as receiver:
        association = call(receiver)
        assert association.acceptor.maximum_length == 131072
        association.release()


def test_several_titles_each_with_its_own_list(settings):
    entries = (entry("AIRFLOW", "127.0.0.1"), entry("RESEARCH", "127.0.0.2", calling=["PACS"]))
    with StandingReceiver(replace(settings, entries=entries)) as receiver:
        for source, title, allowed in [("127.0.0.1", "AIRFLOW", True), ("127.0.0.1", "RESEARCH", False)]:
            with connect(receiver, association_request(title, "PACS"), source=source) as peer:
                assert (rejection(peer) is None) == allowed


def test_deflated_is_never_accepted(settings):
    ae = AE("ANYBODY")
    ae.add_requested_context(RT_IMAGE, [DeflatedExplicitVRLittleEndian])
    ae.add_requested_context(RT_IMAGE, [DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian])
    with StandingReceiver(settings) as receiver:
        association = ae.associate(*receiver.address, ae_title="AIRFLOW")
        assert [each.transfer_syntax for each in association.accepted_contexts] == [[ExplicitVRLittleEndian]]
        association.release()


# The spool


def test_what_it_received_is_claimed_by_others_while_it_lives(settings):
    with StandingReceiver(settings) as receiver:
        association = call(receiver)
        assert store(association) == 0
        others = Spool(receiver.spool.root)
        assert others.has_standing()
        assert [item.sop_instance_uid for item in others.claim("r-1", [UID])] == [UID]
        assert store(association) == 0
        association.release()
        (item,) = others.unclaimed()
        assert others.take("r-2", item) is not None
        assert others.take("r-3", item) is None
    assert not others.has_standing()


def test_what_a_task_received_stays_its_own_beside_a_standing_receiver(settings, put):
    with StandingReceiver(settings) as receiver, SpoolSink(Spool(receiver.spool.root)) as task:
        put(task)
        assert receiver.spool.claim("r-1", [UID]) == []
        (item,) = receiver.spool.unclaimed()
        assert not receiver.spool.may_claim(item)
        assert receiver.spool.may_claim(item, owner=task.owner.name)


def test_two_receivers_share_a_spool(settings):
    with StandingReceiver(settings) as first:
        begun = begin_object(first)
        with StandingReceiver(settings) as second:
            assert len(fragments(first.spool)) == 1, "the living receiver's fragment is left alone"
            for number, receiver in enumerate([first, second] * 3):
                association = call(receiver)
                assert store(association, number) == 0
                association.release()
        assert first.spool.has_standing()
        assert len(list(first.spool.unclaimed())) == 6
        association = call(first)
        assert store(association, 7) == 0
        association.release()
        begun.abandon()


def begin_object(receiver):
    """Begin an object in a receiver's own folder of fragments, and leave it at that."""
    return receiver._sink.begin(
        StoreRequest(sop_class_uid=RT_IMAGE, sop_instance_uid=UID, transfer_syntax_uid="1.2.840.10008.1.2")
    )


def test_a_restart_removes_fragments_and_names_files_without_a_receipt(settings, put, caplog):
    spool = Spool(settings.spool)
    with SpoolSink(spool) as sink:
        put(sink, rt_image(2))
    dead = spool.root / "tmp" / "0123456789ab"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "fragment").write_bytes(b"half")
    lying = spool.shard("1.2.3") / "1.2.3.0123456789ab0000.dcm"
    lying.write_bytes(b"no receipt")
    with caplog.at_level(logging.WARNING), StandingReceiver(settings) as receiver:
        found = receiver.reconciliation
        assert (found.swept_fragments, found.without_receipt, found.unclaimed) == (1, (lying,), 2)
    assert not dead.exists()
    assert str(lying) in caplog.text
    assert lying.exists()
    assert len(list(spool.unclaimed())) == 2


def test_below_the_least_free_space_objects_are_refused_and_taken_again_by_itself(settings, monkeypatch, caplog):
    free = [0]
    monkeypatch.setattr(Spool, "free_bytes", lambda _: free[0])
    recorder = Recorder()
    limited = replace(settings, limits=replace(PATIENT, min_free_bytes=1 << 30))
    with caplog.at_level(logging.WARNING), StandingReceiver(limited, observer=recorder) as receiver:
        association = call(receiver)
        statuses = []
        for left in (1 << 30, (1 << 30) - 1, 0, 1 << 30, 1 << 40):
            free[0] = left
            statuses.append(store(association, len(statuses)))
        assert association.is_established
        association.release()
        assert fragments(receiver.spool) == []
        assert len(list(receiver.spool.unclaimed())) == 3
    assert statuses == [0, 0xA700, 0xA700, 0, 0]
    assert [status for *_, status in recorder.named("not_stored")] == [0xA700] * 2
    said = [record.message for record in caplog.records if "file system of the spool" in record.message]
    assert ["1024 MB are kept free" in each for each in said] == [True, False]
    assert "has room again" in said[1]


def test_the_default_keeps_a_gigabyte_free():
    assert Limits().min_free_bytes == 1 << 30


def test_a_disk_that_fills_up_within_an_object_is_answered_a700_and_recovers(settings, monkeypatch, caplog):
    with StandingReceiver(settings) as receiver:
        association = call(receiver)

        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "writev", fail)
        assert [store(association) for _ in range(3)] == [0xA700] * 3
        monkeypatch.undo()
        assert fragments(receiver.spool) == []
        assert [store(association) for _ in range(2)] == [0, 0]
        association.release()
        assert len(list(receiver.spool.unclaimed())) == 2
    said = [record.message for record in caplog.records if f"The spool {receiver.spool.root}" in record.message]
    assert ["cannot be written: No space" in each for each in said] == [True, False]
    assert "can be written again" in said[1]


def test_durability_none_syncs_nothing_and_says_what_that_means(settings, monkeypatch, caplog):
    for durable in (True, False):
        with StandingReceiver(replace(settings, durable=durable)) as receiver:
            synced = []
            fsync = os.fsync
            monkeypatch.setattr(os, "fsync", lambda fd, synced=synced, fsync=fsync: (synced.append(fd), fsync(fd)))
            association = call(receiver)
            assert store(association) == 0
            association.release()
            monkeypatch.undo()
            assert len(synced) == (2 if durable else 0)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                standing._say_hello(receiver)
            assert ("told 0x0000" in caplog.text) is not durable


# Start and end


def test_it_says_that_it_listens_while_it_does(settings):
    receiver = StandingReceiver(settings)
    assert not receiver.is_listening
    with pytest.raises(ReceiverUnavailableError):
        _ = receiver.address
    with receiver:
        assert receiver.is_listening
        assert not receiver.is_draining
        association = call(receiver)
        wait_until(lambda: receiver.associations == 1)
        assert receiver.connections == 1
        thread = threading.Thread(target=receiver.drain, args=(60,))
        thread.start()
        wait_until(lambda: receiver.is_draining and not receiver.is_listening)
        assert store(association) == 0
        association.release()
        thread.join(30)
        assert not thread.is_alive()
    assert receiver.associations == receiver.connections == 0
    receiver.stop()
    assert len(list(receiver.spool.unclaimed())) == 1


def test_a_taken_port_says_what_to_do_and_leaves_nothing_behind(settings):
    with StandingReceiver(settings) as receiver:
        again = StandingReceiver(replace(settings, port=receiver.address[1]))
        with pytest.raises(ReceiverUnavailableError, match=r"is taken.*--port") as caught:
            again.start()
        assert caught.value.transient
        assert len(list((receiver.spool.root / "tmp").iterdir())) == 1


def test_an_address_of_another_machine_is_a_mistake(settings):
    receiver = StandingReceiver(replace(settings, host="203.0.113.1"))
    with pytest.raises(ConfigurationError, match="--host takes an address of this machine"):
        receiver.start()


def test_a_spool_that_cannot_be_used_is_said_before_it_listens(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReceiverUnavailableError, match="cannot be used"):
        StandingReceiver(replace(settings, spool=tmp_path / "file" / "spool"))


def test_it_starts_again(settings):
    receiver = StandingReceiver(settings)
    for number in range(2):
        with receiver:
            association = call(receiver)
            assert store(association, number) == 0
            association.release()
            port = receiver.address[1]
        assert not is_listening(port)
    assert len(list(receiver.spool.unclaimed())) == 2


@pytest.fixture(scope="module")
def authority():
    return Authority()


def test_tls_that_cannot_be_served_names_the_options(settings, authority):
    ours, other = authority.issue("receiver"), authority.issue("other")
    good = TlsSettings(certificate=ours.certificate, private_key=ours.key, ca_certificate=authority.certificate)
    assert replace(settings, tls=good).tls_context() is not None
    for change, option in (
        ({"private_key": other.key}, "--tls-private-key"),
        ({"certificate": "x"}, "--tls-certificate"),
        ({"ca_certificate": "x"}, "--tls-ca"),
    ):
        with pytest.raises(ConfigurationError, match=option):
            StandingReceiver(replace(settings, tls=replace(good, **change)))


def test_each_association_is_a_line_in_the_log(settings, caplog):
    with caplog.at_level(logging.INFO), StandingReceiver(settings) as receiver:
        for numbers in ((), (1,), (2, 3)):
            association = call(receiver, calling="SENDER")
            for number in numbers:
                assert store(association, number) == 0
            association.release()
        wait_until(lambda: not receiver.connections)
    lines = [record.message for record in caplog.records if "association_log" in record.name]
    assert [line.partition(":")[0] for line in lines] == [
        f"Association {number} (SENDER at 127.0.0.1 to AIRFLOW)" for number in (1, 2, 3)
    ]
    assert [line.partition(" s, ")[2].partition(" (")[0] for line in lines] == [
        "nothing stored",
        "1 object stored",
        "2 objects stored",
    ]
