from __future__ import annotations

from datetime import date, timedelta

import pytest
from support.scripted_peer import PENDING, dataset

from airflow_provider_varian.aria.profile import ARIA, GENERIC
from airflow_provider_varian.errors import (
    CroppedAnswerError,
    OutOfResourcesError,
    PeerFailureError,
    QueryError,
    UndecidedMatchError,
)
from airflow_provider_varian.query import splitting
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.query import Exact, Query
from airflow_provider_varian.query.splitting import PRINTABLE, ByDate, BySuffix, find_whole

FIRST = date(2026, 3, 1)
IDS = ["A0", "A1", "B1", "C 1", "D1", "1", "x_b", "$E", "F~", "G)"]
BY_DATE, BY_SUFFIX = ByDate("AcquisitionDate"), BySuffix()


def image(number, patient="A0", day=FIRST, **values):
    values = {"AcquisitionDate": day.strftime("%Y%m%d") if day else None, "PatientID": patient, **values}
    return dataset(
        SOPInstanceUID=f"1.5.{number}", SeriesInstanceUID="1.3", StudyInstanceUID="1.4", Modality="RTIMAGE", **values
    )


def days(count, per_day=1):
    moments = [FIRST + timedelta(days=number) for number in range(count) for _ in range(per_day)]
    return [image(number, day=day) for number, day in enumerate(moments, start=1)]


def patients(ids=IDS):
    return [image(number, patient) for number, patient in enumerate(ids, start=1)]


def limited(scripted, rows, most, *, final=0xC001, kept=0):
    """Answer at most so many rows; a longer answer ends otherwise, with the first of its rows or none."""
    scripted.serve(rows)
    whole = scripted.script

    def script(request):
        found = list(whole(request))
        return found if len(found) <= most else [*found[:kept], *([(final, None)] if final else [])]

    scripted.script = script


def query(first=FIRST, last=FIRST + timedelta(days=30), **keys):
    return Query.build("IMAGE", {"Modality": "RTIMAGE", "AcquisitionDate": (first, last), "PatientID": None, **keys})


def whole(scripted, asked, *by, profile=ARIA, **options):
    with FindSession(scripted.peer(), profile=profile) as session:
        return find_whole(session, asked, by=by, **options)


def uids_of(rows):
    return sorted(row["SOPInstanceUID"] for row in rows)


def keys_sent(scripted, keyword):
    return [request.value(keyword) for request in scripted.requests]


def test_what_is_not_too_broad_is_asked_once(scripted):
    limited(scripted, days(10), 10)
    result = whole(scripted, query(), BY_DATE)
    assert len(result.answers) == 10
    assert result.warnings == []
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    ("final", "kept", "profile"),
    [
        pytest.param(0xC001, 0, ARIA, id="too broad"),
        pytest.param(0xA700, 0, GENERIC.overridden({"relational_queries": True}), id="out of resources"),
        pytest.param(0xFE00, 3, ARIA, id="ended by the peer, nobody asked"),
        pytest.param(None, 4, ARIA.overridden({"known_caps": [4]}), id="a count at which the peer is known to stop"),
    ],
)
def test_whatever_shows_that_an_answer_is_cropped_it_is_split_until_whole(scripted, final, kept, profile):
    rows = days(30)
    limited(scripted, rows, 3, final=final, kept=kept)
    result = whole(scripted, query(), BY_DATE, profile=profile)
    assert uids_of(result.answers) == sorted(str(row.SOPInstanceUID) for row in rows)
    assert (result.undecided, result.limited) == ([], False)
    assert scripted.associations == 1


def test_halves_go_down_to_a_day_and_neither_overlap_nor_leave_a_gap(scripted):
    limited(scripted, days(7), 1)
    whole(scripted, query(last=FIRST + timedelta(days=6)), BY_DATE)
    assert keys_sent(scripted, "AcquisitionDate") == [
        "20260301-20260307",
        "20260301-20260304", "20260301-20260302", "20260301", "20260302",
        "20260303-20260304", "20260303", "20260304",
        "20260305-20260307", "20260305-20260306", "20260305", "20260306", "20260307",
    ]  # fmt: skip


def test_a_day_that_is_too_broad_is_split_by_the_ends_of_ids(scripted):
    limited(scripted, patients(), 3)
    result = whole(scripted, query(), BY_DATE, BY_SUFFIX)
    assert len(uids_of(result.answers)) == len(IDS)
    sent = set(keys_sent(scripted, "PatientID"))
    # Four IDs end in 1; one of them is no longer than that, and of another a blank is the last but one.
    assert {"*0", "*~", "*)", "*1", "*A1", "* 1", "1"} <= sent
    assert len(sent) < 250
    (warning,) = result.warnings
    assert "last characters of PatientID" in warning


def test_the_ends_are_all_that_is_printed_but_wildcards_backslash_and_blank(scripted):
    assert len(PRINTABLE) == len(set(PRINTABLE)) == 91
    assert not set("*?\\ ") & set(PRINTABLE)
    rows = patients([f"ID{character}" for character in PRINTABLE])
    limited(scripted, rows, 90)
    assert len(whole(scripted, query(), BY_SUFFIX).answers) == 91


def test_an_id_that_ends_otherwise_is_missing_and_the_warning_says_so(scripted):
    limited(scripted, patients([*IDS, "Zoé"]), 3)
    result = whole(scripted, query(), BY_SUFFIX)
    assert len(result.answers) == len(IDS)
    assert "may be missing" in result.warnings[0]
    wider = whole(scripted, query(), BySuffix(characters=PRINTABLE + "é"))
    assert len(wider.answers) == len(IDS) + 1


def test_what_is_listed_in_two_parts_is_one_answer(scripted):
    # A peer that ignores the case of an ID lists some of them twice.
    limited(scripted, patients(), 5)
    strict = scripted.script

    def script(request):
        pattern = request.value("PatientID")
        if pattern and pattern.startswith("*"):
            return [(PENDING, row) for row in patients() if row.PatientID.lower().endswith(pattern[1:].lower())]
        return strict(request)

    scripted.script = script
    asked = Query.build("IMAGE", {"Modality": "RTIMAGE", "PatientID": None})
    assert len(whole(scripted, asked, BY_SUFFIX).answers) == len(IDS)


def test_without_a_date_range_or_with_an_open_one_dates_split_nothing(scripted):
    limited(scripted, days(5), 1)
    open_end = Query.build("IMAGE", {"Modality": "RTIMAGE", "AcquisitionDate": (FIRST, None)})
    for asked in (open_end, Query.build("IMAGE", {"Modality": "RTIMAGE"})):
        with pytest.raises(CroppedAnswerError, match="too broad"):
            whole(scripted, asked, BY_DATE)
    assert len(scripted.requests) == 2


@pytest.mark.parametrize("value", ["A0", "A*", Exact("*1")])
def test_an_id_that_is_given_is_not_split(scripted, value):
    limited(scripted, patients(["A0", "A0", "*1", "*1"]), 1)
    with pytest.raises(CroppedAnswerError):
        whole(scripted, query(PatientID=value), BY_SUFFIX)
    assert len(scripted.requests) == 1


def test_where_nothing_is_left_to_split_by_the_error_says_so_and_names_no_value(scripted):
    limited(scripted, patients(["QA-7"] * 5), 1)
    with pytest.raises(CroppedAnswerError, match=r"cannot be split further") as caught:
        whole(scripted, query(last=FIRST), BY_DATE, BySuffix(depth=2))
    assert caught.value.status == 0xC001
    assert "QA-7" not in str(caught.value)
    assert max(len(pattern) for pattern in keys_sent(scripted, "PatientID")) == len("*-7")
    assert "fewer days" in caught.value.hint


def test_a_peer_out_of_resources_to_the_last_is_worth_a_retry(scripted):
    limited(scripted, days(4, per_day=3), 1, final=0xA700)
    with pytest.raises(OutOfResourcesError, match="cannot be split further") as caught:
        whole(scripted, query(), BY_DATE)
    assert caught.value.transient


def test_a_peer_that_calls_everything_too_broad_is_given_up(scripted, monkeypatch):
    monkeypatch.setattr(splitting, "MOST_REQUESTS", 40)
    limited(scripted, days(31), 1)
    with pytest.raises(CroppedAnswerError, match=r"requests were made for parts"):
        whole(scripted, query(), BY_DATE)
    assert len(scripted.requests) <= 40


def test_a_key_that_the_profile_does_not_trust_splits_nothing(scripted):
    limited(scripted, days(5), 1)
    profile = ARIA.overridden({"unreliable_matching_keys": ["AcquisitionDate"]})
    with pytest.raises(CroppedAnswerError):
        whole(scripted, query(), BY_DATE, profile=profile)
    assert len(scripted.requests) == 1


def test_other_failures_are_not_split(scripted):
    scripted.script = lambda request: [(0xC123, None)]
    with pytest.raises(PeerFailureError):
        whole(scripted, query(), BY_DATE)
    assert len(scripted.requests) == 1


def test_undecided_answers_are_an_error_or_kept_once(scripted):
    rows = [*days(4), image(9, day=None)]

    def script(request):
        # A peer that takes an unknown date for a match, and lists two rows at most.
        first, _, last = request.value("AcquisitionDate").partition("-")
        found = [row for row in rows if not row.AcquisitionDate or first <= row.AcquisitionDate <= (last or first)]
        return [(PENDING, row) for row in found] if len(found) <= 3 else [(0xC001, None)]

    scripted.script = script
    with pytest.raises(UndecidedMatchError):
        whole(scripted, query(), BY_DATE)
    result = whole(scripted, query(), BY_DATE, undecided="keep")
    assert len(result.answers) == 4
    assert uids_of(result.undecided) == ["1.5.9"]


def test_what_one_part_leaves_open_and_another_decides_is_decided(scripted):
    def script(request):
        asked_for = request.value("AcquisitionDate")
        if "-" in asked_for:
            return [(0xC001, None)]
        # The second day's answer has the date that the first one's lacks.
        return [(PENDING, image(1, day=None if asked_for == "20260301" else FIRST + timedelta(days=1)))]

    scripted.script = script
    result = whole(scripted, query(last=FIRST + timedelta(days=1)), BY_DATE, undecided="keep")
    assert uids_of(result.answers) == ["1.5.1"]
    assert result.undecided == []


def test_warnings_of_the_parts_are_told_once(scripted):
    rows = [image(number, day=FIRST + timedelta(days=number % 2)) for number in range(200)]
    limited(scripted, rows, 100)
    result = whole(scripted, query(last=FIRST + timedelta(days=1)), BY_DATE)
    assert len(result.answers) == 200
    assert len(result.warnings) == len(set(result.warnings))
    assert any("100 matches" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    "wrong", [{"keyword": "StudyDate"}, {"keyword": "PatientName"}, {"keyword": "NoSuch"}, {"characters": ""},
              {"characters": "0*"}, {"depth": 0}],
)  # fmt: skip
def test_a_split_that_cannot_be_is_refused(wrong):
    with pytest.raises(QueryError):
        BySuffix(**wrong)
