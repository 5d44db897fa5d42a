"""DICOM files that are to be sent: what they are, and their data sets as slices.

A file's head is read when the work is planned. The rest is looked at when its turn comes: its element lengths must
walk to its end (a peer files a cut object as readily as a whole one), and its SHA-256 is taken. Neither preamble
nor file meta information is sent (PS3.10 7.1).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.reencoding import PIXEL_DATA, as_implicit
from airflow_provider_varian.dimse.slices import FileRange, Slice
from airflow_provider_varian.dimse.store import UnsendableError
from airflow_provider_varian.receiver.file_meta import FileMeta, read_file_meta
from airflow_provider_varian.receiver.head import (
    HEAD_BYTES,
    UNREADABLE_TRANSFER_SYNTAXES,
    DataSetError,
    Element,
    iter_elements,
    parse_head,
)

_MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"
#: Meta group and the UIDs of the data set, each bounded by itself.
FRONT_BYTES: Final = 2 * HEAD_BYTES
#: Of a file at once: a buffer that is larger leaves the cache, and its fresh pages take longer than what is read.
_BLOCK: Final = 1 << 17
#: What is read at a time to walk over elements.
_WINDOW: Final = 1 << 16
#: Float and Double Float Pixel Data, before which pydicom stops too.
_OTHER_PIXELS: Final = (0x7FE00008, 0x7FE00009)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHead:
    """What the beginning of a file says.

    :param sop_class_uid: (0008,0016) of the data set.
    :param sop_instance_uid: (0008,0018) of the data set.
    :param study_instance_uid: (0020,000D) of the data set; empty when it does not tell.
    :param transfer_syntax_uid: (0002,0010).
    :param offset: where the data set begins, bytes.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int
    study_instance_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeFile:
    """What a file is as a whole.

    :param bytes: its size.
    :param sha256: its SHA-256, in hexadecimal.
    :param pixels: the value of native Pixel Data (7FE0,0010) at its end; ``None`` when it does not end so.
    :param stamp: size, time and number of the file, to see whether it is still the same.
    """

    bytes: int
    sha256: str
    pixels: FileRange | None
    stamp: tuple[int, int, int]


def read_front(path: Path) -> bytes:
    """Return the first bytes of a regular file.

    :raises UnsendableError: when it is something else; a pipe would be waited for.
    :raises OSError: when it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnsendableError("it is not a regular file")
        return os.pread(descriptor, FRONT_BYTES, 0)
    finally:
        os.close(descriptor)


def head_of(front: bytes) -> FileHead:
    """Say which object a file holds.

    :param front: its first :data:`FRONT_BYTES`, or all of it.
    :raises UnsendableError: when it is no DICOM file, or none whose data set can be stored at a peer.
    """
    try:
        meta = read_file_meta(front)
    except DataSetError as error:
        raise UnsendableError(f"it is not a DICOM file ({error})") from None
    if meta.sop_class_uid == _MEDIA_STORAGE_DIRECTORY:
        raise UnsendableError("it is a DICOMDIR, which lists objects and is none")
    if meta.transfer_syntax_uid in UNREADABLE_TRANSFER_SYNTAXES or not uids.is_uid(meta.transfer_syntax_uid):
        raise UnsendableError("its transfer syntax (deflated, big endian or none) is not sent")
    return _head_of_data_set(front, meta)


def _head_of_data_set(front: bytes, meta: FileMeta) -> FileHead:
    try:
        head = parse_head(memoryview(front)[meta.data_set_offset :], meta.transfer_syntax_uid)
    except DataSetError:
        raise UnsendableError("its data set is not of the transfer syntax that it names") from None
    sop_class, sop_instance = head.sop_class_uid or "", head.sop_instance_uid or ""
    study = head.study_instance_uid or ""
    if not uids.is_uid(sop_class) or not uids.is_uid(sop_instance):
        raise UnsendableError("its data set has no SOP Class UID or no SOP Instance UID")
    if (sop_class, sop_instance) != (meta.sop_class_uid, meta.sop_instance_uid):
        raise UnsendableError("its data set and its file meta information name different objects")
    return FileHead(
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        offset=meta.data_set_offset,
        study_instance_uid=study if uids.is_uid(study) else "",
    )


def look_through(path: Path, head: FileHead) -> WholeFile:
    """Walk a file's data set to its end, and take its hash.

    :raises UnsendableError: when its element lengths do not end where it ends.
    :raises OSError: when it cannot be read, or became shorter.
    """
    with path.open("rb", buffering=0) as file:
        found = _stamp(os.fstat(file.fileno()))
        pixels = _walk(_FileBytes(file.fileno(), found[0]), path, head)
        digest, buffer = hashlib.sha256(), bytearray(_BLOCK)
        size = 0
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            size += count
        if _stamp(os.fstat(file.fileno())) != found or size != found[0]:
            raise UnsendableError("it is being written to", transient=True)
    return WholeFile(bytes=size, sha256=digest.hexdigest(), pixels=pixels, stamp=found)


def _walk(data: _FileBytes, path: Path, head: FileHead) -> FileRange | None:
    last: Element | None = None
    other_pixels = False
    try:
        for element in iter_elements(data, head.transfer_syntax_uid, start=head.offset):
            last = element
            other_pixels = other_pixels or element.tag in _OTHER_PIXELS
    except DataSetError as error:
        raise UnsendableError(f"it is cut or broken: {error}") from None
    if last is None or last.tag != PIXEL_DATA or other_pixels:
        return None
    # The length stands before the value in both; an undefined one stands before fragments.
    if data[last.start - 4 : last.start] != last.length.to_bytes(4, "little"):
        return None
    return FileRange(path, last.start, last.length)


class _FileBytes:
    """The bytes of a file, read where they are asked for.

    Not ``mmap``: these are other people's files, and one that somebody shortens would end the process by SIGBUS.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._window = b""
        self._start = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._size)
        if start < self._start or stop > self._start + len(self._window):
            self._window, self._start = os.pread(self._descriptor, max(stop - start, _WINDOW), start), start
        return self._window[start - self._start : stop - self._start]


@contextmanager
def data_set(path: Path, head: FileHead, whole: WholeFile, transfer_syntax_uid: str) -> Iterator[list[Slice]]:
    """Give a file's data set for the length of a block.

    :param transfer_syntax_uid: its own, or Implicit VR Little Endian for one in Explicit VR Little Endian.
    :raises UnsendableError: when it cannot be re-encoded; on leaving, when the file was changed meanwhile.
    :raises OSError: when it cannot be read.
    """
    if transfer_syntax_uid == head.transfer_syntax_uid:
        yield [FileRange(path, head.offset, whole.bytes - head.offset)]
    else:
        try:
            slices = as_implicit(path, whole.pixels)
        except ValueError as error:
            raise UnsendableError(str(error)) from None
        yield slices
    if _stamp(os.stat(path)) != whole.stamp:
        raise UnsendableError(
            "the file was changed while it was sent: what the peer has may be neither version", transient=True
        )


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino
