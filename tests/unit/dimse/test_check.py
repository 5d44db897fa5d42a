"""The Test button: the failed step, and what to change."""

from __future__ import annotations

import socket

import pytest
from pynetdicom import evt
from support.certificates import Authority
from support.raw_peer import raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.check import check
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.errors import CancelledError


def names(report):
    return [step.name for step in report.steps]


def test_all_steps_of_a_healthy_peer(scp, peer_at, find_handler):
    port = scp([find_handler(0)])
    report = check(peer_at(port))
    assert report.ok
    assert names(report) == ["TCP connection", "association", "services", "C-ECHO", "C-FIND"]
    assert "C-FIND, C-MOVE, C-GET accepted (study_root, patient_root)" in report.summary
    assert f"VMSDBD@127.0.0.1:{port} works" in report.summary


def test_the_query_is_empty_bounded_and_cancelled(scp, peer_at):
    asked = []

    def handle(event):
        asked.append(event.identifier)
        for _ in range(100_000):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, event.identifier

    port = scp([(evt.EVT_C_FIND, handle)])
    report = check(peer_at(port))
    assert report.ok
    assert "not asked for" in report.steps[-1].message
    assert asked[0].QueryRetrieveLevel == "STUDY"
    assert asked[0].StudyInstanceUID, "the query would list the clinic"


def test_a_closed_port(peer_at):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        report = check(peer_at(bound.getsockname()[1]))
    assert not report.ok
    assert names(report) == ["TCP connection"]
    assert "refused" in report.summary
    assert "DB Service is running" in report.summary


def test_a_wrong_calling_title_says_to_enter_it_under_trusted_entities(peer_at):
    with raw_peer(lambda wire: wire.reject(1, 1, 3) if wire else None) as port:
        report = check(peer_at(port, calling_ae_title="WRONG"))
    assert names(report) == ["TCP connection", "association"]
    assert 'Enter the calling AE title "WRONG"' in report.summary
    assert "Trusted Application Entities" in report.summary


def test_a_wrong_called_title_says_which_field(scp, peer_at):
    report = check(peer_at(scp(require_called_aet=True), called_ae_title="WRONG"))
    assert "Set called_ae_title" in report.summary


def test_a_peer_that_answers_no_queries(scp, peer_at):
    report = check(peer_at(scp(services=[uids.VERIFICATION])))
    assert names(report)[-1] == "services"
    assert "Study Root" in report.summary


@pytest.mark.parametrize(
    ("services", "settings", "ok", "words"),
    [
        ([uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE], {}, True, "C-FIND, C-MOVE accepted (study_root)"),
        ([uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE], {"retrieve_method": "get"}, False, "no C-GET"),
        ([uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_GET], {}, True, "C-FIND, C-GET accepted"),
        ([uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_GET], {"retrieve_method": "move"}, False, "no C-MOVE"),
        ([uids.STUDY_ROOT_FIND], {}, False, "no C-MOVE"),
        ([uids.STUDY_ROOT_FIND], {"information_model": "patient_root"}, False, "Patient Root"),
    ],
)
def test_services_are_judged_by_what_the_connection_wants(scp, peer_at, find_handler, services, settings, ok, words):
    port = scp([find_handler(0)], services=[uids.VERIFICATION, *services])
    report = check(peer_at(port, **settings))
    assert report.ok is ok
    assert words in report.summary


def test_a_database_that_is_down_while_c_echo_answers(scp, peer_at, find_handler):
    report = check(peer_at(scp([find_handler(0, final=0xC001)])))
    assert names(report)[-2:] == ["C-ECHO", "C-FIND"]
    assert [step.ok for step in report.steps[-2:]] == [True, False]
    assert "C-FIND failed" in report.summary


def test_a_tls_handshake_that_fails_is_a_step_of_its_own(scp, peer_at):
    report = check(
        peer_at(scp(network_timeout=1), tls=TlsSettings(ca_certificate=Authority().certificate), connect_timeout=1.0)
    )
    assert names(report) == ["TCP connection", "TLS handshake"]
    assert not report.ok


def test_a_cancelled_check_raises(peer_at):
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError), raw_peer(lambda wire: wire.ignore_everything()) as port:
        check(peer_at(port), cancellation=cancellation)
