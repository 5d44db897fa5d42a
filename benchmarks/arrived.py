"""What arrived, byte for byte: data sets as digests, whatever their receiver has put in front of them."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: Digest of a data set to how often it is there; a data set names its own SOP Instance UID.
Digests = Counter[str]

_PREFIX: Final = slice(128, 132)
_GROUP_LENGTH: Final = struct.Struct("<HH2sHI")
#: Preamble, prefix and the group length element of the File Meta Information (PS3.10 7.1).
_HEADER_BYTES: Final = 132 + _GROUP_LENGTH.size


def in_files(paths: Iterable[Path]) -> Digests:
    """Return the digests of the data sets of files, without their File Meta Information, if they have one."""
    found: Digests = Counter()
    for path in paths:
        with path.open("rb") as file:
            file.seek(data_set_offset(file.read(_HEADER_BYTES)))
            found[hashlib.file_digest(file, "sha256").hexdigest()] += 1
    return found


def of_data_sets(data_sets: Iterable[bytes]) -> Digests:
    """Return the digests of data sets in memory."""
    return Counter(hashlib.sha256(each).hexdigest() for each in data_sets)


def data_set_offset(head: bytes) -> int:
    """Return where in a file the data set begins; 0 for a file that is nothing but one.

    :param head: the first 144 bytes.
    """
    if head[_PREFIX] != b"DICM":
        return 0
    group, element, _, _, length = _GROUP_LENGTH.unpack_from(head, 132)
    if (group, element) != (2, 0):
        raise ValueError("a file has no length of its File Meta Information")
    return int(_HEADER_BYTES + length)


def difference(expected: Digests, found: Digests) -> str:
    """Say how what was found differs from what should have come; empty when it does not."""
    missing, strange = expected - found, found - expected
    if not missing and not strange:
        return ""
    all_of_them, others = expected.total(), strange.total()
    return f"{missing.total()} of {all_of_them} data sets did not arrive as they were sent, {others} others did"
