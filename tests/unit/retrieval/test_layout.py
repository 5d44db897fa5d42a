"""Layouts make safe, distinct paths of whatever a peer says."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.retrieval.layout import Layout, safe_value
from airflow_provider_varian.retrieval.listing import check_keywords

UIDS = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "SOPInstanceUID": "1.2.3.4", "Modality": "RTIMAGE"}


def test_the_default_names_study_series_modality_and_instance():
    assert Layout().path(UIDS) == PurePosixPath("1.2/1.2.3/RTIMAGE.1.2.3.4.dcm")


def test_what_an_object_does_not_have_is_unknown():
    assert Layout().path({"SOPInstanceUID": "1.2"}) == PurePosixPath("unknown/unknown/unknown.1.2.dcm")
    assert not Layout().is_known({"SOPInstanceUID": "1.2"})
    assert Layout().is_known(UIDS)


@pytest.mark.parametrize(
    "value",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        ".dicom",
        "",
        "   ",
        "a\0b",
        "a/b\\c",
        "CON",
        "nul.txt",
        "COM1",
        "x" * 1000,
        "名" * 200,
        "e\u0301" * 100,
        "a\n\r\tb",
        "trailing.",
        "trailing ",
        "\u202egnp.exe",
        ["A", "B", "../C"],
        None,
    ],
)
def test_a_hostile_value_stays_one_plain_component(value):
    path = Layout("{PatientID}/{PatientID}.{SOPInstanceUID}.dcm").path({"PatientID": value, "SOPInstanceUID": "1.2"})
    assert len(path.parts) == 2
    folder, name = path.parts
    assert name.endswith(".1.2.dcm")
    for part in path.parts:
        assert part not in ("", ".", "..")
        assert not part.startswith(".")
        assert not part.endswith((".", " "))
        assert len(part.encode()) <= 220
        assert not set(part) & set('/\\\0\n\r\t:*?"<>|\u202e')
        assert part.split(".")[0].upper() not in {"CON", "NUL", "COM1"}
    assert len(folder.encode()) <= 129


def test_values_are_at_most_128_bytes_and_whole_characters():
    assert len(safe_value("x" * 500)) == 128
    assert safe_value("名" * 200) == "名" * 42


def test_long_values_are_cut_but_the_instance_is_not():
    layout = Layout("{PatientName}.{StudyDescription}.{SeriesDescription}.{SOPInstanceUID}.dcm")
    uid = "1." + "2" * 62
    name = layout.path(dict.fromkeys(layout.keywords, "x" * 500) | {"SOPInstanceUID": uid}).name
    assert name.endswith(f".{uid}.dcm")
    assert len(name) <= 220


@pytest.mark.parametrize(
    "template",
    [
        "{PatientID}.dcm",
        "{SOPInstanceUID}/x.dcm",
        "/{SOPInstanceUID}.dcm",
        "../{SOPInstanceUID}.dcm",
        "a//{SOPInstanceUID}.dcm",
        "./{SOPInstanceUID}.dcm",
        ".dicom/{SOPInstanceUID}.dcm",
        "a\\{SOPInstanceUID}.dcm",
        "{SOPInstanceUID!r}.dcm",
        "{SOPInstanceUID:>80}.dcm",
        "{SOPInstanceUID.real}.dcm",
        "{SOPInstanceUID[0]}.dcm",
        "{0}{SOPInstanceUID}.dcm",
        "{SOPInstanceUID",
        "a\0{SOPInstanceUID}.dcm",
        "",
    ],
)
def test_a_bad_template_is_refused(template):
    with pytest.raises(ConfigurationError, match="layout"):
        Layout(template)


def test_an_unknown_keyword_is_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match="Did you mean AcquisitionDate"):
        check_keywords(Layout("{AcquisitonDate}/{SOPInstanceUID}.dcm"))


@pytest.mark.parametrize("keyword", ["BeamSequence", "PixelData"])
def test_what_cannot_stand_in_a_path_is_refused(keyword):
    with pytest.raises(ConfigurationError, match=keyword):
        check_keywords(Layout(f"{{{keyword}}}/{{SOPInstanceUID}}.dcm"))
