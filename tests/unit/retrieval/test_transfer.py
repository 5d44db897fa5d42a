"""Which method is asked for, what it falls back to, and whose time the deadline bounds."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.archive import ROOT, Archive
from support.ports import free_port
from support.raw_peer import raw_peer

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    PeerTimeoutError,
    PeerUnreachableError,
    PermanentRejectionError,
)
from airflow_provider_varian.receiver.in_task import InTaskReceiver
from airflow_provider_varian.retrieval import arrivals, transfer
from airflow_provider_varian.retrieval.outcome import Outcome

#: Bytes: more than C-FIND or C-MOVE propose, and far less than C-GET with its storage contexts.
_LARGE = 4096


def manifest_of(clinic):
    return json.loads((clinic.root / ".dicom" / "r-1.json").read_text())


@pytest.fixture
def getting(images, clinic):
    with Archive(images, get=True) as running:
        clinic.archive = running
        clinic.peer = running.peer(receiver_port=clinic.port, retrieve_method="auto")
        yield clinic


@pytest.fixture
def picky(getting):
    """A peer that meets large proposals with ``getting.meet(wire)``, and lets small ones through to the archive."""
    getting.large = getting.small = 0

    def play(wire):
        kind, body = wire.read_pdu()
        if len(body) > _LARGE:
            getting.large += 1
            getting.meet(wire)
            wire.ignore_everything()
            return
        getting.small += 1
        with socket.create_connection(("127.0.0.1", getting.archive.port)) as behind:
            behind.sendall(struct.pack(">BBI", kind, 0, len(body)) + body)
            back = threading.Thread(target=_pump, args=(behind, wire.socket))
            back.start()
            _pump(wire.socket, behind)
            back.join(10)

    with raw_peer(play) as port:
        getting.peer = replace(getting.peer, port=port)
        yield getting


def _pump(source, target):
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def rejecting(result, source, reason):
    return lambda wire: wire.socket.sendall(bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason]))


@pytest.mark.parametrize(
    ("meet", "words"),
    [
        (lambda wire: wire.abort(), "aborted"),
        (lambda wire: None, "no answer to the association request"),
        (rejecting(1, 1, 1), "no reason given"),
        (rejecting(2, 3, 2), "local limit exceeded"),
    ],
    ids=["abort", "silence", "rejected", "limit"],
)
def test_a_peer_that_cannot_take_the_proposal_for_get_is_asked_by_move(picky, meet, words):
    picky.meet = meet
    result = picky.run(peer=replace(picky.peer, acse_timeout=3.0))
    assert result.outcome is Outcome.COMPLETE
    assert result.error is None
    assert [verb for verb, _, _ in picky.archive.requests] == ["C-MOVE"]
    assert picky.large == 1
    (fallback,) = manifest_of(picky)["fallbacks"]
    assert (fallback["from"], fallback["to"]) == ("C-GET", "C-MOVE")
    assert words in fallback["reason"]


@pytest.mark.parametrize("reason", [3, 7])
def test_a_rejected_ae_title_is_an_error_at_once(picky, reason):
    picky.meet = rejecting(1, 1, reason)
    with pytest.raises(PermanentRejectionError, match="AE title not recognised"):
        picky.run(picky.images(1))
    assert (picky.large, picky.small) == (1, 0)
    assert manifest_of(picky)["fallbacks"] == []


def test_a_peer_that_cannot_be_reached_is_an_error_at_once(getting):
    with pytest.raises(PeerUnreachableError):
        getting.run(getting.images(1), peer=replace(getting.peer, port=free_port()))
    assert manifest_of(getting)["fallbacks"] == []


def test_without_a_receiver_port_there_is_nothing_to_fall_back_to(picky):
    picky.meet = lambda wire: wire.abort()
    with pytest.raises(AssociationAbortedError):
        picky.run(picky.images(1), peer=replace(picky.peer, receiver_port=None))
    assert picky.small == 0


def test_a_cancelled_proposal_is_no_reason_to_fall_back(picky):
    cancellation = Cancellation()
    picky.meet = lambda wire: cancellation.cancel()
    with pytest.raises(CancelledError):
        picky.run(picky.images(1), cancellation=cancellation)
    assert picky.small == 0
    assert manifest_of(picky)["fallbacks"] == []


def test_what_get_is_refused_is_the_reason_for_move_and_not_what_ends_it(getting):
    getting.archive.get_status = 0x0122
    lost = f"{ROOT}.1.1.3"
    getting.archive.delivers = lambda level, uid: uid != lost
    result = getting.run()
    assert result.outcome is Outcome.PARTIAL
    assert result.error is None
    (fallback,) = [one for one in manifest_of(getting)["fallbacks"] if one["to"] == "C-MOVE"]
    assert "SOP class not supported (0x0122)" in fallback["reason"]


@pytest.fixture
def long_wait(monkeypatch):
    """Let each receiver's port be had only after ten minutes, by the transfer's clock."""
    passed = [0.0]

    class Waiting(InTaskReceiver):
        def start(self):
            super().start()
            passed[0] += 600.0

    monkeypatch.setattr(arrivals, "InTaskReceiver", Waiting)
    monkeypatch.setattr(transfer, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0]))
    return passed


def test_the_wait_for_a_port_is_not_the_peers_time(clinic, long_wait):
    assert clinic.run().outcome is Outcome.COMPLETE
    assert long_wait == [600.0]


def test_the_wait_for_a_port_after_get_is_not_the_peers_time_either(getting, long_wait):
    getting.archive.get_status = 0xA702
    assert getting.run().outcome is Outcome.COMPLETE
    assert long_wait == [600.0]


def test_what_the_peer_takes_is_its_time(getting, long_wait):
    getting.archive.get_status = 0xA702
    get = getting.archive._chosen

    def slow(verb, identifier):
        long_wait[0] += 31.0 if verb == "C-GET" else 0.0
        return get(verb, identifier)

    getting.archive._chosen = slow
    with pytest.raises(PeerTimeoutError, match="takes longer than 30 s"):
        getting.run()
