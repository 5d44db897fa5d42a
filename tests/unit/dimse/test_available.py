"""Availability is an answered query, not an answered C-ECHO (semantics 4)."""

from __future__ import annotations

import pytest
from pynetdicom import evt
from support.ports import wait_until

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.available import ask_for_nothing, ensure_available
from airflow_provider_varian.errors import PeerFailureError


def test_a_peer_that_answers_queries_is_available(scp, peer_at, find_handler):
    answer = ensure_available(peer_at(scp([find_handler(0)])))
    assert answer.seconds >= 0
    assert answer.negotiated.accepted[1] == (uids.STUDY_ROOT_FIND, uids.IMPLICIT_VR_LITTLE_ENDIAN)


def test_a_database_that_is_down_is_an_error_although_c_echo_answers(scp, peer_at, find_handler):
    with pytest.raises(PeerFailureError) as caught:
        ensure_available(peer_at(scp([find_handler(0, final=0xC001)])))
    assert caught.value.transient


def test_the_query_names_a_study_that_exists_nowhere_and_stops_at_the_first_answer(scp, peer_at):
    asked, cancelled = [], []

    def handle(event):
        asked.append(str(event.identifier.StudyInstanceUID))
        for _ in range(3):
            yield 0xFF00, event.identifier
        # pynetdicom sends before it reads: it would not see a C-CANCEL while it has more to say.
        wait_until(lambda: event.is_cancelled, what="the C-CANCEL")
        cancelled.append(True)
        yield 0xFE00, None

    port = scp([(evt.EVT_C_FIND, handle)])
    with associate(peer_at(port), contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND") as association:
        assert not ask_for_nothing(association, uids.STUDY_ROOT_FIND)
        assert not ask_for_nothing(association, uids.STUDY_ROOT_FIND)
    assert len(set(asked)) == 2
    assert all(uids.is_uid(uid) for uid in asked)
    assert len(cancelled) == 2


def test_the_query_honoured(scp, peer_at, find_handler):
    port = scp([find_handler(0)])
    with associate(peer_at(port), contexts.find(uids.STUDY_ROOT_FIND), step="C-FIND") as association:
        assert ask_for_nothing(association, uids.STUDY_ROOT_FIND)


def test_in_patient_root_a_patient_that_exists_nowhere_is_asked_for(scp, peer_at):
    asked = []

    def handle(event):
        asked.append(event.identifier)
        yield 0x0000, None

    port = scp([(evt.EVT_C_FIND, handle)])
    with associate(peer_at(port), contexts.find(uids.PATIENT_ROOT_FIND), step="C-FIND") as association:
        assert ask_for_nothing(association, uids.PATIENT_ROOT_FIND)
    assert asked[0].QueryRetrieveLevel == "PATIENT"
    assert asked[0].PatientID.startswith("NOBODY-")
    assert "StudyInstanceUID" not in asked[0]
