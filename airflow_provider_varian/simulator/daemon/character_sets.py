"""Character sets of what leaves the daemon: set per client, whatever the text is (varian-daemon 1.1)."""

from __future__ import annotations

from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

_TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_UNICODE: Final = "ISO_IR 192"


def apply(data_set: Dataset, character_set: str) -> Dataset:
    """Name a character set in a data set and make its text fit, in place.

    Elements and items that change are replaced: a data set that has them too, such as the one held, keeps its own.
    An item that names a character set of its own (PS3.5 7.5.3) keeps it.

    :param data_set: text in any VR that knows character sets, decoded or as it was read.
    :param character_set: ``ISO_IR 192``, ``ISO_IR 100``, or empty: Latin-1 bytes with no character
        set named, as old exports have them. What does not fit becomes ``?``.
    """
    if character_set != _UNICODE:
        for fitted in _changes(data_set):
            data_set[fitted.tag] = fitted
    elif data_set.get("SpecificCharacterSet") != _UNICODE:
        _decode(data_set)
    if character_set:
        data_set.SpecificCharacterSet = character_set
    elif "SpecificCharacterSet" in data_set:
        del data_set.SpecificCharacterSet
    return data_set


def _decode(data_set: Dataset) -> None:
    """Decode what was read as bytes, by the character set that was named beside it.

    pydicom does so at the first look at an element. It looks again at the elements of a data set whose character set
    has another name when it is written, but not into its sequences. ``Dataset.decode`` is for bytes alone: it takes
    text that names no character set, as answers have it, for ASCII.
    """
    for _ in data_set.iterall():
        pass


def _changes(data_set: Dataset) -> list[DataElement]:
    """Return the elements of a data set that Latin-1 changes, changed."""
    return [fitted for element in data_set if (fitted := _fitted(element)) is not element]


def _fitted(element: DataElement) -> DataElement:
    if element.VR == "SQ":
        items = [_fitted_item(item) for item in element.value]
        if all(fitted is item for fitted, item in zip(items, element.value, strict=True)):
            return element
        return DataElement(element.tag, "SQ", Sequence(items))
    if element.VR not in _TEXT_VRS or element.is_empty:
        return element
    texts = [str(value) for value in element.value] if element.VM > 1 else [str(element.value)]
    if all(text.isascii() for text in texts):
        return element
    fitted = [_fit(text, element.VR) for text in texts]
    return DataElement(element.tag, element.VR, fitted if element.VM > 1 else fitted[0])


def _fitted_item(item: Dataset) -> Dataset:
    changes = _changes(item)
    if not changes:
        return item
    result = Dataset()
    for element in item:
        result.add(element)
    for element in changes:
        result.add(element)
    return result


def _fit(text: str, vr: str) -> str:
    if text.isascii():
        return text
    if vr == "PN":
        # Ideographic and phonetic groups have no Latin-1 form; the alphabetic group stays.
        text = text.split("=")[0]
    return text.encode("latin-1", "replace").decode("latin-1")
