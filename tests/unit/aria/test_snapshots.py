from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from pathlib import PurePosixPath

import pytest

from airflow_provider_varian.aria.snapshots import (
    PlanState,
    Snapshot,
    read_snapshot,
    snapshot_path,
    write_snapshot,
)
from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.layout import safe_value

APPROVED = PlanState(status="APPROVED", reviewed="20260107101500", planned="20260105")
SNAPSHOT = Snapshot(
    taken=datetime(2026, 1, 8, 6, 45, 12, tzinfo=UTC),
    run="run-1",
    scope="clinic",
    until=datetime(2026, 1, 8, 6, 30, tzinfo=UTC),
    planned_from=date(2025, 10, 1),
    plans={"1.2.1": APPROVED, "1.2.2": PlanState(status="UNAPPROVED"), "1.2.3": APPROVED},
    before={"1.2.1": PlanState(status="UNAPPROVED"), "1.2.3": None},
)


@pytest.fixture
def destination(tmp_path):
    return Destination(tmp_path / "archive")


def file_of(tmp_path):
    return tmp_path / "archive" / ".dicom" / "snapshots" / "weekly.json"


def test_what_was_written_is_what_is_read(destination):
    assert read_snapshot(destination, "weekly") is None
    write_snapshot(destination, "weekly", SNAPSHOT)
    assert read_snapshot(destination, "weekly") == SNAPSHOT
    assert read_snapshot(destination, "other") is None


def test_it_holds_uids_states_and_dates_and_nothing_else(destination, tmp_path):
    write_snapshot(destination, "weekly", SNAPSHOT)
    assert json.loads(file_of(tmp_path).read_text()) == {
        "schema_version": 1,
        "taken": "2026-01-08T06:45:12+00:00",
        "run": "run-1",
        "until": "2026-01-08T06:30:00+00:00",
        "candidates": {"scope": "clinic", "planned_from": "2025-10-01"},
        "plans": {
            "1.2.1": {"status": "APPROVED", "reviewed": "20260107101500", "planned": "20260105"},
            "1.2.2": {"status": "UNAPPROVED"},
            "1.2.3": {"status": "APPROVED", "reviewed": "20260107101500", "planned": "20260105"},
        },
        "before": {"1.2.1": {"status": "UNAPPROVED"}, "1.2.3": None},
    }


def test_the_states_before_the_run_can_be_told_again():
    assert SNAPSHOT.rolled_back() == {
        "1.2.1": PlanState(status="UNAPPROVED"),
        "1.2.2": PlanState(status="UNAPPROVED"),
    }


def test_it_replaces_the_one_before_whole_or_not_at_all(destination, tmp_path, monkeypatch):
    write_snapshot(destination, "weekly", SNAPSHOT)
    before = file_of(tmp_path).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DestinationWriteError, match="No space"):
            write_snapshot(destination, "weekly", Snapshot(taken=SNAPSHOT.taken, run="run-2", scope="clinic"))
    assert file_of(tmp_path).read_bytes() == before
    write_snapshot(destination, "weekly", Snapshot(taken=SNAPSHOT.taken, run="run-2", scope="clinic"))
    assert read_snapshot(destination, "weekly").run == "run-2"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "a\0b", "x" * 129, "dot."])
def test_a_name_is_a_plain_file_name(name):
    with pytest.raises(ConfigurationError, match="cannot be called"):
        snapshot_path(name)


def test_a_name_becomes_a_file():
    assert snapshot_path("weekly-2.1") == PurePosixPath(".dicom/snapshots/weekly-2.1.json")
    name = safe_value("wöchentlich/export plans.")
    assert snapshot_path(name) == PurePosixPath(f".dicom/snapshots/{name}.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "[]",
        "{}",
        '{"schema_version": 1}',
        json.dumps(SNAPSHOT.to_json() | {"taken": "2026-01-08T06:45:12"}),
        json.dumps(SNAPSHOT.to_json() | {"plans": {"1.2": "APPROVED"}}),
        json.dumps(SNAPSHOT.to_json() | {"plans": {"1.2": {"status": 1}}}),
    ],
)
def test_one_that_cannot_be_read_is_never_taken_for_none(destination, tmp_path, text):
    write_snapshot(destination, "weekly", SNAPSHOT)
    file_of(tmp_path).write_text(text)
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        read_snapshot(destination, "weekly")
    assert "backup" in caught.value.hint


def test_one_of_a_later_version_is_refused(destination, tmp_path):
    write_snapshot(destination, "weekly", SNAPSHOT)
    file_of(tmp_path).write_text(json.dumps(SNAPSHOT.to_json() | {"schema_version": 2}))
    with pytest.raises(ConfigurationError, match="schema version 2") as caught:
        read_snapshot(destination, "weekly")
    assert "a snapshot of another name" in caught.value.hint
