"""What makes a received object *verified* (semantics 7), looked at once, when a retrieval claims it."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pydicom

from airflow_provider_varian.receiver.file_meta import FileMeta, read_file_meta
from airflow_provider_varian.receiver.head import DataSetError, iter_elements, parse_head
from airflow_provider_varian.retrieval.excerpt import Excerpt, tags_of, values_in
from airflow_provider_varian.uids import IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Bytes hashed at a time: enough to be fast, few enough to let a cancellation in.
_SLICE: Final = 1 << 20
#: Pixel data, as floats or integers: the head ends there.
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
#: Longest value that is kept of a head. The longest path takes 128 bytes of one.
_VALUE_BYTES: Final = 1 << 20


class FileState(NamedTuple):
    """Which file it is, and what tells that nobody wrote to it since."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """Take it from what the system says of a file."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Given(NamedTuple):
    """A file that a destination may keep as it is: nobody writes to it any more, and it is removed afterwards.

    :param file: which file it is, as it was when it was hashed.
    :param is_durable: whether its content is on the disk, for certain.
    """

    file: FileState
    is_durable: bool


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
    :param file: which file was read, as it was then.
    :param excerpt: the elements of its head that were asked for, as far as it has them.
    """

    file_bytes: int
    sha256_file: str
    sha256_data_set: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    file: FileState
    excerpt: Excerpt


def inspect(path: Path, keywords: Collection[str] = ()) -> Inspection:
    """Check one file and take its hashes, in one reading.

    :param path: a file of the spool, or one that was published from it.
    :param keywords: DICOM keywords of what else is wanted of its head.
    :raises DataSetError: when it has no receipt, its element lengths do not walk to the end, or the
        UIDs of receipt and data set differ.
    :raises OSError: when it cannot be read.
    """
    with path.open("rb") as file:
        state = FileState.of(os.fstat(file.fileno()))
        if state.size == 0:
            raise DataSetError("the file is empty")
        # Not closed by hand: an error's traceback may still hold views of it. The last view closes it.
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return _inspect(data, state, tags_of(keywords))


def _inspect(data: memoryview, state: FileState, tags: frozenset[int]) -> Inspection:
    meta = read_file_meta(data[:65536])
    excerpt = _excerpt(data, meta, tags)
    head = parse_head(data[meta.data_set_offset :], meta.transfer_syntax_uid)
    if (head.sop_class_uid, head.sop_instance_uid) != (meta.sop_class_uid, meta.sop_instance_uid):
        raise DataSetError("the UIDs of data set and file meta information differ")
    sha256_file, sha256_data_set = _hashes(data, meta.data_set_offset)
    return Inspection(
        file_bytes=len(data),
        sha256_file=sha256_file,
        sha256_data_set=sha256_data_set,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        study_instance_uid=head.study_instance_uid or "",
        series_instance_uid=head.series_instance_uid or "",
        transfer_syntax_uid=meta.transfer_syntax_uid,
        file=state,
        excerpt=excerpt,
    )


def _excerpt(data: memoryview, meta: FileMeta, tags: frozenset[int]) -> Excerpt:
    """Walk a whole data set by its element lengths, and keep some elements of its head on the way."""
    kept: list[memoryview] = []
    is_head, position = True, meta.data_set_offset
    for tag, start, length in iter_elements(data, meta.transfer_syntax_uid, start=position):
        is_head = is_head and tag not in _PIXELS
        if tag in tags and is_head and length <= _VALUE_BYTES:
            kept.append(data[position : start + length])
        position = start + length
    return Excerpt(b"".join(kept), meta.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN)


def layout_values(path: Path, keywords: Collection[str]) -> dict[str, Any]:
    """Read what a layout asks for from an object itself.

    :param path: the file.
    :param keywords: DICOM keywords.
    :return: values by keyword, without those that the object does not have.
    """
    return values_in(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords)), keywords)


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


def _hashes(data: memoryview, offset: int) -> tuple[str, str]:
    """Return the SHA-256 of a whole file and of its data set, which begins at ``offset``; each byte is read once."""
    of_file, of_data_set = hashlib.sha256(data[:offset]), hashlib.sha256()
    for start in range(offset, len(data), _SLICE):
        piece = data[start : start + _SLICE]
        of_file.update(piece)
        of_data_set.update(piece)
    return of_file.hexdigest(), of_data_set.hexdigest()
