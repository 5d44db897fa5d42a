"""Where manifests are found, and which of them are read."""

from __future__ import annotations

import json
import secrets

import pytest
from support.manifests import complete, file, held, missing, moments, sent, write
from upath import UPath

from airflow_provider_varian.reports.account import Account, find_accounts, missing_of
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.outcome import Outcome, State


def ids(accounts):
    return [account.document.id for account in accounts]


def spoilt(path, **values):
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | values))


def test_a_manifest_is_read_with_the_root_that_its_paths_are_below(tmp_path):
    (path,) = write(tmp_path, complete("one", held(tmp_path, "1.1")))
    (account,) = find_accounts(str(path))
    assert (account.path, account.kind, account.outcome, account.problem) == (str(path), "retrieval", "complete", "")
    assert account.root.uri == str(tmp_path)


def test_a_destination_and_its_own_folder_give_all_manifests_the_newest_first(tmp_path):
    write(
        tmp_path,
        complete("old", timings=moments(1)),
        complete("new", timings=moments(3)),
        sent("s", file(1)),
        complete("running", outcome=Outcome.PENDING, timings=moments(59, finished=False)),
    )
    expected = ["new", "old", "s", "running"]
    assert ids(find_accounts(tmp_path)) == expected
    assert ids(find_accounts(str(tmp_path / ".dicom"))) == expected
    assert [account.kind for account in find_accounts(tmp_path)] == ["retrieval", "retrieval", "store", "retrieval"]


def test_what_is_no_manifest_is_passed_over_in_a_folder(tmp_path):
    write(tmp_path, complete("one"))
    own = tmp_path / ".dicom"
    Destination(tmp_path).random_id()
    for folder in ("answers", "spool", "tmp", "versions", "reports"):
        (own / folder).mkdir(exist_ok=True)
        (own / folder / "x.json").write_text("{")
    (own / "rows.json").write_text('[{"PatientID": "x"}]')
    (own / "other.json").write_text('{"schema_version": 1, "outcome": "complete", "kind": "other"}')
    (own / "notes.txt").write_text("x")
    assert ids(find_accounts(tmp_path)) == ["one"]


def test_the_same_file_named_by_hand_is_said_to_be_none(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("[]")
    assert find_accounts(path) == [Account(path=str(path), problem="it is no manifest")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema_version": 1,\n "outc', "no whole JSON document: "),
        ("", "no whole JSON document"),
        ('{"schema_version": 1, "outcome": "secret"}', "it is no manifest that can be read (KeyError)"),
        ('{"schema_version": 1, "outcome": "x", "kind": "sent"}', "it is no manifest that can be read (KeyError)"),
        ('{"schema_version": 99, "outcome": "x"}', "schema version 99, and 1 is what is read here. Update"),
        ('{"schema_version": 99, "outcome": "x", "kind": "sent"}', "schema version 99, and 1 is what is read here"),
        ("[" * 100_000, "it is no manifest that can be read (RecursionError)"),
        ("\udcff", "it is no manifest that can be read (UnicodeDecodeError)"),
    ],
)
def test_one_that_cannot_be_read_says_why_and_comes_first(tmp_path, text, says):
    write(tmp_path, complete("one"))
    (tmp_path / ".dicom" / "broken.json").write_bytes(text.encode(errors="surrogateescape"))
    broken, whole = find_accounts(tmp_path)
    assert says in broken.problem
    assert "secret" not in broken.problem
    assert (broken.document, broken.kind, broken.outcome, broken.when) == (None, "", "", None)
    assert whole.document.id == "one"


@pytest.mark.parametrize("name", ["nowhere", "nowhere.json", "nowhere/.dicom/x.json"])
def test_what_is_not_there_is_said(tmp_path, name):
    (account,) = find_accounts(tmp_path / name)
    assert account.problem == "it is not there"


def test_a_folder_without_manifests_has_none(tmp_path):
    assert find_accounts(tmp_path) == []
    (tmp_path / ".dicom").mkdir()
    assert find_accounts(tmp_path) == []


def test_a_protocol_that_nobody_knows_is_a_problem_of_that_one():
    (account,) = find_accounts("nonsense://bucket/qa")
    assert "nonsense" in account.problem


def test_destinations_in_an_object_store_are_read_too():
    root = UPath(f"memory://{secrets.token_hex(8)}/qa")
    complete("one").write(Destination(root))
    sent("s", file(1)).write(Destination(root))
    assert sorted(ids(find_accounts(str(root)))) == ["one", "s"]
    (account,) = find_accounts(str(root / ".dicom" / "one.json"))
    assert account.root.uri == str(root)
    assert find_accounts(root / ".dicom" / "one.json")[0].document.id == "one"
    assert find_accounts(f"{root}/elsewhere") == []


def test_a_folder_by_its_uri_is_the_same(tmp_path):
    (path,) = write(tmp_path, complete("one"))
    for place in (tmp_path.as_uri(), path.as_uri(), UPath(path), UPath(tmp_path)):
        (account,) = find_accounts(place)
        assert (account.document.id, account.root.uri) == ("one", str(tmp_path))


def test_a_copy_elsewhere_has_no_root(tmp_path):
    (path,) = write(tmp_path, complete("one"))
    copy = tmp_path / "copy.json"
    copy.write_bytes(path.read_bytes())
    (account,) = find_accounts(copy)
    assert (account.document.id, account.root) == ("one", None)


@pytest.mark.parametrize("outcome", ["complete", "short", "limited", "reported", "empty"])
def test_an_outcome_that_its_own_account_contradicts_is_not_believed(tmp_path, outcome):
    (path,) = write(tmp_path, complete("one", missing("1.1"), outcome=Outcome.PARTIAL))
    assert find_accounts(path)[0].problem == ""
    spoilt(path, outcome=outcome)
    problem = find_accounts(path)[0].problem
    assert problem.startswith(f"it says {outcome}, and 1 of the instances in it are not ")


def test_a_conflict_contradicts_complete_but_is_not_missing(tmp_path):
    entry = held(tmp_path, "1.1", state=State.CONFLICT)
    (path,) = write(tmp_path, complete("one", entry))
    (account,) = find_accounts(path)
    assert "1 of the instances in it are not verified" in account.problem
    assert missing_of(account.document) == []


@pytest.mark.parametrize(
    ("proof", "done"),
    [
        ({}, ["reported", "listed", "verified"]),
        ({"verify_peer": "PACS@h:1"}, ["listed"]),
        ({"verify_path": "/filed"}, ["verified"]),
    ],
)
def test_what_a_move_was_to_prove_decides_what_is_missing(proof, done):
    entries = [Entry(sop_instance_uid=str(state), state=state) for state in State if state is not State.CONFLICT]
    manifest = complete("m", *entries, request={"level": "STUDY", "move_destination": "PACS", **proof})
    missing_states = {entry.sop_instance_uid for entry in missing_of(manifest)}
    assert {entry.sop_instance_uid for entry in entries} - missing_states == set(done)
    assert Account(path="", document=manifest).kind == "move"


@pytest.mark.parametrize("when", [None, 5, "soon", "2026-01-05T07:45:00"])
def test_instants_that_are_none_are_left_out(when):
    assert Account(path="", document=complete("x", timings={"started": when, "finished": when})).when is None
