"""Quotas: of an association, and of a source in an hour."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.archive import rt_image, sendable
from support.receiving import MemorySink, call, limits, running

from airflow_provider_varian.dimse.sink import StorageRefused, StoreRequest
from airflow_provider_varian.receiver import quota
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.quota import Quotas

REQUEST = StoreRequest(sop_class_uid="1.2", sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2")


def put(sink, size=10):
    incoming = sink.begin(REQUEST)
    try:
        incoming.write(bytes(size))
        incoming.commit()
    finally:
        incoming.abandon()


def accepted(sink, *sizes):
    """Put objects into a sink; return which were taken."""
    return [status_of(sink, size) is None for size in sizes]


def status_of(sink, size):
    """Put an object into a sink; return the status with which it is refused, if it is."""
    try:
        put(sink, size)
    except StorageRefused as refusal:
        return refusal.status
    return None


def test_without_quotas_no_object_comes_by():
    sink = MemorySink()
    assert Quotas(Limits()).sink(sink, "10.0.0.1", lambda: None) is sink


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        ({"objects_per_association": 2}, [True, True, False, False]),
        ({"bytes_per_association": 25}, [True, True, False, False]),
        ({"objects_per_source_hour": 2}, [True, True, False, False]),
        ({"bytes_per_source_hour": 25}, [True, True, False, False]),
    ],
)
def test_what_is_over_a_quota_is_refused_and_leaves_no_fragment(settings, taken, caplog):
    inner, exceeded = MemorySink(), []
    sink = Quotas(replace(Limits(), **settings)).sink(inner, "10.0.0.1", lambda: exceeded.append(1))
    assert [status_of(sink, 10) for _ in range(4)] == [None if each else 0xA700 for each in taken]
    assert len(inner.objects) == 2
    # The third began, before there was too much of it; the fourth did not.
    assert inner.abandoned == ("bytes" in next(iter(settings)))
    assert exceeded == [1]
    assert len([record for record in caplog.records if "quota" in record.message]) == 1


def test_an_object_that_grows_over_its_quota_is_let_go_of_at_once():
    inner = MemorySink()
    incoming = Quotas(Limits(bytes_per_association=10)).sink(inner, "10.0.0.1", lambda: None).begin(REQUEST)
    incoming.write(bytes(10))
    with pytest.raises(StorageRefused):
        incoming.write(b"x")
    assert inner.abandoned == 1
    assert inner.objects == []


def test_another_association_has_a_quota_of_its_own():
    quotas = Quotas(Limits(objects_per_association=1))
    for _ in range(2):
        assert accepted(quotas.sink(MemorySink(), "10.0.0.1", lambda: None), 1, 1) == [True, False]


def test_an_hour_is_of_the_source_and_passes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(quota.time, "monotonic", lambda: now[0])
    quotas = Quotas(Limits(objects_per_source_hour=1))

    def one(source):
        return accepted(quotas.sink(MemorySink(), source, lambda: None), 1)

    assert [one("10.0.0.1"), one("10.0.0.1"), one("10.0.0.2")] == [[True], [False], [True]]
    now[0] += 3601
    assert one("10.0.0.1") == [True]


def test_sources_are_remembered_within_bounds():
    quotas = Quotas(Limits(objects_per_source_hour=1))
    for number in range(3 * quota.REMEMBERED):
        accepted(quotas.sink(MemorySink(), f"10.0.{number >> 8}.{number & 255}", lambda: None), 1)
    assert len(quotas._sources) == quota.REMEMBERED


def test_a_quota_is_answered_a700_and_the_association_goes_on():
    with running(limits=limits(objects_per_association=1)) as server:
        association = call(server)
        statuses = [association.send_c_store(sendable(rt_image(number))).Status for number in range(3)]
        association.release()
        server.recorder.await_("disconnected")
        assert statuses == [0x0000, 0xA700, 0xA700]
        assert server.recorder.refusals == ["quota"]
        assert [call[2] for call in server.recorder.named("not_stored")] == [0xA700, 0xA700]
        assert server.recorder.named("ended") == [(1, "released")]
