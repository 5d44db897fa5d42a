"""Some elements of an object's head, kept when the object is looked at, and decoded when they are asked for.

Most of what is asked for is plain: one value, printable ASCII, of a VR that is text. That is read here, since each
object that arrives is asked, and pydicom takes longer for one element than its hashes take (performance 7). All else is
pydicom's to read.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.filereader import read_dataset

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Specific Character Set (0008,0005): what texts are decoded by.
_CHARACTER_SET: Final = 0x00080005
#: VRs whose value pydicom gives as text, as it came (PS3.5 6.2): no numbers, no names, none that it checks.
_TEXTS: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UI"})
#: What reads alike in each character set: no backslash, which separates values, and no escape.
_PLAIN: Final = re.compile(rb"[ -\[\]-}]*\0?")
_EXPLICIT_HEAD: Final = struct.Struct("<HH2sH")
_IMPLICIT_HEAD: Final = struct.Struct("<HHI")


def tags_of(keywords: Collection[str]) -> frozenset[int]:
    """Return the tags of what to keep for these keywords; of an unknown keyword there is nothing to keep."""
    return _tags(tuple(keywords))


@functools.lru_cache(maxsize=32)
def _tags(keywords: tuple[str, ...]) -> frozenset[int]:
    if not keywords:
        return frozenset()
    found = (tag_for_keyword(keyword) for keyword in keywords)
    return frozenset((_CHARACTER_SET, *(tag for tag in found if tag is not None)))


@dataclass(frozen=True)
class Excerpt:
    """Some elements of a data set's head, encoded as they came.

    :param encoded: one after the other.
    :param implicit: whether they name no VR.
    """

    encoded: bytes
    implicit: bool

    def values(self, keywords: Collection[str]) -> dict[str, Any]:
        """Return values by keyword, without those that the object does not have.

        Plain ones are texts without what pads them, others as pydicom has them, of which it raises the same.
        """
        plain = self._plain
        return values_in(self._dataset, keywords) if plain is None else _texts_of(plain, keywords)

    @functools.cached_property
    def _dataset(self) -> Dataset:
        """Decoded once: where an object belongs and which version of it this is are asked one after the other."""
        return read_dataset(BytesIO(self.encoded), self.implicit, is_little_endian=True)

    @functools.cached_property
    def _plain(self) -> dict[int, str] | None:
        """The texts by tag; ``None`` when something of it is pydicom's to read."""
        texts: dict[int, str] = {}
        for tag, vr, value in self._elements():
            if vr not in _TEXTS or not _PLAIN.fullmatch(value):
                return None
            texts[tag] = value.decode("ascii").strip(" \0")
        return texts

    def _elements(self) -> Iterator[tuple[int, str, bytes]]:
        data, position = self.encoded, 0
        while position < len(data):
            if self.implicit:
                group, number, length = _IMPLICIT_HEAD.unpack_from(data, position)
                vr = _vr_of(group << 16 | number)
            else:
                group, number, encoded_vr, length = _EXPLICIT_HEAD.unpack_from(data, position)
                vr = encoded_vr.decode("latin-1")
            start = position + 8  # of a VR with a longer head nothing more is read
            position = start + length
            yield group << 16 | number, vr, data[start:position]


def values_in(dataset: Dataset, keywords: Collection[str]) -> dict[str, Any]:
    """Return the values of a data set by keyword, without those that it does not have."""
    return _without_nothing({key: getattr(dataset, key, None) for key in keywords})


def _texts_of(texts: dict[int, str], keywords: Collection[str]) -> dict[str, Any]:
    return _without_nothing({key: texts.get(_tag_of(key)) for key in keywords})


def _without_nothing(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value not in (None, "")}


@functools.lru_cache(maxsize=256)
def _tag_of(keyword: str) -> int:
    return tag_for_keyword(keyword) or 0


@functools.lru_cache(maxsize=256)
def _vr_of(tag: int) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""
