"""Answers of every shape as bytes, drawn by chance: encoded here, so that no library decides what may come."""

from __future__ import annotations

import random
import struct
from functools import cache

from pydicom.datadict import DicomDictionary, RepeatersDictionary

CHARACTER_SET = 0x00080005
PIXEL_REPRESENTATION = 0x00280103
UNDEFINED = 0xFFFFFFFF

LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
VRS = [
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OD", "OF", "OL", "OV", "OW"),
    *("PN", "SH", "SL", "SQ", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV"),
]
CHARACTER_SETS = [
    *("", " ", "ISO_IR 6", "ISO_IR 100", "ISO_IR 192", "GB18030", "GBK", "ISO_IR 13", "ISO_IR 144", "ISO 2022 IR 6"),
    *("\\ISO 2022 IR 87", "ISO 2022 IR 13\\ISO 2022 IR 87", "\\ISO 2022 IR 149", "ISO 2022 IR 100\\ISO 2022 IR 58"),
    # Misspelt, unknown, not to be combined, of Python's and of none.
    *(
        "ISO-IR 100",
        "ISO_IR 192\\ISO_IR 100",
        "ISO 2022 IR 6\\GB18030",
        "latin-1",
        "hex",
        "idna",
        "Muster",
        " ISO_IR 100",
    ),
]
TEXTS = [
    *(
        b"",
        b" ",
        b"  ",
        b"\0",
        b"A",
        b"QA_TB_WL",
        b"1.2.246.352.1",
        b"1.02.3",
        b"20260102",
        b"114107.643",
        b"12,5",
        b"-7",
    ),
    *(
        b"1.5e3",
        b"inf",
        b"nan",
        b"1_0",
        b" 7 ",
        b"9" * 400,
        b"A\\B",
        b"A \\ B ",
        b"\\",
        b"\\\\",
        b"A\\",
        b" A",
        b"A\0 ",
        b"^",
        b"=",
    ),
    *(
        "Müller^Jürg".encode("latin-1"),
        "Müller^王=王^小东".encode(),
        "王^小东\\李".encode("gb18030"),
        "王".encode("gbk"),
    ),
    b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7\\\x1b$)C\xb1\xe6",
    *(b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", b"\x1b", b"\x1b$Z?", b"\xff\xfe", bytes(range(256))),
]


@cache
def tags_of(vr: str) -> tuple[int, ...]:
    """Return tags that the dictionary gives a VR, alone or among several."""
    return tuple(tag for tag, entry in DicomDictionary.items() if vr in entry[0] and tag >> 16 not in (0, 2, 0xFFFE))


def _repeated() -> list[int]:
    return [int(pattern.replace("x", "0"), 16) for pattern in RepeatersDictionary]


class Writer:
    """Draws data sets and encodes them.

    :param chance: where the chance comes from.
    :param implicit: Implicit VR, else Explicit VR.
    """

    def __init__(self, chance: random.Random, *, implicit: bool) -> None:
        self.chance = chance
        self.implicit = implicit

    def data_set(self, depth: int = 0) -> bytes:
        """Return the elements of a data set or an item."""
        elements = [self._element(depth) for _ in range(self.chance.choice((0, 1, 2, 3, 5, 8)) + (depth == 0))]
        if self.chance.random() < 0.4:
            elements.append((CHARACTER_SET, self._encoded(CHARACTER_SET, "CS", self._character_set())))
        if self.chance.random() < 0.03:
            elements.append((PIXEL_REPRESENTATION, self._encoded(PIXEL_REPRESENTATION, "US", b"\1\0")))
        if self.chance.random() < 0.9:
            elements.sort(key=lambda element: element[0])
        return b"".join(encoded for _, encoded in elements)

    def _element(self, depth: int) -> tuple[int, bytes]:
        chance = self.chance
        vr = chance.choice([*VRS, *("LO", "PN", "SQ", "SQ") * 2])
        tag = chance.choice(tags_of(vr) or (0x00080060,))
        kind = chance.random()
        if kind < 0.04:
            tag = chance.choice((0x00090010, 0x00091001, 0x30050010, 0x30051000, 0x00291010))
        elif kind < 0.07:
            tag = chance.choice((0x00080000, 0x000811FF, 0x00100001, 0x76543210))
        elif kind < 0.10:
            tag = chance.choice(_repeated())
        elif kind < 0.11:
            vr = chance.choice(VRS)
        if vr == "SQ" and depth < 4:
            return tag, self._sequence(tag, depth)
        return tag, self._encoded(tag, vr, self._value(vr))

    def _value(self, vr: str) -> bytes:
        chance = self.chance
        if chance.random() < 0.15:
            return b""
        if chance.random() < 0.1:
            return chance.choice((b" ", b"\0", b"x", b"abc", b"\0\0\0\0\0"))
        if vr in ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT") or vr.startswith("O") or vr in ("UN", "SQ"):
            return chance.randbytes(chance.choice((2, 4, 8, 8, 16, 24, 3)))
        text = chance.choice(TEXTS)
        return text + chance.choice((b" ", b"\0", b"", b"  ")) if len(text) % 2 else text

    def _character_set(self) -> bytes:
        text = self.chance.choice(CHARACTER_SETS if self.chance.random() < 0.3 else CHARACTER_SETS[:14]).encode()
        return text + b" " * (len(text) % 2)

    def _sequence(self, tag: int, depth: int) -> bytes:
        items = []
        for _ in range(self.chance.choice((0, 1, 1, 2))):
            content = self.data_set(depth + 1)
            if self.chance.random() < 0.5:
                items.append(struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content)
            else:
                items.append(struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + content + b"\xfe\xff\x0d\xe0\0\0\0\0")
        value = b"".join(items)
        if self.chance.random() < 0.5:
            return self._encoded(tag, "SQ", value)
        return self._head(tag, "SQ", UNDEFINED) + value + b"\xfe\xff\xdd\xe0\0\0\0\0"

    def _encoded(self, tag: int, vr: str, value: bytes) -> bytes:
        return self._head(tag, vr, len(value)) + value

    def _head(self, tag: int, vr: str, length: int) -> bytes:
        number = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if self.implicit:
            return number + struct.pack("<I", length)
        if vr in LONG_VRS:
            return number + vr.encode() + b"\0\0" + struct.pack("<I", length)
        return number + vr.encode() + struct.pack("<H", length & 0xFFFF)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return bytes of which a few were changed, lost, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        match chance.randrange(6):
            case 0:
                changed[at] = chance.randrange(256)
            case 1:
                changed[at] ^= 1 << chance.randrange(8)
            case 2:
                del changed[at : at + chance.choice((1, 2, 4, 8))]
            case 3:
                changed[at:at] = changed[at : at + chance.choice((1, 2, 8, 16))]
            case 4:
                changed[at : at + 4] = chance.choice(
                    (b"\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", bytes(4))
                )
            case 5:
                del changed[at:]
    return bytes(changed)
