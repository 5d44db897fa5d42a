"""Attributes as plain values, and data sets made from them.

The clinic describes its objects as mappings from DICOM keyword to plain value (text, number, list
for multi-values, list of mappings for sequences); pydicom comes in only for what is asked for,
which keeps a C-FIND over thousands of instances cheap. Files of others are pydicom data sets from
the start; both serve as :data:`Values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

#: Attributes of one object or one level: a mapping by keyword, or a data set.
Values = Mapping[str, Any] | Dataset


@lru_cache(maxsize=4096)
def tag_of(keyword: str) -> BaseTag:
    """Return the tag of a keyword that PS3.6 knows."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return Tag(tag)


@lru_cache(maxsize=4096)
def keyword_of(tag: int) -> str:
    """Return the keyword of a tag, empty for one that PS3.6 does not know."""
    return keyword_for_tag(tag)


@lru_cache(maxsize=4096)
def vr_of(tag: int) -> str:
    """Return the value representation of a tag; of several possible ones, the unsigned or word form."""
    vr = dictionary_VR(tag)
    if vr == "US or SS":
        return "US"
    return "OW" if vr.startswith("OB or OW") else vr


def element(keyword: str, value: Any) -> DataElement:
    """Build one data element; a list of mappings becomes a sequence, ``None`` an empty value."""
    tag = tag_of(keyword)
    vr = vr_of(tag)
    if vr == "SQ":
        return DataElement(tag, vr, Sequence([data_set(item) for item in value or ()]))
    # A clinic has UIDs that break PS3.5 9.1 (varian-daemon 1.5); all else that it makes up has to be right.
    return DataElement(tag, vr, value, validation_mode=IGNORE if vr == "UI" else None)


def data_set(values: Mapping[str, Any]) -> Dataset:
    """Build a data set from a mapping by keyword."""
    result = Dataset()
    for keyword, value in values.items():
        result.add(element(keyword, value))
    return result


def element_of(values: Values, tag: BaseTag) -> DataElement | None:
    """Return one attribute as a data element; ``None`` when the object does not have it."""
    if isinstance(values, Dataset):
        found = values.get(tag)
        return found if isinstance(found, DataElement) else None
    keyword = keyword_of(tag)
    if not keyword or keyword not in values:
        return None
    return element(keyword, values[keyword])
