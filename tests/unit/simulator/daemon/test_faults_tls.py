"""Faults below DIMSE on a connection of TLS: what a client decrypts is spoilt as it is without."""

from __future__ import annotations

import select
import time

import pytest
from support.certificates import Authority
from support.raw_client import raw_client
from support.simulated import UNTIL, CountingSink, identifier, peer_of, trusted

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.dimse.tls import client_context, server_context
from airflow_provider_varian.errors import AssociationAbortedError
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind, Step
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon


@pytest.fixture(scope="module")
def certificates():
    authority = Authority()

    def settings(name):
        issued = authority.issue(name)
        return TlsSettings(ca_certificate=authority.certificate, certificate=issued.certificate, private_key=issued.key)

    return settings("aria.example.org"), settings("airflow.example.org")


@pytest.fixture
def daemon(clinic, certificates):
    context = server_context(certificates[0])
    behaviour = Behaviour(get=True)
    with SimulatedDaemon(clinic, trusted=[trusted()], behaviour=behaviour, ssl_context=context) as running:
        yield running


@pytest.fixture
def keys(plans):
    return {"SeriesInstanceUID": plans["QA", "WL_10MV"].image_series_uid(UNTIL)}


@pytest.fixture
def ask(daemon, keys, certificates):
    """Ask for ten rows with bare sockets; also return what of a PDU was left over at the end."""

    def send():
        with raw_client(daemon, tls=client_context(certificates[1])) as client:
            assert client.associate().end == "final"
            unfinished = bytearray()
            client.wire.socket = Noting(client.socket, unfinished)
            told = client.ask(uids.STUDY_ROOT_FIND, identifier("IMAGE", **keys))
            return told, len(unfinished)

    return send


class Noting:
    """Keeps what is read of a PDU that is not finished yet."""

    def __init__(self, connection, unfinished):
        self._connection, self._unfinished = connection, unfinished

    def recv(self, count):
        data = self._connection.recv(count)
        self._unfinished += data
        if len(self._unfinished) >= 6 and len(self._unfinished) == 6 + int.from_bytes(self._unfinished[2:6], "big"):
            self._unfinished.clear()
        return data


@pytest.mark.fault("half")
@pytest.mark.parametrize(("step", "at", "whole"), [(Step.REQUEST, 1, 0), (Step.ROW, 3, 3), (Step.FINAL, 1, 10)])
def test_half_a_response_is_followed_by_silence_and_an_end(daemon, ask, step, at, whole):
    daemon.faults.arm(Fault(kind=Kind.HALF, step=step, at=at, seconds=0.2))
    start = time.monotonic()
    told, begun = ask()
    assert time.monotonic() - start >= 0.2
    assert (told.end, told.pending) == ("closed", whole)
    assert begun > 6, "a PDU has begun that never ends"
    again, _ = ask()
    assert (again.end, again.pending) == ("final", 10)


@pytest.mark.fault("abort")
@pytest.mark.fault("reset")
@pytest.mark.fault("close")
@pytest.mark.parametrize(("kind", "end"), [(Kind.ABORT, "abort"), (Kind.RESET, "reset"), (Kind.CLOSE, "closed")])
def test_a_query_ends_how_it_shall(daemon, ask, kind, end):
    daemon.faults.arm(Fault(kind=kind, step=Step.ROW, at=3))
    told, begun = ask()
    assert (told.end, told.pending) == (end, 3)
    assert begun == 0


@pytest.mark.fault("reset")
def test_what_came_ahead_of_a_reset_is_heard_by_who_reads_later(daemon, keys, certificates):
    daemon.faults.arm(Fault(kind=Kind.RESET, step=Step.ROW, at=3))
    with raw_client(daemon, tls=client_context(certificates[1])) as client:
        client.associate()
        client.socket.sendall(client.request(uids.STUDY_ROOT_FIND, identifier("IMAGE", **keys)))
        ended = select.poll()
        ended.register(client.socket, select.POLLERR)
        assert ended.poll(10_000), "the reset"
        told = client.listen()
    assert (told.end, told.pending) == ("reset", 3)


@pytest.mark.fault("slow")
def test_responses_come_at_so_many_bytes_per_second(daemon, ask):
    daemon.faults.arm(Fault(kind=Kind.SLOW, step=Step.REQUEST, bytes_per_second=8000))
    start = time.monotonic()
    told, _ = ask()
    assert (told.end, told.pending) == ("final", 10)
    assert time.monotonic() - start > 0.15, "some 2 kB at 8 kB/s"


@pytest.fixture
def association(daemon, certificates):
    peer = peer_of(
        daemon,
        tls=True,
        tls_ca_certificate=certificates[1].ca_certificate,
        tls_certificate=certificates[1].certificate,
        tls_private_key=certificates[1].private_key,
    )
    offered = [*contexts.get(uids.STUDY_ROOT_GET, [uids.RT_IMAGE]), *contexts.find(uids.STUDY_ROOT_FIND)]
    with associate(peer, offered, step="C-GET") as found:
        yield found


@pytest.mark.fault("half")
def test_half_a_response_to_a_get_that_is_streamed(daemon, association, keys):
    daemon.faults.arm(Fault(kind=Kind.HALF, step=Step.AFTER_SUBOPERATION, at=3, seconds=0.1))
    sink, progress = CountingSink(), []
    with pytest.raises(AssociationAbortedError):
        get(association, uids.STUDY_ROOT_GET, identifier("SERIES", **keys), sink=sink, on_progress=progress.append)
    assert (sink.brought, len(progress)) == (3, 2)


@pytest.mark.fault("half")
@pytest.mark.fault("slow")
def test_the_right_response_is_halved_after_a_get_on_the_same_association(daemon, association, keys):
    """Rows wait in pynetdicom's queue: the half is of the fourth, not of the first that is still on its way."""
    daemon.faults.arm(
        Fault(kind=Kind.SLOW, step=Step.REQUEST, bytes_per_second=4000, service="C-FIND"),
        Fault(kind=Kind.HALF, step=Step.ROW, at=3, seconds=0.1, service="C-FIND"),
    )
    sink = CountingSink()
    assert get(association, uids.STUDY_ROOT_GET, identifier("SERIES", **keys), sink=sink).completed == 10
    rows = iter_matches(association, uids.STUDY_ROOT_FIND, identifier("IMAGE", **keys))
    assert len([next(rows) for _ in range(3)]) == 3
    with pytest.raises(AssociationAbortedError):
        next(rows)
