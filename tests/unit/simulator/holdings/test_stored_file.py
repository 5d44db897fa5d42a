"""Files that go out as they lie there: only where nobody could tell the difference."""

from __future__ import annotations

import os
import struct
from datetime import datetime

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from airflow_provider_varian.dimse.slices import FileRange, joined, stamp
from airflow_provider_varian.simulator.daemon import character_sets, encoding
from airflow_provider_varian.simulator.holdings.stored_file import StoredFile
from airflow_provider_varian.simulator.holdings.structure import CutShortFileError, check_whole

MOMENT = datetime(2026, 11, 21, 8, 30, 0, 120000)
IMPLICIT, EXPLICIT = str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian)


def dataset(**more):
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.InstanceCreationDate = "20200101"
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    ds.PatientName, ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "Roe^Jane", "P1", "1.2", "1.2.1"
    inner = Dataset()
    inner.CodeMeaning = "inner"
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.9"
    item.PurposeOfReferenceCodeSequence = [inner]
    item.PurposeOfReferenceCodeSequence[0].is_undefined_length_sequence_item = True
    ds.ReferencedImageSequence = [item, Dataset()]
    ds.RequestAttributesSequence = []
    ds.Rows = ds.Columns = 4
    ds.BitsAllocated, ds.PixelRepresentation, ds.SamplesPerPixel = 16, 0, 1
    ds.PixelData = bytes(range(200, 232))
    ds["PixelData"].VR = "OW"
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a data set and looks the file through."""

    def write(ds, syntax=IMPLICIT):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        path = tmp_path / "file.dcm"
        ds.save_as(path, enforce_file_format=True)
        return StoredFile.look_through(path, syntax)

    return write


def read(data, syntax):
    stream = DicomBytesIO(data)
    return dcmread(stream, force=True) if syntax == IMPLICIT else _explicit(data)


def _explicit(data):
    meta = Dataset()
    meta.TransferSyntaxUID = EXPLICIT
    head = b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, 28)
    uid = EXPLICIT.encode() + b"\0"
    return dcmread(DicomBytesIO(head + struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid + data))


def by_pydicom(path, syntax, character_set, moment):
    ds = dcmread(path)
    if moment is not None:
        ds.InstanceCreationDate, ds.InstanceCreationTime = encoding.creation(moment)
    return joined(encoding.from_data_set(character_sets.apply(ds, character_set), UID(syntax)))


@pytest.mark.parametrize("moment", [MOMENT, None])
@pytest.mark.parametrize("character_set", ["ISO_IR 192", "ISO_IR 100", ""])
@pytest.mark.parametrize("own", ["ISO_IR 100", "ISO_IR 192", "ISO_IR 144", None])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_what_goes_out_is_what_pydicom_would_write(written, syntax, own, character_set, moment):
    ds = dataset(SpecificCharacterSet=own)
    if own is None:
        del ds.SpecificCharacterSet
    file = written(ds, syntax)
    slices = encoding.from_file(file, syntax, character_set=character_set, moment=moment)
    assert isinstance(slices[-1], FileRange)
    sent = joined(slices)
    assert read(sent, syntax) == read(by_pydicom(file.path, syntax, character_set, moment), syntax)
    assert sent == by_pydicom(file.path, syntax, character_set, moment), "even byte for byte"


def test_a_file_of_which_nothing_changes_is_one_range(written):
    file = written(dataset(SpecificCharacterSet="ISO_IR 192"))
    size = file.path.stat().st_size
    (whole,) = encoding.from_file(file, IMPLICIT, character_set="ISO_IR 192", moment=None)
    assert whole == FileRange(file.path, file.begin, size - file.begin, stamp(file.path.stat()))
    assert dcmread(DicomBytesIO(joined([whole])), force=True) == dataset(SpecificCharacterSet="ISO_IR 192")


def test_text_that_would_change_its_bytes_goes_through_pydicom(written):
    for own, wanted, possible in (
        ("ISO_IR 100", "ISO_IR 192", False),
        ("ISO_IR 100", "ISO_IR 100", False),
        ("ISO_IR 192", "ISO_IR 192", True),
        ("ISO_IR 192", "", False),
    ):
        nested = Dataset()
        nested.CodeMeaning = "Über"
        for changed in ({"PatientName": "Müller^Jürgen"}, {"RequestAttributesSequence": [nested]}):
            file = written(dataset(SpecificCharacterSet=own, **changed))
            assert not file.plain
            slices = encoding.from_file(file, IMPLICIT, character_set=wanted, moment=None)
            assert (slices is not None) is possible, (own, wanted, changed)


def test_text_with_escape_sequences_is_not_plain(written):
    ds = dataset(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎")
    assert not written(ds).plain


def test_unknown_private_values_count_as_text(written):
    ds = dataset()
    ds.add_new(0x00090010, "LO", "OURS")
    ds.add_new(0x00091001, "UN", b"\xff\xfe")
    assert not written(ds).plain
    ds[0x00091001].value = b"ok"
    assert written(ds).plain


def test_another_transfer_syntax_is_converted(written):
    file = written(dataset(), EXPLICIT)
    assert encoding.from_file(file, IMPLICIT, character_set="ISO_IR 100", moment=None) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes() + b"\0\0"),
        lambda path: path.unlink(),
        lambda path: os.utime(path, ns=(1, 1)),
    ],
)
def test_a_file_that_was_changed_is_read_anew(written, change):
    file = written(dataset())
    change(file.path)
    assert encoding.from_file(file, IMPLICIT, character_set="ISO_IR 100", moment=None) is None


@pytest.mark.parametrize("moment", [MOMENT, None])
def test_a_file_that_is_replaced_behind_the_last_look_does_not_go_out(written, moment):
    file = written(dataset())
    slices = encoding.from_file(file, IMPLICIT, character_set="ISO_IR 100", moment=moment)
    other = file.path.with_name("other")
    other.write_bytes(file.path.read_bytes())
    other.replace(file.path)
    with pytest.raises(OSError, match="not the one"):
        joined(slices)


def test_encapsulated_pixels_are_passed_over(written):
    ds = dataset(PixelData=encapsulate([b"\xff\xd8 jpeg \xff\xd9", b"second"]))
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    syntax = str(JPEGBaseline8Bit)
    file = written(ds, syntax)
    slices = encoding.from_file(file, syntax, character_set="ISO_IR 100", moment=None)
    assert joined(slices) == file.path.read_bytes()[file.begin :]


def element(tag, value, length=None):
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


SOP = element(0x00080016, b"1.20")
ITEM_END, SEQUENCE_END = element(0xFFFEE00D, b""), element(0xFFFEE0DD, b"")
CUT_SHORT = {
    "ends in a head": SOP + b"\x10\0\x10",
    "longer than the file": SOP + element(0x00100010, b"ab", 200),
    "sequence without end": element(0x00081140, element(0xFFFEE000, SOP), 0xFFFFFFFF),
    "item without end": element(0x00081140, element(0xFFFEE000, SOP, 0xFFFFFFFF), 0xFFFFFFFF),
    "item too long": element(0x00081140, element(0xFFFEE000, SOP, 100)),
    "item longer than sequence": element(0x00081140, element(0xFFFEE000, b"", 12)) + SOP.replace(b"\x16", b"\x41"),
    "ends of items in their sequences": element(0x00081140, element(0xFFFEE000, SOP + b"\x10\0", 14))
    + element(0x00100010, b"ab"),
    "element longer than item": element(0x00081140, element(0xFFFEE000, element(0x00100010, b"", 50)) + b"x" * 50),
    "fragments without end": element(0x7FE00010, element(0xFFFEE000, b"ab"), 0xFFFFFFFF),
    "fragment longer than the file": element(0x7FE00010, element(0xFFFEE000, b"ab", 200), 0xFFFFFFFF),
    "behind what is irregular": element(0x00100010, b"abc") + SOP[:-2],
}  # fmt: skip
IRREGULAR = {
    "out of order": element(0x00100010, b"ab") + SOP,
    "twice": SOP + SOP,
    "group length": element(0x00080000, b"\4\0\0\0") + SOP,
    "item at top": SOP + element(0xFFFEE000, b""),
    "something else in a sequence": element(0x00081140, SOP),
    "something else among fragments": element(0x7FE00010, SOP, 0xFFFFFFFF),
    "nested too deeply": element(0x00081140, element(0xFFFEE000, b"", 0xFFFFFFFF), 0xFFFFFFFF) * 50
    + (ITEM_END + SEQUENCE_END) * 50,
    "explicit VR": struct.pack("<HH2sH", 8, 0x16, b"UI", 4) + b"1.20",
}  # fmt: skip
PART = element(0x00081155, b"1.2")
OURS = element(0x00090010, b"OURS") + element(0x00091001, b"abc")
ODD = {
    "value": SOP + element(0x00100010, b"abc"),
    "value in an item": SOP + element(0x00081140, element(0xFFFEE000, PART)),
    "value in an item without length": SOP + element(0x00081140, element(0xFFFEE000, PART + ITEM_END, 0xFFFFFFFF)),
    "value of unknown VR": SOP + OURS,
    "value of unknown VR in an item": SOP + element(0x00081140, element(0xFFFEE000, OURS)),
    "pixels": SOP + element(0x7FE00010, b"abc"),
}  # fmt: skip


def values(ds):
    found = [each for each in ds.iterall() if each.VR != "SQ" and each.keyword != "SpecificCharacterSet"]
    return [(each.tag, each.value.rstrip(b"\0") if isinstance(each.value, bytes) else each.value) for each in found]


def stored(tmp_path, body, syntax=IMPLICIT, meta=None):
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    head = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid if meta is None else meta
    path = tmp_path / "made"
    path.write_bytes(b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(head)) + head + body)
    return StoredFile.look_through(path, syntax)


@pytest.mark.parametrize("name", CUT_SHORT)
def test_a_file_whose_lengths_do_not_lead_to_its_end_is_no_file(tmp_path, name):
    with pytest.raises(CutShortFileError):
        stored(tmp_path, CUT_SHORT[name])
    with pytest.raises(CutShortFileError):
        check_whole((tmp_path / "made").read_bytes(), IMPLICIT)


@pytest.mark.parametrize("name", IRREGULAR)
def test_an_irregular_structure_is_left_to_pydicom(tmp_path, name):
    assert stored(tmp_path, IRREGULAR[name]) is None
    check_whole((tmp_path / "made").read_bytes(), IMPLICIT)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_a_file_is_cut_short_wherever_it_ends_but_behind_an_element(tmp_path, written, syntax):
    file = written(dataset(), syntax)
    content = file.path.read_bytes()
    behind = {file.begin + len(joined(encoding.from_data_set(dcmread(file.path)[:tag], UID(syntax))))
              for tag in list(dcmread(file.path).keys())[1:]}  # fmt: skip
    whole = set()
    for end in range(file.begin + 1, len(content)):
        try:
            check_whole(content[:end], syntax)
            whole.add(end)
        except CutShortFileError:
            pass
    assert whole == behind


@pytest.mark.parametrize("character_set", ["ISO_IR 192", "ISO_IR 100"])
@pytest.mark.parametrize("name", ODD)
def test_odd_lengths_are_made_even_by_pydicom(tmp_path, name, character_set):
    body = element(0x00080005, b"ISO_IR 192") + ODD[name]
    assert stored(tmp_path, body) is None
    sent = by_pydicom(tmp_path / "made", IMPLICIT, character_set, None)
    assert stored(tmp_path, sent) is not None, "all lengths are even"
    assert values(read(sent, IMPLICIT)) == values(read(body, IMPLICIT))


def test_odd_fragments_are_left_to_pydicom(tmp_path):
    fragments = element(0x7FE00010, element(0xFFFEE000, b"") + element(0xFFFEE000, b"abc") + SEQUENCE_END, 0xFFFFFFFF)
    assert stored(tmp_path, SOP + fragments) is None


def test_a_sound_structure_of_the_same_kind_is_not(tmp_path):
    sound = element(0x00081140, element(0xFFFEE000, SOP + ITEM_END, 0xFFFFFFFF) + SEQUENCE_END, 0xFFFFFFFF)
    assert stored(tmp_path, SOP + sound).plain
    with pytest.raises(CutShortFileError):
        stored(tmp_path, b"")


def test_what_only_looks_explicit_is_left_to_pydicom(tmp_path):
    assert stored(tmp_path, SOP, EXPLICIT) is None
    unknown = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + SEQUENCE_END
    assert stored(tmp_path, unknown, EXPLICIT) is None


def test_a_file_meta_without_its_length_is_left_to_pydicom(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\0" * 128 + b"DICM" + struct.pack("<HH2sH", 2, 2, b"UI", 4) + b"1.20" + SOP)
    assert StoredFile.look_through(path, IMPLICIT) is None
    assert StoredFile.look_through(tmp_path / "missing", IMPLICIT) is None
    assert stored(tmp_path, struct.pack("<HH2sH", 2, 0x13, b"SH", 0), meta=b"") is None


def test_a_long_file_is_read_in_chunks(written):
    ds = dataset(TextValue="x" * 100_000, ReferencedImageSequence=[Dataset() for _ in range(9000)])
    file = written(ds)
    assert file.plain
    assert joined(file.slices({})) == file.path.read_bytes()[file.begin :]


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("pixels", [b"", bytes(32), bytes(31)])
def test_native_pixels_are_a_slice_of_their_own(syntax, pixels):
    ds = dataset(PixelData=pixels)
    ds["PixelData"].VR = "OB"
    whole = joined(encoding.from_data_set(ds[0x00080005:0x7FE00010], UID(syntax)))
    slices = encoding.from_data_set(ds, UID(syntax))
    padded = pixels + b"\0" * (len(pixels) % 2)
    vr = b"" if syntax == IMPLICIT else b"OB\0\0"
    assert joined(slices) == whole + b"\xe0\x7f\x10\0" + vr + len(padded).to_bytes(4, "little") + padded
    assert (slices[-1] is pixels) is (len(pixels) % 2 == 0)


def test_a_value_that_cannot_be_encoded_is_an_error():
    ds = dataset()
    ds["Rows"]._value = "many"
    with pytest.raises(ValueError, match="encoded"):
        encoding.from_data_set(ds, ImplicitVRLittleEndian)
