"""What Prometheus reads: true numbers, and no label that a stranger could blow up."""

from __future__ import annotations

import logging
import os
import time

import pytest
from support.archive import rt_image

from airflow_provider_varian import __version__
from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.receiver.census import Census
from airflow_provider_varian.receiver.metrics import Metrics, exposition
from airflow_provider_varian.receiver.observer import AssociationFacts, Ending, Refusal
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.receiver.upkeep import Removed
from airflow_provider_varian.uids import IMPLICIT_VR_LITTLE_ENDIAN, RT_IMAGE

REQUEST = StoreRequest(sop_class_uid=RT_IMAGE, sop_instance_uid="1.2.3", transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN)
REMOVED = Removed(sop_instance_uid="1.2", sop_class_uid="1.3", study_instance_uid="1.4", size=1, age_seconds=1.0)
TITLES = {"calling": "VMSDBD", "called": "AIRFLOW"}


def facts(calling="VMSDBD", called="AIRFLOW"):
    return AssociationFacts(number=1, source_address="10.9.8.7", calling_ae_title=calling, called_ae_title=called)


@pytest.fixture
def metrics():
    return Metrics(ae_titles=["VMSDBD", "AIRFLOW"])


@pytest.fixture
def value(metrics):
    def of(name, **labels):
        return metrics.registry.get_sample_value(f"dicom_receiver_{name}", labels)

    return of


def test_connections_and_associations_are_counted_and_their_gauges_come_back(metrics, value):
    for _ in range(3):
        metrics.connected("10.9.8.7")
    metrics.associated(facts())
    assert (value("connections_open"), value("connections_total")) == (3, 3)
    assert (value("associations_open"), value("associations_total", **TITLES)) == (1, 1)
    metrics.ended(facts(), Ending.ABORTED)
    for _ in range(3):
        metrics.disconnected("10.9.8.7")
    assert (value("connections_open"), value("associations_open")) == (0, 0)
    assert value("associations_ended_total", how="aborted") == 1
    assert value("associations_ended_total", how="released") == 0


def test_objects_and_bytes_are_counted_and_timed(metrics, value):
    metrics.stored(facts(), REQUEST, 1000, 0.01)
    metrics.stored(facts(), REQUEST, 500, 3.0)
    assert value("objects_total", **TITLES) == 2
    assert value("object_bytes_total", **TITLES) == 1500
    assert value("object_seconds_bucket", le="0.02") == 1
    assert value("object_seconds_bucket", le="10.0") == 2
    assert value("object_seconds_sum") == pytest.approx(3.01)


@pytest.mark.parametrize(
    ("status", "label"), [(0xA700, "0xA700"), (0xC000, "0xC000"), (None, "none"), (0xBEEF, "other"), (1, "other")]
)
def test_what_was_not_stored_is_counted_by_what_was_answered(metrics, value, status, label):
    metrics.not_stored(facts(), REQUEST, status, "a reason of 10.9.8.7")
    assert value("objects_not_stored_total", status=label) == 1


def test_each_reason_of_a_refusal_is_there_before_it_happens(metrics, value):
    metrics.refused("10.9.8.7", Refusal.TLS)
    assert {reason: value("refusals_total", reason=reason.value) for reason in Refusal} == {
        reason: int(reason is Refusal.TLS) for reason in Refusal
    }


def test_a_stranger_cannot_make_up_labels(metrics):
    metrics.stored(facts(), REQUEST, 1, 0.1)
    metrics.associated(facts())
    stranger = facts("EVIL0", "OTHER0")
    metrics.associated(stranger)
    metrics.stored(stranger, REQUEST, 1, 0.1)
    lines = len(exposition(metrics.registry).splitlines())
    for number in range(1000):
        stranger = facts(f"EVIL{number}", f"OTHER{number}")
        metrics.connected(f"10.0.{number}.1")
        metrics.associated(stranger)
        metrics.stored(stranger, REQUEST, 1, 0.1)
        metrics.refused(f"10.0.{number}.1", Refusal.NETWORK)
    text = exposition(metrics.registry).decode()
    assert len(text.splitlines()) == lines
    assert "EVIL" not in text
    assert "10." not in "".join(line.split("}")[0] for line in text.splitlines() if "{" in line and "le=" not in line)


def test_what_is_swept_and_published_is_counted(metrics, value):
    metrics.removed(REMOVED)
    metrics.published("1.2.x.dcm", 700, 2.0)
    metrics.publish_failed("store")
    assert value("swept_objects_total") == 1
    assert (value("published_objects_total"), value("published_bytes_total")) == (1, 700)
    assert value("publish_failures_total", reason="store") == 1


def test_publisher_and_trail_are_asked_when_the_metrics_are(metrics, value):
    class Watched:
        backlog, troubled, written, dropped, failures = 5, True, 10, 2, 1

    watched = Watched()
    metrics.watch_publisher(watched)
    metrics.watch_audit(watched)
    assert (value("publish_backlog_objects"), value("publish_troubled")) == (5, 1)
    watched.backlog, watched.dropped = 6, 3
    assert value("publish_backlog_objects") == 6
    assert value("audit_messages_total") == 10
    assert value("audit_dropped_events_total") == 3
    assert value("audit_failures_total") == 1


def test_what_never_happened_is_a_zero(value):
    assert value("objects_not_stored_total", status="0xA700") == 0
    assert value("objects_not_stored_total", status="none") == 0
    assert value("publish_failures_total", reason="store") == 0


def test_the_process_is_told_of_and_when_it_began_once(metrics):
    metrics.stored(facts(), REQUEST, 1, 0.1)
    text = exposition(metrics.registry).decode()
    assert "process_start_time_seconds" in text
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text


def test_it_says_which_program_it_is(metrics):
    assert f'version="{__version__}"' in exposition(metrics.registry).decode()


def test_the_spool_is_counted_when_it_is_asked_for(spool, put):
    metrics = Metrics(spool=spool)
    with SpoolSink(spool) as sink:
        put(sink)
    (item,) = spool.unclaimed()
    os.utime(item.path, (0, time.time() - 5000))
    (spool.broken / "x.dcm").touch()
    get = metrics.registry.get_sample_value
    assert get("dicom_receiver_spool_unclaimed_objects") == 1
    assert 5000 <= get("dicom_receiver_spool_oldest_unclaimed_seconds") < 6000
    assert get("dicom_receiver_spool_broken_objects") == 1
    assert get("dicom_receiver_spool_counted_whole") == 1
    assert get("dicom_receiver_spool_free_bytes") == pytest.approx(spool.free_bytes(), rel=0.5)


def test_what_retrievals_have_claimed_and_not_let_go_of_is_counted(spool, put):
    metrics = Metrics(spool=spool)
    get = metrics.registry.get_sample_value
    (spool.root / "claimed" / "r-0").mkdir()
    os.utime(spool.root / "claimed" / "r-0", (0, 0))
    assert get("dicom_receiver_spool_claimed_objects") == get("dicom_receiver_spool_oldest_claim_seconds") == 0
    images = [rt_image(number) for number in range(1, 4)]
    with SpoolSink(spool) as sink:
        for image in images:
            put(sink, image)
    for item in list(spool.unclaimed()):
        os.utime(item.path, (0, time.time() - 90000))
    for retrieval_id, image in zip(("r-1", "r-1", "r-2"), images, strict=True):
        assert spool.claim(retrieval_id, {image.SOPInstanceUID})
    # A try that runs has its lock beside them.
    (spool.root / "claimed" / "r-2.lock").touch()
    os.utime(spool.root / "claimed" / "r-1", (0, time.time() - 5000))
    fresh = Metrics(spool=spool).registry.get_sample_value
    assert fresh("dicom_receiver_spool_unclaimed_objects") == 0
    assert fresh("dicom_receiver_spool_claimed_objects") == 3
    # Since the claim was last changed, not since the object came.
    assert 5000 <= fresh("dicom_receiver_spool_oldest_claim_seconds") < 6000


def test_claims_without_number_are_counted_for_so_long_only(spool, monkeypatch):
    folder = spool.root / "claimed" / "r-1"
    folder.mkdir()
    for number in range(600):
        (folder / f"1.2.{number}.{'0' * 36}.dcm").touch()
    assert (Census(spool).count().claimed, Census(spool).count().whole) == (600, True)
    count = Census(spool, counting_seconds=0.0).count()
    assert 0 < count.claimed < 600
    assert not count.whole


def test_a_spool_that_cannot_be_read_leaves_the_rest_to_be_told(spool, caplog):
    metrics = Metrics(spool=spool)
    spool.broken.rmdir()
    with caplog.at_level(logging.WARNING):
        text = exposition(metrics.registry).decode()
    assert "dicom_receiver_connections_total 0.0" in text
    assert "spool_unclaimed" not in text
    assert "cannot be looked at" in caplog.text


def objects(spool, count, *, shard="00"):
    folder = spool.new / shard
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"1.2.{number}.{'0' * 36}.dcm").touch()


def test_a_count_is_told_again_and_made_anew_when_it_is_too_old(spool):
    census = Census(spool, kept_seconds=1000)
    objects(spool, 2)
    assert census.count().unclaimed == 2
    objects(spool, 5)
    assert census.count().unclaimed == 2
    assert Census(spool).count().unclaimed == 5
    fresh = Census(spool, kept_seconds=0)
    assert fresh.count().unclaimed == 5
    objects(spool, 6)
    assert fresh.count().unclaimed == 6


def test_a_count_that_takes_too_long_is_broken_off_and_says_so(spool):
    objects(spool, 600)
    found = Census(spool, counting_seconds=0).count()
    assert (found.unclaimed, found.whole) == (256, False)
    found = Census(spool).count()
    assert (found.unclaimed, found.whole) == (600, True)


def test_nothing_that_an_object_causes_takes_long(metrics):
    metrics.stored(facts(), REQUEST, 1000, 0.01)
    known = facts()
    before = time.thread_time()
    for _ in range(2000):
        metrics.stored(known, REQUEST, 1000, 0.01)
    # A few microseconds on an idle machine.
    assert (time.thread_time() - before) / 2000 < 100e-6
