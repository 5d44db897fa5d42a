"""Two retrievals at once through one spool: each gets what it asked for, and nothing of the other's (semantics 11)."""

from __future__ import annotations

import threading
from dataclasses import replace

import pydicom
import pytest
from support.archive import ROOT, rt_image
from support.ports import free_port

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.request import RetrievalRequest

OTHER_STUDY, OTHER_SERIES = f"{ROOT}.2", f"{ROOT}.2.1"


def names(numbers, series=f"{ROOT}.1.1"):
    return {f"{series}.{number}" for number in numbers}


@pytest.fixture
def movers(clinic, tmp_path):
    """Return ``both(first, second)``: run two retrievals at once, each with a receiver and a destination of its own.

    The peer sends nothing to either before it was asked by both.
    """
    archive = clinic.archive
    for number in range(1, 6):
        other = rt_image(number, study=OTHER_STUDY, series=OTHER_SERIES)
        archive.instances[other.SOPInstanceUID] = other
    port = free_port()
    archive.destinations["SECOND"] = ("127.0.0.1", port)
    both_asked = threading.Barrier(2, timeout=30)
    waiting = [True, True]

    def on_move():
        if waiting:
            waiting.pop()
            both_asked.wait()

    archive.on_move = on_move
    peers = {
        "first": clinic.peer,
        "second": replace(clinic.peer, calling_ae_title="SECOND", move_destination="SECOND", receiver_port=port),
    }
    clinic.roots = {name: tmp_path / name for name in peers}

    def both(**requests):
        results = {}

        def run(name):
            results[name] = clinic.run(
                requests[name], peer=peers[name], destination=clinic.roots[name], retrieval_id=name
            )

        threads = [threading.Thread(target=run, args=(name,)) for name in peers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert set(results) == set(peers)
        return results

    clinic.both = both
    return clinic


def held(folder):
    files = [path for path in folder.rglob("*.dcm") if ".dicom" not in path.parts]
    return sorted(pydicom.dcmread(path).SOPInstanceUID for path in files)


def other_series(**settings):
    return RetrievalRequest(level=Level.SERIES, keys={"SeriesInstanceUID": OTHER_SERIES}, **settings)


def test_two_series_through_one_spool_are_never_mixed(movers):
    results = movers.both(first=movers.series(), second=other_series())
    for name, series in (("first", f"{ROOT}.1.1"), ("second", OTHER_SERIES)):
        assert results[name].outcome is Outcome.COMPLETE
        assert set(held(movers.roots[name])) == set(results[name].manifest.ledger.entries) == names(range(1, 6), series)
        assert results[name].counts | {"unexpected": 0, "duplicate": 0, "verified": 5} == results[name].counts
    assert list(Spool(movers.spool).unclaimed()) == []


def test_the_same_instances_asked_for_twice_come_to_both(movers):
    results = movers.both(first=movers.images(1, 2, 3), second=movers.images(2, 3, 4))
    for name, numbers in (("first", (1, 2, 3)), ("second", (2, 3, 4))):
        assert results[name].outcome is Outcome.COMPLETE
        assert set(held(movers.roots[name])) == names(numbers) | names(numbers, OTHER_SERIES)
    assert movers.archive.sent.count(f"{ROOT}.1.1.2") == 2
    assert list(Spool(movers.spool).unclaimed()) == []


def test_what_is_sent_to_another_ae_title_is_nobodys_and_is_asked_for_again(movers):
    """An object of the first retrieval arrives at the receiver of the second, under that one's AE title."""
    store, astray = movers.archive.store, f"{ROOT}.1.1.3"

    def misdirected(instances, *, destination="AIRFLOW", **settings):
        if destination == "AIRFLOW" and str(instances[0].SOPInstanceUID) == astray:
            destination = "SECOND"
        return store(instances, destination=destination, **settings)

    movers.archive.store = misdirected
    # The second is still receiving when the straggler comes.
    movers.archive.late = {f"{OTHER_SERIES}.5"}
    movers.archive.late_seconds = 2.0
    requests = {"first": movers.series(), "second": other_series()}
    run = movers.run
    movers.run = lambda request, **settings: run(request, **({"settle_seconds": 4.0} | settings))
    results = movers.both(**requests)
    assert results["second"].outcome is Outcome.COMPLETE
    assert set(held(movers.roots["second"])) == names(range(1, 6), OTHER_SERIES)
    assert astray not in held(movers.roots["first"])
    assert results["first"].counts["missing"] == 1
    assert {item.sop_instance_uid for item in Spool(movers.spool).unclaimed()} == {astray}
    # To whom it was sent is certain, not that it is the first one's: another peer may hold other content under its UID.
    movers.archive.store = store
    movers.archive.sent.clear()
    result = run(movers.series(), destination=movers.roots["first"], retrieval_id="first", settle_seconds=0.05)
    assert (result.outcome, movers.archive.sent) == (Outcome.COMPLETE, [astray])
    assert {item.sop_instance_uid for item in Spool(movers.spool).unclaimed()} == {astray}
