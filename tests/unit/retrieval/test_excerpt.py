"""What is kept of a head says what the whole file says, whoever reads it."""

from __future__ import annotations

import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode
from support.archive import ROOT, rt_image

from airflow_provider_varian import uids
from airflow_provider_varian.retrieval import excerpt as excerpts
from airflow_provider_varian.retrieval.excerpt import Excerpt, values_in
from airflow_provider_varian.retrieval.revision import REVISION_KEYWORDS, revision_in, revision_of
from airflow_provider_varian.retrieval.verify import inspect, layout_values

SERIES = f"{ROOT}.1.1"
#: One of each VR that a layout may name, and of some that it had better not.
KEYWORDS = {
    "SpecificCharacterSet": b"CS",
    "ImageType": b"CS",
    "SOPClassUID": b"UI",
    "ContentDate": b"DA",
    "ContentTime": b"TM",
    "Modality": b"CS",
    "StudyDescription": b"LO",
    "PatientName": b"PN",
    "PatientAge": b"AS",
    "PatientWeight": b"DS",
    "SeriesNumber": b"IS",
    "AcquisitionDateTime": b"DT",
    "StudyID": b"SH",
    "Rows": b"US",
    "RTPlanLabel": b"SH",
    "ScheduledStudyLocationAETitle": b"AE",
}


def file_of(tmp_path, ds, *, implicit):
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uids.IMPLICIT_VR_LITTLE_ENDIAN if implicit else uids.EXPLICIT_VR_LITTLE_ENDIAN
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path = tmp_path / "x.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("character_set", ["ISO_IR 192", "ISO_IR 100", None])
def test_an_excerpt_says_what_the_file_says(tmp_path, implicit, character_set):
    ds = rt_image(1, ApprovalStatus="APPROVED", ReviewDate="20260103", StudyDescription="")
    ds.SpecificCharacterSet = character_set
    if character_set is None:
        del ds.SpecificCharacterSet
        ds.PatientName = "Phantom^Plain"
    item = Dataset()
    item.RTBeamLimitingDeviceType = "X"
    ds.BeamLimitingDeviceSequence = [item]
    ds["BeamLimitingDeviceSequence"].is_undefined_length = True
    keywords = ("Modality", "PatientName", "ImageType", "InstanceNumber", "StudyDescription", "Rows", "StationName")
    path = file_of(tmp_path, ds, implicit=implicit)
    excerpt = inspect(path, (*keywords, *REVISION_KEYWORDS)).excerpt
    assert excerpt.values(keywords) == layout_values(path, keywords)
    assert excerpt.values(keywords)["Modality"] == "RTIMAGE"
    assert {"SOPClassUID": ds.SOPClassUID, **revision_in(excerpt)} == revision_of(path)
    assert encode(ds, implicit, True) in path.read_bytes()


def test_an_excerpt_ends_where_the_pixels_begin(tmp_path):
    ds = rt_image(1)
    ds.DataSetTrailingPadding = b"\0" * 8
    excerpt = inspect(file_of(tmp_path, ds, implicit=True), ("Modality", "PixelData", "DataSetTrailingPadding")).excerpt
    assert set(excerpt.values(("Modality", "PixelData", "DataSetTrailingPadding"))) == {"Modality"}
    assert len(excerpt.encoded) < 64


@pytest.fixture
def read(monkeypatch):
    """How often pydicom read an excerpt."""
    whole, times = excerpts.read_dataset, []

    def counted(*args, **kwargs):
        times.append(args)
        return whole(*args, **kwargs)

    monkeypatch.setattr(excerpts, "read_dataset", counted)
    return times


@pytest.mark.parametrize("implicit", [True, False])
def test_what_is_plain_is_read_without_pydicom(tmp_path, read, implicit):
    path = file_of(tmp_path, rt_image(1), implicit=implicit)
    excerpt = inspect(path, ("Modality", "SeriesInstanceUID")).excerpt
    assert excerpt.values(["Modality"]) == {"Modality": "RTIMAGE"}
    assert excerpt.values(["SeriesInstanceUID", "PatientSex"]) == {"SeriesInstanceUID": SERIES}
    assert read == []


def test_what_is_not_is_read_once(tmp_path, read):
    excerpt = inspect(file_of(tmp_path, rt_image(1), implicit=True), ("Modality", "PatientName")).excerpt
    assert excerpt.values(["Modality"]) == {"Modality": "RTIMAGE"}
    assert excerpt.values(["PatientName", "PatientSex"]) == {"PatientName": "Phantom^Ünique"}
    assert len(read) == 1


def element(keyword, value, *, implicit):
    tag = tag_for_keyword(keyword)
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    if implicit:
        return head + len(value).to_bytes(4, "little") + value
    return head + KEYWORDS[keyword] + len(value).to_bytes(2, "little") + value


def as_text(value):
    """As a layout and a comparison of revisions take it."""
    return (
        [as_text(each) for each in value]
        if isinstance(value, list | pydicom.multival.MultiValue)
        else (str(value).strip(" \0"))
    )


@pytest.mark.parametrize("implicit", [True, False])
def test_a_number_is_no_text_although_its_bytes_could_be(implicit):
    excerpt = Excerpt(
        element("Modality", b"CT", implicit=implicit) + element("Rows", b"09", implicit=implicit), implicit
    )
    assert excerpt.values(["Modality", "Rows"]) == {"Modality": "CT", "Rows": 0x3930}


@pytest.mark.parametrize("implicit", [True, False])
def test_of_an_element_that_is_there_twice_the_last_one_counts(implicit):
    twice = element("Modality", b"CT", implicit=implicit) + element("Modality", b"MR", implicit=implicit)
    excerpt = Excerpt(twice, implicit)
    assert excerpt.values(["Modality"]) == values_in(excerpt._dataset, ["Modality"]) == {"Modality": "MR"}


@given(
    st.lists(st.sampled_from(sorted(KEYWORDS, key=tag_for_keyword)), unique=True, min_size=1),
    st.data(),
    st.booleans(),
)
@example(["Modality"], None, True)
def test_it_says_what_pydicom_says(keywords, data, implicit):
    """Of any bytes: where pydicom fails it may say what stands there, and where it says something it is the same."""
    values = st.one_of(st.binary(max_size=12), st.text(" !09AZ[]^_az}~\\\0\x1b", max_size=12).map(str.encode))
    encoded = b"".join(
        element(keyword, b"CT" if data is None else data.draw(values), implicit=implicit)
        for keyword in sorted(keywords, key=tag_for_keyword)
    )
    excerpt = Excerpt(encoded, implicit)
    try:
        expected = values_in(excerpt._dataset, keywords)
    except Exception:
        return
    found = excerpt.values(keywords)
    assert {key: as_text(value) for key, value in found.items()} == {
        key: text for key, value in expected.items() if (text := as_text(value))
    }
