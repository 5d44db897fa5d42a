"""What a sender understands of its peer, and what it passes on unread."""

from __future__ import annotations

import struct

import pytest
from support.raw_peer import C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, RSP, build_command

from airflow_provider_varian.dimse.assembly import Assembly, UnexpectedMessageError

ANSWER = build_command(command=C_STORE_RQ | RSP, responds_to=1, data_set=0x0101, status=0)
CANCEL = build_command(command=C_CANCEL_RQ, responds_to=1, data_set=0x0101)
ECHO = build_command(command=C_ECHO_RQ, message_id=1, data_set=0x0101)


def item(fragment, flags=3, length=None):
    return struct.pack(">IBB", len(fragment) + 2 if length is None else length, 1, flags) + fragment


def pdu(*items):
    body = b"".join(items)
    return bytearray(struct.pack(">BBI", 4, 0, len(body)) + body)


def fields(commands):
    return [each.command_field for each in commands]


def test_several_messages_come_in_one_pdu_and_one_in_several():
    assembly = Assembly()
    assert fields(assembly.feed(pdu(item(CANCEL), item(ANSWER), item(ANSWER[:9], 1)))) == [0x0FFF, 0x8001]
    assert assembly.feed(pdu(item(ANSWER[9:20], 1))) == []
    assert len(assembly.unfinished) == 2
    assert fields(assembly.feed(pdu(item(ANSWER[20:])))) == [0x8001]
    assert assembly.unfinished == []
    assert assembly.feed(pdu()) == []


def test_what_is_passed_on_is_whole():
    assembly = Assembly()
    parts = [pdu(item(ECHO[:9], 1)), pdu(item(ECHO[9:30], 1)), pdu(item(ECHO[30:]))]
    assert assembly.feed(parts[0]) == assembly.feed(parts[1]) == []
    with pytest.raises(UnexpectedMessageError) as unexpected:
        assembly.feed(parts[2])
    assert unexpected.value.pdus == parts


@pytest.mark.parametrize(
    "wrong",
    [
        pdu(item(ANSWER, length=len(ANSWER) + 3)),
        pdu(item(ANSWER, length=1)),
        pdu(item(ANSWER), b"\0\0\0"),
        pdu(item(ANSWER, flags=2)),
        pdu(item(build_command(command=C_STORE_RQ | RSP, responds_to=1, data_set=1, status=0))),
        pdu(item(ANSWER[:-1])),
        pdu(item(ANSWER + bytes(70_000), flags=1)),
    ],
    ids=["too long", "too short", "half an item", "of a data set", "with a data set", "cut", "far too long"],
)
def test_what_is_malformed_is_passed_on(wrong):
    with pytest.raises(UnexpectedMessageError) as unexpected:
        Assembly().feed(wrong)
    assert unexpected.value.pdus == [wrong]
