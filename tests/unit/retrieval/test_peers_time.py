"""The peer's quiet hours, pauses and budget bind a whole retrieval, and cost it neither time nor a retry."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
from support.archive import Archive, rt_image
from support.ports import free_port, wait_until
from support.quiet import AFTER, BEFORE, QUIET, WITHIN, Clock

from airflow_provider_varian.dimse.budget import Line
from airflow_provider_varian.errors import AssociationBudgetError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval import transfer
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.selection import select
from airflow_provider_varian.retrieval.third_party import move_to_third_party
from airflow_provider_varian.waiting import Waiting

#: Asks for each instance by itself.
ONE_BY_ONE = Profile(
    name="one by one",
    relational_queries=True,
    uid_lists=False,
    volatile_attributes=frozenset(),
    stable_counts=1,
    stable_interval_seconds=0.0,
    settle_seconds=0.2,
)


@pytest.fixture
def opened(monkeypatch):
    """Each association of a transfer: when it was opened and ended, by the clock of the quiet hours."""
    seen = []
    real = transfer.associate

    @contextmanager
    def associate(*arguments, **options):
        from airflow_provider_varian.dimse import quiet_hours

        with real(*arguments, **options) as association:
            seen.append([quiet_hours.utc_now()])
            try:
                yield association
            finally:
                seen[-1].append(quiet_hours.utc_now())

    monkeypatch.setattr(transfer, "associate", associate)
    return seen


@pytest.fixture
def getting(images):
    with Archive(images, get=True) as running:
        yield running


def asked_at(archive, clock, monkeypatch):
    """Return a list that gets the clock's time at each request to retrieve."""
    times = []
    real = archive._chosen

    def chosen(verb, identifier):
        times.append(clock.now)
        return real(verb, identifier)

    monkeypatch.setattr(archive, "_chosen", chosen)
    return times


@pytest.mark.parametrize("method", ["get", "move"])
def test_a_long_retrieval_pauses_between_two_requests_and_goes_on(clinic, getting, opened, monkeypatch, method):
    clock = Clock(monkeypatch, BEFORE)
    archive = getting if method == "get" else clinic.archive
    asked = asked_at(archive, clock, monkeypatch)

    def quiet_begins(uid=None):
        if len(archive.sent) == 2 and clock.now == BEFORE:
            clock.now = WITHIN  # in the middle of the second request
            clock.over_after(10)

    prepare = archive.prepare
    archive.on_sent = quiet_begins
    archive.prepare = lambda ds: (quiet_begins(), prepare(ds))[1]
    peer = archive.peer(receiver_port=free_port(), **QUIET)
    result = clinic.run(clinic.images(1, 2, 3, 4), peer=peer, profile=ONE_BY_ONE, method=method)
    assert result.outcome is Outcome.COMPLETE
    # None was cut off, none asked twice, and none in quiet hours.
    assert asked == [BEFORE, BEFORE, AFTER, AFTER]
    assert [len(times) for times in opened] == [2, 2]
    assert opened[0][0] == BEFORE
    assert opened[1] == [AFTER, AFTER]
    assert clock.looks > 5


def test_what_is_waited_for_quiet_hours_is_not_the_peers_time(clinic, monkeypatch):
    clock = Clock(monkeypatch, BEFORE)

    def quiet_begins(uid):
        if len(clinic.archive.sent) == 1:
            clock.now = WITHIN
            threading.Timer(9, setattr, (clock, "now", AFTER)).start()

    clinic.archive.on_sent = quiet_begins
    peer = clinic.archive.peer(receiver_port=clinic.port, retrieve_deadline=8, **QUIET)
    began = time.monotonic()
    result = clinic.run(clinic.images(1, 2), peer=peer, profile=ONE_BY_ONE)
    assert time.monotonic() - began > 9
    assert result.outcome is Outcome.COMPLETE


def test_who_waits_for_the_end_of_quiet_hours_does_not_keep_the_port(clinic, monkeypatch):
    clock = Clock(monkeypatch, WITHIN)
    peer = clinic.archive.peer(receiver_port=clinic.port, **QUIET)
    results = []
    thread = threading.Thread(target=lambda: results.append(clinic.run(clinic.images(1, 2), peer=peer)))
    thread.start()
    wait_until(lambda: clock.looks, what="the quiet hours to be seen")
    # Another connection of the same receiver has no quiet hours.
    other = clinic.run(clinic.images(3), retrieval_id="r-2", port_wait_seconds=0.0)
    assert other.outcome is Outcome.COMPLETE
    assert not results
    clock.now = AFTER
    thread.join(30)
    assert results[0].outcome is Outcome.COMPLETE


def test_the_wait_for_a_port_does_not_end_in_quiet_hours(clinic, monkeypatch, caplog):
    """Who has the port waits there for the end of quiet hours, longer than anybody waits for a port."""
    from airflow_provider_varian.receiver.in_task import InTaskReceiver

    caplog.set_level(logging.INFO, "airflow_provider_varian")
    clock = Clock(monkeypatch, BEFORE)
    peer = clinic.archive.peer(receiver_port=clinic.port, **QUIET)
    results = []
    with InTaskReceiver(peer, sink=None):
        thread = threading.Thread(
            target=lambda: results.append(clinic.run(clinic.images(1), peer=peer, port_wait_seconds=1.0))
        )
        thread.start()
        wait_until(lambda: "is taken" in caplog.text, what="the wait for the port")
        clock.now = WITHIN
        # It looks whether it is quiet when it has waited for as long as it would.
        wait_until(lambda: clock.looks > 10 or not thread.is_alive(), what="the wait for the end of the quiet hours")
        assert thread.is_alive()
    clock.now = AFTER
    thread.join(30)
    assert results[0].outcome is Outcome.COMPLETE


# ------------------------------------------------------------------------------------------------ the budget


@pytest.mark.parametrize("method", ["get", "move", "auto"])
def test_a_budget_of_one_suffices_for_a_whole_retrieval(clinic, getting, method):
    peer = getting.peer(receiver_port=clinic.port, max_associations=1)
    request = select(
        peer, None, {"StudyInstanceUID": rt_image(1).StudyInstanceUID, "Modality": "RTIMAGE"}, profile=ONE_BY_ONE
    )
    result = clinic.run(request, peer=peer, method=method, profile=ONE_BY_ONE)
    assert result.outcome is Outcome.COMPLETE
    # One instance that does not come by C-GET goes through every stage and both methods.
    getting.delivers = lambda level, uid: level == "IMAGE"
    listed = clinic.run(peer=peer, method=method, retrieval_id="r-2", destination=clinic.root / "second")
    assert listed.outcome is Outcome.COMPLETE


def test_a_budget_of_one_suffices_for_a_third_party_move(clinic, tmp_path):
    archive = clinic.archive
    archive.destinations["RESEARCH"] = ("127.0.0.1", free_port())
    archive.store = lambda instances, **_: None
    request = RetrievalRequest(level=Level.SERIES, keys={"SeriesInstanceUID": rt_image(1).SeriesInstanceUID})
    result = move_to_third_party(
        archive.peer(max_associations=1),
        request,
        destination="RESEARCH",
        profile=ONE_BY_ONE,
        manifest_root=tmp_path,
        retrieval_id="m-1",
    )
    assert result.outcome is Outcome.REPORTED


def test_a_retrieval_waits_for_its_turn_without_losing_time(clinic):
    peer = clinic.archive.peer(receiver_port=clinic.port, max_associations=1, retrieve_deadline=8)
    slots = []

    def other_task():
        slots.append(Line(peer).take())

    thread = threading.Thread(target=other_task)
    thread.start()
    thread.join()
    threading.Timer(9, slots[0].release).start()
    assert clinic.run(clinic.images(1, 2), peer=peer).outcome is Outcome.COMPLETE


def test_a_budget_that_never_comes_free_is_the_error_of_the_retrieval(clinic, monkeypatch):
    from airflow_provider_varian.dimse import association, turn

    monkeypatch.setitem(association.associate.__wrapped__.__kwdefaults__, "patience", turn.Patience(slot_seconds=0.2))
    peer = clinic.archive.peer(receiver_port=clinic.port, max_associations=1)
    slots = []
    thread = threading.Thread(target=lambda: slots.append(Line(peer).take()))
    thread.start()
    thread.join()
    with pytest.raises(AssociationBudgetError, match="max_associations"):
        clinic.run(clinic.images(1), peer=peer)
    slots[0].release()
    assert clinic.run(clinic.images(1), peer=replace(peer)).outcome is Outcome.COMPLETE


def test_the_peers_pause_is_kept_between_all_requests(clinic, monkeypatch):
    times = []
    real = clinic.archive._chosen

    def chosen(verb, identifier):
        times.append(time.monotonic())
        return real(verb, identifier)

    clinic.archive.on_find = lambda: times.append(time.monotonic())
    monkeypatch.setattr(clinic.archive, "_chosen", chosen)
    peer = clinic.archive.peer(receiver_port=clinic.port, request_pause_seconds=0.15)
    profile = replace(ONE_BY_ONE, stable_counts=2)
    result = clinic.run(RetrievalRequest(level=Level.IMAGE, keys=_two(clinic)), peer=peer, profile=profile)
    assert result.outcome is Outcome.COMPLETE
    assert len(times) >= 4  # two lists, then two moves
    assert min(after - before for before, after in pairwise(times)) >= 0.14


def _two(clinic):
    uids = sorted(clinic.archive.instances)[:2]
    return {
        "StudyInstanceUID": rt_image(1).StudyInstanceUID,
        "SeriesInstanceUID": rt_image(1).SeriesInstanceUID,
        "SOPInstanceUID": uids,
    }


def test_a_receiver_that_ends_for_quiet_hours_first_takes_what_comes_late(clinic, monkeypatch):
    """Somebody else waits for their end, and meanwhile nobody listens."""
    clock = Clock(monkeypatch, BEFORE)
    wanted = clinic.images(1, 2)
    late = wanted.expected[0].sop_instance_uid
    clinic.archive.late = {late}
    clinic.archive.on_move = lambda: setattr(clock, "now", WITHIN)
    peer = clinic.archive.peer(receiver_port=clinic.port, deferred_as="aria", **QUIET)
    accounts = []
    with pytest.raises(Waiting):
        clinic.run(wanted, peer=peer, profile=replace(ONE_BY_ONE, settle_seconds=2.0), on_change=accounts.append)
    assert accounts[-1].outcome is Outcome.PENDING
    assert [entry.is_here for entry in accounts[-1].ledger.entries.values()] == [True, False]
