from __future__ import annotations

import json
from io import BytesIO

import pytest
from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom.dsutils import decode, encode

from airflow_provider_varian.query.answers import to_answer
from airflow_provider_varian.query.values import python_encodings


def wired(dataset, implicit=True):
    return decode(BytesIO(encode(dataset, implicit, True)), implicit, True)


def raw(tag, vr, value):
    """A data set with one element as the wire brings it."""
    dataset = Dataset()
    dataset._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, True, True, True, True)
    return dataset


def full():
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.QueryRetrieveLevel = "IMAGE"
    made.PatientName = "Müller^Jürg=王^小东"
    made.PatientID = "QA_TB_WL"
    made.ImageType = ["ORIGINAL", "PRIMARY", "PORTAL"]
    made.AcquisitionDate = "20260102"
    made.AcquisitionTime = "114107.643000"
    made.SeriesNumber = 7
    made.GantryAngle = "90.5"
    made.ImagePlanePixelSpacing = ["0.336", "0.336"]
    made.Rows = 1280
    made.TableTopVerticalPosition = None
    made.SOPInstanceUID = "1.2.246.352.1"
    made.ReferencedRTPlanSequence = [item]
    made.RequestAttributesSequence = []
    return made


EXPECTED = {
    "PatientName": "Müller^Jürg=王^小东",
    "PatientID": "QA_TB_WL",
    "ImageType": ["ORIGINAL", "PRIMARY", "PORTAL"],
    "AcquisitionDate": "20260102",
    "AcquisitionTime": "114107.643000",
    "SeriesNumber": 7,
    "GantryAngle": 90.5,
    "ImagePlanePixelSpacing": [0.336, 0.336],
    "Rows": 1280,
    "TableTopVerticalPosition": None,
    "SOPInstanceUID": "1.2.246.352.1",
    "ReferencedRTPlanSequence": [{"ReferencedSOPInstanceUID": "1.2.3"}],
    "RequestAttributesSequence": [],
}


@pytest.mark.parametrize("form", ["built", "implicit", "explicit"])
def test_an_answer_is_a_plain_mapping_by_keyword(form):
    dataset = full() if form == "built" else wired(full(), implicit=form == "implicit")
    answer = to_answer(dataset)
    assert answer == EXPECTED
    assert json.loads(json.dumps(answer)) == answer


def test_only_some_keywords_can_be_read():
    assert to_answer(full(), only=("PatientID", "ReferencedRTPlanSequence")) == {
        "PatientID": "QA_TB_WL",
        "ReferencedRTPlanSequence": [{"ReferencedSOPInstanceUID": "1.2.3"}],
    }


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO_IR 100", "Müller^Jürg"),
        ("ISO_IR 192", "Müller^王"),
        ("GB18030", "王^小东=王^小东"),
        (["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_text_is_decoded_by_its_character_set(charset, text):
    made = Dataset()
    made.SpecificCharacterSet = charset
    made.PatientName = text
    assert to_answer(wired(made))["PatientName"] == text


def test_items_inherit_the_character_set():
    item, made = Dataset(), Dataset()
    item.CodeMeaning = "Größe"
    made.SpecificCharacterSet = "ISO_IR 100"
    made.ProcedureCodeSequence = [item]
    assert to_answer(wired(made))["ProcedureCodeSequence"][0]["CodeMeaning"] == "Größe"


def test_an_assumed_character_set_holds_only_where_none_is_named():
    assumed = python_encodings(("ISO_IR 192",))
    unnamed = raw(0x00081030, None, "Größe ".encode())
    assert to_answer(unnamed, assumed)["StudyDescription"] == "Größe"
    named = Dataset()
    named.SpecificCharacterSet = "ISO_IR 100"
    named.StudyDescription = "Größe"
    assert to_answer(wired(named), assumed)["StudyDescription"] == "Größe"


@pytest.mark.parametrize(
    ("tag", "value", "keyword", "expected"),
    [
        (0x00200011, b"1.5 ", "SeriesNumber", "1.5"),
        (0x00200011, b"    ", "SeriesNumber", None),
        (0x300A011E, b"12,5", "GantryAngle", "12,5"),
        (0x300A011E, b"inf ", "GantryAngle", "inf"),
        (0x0020000D, b"1.02.3\0\0", "StudyInstanceUID", "1.02.3"),
        (0x00080020, b"soon", "StudyDate", "soon"),
        (0x00280010, b"\x00\x05\x01", "Rows", 1280),
        (0x00080060, b"\xff\xfe", "Modality", "\ufffd\ufffd"),
        (0x00100010, b"M\xfcller", "PatientName", "Müller"),
        (0x00090010, b"\x00\x01", "00090010", "AAE="),
    ],
)
def test_a_value_that_breaks_its_vr_stays_what_it_came_as(tag, value, keyword, expected, recwarn):
    answer = to_answer(raw(tag, None, value))
    assert answer == {keyword: expected}
    json.dumps(answer, allow_nan=False)
    assert not recwarn.list


def test_a_misspelt_character_set_is_corrected_without_a_warning(recwarn):
    made = Dataset()
    made._dict[Tag(0x00080005)] = RawDataElement(Tag(0x00080005), "CS", 10, b"ISO-IR 192", 0, True, True, True, True)
    made._dict[Tag(0x00100010)] = RawDataElement(Tag(0x00100010), "PN", 7, "Müller".encode(), 0, True, True, True, True)
    assert to_answer(made)["PatientName"] == "Müller"
    assert not recwarn.list


def test_numbers_that_json_lacks_become_text():
    made = Dataset()
    made.add(DataElement("FrameReferenceDateTime", "DT", "2026"))
    made.add(DataElement("RecommendedDisplayFrameRateInFloat", "FL", float("nan"), validation_mode=config.IGNORE))
    assert to_answer(made)["RecommendedDisplayFrameRateInFloat"] == "nan"


def test_a_stray_delimiter_inside_an_item_leaves_the_rest_readable():
    # Tag (FFFE,E000) where an element should stand: pydicom raises NotImplementedError when it is looked up.
    tag = Tag(0xFFFE, 0xE000)
    item = Dataset()
    item._dict[tag] = RawDataElement(tag, None, 0, b"", 0, True, True, True, True)
    answer = Dataset()
    answer.SOPInstanceUID = "1.2.3"
    answer.ReferencedRTPlanSequence = [item]
    assert to_answer(answer)["SOPInstanceUID"] == "1.2.3"
