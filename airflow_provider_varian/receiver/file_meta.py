"""The File Meta Information in front of a received data set (PS3.10 7.1), encoded by hand.

The data set's bytes stay as they came; only this header is ours. It is the receipt of the object:
it names who sent it, to whom, and in which transfer syntax.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import IO, Final

from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.receiver.head import HEAD_BYTES, Buffer, DataSetError, Head, iter_elements, parse_head
from airflow_provider_varian.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
)

_PREAMBLE: Final = bytes(128)
_PREFIX: Final = b"DICM"
_GROUP_LENGTH: Final = struct.Struct("<HH2sHI")
#: Preamble, prefix and the group length element.
_HEADER_BYTES: Final = 128 + 4 + _GROUP_LENGTH.size
#: More than the group can hold with values of legal length, many times over.
_MAX_GROUP_BYTES: Final = 65536
#: A receipt is shorter than this.
META_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What the receipt says.

    :param sop_class_uid: (0002,0002).
    :param sop_instance_uid: (0002,0003).
    :param transfer_syntax_uid: (0002,0010).
    :param source_ae_title: (0002,0016), who sent it.
    :param receiving_ae_title: (0002,0018), to whom it was sent.
    :param data_set_offset: where in the file the data set begins.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae_title: str
    receiving_ae_title: str
    data_set_offset: int


def encode_file_meta(request: StoreRequest) -> bytes:
    """Return preamble, prefix and meta group of an object.

    The preamble is zeros: a C-STORE carries none, and what a peer could put there is not wanted
    (CVE-2019-11687).
    """
    before = _before(request.sop_class_uid)
    after = _after(request.transfer_syntax_uid, request.calling_ae_title, request.called_ae_title)
    group = before + _element(0x0003, b"UI", request.sop_instance_uid) + after
    return _PREAMBLE + _PREFIX + _GROUP_LENGTH.pack(0x0002, 0x0000, b"UL", 4, len(group)) + group


# The same for each object of a kind from a sender: many small objects come one after the other.
@functools.lru_cache(maxsize=256)
def _before(sop_class_uid: str) -> bytes:
    """Return the elements before the SOP Instance UID."""
    # OB has two reserved bytes and a length of 32 bits, unlike the rest of the group.
    version = struct.pack("<HH2s2xI", 0x0002, 0x0001, b"OB", 2) + b"\0\1"
    return version + _element(0x0002, b"UI", sop_class_uid)


@functools.lru_cache(maxsize=256)
def _after(transfer_syntax_uid: str, calling_ae_title: str, called_ae_title: str) -> bytes:
    """Return the elements after the SOP Instance UID."""
    return b"".join(
        (
            _element(0x0010, b"UI", transfer_syntax_uid),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _element(0x0016, b"AE", calling_ae_title.strip()[:16]),
            _element(0x0018, b"AE", called_ae_title.strip()[:16]),
        )
    )


def read_file_meta(data: Buffer) -> FileMeta:
    """Read the receipt of a file.

    :param data: the file, or at least its first kilobytes.
    :raises DataSetError: when there is no receipt, or it does not name the object.
    """
    if bytes(data[128:132]) != _PREFIX or len(data) < _HEADER_BYTES:
        raise DataSetError("no DICM prefix")
    group, number, vr, _, group_bytes = _GROUP_LENGTH.unpack_from(data, 132)
    if (group, number, vr) != (0x0002, 0x0000, b"UL") or group_bytes > _MAX_GROUP_BYTES:
        raise DataSetError("no group length in front of the file meta information")
    end = _HEADER_BYTES + group_bytes
    if end > len(data):
        raise DataSetError("the file meta information is cut")
    meta = bytes(data[_HEADER_BYTES:end])
    values = {
        element.tag & 0xFFFF: meta[element.start : element.start + element.length]
        for element in iter_elements(meta, EXPLICIT_VR_LITTLE_ENDIAN)
    }
    if not {0x0002, 0x0003, 0x0010} <= values.keys():
        raise DataSetError("the file meta information does not name the object")
    return FileMeta(
        sop_class_uid=_text(values, 0x0002),
        sop_instance_uid=_text(values, 0x0003),
        transfer_syntax_uid=_text(values, 0x0010),
        source_ae_title=_text(values, 0x0016),
        receiving_ae_title=_text(values, 0x0018),
        data_set_offset=end,
    )


def read_front(file: IO[bytes]) -> tuple[FileMeta, Head]:
    """Read from the start of a file who sent it and what it says that it is.

    :param file: open, at its start.
    :raises DataSetError: when it has no receipt, or holds no data set.
    """
    data = file.read(META_BYTES + HEAD_BYTES)
    meta = read_file_meta(data)
    return meta, parse_head(data[meta.data_set_offset :], meta.transfer_syntax_uid)


def _element(number: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii", "replace")
    if len(raw) % 2:
        raw += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, number, vr, len(raw)) + raw


def _text(values: dict[int, bytes], number: int) -> str:
    return values.get(number, b"").decode("ascii", "replace").strip("\0 ")
