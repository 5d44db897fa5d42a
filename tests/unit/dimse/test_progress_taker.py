"""Pending responses of a C-GET or C-MOVE by our reading and by pynetdicom's: the same reports, in the same order."""

from __future__ import annotations

import queue

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from support.raw_peer import build_command, element, raw_peer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import contexts
from airflow_provider_varian.dimse.association import associate
from airflow_provider_varian.dimse.command_set import Command
from airflow_provider_varian.dimse.get import get
from airflow_provider_varian.dimse.move import move
from airflow_provider_varian.dimse.progress_taker import ProgressTaker
from airflow_provider_varian.errors import AssociationAbortedError

GONE = element(0x00080058, b"1.2.3.4")


@pytest.fixture
def taken(monkeypatch):
    """The statuses of what was taken past pynetdicom."""
    found, end = [], ProgressTaker.end

    def noted(taker):
        found.append(taker._pending.status)
        end(taker)

    monkeypatch.setattr(ProgressTaker, "end", noted)
    return found


class Sink:
    def begin(self, request):
        raise AssertionError("nobody sends anything")


@pytest.fixture(params=["C-GET", "C-MOVE"])
def ask(request, peer_at):
    """Return a function that plays a script and returns what is reported."""
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.SeriesInstanceUID = "1.2.3"

    def asked(script):
        def play(wire):
            wire.accept()
            command, _ = wire.read_message()
            script(wire, command)
            wire.wait_for_end()

        progress = []
        with raw_peer(play) as port:
            peer = peer_at(port)
            if request.param == "C-GET":
                proposed = contexts.get(uids.STUDY_ROOT_GET, [uids.CT_IMAGE])
                with associate(peer, proposed, step="C-GET") as association:
                    progress.append(
                        get(association, uids.STUDY_ROOT_GET, keys, sink=Sink(), on_progress=progress.append)
                    )
            else:
                with associate(peer, contexts.move(uids.STUDY_ROOT_MOVE), step="C-MOVE") as association:
                    progress.append(
                        move(association, uids.STUDY_ROOT_MOVE, keys, destination="AF", on_progress=progress.append)
                    )
        return progress

    return asked


def counts(report):
    return report.status, report.remaining, report.completed, report.failed, report.warning


def test_each_is_reported_in_its_order_and_with_its_numbers(ask, reading, taken):
    def script(wire, request):
        wire.respond(request, 0xFF00, remaining=300, completed=0, failed=0, warning=0)
        wire.respond(request, 0xFF01, remaining=299, completed=1)
        wire.respond(request, 0xFF00)
        wire.respond(request, 0xFF00, remaining=298, completed=1, failed=65535, warning=2)
        wire.respond(request, 0x0000, completed=300, failed=0, warning=0)

    assert [counts(report) for report in ask(script)] == [
        (0xFF00, 300, 0, 0, 0),
        (0xFF01, 299, 1, None, None),
        (0xFF00, None, None, None, None),
        (0xFF00, 298, 1, 65535, 2),
        (0x0000, None, 300, 0, 0),
    ]
    assert taken == ([0xFF00, 0xFF01, 0xFF00, 0xFF00] if reading == "ours" else [])


def test_what_holds_more_than_numbers_is_left_to_pynetdicom(ask, reading, taken):
    def script(wire, request):
        wire.respond(request, 0xFF00, remaining=2)
        wire.respond(request, 0xFF00, GONE, remaining=1, failed=1)
        wire.respond(request, 0xFF00, remaining=1, failed=1, comment="slowly")
        wire.respond(request, 0xB000, GONE, failed=1, completed=1)

    reports = ask(script)
    assert [report.remaining for report in reports] == [2, 1, 1, None]
    assert [report.error_comment for report in reports] == ["", "", "slowly", ""]
    assert reports[-1].failed_sop_instance_uids == ("1.2.3.4",)
    assert len(taken) == (reading == "ours")


def test_one_that_answers_another_request_ends_it(ask, reading, taken):
    def script(wire, request):
        wire.respond({**request, "message_id": request["message_id"] + 1}, 0xFF00, remaining=2)

    with pytest.raises(AssociationAbortedError, match="answers nothing we asked"):
        ask(script)
    assert taken == []


def test_thousands_are_not_held_while_nobody_listens(ask, reading):
    """As in a queue of objects: what waits is bounded, and nothing is lost."""

    def script(wire, request):
        for number in reversed(range(2000)):
            wire.respond(request, 0xFF00, remaining=number)
        wire.respond(request, 0x0000)

    assert [report.remaining for report in ask(script)] == [*reversed(range(2000)), None]


@pytest.mark.parametrize("response", [C_GET, C_MOVE])
def test_what_is_passed_on_is_valid_to_pynetdicom(response):
    messages = queue.Queue()
    taker = ProgressTaker(messages, response, context_id=3, message_id=7, model_uid=uids.STUDY_ROOT_MOVE)
    fields = {"affected_class": uids.STUDY_ROOT_MOVE, "command": 0x8021, "responds_to": 7, "data_set": 0x0101}
    pending = Command(build_command(**fields, status=0xFF00, remaining=4))
    for context_id, command in (
        (5, pending),
        (3, Command(build_command(**(fields | {"affected_class": uids.PATIENT_ROOT_MOVE}), status=0xFF00))),
        (3, Command(build_command(**fields, status=0x0000))),
        (3, Command(pending.data.replace(b"\x20\x10\x02\0\0\0\x04\0", b"\x20\x10\x04\0\0\0\x04\0\0\0"))),
    ):
        assert not taker.begin(context_id, command)
    assert taker.begin(3, pending)
    taker.abandon()
    taker.end()
    assert messages.empty()
    assert taker.begin(3, pending)
    taker.end()
    context_id, message = messages.get_nowait()
    assert (context_id, type(message), message.is_valid_response) == (3, response, True)
    assert (message.MessageIDBeingRespondedTo, message.NumberOfRemainingSuboperations) == (7, 4)
