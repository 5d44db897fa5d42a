"""A manifest held against what is there."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from pydicom import dcmread
from support.dicom_files import image_file
from support.manifests import complete, file, held, missing, sent, write

from airflow_provider_varian.reports.account import Account, find_accounts
from airflow_provider_varian.reports.check import check_account
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.versions import version_path


def check(path):
    (account,) = find_accounts(path)
    return check_account(account)


@pytest.fixture
def three(tmp_path):
    """Three objects and their manifest."""
    entries = [held(tmp_path, uid, content) for uid, content in (("1.1", b"one"), ("1.2", b"two"), ("1.3", b"three"))]
    return write(tmp_path, complete("three", *entries))[0]


def test_what_is_as_told_is_well(three):
    found = check(three)
    assert found.is_well
    assert found.to_json() == {"checked": 3, "hashed": 3, "differences": [], "replaced": [], "impossible": None}


def test_each_difference_is_named(three, tmp_path):
    (tmp_path / "study" / "1.1.dcm").unlink()
    (tmp_path / "study" / "1.2.dcm").write_bytes(b"TWO")
    (tmp_path / "study" / "1.3.dcm").write_bytes(b"longer")
    found = check(three)
    assert not found.is_well
    assert found.differences == {
        "1.1": "not at its final path",
        "1.2": "has another SHA-256",
        "1.3": "has 6 bytes instead of 5",
    }


def test_what_is_missing_by_its_own_account_is_no_difference(tmp_path):
    (path,) = write(tmp_path, complete("m", held(tmp_path, "1.1"), missing("1.2"), outcome=Outcome.PARTIAL))
    found = check(path)
    assert (found.checked, found.is_well) == (1, True)


def test_objects_that_nobody_hashed_are_counted_as_such(tmp_path):
    (path,) = write(tmp_path, complete("m", held(tmp_path, "1.1"), held(tmp_path, "1.2", sha256="")))
    found = check(path)
    assert (found.checked, found.hashed) == (2, 1)


def replace_by_newer(root, entry):
    kept = root / version_path(entry.sop_instance_uid, entry.sha256)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / entry.path, kept)
    (root / entry.path).write_bytes(b"newer")
    return kept


def test_a_version_that_was_replaced_since_and_is_kept_is_no_difference(tmp_path):
    entry = held(tmp_path, "1.1", b"older")
    (path,) = write(tmp_path, complete("m", entry))
    kept = replace_by_newer(tmp_path, entry)
    found = check(path)
    assert found.is_well
    assert found.replaced == {"1.1": str(kept.relative_to(tmp_path))}
    (tmp_path / entry.path).unlink()
    assert check(path).differences == {"1.1": f"not at its final path; a copy is {kept.relative_to(tmp_path)}"}
    replace_by_newer(tmp_path, held(tmp_path, "1.1", b"older"))
    kept.write_bytes(b"OLDER")
    assert check(path).differences == {"1.1": "has another SHA-256"}
    (tmp_path / entry.path).write_bytes(b"older")
    assert check(path).to_json() == {"checked": 1, "hashed": 1, "differences": [], "replaced": [], "impossible": None}


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_the_older_version_that_a_manifest_says_is_kept_is_looked_for(tmp_path, damage):
    older = held(tmp_path, "1.1", b"older")
    kept = replace_by_newer(tmp_path, older)
    newer = held(tmp_path, "1.1", b"newer", superseded=str(kept.relative_to(tmp_path)))
    (path,) = write(tmp_path, complete("m", newer))
    assert check(path).is_well
    kept.unlink() if damage == "gone" else kept.write_bytes(b"OLDER")
    assert check(path).differences == {"1.1": "its older version is not where it was kept"}


def test_a_move_is_held_against_the_folder_that_proved_it(tmp_path):
    filed = image_file(tmp_path / "filed" / "Doe^Jane", 1)
    entry = Entry(
        sop_instance_uid=str(dcmread(filed).SOPInstanceUID),
        state=State.VERIFIED,
        bytes=filed.stat().st_size,
        sha256=hashlib.sha256(filed.read_bytes()).hexdigest(),
    )
    request = {"level": "SERIES", "move_destination": "VMSFD", "verify_path": str(tmp_path / "filed")}
    (path,) = write(tmp_path / "moves", complete("m", entry, request=request))
    assert check(path).checked == 1
    assert check(path).is_well
    copy = shutil.copyfile(path, tmp_path / "copy.json")
    assert check(copy).is_well
    filed.write_bytes(filed.read_bytes()[:-1] + b"x")
    assert not check(path).is_well
    assert not check(copy).is_well
    shutil.rmtree(tmp_path / "filed")
    assert "cannot be read" in check(path).impossible


def test_where_nothing_can_be_looked_at_nothing_is_said():
    proven = Entry(sop_instance_uid="1.1", state=State.LISTED)
    move = complete("m", proven, request={"level": "SERIES", "move_destination": "PACS", "verify_peer": "PACS@h:1"})
    for document in (move, sent("s", file(1)), None):
        assert check_account(Account(path="x", document=document, root=Destination("."))) is None


def test_a_copy_elsewhere_cannot_be_compared(three, tmp_path):
    copy = shutil.copyfile(three, tmp_path / "copy.json")
    found = check(copy)
    assert not found.is_well
    assert ".dicom folder" in found.impossible


def test_a_path_that_leads_out_is_not_followed(tmp_path):
    (path,) = write(tmp_path, complete("m", held(tmp_path, "1.1", path="../../etc/passwd")))
    assert "leads out" in check(path).impossible


def test_an_object_that_cannot_be_read_is_said_without_its_path(three, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("airflow_provider_varian.retrieval.audit.sha256_of", refuse)
    impossible = check(three).impossible
    assert f"lies in {tmp_path} cannot be read: Permission denied" in impossible
    assert ".dcm" not in impossible
