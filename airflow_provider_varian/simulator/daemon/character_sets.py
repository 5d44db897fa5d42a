"""Character sets of what leaves the daemon: set per client, whatever the text is (varian-daemon 1.1)."""

from __future__ import annotations

from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

_TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def apply(data_set: Dataset, character_set: str) -> Dataset:
    """Name a character set in a data set and make its text fit, in place.

    :param data_set: decoded text in any VR that knows character sets.
    :param character_set: ``ISO_IR 192``, ``ISO_IR 100``, or empty: Latin-1 bytes with no character
        set named, as old exports have them. What does not fit becomes ``?``.
    """
    if character_set != "ISO_IR 192":
        data_set.walk(_to_latin_1)
    if character_set:
        data_set.SpecificCharacterSet = character_set
    elif "SpecificCharacterSet" in data_set:
        del data_set.SpecificCharacterSet
    return data_set


def _to_latin_1(_: Dataset, element: DataElement) -> None:
    if element.VR not in _TEXT_VRS or element.is_empty:
        return
    if element.VM > 1:
        element.value = [_fit(str(value), element.VR) for value in element.value]
    else:
        element.value = _fit(str(element.value), element.VR)


def _fit(text: str, vr: str) -> str:
    if text.isascii():
        return text
    if vr == "PN":
        # Ideographic and phonetic groups have no Latin-1 form; the alphabetic group stays.
        text = text.split("=")[0]
    return text.encode("latin-1", "replace").decode("latin-1")
