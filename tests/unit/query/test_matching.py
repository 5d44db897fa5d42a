from __future__ import annotations

import re
import time
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom.dsutils import decode, encode

from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.matching import Matcher, match
from airflow_provider_varian.query.verdict import Verdict, all_of, any_of

MATCH, MISS, UNDECIDED = Verdict.MATCH, Verdict.MISS, Verdict.UNDECIDED


def ds(**values):
    made = Dataset()
    for keyword, value in values.items():
        if isinstance(value, dict):
            value = [ds(**value)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            value = [ds(**item) for item in value]
        # Peers send what they send: no validation by pydicom.
        made.add(DataElement(keyword, dictionary_VR(tag_for_keyword(keyword)), value, validation_mode=config.IGNORE))
    return made


def wired(dataset):
    """As it comes off the wire: raw, implicit VR."""
    return decode(BytesIO(encode(dataset, True, True)), True, True)


def verdict(keyword, value, key, **options):
    plain = Matcher(ds(**{keyword: key}), **options).match(ds(**{keyword: value}))
    off_the_wire = Matcher(wired(ds(**{keyword: key})), **options).match(wired(ds(**{keyword: value})))
    assert plain is off_the_wire
    return plain


@pytest.mark.parametrize(
    ("keyword", "value", "key", "expected"),
    [
        # single values, padding (PS3.4 C.2.2.2.1)
        ("PatientID", "QA_TB_WL", "QA_TB_WL", MATCH),
        ("PatientID", "QA_TB_WL ", " QA_TB_WL", MATCH),
        ("PatientID", "QA_TB_WL", "qa_tb_wl", MISS),
        ("PatientID", "QA TB", "QATB", MISS),
        ("Modality", "RTIMAGE", "RTIMAGE ", MATCH),
        ("Modality", "RTIMAGE", "RTPLAN", MISS),
        ("PatientID", "$QA Halcyon2_2026", "$QA Halcyon2_2026", MATCH),
        # universal (C.2.2.2.3)
        ("PatientID", "anything", "", MATCH),
        ("PatientID", "", "", MATCH),
        ("PatientID", "", "*", MATCH),
        ("PatientID", "anything", "**", MATCH),
        # wildcards (C.2.2.2.4)
        ("PatientID", "QA_TB_WL", "QA*", MATCH),
        ("PatientID", "QA_TB_WL", "*TB*", MATCH),
        ("PatientID", "QA_TB_WL", "QA?TB?WL", MATCH),
        ("PatientID", "QA_TB_WL", "QA?TB?W", MISS),
        ("PatientID", "QA_TB_WL", "*TB", MISS),
        ("PatientID", "QA.TB", "QA.*", MATCH),
        ("PatientID", "QAxTB", "QA.*", MISS),
        ("PatientID", "a[b]c", "a[b]*", MATCH),
        ("StudyDescription", "Zürich", "Z?rich", MATCH),
        # UIDs (C.2.2.2.2)
        ("StudyInstanceUID", "1.2.3", "1.2.3", MATCH),
        ("StudyInstanceUID", "1.2.3", "1.2.33", MISS),
        ("StudyInstanceUID", "1.2.3", ["1.2.4", "1.2.3"], MATCH),
        ("StudyInstanceUID", "1.2.3", ["1.2.4", "1.2.5"], MISS),
        # several values: any of them
        ("ModalitiesInStudy", ["CT", "RTPLAN"], "RTPLAN", MATCH),
        ("ModalitiesInStudy", ["CT", "RTPLAN"], "RT*", MATCH),
        ("ModalitiesInStudy", ["CT", "RTPLAN"], "MR", MISS),
        ("ImageType", ["ORIGINAL", "PRIMARY", "PORTAL"], "PORTAL", MATCH),
        # several values in the key: the whole
        ("ImageType", ["ORIGINAL", "PRIMARY", "PORTAL"], ["ORIGINAL", "PRIMARY", "PORTAL"], MATCH),
        ("ImageType", ["ORIGINAL", "PRIMARY", "PORTAL", "X"], ["ORIGINAL", "PRIMARY", "PORTAL"], MISS),
        # dates and times (C.2.2.2.5)
        ("StudyDate", "20260102", "20260102", MATCH),
        ("StudyDate", "2026.01.02", "20260102", MATCH),
        ("StudyDate", "20260102", "20260101-20260102", MATCH),
        ("StudyDate", "20260102", "20260102-", MATCH),
        ("StudyDate", "20260102", "-20260101", MISS),
        ("StudyDate", "20260102", "20260103-", MISS),
        ("StudyDate", "2026", "20260103-", UNDECIDED),
        ("StudyTime", "1030", "103000-104500", MATCH),
        ("StudyTime", "103000.5", "1030", MATCH),
        ("StudyTime", "10", "1030", MATCH),
        ("StudyTime", "10:30:00", "1030", MATCH),
        ("StudyTime", "103100", "1030", MISS),
        ("StudyTime", "103000.500000", "103000.4-103000.5", MATCH),
        ("StudyTime", "103000.600001", "103000.4-103000.5", MISS),
        ("StudyTime", "noon", "12", UNDECIDED),
        ("AcquisitionDateTime", "20260102103000", "20260102", MATCH),
        ("AcquisitionDateTime", "20260102103000", "202601-202602", MATCH),
        ("AcquisitionDateTime", "20260102103000", "2025-", MATCH),
        ("AcquisitionDateTime", "20260102103000", "-2025", MISS),
        ("AcquisitionDateTime", "20260102103000+0100", "20260102093000+0000", MATCH),
        ("AcquisitionDateTime", "20260102103000-0100", "20260102103000-0100-20260102113000-0100", MATCH),
        ("AcquisitionDateTime", "20260102103000+0100", "20260102", UNDECIDED),
        # numbers
        ("SeriesNumber", "7", "07", MATCH),
        ("SeriesNumber", "7", "8", MISS),
        ("GantryAngle", "90.0", "90", MATCH),
        ("Rows", 1280, 1280, MATCH),
        ("Rows", 1280, 512, MISS),
        ("PatientAge", "040Y", "040Y", MATCH),
        # names (PS3.4 C.2.2.2.1: case and accents are up to the peer)
        ("PatientName", "Müller^Hans", "MULLER^HANS", MATCH),
        ("PatientName", "MULLER^HANS^^^", "Müller^Hans", MATCH),
        ("PatientName", "Müller^Hans", "mü*", MATCH),
        ("PatientName", "Müller^Hans", "M?ller^*", MATCH),
        ("PatientName", "Müller^Hans", "Meier*", MISS),
        ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "山田^太郎", MATCH),
        ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "yamada*", MATCH),
        ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "山本*", MISS),
        ("PatientName", "Hong^Gildong=洪^吉洞=홍^길동", "홍^길?", MATCH),
        ("PatientName", "Strasse^A", "STRASSE ^A ", MATCH),
        # absent and empty values (semantics 12)
        ("PatientID", "", "QA", UNDECIDED),
        ("PatientID", None, "QA*", UNDECIDED),
        ("StudyDate", "", "20260101-", UNDECIDED),
        ("ModalitiesInStudy", ["", "CT"], "CT", MATCH),
        ("ModalitiesInStudy", ["", "CT"], "MR", MISS),
    ],
)
def test_values_match_as_the_standard_says(keyword, value, key, expected):
    if not (isinstance(value, str) and not value.isascii()) and not (isinstance(key, str) and not key.isascii()):
        assert verdict(keyword, value, key) is expected
    else:
        assert match(ds(**{keyword: value}), ds(**{keyword: key})) is expected


def test_an_absent_element_is_undecided():
    assert match(ds(), ds(PatientID="QA")) is UNDECIDED


def test_composed_and_decomposed_accents_are_the_same_text():
    assert match(ds(StudyDescription="Zürich"), ds(StudyDescription="Zu\u0308rich")) is MATCH


def test_the_re_filter_takes_names_in_any_order_and_the_server_does_not():
    for key in ("hans^müller", "hans^m*"):
        assert Matcher(ds(PatientName=key), names_in_any_order=True).match(ds(PatientName="Müller^Hans")) is MATCH
        assert match(ds(PatientName="Müller^Hans"), ds(PatientName=key)) is MISS
    strange = "^".join("abcdefgh")
    assert Matcher(ds(PatientName="h*"), names_in_any_order=True).match(ds(PatientName=strange)) is MISS


def test_a_literal_key_is_compared_as_it_stands():
    assert verdict("PatientID", "A*B", "A*B", literal={"PatientID"}) is MATCH
    assert verdict("PatientID", "AxB", "A*B", literal={"PatientID"}) is MISS
    assert verdict("PatientID", "A", "*", literal={"PatientID"}) is MISS
    assert verdict("ImageType", ["A", "B"], "A", literal={"ImageType"}) is MISS


def test_all_keys_must_match():
    answer = ds(PatientID="QA", Modality="RTPLAN", StudyDate="")
    assert match(answer, ds(PatientID="QA", Modality="RTPLAN")) is MATCH
    assert match(answer, ds(PatientID="QA", Modality="CT", StudyDate="20260101")) is MISS
    assert match(answer, ds(PatientID="QA", StudyDate="20260101")) is UNDECIDED


@pytest.mark.parametrize(
    ("items", "key", "expected"),
    [
        ([{"ReferencedSOPInstanceUID": "1.2"}], {"ReferencedSOPInstanceUID": "1.2"}, MATCH),
        (
            [{"ReferencedSOPInstanceUID": "1.3"}, {"ReferencedSOPInstanceUID": "1.2"}],
            {"ReferencedSOPInstanceUID": "1.2"},
            MATCH,
        ),
        ([{"ReferencedSOPInstanceUID": "1.3"}], {"ReferencedSOPInstanceUID": "1.2"}, MISS),
        ([{"ReferencedSOPInstanceUID": ""}], {"ReferencedSOPInstanceUID": "1.2"}, UNDECIDED),
        ([], {"ReferencedSOPInstanceUID": "1.2"}, UNDECIDED),
        ([], {"ReferencedSOPInstanceUID": ""}, MATCH),
    ],
)
def test_a_sequence_matches_when_one_item_matches_every_key(items, key, expected):
    answer, keys = ds(ReferencedRTPlanSequence=items), ds(ReferencedRTPlanSequence=key)
    assert match(answer, keys) is expected
    assert match(wired(answer), wired(keys)) is expected


def test_one_item_has_to_match_all_of_it():
    answer = ds(
        ReferencedRTPlanSequence=[
            {"ReferencedSOPInstanceUID": "1.2", "RTPlanRelationship": "PRIOR"},
            {"ReferencedSOPInstanceUID": "1.3", "RTPlanRelationship": "PREDECESSOR"},
        ]
    )
    key = {"ReferencedSOPInstanceUID": "1.2", "RTPlanRelationship": "PREDECESSOR"}
    assert match(answer, ds(ReferencedRTPlanSequence=key)) is MISS


def test_what_steers_the_query_is_no_key():
    identifier = ds(QueryRetrieveLevel="IMAGE", SpecificCharacterSet="ISO_IR 192", RetrieveAETitle="X", Modality="CT")
    assert match(ds(Modality="CT"), identifier) is MATCH
    assert Matcher(identifier).keywords == ("Modality",)


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "GB18030", "ISO 2022 IR 6\\ISO 2022 IR 100"])
def test_text_is_decoded_before_it_is_compared(charset):
    name = "王^小东" if charset == "GB18030" else "Müller^Hans"
    answer = ds(SpecificCharacterSet=charset.split("\\"), PatientName=name, StudyDescription=name)
    keys = ds(SpecificCharacterSet="ISO_IR 192", PatientName=name, StudyDescription=name)
    assert match(wired(answer), wired(keys)) is MATCH


def test_an_assumed_character_set_serves_answers_that_name_none():
    answer, value = Dataset(), "Müller".encode()
    answer._dict[Tag(0x00100010)] = RawDataElement(Tag(0x00100010), "PN", len(value), value, 0, True, True, True, True)
    assert Matcher(ds(PatientName="Müller")).match(answer, ("utf8",)) is MATCH


@pytest.mark.parametrize(
    ("keyword", "key"),
    [("StudyDate", "soon"), ("StudyDate", "20260102-20260101"), ("StudyTime", "25"), ("SeriesNumber", "x")],
)
def test_a_key_that_cannot_be_read_is_refused_without_its_value(keyword, key):
    keys = Dataset()
    keys.add(DataElement(keyword, "LO", key))
    keys[keyword].VR = {"StudyDate": "DA", "StudyTime": "TM", "SeriesNumber": "IS"}[keyword]
    with pytest.raises(QueryError, match=keyword) as caught:
        Matcher(keys)
    assert key not in str(caught.value)


def test_a_hostile_pattern_takes_no_time():
    started = time.thread_time()  # of this thread: what else the machine does is not counted
    assert match(ds(StudyDescription="a" * 64), ds(StudyDescription="*a" * 31 + "*b")) is MISS
    assert time.thread_time() - started < 1


def test_a_broken_sequence_is_undecided():
    answer = wired(ds(ReferencedRTPlanSequence={"ReferencedSOPInstanceUID": "1.2"}))
    raw = answer.get_item(0x300C0002)
    answer._dict[raw.tag] = raw._replace(value=b"\xfe\xff\x00\xe0\xff\xff\x00\x00garbage", length=15, VR="SQ")
    keys = ds(ReferencedRTPlanSequence={"ReferencedSOPInstanceUID": "1.2"})
    assert match(answer, keys) is UNDECIDED


# An alphabet that holds all that wildcards and regular expressions find special.
TEXTS = st.text(alphabet="ab*?.[](+ ", max_size=12)


@given(text=TEXTS, pattern=TEXTS)
def test_wildcards_agree_with_regular_expressions(text, pattern):
    pattern, text = pattern.strip(), text.strip()
    if not pattern.strip("*") or not text:
        return
    plain = "".join(".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    wanted = MATCH if re.fullmatch(plain, text) else MISS
    assert match(ds(StudyDescription=text), ds(StudyDescription=pattern)) is wanted


@given(st.dates(), st.dates(), st.dates())
def test_date_ranges_include_both_ends(day, first, last):
    value, low, high = (
        f"{one.year:04d}{one.month:02d}{one.day:02d}" for one in (day, min(first, last), max(first, last))
    )
    wanted = MATCH if low <= value <= high else MISS
    assert match(ds(StudyDate=value), ds(StudyDate=f"{low}-{high}")) is wanted


@given(st.times(), st.times(), st.times())
def test_time_ranges_include_both_ends(at, first, last):
    value, low, high = (f"{one:%H%M%S.%f}" for one in (at, min(first, last), max(first, last)))
    wanted = MATCH if low <= value <= high else MISS
    assert match(ds(StudyTime=value), ds(StudyTime=f"{low}-{high}")) is wanted


@given(
    st.text(
        alphabet=st.characters(codec="utf-8", exclude_characters="\\^=*?", exclude_categories=("Cc", "Cs", "Zs")),
        min_size=1,
        max_size=8,
    )
)
def test_a_name_matches_itself_however_it_is_written(name):
    for other in (name, name.upper(), name.lower(), f" {name} ", f"{name}^^"):
        if (other.upper() == name.upper() and other.lower() == name.lower()) or other in (f" {name} ", f"{name}^^"):
            assert match(ds(PatientName=other), ds(PatientName=name)) is MATCH


def test_verdicts_combine():
    assert all_of([MATCH, UNDECIDED, MISS]) is MISS
    assert all_of([MATCH, UNDECIDED]) is UNDECIDED
    assert all_of([]) is MATCH
    assert any_of([MISS, UNDECIDED, MATCH]) is MATCH
    assert any_of([MISS, UNDECIDED]) is UNDECIDED
    assert any_of([]) is MISS
