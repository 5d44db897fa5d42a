"""Outcome, ledger, manifest, request and identity: words and numbers of one retrieval."""

from __future__ import annotations

import json
import logging
from pathlib import PurePosixPath

import pytest

from airflow_provider_varian.errors import ConfigurationError, QueryError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.model import InformationModel
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.retrieval.audit import audit
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.identity import retrieval_id_of_command, retrieval_id_of_task
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest, RequestReport, load_manifest
from airflow_provider_varian.retrieval.missing import judge_missing
from airflow_provider_varian.retrieval.outcome import Outcome, State, outcome_of
from airflow_provider_varian.retrieval.plan import MAX_UIDS, Stage, asks_of, stages_of
from airflow_provider_varian.retrieval.request import Expected, RetrievalRequest


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        ({"found": 0, "verified": 0}, Outcome.EMPTY),
        ({"found": 0, "verified": 0, "minimum": 0}, Outcome.EMPTY),
        ({"found": 0, "verified": 0, "minimum": 3}, Outcome.SHORT),
        ({"found": 0, "verified": 0, "minimum": 3, "limited": True}, Outcome.LIMITED),
        ({"found": 3, "verified": 3}, Outcome.COMPLETE),
        ({"found": 3, "verified": 3, "minimum": 3}, Outcome.COMPLETE),
        ({"found": 3, "verified": 3, "minimum": 4}, Outcome.SHORT),
        ({"found": 3, "verified": 2}, Outcome.PARTIAL),
        ({"found": 3, "verified": 2, "minimum": 4}, Outcome.PARTIAL),
        ({"found": 3, "verified": 2, "limited": True}, Outcome.PARTIAL),
        ({"found": 3, "verified": 3, "limited": True}, Outcome.LIMITED),
        ({"found": 3, "verified": 3, "limited": True, "minimum": 4}, Outcome.LIMITED),
    ],
)
def test_the_outcome_follows_from_the_numbers(numbers, outcome):
    assert outcome_of(**numbers) is outcome


def ledger():
    return Ledger(
        [
            Entry(sop_instance_uid="1.1", state=State.VERIFIED, path="a/1.1.dcm", bytes=10, held=True),
            Entry(sop_instance_uid="1.2", state=State.CONFLICT, path="a/1.2.dcm", bytes=5, conflicts=["a/x.dcm"]),
            Entry(sop_instance_uid="1.3"),
            Entry(sop_instance_uid="1.4", state=State.FAILED, reason="broken"),
        ],
        [Entry(sop_instance_uid="1.9", state=State.RECEIVED)],
    )


def test_a_conflict_is_here_but_does_not_count_as_verified():
    account = ledger()
    assert [entry.sop_instance_uid for entry in account.outstanding] == ["1.3", "1.4"]
    assert account.counts() == {
        "found": 4,
        "verified": 1,
        "missing": 0,
        "failed": 1,
        "conflict": 1,
        "held": 1,
        "duplicate": 0,
        "unexpected": 1,
        "bytes": 15,
    }


def test_what_did_not_come_is_missing_and_what_failed_stays_failed():
    account = ledger()
    judge_missing(account)
    assert [str(entry.state) for entry in account.entries.values()] == ["verified", "conflict", "missing", "failed"]


def test_a_manifest_survives_storage(tmp_path):
    destination = Destination(tmp_path)
    manifest = Manifest(
        id="r-1",
        request={"level": "SERIES"},
        peer={"ae_title": "VMSDBD"},
        ledger=ledger(),
        outcome=Outcome.PARTIAL,
        message="1 of 4",
        attempts=2,
        layout="{SOPInstanceUID}.dcm",
        requests=[RequestReport(attempt=1, method="C-MOVE", level="SERIES", asked=4, status=0xB000, failed=1)],
        fallbacks=[{"from": "a", "to": "b", "reason": "c"}],
        warnings=["w"],
        timings={"started": "x"},
    )
    manifest.write(destination)
    assert json.loads((tmp_path / ".dicom" / "r-1.json").read_text())["requests"][0]["status"] == "0xB000"
    again = load_manifest(destination, "r-1")
    assert again.to_json() == manifest.to_json()
    assert again.ledger.entries["1.2"].state is State.CONFLICT


def test_a_manifest_of_another_version_is_refused(tmp_path):
    destination = Destination(tmp_path)
    destination.write_text(PurePosixPath(".dicom/r-1.json"), '{"schema_version": 99}')
    with pytest.raises(ConfigurationError, match="99"):
        load_manifest(destination, "r-1")


def test_an_unreadable_manifest_is_said_and_starts_anew(tmp_path, caplog):
    destination = Destination(tmp_path)
    destination.write_text(PurePosixPath(".dicom/r-1.json"), "{")
    with caplog.at_level(logging.WARNING):
        assert load_manifest(destination, "r-1") is None
    assert "not readable" in caplog.text


def changed(**values):
    """Return a good manifest's text with other values; None takes one out."""
    good = Manifest(id="r-1", request={"level": "SERIES", "uids": {}}, ledger=ledger()).to_json()
    return json.dumps({key: value for key, value in (good | values).items() if value is not None})


GOOD = {"sop_instance_uid": "1.1", "state": "verified"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "5",
        '"text"',
        "{}",
        "[" * 100_000,
        changed(schema_version="1"),
        changed(schema_version=0),
        changed(instances=None),
        changed(instances=5),
        changed(instances=[5]),
        changed(instances=["1.2.3"]),
        changed(instances=[{}]),
        changed(instances=[{"sop_instance_uid": 5}]),
        changed(instances=[GOOD | {"state": "lost"}]),
        changed(instances=[GOOD | {"state": []}]),
        changed(instances=[GOOD | {"path": 5}]),
        changed(instances=[GOOD | {"bytes": "5"}]),
        changed(instances=[GOOD | {"attempts": "5"}]),
        changed(instances=[GOOD | {"conflicts": 5}]),
        changed(instances=[GOOD | {"conflicts": "a/b"}]),
        changed(instances=[GOOD | {"conflicts": [5]}]),
        changed(unexpected=[None]),
        changed(requests=[5]),
        changed(requests=[{"status": "0x0000"}]),
        changed(requests=[{"attempt": 1, "method": "C-GET", "level": "IMAGE", "asked": 1, "seconds": "1"}]),
        changed(request="SERIES"),
        changed(request={"uids": "1.2"}),
        changed(request={"uids": {"StudyInstanceUID": 5}}),
        changed(attempts="many"),
        changed(outcome="done"),
        changed(peer=5),
    ],
    ids=lambda text: text[:20],
)
def test_a_manifest_of_any_other_shape_is_unreadable(tmp_path, caplog, text):
    destination = Destination(tmp_path)
    destination.write_text(PurePosixPath(".dicom/r-1.json"), text)
    with caplog.at_level(logging.WARNING):
        assert load_manifest(destination, "r-1") is None
    assert "not readable" in caplog.text


def test_a_manifest_that_is_no_text_is_unreadable(tmp_path, caplog):
    (tmp_path / ".dicom").mkdir()
    (tmp_path / ".dicom" / "r-1.json").write_bytes(b"\xff\xfe{}")
    assert load_manifest(Destination(tmp_path), "r-1") is None
    assert "not readable" in caplog.text


def test_the_manifest_that_the_shapes_are_made_of_is_readable(tmp_path):
    Destination(tmp_path).write_text(PurePosixPath(".dicom/r-1.json"), changed(instances=[GOOD]))
    assert list(load_manifest(Destination(tmp_path), "r-1").ledger.entries) == ["1.1"]


@pytest.mark.parametrize("uid", ["", "1.2.x", "../1.2"])
def test_an_instance_that_is_named_by_no_uid_is_left_out_of_a_manifest_alone(tmp_path, caplog, uid):
    bad = {"sop_instance_uid": uid, "state": "found"}
    Destination(tmp_path).write_text(PurePosixPath(".dicom/r-1.json"), changed(instances=[bad, GOOD], unexpected=[bad]))
    read = load_manifest(Destination(tmp_path), "r-1")
    assert (list(read.ledger.entries), list(read.ledger.unexpected)) == (["1.1"], [])
    assert "an instance has a SOP Instance UID that is no UID; it is left out" in caplog.text


def test_verifying_a_manifest_names_what_is_gone_or_changed(tmp_path):
    destination = Destination(tmp_path)
    for name in ("1.1", "1.2", "1.3"):
        (tmp_path / name).write_bytes(b"12345")
    entries = [
        Entry(sop_instance_uid="1.1", state=State.VERIFIED, path="1.1", bytes=5, sha256="0" * 64),
        Entry(sop_instance_uid="1.2", state=State.VERIFIED, path="1.2", bytes=4),
        Entry(sop_instance_uid="1.3", state=State.VERIFIED, path="1.3", bytes=5),
        Entry(sop_instance_uid="1.4", state=State.VERIFIED, path="1.4", bytes=5),
    ]
    wrong = audit(Manifest(id="x", ledger=Ledger(entries)), destination).differences
    assert wrong == {
        "1.1": "has another SHA-256",
        "1.2": "has 5 bytes instead of 4",
        "1.4": "not at its final path",
    }


def test_a_task_has_the_same_id_at_each_try_and_another_for_each_run():
    base = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0}
    assert retrieval_id_of_task(**base) == retrieval_id_of_task(**base)
    others = {
        retrieval_id_of_task(**{**base, key: value})
        for key, value in [("dag_id", "x"), ("run_id", "x"), ("task_id", "x"), ("map_index", 1)]
    }
    assert len(others | {retrieval_id_of_task(**base)}) == 5


def test_a_commands_id_hangs_on_the_destinations_random_id():
    base = {"peer": "A@h:1", "destination": "/x", "destination_id": "1"}
    first = retrieval_id_of_command(**base, request={"a": "1", "b": ["2"]})
    assert first == retrieval_id_of_command(**base, request={"b": ["2"], "a": "1"})
    assert first != retrieval_id_of_command(**{**base, "destination_id": "2"}, request={"a": "1", "b": ["2"]})


def test_a_command_for_a_part_has_an_id_of_its_own_and_one_for_the_whole_keeps_the_one_it_had():
    base = {"peer": "A@h:1", "destination": "/x", "destination_id": "1", "request": {"level": "IMAGE", "keys": {}}}
    whole = retrieval_id_of_command(**base, limit=None, minimum=None)
    # Written by versions that knew no limit here: manifests that lie at their users' under this name.
    assert whole == retrieval_id_of_command(**base) == "915076a1-17e1-591e-a262-27f2601d7f84"
    parts = [{"limit": 2}, {"limit": 3}, {"minimum": 2}, {"limit": 2, "minimum": 2}]
    assert len({whole, *(retrieval_id_of_command(**base, **part) for part in parts)}) == 5


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        (Level.STUDY, {}),
        (Level.STUDY, {"SeriesInstanceUID": "1.2"}),
        (Level.SERIES, {"SeriesInstanceUID": "1.2", "Modality": "CT"}),
        (Level.SERIES, {"SeriesInstanceUID": "1.2*"}),
        (Level.SERIES, {"SeriesInstanceUID": ""}),
        (Level.PATIENT, {"PatientID": ["a", "b"]}),
        (Level.IMAGE, {"SeriesInstanceUID": "1.2"}),
    ],
)
def test_keys_that_do_not_fit_the_level_are_refused(level, keys):
    with pytest.raises(QueryError) as caught:
        RetrievalRequest(level=level, keys=keys)
    assert not any(str(value) in str(caught.value) for value in keys.values() if value and isinstance(value, str))


PLAIN = Profile(name="plain")


def expected(count, *, series="1.5", study="1.4"):
    return tuple(
        Expected(sop_instance_uid=f"{series}.{n}", study_instance_uid=study, series_instance_uid=series)
        for n in range(count)
    )


def account_of(request):
    return Ledger(item.entry() for item in request.expected)


def test_a_patients_id_is_sent_in_patient_root_alone():
    request = RetrievalRequest(level=Level.PATIENT, keys={"PatientID": "Ärger"}, expected=expected(3))
    (ask,) = asks_of(Stage.AS_ASKED, request, account_of(request), PLAIN)
    assert ask.identifier(InformationModel.PATIENT_ROOT).PatientID == "Ärger"
    assert ask.identifier(InformationModel.PATIENT_ROOT).SpecificCharacterSet == "ISO_IR 192"
    (image,) = asks_of(Stage.IMAGE, request, account_of(request), PLAIN)
    assert "PatientID" in image.identifier(InformationModel.PATIENT_ROOT)
    assert "PatientID" not in image.identifier(InformationModel.STUDY_ROOT)
    assert "SpecificCharacterSet" not in image.identifier(InformationModel.STUDY_ROOT)


def test_identifiers_carry_level_unique_keys_and_nothing_else():
    request = RetrievalRequest(level=Level.SERIES, keys={"SeriesInstanceUID": "1.5"}, expected=expected(2))
    for stage in stages_of(request):
        for ask in asks_of(stage, request, account_of(request), PLAIN):
            keywords = {element.keyword for element in ask.identifier(InformationModel.STUDY_ROOT)}
            assert keywords - {"SOPInstanceUID"} == {"QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID"}


def test_a_study_is_asked_for_whole_then_by_series_then_by_image():
    images = (*expected(2, series="1.5"), *expected(2, series="1.6"))
    request = RetrievalRequest(level=Level.STUDY, keys={"StudyInstanceUID": "1.4"}, expected=images)
    ledger = account_of(request)
    levels = [[str(ask.level) for ask in asks_of(stage, request, ledger, PLAIN)] for stage in stages_of(request)]
    assert levels == [["STUDY"], ["SERIES", "SERIES"], ["IMAGE", "IMAGE"], ["IMAGE"] * 4]
    ledger.entries["1.5.0"].state = State.VERIFIED
    levels = [[str(ask.level) for ask in asks_of(stage, request, ledger, PLAIN)] for stage in stages_of(request)]
    assert levels == [["IMAGE", "IMAGE"], ["IMAGE", "SERIES"], ["IMAGE", "IMAGE"], ["IMAGE"] * 3]


def test_lists_of_uids_are_cut_and_only_sent_where_the_peer_takes_them():
    images = expected(MAX_UIDS + 1)
    request = RetrievalRequest(level=Level.IMAGE, expected=images)
    assert [len(ask.brings) for ask in asks_of(Stage.AS_ASKED, request, account_of(request), PLAIN)] == [MAX_UIDS, 1]
    alone = PLAIN.overridden({"uid_lists": False})
    asks = asks_of(Stage.AS_ASKED, request, account_of(request), alone)
    assert [len(ask.brings) for ask in asks] == [1] * (MAX_UIDS + 1)


def test_nothing_outstanding_is_nothing_to_ask():
    request = RetrievalRequest(level=Level.SERIES, keys={"SeriesInstanceUID": "1.5"}, expected=expected(1))
    account = account_of(request)
    account.entries["1.5.0"].state = State.VERIFIED
    assert all(asks_of(stage, request, account, PLAIN) == [] for stage in Stage)
