"""One poll round: many requests over one association, and whose error is whose."""

from __future__ import annotations

import logging
import threading

import pytest
from pynetdicom import AE
from support.ports import free_port
from support.quiet import QUIET, WITHIN, Clock
from support.scripted_peer import PENDING, UNTIL_CANCELLED, dataset

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.turn import Patience, turn
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    AssociationBudgetError,
    CancelledError,
    ContextRejectedError,
    PeerFailureError,
    PeerUnreachableError,
    QueryError,
    QuietHoursError,
)
from airflow_provider_varian.query.poll import poll
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.query.query import Query

PLAIN = Profile(name="plain", relational_queries=True)


def study(number):
    return dataset(StudyInstanceUID=f"1.2.{number}", PatientID=f"P{number}")


def found(*patients):
    """Make a request for each patient that returns how many studies there are."""

    def request(patient):
        return lambda session: len(session.find(Query.build("STUDY", {"PatientID": patient})).answers)

    return [request(patient) for patient in patients]


def test_all_requests_go_over_one_association(scripted):
    scripted.serve([study(1), study(2)])
    round_ = poll(scripted.peer(), found("P1", "P2", "P3"), profile=PLAIN)
    assert (round_.outcomes, round_.ended_by) == ((1, 1, 0), None)
    assert scripted.associations == 1
    assert [request.value("PatientID") for request in scripted.requests] == ["P1", "P2", "P3"]


def test_many_requests_are_not_a_line_each_in_the_log(scripted, caplog):
    caplog.set_level(logging.INFO, logger="airflow_provider_varian")
    poll(scripted.peer(), found("P1"), profile=PLAIN)
    assert caplog.text.count("C-FIND to") == 1
    poll(scripted.peer(), found("P1", "P2"), profile=PLAIN)
    assert caplog.text.count("C-FIND to") == 1


def test_an_echo_and_an_empty_query_go_over_the_same_one(scripted):
    def asks(session):
        session.echo()
        session.ask_for_nothing()

    round_ = poll(scripted.peer(), [asks, *found("P1")], profile=PLAIN, verifies=True)
    assert round_.outcomes == (None, 0)
    assert (scripted.associations, scripted.echoes, len(scripted.requests)) == (1, 1, 2)


def test_a_peer_that_knows_no_queries_can_be_waited_for_all_the_same():
    ae = AE("VMSDBD")
    ae.add_supported_context(uids.VERIFICATION)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    peer = Peer(host="127.0.0.1", port=server.server_address[1], called_ae_title="VMSDBD")
    try:
        echoed, asked = poll(
            peer, [lambda session: session.echo(), *found("P1")], profile=PLAIN, verifies=True
        ).outcomes
    finally:
        threading.Thread(target=server.shutdown, daemon=True).start()
    assert echoed.seconds > 0
    assert isinstance(asked, ContextRejectedError)


def test_the_error_of_a_request_is_its_own(scripted):
    def script(request):
        yield (0xC000, None) if request.value("PatientID") == "P2" else (PENDING, study(1))

    scripted.script = script

    def wrong(session):
        raise QueryError("no query")

    first, second, third, fourth = poll(
        scripted.peer(), [*found("P1", "P2"), wrong, *found("P1")], profile=PLAIN
    ).outcomes
    assert (first, fourth) == (1, 1)
    assert isinstance(second, PeerFailureError)
    assert isinstance(third, QueryError)
    assert scripted.associations == 1


def test_what_ends_the_association_is_named_and_the_error_of_all_after_it(scripted):
    def script(request):
        if request.value("PatientID") == "P2":
            scripted.abort_all()
        yield PENDING, study(1)

    scripted.script = script
    round_ = poll(scripted.peer(), found("P1", "P2", "P3"), profile=PLAIN)
    first, second, third = round_.outcomes
    assert first == 1
    assert isinstance(second, AssociationAbortedError)
    assert third is second
    assert round_.ended_by == 1
    assert scripted.associations == 1


def test_an_association_that_does_not_come_about_is_everybodys_error_and_nobodys_fault():
    peer = Peer(host="127.0.0.1", port=free_port(), called_ae_title="VMSDBD")
    round_ = poll(peer, found("P1", "P2"), profile=PLAIN)
    assert [type(outcome) for outcome in round_.outcomes] == [PeerUnreachableError] * 2
    assert {outcome.step for outcome in round_.outcomes} == {"C-FIND"}
    assert round_.ended_by is None


def test_in_quiet_hours_the_peer_is_not_called(scripted, monkeypatch):
    Clock(monkeypatch, WITHIN)
    round_ = poll(scripted.peer(**QUIET), found("P1"), profile=PLAIN)
    (error,) = round_.outcomes
    assert isinstance(error, QuietHoursError)
    assert "until 2026-11-21 04:00 (UTC)" in str(error)
    assert scripted.associations == 0


def test_quiet_hours_that_begin_meanwhile_end_the_round(scripted, monkeypatch):
    clock = Clock(monkeypatch, WITHIN.replace(hour=2))

    def script(request):
        clock.now = WITHIN
        yield PENDING, study(1)

    scripted.script = script
    round_ = poll(scripted.peer(**QUIET), found("P1", "P2"), profile=PLAIN)
    first, second = round_.outcomes
    assert first == 1
    assert isinstance(second, QuietHoursError)
    assert round_.ended_by is None
    assert len(scripted.requests) == 1


def test_who_works_with_the_peer_goes_first(scripted):
    peer = scripted.peer(max_associations=1)
    taken, over = threading.Event(), threading.Event()

    def work():
        with turn(peer, step="work", cancellation=Cancellation()):
            taken.set()
            over.wait(30)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert taken.wait(10)
        (error,) = poll(peer, found("P1"), profile=PLAIN, patience=Patience(slot_seconds=0.1)).outcomes
    finally:
        over.set()
        worker.join()
    assert isinstance(error, AssociationBudgetError)
    assert scripted.associations == 0


def test_cancelling_ends_the_round(scripted):
    cancellation = Cancellation()

    def script(request):
        cancellation.cancel()
        yield UNTIL_CANCELLED, None

    scripted.script = script
    with pytest.raises(CancelledError):
        poll(scripted.peer(), found("P1", "P2"), profile=PLAIN, cancellation=cancellation)
    assert scripted.cancelled.wait(10)
    assert len(scripted.requests) == 1
