"""Requests on the wire: in PDUs that the peer takes, and refused where it takes none."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from support.raw_peer import C_FIND_RQ, raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.find import iter_matches
from airflow_provider_varian.errors import PeerFailureError


@pytest.fixture
def identifier():
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.StudyInstanceUID = "1.2." + "3" * 60
    keys.PatientID = "X" * 64
    return keys


def asked(port, peer_at, identifier):
    with associate(peer_at(port), contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND") as association:
        return list(iter_matches(association, uids.STUDY_ROOT_FIND, identifier))


@pytest.mark.parametrize("max_pdu", [0, 7, 8, 64, 65, 16384])
def test_a_request_comes_whole_in_pdus_that_the_peer_takes(peer_at, identifier, max_pdu):
    came, lengths = [], []

    def play(wire):
        wire.accept(max_pdu=max_pdu)
        read = wire.read_pdu

        def noting():
            kind, body = read()
            lengths.append(len(body))
            return kind, body

        wire.read_pdu = noting
        fields, data = wire.read_message()
        came.append((fields["command"], fields["affected_class"], fields["priority"], data))
        wire.respond(fields, 0)
        wire.wait_for_end()

    with raw_peer(play) as port:
        assert asked(port, peer_at, identifier) == []
    ((command, sop_class, priority, data),) = came
    assert (command, sop_class, priority) == (C_FIND_RQ, uids.STUDY_ROOT_FIND, 0)
    assert identifier.PatientID.encode() in data
    assert identifier.StudyInstanceUID.encode() in data
    assert max(lengths) <= (max_pdu or 256)


def test_a_peer_that_takes_no_message_is_named(peer_at, identifier):
    def play(wire):
        wire.accept(max_pdu=6)
        wire.wait_for_end()

    with raw_peer(play) as port, pytest.raises(PeerFailureError, match="6 bytes at most, which is too small"):
        asked(port, peer_at, identifier)
