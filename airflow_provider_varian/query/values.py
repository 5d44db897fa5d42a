"""Values of data elements as plain Python, read without trusting who wrote them.

pydicom converts a value when it is first looked at, and a value that breaks its VR then raises or
warns. Answers of a peer are read here from their raw bytes instead: what cannot be a number stays
the text it came as. Text goes through pydicom's character-set code (semantics 16).
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import TEXT_VR_DELIMS

log = logging.getLogger(__name__)

#: One value: text, a number, bytes of a binary VR, or an item of a sequence.
Value = str | int | float | bytes | Dataset

SPECIFIC_CHARACTER_SET: Final = Tag(0x0008, 0x0005)
TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
#: VRs in which a backslash is text, and leading blanks count (PS3.5 6.2).
SINGLE_TEXT_VRS: Final = frozenset({"LT", "ST", "UT", "UR"})
ASCII_VRS: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
NUMBER_FORMATS: Final = {
    "US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d", "AT": "HH",
}  # fmt: skip

_ESCAPE: Final = b"\x1b"


@lru_cache(maxsize=64)
def python_encodings(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return Python's names of DICOM character sets (0008,0005); unknown ones become the default.

    :param names: the values of Specific Character Set; empty for the default repertoire.
    """
    with warnings.catch_warnings():
        # A misspelt name is the peer's; pydicom corrects it and would warn through our code.
        warnings.simplefilter("ignore")
        return tuple(convert_encodings(list(names) or [""]))


def encodings_of(dataset: Dataset, inherited: Sequence[str] = ()) -> tuple[str, ...]:
    """Return Python's encodings for the text of a data set.

    :param dataset: a data set or an item of a sequence.
    :param inherited: what holds when it names no character set: the parent's, or an assumed one.
    """
    names = tuple(str(name) for name in read(dataset, SPECIFIC_CHARACTER_SET) or ())
    if names and any(names):
        return python_encodings(names)
    return tuple(inherited) or python_encodings(())


def _element(dataset: Dataset, tag: BaseTag) -> Any:
    """Return an element, raw or decoded; None when it is absent, or breaks pydicom on the way."""
    try:
        return dataset.get_item(tag)
    except Exception:  # noqa: BLE001 - a hostile data set can raise anything
        log.debug("Element %s cannot be read", tag)
        return None


def vr_of(dataset: Dataset, tag: BaseTag) -> str:
    """Return the VR of an element, from the dictionary where the wire does not say it; UN when unknown."""
    element = _element(dataset, tag)
    vr = getattr(element, "VR", None)
    if vr is None or vr == "UN":
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            vr = "UN"
    return str(vr).split(" or ")[0]


def read(dataset: Dataset, tag: BaseTag, encodings: Sequence[str] = ()) -> tuple[Value, ...] | None:
    """Return the values of an element.

    :param dataset: where to look; elements of a decoded or a still raw data set alike.
    :param tag: which element.
    :param encodings: Python's encodings of the text, see :func:`encodings_of`.
    :return: None when it is absent or cannot be read, an empty tuple when it is empty; numbers of
        DS and IS stay text, as received.
    """
    element = _element(dataset, tag)
    if element is None:
        return None
    vr = vr_of(dataset, tag)
    if vr == "SQ":
        return _items(dataset, tag)
    if isinstance(element, RawDataElement):
        return _raw_values(element, vr, tuple(encodings) or python_encodings(()))
    return _plain_values(element.value)


def _items(dataset: Dataset, tag: BaseTag) -> tuple[Value, ...] | None:
    try:
        return tuple(dataset[tag].value or ())
    except Exception:  # noqa: BLE001 - any garbage may stand in a peer's sequence; unreadable is "not known"
        return None


def _plain_values(value: Any) -> tuple[Value, ...]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        values: Sequence[Any] = (value,)
    else:
        values = value
    plain = tuple(_plain(item) for item in values)
    return () if plain in ((), ("",), (b"",)) else plain


def _plain(value: Any) -> Value:
    if isinstance(value, bytes):
        return value
    # DS and IS are subclasses of numbers that know the text they came from.
    if type(value) in (int, float):
        return value  # type: ignore[no-any-return]
    return "" if value is None else str(value).rstrip(" \0")


def _raw_values(element: RawDataElement, vr: str, encodings: Sequence[str]) -> tuple[Value, ...]:
    data = element.value or b""
    if vr in TEXT_VRS or vr in ASCII_VRS:
        text = _decode(data, encodings) if vr in TEXT_VRS else data.decode("ascii", errors="replace")
        parts = (text,) if vr in SINGLE_TEXT_VRS else tuple(text.split("\\"))
        plain = tuple(part.rstrip(" \0") for part in parts)
        return () if plain == ("",) else plain
    if vr in NUMBER_FORMATS:
        return _numbers(data, vr, little=element.is_little_endian)
    return (bytes(data),) if data else ()


def _decode(data: bytes, encodings: Sequence[str]) -> str:
    if _ESCAPE in data:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decode_bytes(data, list(encodings), TEXT_VR_DELIMS)
    # pydicom's own short cut, without the warning that a peer's odd byte would raise in our code.
    return data.decode(encodings[0], errors="replace")


def _numbers(data: bytes, vr: str, *, little: bool) -> tuple[Value, ...]:
    layout = struct.Struct(("<" if little else ">") + NUMBER_FORMATS[vr])
    whole = len(data) - len(data) % layout.size
    unpacked = layout.iter_unpack(data[:whole])
    if vr == "AT":
        return tuple(f"{group:04X}{element:04X}" for group, element in unpacked)
    return tuple(number for (number,) in unpacked)
