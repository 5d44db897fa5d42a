"""C-MOVE: the peer's report is handed on, and a lost association is never taken for an end."""

from __future__ import annotations

import threading
import time

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from support.raw_peer import C_CANCEL_RQ, C_MOVE_RQ, element, raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.move import move
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    DestinationWriteError,
    PeerTimeoutError,
    RefusedByPeerError,
    UnknownMoveDestinationError,
)


@pytest.fixture
def identifier():
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.SeriesInstanceUID = "1.2.3"
    return keys


def move_from(peer, identifier, *, cancellation=None, **options):
    with associate(peer, contexts.move(uids.STUDY_ROOT_MOVE), step="C-MOVE", cancellation=cancellation) as association:
        return move(association, uids.STUDY_ROOT_MOVE, identifier, destination="AF_TEST", **options)


def player(script):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        assert request["command"] == C_MOVE_RQ
        assert request["destination"] == "AF_TEST"
        script(wire, request)
        wire.wait_for_end()

    return play


def test_counts_of_pending_responses_and_of_the_end_are_reported(peer_at, identifier):
    failed = element(0x00080058, b"1.2.3.4\\1.2.3.5")

    def script(wire, request):
        wire.respond(request, 0xFF00, remaining=3, completed=1, failed=0, warning=0)
        wire.respond(request, 0xFF00, remaining=1, completed=2, failed=1, warning=0)
        wire.respond(request, 0xB000, failed, completed=2, failed=2, warning=0, comment="done")

    progress = []
    with raw_peer(player(script)) as port:
        report = move_from(peer_at(port), identifier, on_progress=progress.append)
    assert [(step.status, step.remaining, step.completed, step.failed) for step in progress] == [
        (0xFF00, 3, 1, 0),
        (0xFF00, 1, 2, 1),
    ]
    assert (report.status, report.completed, report.failed, report.warning, report.remaining) == (0xB000, 2, 2, 0, None)
    assert report.failed_sop_instance_uids == ("1.2.3.4", "1.2.3.5")
    assert report.error_comment == "done"


def test_one_failed_instance_is_a_list_too(peer_at, identifier):
    def script(wire, request):
        wire.respond(request, 0xA702, element(0x00080058, b"1.2.3.4"), failed=1)

    with raw_peer(player(script)) as port:
        assert move_from(peer_at(port), identifier).failed_sop_instance_uids == ("1.2.3.4",)


def test_a_broken_list_of_failed_instances_does_not_hide_the_report(peer_at, identifier):
    def script(wire, request):
        wire.respond(request, 0xB000, b"\x08\x00\x58\x00\xff\x00\x00\x001.2", completed=1, failed=1)

    with raw_peer(player(script)) as port:
        report = move_from(peer_at(port), identifier)
    assert (report.status, report.failed_sop_instance_uids) == (0xB000, ())


@pytest.mark.parametrize("status", [0x0000, 0xA701, 0xA702, 0xC000, 0xC001, 0xB000, 0xFE00])
def test_final_statuses_are_reported_not_raised(peer_at, identifier, status):
    with raw_peer(player(lambda wire, request: wire.respond(request, status))) as port:
        report = move_from(peer_at(port), identifier)
    assert report.status == status
    assert report.completed is None


@pytest.mark.parametrize(
    ("status", "error"),
    [(0xA801, UnknownMoveDestinationError), (0x0122, RefusedByPeerError), (0xA900, RefusedByPeerError)],
)
def test_what_no_retry_cures_is_raised(peer_at, identifier, status, error):
    with raw_peer(player(lambda wire, request: wire.respond(request, status))) as port, pytest.raises(error) as caught:
        move_from(peer_at(port), identifier)
    assert caught.value.status == status
    if status == 0xA801:
        assert "Trusted Application Entities" in caught.value.hint


def test_a_pynetdicom_peer_that_aborts_in_its_handler(scp, peer_at, identifier):
    def handle(event):
        yield ("127.0.0.1", 1)
        event.assoc.abort()
        yield 1

    port = scp([(evt.EVT_C_MOVE, handle)])
    with pytest.raises(AssociationAbortedError, match="aborted"):
        move_from(peer_at(port), identifier)


def test_a_peer_that_dies_after_pending_responses(peer_at, identifier):
    def play(wire):
        wire.accept()
        request, _ = wire.read_message()
        wire.respond(request, 0xFF00, remaining=3, completed=1)

    progress = []
    with raw_peer(play) as port, pytest.raises(AssociationAbortedError, match="closed"):
        move_from(peer_at(port), identifier, on_progress=progress.append)
    assert len(progress) == 1


def test_silence_is_bounded_by_the_message_timeout(peer_at, identifier):
    with (
        raw_peer(player(lambda wire, request: None)) as port,
        pytest.raises(PeerTimeoutError, match=r"silence for 0\.4 s"),
    ):
        move_from(peer_at(port, dimse_timeout=0.4), identifier)


def test_objects_that_arrive_count_as_a_sign_of_life(peer_at, identifier):
    """Pending responses are optional: a long move without them is not silence."""
    done = threading.Event()

    def script(wire, request):
        done.wait(2.5)
        wire.respond(request, 0x0000, completed=5)

    with raw_peer(player(script)) as port:
        report = move_from(peer_at(port, dimse_timeout=1.0, network_timeout=1.0), identifier, idle_for=lambda: 0.1)
    assert report.completed == 5


def test_silence_ends_it_once_objects_stop_arriving(peer_at, identifier):
    start = time.monotonic()
    arrivals_end = start + 0.6
    with raw_peer(player(lambda wire, request: None)) as port, pytest.raises(PeerTimeoutError, match="silence"):
        move_from(
            peer_at(port, dimse_timeout=0.4),
            identifier,
            idle_for=lambda: max(0.0, time.monotonic() - arrivals_end),
        )
    assert time.monotonic() - start >= 0.9


def test_the_deadline_bounds_the_whole_and_cancels_at_the_peer(peer_at, identifier):
    cancelled = threading.Event()

    def script(wire, request):
        command, _ = wire.read_message()
        assert command["command"] == C_CANCEL_RQ
        cancelled.set()

    with raw_peer(player(script)) as port:
        with pytest.raises(PeerTimeoutError, match=r"not finished within 0\.5 s.*retrieve_deadline"):
            move_from(peer_at(port), identifier, deadline=0.5, idle_for=lambda: 0.0)
        assert cancelled.wait(5)


def test_without_a_deadline_the_connections_holds(peer_at, identifier):
    with (
        raw_peer(player(lambda wire, request: None)) as port,
        pytest.raises(PeerTimeoutError, match=r"not finished within 0\.4 s"),
    ):
        move_from(peer_at(port, retrieve_deadline=0.4), identifier)


def test_cancellation_is_told_to_the_peer(peer_at, identifier):
    cancellation = Cancellation()

    def script(wire, request):
        wire.respond(request, 0xFF00, remaining=3, completed=1)
        command, _ = wire.read_message()
        assert (command["command"], command["responds_to"]) == (C_CANCEL_RQ, request["message_id"])
        wire.respond(request, 0xFE00, remaining=3, completed=1)

    with raw_peer(player(script)) as port, pytest.raises(CancelledError):
        move_from(peer_at(port), identifier, cancellation=cancellation, on_progress=lambda _: cancellation.cancel())


def test_a_progress_callback_that_raises_cancels_the_move(peer_at, identifier):
    cancelled = threading.Event()

    def script(wire, request):
        wire.respond(request, 0xFF00, remaining=3, completed=1)
        command, _ = wire.read_message()
        assert command["command"] == C_CANCEL_RQ
        cancelled.set()
        wire.respond(request, 0xFE00)

    def fail(_):
        raise KeyError("ours")

    with raw_peer(player(script)) as port:
        with pytest.raises(KeyError):
            move_from(peer_at(port), identifier, on_progress=fail)
        assert cancelled.wait(5)


def test_other_work_is_done_while_the_peer_is_at_work_and_its_error_ends_the_request(peer_at, identifier):
    commands, done = [], []

    def script(wire, request):
        commands.append(wire.read_message()[0]["command"])
        wire.respond(request, 0xFE00)

    def work():
        done.append(time.monotonic())
        if len(done) == 3:
            raise DestinationWriteError("the destination is full")
        return True

    with raw_peer(player(script)) as port, pytest.raises(DestinationWriteError):
        move_from(peer_at(port), identifier, meanwhile=work)
    assert (len(done), commands) == (3, [C_CANCEL_RQ])


def test_endless_other_work_does_not_outlast_the_deadline(peer_at, identifier):
    began = time.monotonic()

    def work():
        assert time.monotonic() < began + 20, "the deadline passed long ago"
        time.sleep(0.01)
        return True

    with raw_peer(player(lambda wire, request: None)) as port, pytest.raises(PeerTimeoutError, match="not finished"):
        move_from(peer_at(port), identifier, meanwhile=work, deadline=0.5)


def test_time_spent_on_other_work_is_no_silence_of_the_peer(peer_at, identifier):
    answered = threading.Event()

    def script(wire, request):
        answered.wait(20)
        time.sleep(0.2)
        wire.respond(request, 0x0000)

    worked = []

    def work():
        if worked:
            answered.set()
            return False
        worked.append(time.sleep(3.3))
        return True

    with raw_peer(player(script)) as port:
        report = move_from(peer_at(port, dimse_timeout=3.0), identifier, meanwhile=work)
    assert report.status == 0x0000
