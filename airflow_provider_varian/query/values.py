"""Values of data elements as plain Python, read without trusting who wrote them.

pydicom converts a value when it is first looked at, and a value that breaks its VR then raises or
warns. Answers of a peer are read here from their raw bytes instead: what cannot be a number stays
the text it came as. Text goes through pydicom's character-set code (semantics 16). An answer whose
structure was read by our own codec, and a data set of pydicom's, give the same values.
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from pydicom.charset import convert_encodings, decode_bytes, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import TEXT_VR_DELIMS

from airflow_provider_varian.dimse.answers import CHARACTER_SET, Answer, Answered

log = logging.getLogger(__name__)

#: One value: text, a number, bytes of a binary VR, or an item of a sequence.
Value = str | int | float | bytes | Answer | Dataset

TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
#: VRs in which a backslash is text, and leading blanks count (PS3.5 6.2).
SINGLE_TEXT_VRS: Final = frozenset({"LT", "ST", "UT", "UR"})
ASCII_VRS: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
NUMBER_FORMATS: Final = {
    "US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d", "AT": "HH",
}  # fmt: skip

# A number is found in bytes five times as fast as bytes are.
_ESCAPE: Final = 0x1B
#: An alias that Python has to look up each time.
_CODECS: Final = {"iso8859": "latin-1"}


@lru_cache(maxsize=64)
def python_encodings(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return Python's names of DICOM character sets (0008,0005); unknown ones become the default.

    :param names: the values of Specific Character Set; empty for the default repertoire.
    """
    with warnings.catch_warnings():
        # A misspelt name is the peer's; pydicom corrects it and would warn through our code.
        warnings.simplefilter("ignore")
        found = convert_encodings(list(names) or [""])
    return tuple(name if _decodes_anything(name) else default_encoding for name in found)


def _decodes_anything(encoding: str) -> bool:
    """Say whether a codec makes text of any bytes: pydicom lets each of Python's pass, such as ``hex``."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            (bytes(range(256)) + b"\\!").decode(encoding, "replace")
        except Exception:  # noqa: BLE001 - each codec has errors of its own
            return False
    return True


def encodings_of(dataset: Answered, inherited: Sequence[str] = ()) -> tuple[str, ...]:
    """Return Python's encodings for the text of a data set.

    :param dataset: a data set or an item of a sequence.
    :param inherited: what holds when it names no character set: the parent's, or an assumed one.
    """
    if isinstance(dataset, Answer):
        content = dataset.contents.get(CHARACTER_SET)
        named = _named(content) if isinstance(content, bytes) else ()
    else:
        named = _encodings(read(dataset, CHARACTER_SET) or ())
    return named or tuple(inherited) or python_encodings(())


@lru_cache(maxsize=64)
def _named(content: bytes) -> tuple[str, ...]:
    return _encodings(raw_values(content, "CS"))


def _encodings(values: Sequence[Value]) -> tuple[str, ...]:
    """Return Python's encodings for values of Specific Character Set; none when these are empty."""
    names = tuple(str(name) for name in values)
    return python_encodings(names) if any(names) else ()


def _element(dataset: Dataset, tag: int) -> Any:
    """Return an element, raw or decoded; None when it is absent, or breaks pydicom on the way."""
    try:
        return dataset.get_item(Tag(tag))
    except Exception:  # noqa: BLE001 - a hostile data set can raise anything
        log.debug("Element %s cannot be read", Tag(tag))
        return None


def vr_of(dataset: Answered, tag: int) -> str:
    """Return the VR of an element, from the dictionary where the wire does not say it; UN when unknown."""
    if isinstance(dataset, Answer):
        vr = dataset.vrs.get(tag) if dataset.vrs else None
    else:
        vr = getattr(_element(dataset, tag), "VR", None)
    if vr is None or vr == "UN":
        return dictionary_vr(tag)
    return str(vr).split(" or ")[0]


@lru_cache(maxsize=8192)
def dictionary_vr(tag: int) -> str:
    """Return the VR of a tag in the dictionary, the first where it knows several; UN when it does not know the tag."""
    try:
        return str(dictionary_VR(tag)).split(" or ")[0]
    except KeyError:
        return "UN"


def read(dataset: Answered, tag: int, encodings: Sequence[str] = ()) -> tuple[Value, ...] | None:
    """Return the values of an element.

    :param dataset: where to look; elements of a decoded or a still raw data set alike.
    :param tag: which element.
    :param encodings: Python's encodings of the text, see :func:`encodings_of`.
    :return: None when it is absent or cannot be read, an empty tuple when it is empty; numbers of
        DS and IS stay text, as received.
    """
    if isinstance(dataset, Answer):
        content = dataset.contents.get(tag)
        if content is None or isinstance(content, tuple):
            return content
        return raw_values(content, vr_of(dataset, tag), encodings)
    element = _element(dataset, tag)
    if element is None:
        return None
    vr = vr_of(dataset, tag)
    if vr == "SQ":
        return _items(dataset, tag)
    if isinstance(element, RawDataElement):
        return raw_values(element.value or b"", vr, encodings, little=element.is_little_endian)
    return _plain_values(element.value)


def _items(dataset: Dataset, tag: int) -> tuple[Value, ...] | None:
    try:
        return tuple(dataset[Tag(tag)].value or ())
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


def raw_values(data: bytes, vr: str, encodings: Sequence[str] = (), *, little: bool = True) -> tuple[Value, ...]:
    """Return the values that bytes stand for.

    :param vr: any but SQ.
    :param encodings: Python's encodings of the text, see :func:`encodings_of`.
    :param little: little endian.
    """
    if vr in TEXT_VRS or vr in ASCII_VRS:
        text = decode(data, encodings) if vr in TEXT_VRS else data.decode("ascii", errors="replace")
        if "\\" in text and vr not in SINGLE_TEXT_VRS:
            return tuple(part.rstrip(" \0") for part in text.split("\\"))
        text = text.rstrip(" \0")
        return (text,) if text else ()
    if vr in NUMBER_FORMATS:
        return _numbers(data, vr, little=little)
    return (bytes(data),) if data else ()


def decode(data: bytes, encodings: Sequence[str] = ()) -> str:
    """Return text, see :func:`raw_values`; what cannot be decoded becomes the replacement character."""
    encodings = encodings or python_encodings(())
    if _ESCAPE in data:
        # It raises where a process has told pydicom to; an answer is read all the same.
        with warnings.catch_warnings(), suppress(ValueError):
            warnings.simplefilter("ignore")
            return decode_bytes(data, list(encodings), TEXT_VR_DELIMS)
    # pydicom's own short cut, without the warning that a peer's odd byte would raise in our code.
    return data.decode(_CODECS.get(encodings[0], encodings[0]), "replace")


def _numbers(data: bytes, vr: str, *, little: bool) -> tuple[Value, ...]:
    layout = struct.Struct(("<" if little else ">") + NUMBER_FORMATS[vr])
    whole = len(data) - len(data) % layout.size
    unpacked = layout.iter_unpack(data[:whole])
    if vr == "AT":
        return tuple(f"{group:04X}{element:04X}" for group, element in unpacked)
    return tuple(number for (number,) in unpacked)
