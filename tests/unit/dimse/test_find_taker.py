"""Matches in batches: each arrives, in order, none is taken that is not ours, and only so much waits."""

from __future__ import annotations

import queue
import threading

import pytest
from support.raw_peer import build_command

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import find_taker
from airflow_provider_varian.dimse.bounds import MalformedError
from airflow_provider_varian.dimse.command_set import Command
from airflow_provider_varian.dimse.find_taker import FindTaker

CONTEXT, MESSAGE = 3, 7


def command(**fields):
    ours = {
        "affected_class": uids.STUDY_ROOT_FIND,
        "command": 0x8020,
        "responds_to": MESSAGE,
        "data_set": 1,
        "status": 0xFF00,
    }
    return Command(build_command(**{name: value for name, value in (ours | fields).items() if value is not None}))


@pytest.fixture
def messages():
    return queue.Queue()


@pytest.fixture
def woken():
    return threading.Event()


@pytest.fixture
def taker(messages, woken):
    return FindTaker(
        messages,
        context_id=CONTEXT,
        message_id=MESSAGE,
        model_uid=uids.STUDY_ROOT_FIND,
        longest=1024 * 1024,
        wake=woken.set,
    )


def bring(taker, *pieces, status=0xFF00):
    assert taker.begin(CONTEXT, command(status=status))
    for piece in pieces:
        taker.data(memoryview(piece))
    taker.end()


def rows(taker, messages):
    found = []
    while not messages.empty():
        context_id, batch = messages.get()
        assert (context_id, batch.MessageIDBeingRespondedTo, batch.Status) == (CONTEXT, MESSAGE, 0xFF00)
        assert batch.is_valid_response
        found.append(list(taker.take(batch)))
    return found


def test_what_came_together_is_one_message_and_keeps_its_order_and_status(taker, messages):
    bring(taker, b"one")
    bring(taker, b"t", b"w", b"o", status=0xFF01)
    bring(taker)
    assert rows(taker, messages) == [[(0xFF00, b"one"), (0xFF01, b"two"), (0xFF00, b"")]]
    bring(taker, b"four")
    assert rows(taker, messages) == [[(0xFF00, b"four")]]


def test_a_batch_has_a_bound(taker, messages, monkeypatch):
    monkeypatch.setattr(find_taker, "_MOST_ROWS", 2)
    for number in range(5):
        bring(taker, str(number).encode())
    assert [[data for _, data in batch] for batch in rows(taker, messages)] == [[b"0", b"1"], [b"2", b"3"], [b"4"]]


@pytest.mark.parametrize(
    ("context_id", "fields"),
    [
        (CONTEXT + 2, {}),
        (CONTEXT, {"responds_to": MESSAGE + 1}),
        (CONTEXT, {"responds_to": None}),
        (CONTEXT, {"status": 0x0000}),
        (CONTEXT, {"status": 0xC001}),
        (CONTEXT, {"status": None}),
        (CONTEXT, {"affected_class": uids.PATIENT_ROOT_FIND}),
        (CONTEXT, {"data_set": 0x0101}),
    ],
)
def test_what_is_no_match_of_ours_is_left_to_pynetdicom(taker, messages, context_id, fields):
    bring(taker, b"ours")
    assert not taker.begin(context_id, command(**fields))
    # Nor is it taken for ours when it comes again.
    assert not taker.begin(context_id, command(**fields))
    bring(taker, b"ours too")
    assert rows(taker, messages) == [[(0xFF00, b"ours"), (0xFF00, b"ours too")]]


def test_a_response_need_not_name_its_class(taker):
    assert taker.begin(CONTEXT, command(affected_class=None))


def test_the_same_command_object_is_ours_only_in_our_context(taker):
    same = command()
    assert taker.begin(CONTEXT, same)
    assert not taker.begin(CONTEXT + 2, same)


def test_reading_pauses_while_much_waits_and_goes_on_once_it_was_taken(taker, messages, woken):
    large = bytes(300 * 1024)
    for _ in range(3):
        bring(taker, large)
        assert not taker.full
    bring(taker, large)
    assert taker.full
    _, batch = messages.get()
    assert len(taker.take(batch)) == 4
    assert not taker.full
    assert woken.is_set()
    woken.clear()
    # What was taken before does not count again.
    bring(taker, large)
    assert not taker.full
    taker.take(messages.get()[1])
    assert not woken.is_set()


def test_an_answer_without_end_is_no_answer(taker):
    assert taker.begin(CONTEXT, command())
    piece = memoryview(bytes(600 * 1024))
    taker.data(piece)
    with pytest.raises(MalformedError):
        taker.data(piece)


def test_half_a_match_is_dropped(taker, messages):
    assert taker.begin(CONTEXT, command())
    taker.data(memoryview(b"half"))
    taker.abandon()
    assert messages.empty()
    bring(taker, b"whole")
    assert rows(taker, messages) == [[(0xFF00, b"whole")]]


def test_no_match_is_lost_between_two_threads(taker, messages, monkeypatch):
    monkeypatch.setattr(find_taker, "_MOST_ROWS", 3)
    total, found = 20_000, []

    def read():
        for number in range(total):
            bring(taker, number.to_bytes(4, "big"))

    reader = threading.Thread(target=read)
    reader.start()
    while len(found) < total:
        _, batch = messages.get(timeout=30)
        found += [int.from_bytes(data, "big") for _, data in taker.take(batch)]
    reader.join()
    assert found == list(range(total))
    assert messages.empty()
