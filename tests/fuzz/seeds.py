"""The seeds of the corpus: right inputs, made up, from which the fuzzer goes out."""

from __future__ import annotations

import struct
from typing import Final

from support import lying_pdus as wire

#: The first byte says whether the rest is taken as it is, or as parts to make something right of.
_AS_IT_IS, _PARTS = b"\x01", b"\x00"


def _of_the_stream(*bodies: bytes) -> bytes:
    """Return an input whose PDUs have these bodies, each with its length less one in front."""
    return _AS_IT_IS + b"".join(struct.pack(">H", len(body) - 1) + body for body in bodies)


def _explicit(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    if vr in {b"OB", b"OW", b"SQ", b"UN"}:
        return struct.pack("<HH2sxxI", group, element, vr, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


_SEQUENCE: Final = (
    wire.element(0x00081110, b"", length=0xFFFFFFFF)
    + wire.element(0xFFFEE000, b"", length=0xFFFFFFFF)
    + wire.element(0x00081150, b"1.2")
    + wire.element(0xFFFEE00D, b"")
    + wire.element(0xFFFEE0DD, b"")
)
_EXPLICIT: Final = (
    _explicit(0x0008, 0x0016, b"UI", b"1.2.3\0")
    + _explicit(0x0008, 0x0018, b"UI", b"1.2.4\0")
    + struct.pack("<HH2sxxI", 0x0008, 0x1110, b"SQ", 0xFFFFFFFF)
    + wire.element(0xFFFEE000, _explicit(0x0008, 0x1150, b"UI", b"1.23"))
    + wire.element(0xFFFEE0DD, b"")
    + struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
    + wire.element(0xFFFEE000, b"")
    + wire.element(0xFFFEE000, b"\xff\xd8")
    + wire.element(0xFFFEE0DD, b"")
)

SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "association_request": (
        _AS_IT_IS + wire.association_body(),
        _AS_IT_IS + wire.association_body(contexts=[]),
        _AS_IT_IS
        + wire.association_body(
            user=wire.user_information(
                wire.item(0x53, bytes(4)),
                wire.item(0x54, b"\0\x031.2\0\1"),
                wire.item(0x55, b"VERSION"),
            )
        ),
        _AS_IT_IS
        + wire.association_body(
            user=wire.user_information(
                wire.item(0x56, b"\0\x031.2\1\1"),
                wire.item(0x57, b"\0\x031.2\0\x031.3\0\x05\0\x031.4"),
                wire.item(0x58, b"\2\1\0\4name\0\4pass"),
            )
        ),
        _AS_IT_IS
        + wire.association_body(
            contexts=[wire.item(0x21, b"\1\0\0\0" + wire.item(0x40, b"1.2.840.10008.1.2"))],
            user=wire.user_information(wire.item(0x59, b"\0\2ok")),
        ),
        _PARTS + bytes(range(200)),
    ),
    "incoming": (
        _of_the_stream(wire.pdv(1, 3, wire.echo_command())),
        _of_the_stream(wire.pdv(3, 3, wire.store_command("1.2.3")), wire.pdv(3, 2, b"data")),
        _of_the_stream(wire.pdv(3, 3, wire.store_command("1.2.3")) + wire.pdv(3, 0, b"da") + wire.pdv(3, 2, b"ta")),
        _of_the_stream(
            wire.pdv(3, 1, wire.store_command("1.2.3")[:50]),
            wire.pdv(3, 3, wire.store_command("1.2.3")[50:]),
            wire.pdv(3, 0, b"da"),
            wire.pdv(3, 2),
            wire.pdv(1, 3, wire.echo_command()),
        ),
        _of_the_stream(wire.pdv(3, 2, b"data before its command")),
        _of_the_stream(wire.pdv(1, 1, bytes(100)), wire.pdv(1, 1, bytes(150))),
        _PARTS + bytes(range(1, 250)),
    ),
    "command_set": (
        _AS_IT_IS + wire.echo_command(),
        _AS_IT_IS + wire.store_command("1.2.3.4"),
        _AS_IT_IS
        + wire.command_set([*wire.store_elements("1.2"), wire.element(0x1030, b"AET"), wire.number(0x1031, 7)]),
        _AS_IT_IS
        + wire.command_set(
            [
                wire.number(0x0100, 0x8001),
                wire.number(0x0120, 1),
                wire.number(0x0800, wire.NO_DATA_SET),
                wire.number(0x0900, 0xA700),
                wire.element(0x0902, b"no space"),
            ]
        ),
        *(_PARTS + bytes([kind]) + bytes(range(150)) for kind in range(3)),
    ),
    "head": (
        b"\x01" + wire.data_set("1.2.3", filling=20),
        b"\x01" + wire.element(0x00080016, b"1.2") + _SEQUENCE + wire.element(0x00080018, b"1.2.3"),
        b"\x03" + _EXPLICIT,
        b"\x05" + _EXPLICIT,
        b"\x07" + _EXPLICIT,
        b"\x01" + struct.pack("<HHI", 0x0008, 0x1110, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF),
        b"\x01"
        + struct.pack("<HH2sHI", 2, 0, b"UL", 4, 38)
        + _explicit(2, 2, b"UI", b"1.2.")
        + _explicit(2, 3, b"UI", b"1.3.")
        + _explicit(2, 0x10, b"UI", b"1.4.56"),
        _PARTS + bytes(range(7, 200)),
    ),
}
