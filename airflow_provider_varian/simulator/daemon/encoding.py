"""What an export sends, as slices: from the file where it can, otherwise through pydicom."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import encode

from airflow_provider_varian.dimse.slices import Slice
from airflow_provider_varian.simulator.holdings.stored_file import (
    INSTANCE_CREATION_DATE,
    INSTANCE_CREATION_TIME,
    SPECIFIC_CHARACTER_SET,
    StoredFile,
)

_PIXEL_DATA: Final = 0x7FE00010
_UNICODE: Final = "ISO_IR 192"


def creation(moment: datetime) -> tuple[str, str]:
    """Return a time of export as InstanceCreationDate and InstanceCreationTime (quirk 16)."""
    return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")


def from_file(
    file: StoredFile, transfer_syntax: str, *, character_set: str, moment: datetime | None
) -> list[Slice] | None:
    """Return a file's data set as it goes out, for the most part in ranges of the file.

    :param transfer_syntax: the one negotiated.
    :param character_set: see :mod:`.character_sets`.
    :param moment: time of the export; ``None`` leaves that of the file.
    :return: ``None`` when the file has changed, is in another transfer syntax, or holds text that is to be
        encoded anew.
    """
    same_text = file.plain or file.character_set == character_set == _UNICODE
    if file.transfer_syntax != transfer_syntax or not same_text or not file.is_unchanged():
        return None
    changes: dict[int, str | None] = {SPECIFIC_CHARACTER_SET: character_set or None}
    if file.character_set == character_set:
        changes.clear()
    if moment is not None:
        changes[INSTANCE_CREATION_DATE], changes[INSTANCE_CREATION_TIME] = creation(moment)
    return file.slices(changes)


def from_data_set(data_set: Dataset, transfer_syntax: UID) -> list[Slice]:
    """Encode a data set; native pixels at its end are not copied on the way.

    :param data_set: may lose its pixels by it.
    :raises ValueError: when it holds a value that cannot be encoded.
    """
    implicit = transfer_syntax.is_implicit_VR
    _pad(data_set)
    pixels: list[Slice] = []
    last = data_set[_PIXEL_DATA] if _PIXEL_DATA in data_set and max(data_set.keys()) == _PIXEL_DATA else None
    # pydicom decides an ambiguous VR, and pads an odd value.
    if last is not None and last.VR in ("OB", "OW") and not last.is_undefined_length:
        value = last.value
        if isinstance(value, bytes) and len(value) % 2 == 0:
            head = b"\xe0\x7f\x10\x00" + (b"" if implicit else last.VR.encode("ascii") + b"\0\0")
            pixels = [head + len(value).to_bytes(4, "little"), value]
            del data_set[_PIXEL_DATA]
    result = encode(data_set, implicit, transfer_syntax.is_little_endian)
    if result is None:
        raise ValueError("the data set cannot be encoded")
    return [result, *pixels]


def _pad(data_set: Dataset) -> None:
    """Make all values even in length (PS3.5 7.1.1).

    pydicom pads what it has decoded, unless it does not know the VR; what it has not decoded it writes as it was read.
    """
    for tag in list(data_set.keys()):
        element: Any = data_set.get_item(tag)
        if isinstance(element, RawDataElement):
            vr = element.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
            if vr != "SQ" and len(element.value or b"") % 2 == 0:
                continue
            element = data_set[tag]
        if element.VR == "SQ":
            for item in element.value:
                _pad(item)
        elif element.VR == "UN" and isinstance(element.value, bytes) and len(element.value) % 2:
            element.value += b"\0"
