"""``varian-dicom report``: of manifests made for the test, and of what a retrieval and a move really left."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.manifests import complete, file, held, missing, sent, write

from airflow_provider_varian.cli.main import main
from airflow_provider_varian.dimse.store import StoreState
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.simulator.daemon.faults import Fault, Kind, Step

OF_THE_DAY = ("-k", "PatientID=QA_TB_WL", "-k", "Modality=RTIMAGE", "-k", "AcquisitionDate=20260105")


@pytest.fixture
def report(capsys):
    def run(*arguments):
        capsys.readouterr()
        status = main(["report", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def documents(tmp_path, *outcomes):
    """A destination with a manifest of each outcome, in that order."""
    made = []
    for number, outcome in enumerate(outcomes):
        entries = [held(tmp_path, f"1.{number}")] if outcome not in ("empty", "partial", "pending") else []
        if outcome in ("partial", "pending"):
            entries = [missing(f"1.{number}")]
        made.append(complete(f"m{number}", *entries, outcome=Outcome(outcome)))
    return write(tmp_path, *made)


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (["complete"], 0),
        (["partial"], 3),
        (["short"], 3),
        (["limited"], 3),
        (["empty"], 4),
        (["pending"], 1),
        (["complete", "empty"], 0),
        (["empty", "empty"], 4),
        (["complete", "partial", "empty"], 3),
        (["partial", "pending", "complete"], 1),
    ],
)
def test_the_exit_status_is_that_of_the_worst(report, tmp_path, outcomes, status):
    paths = documents(tmp_path, *outcomes)
    assert report(tmp_path)[0] == status
    assert report(*paths)[0] == status
    assert report(*reversed(paths), "--json")[0] == status


def test_a_reported_move_is_status_0(report, tmp_path):
    entry = Entry(sop_instance_uid="1.1", state="reported")
    request = {"level": "STUDY", "move_destination": "PACS"}
    (path,) = write(tmp_path, complete("m", entry, outcome=Outcome.REPORTED, request=request))
    assert report(path)[0] == 0


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ([file(1)], 0),
        ([file(1), file(2, StoreState.FAILED)], 3),
        ([file(1, StoreState.FAILED)], 1),
        ([], 4),
    ],
)
def test_what_was_sent_has_the_status_of_store(report, tmp_path, files, status):
    write(tmp_path, sent("s", *files))
    assert report(tmp_path)[0] == status


def test_a_broken_one_is_told_beside_the_others(report, tmp_path):
    (whole,) = write(tmp_path, complete("whole"))
    (tmp_path / ".dicom" / "broken.json").write_text('{"schema_version": 1, "out')
    (tmp_path / ".dicom" / "later.json").write_text('{"schema_version": 2, "outcome": "complete"}')
    status, out, _ = report(tmp_path)
    assert status == 1
    assert "unreadable: it is no whole JSON document" in out
    assert "schema version 2, and 1 is what is read here. Update airflow-provider-varian" in out
    assert "complete: 0 of 0 instances verified\nmanifest   " + str(whole) in out
    assert out.endswith("3 manifests: 2 unreadable, 1 complete\n")
    status, out, _ = report(tmp_path / "nowhere", whole, "--json")
    first, second = json.loads(out)
    assert (status, first["problem"], second["outcome"]) == (1, "it is not there", "complete")


def test_a_folder_without_manifests_is_status_4_and_said(report, tmp_path):
    (path,) = write(tmp_path / "qa", complete("m"))
    (tmp_path / "empty").mkdir()
    status, out, err = report(tmp_path / "empty")
    assert (status, out, err) == (4, "", f"no manifest in {tmp_path / 'empty'}\n")
    status, out, _ = report(tmp_path / "empty", "--json")
    assert (status, json.loads(out)) == (4, [])
    assert report(path, tmp_path / "empty")[0] == 4
    (partial,) = documents(tmp_path / "other", "partial")
    assert report(partial, tmp_path / "empty")[0] == 3


def test_several_are_told_in_brief_where_all_is_well(report, tmp_path):
    documents(tmp_path, "complete", "partial")
    blocks = report(tmp_path)[1].split("\n\n")
    assert sorted(len(block.splitlines()) > 4 for block in blocks) == [False, False, True]
    assert blocks[-1] == "2 manifests: 1 complete, 1 partial\n"
    assert sorted(len(block.splitlines()) > 4 for block in report(tmp_path, "--all")[1].split("\n\n")) == [
        False,
        True,
        True,
    ]


def test_verify_finds_what_has_changed_and_is_status_3(report, tmp_path):
    (path,) = documents(tmp_path, "complete")
    status, out, _ = report(path, "--verify")
    assert status == 0
    assert "verify     1 of 1 are there as told, by size and SHA-256" in out
    (tmp_path / "study" / "1.0.dcm").write_bytes(b"OBJECT")
    assert report(path)[0] == 0
    status, out, _ = report(path, "--verify")
    assert status == 3
    assert "different  1 of 1\n  has another SHA-256\n    1.0" in out
    status, out, _ = report(path, "--verify", "--json")
    difference = {"sop_instance_uid": "1.0", "difference": "has another SHA-256"}
    assert json.loads(out)[0]["verification"]["differences"] == [difference]
    assert status == 3


def test_verify_leaves_what_is_worse_or_empty_as_it_is(report, tmp_path):
    documents(tmp_path, "empty")
    assert report(tmp_path, "--verify")[0] == 4
    documents(tmp_path, "empty", "pending", "complete")
    (tmp_path / "study" / "1.2.dcm").unlink()
    assert report(tmp_path, "--verify")[0] == 1
    (path,) = write(tmp_path, complete("p", held(tmp_path, "1.8"), outcome=Outcome.PENDING))
    (tmp_path / "study" / "1.8.dcm").unlink()
    status, out, _ = report(path, "--verify")
    assert status == 1
    assert "different  1 of 1" in out


def test_verify_of_what_was_sent_says_that_nothing_can_be_compared(report, tmp_path):
    write(tmp_path, sent("s", file(1)))
    status, out, _ = report(tmp_path, "--verify")
    assert status == 0
    assert out.splitlines()[-1].startswith("verify     nothing to compare")


def test_one_that_contradicts_itself_is_status_1(report, tmp_path):
    (path,) = documents(tmp_path, "partial")
    path.write_text(path.read_text().replace('"outcome": "partial"', '"outcome": "complete"'))
    status, out, _ = report(path)
    assert status == 1
    assert "not to be believed: it says complete, and 1 of the instances in it are not verified" in out


def test_a_terminal_obeys_nothing_that_a_manifest_holds(report, tmp_path):
    (path,) = write(tmp_path, complete("m", message="\x1b[2J"))
    assert "\x1b" not in report(path)[1]


def test_paths_of_a_move_are_not_told_since_a_file_daemon_names_folders_after_patients(report, tmp_path):
    filed = tmp_path / "filed"
    (filed / "DOE^JANE").mkdir(parents=True)
    (filed / "DOE^JANE" / "1.dcm").write_bytes(b"object")
    entries = [held(filed, "1.1", path="DOE^JANE/1.dcm"), held(filed, "1.2", path="DOE^JANE/2.dcm")]
    request = {"level": "STUDY", "move_destination": "VMSFD", "verify_path": str(filed)}
    (path,) = write(tmp_path, complete("m", *entries, request=request))
    for options in ((), ("--all", "--verify"), ("--json",), ("--json", "--verify")):
        status, out, err = report(path, *options)
        assert status == (3 if "--verify" in options else 0)
        assert "DOE" not in out + err


def test_it_needs_a_manifest():
    with pytest.raises(SystemExit) as ended:
        main(["report"])
    assert ended.value.code == 2


def test_plain_text_and_json_need_no_terminal_library():
    code = (
        "import sys; sys.modules['rich'] = None; sys.modules['airflow'] = None; "
        "import airflow_provider_varian.reports.text, airflow_provider_varian.reports.mapping, "
        "airflow_provider_varian.reports.check"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def retrieve(program, tmp_path, *arguments):
    return program("retrieve", "--listen", program.listen, "--out", tmp_path, *OF_THE_DAY, *arguments)


def test_a_retrieval_that_lacks_something_names_it_as_the_report_does(program, tmp_path, report):
    program.daemon.faults.arm(Fault(kind=Kind.STATUS, step=Step.REQUEST, service="C-MOVE", at=3, times=0))
    ended = retrieve(program, tmp_path)
    assert ended.status == 3
    status, out, _ = report(tmp_path)
    assert status == 3
    assert out.splitlines()[0] == ended.out.splitlines()[0]
    told = [line for line in ended.out.splitlines() if line.startswith("  ")]
    assert told[0].startswith("  asked for ")
    assert "of them)" not in told[0]  # all ten are named
    assert "out of resources (0xA700)" in told[0]
    assert set(told) <= set(out.splitlines())
    assert "the same command again asks for what is missing alone" in ended.err

    (values,) = json.loads(report(tmp_path, "--json")[1])
    assert {f"    {each['sop_instance_uid']}" for each in values["missing"]} == {
        line for line in told if line.startswith("    ")
    }
    assert values["missing"]
    assert {each["reason"] for each in values["missing"]} == {told[0].strip()}

    again = retrieve(program, tmp_path, "--json")
    assert [each["sop_instance_uid"] for each in again.json["missing"]] == [
        each["sop_instance_uid"] for each in values["missing"]
    ]
    program.daemon.faults.disarm()
    assert retrieve(program, tmp_path).status == 0
    status, out, _ = report(tmp_path, "--verify")
    assert status == 0
    assert out.startswith("complete: 12 of 12 instances verified\n")
    assert ", try 3\n" in out
    assert "verify     12 of 12 are there as told, by size and SHA-256" in out
    assert "QA_TB_WL" not in out


def test_a_move_leaves_a_manifest_that_is_told(program, tmp_path, report):
    keys = ("--destination", "AIRFLOW", "--manifest", tmp_path, *OF_THE_DAY)
    program.daemon.faults.arm(Fault(kind=Kind.STATUS, step=Step.REQUEST, service="C-MOVE", times=0))
    program("move", *keys)
    status, out, _ = report(tmp_path)
    assert status == 3
    assert ", sent to AIRFLOW" in out
    assert "missing    12 of 12" in out
    assert json.loads(report(tmp_path, "--json")[1])[0]["kind"] == "move"


def test_a_dry_run_that_hit_its_limit_says_so(program, tmp_path):
    ended = retrieve(program, tmp_path, "--dry-run", "--limit", 2)
    assert ended.status == 3
    assert "there may be more: a limit was hit" in ended.err
    assert retrieve(program, tmp_path, "--dry-run", "--limit", 2, "--json").json["limited"] is True
    whole = retrieve(program, tmp_path, "--dry-run", "--json")
    assert (whole.status, whole.json["limited"]) == (0, False)
