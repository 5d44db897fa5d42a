"""Who gets a message: a taker, its pieces as they come; or pynetdicom, whole."""

from __future__ import annotations

import pytest
from support.raw_peer import build_command
from support.store_client import COMMAND, DATA, LAST, echo_command, item, pdu, store_command

from airflow_provider_varian.dimse.bounds import Bounds, MalformedError
from airflow_provider_varian.dimse.command_set import C_STORE_RQ, Command
from airflow_provider_varian.dimse.dispatch import Dispatch

STORE, ECHO = Command(store_command()), Command(echo_command())


class Taker:
    def __init__(self, takes=True):
        self.takes, self.calls, self.full = takes, [], False

    def begin(self, context_id, command):
        self.calls.append(("begin", context_id, command))
        return self.takes

    def data(self, piece):
        self.calls.append(("data", bytes(piece)))

    def end(self):
        self.calls.append("end")

    def abandon(self):
        self.calls.append("abandon")


@pytest.fixture
def handed():
    return []


@pytest.fixture
def dispatch(handed):
    return Dispatch(Bounds(message_bytes=100), handed.append)


def say(dispatch, command, *pieces, end=True):
    dispatch.begin(1, command)
    for piece in pieces:
        dispatch.data(memoryview(piece))
    if end:
        dispatch.end()


def test_a_taker_gets_messages_of_its_kind_while_it_is_there(dispatch, handed):
    taker = Taker()
    with dispatch.taking(C_STORE_RQ, taker):
        say(dispatch, STORE, b"ab", b"c")
        say(dispatch, ECHO)
    say(dispatch, STORE, b"ab", b"c")
    assert taker.calls == [("begin", 1, STORE), ("data", b"ab"), ("data", b"c"), "end"]
    whole = pdu(item(COMMAND | LAST, store_command()), item(DATA | LAST, b"abc"))
    assert handed == [pdu(item(COMMAND | LAST, echo_command())), whole]


def test_what_a_taker_does_not_take_is_handed_over_whole(dispatch, handed):
    dispatch.give_to(C_STORE_RQ, Taker(takes=False))
    say(dispatch, STORE, b"ab", b"c")
    say(dispatch, STORE)
    whole = pdu(item(COMMAND | LAST, store_command()), item(DATA | LAST, b"abc"))
    assert handed == [whole, pdu(item(COMMAND | LAST, store_command()), item(DATA | LAST, b""))]


def test_a_taker_that_leaves_within_a_message_gets_no_more_and_nobody_gets_the_rest(dispatch, handed):
    taker = Taker()
    with dispatch.taking(C_STORE_RQ, taker):
        say(dispatch, STORE, b"ab", end=False)
    dispatch.data(memoryview(bytes(1000)))
    dispatch.end()
    assert taker.calls[1:] == [("data", b"ab"), "abandon"]
    assert handed == []


def test_the_rest_that_does_not_come_is_told_once(dispatch, handed):
    taker = Taker()
    dispatch.give_to(C_STORE_RQ, taker)
    say(dispatch, STORE, b"ab", end=False)
    dispatch.abandon()
    dispatch.abandon()
    say(dispatch, ECHO, end=False)
    dispatch.abandon()
    assert taker.calls[2:] == ["abandon"]
    assert handed == []


def test_what_is_held_is_bounded(dispatch):
    dispatch.begin(1, STORE)
    dispatch.data(memoryview(bytes(100)))
    with pytest.raises(MalformedError, match="too long"):
        dispatch.data(memoryview(b"x"))


@pytest.mark.parametrize("field", [0x0100, 0x8100, 0x0140, 0x4711, 0x0002])
def test_what_nobody_understands_is_refused(dispatch, field):
    with pytest.raises(MalformedError, match="nobody here understands"):
        dispatch.begin(1, Command(build_command(command=field, message_id=1, data_set=0x0101)))


def test_a_taker_that_is_full_is_asked(dispatch):
    taker = Taker()
    with dispatch.taking(C_STORE_RQ, taker):
        assert not dispatch.full
        taker.full = True
        assert dispatch.full
    assert not dispatch.full
