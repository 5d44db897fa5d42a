from __future__ import annotations

import datetime as dt
import logging
from io import BytesIO

import pendulum
import pytest
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from airflow_provider_varian.errors import ConfigurationError, QueryError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.matching import Verdict
from airflow_provider_varian.query.query import Exact, Query


def sent(level, keys, **options):
    return Query.build(level, keys, **options).identifier()


def on_the_wire(identifier: Dataset) -> Dataset:
    return decode(BytesIO(encode(identifier, True, True)), True, True)


SECRET = "Geheim^Patient"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"PatentID": "x"}, "'PatentID' is not a DICOM keyword. Did you mean PatientID"),
        ({"patientid": "x"}, "Did you mean PatientID"),
        ({"Xqzzy": "x"}, "listed in PS3.6"),
        ({"QueryRetrieveLevel": "IMAGE"}, "Give it as the level"),
        ({"SpecificCharacterSet": "ISO_IR 100"}, "set here"),
        ({"TransferSyntaxUID": "1.2"}, "no attribute of a patient"),
        ({"Modality": "rtplan"}, "Modality.*upper-case"),
        ({"Modality": "A" * 17}, "Modality.*at most 16 characters, and this has 17"),
        ({"PatientID": "A" * 65}, "PatientID.*at most 64"),
        ({"PatientID": "A\\B"}, "PatientID.*one value"),
        ({"PatientID": ["A", "B"]}, "PatientID.*UIDs alone"),
        ({"PatientID": "A\nB"}, "PatientID.*control characters"),
        ({"PatientID": True}, "PatientID.*true and false"),
        ({"PatientID": b"A"}, "PatientID.*bytes"),
        ({"PatientID": 1.5}, "PatientID.*takes text"),
        ({"RTPlanLabel": "A" * 17}, "RTPlanLabel.*at most 16"),
        ({"PatientName": "A^B^C^D^E^F"}, "PatientName.*five components"),
        ({"PatientName": "A=B=C=D"}, "PatientName.*three component groups"),
        ({"StudyInstanceUID": "1.2*"}, "StudyInstanceUID.*wildcards"),
        ({"StudyInstanceUID": ["1.2", "1.?"]}, "StudyInstanceUID.*wildcards"),
        ({"StudyInstanceUID": "1.2a"}, "StudyInstanceUID.*digits and single dots"),
        ({"StudyInstanceUID": "1." + "2" * 63}, "StudyInstanceUID.*at most 64"),
        ({"StudyInstanceUID": []}, "StudyInstanceUID.*empty"),
        ({"StudyInstanceUID": 12}, "StudyInstanceUID.*takes a UID"),
        ({"StudyDate": "2026-13-01"}, "StudyDate.*calendar"),
        ({"StudyDate": "202601"}, "StudyDate.*YYYYMMDD"),
        ({"StudyDate": "20260231"}, "StudyDate.*calendar"),
        ({"StudyDate": "yesterday"}, "StudyDate.*YYYYMMDD"),
        ({"StudyDate": ("20260102", "20260101")}, "StudyDate.*ends before it begins"),
        ({"StudyDate": "20260102-20260101"}, "StudyDate.*ends before it begins"),
        ({"StudyDate": (None, None)}, "StudyDate.*one end"),
        ({"StudyDate": []}, "StudyDate.*empty"),
        ({"StudyDate": ("20260101",) * 3}, "StudyDate.*pair"),
        ({"StudyDate": 20260101}, "StudyDate.*takes a date"),
        ({"StudyDate": dt.time(1)}, "StudyDate.*takes a date"),
        ({"StudyDate": pendulum.datetime(2026, 1, 1)}, "StudyDate.*zone"),
        ({"StudyTime": "2460"}, "StudyTime.*time of the day"),
        ({"StudyTime": "1:2"}, "StudyTime.*HHMMSS"),
        ({"StudyTime": ("1000", "0900")}, "StudyTime.*ends before"),
        ({"StudyTime": dt.date(2026, 1, 1)}, "StudyTime.*time of the day"),
        ({"AcquisitionDateTime": "20260101&"}, "AcquisitionDateTime.*YYYYMMDDHHMMSS"),
        ({"SeriesNumber": "1.5"}, "SeriesNumber.*whole number"),
        ({"SeriesNumber": 2**31}, "SeriesNumber.*32 bits"),
        ({"GantryAngle": "12,5"}, "GantryAngle.*number"),
        ({"GantryAngle": float("inf")}, "GantryAngle.*finite"),
        ({"Rows": -1}, "Rows.*VR can hold"),
        ({"Rows": 70000}, "Rows.*VR can hold"),
        ({"PatientAge": "40"}, "PatientAge.*D, W, M, Y"),
        ({"PixelData": "x"}, "PixelData.*cannot be matched on"),
        ({"ImageType": []}, "ImageType.*empty"),
        ({"ImageType": "original"}, "ImageType.*upper-case"),
        ({"SOPInstanceUID": Exact(12)}, "SOPInstanceUID.*Exact"),
        ({"ReferencedRTPlanSequence": "1.2"}, "ReferencedRTPlanSequence.*mapping"),
        ({"ReferencedRTPlanSequence": [{}, {}]}, "ReferencedRTPlanSequence.*one item"),
        ({"ReferencedRTPlanSequence": {"ReferencedSOPInstanceUD": ""}}, "Did you mean ReferencedSOPInstanceUID"),
        ({"ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": "x"}}, "ReferencedSOPInstanceUID.*digits"),
        ({5: "x"}, "not text"),
    ],
)
def test_a_bad_key_is_refused_by_name_and_rule(keys, words):
    with pytest.raises(QueryError, match=words):
        Query.build("IMAGE", keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"PatientID": SECRET * 10},
        {"PatientID": SECRET + "\n"},
        {"PatientName": SECRET + "^^^^^"},
        {"StudyDate": SECRET},
        {"StudyTime": SECRET},
        {"StudyInstanceUID": SECRET},
        {"Modality": SECRET},
        {"SeriesNumber": SECRET},
        {"Rows": SECRET},
        {"PatientAge": SECRET},
    ],
)
def test_a_refusal_never_shows_a_value(keys):
    with pytest.raises(QueryError) as caught:
        Query.build("STUDY", keys)
    assert "Geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("level", "keyword"),
    [("STUDY", "SeriesInstanceUID"), ("SERIES", "SOPInstanceUID"), ("PATIENT", "StudyInstanceUID")],
)
@pytest.mark.parametrize("value", ["1.2", None])
def test_a_unique_key_below_the_level_is_refused(level, keyword, value):
    with pytest.raises(QueryError, match=f"{keyword}.*below"):
        Query.build(level, {keyword: value})


@pytest.mark.parametrize("level", [None, "", "PLAN"])
def test_a_query_needs_a_level(level):
    with pytest.raises(QueryError, match="level"):
        Query.build(level, {})


def test_keys_that_are_no_mapping_are_refused():
    with pytest.raises(QueryError, match="not a mapping"):
        Query.build("IMAGE", [("PatientID", "x")])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (dt.date(2026, 1, 2), "20260102"),
        (dt.datetime(2026, 1, 2, 23, 59), "20260102"),
        (pendulum.date(2026, 1, 2), "20260102"),
        ("20260102", "20260102"),
        ("2026-01-02", "20260102"),
        ((dt.date(2026, 1, 2), "20260103"), "20260102-20260103"),
        (["2026-01-02", None], "20260102-"),
        ((None, dt.date(2026, 1, 2)), "-20260102"),
        (("", "20260102"), "-20260102"),
        ("20260102-", "20260102-"),
    ],
)
def test_dates_come_in_many_forms(value, text):
    assert sent("IMAGE", {"AcquisitionDate": value}).AcquisitionDate == text


def test_an_instant_is_turned_into_the_clinics_day():
    late = pendulum.datetime(2026, 1, 2, 23, 30, tz="UTC")
    assert sent("IMAGE", {"AcquisitionDate": late}, timezone="Europe/Zurich").AcquisitionDate == "20260103"
    assert sent("IMAGE", {"AcquisitionTime": late}, timezone="Europe/Zurich").AcquisitionTime == "003000"


def test_an_unknown_zone_is_refused():
    with pytest.raises(ConfigurationError, match="Europe/Zurch"):
        Query.build("IMAGE", {}, timezone="Europe/Zurch")


def test_times_and_moments():
    identifier = sent(
        "IMAGE",
        {
            "AcquisitionTime": (dt.time(6, 30), dt.time(7, 15, 0, 500000)),
            "AcquisitionDateTime": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            "StudyTime": "0630-",
        },
    )
    assert identifier.AcquisitionTime == "063000-071500.500000"
    assert identifier.AcquisitionDateTime == "20260102030405+0100"
    assert identifier.StudyTime == "0630-"


def test_numbers_and_uid_lists_and_sequences():
    identifier = on_the_wire(
        sent(
            "IMAGE",
            {
                "StudyInstanceUID": ["1.2", "1.3", "1.2"],
                "SeriesNumber": 7,
                "GantryAngle": 90.5,
                "Rows": 1280,
                "PatientID": 12345,
                "ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": "1.2.3"},
            },
        )
    )
    assert list(identifier.StudyInstanceUID) == ["1.2", "1.3"]
    assert identifier.SeriesNumber == 7
    assert identifier.GantryAngle == 90.5
    assert identifier.Rows == 1280
    assert identifier.PatientID == "12345"
    assert identifier.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == "1.2.3"


def test_uids_of_this_level_and_above_are_asked_for():
    identifier = sent("SERIES", {"PatientID": "QA"})
    assert {"StudyInstanceUID", "SeriesInstanceUID"} <= set(identifier.dir())
    assert "SOPInstanceUID" not in identifier
    assert identifier.QueryRetrieveLevel == "SERIES"
    assert "PatientID" in sent("PATIENT", {})


def test_image_type_is_never_sent_and_compared_as_a_whole():
    query = Query.build("IMAGE", {"ImageType": ["ORIGINAL", "PRIMARY", "PORTAL"]})
    assert query.identifier()["ImageType"].is_empty
    answer = Dataset()
    answer.ImageType = ["ORIGINAL", "PRIMARY", "PORTAL"]
    assert query.matcher().match(answer) is Verdict.MATCH
    answer.ImageType = ["ORIGINAL", "PRIMARY", "PORTAL", "ACQUIRED_DOSE"]
    assert query.matcher().match(answer) is Verdict.MISS


def test_image_type_in_backslash_form_means_the_same():
    assert Query.build("IMAGE", {"ImageType": "A\\B"}).keys[0].values == ("A", "B")


def test_an_exact_text_is_sent_as_it_stands_and_compared_literally():
    query = Query.build("IMAGE", {"PatientID": Exact("QA*1")})
    assert query.identifier().PatientID == "QA*1"
    answer = Dataset()
    answer.PatientID = "QA*1"
    assert query.matcher().match(answer) is Verdict.MATCH
    answer.PatientID = "QA_1"
    assert query.matcher().match(answer) is Verdict.MISS


def test_exact_holds_inside_sequences():
    query = Query.build("IMAGE", {"RequestAttributesSequence": {"RequestedProcedureID": Exact("A*")}})
    item, answer = Dataset(), Dataset()
    item.RequestedProcedureID = "AB"
    answer.RequestAttributesSequence = [item]
    assert query.matcher().match(answer) is Verdict.MISS


def test_unreliable_keys_are_asked_for_empty_and_compared_here():
    query = Query.build("IMAGE", {"RTPlanLabel": "WL_10MV"})
    assert query.identifier(unsent={"RTPlanLabel"})["RTPlanLabel"].is_empty
    answer = Dataset()
    answer.RTPlanLabel = "PF_6MV"
    assert query.matcher().match(answer) is Verdict.MISS


def test_non_ascii_keys_name_their_character_set():
    identifier = sent("PATIENT", {"PatientName": "Müller^*"})
    assert identifier.SpecificCharacterSet == "ISO_IR 192"
    assert str(on_the_wire(identifier).PatientName) == "Müller^*"
    assert "SpecificCharacterSet" not in sent("PATIENT", {"PatientName": "Mueller^*"})


def test_a_non_ascii_key_that_is_not_sent_names_no_character_set():
    query = Query.build("IMAGE", {"RTPlanLabel": "Tägliche QA"})
    assert "SpecificCharacterSet" not in query.identifier(unsent={"RTPlanLabel"})


def test_text_forms_show_keywords_alone():
    query = Query.build(Level.IMAGE, {"PatientID": SECRET, "RTPlanLabel": "", "StudyID": Exact("Kurs*")})
    for text in (repr(query), query.keyword_summary(), repr(query.keys), repr(Exact(SECRET))):
        assert "Geheim" not in text
        assert "Kurs" not in text
    assert query.keyword_summary().startswith("IMAGE by PatientID, StudyID; returning RTPlanLabel")


def test_nothing_is_logged_or_warned(caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    Query.build("IMAGE", {"PatientID": SECRET, "StudyInstanceUID": "1.02"}).identifier()
    assert not caplog.records
    assert not recwarn.list
