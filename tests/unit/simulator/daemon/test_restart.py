"""Restarts and transactions that take too long (quirk 20), and what the daemon counts."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import pytest
from pynetdicom import AE, build_context
from support.ports import wait_until
from support.raw_client import raw_client
from support.simulated import Client, identifier, peer_of, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.echo import echo_peer
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.dimse.move import move
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    ConfigurationError,
    DicomError,
    PeerUnreachableError,
)
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind, Step
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon


def is_up(daemon):
    try:
        echo_peer(peer_of(daemon))
    except DicomError:
        return False
    return True


def idle(daemon):
    offered = [build_context(uids.VERIFICATION, uids.IMPLICIT_VR_LITTLE_ENDIAN)]
    assoc = AE(ae_title="AIRFLOW").associate(*daemon.address, contexts=offered, ae_title="VMSDBD")
    assert assoc.is_established
    return assoc


@pytest.mark.quirk(20, "restart_seconds", "restart_refuses")
def test_a_restarting_daemon_aborts_whom_it_has_and_who_comes(daemon, habit):
    before = idle(daemon)
    began = time.monotonic()
    habit(restart_seconds=0.8)
    wait_until(lambda: before.is_aborted, what="the client to be told")
    with pytest.raises(AssociationAbortedError):
        echo_peer(peer_of(daemon))
    wait_until(lambda: is_up(daemon), what="the end of the restart")
    assert time.monotonic() - began >= 0.8
    assert daemon.counts["restarts"] == 1


@pytest.mark.quirk(20, "restart_seconds", "restart_refuses")
def test_a_restarting_daemon_may_refuse_connections_and_keeps_its_port(daemon, habit):
    before, address = idle(daemon), daemon.address
    began = time.monotonic()
    habit(restart_seconds=0.8, restart_refuses=True)
    wait_until(lambda: before.is_aborted, what="the client to be told")
    with pytest.raises(PeerUnreachableError):
        echo_peer(peer_of(daemon))
    with pytest.raises(OSError, match="in use"), socket.create_server(address):
        pass
    wait_until(lambda: is_up(daemon), what="the end of the restart")
    assert time.monotonic() - began >= 0.8
    assert daemon.address == address


@pytest.mark.quirk(20, "restart_seconds")
def test_a_daemon_may_begin_with_a_restart(clinic):
    behaviour = replace(SimulatedDaemon(clinic).behaviour, restart_seconds=0.6, restart_refuses=True)
    began = time.monotonic()
    with SimulatedDaemon(clinic, trusted=[trusted()], behaviour=behaviour) as daemon:
        assert not is_up(daemon)
        wait_until(lambda: is_up(daemon))
        assert time.monotonic() - began >= 0.6


def test_a_daemon_that_restarts_can_be_stopped(clinic):
    daemon = SimulatedDaemon(clinic, trusted=[trusted()])
    daemon.start()
    address = daemon.address
    daemon.restart(60.0, refuses=True)
    start = time.monotonic()
    daemon.stop()
    assert time.monotonic() - start < 10
    with socket.create_server(address):
        pass
    with pytest.raises(ConfigurationError, match="does not run"):
        daemon.restart(1.0)


@pytest.mark.quirk(20, "transaction_seconds")
def test_a_query_that_takes_longer_than_a_transaction_is_aborted(daemon, client, habit, series):
    daemon.faults.arm(Fault(kind=Kind.STALL, step=Step.ROW, at=2, seconds=0.3, times=2))
    assert len(client.find("IMAGE", SeriesInstanceUID=series)) == 10, "late, but within a transaction's time"
    habit(transaction_seconds=0.1)
    with pytest.raises(AssociationAbortedError):
        client.find("IMAGE", SeriesInstanceUID=series)


@pytest.mark.quirk(20, "transaction_seconds")
def test_a_receiver_that_takes_longer_than_a_transaction_loses_the_rest(client, receiver, habit, series):
    proceed = threading.Event()

    def hang(_):
        if len(receiver.stored) == 2:
            proceed.wait(20)

    receiver.before = hang
    habit(transaction_seconds=3)
    report = client.move("SERIES", SeriesInstanceUID=series)
    proceed.set()
    assert (report.status, report.completed, report.failed) == (0xB000, 2, 8)
    receiver.stored.clear()
    receiver.before = None
    habit(transaction_seconds=60)
    assert client.move("SERIES", SeriesInstanceUID=series).completed == 10


@pytest.mark.quirk(20, "transaction_seconds")
def test_a_retrieve_of_many_short_steps_may_take_longer_than_a_transaction(daemon, client, receiver, habit, series):
    habit(transaction_seconds=5, pending_responses=False)
    receiver.before = lambda _: time.sleep(0.6)
    with associate(client.peer, contexts.move(uids.STUDY_ROOT_MOVE), step="C-MOVE") as association:
        for _ in range(2):  # the second finds the association as it was
            keys = identifier("SERIES", SeriesInstanceUID=series)
            done = move(association, uids.STUDY_ROOT_MOVE, keys, destination="AIRFLOW")
            assert (done.status, done.completed) == (0x0000, 10)
            # As long as a daemon needs that takes the whole for one transaction, and ends what has taken too long.
            time.sleep(0.5)
            assert association.assoc.is_established


@pytest.mark.quirk(20, "transaction_seconds")
def test_a_client_that_says_nothing_for_a_transaction_is_aborted(daemon, habit):
    habit(transaction_seconds=0.2)
    silent = idle(daemon)
    wait_until(lambda: silent.is_aborted)
    habit(transaction_seconds=0.0)
    silent = idle(daemon)
    time.sleep(0.4)
    assert silent.is_established
    silent.release()


def test_the_daemon_counts_what_it_does(daemon, client, receiver, series, simulator_log):
    assert not daemon.counts
    echo_peer(peer_of(daemon))
    client.find("IMAGE", SeriesInstanceUID=series)
    client.move("SERIES", SeriesInstanceUID=series)
    with pytest.raises(DicomError):
        echo_peer(peer_of(daemon, calling_ae_title="NOBODY"))
    wait_until(lambda: not daemon.counts["open"] and not daemon.counts["outgoing_open"])
    assert dict(daemon.counts) == {
        "association": 3, "rejected": 1, "C-ECHO": 1, "C-FIND": 1, "C-MOVE": 1, "requests": 2, "rows": 10,
        "sub-operations": 10, "outgoing": 1, "open": 0, "most_open": 1, "outgoing_open": 0, "most_outgoing_open": 1,
    }  # fmt: skip
    daemon.stop()
    (line,) = [record.getMessage() for record in simulator_log.records if "counted" in record.getMessage()]
    assert "C-FIND 1, C-MOVE 1" in line
    assert "rows 10" in line


def test_one_association_after_the_other_is_never_two_at_once(daemon, client):
    for _ in range(20):
        client.find("STUDY", PatientID="QA_TB_WL")
    assert (daemon.counts["association"], daemon.counts["most_open"]) == (20, 1)


def test_a_release_is_counted_before_the_client_hears_of_it(daemon):
    with raw_client(daemon) as client:
        client.associate()
        assert daemon.counts["open"] == 1
        client.release()
        assert daemon.counts["open"] == 0


def test_associations_at_once_are_counted_at_their_most(daemon):
    held = [idle(daemon) for _ in range(3)]
    wait_until(lambda: daemon.counts["open"] == 3)
    held[0].release()
    held[1].abort()
    wait_until(lambda: daemon.counts["open"] == 1)
    held[2].release()
    wait_until(lambda: daemon.counts["open"] == 0)
    idle(daemon).release()
    assert daemon.counts["most_open"] == 3


def test_a_query_that_is_left_half_way_counts_the_rows_that_were_sent(daemon, series):
    with associate(peer_of(daemon), contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND") as association:
        rows = iter_matches(association, uids.STUDY_ROOT_FIND, identifier("IMAGE", SeriesInstanceUID=series))
        next(rows)
        rows.close()
    assert 1 <= daemon.counts["rows"] <= 10
    assert Client(peer_of(daemon)).find("STUDY", PatientID="QA_TB_WL")
