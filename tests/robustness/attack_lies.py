"""Lengths that lie: of items, of PDVs, of command elements, of elements of a data set."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from robustness.attack_stage import Attack, Play, Stage, after, before, each, new_uid, refused
from support import lying_pdus as wire

from airflow_provider_varian import uids

_IMAGE: Final = wire.IMAGE_CONTEXT


def _requests(*requests: bytes) -> Play:
    return each(before(request) for request in requests)


def _p_data(*bodies: bytes) -> Play:
    return each(after(wire.pdu(wire.P_DATA, body)) for body in bodies)


def _commands(commands: Iterable[bytes]) -> Play:
    return each(after(*wire.message(_IMAGE, command)) for command in commands)


def _changed(tag: int, replacement: bytes) -> bytes:
    """Return the command set of a C-STORE-RQ with another element in place of one of its own."""
    group, element = tag >> 16, tag & 0xFFFF
    elements = wire.store_elements("1.2.3")
    return wire.command_set(
        replacement if struct.unpack("<HH", one[:4]) == (group, element) else one for one in elements
    )


def data_set_that_lies(stage: Stage) -> None:
    uid = new_uid()
    good = wire.data_set(uid)
    for data in (
        wire.element(0x00080016, uids.RT_IMAGE.encode(), length=0xFFFFFFFE) + good,
        wire.element(0x00080016, uids.RT_IMAGE.encode(), length=0xFFFFFFFF) + good,
        wire.element(0x00080016, uids.RT_IMAGE.encode(), length=3) + good,
        wire.element(0x00080018, uid.encode(), length=1) + good,
        struct.pack("<HHI", 0x0008, 0x0006, 0xFFFFFFFF) * 9000,
    ):
        with stage.associated() as peer:
            peer.send(*wire.message(_IMAGE, wire.store_command(uid), data))
            assert peer.answer().status == 0xA900
            peer.release()


_CONTEXT: Final = wire.presentation_context(1, uids.RT_IMAGE)
_INSIDE: Final = wire.item(0x30, uids.RT_IMAGE.encode()) + wire.item(0x40, uids.IMPLICIT_VR_LITTLE_ENDIAN.encode())
_BODY: Final = wire.association_body()

ROWS: Final = (
    Attack(
        name="request-longer-than-its-items",
        what="an association request whose items end before or behind the end of the PDU",
        holds="aborted",
        play=_requests(
            wire.pdu(wire.ASSOCIATE_RQ, _BODY + b"\x50"),
            wire.pdu(wire.ASSOCIATE_RQ, _BODY + b"\x50\x00\x00"),
            wire.pdu(wire.ASSOCIATE_RQ, _BODY[:-1]),
            wire.pdu(wire.ASSOCIATE_RQ, _BODY[:67]),
            wire.pdu(wire.ASSOCIATE_RQ, _BODY[:68]),
            wire.pdu(wire.ASSOCIATE_RQ),
        ),
    ),
    Attack(
        name="item-lengths-that-lie",
        what="items of an association request, and items in them, that say to be longer or shorter than they are",
        holds="aborted",
        play=_requests(
            wire.association_request(contexts=[wire.item(0x20, b"\1\0\0\0" + _INSIDE, length=0xFFFF)]),
            wire.association_request(contexts=[wire.item(0x20, b"\1\0\0\0" + _INSIDE, length=3)]),
            wire.association_request(contexts=[wire.item(0x20, b"\1\0\0\0" + _INSIDE, length=len(_INSIDE) + 3)]),
            wire.association_request(contexts=[wire.item(0x20, b"\1\0\0\0" + _INSIDE, length=len(_INSIDE) + 5)]),
            wire.association_request(contexts=[wire.item(0x20, b"\1\0\0\0" + wire.item(0x30, b"1.2", length=400))]),
            wire.association_request(contexts=[wire.item(0x20, b"\1\0\0\0" + wire.item(0x30, b"1.2", length=1))]),
            wire.association_request(contexts=[wire.item(0x20)]),
            wire.association_request(contexts=[wire.item(0x20, b"\1\0")]),
            wire.association_request(user=wire.item(0x50, wire.item(0x51, bytes(4), length=4000))),
            wire.association_request(user=wire.item(0x50, wire.item(0x51, bytes(3)))),
            wire.association_request(user=wire.item(0x50, wire.item(0x51, bytes(4)) + b"\x52\0")),
            wire.association_request(user=wire.user_information(wire.item(0x54, b"\xff\xff1.2\1\1"))),
            wire.association_request(user=wire.user_information(wire.item(0x58, b"\2\1\xff\xffname\0\0"))),
            wire.association_request(application=wire.item(0x10, b"1.2", length=9000)),
        ),
    ),
    Attack(
        name="uids-too-long-in-a-request",
        what="UIDs of 65 and of 60,000 characters in an association request",
        holds="aborted",
        play=_requests(
            wire.association_request(contexts=[wire.presentation_context(1, "1" * 65)]),
            wire.association_request(contexts=[wire.presentation_context(1, "1" * 60_000)]),
            wire.association_request(contexts=[wire.presentation_context(1, uids.RT_IMAGE, ["1." * 40])]),
            wire.association_request(application=wire.item(0x10, b"1" * 65)),
        ),
    ),
    Attack(
        name="pdv-lengths-that-lie",
        what="PDVs that say to be longer than their PDU, shorter than their own head, or that do not add up to the PDU",
        holds="aborted",
        play=_p_data(
            wire.pdv(_IMAGE, 3, wire.echo_command(), length=0xFFFFFFFF),
            wire.pdv(_IMAGE, 3, wire.echo_command(), length=len(wire.echo_command()) + 3),
            wire.pdv(_IMAGE, 3, wire.echo_command(), length=len(wire.echo_command()) + 1),
            wire.pdv(_IMAGE, 3, wire.echo_command(), length=0),
            wire.pdv(_IMAGE, 3, wire.echo_command(), length=1),
            wire.pdv(_IMAGE, 1, wire.echo_command()) + b"\0",
            wire.pdv(_IMAGE, 1, wire.echo_command()) + bytes(5),
            bytes(3),
        ),
    ),
    Attack(
        name="pdv-lengths-that-lie-in-an-object",
        what="the same in the middle of an object",
        holds="aborted; no fragment",
        play=each(
            after(*wire.store_message("1.2.3", filling=40000)[:2], wire.pdu(wire.P_DATA, body))
            for body in (
                wire.pdv(_IMAGE, 0, bytes(100), length=0xFFFFFFFF),
                wire.pdv(_IMAGE, 0, bytes(100), length=103),
                wire.pdv(_IMAGE, 0, bytes(100), length=101),
                wire.pdv(_IMAGE, 0, bytes(100), length=1),
                wire.pdv(_IMAGE, 0, bytes(100)) + b"\0",
                bytes(5),
            )
        ),
    ),
    Attack(
        name="command-elements-that-lie",
        what="elements of a command set that reach over its end, end early, or have another size than their kind",
        holds="aborted",
        play=_commands(
            (
                _changed(0x1000, wire.element(0x1000, b"1.2.3\0", length=0xFFFFFFFF)),
                _changed(0x1000, wire.element(0x1000, b"1.2.3\0", length=8)),
                _changed(0x1000, wire.element(0x1000, b"1.2.3\0", length=4)),
                _changed(0x0110, wire.element(0x0110, bytes(4))),
                _changed(0x0800, wire.element(0x0800, bytes(1), length=1)),
                _changed(0x0100, wire.element(0x0100, b"")),
                _changed(0x0002, wire.element(0x00080018, b"1.2.3")),
                bytes(7),
                b"\xff" * 1000,
            )
        ),
    ),
    Attack(
        name="commands-that-lack-elements",
        what="a C-STORE-RQ without a UID, a Message ID, or a word on whether a data set follows",
        holds="answered with a failure, or aborted; nothing is stored",
        play=each(
            refused(*wire.message(_IMAGE, _changed(tag, b""), wire.data_set("1.2.3")))
            for tag in (0x0002, 0x0100, 0x0110, 0x0800, 0x1000)
        ),
    ),
    Attack(
        name="data-set-lengths-that-lie",
        what="elements at the head of a data set that reach over its end, end early, or nest without end",
        holds="0xA900 each; nothing is stored",
        play=data_set_that_lies,
    ),
)
