from __future__ import annotations

import json
import logging
import time

import pytest
from support.scripted_peer import PENDING, PENDING_WITHOUT_OPTIONAL_KEYS, UNTIL_CANCELLED, dataset

from airflow_provider_varian import uids
from airflow_provider_varian.aria.profile import ARIA, GENERIC
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import (
    CancelledError,
    CroppedAnswerError,
    OutOfResourcesError,
    PeerFailureError,
    QueryError,
    RefusedByPeerError,
    UndecidedMatchError,
)
from airflow_provider_varian.query.find import FindSession, find, iter_find
from airflow_provider_varian.query.query import Exact, Query


def plan(number=1, **values):
    values = {"PatientID": "QA", "Modality": "RTPLAN", **values}
    return dataset(SOPInstanceUID=f"1.2.{number}", SeriesInstanceUID="1.3", StudyInstanceUID="1.4", **values)


def pending(*datasets):
    return lambda request: [(PENDING, one) for one in datasets]


def test_answers_are_json_ready_and_whole(scripted):
    scripted.serve(
        [
            plan(1, PatientName="Müller^Jürg", ReferencedStructureSetSequence={"ReferencedSOPInstanceUID": "1.9"}),
            plan(2),
        ]
    )
    keys = {"PatientID": "QA", "PatientName": "", "ReferencedStructureSetSequence": {"ReferencedSOPInstanceUID": ""}}
    result = find(scripted.peer(), Query.build("IMAGE", keys), profile=ARIA)
    assert [answer["SOPInstanceUID"] for answer in result.answers] == ["1.2.1", "1.2.2"]
    assert result.answers[0]["PatientName"] == "Müller^Jürg"
    assert result.answers[0]["ReferencedStructureSetSequence"] == [{"ReferencedSOPInstanceUID": "1.9"}]
    assert json.loads(json.dumps(result.answers)) == result.answers
    assert (result.undecided, result.warnings, result.limited, result.found_by_pattern) == ([], [], False, False)
    assert result.model == "study_root"


def test_nothing_found_is_an_empty_result(scripted):
    assert find(scripted.peer(), Query.build("STUDY", {"PatientID": "X"}), profile=ARIA).answers == []


def test_a_key_that_the_peer_ignored_is_applied_here(scripted):
    scripted.script = pending(plan(1), plan(2, Modality="RTIMAGE"), plan(3, PatientID="QA2"))
    result = find(scripted.peer(), Query.build("IMAGE", {"PatientID": "QA", "Modality": "RTPLAN"}), profile=ARIA)
    assert [answer["SOPInstanceUID"] for answer in result.answers] == ["1.2.1"]


def test_image_type_goes_out_empty_and_is_compared_as_a_whole(scripted):
    portal = ["ORIGINAL", "PRIMARY", "PORTAL"]
    scripted.script = pending(plan(1, ImageType=portal), plan(2, ImageType=[*portal, "ACQUIRED_DOSE"]))
    result = find(scripted.peer(), Query.build("IMAGE", {"PatientID": "QA", "ImageType": portal}), profile=ARIA)
    assert [answer["SOPInstanceUID"] for answer in result.answers] == ["1.2.1"]
    assert not scripted.requests[0].value("ImageType")


def test_a_plan_label_goes_out_empty_to_aria_and_as_it_is_to_others(scripted):
    long = "DailyQA_PF_6FFF"
    scripted.serve([plan(1, RTPlanLabel=long), plan(2, RTPlanLabel="OPEN")])
    query = Query.build("IMAGE", {"PatientID": "QA", "RTPlanLabel": long})
    result = find(scripted.peer(), query, profile=ARIA)
    assert [answer["RTPlanLabel"] for answer in result.answers] == [long]
    assert not scripted.requests[0].value("RTPlanLabel")
    find(scripted.peer(), query, profile=GENERIC.overridden({"relational_queries": True}))
    assert scripted.requests[1].value("RTPlanLabel") == long


def test_an_exact_text_drops_what_the_wildcard_found_beside_it(scripted):
    scripted.serve([plan(1, PatientID="QA*"), plan(2, PatientID="QA1")])
    result = find(scripted.peer(), Query.build("IMAGE", {"PatientID": Exact("QA*")}), profile=ARIA)
    assert [answer["SOPInstanceUID"] for answer in result.answers] == ["1.2.1"]


# --- undecided (semantics 12)


def test_an_undecided_answer_at_image_level_is_an_error_that_names_the_key(scripted):
    scripted.script = pending(plan(1, StationName="TB1"), plan(2, StationName=None))
    query = Query.build("IMAGE", {"PatientID": "QA", "StationName": "TB1"})
    with pytest.raises(UndecidedMatchError, match=r"1 of the answers at IMAGE level lack.*StationName") as caught:
        find(scripted.peer(), query, profile=ARIA)
    assert "TB1" not in str(caught.value)
    assert not scripted.aborted.is_set()


def test_an_undecided_answer_is_kept_apart_on_request(scripted):
    scripted.script = pending(plan(1, StationName="TB1"), plan(2), plan(3, StationName="TB2"))
    query = Query.build("IMAGE", {"PatientID": "QA", "StationName": "TB1"})
    result = find(scripted.peer(), query, profile=ARIA, undecided="keep")
    assert [answer["SOPInstanceUID"] for answer in result.answers] == ["1.2.1"]
    assert [answer["SOPInstanceUID"] for answer in result.undecided] == ["1.2.2"]


def series(number, **values):
    return dataset(SeriesInstanceUID=f"1.3.{number}", StudyInstanceUID="1.4", PatientID="QA", **values)


def image_script(dates):
    """SERIES answers without a date; IMAGE answers with that of their series."""

    def script(request):
        if request.level == "SERIES":
            return [(PENDING, series(number, SeriesDate=None)) for number in dates]
        number = int(str(request.identifier.SeriesInstanceUID).rsplit(".", 1)[1])
        return [
            (
                PENDING,
                dataset(
                    SOPInstanceUID=f"1.2.{at}",
                    SeriesInstanceUID=f"1.3.{number}",
                    StudyInstanceUID="1.4",
                    SeriesDate=one,
                    PatientID="QA",
                ),
            )
            for at, one in enumerate(dates[number])
        ]

    return script


def test_what_a_series_leaves_open_its_images_decide(scripted):
    scripted.script = image_script({1: ["20260101"], 2: ["20250101", "20260105"], 3: ["20250101"]})
    result = find(scripted.peer(), Query.build("SERIES", {"PatientID": "QA", "SeriesDate": "20260101-"}), profile=ARIA)
    assert [answer["SeriesInstanceUID"] for answer in result.answers] == ["1.3.1", "1.3.2"]
    assert [request.level for request in scripted.requests] == ["SERIES", "IMAGE", "IMAGE", "IMAGE"]
    assert scripted.associations == 1


@pytest.mark.parametrize("dates", [[], [None], [None, "20250101"]])
def test_what_the_images_leave_open_too_is_an_error(scripted, dates):
    scripted.script = image_script({1: dates})
    query = Query.build("SERIES", {"PatientID": "QA", "SeriesDate": "20260101-"})
    with pytest.raises(UndecidedMatchError, match="SeriesDate"):
        find(scripted.peer(), query, profile=ARIA)


def test_modalities_in_study_is_decided_by_the_modality_of_the_images(scripted):
    def script(request):
        if request.level == "STUDY":
            return [(PENDING, dataset(StudyInstanceUID="1.4", ModalitiesInStudy=None))]
        assert not request.value("ModalitiesInStudy")
        return [(PENDING, plan(1))]

    scripted.script = script
    result = find(scripted.peer(), Query.build("STUDY", {"ModalitiesInStudy": "RTPLAN"}), profile=ARIA)
    assert len(result.answers) == 1


def test_status_ff01_makes_the_peer_answer_optional_keys_by_itself(scripted):
    """Such a peer sends our own value back: asked for empty, it has to say its own."""
    truth = {"1.2.1": "TB1", "1.2.2": "TB2"}

    def script(request):
        for uid, station in truth.items():
            echoed = request.value("StationName") or station
            yield PENDING_WITHOUT_OPTIONAL_KEYS, dataset(SOPInstanceUID=uid, PatientID="QA", StationName=echoed)

    scripted.script = script
    query = Query.build("IMAGE", {"PatientID": "QA", "StationName": "TB1"})
    result = find(scripted.peer(), query, profile=ARIA)
    assert [answer["SOPInstanceUID"] for answer in result.answers] == ["1.2.1"]
    assert [request.value("StationName") for request in scripted.requests] == ["TB1", ""]


def test_status_ff01_in_the_middle_of_an_answer_gives_nothing_twice(scripted):
    def script(request):
        for number, status in ((1, PENDING), (2, PENDING_WITHOUT_OPTIONAL_KEYS), (3, PENDING)):
            yield status, dataset(SOPInstanceUID=f"1.2.{number}", PatientID="QA", StationName="TB1")

    scripted.script = script
    query = Query.build("IMAGE", {"PatientID": "QA", "StationName": "TB1"})
    result = find(scripted.peer(), query, profile=ARIA)
    assert [answer["SOPInstanceUID"] for answer in result.answers] == ["1.2.1", "1.2.2", "1.2.3"]
    assert len(scripted.requests) == 2


def test_status_ff01_matters_not_to_required_keys(scripted):
    scripted.script = lambda request: [(PENDING_WITHOUT_OPTIONAL_KEYS, plan(1))]
    result = find(scripted.peer(), Query.build("IMAGE", {"PatientID": "QA", "Modality": "RTPLAN"}), profile=ARIA)
    assert len(result.answers) == 1
    assert len(scripted.requests) == 1


# --- crops and limits (semantics 13, 19)


@pytest.mark.parametrize("rows", [0, 2])
def test_too_broad_a_query_is_a_crop_with_advice(scripted, rows):
    scripted.script = lambda request: [*((PENDING, plan(n)) for n in range(rows)), (0xC001, None)]
    with pytest.raises(CroppedAnswerError, match=r"too broad.*Narrow it") as caught:
        find(scripted.peer(), Query.build("IMAGE", {"PatientID": "QA*"}), profile=ARIA)
    assert caught.value.status == 0xC001
    assert "QA*" not in str(caught.value)


def test_the_same_status_of_another_peer_is_a_failure(scripted):
    scripted.script = lambda request: [(0xC001, None)]
    with pytest.raises(PeerFailureError):
        find(scripted.peer(), Query.build("STUDY", {"PatientID": "QA"}), profile=GENERIC)


@pytest.mark.parametrize(
    ("status", "error"), [(0xFE00, CroppedAnswerError), (0xA700, OutOfResourcesError), (0xA900, RefusedByPeerError)]
)
def test_a_crop_or_refusal_after_rows_is_never_returned_as_if_whole(scripted, status, error):
    scripted.script = lambda request: [(PENDING, plan(1)), (status, None)]
    query = Query.build("IMAGE", {"PatientID": "QA"})
    with pytest.raises(error):
        find(scripted.peer(), query, profile=ARIA)
    rows = iter_find(scripted.peer(), query, profile=ARIA)
    assert next(rows)["SOPInstanceUID"] == "1.2.1"
    with pytest.raises(error):
        next(rows)


def test_a_count_equal_to_a_known_cap_is_a_crop(scripted):
    scripted.script = pending(*(plan(n) for n in range(3)))
    query = Query.build("IMAGE", {"PatientID": "QA"})
    capped = ARIA.overridden({"known_caps": [3]})
    with pytest.raises(CroppedAnswerError, match="ends at 3 matches"):
        find(scripted.peer(), query, profile=capped)
    # What is filtered here counts, since the peer counted it.
    scripted.script = pending(plan(1), plan(2), plan(3, PatientID="other"))
    with pytest.raises(CroppedAnswerError):
        find(scripted.peer(), query, profile=capped)


@pytest.mark.parametrize(("rows", "warned"), [(100, True), (128, True), (101, False), (64, False)])
def test_a_round_count_is_a_warning(scripted, rows, warned):
    scripted.script = pending(*(plan(n) for n in range(rows)))
    result = find(scripted.peer(), Query.build("IMAGE", {"PatientID": "QA"}), profile=ARIA)
    assert len(result.answers) == rows
    assert any("round number" in warning for warning in result.warnings) is warned


def test_the_same_count_for_different_queries_is_a_warning(scripted):
    scripted.script = pending(*(plan(n) for n in range(111)))
    with FindSession(scripted.peer(), profile=ARIA) as session:
        one, other = (
            Query.build("IMAGE", {"PatientID": "QA", "Modality": modality}) for modality in ("RTPLAN", "RTIMAGE")
        )
        assert session.find(one).warnings == []
        assert session.find(one).warnings == []
        assert any("two different queries had 111" in warning for warning in session.find(other).warnings)


def test_a_limit_stops_the_peer_and_shows(scripted):
    def script(request):
        yield from ((PENDING, plan(number)) for number in range(10))
        yield UNTIL_CANCELLED, None

    scripted.script = script
    query = Query.build("IMAGE", {"PatientID": "QA"})
    with FindSession(scripted.peer(), profile=ARIA) as session:
        result = session.find(query, limit=5)
        assert len(result.answers) == 5
        assert result.limited
        assert scripted.cancelled.wait(10)
        scripted.script = pending(plan(1))
        assert len(session.find(query).answers) == 1


def test_a_limit_that_was_not_hit_does_not_show(scripted):
    scripted.script = pending(*(plan(n) for n in range(5)))
    result = find(scripted.peer(), Query.build("IMAGE", {"PatientID": "QA"}), profile=ARIA, limit=5)
    assert len(result.answers) == 5
    assert not result.limited


@pytest.mark.parametrize("limit", [0, -1, True])
def test_a_senseless_limit_is_refused_before_any_network(scripted, limit):
    with pytest.raises(QueryError, match="limit"):
        find(scripted.peer(), Query.build("IMAGE", {}), profile=ARIA, limit=limit)
    assert scripted.associations == 0


def test_matches_stream_before_the_peer_has_sent_all(scripted):
    import threading

    seen = threading.Event()

    def script(request):
        yield PENDING, plan(1)
        assert seen.wait(10)
        yield PENDING, plan(2)

    scripted.script = script
    rows = iter_find(scripted.peer(), Query.build("IMAGE", {"PatientID": "QA"}), profile=ARIA)
    assert next(rows)["SOPInstanceUID"] == "1.2.1"
    seen.set()
    assert [row["SOPInstanceUID"] for row in rows] == ["1.2.2"]


def test_undecided_answers_are_an_error_at_the_end_of_a_stream(scripted):
    scripted.script = pending(plan(1, StationName=None), plan(2, StationName="TB1"))
    rows = iter_find(scripted.peer(), Query.build("IMAGE", {"StationName": "TB1"}), profile=ARIA)
    assert next(rows)["SOPInstanceUID"] == "1.2.2"
    with pytest.raises(UndecidedMatchError):
        next(rows)


# --- patterns (semantics 14)

LONG_ID = "$QA Halcyon2_2026"
PATTERNED = ARIA.overridden({"patient_id_patterns": {LONG_ID: "?QA Halcyon2_2026"}})


def without_exact(*rows):
    """A daemon that does not find one ID exactly."""

    def script(request):
        if request.value("PatientID") == LONG_ID:
            return []
        return [(PENDING, row) for row in rows]

    return script


def test_a_listed_id_that_fails_exactly_is_asked_by_its_pattern_and_filtered(scripted):
    scripted.script = without_exact(plan(1, PatientID=LONG_ID), plan(2, PatientID="#QA Halcyon2_2026"))
    result = find(scripted.peer(), Query.build("IMAGE", {"PatientID": LONG_ID}), profile=PATTERNED)
    assert [answer["SOPInstanceUID"] for answer in result.answers] == ["1.2.1"]
    assert result.found_by_pattern
    assert [request.value("PatientID") for request in scripted.requests] == [LONG_ID, "?QA Halcyon2_2026"]


def test_a_listed_id_that_is_found_exactly_is_asked_once(scripted):
    scripted.script = pending(plan(1, PatientID=LONG_ID))
    result = find(scripted.peer(), Query.build("IMAGE", {"PatientID": LONG_ID}), profile=PATTERNED)
    assert not result.found_by_pattern
    assert len(scripted.requests) == 1


def test_an_id_that_is_not_listed_is_not_searched_for(scripted):
    scripted.script = without_exact(plan(1, PatientID=LONG_ID))
    assert find(scripted.peer(), Query.build("IMAGE", {"PatientID": LONG_ID}), profile=ARIA).answers == []
    assert len(scripted.requests) == 1


def test_a_pattern_that_finds_nothing_is_no_finding(scripted):
    result = find(scripted.peer(), Query.build("IMAGE", {"PatientID": LONG_ID}), profile=PATTERNED)
    assert result.answers == []
    assert not result.found_by_pattern


# --- models, levels, lists


@pytest.mark.parametrize(
    ("level", "setting", "model"),
    [
        ("PATIENT", "auto", uids.PATIENT_ROOT_FIND),
        ("STUDY", "auto", uids.STUDY_ROOT_FIND),
        ("IMAGE", "patient_root", uids.PATIENT_ROOT_FIND),
    ],
)
def test_the_level_and_the_connection_choose_the_information_model(scripted, level, setting, model):
    find(scripted.peer(information_model=setting), Query.build(level, {"PatientID": "QA"}), profile=ARIA)
    assert scripted.requests[0].model == model


def test_study_root_has_no_patient_level(scripted):
    with pytest.raises(QueryError, match="Study Root has no PATIENT level"):
        find(scripted.peer(information_model="study_root"), Query.build("PATIENT", {}), profile=ARIA)
    assert not scripted.requests


def test_a_profile_may_rule_out_the_patient_level(scripted):
    with pytest.raises(QueryError, match="PATIENT level"):
        find(scripted.peer(), Query.build("PATIENT", {}), profile=ARIA.overridden({"patient_level": False}))


def test_lists_of_uids_are_asked_one_by_one_where_the_profile_says_so(scripted):
    scripted.serve([plan(1), plan(2), plan(3)])
    query = Query.build("IMAGE", {"SOPInstanceUID": ["1.2.1", "1.2.3"]})
    assert len(find(scripted.peer(), query, profile=ARIA).answers) == 2
    assert [request.value("SOPInstanceUID") for request in scripted.requests] == ["1.2.1", "1.2.3"]
    scripted.requests.clear()
    assert len(find(scripted.peer(), query, profile=ARIA.overridden({"uid_lists": True})).answers) == 2
    assert len(scripted.requests) == 1


def test_parts_of_a_split_are_merged_without_duplicates(scripted):
    scripted.script = pending(plan(1), plan(2))
    query = Query.build("IMAGE", {"SOPInstanceUID": ["1.2.1", "1.2.2"]})
    assert [answer["SOPInstanceUID"] for answer in find(scripted.peer(), query, profile=ARIA).answers] == [
        "1.2.1",
        "1.2.2",
    ]


# --- the rest


def test_non_ascii_keys_arrive_as_they_were_meant(scripted):
    find(scripted.peer(), Query.build("PATIENT", {"PatientName": "Müller^王*"}), profile=ARIA)
    assert str(scripted.requests[0].identifier.PatientName) == "Müller^王*"
    assert scripted.requests[0].identifier.SpecificCharacterSet == "ISO_IR 192"


def test_an_assumed_character_set_decodes_answers_that_name_none(scripted):
    def script(request):
        answer = plan(1)
        # pynetdicom's server encodes by the character set, so the bytes are written as Latin-1 would have them.
        answer.PatientName = "Müller".encode().decode("latin-1")
        return [(PENDING, answer)]

    scripted.script = script
    query = Query.build("IMAGE", {"PatientID": "QA", "PatientName": "Müller"})
    result = find(scripted.peer(assume_character_set="ISO_IR 192"), query, profile=ARIA)
    assert result.answers[0]["PatientName"] == "Müller"


def test_a_session_asks_several_queries_over_one_association(scripted):
    scripted.serve([plan(1)])
    with FindSession(scripted.peer(), profile=ARIA) as session:
        for _ in range(3):
            assert len(session.find(Query.build("IMAGE", {"PatientID": "QA"})).answers) == 1
        assert session.negotiated.accepted
    assert scripted.associations == 1


def test_a_session_outlives_a_query_that_failed(scripted):
    scripted.script = lambda request: [(0xC001, None)]
    with FindSession(scripted.peer(), profile=ARIA) as session:
        with pytest.raises(CroppedAnswerError):
            session.find(Query.build("STUDY", {}))
        scripted.serve([plan(1)])
        assert len(session.find(Query.build("IMAGE", {"PatientID": "QA"})).answers) == 1


def test_a_closed_session_says_so(scripted):
    session = FindSession(scripted.peer(), profile=ARIA)
    with pytest.raises(QueryError, match="not open"):
        session.find(Query.build("STUDY", {}))


def test_the_peers_pause_is_kept_between_requests(scripted):
    with FindSession(scripted.peer(request_pause_seconds=0.3), profile=ARIA) as session:
        started = time.monotonic()
        session.find(Query.build("STUDY", {}))
        session.find(Query.build("STUDY", {}))
        assert time.monotonic() - started >= 0.3


def test_a_cancelled_search_ends_and_tells_the_peer(scripted):
    cancellation = Cancellation()

    def script(request):
        yield from ((PENDING, plan(number)) for number in range(10))
        cancellation.cancel()
        yield UNTIL_CANCELLED, None

    scripted.script = script
    with pytest.raises(CancelledError):
        find(scripted.peer(), Query.build("IMAGE", {"PatientID": "QA"}), profile=ARIA, cancellation=cancellation)


def test_logs_name_keywords_and_never_values(scripted, caplog):
    caplog.set_level(logging.DEBUG)
    scripted.serve([plan(1, PatientID="GEHEIM", PatientName="Geheim^Anna")])
    find(scripted.peer(), Query.build("IMAGE", {"PatientID": "GEHEIM", "PatientName": ""}), profile=ARIA)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("airflow_provider_varian")]
    assert any("PatientID" in message for message in ours)
    assert not any("geheim" in record.getMessage().lower() for record in caplog.records)
