"""The audit trail of commands: the options of each verb that asks, brings or sends."""

from __future__ import annotations

import os
import pwd

import pytest
from support.audit_schema import checked, event, participant
from support.dicom_files import image_file
from support.storage_peer import StoragePeer

from airflow_provider_varian.cli.main import main
from airflow_provider_varian.receiver.audit_sinks import AuditFile

QUERY, BEGIN, TRANSFERRED, EXPORT = "110112", "110102", "110104", "110106"
PLANS = ("-k", "PatientID=QA_TB_WL", "-k", "Modality=RTPLAN")


@pytest.fixture
def trail(tmp_path):
    path = tmp_path / "audit.xml"

    def events():
        return [event(message) for message in messages()]

    def messages():
        return [checked(line) for line in path.read_text(encoding="utf-8").splitlines()]

    events.messages, events.option = messages, ("--audit-file", path)
    return events


def test_a_search_is_told_with_the_user_of_the_system(program, trail):
    assert program("find", "--level", "IMAGE", *PLANS, *trail.option).status == 0
    (message,) = trail.messages()
    assert event(message) == QUERY
    launcher = participant(message, "110151")
    assert (launcher["UserID"], launcher["UserIsRequestor"]) == (pwd.getpwuid(os.getuid()).pw_name, "true")


def test_a_retrieval_is_told_from_the_selection_to_the_end(program, trail, tmp_path):
    command = ("retrieve", "--listen", f"127.0.0.1:{program.listen}", "--out", tmp_path / "out", *PLANS, *trail.option)
    assert program(*command).status == 0
    found = trail()
    assert (found[0], set(found)) == (QUERY, {QUERY, BEGIN, TRANSFERRED})
    assert found.count(QUERY) == 1, "a question that is put again is told once"
    assert found.count(BEGIN) == found.count(TRANSFERRED)


def test_a_dry_run_asks_and_brings_nothing(program, trail, tmp_path):
    assert program("retrieve", "--out", tmp_path / "out", *PLANS, "--dry-run", *trail.option).status == 0
    assert trail() == [QUERY]


def test_a_move_to_somebody_else_is_an_export(program, trail):
    program("move", "--destination", "NOBODY", *PLANS, *trail.option)
    found = trail()
    assert set(found) == {QUERY, BEGIN, EXPORT}
    assert found.count(BEGIN) == found.count(EXPORT)


def test_storing_is_an_export(trail, tmp_path, capsys):
    image_file(tmp_path / "export", 1)
    with StoragePeer() as peer:
        command = ["store", "--peer", f"STORAGE@127.0.0.1:{peer.port}", str(tmp_path / "export")]
        assert main([*command, *map(str, trail.option)]) == 0
    assert trail() == [BEGIN, EXPORT]
    assert "AuditMessage" not in capsys.readouterr().err


def test_without_the_option_there_is_no_trail(program, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__VARIAN__AUDIT", str(tmp_path / "configured.xml"))
    assert program("find", "--level", "IMAGE", *PLANS).status == 0
    assert not (tmp_path / "configured.xml").exists(), "that is for tasks, and for --conn"


def test_a_file_that_takes_nothing_ends_the_command_before_the_peer_is_asked(program, trail, monkeypatch):
    def full(self, messages):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AuditFile, "write", full)
    ended = program("find", "--level", "IMAGE", *PLANS, *trail.option)
    assert ended.status == 1
    assert "audit: 1 messages cannot be written to" in ended.err
    assert "No space left on device. Nothing is asked for or sent without its message" in ended.err
    assert program.daemon.counts["C-FIND"] == 0


@pytest.mark.parametrize(
    "verb", [("find", "--level", "IMAGE"), ("retrieve", "--out", "x"), ("move", "--destination", "X")]
)
def test_a_trail_that_cannot_be_had_is_wrong_usage(program, verb, tmp_path):
    ended = program(*verb, *PLANS, "--audit-file", tmp_path / "nowhere" / "audit.xml")
    assert ended.status == 2
    assert "cannot be opened" in ended.err
    assert not program.daemon.counts
