"""What the peer reports never decides, and is told as the reason of what is missing (prior-art 2, 13)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.archive import ROOT

from airflow_provider_varian.errors import PeerUnreachableError
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest, RequestReport, load_manifest
from airflow_provider_varian.retrieval.missing import Reasons, judge_missing
from airflow_provider_varian.retrieval.outcome import Outcome, State

SERIES = f"{ROOT}.1.1"
LOST = f"{SERIES}.3"


@pytest.fixture
def clinic(clinic):
    """The same, with little patience for what never comes."""
    run = clinic.run
    clinic.run = lambda request=None, **settings: run(request, **({"settle_seconds": 0.05} | settings))
    return clinic


def requests_of(clinic):
    return json.loads((clinic.root / ".dicom" / "r-1.json").read_text())["requests"]


#: How a peer may end a C-MOVE that left an instance out; what it says changes the words alone.
NO_COUNTS = {"completed": None, "failed": None, "warning": None}
FINALS = {
    "0000 with failures": ({"completed": 4, "failed": 1}, "success (0x0000), 4 completed, 1 failed, 0 warning"),
    "0000 with 0/0/0": ({"completed": 0}, "success (0x0000), 0 completed, 0 failed, 0 warning"),
    "0000 without counts": (NO_COUNTS, "success (0x0000), without counts"),
    "B000": (
        {"status": 0xB000, "failed": 1},
        "sub-operations complete, one or more failures or warnings (0xB000), 4 completed, 1 failed, 0 warning",
    ),
    "B000 without counts": (
        {"status": 0xB000} | NO_COUNTS,
        "sub-operations complete, one or more failures or warnings (0xB000), without counts",
    ),
    "no status": ({"status": None}, "none, "),
}


@pytest.mark.parametrize(("final", "words"), FINALS.values(), ids=FINALS)
def test_whatever_the_peer_reports_the_ledger_decides(clinic, final, words):
    clinic.archive.final = lambda level: final if level == "SERIES" else {}
    assert clinic.run().outcome is Outcome.COMPLETE
    clinic.archive.delivers = lambda level, uid: uid != LOST
    clinic.archive.final = lambda level: final
    result = clinic.run(retrieval_id="r-2", destination=clinic.root / "other")
    assert (result.outcome, result.counts["verified"], result.counts["missing"]) == (Outcome.PARTIAL, 4, 1)


@pytest.mark.parametrize(("final", "words"), FINALS.values(), ids=FINALS)
def test_the_peers_last_answer_is_the_reason(clinic, final, words):
    clinic.archive.delivers = lambda level, uid: uid != LOST
    clinic.archive.final = lambda level: {} if level == "SERIES" else {"completed": 4} | final
    profile = replace(clinic.profile, uid_lists=False)
    entry = clinic.run(profile=profile).manifest.ledger.entries[LOST]
    assert entry.state is State.MISSING
    assert entry.reason.startswith(f"asked for twice, never came; the peer's answer: {words}")


@pytest.mark.parametrize("status", [0xB000, 0xA702])
def test_what_the_peer_names_as_failed_is_named_in_the_manifest(clinic, status):
    clinic.archive.delivers = lambda level, uid: uid != LOST
    # Later answers name nobody: a success after it says less.
    clinic.archive.final = lambda level: (
        {"status": status, "failed": 1, "failed_uids": [LOST]} if level == "SERIES" else {}
    )
    result = clinic.run()
    assert result.outcome is Outcome.PARTIAL
    assert f"(0x{status:04X}), 4 completed, 1 failed" in result.manifest.ledger.entries[LOST].reason
    assert "the peer names it as failed: " in result.manifest.ledger.entries[LOST].reason
    assert requests_of(clinic)[0]["failed_sop_instance_uids"] == [LOST]
    again = load_manifest(Destination(clinic.root), "r-1")
    assert again.requests[0].failed_sop_instance_uids == [LOST]


def test_what_the_peer_names_as_failed_and_comes_all_the_same_is_verified(clinic):
    clinic.archive.final = lambda level: {"status": 0xB000, "failed": 1, "failed_uids": [LOST]}
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert result.manifest.ledger.entries[LOST].reason == ""


def test_a_lost_association_is_the_reason(clinic):
    def die():
        clinic.archive.abort_after = 2
        clinic.archive.on_move = lambda: None
        clinic.archive.stop_listening()

    clinic.archive.on_move = die
    result = clinic.run()
    entry = result.manifest.ledger.entries[f"{SERIES}.5"]
    assert entry.reason.startswith("asked for once, never came; the peer's answer: none, ")
    assert isinstance(result.error, PeerUnreachableError)


def test_what_was_never_asked_for_says_why_not(clinic):
    clinic.archive.on_find = clinic.archive.stop_listening
    with pytest.raises(PeerUnreachableError):
        clinic.run()
    entries = load_manifest(Destination(clinic.root), "r-1").ledger.entries
    assert {entry.reason.split(";")[0] for entry in entries.values()} == {"never asked for"}
    assert all("refused" in entry.reason for entry in entries.values())


def test_what_came_broken_keeps_that_as_its_reason():
    account = Ledger(
        [Entry(sop_instance_uid="1.1", state=State.FAILED, reason="too short"), Entry(sop_instance_uid="1.2")]
    )
    report = RequestReport(attempt=1, method="C-GET", level="IMAGE", asked=2, status=0xA702)
    Reasons(account).note(report, ["1.1", "1.2"])
    judge_missing(account)
    assert account.entries["1.1"].reason == "too short"
    assert account.entries["1.2"].reason.endswith("unable to perform sub-operations (0xA702), without counts")


def test_no_reason_of_one_try_is_told_in_the_next(clinic):
    clinic.archive.delivers = lambda level, uid: uid != LOST
    assert clinic.run().manifest.ledger.entries[LOST].reason
    clinic.archive.delivers = lambda level, uid: True
    assert clinic.run().manifest.ledger.entries[LOST].reason == ""


# Manifests of other versions


def test_a_manifest_that_knows_nothing_of_newer_fields_is_read(clinic):
    clinic.run()
    path = clinic.root / ".dicom" / "r-1.json"
    older = json.loads(path.read_text())
    for report in older["requests"]:
        del report["failed_sop_instance_uids"]
    path.write_text(json.dumps(older))
    assert load_manifest(Destination(clinic.root), "r-1").requests[0].failed_sop_instance_uids == []


def test_names_of_a_later_version_are_left_out(clinic):
    clinic.run()
    path = clinic.root / ".dicom" / "r-1.json"
    newer = json.loads(path.read_text())
    newer["weather"] = "fine"
    newer["requests"][0]["mood"] = newer["instances"][0]["mood"] = "good"
    path.write_text(json.dumps(newer))
    read = load_manifest(Destination(clinic.root), "r-1")
    assert len(read.requests) == 1
    assert len(read.ledger.entries) == 5


@pytest.mark.parametrize("value", [5, "1.2", [5], None])
def test_a_list_of_failed_instances_that_is_none_makes_a_manifest_unreadable(tmp_path, value):
    report = RequestReport(attempt=1, method="C-GET", level="IMAGE", asked=1).to_json()
    good = Manifest(id="r-1", requests=[]).to_json()
    good["requests"] = [report | {"failed_sop_instance_uids": value}]
    (tmp_path / ".dicom").mkdir()
    (tmp_path / ".dicom" / "r-1.json").write_text(json.dumps(good))
    assert load_manifest(Destination(tmp_path), "r-1") is None
