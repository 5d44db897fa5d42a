"""Retrieving by C-MOVE to a standing receiver on this host, on the wire."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pydicom
import pytest
from support.archive import ROOT, Archive, rt_image
from support.certificates import Authority
from support.ports import wait_until

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.errors import (
    CancelledError,
    ConfigurationError,
    ContextRejectedError,
    OutOfResourcesError,
    PeerTimeoutError,
    ReceiverUnavailableError,
)
from airflow_provider_varian.receiver.admission import Entry as Admitted
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.standing import ReceiverSettings, StandingReceiver
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.receivers import NamedReceiver
from airflow_provider_varian.retrieval.spool_place import SpoolPlace

SERIES = f"{ROOT}.1.1"


def receiver_on(spool, *titles, tls=None):
    entries = tuple(Admitted(ae_title=title, networks=()) for title in titles or ("AIRFLOW",))
    return StandingReceiver(ReceiverSettings(spool=spool, entries=entries, host="127.0.0.1", port=0, tls=tls))


@pytest.fixture
def standing(clinic, tmp_path):
    """The clinic, whose peer sends to a standing receiver."""
    spool = tmp_path / "standing"
    with receiver_on(spool) as receiver:
        clinic.receiver = receiver
        clinic.standing_spool = spool
        clinic.archive.destinations["AIRFLOW"] = receiver.address
        clinic.peer = clinic.archive.peer(receiver="night")
        run = clinic.run

        def run_standing(request=None, **settings):
            defaults = {"peer": clinic.peer, "receiver": NamedReceiver(name="night", spool_root=spool)}
            return run(request, **(defaults | settings))

        clinic.run = run_standing
        yield clinic


def filed(folder):
    files = [path for path in folder.rglob("*.dcm") if ".dicom" not in path.parts]
    return sorted(pydicom.dcmread(path).SOPInstanceUID for path in files)


def uid(number):
    return f"{SERIES}.{number}"


def unclaimed(clinic):
    return sorted(item.sop_instance_uid for item in Spool(clinic.standing_spool).unclaimed())


def put(clinic, *datasets):
    """Send objects to the receiver, unasked."""
    for ds in datasets:
        assert clinic.archive.store([ds]) == [0x0000]


def test_a_series_comes_through_it_without_a_port_of_ours(standing):
    result = standing.run()
    assert result.outcome is Outcome.COMPLETE
    assert filed(standing.root) == [uid(number) for number in range(1, 6)]
    assert result.counts | {"verified": 5, "duplicate": 0, "unexpected": 0} == result.counts
    assert unclaimed(standing) == []
    assert list((standing.standing_spool / "claimed").iterdir()) == []
    assert not standing.spool.exists()


def test_what_a_receiver_took_that_may_not_have_synced_is_synced_before_it_is_filed(standing, monkeypatch):
    publish, given = Destination.publish, []

    def noted(destination, *args, **kwargs):
        given.append(kwargs["given"].is_durable)
        return publish(destination, *args, **kwargs)

    monkeypatch.setattr(Destination, "publish", noted)
    assert standing.run().outcome is Outcome.COMPLETE
    assert given == [False] * 5


def test_what_is_late_is_waited_for(standing):
    standing.archive.late = {uid(2), uid(4)}
    result = standing.run(settle_seconds=5.0)
    assert result.outcome is Outcome.COMPLETE
    assert standing.archive.asked("C-MOVE") == ["SERIES"]


def test_what_nobody_listed_of_a_series_comes_with_it(standing):
    extra = rt_image(9)
    standing.archive.extra = [extra]
    result = standing.run()
    assert result.outcome is Outcome.COMPLETE
    assert filed(standing.root) == [uid(number) for number in (1, 2, 3, 4, 5, 9)]
    assert list(result.manifest.ledger.unexpected) == [uid(9)]


def test_what_others_send_there_is_left_alone(standing):
    other = rt_image(1, study=f"{ROOT}.2", series=f"{ROOT}.2.1")
    put(standing, other)
    standing.archive.extra = [other]
    result = standing.run()
    assert (result.outcome, result.counts["unexpected"]) == (Outcome.COMPLETE, 0)
    assert unclaimed(standing) == [str(other.SOPInstanceUID)] * 2


def test_two_contents_are_a_conflict_where_nobody_else_asked(standing):
    changed = rt_image(1, PixelData=b"\xff" * 512)
    standing.archive.extra = [changed]
    result = standing.run(standing.images(1, 2))
    assert (result.outcome, result.counts["conflict"]) == (Outcome.PARTIAL, 1)
    assert unclaimed(standing) == []


def test_two_contents_are_none_where_the_other_one_is_another_retrievals(standing, tmp_path):
    """The peer is asked by both, and the plan changes in between: each has the version that it was sent."""
    plans = {label: rt_image(1, SOPClassUID=uids.RT_PLAN, RTPlanLabel=label) for label in ("before", "after")}
    with Archive([plans["before"]]) as archive:
        archive.destinations["AIRFLOW"] = standing.receiver.address
        standing.archive, standing.peer = archive, archive.peer(receiver="night")
        both_asked, lock, sent = threading.Barrier(2, timeout=30), threading.Lock(), []
        store = archive.store

        def store_as_it_is_by_now(instances, **settings):
            with lock:
                sent.append(plans["after"] if sent else plans["before"])
                return store(sent[-1:], **settings)

        archive.on_move, archive.store = both_asked.wait, store_as_it_is_by_now
        results = together(standing, tmp_path, first=standing.images(1), second=standing.images(1))
    assert {name: result.outcome for name, result in results.items()} == dict.fromkeys(results, Outcome.COMPLETE)
    labels = [pydicom.dcmread(path).RTPlanLabel for name in results for path in (tmp_path / name).rglob("RT*.dcm")]
    assert sorted(labels) == ["after", "before"]
    assert unclaimed(standing) == []


def together(clinic, tmp_path, **requests):
    """Run several retrievals at once."""
    results, problems = {}, []

    def run(name):
        try:
            results[name] = clinic.run(requests[name], destination=tmp_path / name, retrieval_id=name)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    return results


def test_two_at_once_with_what_both_want(standing, tmp_path):
    both_asked, waiting = threading.Barrier(2, timeout=30), [True, True]

    def on_move():
        if waiting:
            waiting.pop()
            both_asked.wait()

    standing.archive.on_move = on_move
    results = together(standing, tmp_path, first=standing.images(1, 2, 3), second=standing.images(2, 3, 4))
    for name, numbers in (("first", (1, 2, 3)), ("second", (2, 3, 4))):
        assert results[name].outcome is Outcome.COMPLETE
        assert filed(tmp_path / name) == [uid(number) for number in numbers]
        assert results[name].counts | {"duplicate": 0, "unexpected": 0, "conflict": 0} == results[name].counts
    assert standing.archive.sent.count(uid(2)) == 2
    assert unclaimed(standing) == []


# Killed


def cancelled_by_the_peer(standing, number):
    """Return a cancellation that comes once so many objects have been sent."""
    cancellation = Cancellation()

    def on_sent(_):
        if len(standing.archive.sent) == number:
            cancellation.cancel()

    standing.archive.on_sent = on_sent
    return cancellation


def test_the_retry_of_a_killed_try_finds_what_came(standing):
    with pytest.raises(CancelledError):
        standing.run(cancellation=cancelled_by_the_peer(standing, 3))
    standing.archive.on_sent = lambda uid_: None
    # A peer may go on sending.
    wait_until(lambda: len(unclaimed(standing)) + len(claimed(standing)) == 5, what="the rest")
    standing.archive.requests.clear()
    result = standing.run(settle_seconds=0.05)
    assert (result.outcome, standing.archive.asked("C-MOVE")) == (Outcome.COMPLETE, [])
    assert (unclaimed(standing), claimed(standing)) == ([], [])


def test_the_retry_takes_what_came_after_the_death_of_the_killed_try(standing):
    cancellation = Cancellation()
    standing.archive.delivers = lambda level, uid_: False
    standing.archive.on_move = cancellation.cancel
    with pytest.raises(CancelledError):
        standing.run(standing.images(1, 2), cancellation=cancellation)
    put(standing, rt_image(1), rt_image(2))
    standing.archive.requests.clear()
    result = standing.run(standing.images(1, 2), settle_seconds=0.05)
    assert (result.outcome, standing.archive.asked("C-MOVE"), unclaimed(standing)) == (Outcome.COMPLETE, [], [])


def claimed(standing):
    return [path.name for path in (standing.standing_spool / "claimed").rglob("*.dcm")]


def test_a_try_that_was_killed_between_claim_and_publication_loses_nothing(standing, monkeypatch):
    published = []
    publish = Destination.publish

    def killed(self, *arguments, **settings):
        if published:
            raise KeyboardInterrupt
        published.append(arguments)
        return publish(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Destination, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            standing.run(standing.images(1, 2, 3))
    assert len(claimed(standing)) == 2
    standing.archive.requests.clear()
    assert standing.run(standing.images(1, 2, 3)).outcome is Outcome.COMPLETE
    assert standing.archive.asked("C-MOVE") == []


def test_what_came_before_the_peer_broke_off_is_taken(standing, monkeypatch):
    monkeypatch.setattr(SpoolPlace, "look_seconds", 1000.0)  # none is due
    plans = [rt_image(number, SOPClassUID=uids.RT_PLAN) for number in range(1, 6)]
    with Archive(plans) as archive:
        archive.destinations["AIRFLOW"] = standing.receiver.address
        archive.abort_after = 3
        archive.on_sent = lambda uid_: archive.stop_listening() if len(archive.sent) == 3 else None
        # Without a look it is never quiet, until the time is over.
        standing.archive, standing.peer = archive, archive.peer(receiver="night", retrieve_deadline=8.0)
        result = standing.run()
    assert (result.outcome, result.counts["verified"]) == (Outcome.PARTIAL, 3)
    assert unclaimed(standing) == []


# What can go wrong


def test_nothing_is_made_where_a_receiver_should_be(standing, tmp_path):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ReceiverUnavailableError, match="nowhere is not the spool of a receiver on this host"):
        standing.run(receiver=NamedReceiver(name="night", spool_root=nowhere))
    assert not nowhere.exists()
    assert standing.archive.requests == []


def test_a_folder_that_may_not_be_looked_into_is_said_the_same_way(standing, tmp_path, monkeypatch):
    stat = os.stat

    def denied(path, *arguments, **settings):
        if "private" in str(path):
            raise PermissionError(13, "Permission denied")
        return stat(path, *arguments, **settings)

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(ReceiverUnavailableError, match="private is not the spool of a receiver on this host"):
        NamedReceiver(name="night", spool_root=tmp_path / "private").spool()


def test_a_receiver_that_does_not_run_is_not_sent_to(standing):
    standing.receiver.stop()
    with pytest.raises(ReceiverUnavailableError, match="no receiver is running"):
        standing.run(port_wait_seconds=0.0)
    assert standing.archive.requests == []


def test_the_wait_for_it_is_not_the_peers_time(standing, monkeypatch):
    opened = SpoolPlace.open
    passed = [0.0]

    def slowly(self):
        opened(self)
        passed[0] += 600.0

    from airflow_provider_varian.retrieval import transfer

    monkeypatch.setattr(SpoolPlace, "open", slowly)
    monkeypatch.setattr(transfer, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0]))
    assert standing.run().outcome is Outcome.COMPLETE


def test_a_peer_that_sends_elsewhere_is_told_apart(standing, tmp_path):
    with receiver_on(tmp_path / "elsewhere") as elsewhere:
        standing.archive.destinations["AIRFLOW"] = elsewhere.address
        result = standing.run(settle_seconds=0.2)
    assert result.outcome is Outcome.PARTIAL
    (warning,) = result.manifest.warnings
    assert warning == (
        "the peer reports instances as sent, but nothing arrived at the standing receiver 'night': is the standing "
        "receiver 'night' running, and are its AE title, host and port what the trusted entity 'AIRFLOW' says?"
    )


def test_a_peer_that_could_not_send_is_told_what_to_check(standing):
    standing.archive.move_status = 0xA702
    with pytest.raises(OutOfResourcesError) as raised:
        standing.run()
    assert raised.value.hint == (
        "Is the standing receiver 'night' running, and are its AE title, host and port what the trusted entity "
        "'AIRFLOW' says?"
    )
    assert standing.archive.asked("C-MOVE") == ["SERIES"]


def test_the_deadline_holds_for_what_is_late(standing):
    standing.archive.delivers = lambda level, uid_: False
    peer = replace(standing.peer, retrieve_deadline=0.5)
    started = time.monotonic()
    with pytest.raises(PeerTimeoutError):
        standing.run(peer=peer, settle_seconds=100.0)
    assert time.monotonic() - started < 30


def test_a_cancellation_ends_the_wait_for_what_is_late(standing):
    cancellation = Cancellation()
    standing.archive.delivers = lambda level, uid_: False
    standing.archive.on_move = lambda: threading.Timer(0.3, cancellation.cancel).start()
    with pytest.raises(CancelledError):
        standing.run(settle_seconds=100.0, cancellation=cancellation)


@pytest.mark.parametrize("attributes", [{}, {"SOPClassUID": uids.RT_PLAN}])
def test_what_another_peer_sends_to_another_title_is_never_taken(clinic, tmp_path, attributes):
    """A T-Box that was cloned from the clinical database has the same UIDs, and other content."""
    mine, theirs = (rt_image(1, RTImageLabel=label, **attributes) for label in ("CLINICAL", "TBOX"))
    with receiver_on(tmp_path / "standing", "AIRFLOW", "TBOX") as receiver, Archive([mine]) as archive:
        archive.destinations |= {"AIRFLOW": receiver.address, "TBOX": receiver.address}
        clinic.archive = archive
        archive.on_move = lambda: archive.store([theirs], destination="TBOX")
        settings = {
            "peer": archive.peer(receiver="night"),
            "receiver": NamedReceiver(name="night", spool_root=tmp_path / "standing"),
        }
        assert clinic.run(clinic.images(1), **settings).outcome is Outcome.COMPLETE
        (path,) = (path for path in clinic.root.rglob("*.dcm") if ".dicom" not in path.parts)
        assert pydicom.dcmread(path).RTImageLabel == "CLINICAL"
        archive.delivers = lambda level, uid_: False
        result = clinic.run(clinic.images(1), destination=tmp_path / "other", retrieval_id="r-2", **settings)
        assert (result.outcome, filed(tmp_path / "other")) == (Outcome.PARTIAL, [])


def test_with_tls_a_receiver_that_takes_clear_text_is_not_sent_to(standing):
    peer, profile = replace(standing.peer, tls=TlsSettings()), replace(standing.profile, move_over_tls=True)
    with pytest.raises(ConfigurationError, match="TLS is on, and the standing receiver 'night' takes"):
        standing.run(standing.images(1), peer=peer, profile=profile)
    assert standing.archive.requests == []


def test_a_receiver_with_tls_says_so_in_its_spool(tmp_path):
    authority = Authority()
    issued = authority.issue("receiver")
    served = TlsSettings(certificate=issued.certificate, private_key=issued.key, ca_certificate=authority.certificate)
    with receiver_on(tmp_path / "spool", tls=served) as receiver:
        assert receiver.spool.has_standing()
        assert not receiver.spool.has_standing_in_clear()
    with receiver_on(tmp_path / "spool") as receiver:
        assert receiver.spool.has_standing_in_clear()


# Without it


def test_get_needs_no_receiver(standing, tmp_path):
    with Archive([rt_image(1)], get=True) as archive:
        standing.archive = archive
        nowhere = NamedReceiver(name="night", spool_root=tmp_path / "nowhere")
        peer = archive.peer(receiver="night", retrieve_method="get")
        result = standing.run(standing.images(1), peer=peer, receiver=nowhere)
    assert result.outcome is Outcome.COMPLETE
    assert standing.spool.exists()


def test_get_does_not_look_at_its_store(standing, tmp_path):
    (tmp_path / "store").write_text("no store")
    with Archive([rt_image(1), rt_image(2)], get=True) as archive:
        standing.archive = archive
        archive.delivers = lambda level, uid_: uid_ == uid(1)
        settings = {
            "peer": archive.peer(receiver="night", retrieve_method="get"),
            "receiver": NamedReceiver(name="night", store=str(tmp_path / "store")),
        }
        assert standing.run(standing.images(1, 2), **settings).outcome is Outcome.PARTIAL
        archive.delivers = lambda level, uid_: True
        assert standing.run(standing.images(1, 2), **settings).outcome is Outcome.COMPLETE


def test_auto_falls_back_from_get_to_it(standing):
    with Archive([rt_image(1), rt_image(2)], get=True) as archive:
        archive.destinations["AIRFLOW"] = standing.receiver.address
        standing.archive = archive
        lost = {uid(2)}
        chosen = archive._chosen
        archive._chosen = lambda verb, keys: [
            ds for ds in chosen(verb, keys) if verb == "C-MOVE" or str(ds.SOPInstanceUID) not in lost
        ]
        peer = archive.peer(receiver="night", retrieve_method="auto")
        result = standing.run(standing.images(1, 2), peer=peer)
    assert result.outcome is Outcome.COMPLETE
    assert {request.method for request in result.manifest.requests} == {"C-GET", "C-MOVE"}


def test_a_dry_run_writes_nothing(standing, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = standing.run(dry_run=True)
    assert result.counts["found"] == 5
    assert sorted(tmp_path.rglob("*")) == before
    assert not (standing.root / ".dicom").exists()
    assert os.listdir(standing.standing_spool / "wanted") == []


def test_without_a_receiver_and_without_a_port_there_is_no_move(standing):
    standing.peer = replace(standing.peer, retrieve_method="auto")
    with pytest.raises(ContextRejectedError):
        standing.run(receiver=None)


def test_the_manifest_says_what_came(standing):
    result = standing.run()
    told = json.loads((standing.root / ".dicom" / "r-1.json").read_text())
    assert (told["outcome"], len(told["requests"])) == ("complete", 1)
    assert result.manifest.requests[0].received == 5
