"""retrieve() from end to end against a real archive on loopback that misbehaves as told."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from dataclasses import replace

import pydicom
import pytest
from pynetdicom import evt
from pynetdicom.dsutils import encode
from support.archive import ROOT, Archive, rt_image
from support.certificates import Authority
from support.datasets import differences, wire_bytes
from support.ports import free_port, is_listening, wait_until
from upath import UPath

from airflow_provider_varian.dimse import tls
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.errors import (
    CancelledError,
    ConfigurationError,
    OutOfResourcesError,
    PeerTimeoutError,
    PeerUnreachableError,
    ReceiverUnavailableError,
    UnknownMoveDestinationError,
)
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.receiver.head import DataSetError
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval import intake, letting_go, local_store
from airflow_provider_varian.retrieval.audit import audit
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.manifest import Manifest, load_manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.request import RetrievalRequest

STUDY, SERIES = f"{ROOT}.1", f"{ROOT}.1.1"


def uid(number):
    return f"{SERIES}.{number}"


def filed(clinic):
    return sorted(path for path in clinic.root.rglob("*.dcm") if ".dicom" not in path.parts)


def spooled(clinic):
    return sorted(path for path in clinic.spool.rglob("*.dcm"))


def manifest_of(clinic, name="r-1"):
    return json.loads((clinic.root / ".dicom" / f"{name}.json").read_text())


def states(result):
    return {entry.sop_instance_uid: str(entry.state) for entry in result.manifest.ledger.entries.values()}


# What is right


def test_a_series_is_moved_verified_and_filed(clinic, images):
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert result.counts["verified"] == 5
    paths = filed(clinic)
    assert len(paths) == 5
    by_uid = {ds.SOPInstanceUID: ds for ds in images}
    for path in paths:
        ds = pydicom.dcmread(path)
        assert differences(ds, by_uid[ds.SOPInstanceUID]) == []
        assert path.relative_to(clinic.root).parts == (STUDY, SERIES, f"RTIMAGE.{ds.SOPInstanceUID}.dcm")
    assert clinic.archive.asked() == ["SERIES"]
    assert spooled(clinic) == []
    assert not is_listening(clinic.port)


def test_a_folder_is_synced_for_many_images_together(clinic, monkeypatch):
    sync, synced = local_store.sync_folder, []

    def noted(folder):
        synced.append(folder)
        sync(folder)

    monkeypatch.setattr(local_store, "sync_folder", noted)
    monkeypatch.setattr(letting_go, "_TOGETHER_SECONDS", 600.0)
    clinic.run()
    (series,) = {path.parent for path in filed(clinic)}
    assert 1 <= synced.count(series) < 5


def test_what_a_task_received_itself_is_durable_and_not_synced_again(clinic, monkeypatch):
    publish, given = Destination.publish, []

    def noted(destination, *args, **kwargs):
        given.append(kwargs["given"].is_durable)
        return publish(destination, *args, **kwargs)

    monkeypatch.setattr(Destination, "publish", noted)
    clinic.run()
    assert given == [True] * 5


def test_the_manifest_accounts_for_each_instance_and_names_no_patient(clinic):
    clinic.run(RetrievalRequest(level=Level.PATIENT, keys={"PatientID": "QA_TB_WL"}))
    manifest = manifest_of(clinic)
    assert manifest["schema_version"] == 1
    assert manifest["outcome"] == "complete"
    assert manifest["request"]["keys_left_out"] == ["PatientID"]
    assert manifest["peer"]["ae_title"] == "VMSDBD"
    assert manifest["peer"]["implementation_version_name"] == "SCRIPTED"
    assert manifest["peer"]["accepted_contexts"]
    assert manifest["requests"][0]["status"] == "0x0000"
    assert manifest["requests"][0]["completed"] == 5
    for instance in manifest["instances"]:
        path = clinic.root / instance["path"]
        assert instance["state"] == "verified"
        assert instance["bytes"] == path.stat().st_size
        assert len(instance["sha256"]) == len(instance["sha256_data_set"]) == 64
        assert instance["attempts"] == 1
        assert instance["transfer_syntax_uid"] == "1.2.840.10008.1.2"
    text = (clinic.root / ".dicom" / "r-1.json").read_text()
    assert "QA_TB_WL" not in text
    assert "Phantom" not in text
    assert audit(load_manifest(Destination(clinic.root), "r-1"), Destination(clinic.root)).differences == {}


def test_the_manifest_is_pending_from_the_start_and_written_at_each_change(clinic):
    seen = []

    def look(manifest):
        seen.append((str(manifest.outcome), manifest_of(clinic)["outcome"], clinic.archive.finds))

    clinic.run(on_change=look)
    assert seen[0] == ("pending", "pending", 0)
    assert seen[-1] == ("complete", "complete", 2)


def test_a_finished_retrieval_moves_no_image_again(clinic):
    clinic.run()
    clinic.archive.sent.clear()
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert result.counts["held"] == 5
    assert clinic.archive.sent == []
    assert clinic.archive.asked() == ["SERIES"]
    assert manifest_of(clinic)["attempts"] == 2
    assert all(instance["sha256"] for instance in manifest_of(clinic)["instances"])


def test_another_retrieval_of_the_same_images_moves_none_either(clinic):
    clinic.run()
    clinic.archive.sent.clear()
    result = clinic.run(retrieval_id="r-2")
    assert (result.outcome, result.counts["held"], clinic.archive.sent) == (Outcome.COMPLETE, 5, [])


def test_an_image_added_to_a_held_series_is_asked_for_alone(clinic):
    clinic.run()
    clinic.archive.sent.clear()
    new = rt_image(9)
    clinic.archive.instances[new.SOPInstanceUID] = new
    result = clinic.run(retrieval_id="r-2")
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.sent == [uid(9)]


def test_verify_by_hash_notices_a_changed_file_and_keeps_both(clinic):
    clinic.run()
    path = filed(clinic)[0]
    changed = path.read_bytes()[:-2] + b"!!"
    path.write_bytes(changed)
    assert clinic.run().counts["held"] == 5
    result = clinic.run(verify="hash")
    assert result.outcome is Outcome.PARTIAL
    assert result.counts["conflict"] == 1
    assert path.read_bytes() == changed
    assert len(filed(clinic)) == 6


def test_a_file_that_lost_its_end_is_not_held(clinic):
    clinic.run()
    path = filed(clinic)[0]
    path.write_bytes(path.read_bytes()[:200])
    result = clinic.run()
    assert result.outcome is Outcome.PARTIAL
    assert (result.counts["held"], result.counts["conflict"]) == (4, 1)
    assert len(filed(clinic)) == 6


def test_nothing_found_is_empty_and_opens_no_port(clinic):
    request = RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": "1.2.3"})
    result = clinic.run(request, peer=replace(clinic.peer, receiver_port=None))
    assert result.outcome is Outcome.EMPTY
    assert manifest_of(clinic)["outcome"] == "empty"
    assert clinic.archive.asked() == []


def test_nothing_found_although_something_had_to_be_there_is_short(clinic):
    request = RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": "1.2.3"}, minimum=5)
    result = clinic.run(request)
    assert result.outcome is Outcome.SHORT
    assert result.manifest.message == "nothing was found; at least 5 are expected"


def test_fewer_than_expected_is_short_and_not_partial(clinic):
    result = clinic.run(clinic.series(minimum=8))
    assert result.outcome is Outcome.SHORT
    assert "at least 8" in result.manifest.message


def test_a_limit_that_was_hit_is_limited_and_brings_no_more(clinic):
    result = clinic.run(clinic.series(limit=2))
    assert result.outcome is Outcome.LIMITED
    assert len(filed(clinic)) == len(clinic.archive.sent) == 2


def test_a_dry_run_moves_and_writes_nothing(clinic):
    result = clinic.run(dry_run=True)
    assert result.counts["found"] == 5
    assert result.manifest_path == ""
    assert clinic.archive.requests == []
    assert not clinic.root.exists()


def test_named_instances_alone_are_asked_for(clinic):
    result = clinic.run(clinic.images(2, 4))
    assert result.outcome is Outcome.COMPLETE
    assert sorted(clinic.archive.sent) == [uid(2), uid(4)]
    assert clinic.archive.finds == 0
    ((_, level, keys),) = clinic.archive.requests
    assert level == "IMAGE"
    assert set(keys) == {"QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}


def test_a_peer_without_uid_lists_is_asked_one_by_one(clinic):
    profile = replace(clinic.profile, uid_lists=False)
    result = clinic.run(clinic.images(1, 2, 3), profile=profile)
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.asked() == ["IMAGE"] * 3


# What goes wrong at the peer


def test_what_a_series_move_leaves_out_with_success_is_asked_for_by_image(clinic):
    clinic.archive.delivers = lambda level, uid_: level == "IMAGE" or uid_ not in (uid(2), uid(3))
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.asked() == ["SERIES", "IMAGE"]
    assert len(clinic.archive.sent) == 5
    (fallback,) = manifest_of(clinic)["fallbacks"]
    assert fallback == {"from": "C-MOVE as asked", "to": "C-MOVE image", "reason": "2 of 5 instances outstanding"}


def test_success_of_the_peer_does_not_make_a_retrieval_complete(clinic):
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(3)
    result = clinic.run()
    assert result.outcome is Outcome.PARTIAL
    assert states(result)[uid(3)] == "missing"
    assert result.counts["verified"] == 4
    assert all(report["status"] == "0x0000" for report in manifest_of(clinic)["requests"])


def test_a_retry_asks_for_the_missing_alone(clinic):
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(3)
    clinic.run()
    clinic.archive.delivers = lambda level, uid_: True
    clinic.archive.sent.clear()
    clinic.archive.requests.clear()
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.sent == [uid(3)]
    assert clinic.archive.asked() == ["IMAGE"]


def test_what_was_found_once_is_not_forgotten_when_the_list_wobbles(clinic):
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(3)
    clinic.run()
    del clinic.archive.instances[uid(3)]
    result = clinic.run()
    assert result.outcome is Outcome.PARTIAL
    assert states(result)[uid(3)] == "missing"
    assert "not listed by the peer any more" in result.manifest.warnings[0]


def test_a_retry_that_fails_at_once_keeps_the_account_of_the_earlier_try(clinic):
    clinic.run()
    before = manifest_of(clinic)["instances"]
    with pytest.raises(PeerUnreachableError):
        clinic.run(peer=replace(clinic.peer, port=free_port()))
    assert manifest_of(clinic)["outcome"] == "pending"
    # That a finished try brought them says nothing any more: a plan may have changed since.
    assert manifest_of(clinic)["instances"] == [
        {key: value for key, value in instance.items() if key != "fetched"} for instance in before
    ]


def test_objects_that_come_after_the_final_response_count(clinic):
    clinic.archive.late = {uid(4), uid(5)}
    clinic.archive.late_seconds = 0.2
    result = clinic.run(settle_seconds=5.0)
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.asked() == ["SERIES"]


def test_an_image_more_than_was_listed_is_kept_as_unexpected(clinic):
    clinic.archive.extra = [rt_image(77)]
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    (entry,) = result.manifest.ledger.unexpected.values()
    assert (entry.sop_instance_uid, entry.state) == (uid(77), State.VERIFIED)
    assert (clinic.root / entry.path).exists()
    assert result.counts["found"] == 5


def test_an_object_of_another_series_stays_unclaimed_in_the_spool(clinic):
    clinic.archive.extra = [rt_image(1, study=f"{ROOT}.2", series=f"{ROOT}.2.1")]
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert len(filed(clinic)) == 5
    (left,) = Spool(clinic.spool).unclaimed()
    assert left.sop_instance_uid == f"{ROOT}.2.1.1"
    assert manifest_of(clinic)["unexpected"][0]["state"] == "received"


def test_the_same_object_twice_is_a_duplicate(clinic, images):
    clinic.archive.extra = [images[0]]
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert result.counts["duplicate"] == 1
    assert len(filed(clinic)) == 5


def test_a_copy_that_differs_in_what_the_peer_rewrites_is_a_duplicate(clinic):
    clinic.archive.extra = [rt_image(1, InstanceCreationTime="235959")]
    result = clinic.run()
    assert (result.outcome, result.counts["duplicate"], result.counts["conflict"]) == (Outcome.COMPLETE, 1, 0)


def test_other_content_under_the_same_uid_is_a_conflict_and_both_are_kept(clinic):
    other = rt_image(1, PixelData=b"\7" * 512)
    clinic.archive.extra = [other]
    result = clinic.run()
    assert result.outcome is Outcome.PARTIAL
    entry = result.manifest.ledger.entries[uid(1)]
    assert entry.state is State.CONFLICT
    kept = {pydicom.dcmread(clinic.root / path).PixelData for path in (entry.path, *entry.conflicts)}
    assert kept == {b"\1" * 512, b"\7" * 512}


def test_a_lost_association_in_the_middle_is_made_up_for(clinic):
    clinic.archive.abort_after = 2
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert sorted(clinic.archive.sent) == [uid(number) for number in range(1, 6)]
    assert manifest_of(clinic)["requests"][0]["problem"]


def test_a_daemon_that_dies_in_the_middle_leaves_a_partial_retrieval(clinic):
    def die():
        clinic.archive.abort_after = 2
        clinic.archive.on_move = lambda: None
        clinic.archive.stop_listening()

    clinic.archive.on_move = die
    result = clinic.run()
    assert result.outcome is Outcome.PARTIAL
    assert result.counts["verified"] == 2
    assert isinstance(result.error, PeerUnreachableError)
    assert "refused" in result.manifest.message
    assert not is_listening(clinic.port)


def test_an_unknown_move_destination_says_what_to_enter(clinic):
    clinic.archive.destinations.clear()
    with pytest.raises(UnknownMoveDestinationError, match="Trusted Application Entities"):
        clinic.run()
    assert not is_listening(clinic.port)
    assert manifest_of(clinic)["outcome"] == "partial"


def test_a702_without_a_connection_names_port_and_firewall(clinic):
    clinic.archive.move_status = 0xA702
    with pytest.raises(
        OutOfResourcesError, match=rf"never reached AIRFLOW on port {clinic.port}: .*firewall"
    ) as caught:
        clinic.run()
    assert caught.value.status == 0xA702
    assert clinic.archive.asked() == ["SERIES"]


@pytest.mark.parametrize("status", [0xA701, 0xA702, 0xA900])
def test_one_image_that_cannot_be_exported_keeps_none_of_the_others_back(clinic, status):
    clinic.archive.refused_instances = {uid(1): status}
    result = clinic.run(clinic.images(1, 2, 3), profile=replace(clinic.profile, uid_lists=False))
    assert result.outcome is Outcome.PARTIAL
    assert [entry.sop_instance_uid for entry in result.manifest.ledger.entries.values() if not entry.is_here] == [
        uid(1)
    ]
    assert clinic.archive.sent == [uid(2), uid(3)]


def test_a702_after_a_refused_connection_says_so(clinic):
    def store_under_another_name():
        assert clinic.archive.store([rt_image(1)], called="SOMEBODY") is None

    clinic.archive.on_move = store_under_another_name
    clinic.archive.move_status = 0xA702
    with pytest.raises(OutOfResourcesError, match="refused called AE title 'SOMEBODY'"):
        clinic.run()


def test_objects_sent_elsewhere_give_a_warning(clinic):
    clinic.archive.store = lambda *_, **__: []
    result = clinic.run()
    assert result.outcome is Outcome.PARTIAL
    assert "another machine" in result.manifest.warnings[0]


def test_a_broken_object_is_failed_and_set_aside(clinic, monkeypatch):
    # The receiver checks the head only; here the element lengths overrun the end of the data set.
    inspect = intake.inspect

    def cut(path, *keywords):
        if uid(2) in path.name and "claimed" in path.parts:
            raise DataSetError("the data set ends inside an element")
        return inspect(path, *keywords)

    monkeypatch.setattr(intake, "inspect", cut)
    result = clinic.run()
    assert result.outcome is Outcome.PARTIAL
    assert states(result)[uid(2)] == "failed"
    assert {path.parent.name for path in spooled(clinic)} == {"broken"}
    assert len(filed(clinic)) == 4


def test_an_unreachable_peer_is_an_error_and_the_manifest_stays_pending(clinic):
    with pytest.raises(PeerUnreachableError):
        clinic.run(peer=replace(clinic.peer, port=free_port()))
    assert manifest_of(clinic)["outcome"] == "pending"
    assert "refused" in manifest_of(clinic)["message"]


# Methods


@pytest.fixture
def getting(images, clinic):
    with Archive(images, get=True) as running:
        clinic.archive = running
        clinic.peer = running.peer(receiver_port=clinic.port, retrieve_method="auto")
        yield clinic


def test_a_permanent_refusal_is_written_down_with_its_status(clinic):
    clinic.archive.destinations.clear()
    with pytest.raises(UnknownMoveDestinationError) as caught:
        clinic.run()
    (report,) = manifest_of(clinic)["requests"]
    assert report["status"] == "0xA801"
    assert report["problem"] == caught.value.what


def test_a_rerun_that_asks_nobody_keeps_what_is_known_of_the_peer(clinic):
    clinic.run()
    before = manifest_of(clinic)["peer"]
    assert before["implementation_version_name"] == "SCRIPTED"
    clinic.run()
    assert clinic.archive.asked() == ["SERIES"]
    assert manifest_of(clinic)["peer"] == before


def test_what_an_earlier_version_of_the_peer_accepted_is_forgotten_when_it_is_asked_again(clinic):
    old = {"implementation_version_name": "OLD", "accepted_contexts": [["1.2.3", "1.2.840.10008.1.2"]]}
    Manifest(id="r-1", peer=old, outcome=Outcome.EMPTY).write(Destination(clinic.root))
    clinic.run()
    peer = manifest_of(clinic)["peer"]
    assert peer["implementation_version_name"] == "SCRIPTED"
    assert peer["accepted_contexts"]
    assert old["accepted_contexts"][0] not in peer["accepted_contexts"]


def test_what_is_raised_is_not_logged_too(clinic, caplog):
    clinic.archive.move_status = 0xA702
    with caplog.at_level(logging.WARNING), pytest.raises(OutOfResourcesError) as caught:
        clinic.run()
    assert str(caught.value) not in [record.getMessage() for record in caplog.records]


def test_what_is_got_over_is_logged_once(clinic, caplog):
    clinic.archive.abort_after = 2
    with caplog.at_level(logging.WARNING):
        result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert [record.getMessage() for record in caplog.records].count(str(result.error)) == 1


def test_what_ends_a_retrieval_that_brought_something_is_logged_once(clinic, caplog):
    def die():
        clinic.archive.abort_after = 2
        clinic.archive.on_move = lambda: None
        clinic.archive.stop_listening()

    clinic.archive.on_move = die
    with caplog.at_level(logging.WARNING):
        result = clinic.run()
    assert result.outcome is Outcome.PARTIAL
    assert [record.getMessage() for record in caplog.records].count(str(result.error)) == 1


def test_auto_gets_where_get_is_accepted_and_opens_no_port(getting):
    result = getting.run(on_change=lambda _: assert_not_listening(getting.port))
    assert result.outcome is Outcome.COMPLETE
    assert getting.archive.requests[0][0] == "C-GET"
    assert len(filed(getting)) == 5
    assert manifest_of(getting)["requests"][0]["method"] == "C-GET"


def assert_not_listening(port):
    assert not is_listening(port)


def test_auto_moves_where_get_is_not_accepted(clinic):
    result = clinic.run(method="auto")
    assert result.outcome is Outcome.COMPLETE
    assert [verb for verb, _, _ in clinic.archive.requests] == ["C-MOVE"]


def test_what_get_leaves_out_is_moved(getting):
    chosen = getting.archive._chosen

    def by_method(verb, identifier):
        return [ds for ds in chosen(verb, identifier) if verb == "C-MOVE" or ds.SOPInstanceUID != uid(5)]

    getting.archive._chosen = by_method
    result = getting.run()
    assert result.outcome is Outcome.COMPLETE
    assert getting.archive.requests[0][0] == "C-GET"
    assert getting.archive.requests[-1][:2] == ("C-MOVE", "IMAGE")
    assert getting.archive.sent.count(uid(5)) == 1
    assert {"from": "C-GET", "to": "C-MOVE"}.items() <= manifest_of(getting)["fallbacks"][-1].items()


def test_a_failing_get_is_followed_by_a_move(getting):
    getting.archive.get_status = 0xA702
    result = getting.run()
    assert result.outcome is Outcome.COMPLETE
    assert {verb for verb, _, _ in getting.archive.requests} == {"C-GET", "C-MOVE"}


def test_get_alone_does_not_fall_back(getting):
    getting.archive.get_status = 0xA702
    with pytest.raises(OutOfResourcesError):
        getting.run(method="get")
    assert {verb for verb, _, _ in getting.archive.requests} == {"C-GET"}


def test_an_abort_within_a_get_is_made_up_for(getting):
    getting.archive.abort_after = 2
    result = getting.run(method="get")
    assert result.outcome is Outcome.COMPLETE
    assert sorted(getting.archive.sent) == [uid(number) for number in range(1, 6)]


def test_with_tls_a_move_in_clear_text_is_refused(clinic):
    peer = replace(clinic.peer, tls=TlsSettings())
    with pytest.raises(ConfigurationError, match="clear text"):
        clinic.run(peer=peer, method="move")
    assert clinic.archive.finds == 0


def test_move_without_a_receiver_port_names_the_field(clinic):
    with pytest.raises(ConfigurationError, match="receiver_port"):
        clinic.run(peer=replace(clinic.peer, receiver_port=None))


# Ports, kills, stragglers


def test_a_taken_port_is_an_error_that_names_it(clinic, caplog):
    caplog.set_level(logging.INFO)
    with (
        socket.create_server(("127.0.0.1", clinic.port)),
        pytest.raises(ReceiverUnavailableError, match=rf"port {clinic.port} .*is still taken.*pool"),
    ):
        clinic.run(port_wait_seconds=0.1)
    assert clinic.archive.requests == []


def test_two_retrievals_take_the_port_in_turn(clinic):
    other = rt_image(1, study=f"{ROOT}.2", series=f"{ROOT}.2.1")
    clinic.archive.instances[other.SOPInstanceUID] = other
    results = {}

    def second():
        request = RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": f"{ROOT}.2"})
        results["second"] = clinic.run(request, retrieval_id="r-2", port_wait_seconds=30)

    thread = threading.Thread(target=second)

    def start_second():
        clinic.archive.on_move = lambda: None
        thread.start()

    clinic.archive.on_move = start_second
    results["first"] = clinic.run(port_wait_seconds=30)
    thread.join(30)
    assert {name: result.outcome for name, result in results.items()} == {
        "first": Outcome.COMPLETE,
        "second": Outcome.COMPLETE,
    }


def test_a_cancelled_retrieval_stays_pending_and_frees_the_port(clinic):
    cancellation = Cancellation()
    clinic.archive.on_sent = lambda _: cancellation.cancel()
    with pytest.raises(CancelledError):
        clinic.run(cancellation=cancellation)
    assert manifest_of(clinic)["outcome"] == "pending"
    assert manifest_of(clinic)["message"] == "cancelled"
    assert not is_listening(clinic.port)


def test_a_retry_after_a_kill_takes_what_the_spool_has_and_moves_the_rest(clinic):
    cancellation = Cancellation()

    def kill_after_two(_):
        if len(clinic.archive.sent) == 2:
            cancellation.cancel()
            time.sleep(0.2)

    clinic.archive.on_sent = kill_after_two
    with pytest.raises(CancelledError):
        clinic.run(cancellation=cancellation)
    clinic.archive.on_sent = lambda _: None
    here = {path.name.split("RTIMAGE.")[-1].removesuffix(".dcm") for path in filed(clinic)}
    spool = Spool(clinic.spool)
    here |= {item.sop_instance_uid for item in (*spool.unclaimed(), *spool.claimed("r-1"))}
    assert len(here) >= 2
    clinic.archive.sent.clear()
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert not here & set(clinic.archive.sent)


def test_a_retry_lets_stragglers_come_in_before_it_moves_again(clinic, images):
    # What a killed try leaves behind; the peer goes on sending, which it is allowed to (PS3.4 C.4.2.3.1).
    Manifest(id="r-1").write(Destination(clinic.root))

    def straggle():
        wait_until(lambda: is_listening(clinic.port))
        clinic.archive.store(images)

    thread = threading.Thread(target=straggle)
    thread.start()
    result = clinic.run(settle_seconds=3.0)
    thread.join(10)
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.requests == []


def test_what_was_claimed_before_a_kill_is_published_by_the_retry(clinic):
    clinic.run(clinic.images(1))
    published = filed(clinic)[0]
    content = published.read_bytes()
    published.unlink()
    spool = Spool(clinic.spool)
    item_folder = spool.root / "claimed" / "r-2"
    item_folder.mkdir(mode=0o700)
    (item_folder / f"{uid(1)}.0123456789abcdef.dcm").write_bytes(content)
    clinic.archive.sent.clear()
    result = clinic.run(clinic.images(1), retrieval_id="r-2")
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.sent == []
    assert filed(clinic)[0].read_bytes() == content


def test_the_list_is_asked_for_until_it_stands_still(clinic):
    late = [rt_image(6), rt_image(7)]
    find = clinic.archive._find

    def growing(event):
        if late:
            new = late.pop()
            clinic.archive.instances[new.SOPInstanceUID] = new
        yield from find(event)

    clinic.archive._server.bind(evt.EVT_C_FIND, growing)
    result = clinic.run(profile=replace(clinic.profile, stable_counts=3), recheck_rounds=0)
    assert result.counts["found"] == 7
    assert clinic.archive.finds == 4


def test_without_pending_responses_an_arriving_object_counts_as_activity(clinic):
    clinic.archive.pending = False
    clinic.archive.on_sent = lambda _: time.sleep(1.2)
    result = clinic.run(peer=replace(clinic.peer, dimse_timeout=5))
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.asked() == ["SERIES"]
    # Who was taken for silent would have been waited for all the same, as for one that sends late.
    assert not result.manifest.requests[0].problem


def test_without_pending_responses_an_object_that_comes_for_long_is_a_sign_of_life(clinic):
    # Nothing else shows that the peer is at work: of one object, there is nothing to file until it is whole.
    clinic.archive.instances = {uid(1): rt_image(1, Rows=128, Columns=128, PixelData=bytes(32768))}
    clinic.archive.pending = False
    clinic.archive.on_pdu = lambda: time.sleep(0.6)
    result = clinic.run(peer=replace(clinic.peer, dimse_timeout=3, max_pdu=4096))
    assert result.outcome is Outcome.COMPLETE
    assert clinic.archive.asked() == ["SERIES"]
    assert not result.manifest.requests[0].problem


def test_the_deadline_bounds_the_whole(clinic):
    judged = threading.Event()

    def stall_after_two(_):
        if len(clinic.archive.sent) == 2:
            judged.wait(60)

    clinic.archive.on_sent = stall_after_two
    result = clinic.run(peer=replace(clinic.peer, retrieve_deadline=8.0, dimse_timeout=30.0))
    judged.set()
    assert result.outcome is Outcome.PARTIAL
    assert result.counts["verified"] == 2
    assert isinstance(result.error, PeerTimeoutError)
    assert len(manifest_of(clinic)["requests"]) == 1


def test_no_identifier_is_logged(clinic, caplog):
    caplog.set_level(logging.DEBUG)
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(3)
    clinic.run(RetrievalRequest(level=Level.PATIENT, keys={"PatientID": "QA_TB_WL"}))
    assert "QA_TB_WL" not in caplog.text
    assert "Phantom" not in caplog.text


# Elsewhere


def test_a_retrieval_into_an_object_store(clinic):
    root = UPath("memory://retrieve-test/out")
    result = clinic.run(destination=root)
    assert result.outcome is Outcome.COMPLETE
    assert len(list((root / STUDY / SERIES).iterdir())) == 5
    clinic.archive.sent.clear()
    assert clinic.run(destination=root).counts["held"] == 5
    assert clinic.archive.sent == []


def test_a_layout_of_dates_is_filled_from_the_object(clinic):
    result = clinic.run(layout="{AcquisitionDate}/{StudyInstanceUID}/{Modality}.{SOPInstanceUID}.dcm")
    assert result.outcome is Outcome.COMPLETE
    assert {path.relative_to(clinic.root).parts[0] for path in filed(clinic)} == {"20260102"}


def test_bytes_on_disk_are_the_bytes_of_the_wire(clinic, images):
    clinic.run()
    for ds in images:
        (path,) = [path for path in filed(clinic) if path.name == f"RTIMAGE.{ds.SOPInstanceUID}.dcm"]
        assert wire_bytes(path) == encode(ds, True, True)


def test_tls_in_both_directions(images, clinic):
    authority = Authority()
    ours, theirs = authority.issue("airflow"), authority.issue("localhost")
    server = tls.server_context(
        TlsSettings(ca_certificate=authority.certificate, certificate=theirs.certificate, private_key=theirs.key)
    )
    with Archive(images, get=True, tls=server) as running:
        clinic.archive = running
        settings = TlsSettings(
            server_name="localhost",
            ca_certificate=authority.certificate,
            certificate=ours.certificate,
            private_key=ours.key,
        )
        result = clinic.run(peer=running.peer(receiver_port=clinic.port, retrieve_method="auto", tls=settings))
    assert result.outcome is Outcome.COMPLETE
    assert {verb for verb, _, _ in running.requests} == {"C-GET"}
