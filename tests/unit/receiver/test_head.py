"""Reading the structure of data sets: the head before the answer, the walk when claimed."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from support.archive import rt_image

from airflow_provider_varian.receiver.head import (
    MAX_DEPTH,
    DataSetError,
    head_within,
    iter_elements,
    parse_head,
    walk_elements,
)
from airflow_provider_varian.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN as DEFLATED
from airflow_provider_varian.uids import EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT
from airflow_provider_varian.uids import IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT

JPEG = "1.2.840.10008.1.2.4.50"


def encoded(ds, transfer_syntax):
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = transfer_syntax == IMPLICIT
    write_dataset(buffer, ds)
    return buffer.getvalue()


def with_sequences(*, undefined):
    ds = rt_image(1)
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    deep = Dataset()
    deep.ReferencedSOPClassUID = "9.9.9"
    inner.PurposeOfReferenceCodeSequence = Sequence([deep])
    # (0008,1110) and (0008,1140) come between the SOP Instance UID and the Study Instance UID.
    ds.ReferencedStudySequence = Sequence([inner])
    ds.ReferencedImageSequence = Sequence([inner, inner])
    for item in (ds, inner):
        for element in item:
            if element.VR == "SQ":
                element.value.is_undefined_length = undefined
                element.is_undefined_length = undefined
                for one in element.value:
                    one.is_undefined_length_sequence_item = undefined
    return ds


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("undefined", [False, True])
def test_uids_are_found_behind_sequences(transfer_syntax, undefined):
    data = encoded(with_sequences(undefined=undefined), transfer_syntax)
    head = parse_head(data, transfer_syntax)
    ds = rt_image(1)
    assert head.sop_class_uid == ds.SOPClassUID
    assert head.sop_instance_uid == ds.SOPInstanceUID
    assert head.study_instance_uid == ds.StudyInstanceUID
    assert head.series_instance_uid == ds.SeriesInstanceUID


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("undefined", [False, True])
def test_a_whole_data_set_walks_to_its_end_and_each_cut_one_does_not(transfer_syntax, undefined):
    ds = with_sequences(undefined=undefined)
    data = encoded(ds, transfer_syntax)
    assert walk_elements(data, transfer_syntax) == len(ds)
    ends = {element.start + element.length for element in iter_elements(data, transfer_syntax)} | {0}
    for end in range(len(data)):
        if end in ends:
            continue
        with pytest.raises(DataSetError):
            walk_elements(data[:end], transfer_syntax)


def test_the_head_may_be_cut_anywhere():
    data = encoded(with_sequences(undefined=True), IMPLICIT)
    for end in range(400):
        head = parse_head(data[:end], IMPLICIT)
        assert head.sop_instance_uid in (None, rt_image(1).SOPInstanceUID)


def test_encapsulated_pixel_data_is_walked():
    ds = rt_image(1)
    ds.PixelData = encapsulate([b"\xff\xd8" + b"x" * 100, b"y" * 51])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    data = encoded(ds, EXPLICIT)
    assert walk_elements(data, JPEG) == len(ds)
    with pytest.raises(DataSetError):
        walk_elements(data[:-8], JPEG)


REAL = ["rtplan.dcm", "rtdose.dcm", "rtstruct.dcm", "CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "UN_sequence.dcm"]


@pytest.mark.parametrize("name", REAL)
def test_real_files_walk_to_their_end(name):
    path = get_testdata_file(name)
    ds = pydicom.dcmread(path, force=True)
    content = Path(path).read_bytes()
    if content[128:132] == b"DICM":
        start = 132 + 12 + ds.file_meta.FileMetaInformationGroupLength
        syntax = str(ds.file_meta.TransferSyntaxUID)
    else:
        start, syntax = 0, IMPLICIT
    assert walk_elements(content, syntax, start=start) == len(ds)
    assert parse_head(content[start:], syntax).sop_instance_uid == ds.get("SOPInstanceUID")


def nested(depth):
    sequence = struct.pack("<HHI", 0x0008, 0x1110, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return (sequence + item) * depth + ends * depth


def test_nesting_is_bounded():
    assert walk_elements(nested(MAX_DEPTH), IMPLICIT) == 1
    with pytest.raises(DataSetError, match="deeper"):
        walk_elements(nested(MAX_DEPTH + 1), IMPLICIT)
    with pytest.raises(DataSetError, match="deeper"):
        walk_elements(nested(100_000), IMPLICIT)


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x00\x18\x00\xff\xff\xff\x7fabc",  # a value longer than memory
        b"\x08\x00\x18",
        struct.pack("<HH2sH", 8, 0x18, b"\0\1", 4) + b"1.23",  # no VR
        struct.pack("<HH2sHI", 8, 0x18, b"OB", 0, 0xFFFFFFFF),  # undefined length outside of pixel data
        struct.pack("<HHI", 8, 0x1110, 0xFFFFFFFF) + struct.pack("<HHI", 8, 0x18, 0),  # no item
    ],
)
def test_garbage_is_refused(data):
    with pytest.raises(DataSetError):
        walk_elements(data, EXPLICIT if b"OB" in data or b"\0\1" in data[4:6] else IMPLICIT)


def test_what_is_never_negotiated_is_not_read():
    with pytest.raises(DataSetError):
        parse_head(b"", DEFLATED)


def test_a_uid_value_is_never_read_beyond_bounds():
    data = struct.pack("<HHI", 8, 0x18, 1_000_000) + b"1" * 1_000_000
    assert len(parse_head(BytesIO(data).getvalue(), IMPLICIT).sop_instance_uid) == 128


def found_step_by_step(data, transfer_syntax):
    """What the head says, by the walk over elements: slower, and the same."""
    found = dict.fromkeys((0x00080016, 0x00080018, 0x0020000D, 0x0020000E))
    elements = iter_elements(data, transfer_syntax)
    try:
        for tag, start, length in elements:
            if tag > 0x0020000E:
                break
            if tag in found:
                found[tag] = data[start : start + length].decode("ascii", "replace").rstrip("\0 ")
    except DataSetError as error:
        if "ends inside" not in str(error) and "over the end" not in str(error):
            return "no data set"
    return tuple(found.values())


ELEMENTS = st.lists(
    st.tuples(
        st.sampled_from([0x0008, 0x0020, 0x0028, 0xFFFE]),
        st.sampled_from([0x000D, 0x000E, 0x0016, 0x0018, 0x1140, 0xE000, 0xE0DD]),
        st.sampled_from([b"UI", b"CS", b"SQ", b"OB", b"\0\1"]),
        st.sampled_from([b"", b"1.2.3\0", b"9" * 12]),
        st.sampled_from([None, None, None, 3, 0xFFFF, 0xFFFFFFFF]),
    ),
    max_size=6,
)


def element_of(transfer_syntax, group, number, vr, value, length):
    length = len(value) if length is None else length
    if transfer_syntax == IMPLICIT or group == 0xFFFE:
        return struct.pack("<HHI", group, number, length) + value
    if vr in (b"UI", b"CS"):
        return struct.pack("<HH2sH", group, number, vr, length & 0xFFFF) + value
    return struct.pack("<HH2s2xI", group, number, vr, length) + value


@given(ELEMENTS, st.sampled_from([IMPLICIT, EXPLICIT]), st.integers(0, 12))
def test_the_head_is_what_the_walk_finds(elements, transfer_syntax, cut):
    data = b"".join(element_of(transfer_syntax, *each) for each in elements)
    data = data[: len(data) - cut] if cut < len(data) else data
    try:
        head = parse_head(data, transfer_syntax)
        found = (head.sop_class_uid, head.sop_instance_uid, head.study_instance_uid, head.series_instance_uid)
    except DataSetError:
        found = "no data set"
    assert found == found_step_by_step(data, transfer_syntax)


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT])
def test_a_first_piece_tells_the_head_when_nothing_behind_it_can_change_it(transfer_syntax):
    data = encoded(with_sequences(undefined=True), transfer_syntax)
    whole, told = parse_head(data, transfer_syntax), 0
    for end in range(len(data)):
        head = head_within(data[:end], transfer_syntax)
        assert head in (None, whole)
        told += head is not None
    behind = next(each for each in iter_elements(data, transfer_syntax) if each.tag > 0x0020000E)
    assert told == len(data) - behind.start - behind.length
