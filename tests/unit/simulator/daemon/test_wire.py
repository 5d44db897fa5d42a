"""Requests as bare sockets send them: cancelled in the same breath, and where no answer fits a PDU."""

from __future__ import annotations

import pytest
from support.ports import wait_until
from support.raw_client import raw_client
from support.raw_peer import C_ECHO_RQ, _pdu, _pdv, build_command
from support.simulated import UNTIL, identifier

from airflow_provider_varian import uids

FIND = uids.STUDY_ROOT_FIND


@pytest.fixture
def keys(plans):
    return identifier("IMAGE", SeriesInstanceUID=plans["QA", "WL_10MV"].image_series_uid(UNTIL))


def test_a_cancel_right_behind_its_request_is_heard(daemon, keys):
    with raw_client(daemon) as client:
        client.associate()
        (assoc,) = daemon._server.active_associations
        serve = assoc._serve_request

        def late(message, context_id):
            wait_until(lambda: assoc.dimse.cancel_req, what="the C-CANCEL", every=0.001)
            serve(message, context_id)

        assoc._serve_request = late
        client.socket.sendall(client.request(FIND, keys) + client.cancel(FIND))
        told = client.listen()
        assert (told.final["status"], told.pending) == (0xFE00, 0)
        # Its answer is out before the service has ended.
        wait_until(lambda: not assoc.dimse.cancel_req, what="the end of the service")


def test_a_cancel_that_comes_too_late_does_not_hit_the_next_request(daemon, keys):
    """Though that has the same Message ID, as with some clients all have."""
    with raw_client(daemon) as client:
        client.associate()
        assert client.ask(FIND, keys).pending == 10
        client.socket.sendall(client.cancel(FIND) + client.request(FIND, keys))
        told = client.listen()
        assert (told.final["status"], told.pending) == (0x0000, 10)


@pytest.mark.parametrize("service", ["C-FIND", "C-MOVE", "C-ECHO"])
def test_a_client_whose_pdus_hold_nothing_is_aborted(daemon, keys, simulator_log, service):
    with raw_client(daemon) as client:
        assert client.associate(max_pdu=6).end == "final"
        if service == "C-ECHO":
            echo = build_command(command=C_ECHO_RQ, message_id=1, data_set=0x0101, affected_class=uids.VERIFICATION)
            client.socket.sendall(_pdu(4, _pdv(1, 3, echo)))
            told = client.listen()
        elif service == "C-FIND":
            told = client.ask(FIND, keys)
        else:
            told = client.ask(uids.STUDY_ROOT_MOVE, keys, destination="AIRFLOW")
    assert (told.end, told.responses) == ("abort", [])
    assert "PDUs of 6 bytes" in simulator_log.text
    wait_until(lambda: not daemon.counts["open"])


def test_a_client_whose_pdus_hold_one_byte_is_served(daemon, keys):
    with raw_client(daemon) as client:
        client.associate(max_pdu=7)
        client.socket.sendall(client.request(FIND, keys))
        kind, body = client.wire.read_pdu()
        assert (kind, len(body)) == (4, 7)
