"""What the stub answers to a C-FIND: studies with the attributes that archives list, as bytes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import Final

_HEAD: Final = struct.Struct("<HHI")
_ROOT: Final = "1.2.826.0.1.3680043.10.1499.9"

#: What a client asks for at STUDY level, besides the level.
KEYWORDS: Final = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ModalitiesInStudy",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)


def identifiers(count: int) -> Iterator[bytes]:
    """Yield the identifiers of so many answers, in Implicit VR Little Endian."""
    for number in range(count):
        yield b"".join(
            _element(group, element, text)
            for group, element, text in (
                (0x0008, 0x0005, "ISO_IR 100"),
                (0x0008, 0x0020, "20260102"),
                (0x0008, 0x0030, f"{number % 240_000:06d}"),
                (0x0008, 0x0050, f"A{number}"),
                (0x0008, 0x0052, "STUDY"),
                (0x0008, 0x0061, "CT\\RTPLAN\\RTSTRUCT"),
                (0x0008, 0x0090, "REFERRING^DÖRTE"),
                (0x0008, 0x1030, "Prostata, 39 x 2 Gy"),
                (0x0010, 0x0010, _name(number)),
                (0x0010, 0x0020, f"P{number:05d}"),
                (0x0010, 0x0030, "19700101"),
                (0x0010, 0x0040, "O"),
                (0x0020, 0x000D, _uid(number)),
                (0x0020, 0x0010, "1"),
                (0x0020, 0x1206, "3"),
                (0x0020, 0x1208, "120"),
            )
        )


def fingerprint(studies: Iterable[tuple[str, str]]) -> str:
    """Return a digest of Study Instance UIDs and patients' names, in the order given."""
    lines = "\n".join(f"{uid} {name}" for uid, name in studies)
    return hashlib.sha256(lines.encode()).hexdigest()


def expected(count: int) -> str:
    """Return the digest of so many answers that were read rightly, their character set too."""
    return fingerprint((_uid(number), _name(number)) for number in range(count))


def _uid(number: int) -> str:
    return f"{_ROOT}.{number + 1}"


def _name(number: int) -> str:
    return f"MÜLLER^P{number:05d}"


def _element(group: int, element: int, text: str) -> bytes:
    value = text.encode("latin-1")
    value += (b"\0" if (group, element) == (0x0020, 0x000D) else b" ") * (len(value) % 2)
    return _HEAD.pack(group, element, len(value)) + value
