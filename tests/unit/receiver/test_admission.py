"""Who may send: networks, called and calling titles, and what is said to whom that does not fit."""

from __future__ import annotations

import logging

import pytest
from support.receiving import entry

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.receiver import once
from airflow_provider_varian.receiver.admission import (
    ANYBODY,
    Admission,
    Entry,
    OptionAdvice,
    PeerAdvice,
)
from airflow_provider_varian.receiver.observer import printable_subject, printable_title


def of_peer(*addresses):
    return Admission([entry("AIRFLOW", *addresses)], PeerAdvice("VMSDBD@x:1"))


@pytest.mark.parametrize("address", ["10.0.0.1", "::ffff:10.0.0.1"])
def test_a_mapped_address_is_the_same_address(address):
    assert of_peer("10.0.0.1").admits_address(address)


def test_a_refused_ipv4_address_is_named_as_one():
    admission = of_peer("10.0.0.1")
    assert not admission.admits_address("::ffff:10.0.0.2")
    said = admission.refuse_address("::ffff:10.0.0.2")
    assert admission.refused == ("address 10.0.0.2",)
    assert "::ffff" not in said
    assert "10.0.0.1" in said


def test_a_link_local_address_comes_with_its_zone():
    assert Admission([entry("A", "fe80::/10")], OptionAdvice()).admits_address("fe80::1%eth0")


def test_anybody_is_anybody_of_either_family():
    admission = Admission([Entry(ae_title="A", networks=ANYBODY)], OptionAdvice())
    assert admission.admits_address("203.0.113.9")
    assert admission.admits_address("2001:db8::1")


def test_the_peer_of_a_connection_is_admitted_under_the_move_destination():
    peer = Peer(host="127.0.0.1", port=104, called_ae_title="VMSDBD", move_destination="OURS")
    admission = Admission.for_peer(peer)
    assert admission.judge("OURS", "ANYBODY", "127.0.0.1") is None
    assert admission.judge("AIRFLOW", "ANYBODY", "127.0.0.1") is not None
    assert not admission.admits_address("127.0.0.2")


@pytest.mark.parametrize("called", ["AIRFLOW", " AIRFLOW ", "AIRFLOW   "])
def test_blanks_around_a_title_do_not_count(called):
    assert of_peer("10.0.0.1").judge(called, "X", "10.0.0.1") is None


def test_a_pinned_calling_title_counts_for_its_own_entry_alone():
    admission = Admission([entry("A", "10.0.0.0/8", calling=["PACS"]), entry("B", "10.0.0.0/8")], OptionAdvice())
    assert admission.judge("A", " PACS", "10.0.0.1") is None
    assert admission.judge("A", "pacs", "10.0.0.1") is not None
    assert admission.judge("B", "pacs", "10.0.0.1") is None


def test_a_refusal_is_logged_once_for_each_source(caplog):
    admission = of_peer("10.0.0.0/24")
    with caplog.at_level(logging.WARNING):
        for address in ["10.0.0.1", "10.0.0.2"] * 3:
            admission.judge("WRONG", "X", address)
    assert [record.message.split()[5] for record in caplog.records] == ["10.0.0.1:", "10.0.0.2:"]
    assert admission.refused == ("called AE title 'WRONG'",)


def test_who_is_refused_is_remembered_within_bounds():
    admission = of_peer("10.0.0.1")
    said = [admission.refuse_address(f"2001:db8::{number:x}") for number in range(3 * once.REMEMBERED)]
    assert all(said)
    assert len(admission.refused) == once.REMEMBERED


def test_after_a_day_a_thing_is_said_again(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(once.time, "monotonic", lambda: now[0])
    said = once.Once()
    assert said.first("a", "b")
    assert not said.first("a", "b")
    now[0] += 86401
    assert said.first("a", "b")
    assert not said.first("a", "b")


def test_what_a_peer_calls_itself_is_printable_and_short_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        of_peer("10.0.0.1").judge("A\x1b[2J\n\u202e" + "x" * 40, "X", "10.0.0.1")
    assert "\x1b" not in caplog.text
    assert "A?[2J??xxxxxxxxx'" in caplog.text
    assert printable_title("  1234567890123456789 ") == "1234567890123456"
    assert printable_subject("CN=M\u00fcller\n" + "x" * 500) == "CN=M?ller?" + "x" * 118
