"""Two tries with one retrieval ID, as of a task that Airflow gave up and its retry: one after the other."""

from __future__ import annotations

import threading

import pytest
from support.archive import Archive, rt_image

from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver import claim_lock
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval import intake
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.manifest import load_manifest
from airflow_provider_varian.retrieval.outcome import Outcome


@pytest.fixture
def first_try(clinic, monkeypatch):
    """Return a try that hangs while it publishes, until ``go_on`` is set, and what came of it."""
    begun, go_on, results = threading.Event(), threading.Event(), []
    publish = Destination.publish

    def slow(self, *arguments, **settings):
        begun.set()
        assert go_on.wait(60)
        return publish(self, *arguments, **settings)

    with Archive([rt_image(number) for number in range(1, 4)], get=True) as archive:
        clinic.archive, clinic.peer = archive, archive.peer(retrieve_method="get")
        monkeypatch.setattr(Destination, "publish", slow)
        thread = threading.Thread(target=lambda: results.append(clinic.run(peer=clinic.peer)))
        thread.start()
        assert begun.wait(60)
        try:
            yield go_on, thread, results
        finally:
            go_on.set()
            thread.join(60)


def test_the_retry_waits_for_the_try_that_goes_on(clinic, first_try, monkeypatch):
    go_on, thread, results = first_try
    pause = claim_lock.Cancellation.pause

    def pause_and_let_go_on(self, seconds):
        go_on.set()
        pause(self, seconds)

    monkeypatch.setattr(claim_lock.Cancellation, "pause", pause_and_let_go_on)
    retry = clinic.run(peer=clinic.peer)
    thread.join(60)
    assert (results[0].outcome, retry.outcome) == (Outcome.COMPLETE, Outcome.COMPLETE)
    # It began after the other had ended, so it found all of it held.
    assert (retry.manifest.attempts, retry.counts["held"], len(clinic.archive.sent)) == (2, 3, 3)
    assert list((clinic.spool / "claimed").iterdir()) == []


def test_a_try_that_goes_on_for_too_long_is_named_and_its_account_left_alone(clinic, first_try, monkeypatch):
    monkeypatch.setattr(claim_lock, "WAIT_SECONDS", 0.0)
    account = (clinic.root / ".dicom" / "r-1.json").read_bytes()
    with pytest.raises(ReceiverUnavailableError, match="another try of retrieval r-1 is running"):
        clinic.run(peer=clinic.peer)
    assert (clinic.root / ".dicom" / "r-1.json").read_bytes() == account
    # Other retrievals have nothing to do with it.
    first_try[0].set()
    assert clinic.run(peer=clinic.peer, retrieval_id="r-2").outcome is Outcome.COMPLETE


def test_claimed_objects_that_vanish_are_skipped(clinic, monkeypatch):
    take = intake.Intake._take_each

    def first_one_vanishes(self, items, **settings):
        for item in items[:1]:
            item.path.unlink()
        take(self, items, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(intake.Intake, "_take_each", first_one_vanishes)
        result = clinic.run(clinic.images(1, 2), settle_seconds=0.05)
    assert result.counts["found"] == result.counts["verified"] + result.counts["missing"] == 2
    assert list(Spool(clinic.spool).unclaimed()) == []
    assert load_manifest(Destination(clinic.root), "r-1").outcome is result.outcome
