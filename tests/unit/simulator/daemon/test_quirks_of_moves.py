"""Quirks of the DB Daemon that a C-MOVE shows (varian-daemon section 4)."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from support.ports import wait_until
from support.simulated import UNTIL, Client, peer_of, trusted, uids_of

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.daemon.behaviour import Counters
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon


@pytest.mark.quirk(11, "partial_move_probability")
@pytest.mark.quirk(None, "chance_seed")
def test_a_part_of_a_series_comes_and_all_seems_well(clinic, daemon, client, receiver, habit, plan, series):
    assert client.move("SERIES", SeriesInstanceUID=series).completed == 10
    parts = []
    for seed in (1, 1, 2):
        behaviour = replace(daemon.behaviour, partial_move_probability=1.0, chance_seed=seed)
        with SimulatedDaemon(clinic, trusted=[trusted(receiver.port)], behaviour=behaviour) as other:
            receiver.stored.clear()
            report = Client(peer_of(other)).move("SERIES", SeriesInstanceUID=series)
        assert (report.status, report.failed, report.completed) == (0x0000, 0, len(receiver.stored))
        assert 0 < len(receiver.stored) < 10
        parts.append(receiver.uids)
    first, repeated, another = parts
    assert first == repeated != another
    assert set(first) < set(uids_of(plan))


@pytest.mark.quirk(11, "empty_move_probability")
def test_nothing_comes_and_all_seems_well(client, receiver, habit, series):
    habit(empty_move_probability=1.0)
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed, report.failed, receiver.stored) == (0x0000, 0, 0, [])
    assert receiver.associations == 0
    habit(empty_move_probability=0.0)
    assert client.move("SERIES", SeriesInstanceUID=series).completed == 10


@pytest.mark.quirk(11, "extra_move_probability")
def test_one_more_comes_than_was_listed(client, receiver, habit, plan):
    wanted = uids_of(plan)[:1]
    habit(extra_move_probability=1.0)
    report = client.move("IMAGE", SOPInstanceUID=wanted)
    assert (report.status, report.completed) == (0x0000, 2)
    assert receiver.uids == [wanted[0], uids_of(plan)[1]], "of the same series"
    receiver.stored.clear()
    client.move("SERIES", SeriesInstanceUID=plan.image_series_uid(UNTIL))
    assert len(receiver.stored) == 11
    assert receiver.stored[-1].dataset.StudyInstanceUID == plan.study_instance_uid, "else of the same study"
    habit(extra_move_probability=0.0)
    receiver.stored.clear()
    client.move("IMAGE", SOPInstanceUID=wanted)
    assert receiver.uids == wanted


@pytest.mark.quirk(11, "move_counters")
@pytest.mark.parametrize(
    ("counters", "told", "on_the_way"),
    [
        (Counters.SENT, (None, 3, 0, 0), True),
        (Counters.ASKED, (None, 10, 0, 0), True),
        (Counters.ZERO, (None, 0, 0, 0), True),
        (Counters.ABSENT, (None, None, None, None), False),
    ],
)
def test_the_counters_say_what_a_switch_says(client, receiver, habit, series, counters, told, on_the_way):
    # The first request of the seed sends three of ten.
    habit(partial_move_probability=1.0, chance_seed=20, move_counters=counters)
    progress = []
    report = client.move("SERIES", SeriesInstanceUID=series, progress=progress.append)
    assert len(receiver.stored) == 3
    assert (report.remaining, report.completed, report.failed, report.warning) == told
    assert report.status == 0x0000
    assert all((step.completed is not None) == on_the_way for step in progress)


@pytest.mark.quirk(13, "final_response_lead_seconds")
def test_the_last_object_comes_after_the_final_response(client, receiver, habit, plan, series):
    proceed = threading.Event()

    def late(_):
        if len(receiver.stored) == 9:
            assert proceed.wait(20)

    receiver.before = late
    habit(final_response_lead_seconds=0.05)
    report = client.move("SERIES", SeriesInstanceUID=series)
    assert (report.status, report.completed, report.failed) == (0x0000, 10, 0)
    assert len(receiver.stored) == 9, "the client has heard of the end, and has released"
    proceed.set()
    wait_until(lambda: len(receiver.stored) == 10)
    assert receiver.ended.wait(20)
    assert receiver.uids == uids_of(plan)
    assert receiver.associations == 1
    habit(final_response_lead_seconds=0.0)
    client.move("SERIES", SeriesInstanceUID=series)
    assert len(receiver.stored) == 20


@pytest.mark.quirk(13, "final_response_lead_seconds")
def test_the_delay_is_the_one_that_was_set(client, receiver, habit, plan):
    habit(final_response_lead_seconds=0.6)
    asked = time.monotonic()
    client.move("IMAGE", SOPInstanceUID=plan.sop_instance_uid)
    answered = time.monotonic()
    wait_until(lambda: receiver.stored)
    stored = time.monotonic()
    assert stored - answered > 0.1
    assert stored - asked >= 0.6


@pytest.mark.quirk(13, "final_response_lead_seconds")
def test_a_daemon_that_stops_does_not_send_what_it_owes(clinic, receiver, plan):
    daemon = SimulatedDaemon(clinic, trusted=[trusted(receiver.port)])
    daemon.behaviour = replace(daemon.behaviour, final_response_lead_seconds=60.0)
    daemon.start()
    assert Client(peer_of(daemon)).move("IMAGE", SOPInstanceUID=plan.sop_instance_uid).completed == 1
    start = time.monotonic()
    daemon.stop()
    assert receiver.ended.wait(10)
    assert time.monotonic() - start < 10
    assert receiver.stored == []


@pytest.mark.quirk(19, "move_exception_plan_series")
def test_a_study_move_of_a_patient_with_many_plans_is_an_exception(client, receiver, habit, plan, machine_qa):
    """Each plan of QA_TB_WL has a series of its own."""
    count = machine_qa().plans
    keys = {"StudyInstanceUID": plan.study_instance_uid}
    whole = client.move("STUDY", **keys)
    assert whole.status == 0x0000
    habit(move_exception_plan_series=count - 1)
    report = client.move("STUDY", **keys)
    assert (report.status, report.error_comment) == (0xC000, "Unexpected exception during MOVE")
    assert (report.completed, report.failed) == (0, 0)
    assert len(receiver.stored) == whole.completed
    assert client.move("SERIES", SeriesInstanceUID=plan.series_instance_uid).status == 0x0000, "by series it works"
    habit(move_exception_plan_series=count)
    assert client.move("STUDY", **keys).status == 0x0000


@pytest.mark.quirk(11, "partial_move_probability", "empty_move_probability", "extra_move_probability")
def test_a_get_brings_what_was_asked_for_all_the_same(daemon, habit, plan, series):
    from airflow_provider_varian.dimse import contexts
    from airflow_provider_varian.dimse.association import associate

    habit(get=True, partial_move_probability=1.0, empty_move_probability=1.0, extra_move_probability=1.0)
    brought = []
    with associate(peer_of(daemon), contexts.get(uids.STUDY_ROOT_GET, [uids.RT_IMAGE]), step="C-GET") as association:
        from support.simulated import identifier

        from airflow_provider_varian.dimse.get import get

        report = get(
            association,
            uids.STUDY_ROOT_GET,
            identifier("SERIES", SeriesInstanceUID=series),
            sink=Sink(brought),
        )
    assert (report.completed, len(brought)) == (10, 10)


class Sink:
    def __init__(self, brought):
        self.brought = brought

    def begin(self, request):
        self.request = request
        return self

    def write(self, data):
        pass

    def commit(self):
        self.brought.append(self.request.sop_instance_uid)

    def abandon(self):
        pass
