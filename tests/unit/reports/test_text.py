"""Manifests in words."""

from __future__ import annotations

import pytest
from support.manifests import PEER, complete, file, held, missing, moved, sent

from airflow_provider_varian.dimse.store import StoreState
from airflow_provider_varian.reports.account import Account
from airflow_provider_varian.reports.check import Check
from airflow_provider_varian.reports.text import account_lines, headline, missing_lines, summary_line
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.outcome import Outcome, State


def tell(document, **options):
    return account_lines(Account(path="/qa/.dicom/x.json", document=document), **options)


def test_the_outcome_comes_first_then_where_it_is_written(tmp_path):
    lines = tell(complete("x", held(tmp_path, "1.1")))
    assert lines[:2] == ["complete: 1 of 1 instances verified", "manifest   /qa/.dicom/x.json"]


def test_what_is_missing_stands_under_its_reason():
    manifest = complete(
        "x",
        missing("1.1", "asked for once, never came; the peer names it as failed"),
        missing("1.2", "never asked for"),
        missing("1.3", "asked for once, never came; the peer names it as failed"),
        Entry(sop_instance_uid="1.4", state=State.FAILED, reason="element lengths do not add up"),
        Entry(sop_instance_uid="1.5", state=State.VERIFIED),
    )
    assert missing_lines(manifest) == [
        "missing    4 of 5",
        "  asked for once, never came; the peer names it as failed",
        "    1.1",
        "    1.3",
        "  never asked for",
        "    1.2",
        "  came, and was refused here: element lengths do not add up",
        "    1.4",
    ]


def test_of_many_the_first_are_named_and_the_others_counted():
    manifest = complete("x", *(missing(f"1.{number}") for number in range(1, 36)))
    lines = missing_lines(manifest)
    assert lines[0] == "missing    35 of 35"
    assert sum(line.startswith("    1.") for line in lines) == 10
    assert lines[1] == "  asked for twice, never came (35 of them)"
    assert lines[-1] == "  and 25 more (--all names them)"
    every = missing_lines(manifest, at_most=None)
    assert every[1] == "  asked for twice, never came"
    assert [line.strip() for line in every[2:]] == [f"1.{number}" for number in range(1, 36)]
    assert missing_lines(complete("x", *(missing(f"1.{number}") for number in range(10))))[-1] == "    1.9"


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (State.FOUND, "listed, and not here yet"),
        (State.RECEIVED, "received, and not filed yet"),
        (State.MISSING, "no reason is known"),
        (State.FAILED, "came, and was refused here: no reason is known"),
    ],
)
def test_without_a_reason_the_state_is_one(state, says):
    assert f"  {says}" in missing_lines(complete("x", Entry(sop_instance_uid="1.1", state=state)))


def test_a_conflict_names_both_files():
    entry = Entry(sop_instance_uid="1.1", state=State.CONFLICT, path="a/1.1.dcm", conflicts=["a/1.1.conflict-ab.dcm"])
    assert missing_lines(complete("x", entry)) == [
        "conflict   1, other content under the same UID; both are kept",
        "  1.1  a/1.1.dcm and a/1.1.conflict-ab.dcm",
    ]


def test_a_pending_one_is_not_judged_and_says_how_far_it_came(tmp_path):
    manifest = complete("x", held(tmp_path, "1.1"), missing("1.2"), outcome=Outcome.PENDING, message="")
    words = "pending: not judged, since it is still running or was stopped"
    assert headline(manifest) == f"{words}; 1 of 2 instances here so far"
    manifest.request["move_destination"] = "PACS"
    assert headline(manifest) == f"{words}; 1 of 2 instances there so far"
    assert headline(complete("x", outcome=Outcome.PENDING, message="")) == f"{words}; nothing found yet"


def test_a_pending_one_that_an_error_ended_says_so_and_not_that_it_may_be_running():
    problem = "A@h:1: C-FIND: the connection was refused"
    manifest = complete("x", outcome=Outcome.PENDING, message=problem)
    assert headline(manifest) == f"pending: broke off: {problem}; nothing found yet"


def test_everything_that_a_manifest_holds_is_told(tmp_path):
    manifest = complete(
        "x",
        held(tmp_path, "1.1", held=True, found_late=True, superseded=".dicom/versions/1.1/ab.dcm"),
        outcome=Outcome.LIMITED,
        message="1 of 1 instances verified; there may be more: a limit was hit",
        request={
            "level": "IMAGE",
            "uids": {"StudyInstanceUID": ["1.7"], "SeriesInstanceUID": ["1.8", "1.9"]},
            "keys_left_out": ["Modality", "PatientID"],
            "minimum": 1,
            "limit": 1,
            "limited": True,
            "method": "auto",
        },
        attempts=3,
        fallbacks=[{"from": "C-GET", "to": "C-MOVE as asked", "reason": "not accepted"}],
        warnings=["the list may have been cropped"],
    )
    manifest.ledger.unexpected["1.6"] = Entry(sop_instance_uid="1.6", state=State.VERIFIED, reason="nobody asked")
    text = "\n".join(tell(manifest))
    for line in (
        "request    IMAGE level, StudyInstanceUID 1.7, 2 of SeriesInstanceUID, selected by Modality, PatientID "
        "(values are not written down), method auto, at least 1, at most 1 (hit: there may be more)",
        "peer       VMSDBD, DB Svc 16.1 (1.2.246.9)",
        "when       2026-01-05 07:45:00 UTC, took 60.5 s (list 0.2 s, transfer 58.0 s), try 3",
        "counts     1 found, 1 verified, 1 held, 1 unexpected, 6 bytes",
        "unexpected 1, came, and no list names it\n  1.6  verified: nobody asked",
        "superseded 1, a newer version took its place; the older one is kept\n  1.1  .dicom/versions/1.1/ab.dcm",
        "found late 1, listed only after the transfer\n  1.1",
        "fallbacks  1\n  C-GET -> C-MOVE as asked: not accepted",
        "warnings   1\n  the list may have been cropped",
    ):
        assert f"\n{line}\n" in f"\n{text}\n"


def test_requests_tell_status_in_words_and_counts_as_reported():
    answers = [
        moved("SERIES", 0xB000, completed=3, failed=2, warning=0, failed_sop_instance_uids=["1.1", "1.2"], seconds=2),
        moved("IMAGE", None, problem="no answer in 120 s"),
        moved("IMAGE", 0xA801, problem="move destination unknown (0xA801)"),
    ]
    answers[1].asked = None
    lines = tell(complete("x", requests=answers))
    assert lines[-4:] == [
        "requests   3",
        "  try 1  C-MOVE SERIES: 1 of 1 came; sub-operations complete, one or more failures or warnings (0xB000); "
        "reported 3 completed, 2 failed, 0 warning; 2 named as failed; 2.0 s",
        "  try 1  C-MOVE IMAGE: 1 of an unknown number came; no final status; no counts reported; no answer in 120 s; "
        "0.0 s",
        "  try 1  C-MOVE IMAGE: 1 of 1 came; move destination unknown (0xA801); no counts reported; 0.0 s",
    ]


def test_of_a_move_to_a_third_party_nobody_says_what_came():
    manifest = complete("x", requests=[moved("SERIES", completed=9, failed=0)])
    manifest.request["move_destination"] = "PACS"
    (line,) = (line for line in tell(manifest) if "C-MOVE" in line)
    assert line == "  try 1  C-MOVE SERIES: 1 asked for; success (0x0000); reported 9 completed, 0 failed; 0.0 s"


def test_requests_that_went_alike_are_told_as_one_unless_all_is_asked_for():
    alike = [moved("IMAGE", completed=1, failed=0, seconds=0.5) for _ in range(30)]
    other = [moved("IMAGE", 0xA702, completed=0, failed=1), moved("IMAGE", completed=1), moved("SERIES", completed=1)]
    manifest = complete("x", requests=[*alike, *other])
    lines = tell(manifest)
    assert lines[-5:-3] == [
        "requests   33",
        "  try 1  30 x C-MOVE IMAGE: 30 of 30 came; success (0x0000); reported 30 completed, 0 failed; 15.0 s",
    ]
    assert sum(line.startswith("  try 1") for line in lines) == 4
    assert sum(line.startswith("  try 1  C-MOVE") for line in tell(manifest, at_most=None)) == 33


def test_requests_with_different_problems_are_never_told_as_one():
    manifest = complete("x", requests=[moved("IMAGE", None, problem=words) for words in ("aborted", "no answer")])
    assert [line.split("; ")[-2] for line in tell(manifest)[-2:]] == ["aborted", "no answer"]


def test_a_peer_whose_version_is_not_known_is_told_so():
    assert "peer       VMSDBD, whose version is not known" in tell(complete("x", peer={"ae_title": "VMSDBD"}))
    without = PEER | {"implementation_class_uid": ""}
    assert "peer       VMSDBD, DB Svc 16.1" in tell(complete("x", peer=without))


def test_a_move_says_where_to_and_by_what_it_was_proven():
    request = {"level": "STUDY", "uids": {}, "method": "move", "move_destination": "PACS", "verify_peer": "PACS@h:1"}
    (line,) = [each for each in tell(complete("x", request=request)) if each.startswith("request")]
    assert line == "request    STUDY level, sent to PACS, method move, proven by C-FIND at PACS@h:1"


def test_what_was_sent_names_each_file_that_the_peer_does_not_have():
    document = sent(
        "x",
        file(1, status=0),
        file(2, StoreState.FAILED, status=0xA700, reason="refused: out of resources (0xA700)"),
        file(3, StoreState.REFUSED, reason="it is no DICOM file"),
        file(4, StoreState.WARNING, status=0xB000),
    )
    document.objects[2].sop_instance_uid = ""
    lines = tell(document)
    assert lines[0] == "partial: 2 of 4 files accepted by the peer; 1 failed, 1 refused, 1 warning"
    assert lines[5:] == [
        "missing    2 of 4",
        "  refused: out of resources (0xA700)",
        "    file 2  1.2",
        "  it is no DICOM file",
        "    file 3",
        "remarks    1 of 4",
        "  stored, data elements coerced (0xB000)",
        "    file 4  1.4",
    ]


def test_one_that_cannot_be_read_says_why():
    account = Account(path="/qa/x.json", problem="it is not there")
    assert account_lines(account) == ["unreadable: it is not there", "manifest   /qa/x.json"]


def test_one_that_contradicts_itself_says_so_at_once():
    account = Account(path="x", document=complete("x", missing("1.1")), problem="it says complete, and it is not")
    assert account_lines(account)[1] == "not to be believed: it says complete, and it is not"


@pytest.mark.parametrize(
    ("changes", "brief"),
    [
        ({}, True),
        ({"warnings": ["look here"]}, False),
        ({"outcome": Outcome.PARTIAL}, False),
        ({"outcome": Outcome.SHORT}, False),
        ({"outcome": Outcome.LIMITED}, False),
        ({"outcome": Outcome.PENDING}, False),
        ({"outcome": Outcome.EMPTY}, True),
        ({"outcome": Outcome.REPORTED}, True),
    ],
)
def test_in_brief_only_what_is_all_well_is_short(changes, brief):
    assert (len(tell(complete("x", **changes), brief=True)) == 3) is brief


def test_in_brief_a_problem_and_a_difference_are_told_in_full():
    manifest = complete("x")
    assert len(account_lines(Account(path="x", document=manifest, problem="look"), brief=True)) > 4
    assert len(tell(manifest, brief=True, check=Check(checked=1))) == 3
    assert "different  1 of 1" in tell(manifest, brief=True, check=Check(checked=1, differences={"1.1": "gone"}))


def test_the_check_is_told_with_how_it_was_made():
    check = Check(checked=4, hashed=4, differences={"1.1": "gone", "1.2": "gone"}, replaced={"1.3": "v/1.3/a.dcm"})
    assert tell(complete("x"), check=check)[-7:] == [
        "verify     1 of 4 are there as told, by size and SHA-256",
        "different  2 of 4",
        "  gone",
        "    1.1",
        "    1.2",
        "replaced   1, a newer version is there by now; this one is kept",
        "  1.3  v/1.3/a.dcm",
    ]
    partly = tell(complete("x"), check=Check(checked=4, hashed=3))[-1]
    assert partly == "verify     4 of 4 are there as told, by size, and SHA-256 of 3 that have one"
    assert tell(complete("x"), check=Check(impossible="no root"))[-1] == "verify     not possible: no root"


def test_fields_that_nobody_knows_are_not_repeated():
    manifest = complete(
        "x",
        request={"level": "STUDY", "PatientName": "DOE^JANE"},
        peer=PEER | {"PatientID": "4711"},
        timings={"started": "DOE^JANE", "seconds": "4711"},
        fallbacks=[{"DOE^JANE": "4711"}, "DOE^JANE"],
    )
    text = "\n".join(tell(manifest))
    assert "DOE" not in text
    assert "4711" not in text


def test_the_summary_counts_outcomes():
    accounts = [Account(path="x", document=complete("x")), Account(path="x", document=complete("x"))]
    assert summary_line([*accounts, Account(path="y", problem="z")]) == "3 manifests: 2 complete, 1 unreadable"
