"""Comparing data sets as semantics.md 31 asks: bytes as on one wire, or element by element."""

from __future__ import annotations

import io
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info


def wire_bytes(path: Path) -> bytes:
    """Return what follows the file meta information: the data set as it was received."""
    meta = read_file_meta_info(path)
    content = path.read_bytes()
    # Preamble, prefix, then the group length element (12 bytes) counts what follows it.
    return content[132 + 12 + meta.FileMetaInformationGroupLength :]


def elements(source: Path | Dataset) -> Dataset:
    """Read a data set without group lengths, which archives may add or drop (PS3.5 7.2)."""
    dataset = dcmread(source, force=True) if isinstance(source, Path) else source
    dataset.decode()
    for element in list(dataset):
        if element.tag.element == 0:
            del dataset[element.tag]
    return dataset


def differences(left: Dataset, right: Dataset, *, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Name the elements in which two data sets differ."""
    tags = {element.tag for element in left} | {element.tag for element in right}
    found = []
    for tag in sorted(tags):
        one, other = left.get(tag), right.get(tag)
        keyword = (one or other).keyword
        if keyword in ignore:
            continue
        if one is None or other is None or one.value != other.value:
            found.append(f"{tag} {keyword}")
    return found


def part10(dataset_bytes: bytes) -> Dataset:
    """Read a bare implicit VR little endian data set."""
    return dcmread(io.BytesIO(dataset_bytes), force=True)
