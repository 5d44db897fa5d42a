"""Whether the peer holds another revision than the file says."""

from __future__ import annotations

import pytest
from support.archive import rt_image, sendable

from airflow_provider_varian import uids
from airflow_provider_varian.retrieval.revision import REVISION_KEYWORDS, Verdict, is_later, judge_revision, revision_of

PLAN = {"ApprovalStatus": "UNAPPROVED", "RTPlanDate": "20260101", "RTPlanTime": "101500"}


@pytest.mark.parametrize(
    ("answered", "verdict"),
    [
        (PLAN, Verdict.SAME),
        ({"RTPlanDate": "20260101"}, Verdict.SAME),
        ({"RTPlanDate": "20260101", "ApprovalStatus": ""}, Verdict.SAME),
        (PLAN | {"ApprovalStatus": "APPROVED"}, Verdict.CHANGED),
        (PLAN | {"RTPlanDate": "20260102"}, Verdict.CHANGED),
        (PLAN | {"RTPlanTime": "101501"}, Verdict.CHANGED),
        ({"ApprovalStatus": "APPROVED"}, Verdict.CHANGED),
        # It was reviewed since, or the daemon knows more than it exports.
        (PLAN | {"ReviewDate": "20260103"}, Verdict.UNDECIDED),
        (PLAN | {"ContentDate": "20260101"}, Verdict.UNDECIDED),
        (PLAN | {"ReviewDate": ""}, Verdict.SAME),
        (PLAN | {"ReviewDate": "20260103", "ApprovalStatus": "APPROVED"}, Verdict.CHANGED),
        ({"ReviewDate": "20260103"}, Verdict.UNDECIDED),
        ({}, Verdict.UNDECIDED),
        (dict.fromkeys(REVISION_KEYWORDS, ""), Verdict.UNDECIDED),
        (dict.fromkeys(REVISION_KEYWORDS), Verdict.UNDECIDED),
        # Contours are drawn while the status stays what it is.
        ({"ApprovalStatus": "UNAPPROVED"}, Verdict.UNDECIDED),
        ({"RTPlanTime": "101500"}, Verdict.UNDECIDED),
        ({"RTPlanDate": ["20260101", "20260102"]}, Verdict.UNDECIDED),
    ],
    ids=str,
)
def test_what_both_say_is_compared(answered, verdict):
    assert judge_revision(answered, PLAN) is verdict


@pytest.mark.parametrize("keyword", ["RTPlanDate", "StructureSetDate", "ContentDate", "ReviewDate"])
def test_each_date_tells(keyword):
    held = {keyword: "20260101"}
    assert judge_revision({keyword: "20260101 "}, held) is Verdict.SAME
    assert judge_revision({keyword: "20251231"}, held) is Verdict.CHANGED


@pytest.mark.parametrize(
    ("first", "second", "later"),
    [
        ({"RTPlanDate": "20260102"}, {"RTPlanDate": "20260101"}, True),
        ({"RTPlanDate": "20260101"}, {"RTPlanDate": "20260102"}, False),
        ({"RTPlanDate": "20260101"}, {"RTPlanDate": "20260101"}, False),
        (PLAN | {"ReviewDate": "20260103"}, PLAN | {"ReviewDate": "20260102"}, True),
        (PLAN | {"ReviewDate": "20260103"}, PLAN, False),
        ({}, PLAN, False),
    ],
)
def test_the_later_of_two_files_is_told_by_a_date_that_both_have(first, second, later):
    assert is_later(first, second) is later


@pytest.mark.parametrize("keyword", ["RTPlanTime", "StructureSetTime", "ContentTime"])
@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("101500", "101500.000", True),
        ("101500", "101500.250", True),
        ("1015", "101530", True),
        ("10:15:00", "101500", True),
        ("101500.25", "101500.250000", True),
        ("101500", "101501", False),
        ("101500.2", "101500.3", False),
        ("1015", "101600", False),
    ],
)
def test_times_agree_as_far_as_both_say_something(keyword, first, second, same):
    for answered, held in ((first, second), (second, first)):
        verdict = judge_revision(
            {"ContentDate": "20260101", keyword: answered}, {"ContentDate": "20260101", keyword: held}
        )
        assert verdict is (Verdict.SAME if same else Verdict.CHANGED)


def test_a_file_tells_what_it_has(tmp_path):
    ds = sendable(rt_image(1, SOPClassUID=uids.RT_PLAN, **PLAN))
    ds.save_as(tmp_path / "plan.dcm", implicit_vr=True, little_endian=True, enforce_file_format=True)
    assert revision_of(tmp_path / "plan.dcm") == {"SOPClassUID": uids.RT_PLAN, **PLAN}


@pytest.mark.parametrize("content", [b"", b"no DICOM at all"])
def test_what_is_no_dicom_tells_nothing(tmp_path, content):
    (tmp_path / "x.dcm").write_bytes(content)
    assert revision_of(tmp_path / "x.dcm") == {}
