"""The daily QA of a machine: found by plan, filed by day, judged against what is expected, in words that differ."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from pydicom import dcmread

from airflow_provider_varian.errors import (
    DicomError,
    EmptyResultError,
    IncompleteRetrievalError,
    PeerUnreachableError,
    RefusedByPeerError,
    UnknownMoveDestinationError,
)
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.aria import AriaQAImagesOperator
from airflow_provider_varian.operators.machines import write_machines
from airflow_provider_varian.operators.manifest_xcom import MANIFEST_KEY
from airflow_provider_varian.operators.qa_report import SUMMARY_KEY, write_qa_report
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity

EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _machine(conn: str, **changes) -> dict:
    machine = {
        "name": "TrueBeam1",
        "dicom_conn_id": conn,
        "patient_id": "QA_TB_WL",
        "plan_label": "WL_10MV",
        "expected": {"working_days": EVERY_DAY, "minimum": 8},
        "lookback_days": 0,
    }
    return machine | changes


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _operator(conn: str, changes: dict | None = None, **kwargs) -> AriaQAImagesOperator:
    return AriaQAImagesOperator(task_id="qa", machine=_machine(conn, **(changes or {})), **kwargs)


def _summary(at) -> dict:
    (summary,) = at["ti"].xcoms(SUMMARY_KEY)
    return summary


def _images(storage: Path) -> list[Path]:
    return sorted(storage.glob("2*/*/*/*.dcm"))


def test_images_are_filed_by_the_day_of_their_acquisition_and_judged_by_day(aria, morning, storage):
    at = morning()
    told = _operator(aria, {"lookback_days": 1}).execute(at)
    summary = _summary(at)
    assert told["outcome"] == summary["outcome"] == "complete"
    assert summary["run_day"] == "2026-11-20"
    assert [(day["day"], day["images"], day["outcome"]) for day in summary["days"]] == [
        ("2026-11-18", 8, "complete"),
        ("2026-11-19", 8, "complete"),
        ("2026-11-20", 8, "complete"),
    ]
    assert len(_images(storage)) == 24
    for file in _images(storage):
        image = dcmread(file)
        day, study, series, name = file.relative_to(storage).parts
        assert (day, study, series) == (image.AcquisitionDate, image.StudyInstanceUID, image.SeriesInstanceUID)
        assert name == f"RTIMAGE.{image.SOPInstanceUID}.dcm"
        assert list(image.ImageType) == ["ORIGINAL", "PRIMARY", "PORTAL"]
        assert image.PrimaryDosimeterUnit == "MU"  # kV images lie in the same series
    assert sum(day["bytes"] for day in summary["days"]) == sum(file.stat().st_size for file in _images(storage))


def test_kv_images_come_when_they_are_wanted(aria, morning, storage):
    _operator(aria, {"kv": True}).execute(morning())
    units = [dcmread(file).PrimaryDosimeterUnit for file in _images(storage)]
    assert units.count("MINUTE") == 4
    assert units.count("MU") == 16


PORTAL_DOSE = {
    "name": "Halcyon2",
    "patient_id": "$QA Halcyon2_2026",
    "plan_label": "PDOSE_6FFF",
    "expected": {"working_days": EVERY_DAY, "minimum": 1},
}


def test_acquired_portal_dose_comes_when_it_is_wanted(aria, morning, storage):
    assert _operator(aria, PORTAL_DOSE | {"images": "portal_dose"}).execute(morning())["outcome"] == "complete"
    images = [dcmread(file) for file in _images(storage)]
    assert [image.AcquisitionDate for image in images] == ["20261119", "20261120"]
    assert {tuple(image.ImageType) for image in images} == {("ORIGINAL", "PRIMARY", "PORTAL", "ACQUIRED_DOSE")}


def test_acquired_portal_dose_is_no_portal_image(aria, morning, storage):
    with pytest.raises(EmptyResultError, match="Halcyon2, 2026-11-20: no image found"):
        _operator(aria, PORTAL_DOSE | {"images": "portal"}).execute(morning())
    assert not _images(storage)


def test_a_rerun_moves_no_image(aria, morning, daemon):
    _operator(aria).execute(morning(run_id="first"))
    moves = daemon.counts["C-MOVE"]
    at = morning(run_id="second")
    _operator(aria).execute(at)
    assert daemon.counts["C-MOVE"] == moves
    assert _summary(at)["counts"]["held"] == 16


def test_a_rerun_with_each_beam_once_moves_no_plan_either(aria, morning, daemon):
    changes = {"expected": {"working_days": EVERY_DAY, "each_beam_once": True}}
    _operator(aria, changes).execute(morning(run_id="first"))
    moves = daemon.counts["C-MOVE"]
    _operator(aria, changes).execute(morning(run_id="second"))
    assert daemon.counts["C-MOVE"] == moves


def test_a_day_is_judged_up_to_the_end_of_the_interval(aria, context, storage):
    at = context(
        start=_at("2026-11-19T06:34:00+01:00"),
        end=_at("2026-11-20T06:34:00+01:00"),
    )
    with pytest.raises(IncompleteRetrievalError, match="2026-11-20: short"):
        _operator(aria).execute(at)
    own = _summary(at)["days"][-1]
    assert 0 < own["images"] < 8


def test_nothing_on_an_expected_day_fails_by_name(aria, context):
    at = context(start=_at("2026-11-21T07:45+01:00"), end=_at("2026-11-22T07:45+01:00"))
    with pytest.raises(EmptyResultError, match="TrueBeam1, 2026-11-22: no image found, at least 8 expected") as caught:
        _operator(aria).execute(at)
    assert caught.value.transient
    summary = _summary(at)
    assert summary["outcome"] == "empty"
    assert [day["outcome"] for day in summary["days"]] == ["empty", "empty"]
    manifest = at["ti"].xcoms(MANIFEST_KEY)[-1]
    assert (manifest["outcome"], manifest["counts"]["found"]) == ("empty", 0)
    assert manifest["uri"] == summary["manifest"]
    assert json.loads(Path(manifest["uri"].removeprefix("file://")).read_text())["outcome"] == "empty"


def test_nothing_on_another_day_is_a_skip_and_the_look_back_is_still_retrieved(aria, context, storage):
    at = context(start=_at("2026-11-20T07:45+01:00"), end=_at("2026-11-21T07:45+01:00"))
    expected = {"working_days": EVERY_DAY, "holidays": ["2026-11-21"], "minimum": 8}
    with pytest.raises(AirflowSkipException, match="TrueBeam1, 2026-11-21"):
        _operator(aria, {"expected": expected, "lookback_days": 1}).execute(at)
    assert _summary(at)["outcome"] == "not_expected"
    assert len(_images(storage)) == 16


def test_look_back_days_do_not_set_the_state_but_are_reported(aria, morning, daemon, storage):
    gone = {file for file in _listed(aria) if ".20261119." in file}
    daemon.holdings.hidden = lambda uid: uid in gone
    at = morning()
    _operator(aria, {"lookback_days": 1}).execute(at)
    assert [day["outcome"] for day in _summary(at)["days"]] == ["complete", "empty", "complete"]


def _listed(conn: str) -> list[str]:
    from airflow_provider_varian.hooks.dicom import DicomHook

    keys = {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE", "PrimaryDosimeterUnit": "MU"}
    return [answer["SOPInstanceUID"] for answer in DicomHook(conn).find("IMAGE", keys).answers]


def test_late_images_of_a_look_back_day_come_with_the_next_run(aria, context, morning, daemon, storage):
    late = sorted(uid for uid in _listed(aria) if ".20261119." in uid)[:3]
    daemon.holdings.hidden = lambda uid: uid in late
    first = context(start=_at("2026-11-18T07:45+01:00"), end=_at("2026-11-19T07:45+01:00"))
    with pytest.raises(IncompleteRetrievalError, match="short: 5 found, at least 8 expected"):
        _operator(aria).execute(first)
    daemon.holdings.hidden = lambda uid: False
    before = daemon.counts["C-MOVE"]
    second = morning()
    _operator(aria).execute(second)
    assert [day["outcome"] for day in _summary(second)["days"]] == ["complete"] * 2
    assert daemon.counts["C-MOVE"] == before + 3 + 8  # the late ones and the new day, nothing twice


@pytest.mark.parametrize(
    ("fault", "word"), [("hidden", "short: 7 found"), ("broken", "partial: 8 found.*only 7 of them received")]
)
def test_missing_at_the_daemon_is_short_and_not_received_is_partial(aria, morning, daemon, fault, word):
    lost = next(uid for uid in _listed(aria) if ".20261120." in uid)
    setattr(daemon.holdings, fault, lambda uid: uid == lost)
    with pytest.raises(IncompleteRetrievalError, match=word):
        _operator(aria).execute(morning())


def test_short_may_be_accepted(aria, morning, daemon):
    lost = next(uid for uid in _listed(aria) if ".20261120." in uid)
    daemon.holdings.hidden = lambda uid: uid == lost
    assert _operator(aria, on_partial="accept").execute(morning())["outcome"] == "short"


def test_a_list_that_still_grows_is_asked_for_until_it_stands_still(aria, morning, daemon):
    late = sorted(uid for uid in _listed(aria) if ".20261120." in uid)[:3]
    before = daemon.counts["C-FIND"]

    def hidden(uid):
        rounds = daemon.counts["C-FIND"] - before - 1  # the first query is for the plan
        return uid in late[max(rounds - 1, 0) :]

    daemon.holdings.hidden = hidden
    at = morning()
    assert _operator(aria).execute(at)["outcome"] == "complete"
    assert [day["found"] for day in _summary(at)["days"]] == [8, 8]
    # The plan, three that grow, three of the same, and three of the same after the transfer.
    assert daemon.counts["C-FIND"] - before == 1 + 3 + 3 + 3


def test_an_image_that_appears_during_the_transfer_is_retrieved_and_counts(aria, morning, daemon):
    late = next(uid for uid in sorted(_listed(aria)) if ".20261120." in uid)
    daemon.holdings.hidden = lambda uid: uid == late and not daemon.counts["C-MOVE"]
    at = morning()
    assert _operator(aria).execute(at)["outcome"] == "complete"
    assert [day["found"] for day in _summary(at)["days"]] == [8, 8]
    manifest = json.loads(Path(at["ti"].xcoms(MANIFEST_KEY)[-1]["uri"].removeprefix("file://")).read_text())
    assert [one["sop_instance_uid"] for one in manifest["instances"] if one.get("found_late")] == [late]


EACH_BEAM = {"expected": {"working_days": EVERY_DAY, "each_beam_once": True}}


def test_lists_and_retrievals_are_as_thorough_as_the_task_is_told(aria, morning, monkeypatch):
    from airflow_provider_varian.aria import listing as lists

    inner, retrieve, listed, told = lists.list_until_stable, DicomHook.retrieve, [], []

    def listing(ask, *, profile, **kwargs):
        listed.append((profile.stable_counts, profile.stable_interval_seconds))
        return inner(ask, profile=profile, **kwargs)

    def retrieving(self, request, **kwargs):
        told.append({name: kwargs[name] for name in settings})
        return retrieve(self, request, **kwargs)

    monkeypatch.setattr(lists, "list_until_stable", listing)
    monkeypatch.setattr(DicomHook, "retrieve", retrieving)
    settings = {
        "verify": "hash",
        "refresh": "always",
        "recheck_rounds": 1,
        "stable_counts": 2,
        "stable_interval_seconds": 0.02,
        "settle_seconds": 0.3,
        "port_wait_seconds": 7,
    }
    assert _operator(aria, EACH_BEAM, **settings).execute(morning())["outcome"] == "complete"
    assert told == [settings, settings]  # the images, and the plan
    assert listed == [(2, 0.02)] * 2  # before and after the transfer


@pytest.mark.parametrize(("settings", "lists"), [({}, 2 * 3), ({"recheck_rounds": 0, "stable_counts": 1}, 1)])
def test_images_are_listed_as_often_as_the_task_is_told(aria, morning, daemon, settings, lists):
    _operator(aria, **settings).execute(morning())
    assert daemon.counts["C-FIND"] == 1 + lists  # the plan, and the images


def test_held_images_are_verified_by_hash_when_the_task_is_told_to(aria, morning, storage):
    _operator(aria).execute(morning())
    image = _images(storage)[-1]
    image.write_bytes(image.read_bytes()[:-2] + b"!!")
    assert _operator(aria).execute(morning())["outcome"] == "complete"
    with pytest.raises(IncompleteRetrievalError, match="2026-11-20: partial"):
        _operator(aria, verify="hash").execute(morning())


@pytest.mark.parametrize(("refresh", "moves"), [("if_changed", 0), ("never", 0), ("always", 1)])
def test_a_held_plan_is_fetched_again_when_the_task_is_told_to_and_no_image_is(aria, morning, daemon, refresh, moves):
    _operator(aria, EACH_BEAM).execute(morning())
    before = daemon.counts["C-MOVE"]
    assert _operator(aria, EACH_BEAM, refresh=refresh).execute(morning(run_id="second"))["outcome"] == "complete"
    assert daemon.counts["C-MOVE"] - before == moves


@pytest.mark.parametrize("setting", [{"verify": "sha"}, {"refresh": "sometimes"}], ids=str)
def test_what_makes_an_object_held_is_one_of_some_words(aria, morning, daemon, setting):
    with pytest.raises(AirflowFailException, match="Choose one of"):
        _operator(aria, **setting).execute(morning())
    assert daemon.counts["C-FIND"] == 0


def test_the_suspicion_of_a_crop_is_told_to_summary_and_report(aria, morning, context, storage, monkeypatch, caplog):
    from airflow_provider_varian.query import asking

    monkeypatch.setattr(asking, "_SMALLEST_ROUND_COUNT", 6)
    rows = write_machines(context(task_id="machines"), [_machine(aria)])
    at = morning()
    AriaQAImagesOperator(task_id="qa", row_key=rows.keys[0], rows_uri=rows.uri).execute(at)
    warnings = _summary(at)["warnings"]
    # Six plans, and a number of images that six divides.
    assert [warning.split()[0] for warning in warnings if "is a round number" in warning] == ["6", "24"]
    assert len(warnings) == len(set(warnings))
    caplog.clear()
    uri = write_qa_report(context(task_id="summary"), rows.uri, [_summary(at)])
    (machine,) = json.loads(Path(uri.removeprefix("file://")).read_text())["machines"]
    assert machine["warnings"] == warnings
    assert all(warning in caplog.text for warning in warnings)


def test_a_machine_without_a_result_is_in_the_report(aria, context, storage):
    rows = write_machines(context(task_id="machines"), [_machine(aria)])
    uri = write_qa_report(context(task_id="summary"), rows.uri, [])
    (machine,) = json.loads(Path(uri.removeprefix("file://")).read_text())["machines"]
    assert (machine["machine"], machine["outcome"], machine["warnings"]) == ("TrueBeam1", "no result", [])


def test_a_retrieval_that_breaks_off_names_the_manifest_that_it_left(aria, morning, daemon):
    daemon.trust([TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=1)])
    at = morning()
    with pytest.raises(DicomError):
        _operator(aria).execute(at)
    summary = _summary(at)
    assert summary["outcome"] == "failed"
    assert summary["manifest"] == at["ti"].xcoms(MANIFEST_KEY)[-1]["uri"]
    assert Path(summary["manifest"].removeprefix("file://")).is_file()


def test_each_beam_once_names_the_beam_without_an_image(aria, morning, daemon):
    lost = next(uid for uid in _listed(aria) if ".20261120." in uid)
    daemon.holdings.hidden = lambda uid: uid == lost
    changes = {"expected": {"working_days": EVERY_DAY, "each_beam_once": True}}
    with pytest.raises(IncompleteRetrievalError, match=r"no image of beam \d"):
        _operator(aria, changes).execute(morning())


def test_images_whose_energy_the_answer_leaves_open_are_decided_by_the_object(
    aria, morning, daemon, storage, monkeypatch
):
    _answer_empty(monkeypatch, "PrimaryDosimeterUnit")
    at = morning()
    _operator(aria).execute(at)
    units = [dcmread(file).PrimaryDosimeterUnit for file in _images(storage)]
    assert "MINUTE" in units  # they had to be looked at
    assert [day["images"] for day in _summary(at)["days"]] == [8, 8]  # and do not count


def test_a_beam_that_the_answer_does_not_name_is_told_by_the_object(aria, morning, daemon, monkeypatch):
    _answer_empty(monkeypatch, "ReferencedBeamNumber")
    at = morning()
    _operator(aria, {"expected": {"working_days": EVERY_DAY, "each_beam_once": True}}).execute(at)
    assert [day["missing_beams"] for day in _summary(at)["days"]] == [[], []]


def test_the_plan_has_a_retrieval_of_its_own(aria, morning, storage):
    at = morning()
    _operator(aria, {"expected": {"working_days": EVERY_DAY, "each_beam_once": True}}).execute(at)
    ids = {path.stem for path in storage.rglob("*.json") if path.parent.name == ".dicom"}
    assert len(ids) == 2


def _answer_empty(monkeypatch, keyword):
    """Let the daemon answer a key empty, as some do."""
    from airflow_provider_varian.simulator.daemon import find_service

    inner = find_service.answer

    def emptied(*args, **kwargs):
        answer = inner(*args, **kwargs)
        if keyword in answer:
            setattr(answer, keyword, None)
        return answer

    monkeypatch.setattr(find_service, "answer", emptied)


def test_the_form_may_name_a_day(aria, context, storage):
    at = context()
    _operator(aria, first_day="2026-11-17").execute(at)
    assert {file.relative_to(storage).parts[0] for file in _images(storage)} == {"20261117"}
    assert _summary(at)["run_day"] == "2026-11-17"


def test_a_run_without_a_logical_date_judges_the_last_24_hours(aria, context):
    at = context(run_after=_at("2026-11-20T09:00+01:00"))
    assert _operator(aria).execute(at)["outcome"] == "complete"
    assert _summary(at)["run_day"] == str(date(2026, 11, 20))


def test_a_machine_is_found_by_its_opaque_key(aria, morning, context):
    rows = write_machines(context(task_id="machines"), [_machine(aria), _machine(aria, name="Other")])
    at = morning()
    operator = AriaQAImagesOperator(task_id="qa", row_key="{{ key }}", rows_uri="{{ uri }}")
    operator.render_template_fields({"key": rows.keys[1], "uri": rows.uri})
    operator.execute(at)
    assert _summary(at)["machine"] == "Other"
    assert _summary(at)["row_key"] == rows.keys[1]
    assert at["machine_name"] == "Other"  # what map_index_template shows


@pytest.mark.parametrize(
    "arguments", [{}, {"row_key": "a"}, {"machine": {"name": "x"}, "row_key": "a", "rows_uri": "/x"}]
)
def test_no_machine_or_two_is_refused(context, arguments):
    with pytest.raises(AirflowFailException, match="Give machine, or row_key and rows_uri"):
        AriaQAImagesOperator(task_id="qa", **arguments).execute(context())


def test_a_plan_that_is_not_there_fails_at_once_with_the_nearest(aria, morning):
    at = morning()
    with pytest.raises(AirflowFailException, match="WL_10MV"):
        _operator(aria, {"plan_label": "WL_10NV"}).execute(at)
    summary = _summary(at)
    assert summary["outcome"] == "failed"
    assert summary["manifest"] is None
    assert "WL_10MV" in summary["message"]


def test_the_same_label_in_two_courses_needs_the_course(aria, morning):
    changes = {"plan_label": "PF_6MV", "expected": {"working_days": EVERY_DAY, "minimum": 1}}
    with pytest.raises(AirflowFailException, match="Set course"):
        _operator(aria, changes).execute(morning())
    assert _operator(aria, changes | {"course": "QA"}).execute(morning())["outcome"] == "complete"


def test_a_connection_without_a_time_zone_fails_at_once(connect, daemon, morning, receiver_port):
    zoneless = connect("zoneless", port=daemon.address[1], receiver_port=receiver_port)
    with pytest.raises(AirflowFailException, match="timezone"):
        _operator(zoneless).execute(morning())


def test_what_went_wrong_is_told_to_the_summary_and_keeps_its_retries(connect, receiver_port, morning):
    at = morning()
    with pytest.raises(PeerUnreachableError):
        _operator(connect("none", port=receiver_port, timezone="Europe/Zurich")).execute(at)
    assert _summary(at)["outcome"] == "failed"


def test_the_patient_id_is_in_neither_log_nor_xcom_nor_manifest(aria, morning, storage, caplog):
    caplog.set_level(logging.INFO)
    at = morning()
    _operator(aria).execute(at)
    assert "TrueBeam1, 2026-11-20: complete" in caplog.text
    manifest = Path(at["ti"].xcoms(MANIFEST_KEY)[-1]["uri"].removeprefix("file://")).read_text()
    for text in (caplog.text, json.dumps(at["ti"].pushed), manifest):
        assert "QA_TB_WL" not in text


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (UnknownMoveDestinationError("unknown destination", status=0xA801), AirflowFailException),
        (RefusedByPeerError("these keys are not taken", status=0xA900), IncompleteRetrievalError),
        (PeerUnreachableError("refused"), IncompleteRetrievalError),
    ],
    ids=lambda value: getattr(value, "what", None),
)
def test_a_partial_day_is_retried_unless_what_went_wrong_would_meet_the_retry_too(
    aria, morning, daemon, monkeypatch, error, raised
):
    retrieve, lost = DicomHook.retrieve, []

    def lose_one(self, request, **kwargs):
        of_today = [item for item in request.expected if item.values["AcquisitionDate"] == "20261120"]
        lost.append(of_today[0].sop_instance_uid)
        return replace(retrieve(self, request, **kwargs), error=error)

    monkeypatch.setattr(DicomHook, "retrieve", lose_one)
    daemon.holdings.broken = lambda uid: uid in lost
    at = morning()
    with pytest.raises(raised, match=r"only \d of them received"):
        _operator(aria).execute(at)
    assert _summary(at)["outcome"] == "partial"
    assert _operator(aria, on_partial="accept").execute(morning())["outcome"] == "partial"


@pytest.mark.parametrize("minimum", [7, 8])
def test_an_image_that_leaves_the_list_before_it_came_keeps_the_day_partial(aria, morning, daemon, minimum):
    lost = next(uid for uid in _listed(aria) if ".20261120." in uid)
    operator = _operator(aria, {"expected": {"working_days": EVERY_DAY, "minimum": minimum}})
    at = morning()
    daemon.holdings.broken = lambda uid: uid == lost
    with pytest.raises(IncompleteRetrievalError, match="only 7 of them received"):
        operator.execute(at)

    daemon.holdings.hidden = lambda uid: uid == lost
    with pytest.raises(IncompleteRetrievalError, match=r"partial: .*; 1 that an earlier try found did not come"):
        operator.execute(at)
    assert at["ti"].xcoms(SUMMARY_KEY)[-1]["days"][-1]["outcome"] == "partial"

    # No list names it, but it comes when it is asked for by name: the object says of which day it is.
    moves = daemon.counts["C-MOVE"]
    daemon.holdings.hidden = lambda uid: uid == lost and daemon.counts["C-MOVE"] == moves
    daemon.holdings.broken = lambda uid: False
    operator.execute(at)
    own = at["ti"].xcoms(SUMMARY_KEY)[-1]["days"][-1]
    assert (own["outcome"], own["images"], own["found"]) == ("complete", 8, 8)
