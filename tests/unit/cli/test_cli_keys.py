"""Keys as they are typed, and the level that follows from them."""

from __future__ import annotations

import pytest

from airflow_provider_varian.cli.keys import level_of, parse_keys, refuse_keys_without_values
from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.level import Level


def test_keys_become_a_mapping_in_the_order_typed():
    keys = parse_keys(["PatientID=QA_TB_WL", "RTPlanLabel=", "StudyDate=20260101-20260131"])
    assert list(keys.items()) == [
        ("PatientID", "QA_TB_WL"),
        ("RTPlanLabel", ""),
        ("StudyDate", "20260101-20260131"),
    ]


def test_a_value_keeps_its_equals_signs_dots_and_blanks():
    assert parse_keys(["SeriesDescription=a=b . c "]) == {"SeriesDescription": "a=b . c "}


def test_keys_inside_a_sequence_meet_in_one_item():
    keys = parse_keys(["ReferencedRTPlanSequence.ReferencedSOPInstanceUID=1.2", "ReferencedRTPlanSequence.A.B="])
    assert keys == {"ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": "1.2", "A": {"B": ""}}}


def test_a_uid_given_again_becomes_a_list():
    assert parse_keys(["SOPInstanceUID=1.2", "SOPInstanceUID=1.3", "SOPInstanceUID=1.4"]) == {
        "SOPInstanceUID": ["1.2", "1.3", "1.4"]
    }


def test_two_dates_are_not_mistaken_for_a_range():
    with pytest.raises(QueryError, match="StudyDate is given twice"):
        parse_keys(["StudyDate=20260101", "StudyDate=20260131"])


@pytest.mark.parametrize(
    "typed",
    [
        ["A=1", "A.B=2"],
        ["A.B=2", "A=1"],
    ],
)
def test_a_sequence_cannot_be_a_value_too(typed):
    with pytest.raises(QueryError, match="both as a whole and by a key inside it"):
        parse_keys(typed)


@pytest.mark.parametrize("typed", ["Mueller^Petra", "=x", ".A=x", "A..B=x", " =x"])
def test_what_is_no_key_is_refused_without_repeating_it(typed):
    with pytest.raises(QueryError, match="key number 2 is not of the form") as caught:
        parse_keys(["PatientID=1", typed])
    assert "Mueller" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "level"),
    [
        ({}, Level.IMAGE),
        ({"Modality": "CT"}, Level.IMAGE),
        ({"PatientID": "1"}, Level.PATIENT),
        ({"PatientID": "1", "Modality": "RTPLAN"}, Level.IMAGE),
        ({"PatientID": "1", "StudyInstanceUID": ""}, Level.STUDY),
        ({"SeriesInstanceUID": "1.2", "StudyInstanceUID": "1"}, Level.SERIES),
        ({"SOPInstanceUID": "1", "SeriesInstanceUID": "1.2"}, Level.IMAGE),
    ],
)
def test_the_level_is_that_of_the_deepest_unique_key(keys, level):
    assert level_of(None, keys) is level
    assert level_of("STUDY", keys) is Level.STUDY


@pytest.mark.parametrize(
    "keys",
    [
        {"SeriesInstanceUID": ""},
        {"SeriesInstanceUID": "1.2", "RTPlanLabel": ""},
        {"SOPInstanceUID": ["1", ""]},
        {"ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": ""}},
    ],
)
def test_a_key_without_a_value_selects_nothing_to_retrieve(keys):
    with pytest.raises(QueryError, match="has no value"):
        refuse_keys_without_values(keys)
