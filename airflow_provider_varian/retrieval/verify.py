"""What makes a received object *verified* (semantics 7), looked at once, when a retrieval claims it."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pydicom

from airflow_provider_varian.receiver.file_meta import read_file_meta
from airflow_provider_varian.receiver.head import Buffer, DataSetError, parse_head, walk_elements

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Bytes hashed at a time: enough to be fast, few enough to let a cancellation in.
_SLICE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a file holds.

    :param file_bytes: size of the file.
    :param sha256_file: SHA-256 of the file, in hexadecimal.
    :param sha256_data_set: SHA-256 of the data set as it came on the wire.
    :param sop_class_uid: (0008,0016) of the data set.
    :param sop_instance_uid: (0008,0018) of the data set.
    :param study_instance_uid: (0020,000D); empty when absent.
    :param series_instance_uid: (0020,000E); empty when absent.
    :param transfer_syntax_uid: (0002,0010).
    """

    file_bytes: int
    sha256_file: str
    sha256_data_set: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str


def inspect(path: Path) -> Inspection:
    """Check one file and take its hashes.

    :param path: a file of the spool, or one that was published from it.
    :raises DataSetError: when it has no receipt, its element lengths do not walk to the end, or the
        UIDs of receipt and data set differ.
    :raises OSError: when it cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise DataSetError("the file is empty")
        # Not closed by hand: an error's traceback may still hold views of it. The last view closes it.
        return _inspect(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def _inspect(data: memoryview) -> Inspection:
    meta = read_file_meta(data[:65536])
    walk_elements(data, meta.transfer_syntax_uid, start=meta.data_set_offset)
    data_set = data[meta.data_set_offset :]
    head = parse_head(data_set, meta.transfer_syntax_uid)
    if (head.sop_class_uid, head.sop_instance_uid) != (meta.sop_class_uid, meta.sop_instance_uid):
        raise DataSetError("the UIDs of data set and file meta information differ")
    return Inspection(
        file_bytes=len(data),
        sha256_file=_sha256(data),
        sha256_data_set=_sha256(data_set),
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        study_instance_uid=head.study_instance_uid or "",
        series_instance_uid=head.series_instance_uid or "",
        transfer_syntax_uid=meta.transfer_syntax_uid,
    )


def layout_values(path: Path, keywords: Collection[str]) -> dict[str, Any]:
    """Read what a layout asks for from an object itself.

    :param path: the file.
    :param keywords: DICOM keywords.
    :return: values by keyword, without those that the object does not have.
    """
    dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
    found = {key: getattr(dataset, key, None) for key in keywords}
    return {key: value for key, value in found.items() if value not in (None, "")}


def is_object(path: Path, sop_instance_uid: str) -> bool:
    """Say whether a file is a DICOM object of a UID.

    :param path: a file, of any kind.
    :param sop_instance_uid: its (0008,0018), as expected.
    """
    try:
        return str(layout_values(path, ("SOPInstanceUID",)).get("SOPInstanceUID")) == sop_instance_uid
    except Exception:  # noqa: BLE001 - pydicom raises many kinds; what cannot be read is no object
        return False


def same_content(first: Path, second: Path, *, volatile: Collection[str]) -> bool:
    """Say whether two files hold the same object: group lengths and volatile attributes aside (semantics 8).

    :param first: a file.
    :param second: another file of the same SOP Instance UID.
    :param volatile: keywords that the peer rewrites at each export.
    """
    return _comparable(first, volatile) == _comparable(second, volatile)


def _comparable(path: Path, volatile: Collection[str]) -> Dataset:
    dataset = pydicom.dcmread(path)
    for element in [element for element in dataset if element.tag.element == 0]:
        del dataset[element.tag]
    for keyword in volatile:
        if keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(data: Buffer) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(data), _SLICE):
        digest.update(data[start : start + _SLICE])
    return digest.hexdigest()
