"""Each verb against a simulated DB Daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydicom import dcmread
from support.archive import Archive
from support.certificates import Authority, server_that_demands_ours
from support.changing_plan import ChangingPlan
from support.quiet import WITHIN, Clock
from support.third_party import FilingStation

from airflow_provider_varian.aria.profile import ARIA
from airflow_provider_varian.cli.main import main
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.facts import facts

PATIENT = "QA_TB_WL"
OF_THE_DAY = ("-k", f"PatientID={PATIENT}", "-k", "Modality=RTIMAGE", "-k", "AcquisitionDate=20260105")

PLAN_OF_PATIENT = ("-k", f"PatientID={PATIENT}", "-k", "Modality=RTPLAN")


def plan_of(clinic, label):
    return next(plan for plan in facts(clinic) if plan.label == label and plan.course == "QA")


def files_below(folder):
    return sorted(path for path in folder.rglob("*.dcm") if ".dicom" not in path.parts)


# ---------------------------------------------------------------------------------------------------------- echo


def test_echo_says_who_answers(program):
    ended = program("echo", "--calling", "AIRFLOW")
    assert ended.status == 0
    assert ended.out.startswith(f"{program.address} answers AIRFLOW in ")
    assert "DB Svc 16.1 (1.2.246.352.70.2.1.162.2)" in ended.out


def test_echo_as_json(program):
    answer = program("echo", "--json").json
    assert answer["peer"] == program.address
    assert answer["implementation_version_name"] == "DB Svc 16.1"
    assert answer["max_pdu"] == 64234


def test_a_calling_title_that_is_not_trusted_says_where_to_enter_it(program):
    ended = program("echo", "--calling", "NOBODY")
    assert (ended.status, ended.out) == (1, "")
    assert "NOBODY" in ended.err
    assert "Trusted Application Entities" in ended.err
    assert "Traceback" not in ended.err


def test_tls_takes_its_certificates_from_files(clinic, tmp_path, capsys):
    context, ours = server_that_demands_ours(tmp_path)

    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=11112)]
    with SimulatedDaemon(clinic, trusted=trusted, ssl_context=context) as daemon:
        peer = ("echo", "--peer", f"VMSDBD@127.0.0.1:{daemon.address[1]}")
        assert main([*peer, *ours, "--tls-ca-certificate", str(tmp_path / "ca.pem")]) == 0
        # An authority that is not ours: the handshake fails, and nothing falls back to clear text.
        (tmp_path / "other.pem").write_text(Authority("Other").certificate)
        assert main([*peer, *ours, "--tls-ca-certificate", str(tmp_path / "other.pem")]) == 1
    assert "PRIVATE KEY" not in "".join(capsys.readouterr())


QUIET_AT_NIGHT = ("--set", 'quiet_hours={"daily": ["03:00-04:00"]}', "--set", "timezone=UTC")


def test_echo_does_not_wait_for_the_end_of_quiet_hours_and_says_so(program, monkeypatch):
    Clock(monkeypatch, WITHIN)
    ended = program("echo", *QUIET_AT_NIGHT)
    assert ended.status == 0
    assert "answers AIRFLOW" in ended.out
    assert ended.err.startswith("note: It is quiet time of this connection until 2026-11-21 04:00 (UTC)")


def test_what_waits_for_the_end_of_quiet_hours_says_until_when(program, monkeypatch):
    Clock(monkeypatch, WITHIN).over_after(6)
    ended = program("find", "-k", f"PatientID={PATIENT}", "-k", "Modality=RTPLAN", *QUIET_AT_NIGHT)
    assert ended.status == 0
    assert ended.err.startswith(f"info: Quiet hours of {program.address}: waiting until 2026-11-21 04:00 (UTC)\n")
    assert ended.err.count("info: ") == 1


# ---------------------------------------------------------------------------------------------------------- find


def test_find_prints_json_mappings_and_nothing_else(program, clinic):
    ended = program(
        "find",
        "--level",
        "IMAGE",
        "-k",
        f"PatientID={PATIENT}",
        "-k",
        "Modality=RTPLAN",
        "-k",
        "RTPlanLabel=",
        "--json",
    )
    assert ended.status == 0
    assert {(answer["RTPlanLabel"], answer["SOPInstanceUID"]) for answer in ended.json} == {
        (plan.label, plan.sop_instance_uid) for plan in facts(clinic) if plan.patient_id == PATIENT
    }


def test_find_shows_a_table_with_the_keys_in_the_order_typed(program, clinic):
    keys = ("-k", "RTPlanLabel=WL_10MV", "-k", "ApprovalStatus=", "-k", "Modality=RTPLAN", "-k", f"PatientID={PATIENT}")
    ended = program("find", *keys)
    head, _, row = ended.out.splitlines()
    assert head.split()[:4] == ["RTPlanLabel", "ApprovalStatus", "Modality", "PatientID"]
    assert row.split()[:4] == ["WL_10MV", "APPROVED", "RTPLAN", PATIENT]
    assert plan_of(clinic, "WL_10MV").sop_instance_uid in row
    assert ended.err == "1 found at IMAGE level\n"


def test_find_takes_ranges_and_keys_inside_sequences(program, clinic):
    plan = plan_of(clinic, "PF_6MV")
    ended = program(
        "find",
        *("-k", f"PatientID={PATIENT}", "-k", "Modality=RTIMAGE", "-k", "AcquisitionDate=20260104-20260105"),
        *("-k", f"ReferencedRTPlanSequence.ReferencedSOPInstanceUID={plan.sop_instance_uid}", "--json"),
    )
    assert sorted(answer["AcquisitionDate"] for answer in ended.json) == ["20260104", "20260105"]
    assert all(
        item["ReferencedSOPInstanceUID"] == plan.sop_instance_uid
        for answer in ended.json
        for item in answer["ReferencedRTPlanSequence"]
    )


def test_a_limit_that_was_hit_is_status_3(program):
    ended = program("find", *OF_THE_DAY, "--limit", 2, "--json")
    assert ended.status == 3
    assert len(ended.json) == 2
    assert "stopped after 2" in ended.err


def test_nothing_found_is_status_4_and_an_empty_list(program):
    ended = program("find", "-k", "PatientID=NOBODY", "--json")
    assert (ended.status, ended.json) == (4, [])


def test_a_reader_that_goes_away_is_no_traceback(program):
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_varian.cli", "find", "--peer", program.address, *OF_THE_DAY, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(30) == 1
    assert "BrokenPipe" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-k", "PatientId=x"), "Did you mean PatientID"),
        (("-k", "SOPInstanceUID=abc"), "SOPInstanceUID"),
        (("-k", "AcquisitionDate=yesterday"), "AcquisitionDate"),
        (("--level", "STUDY", "-k", "SOPInstanceUID=1.2"), "SOPInstanceUID"),
        (("-k", "PatientID"), "Keyword=value"),
        (("--set", "dimse_timeot=1"), "dimse_timeout"),
        (("--set", "dimse_timeout=soon"), "dimse_timeout"),
        (("--set", "dimse_timeout"), "FIELD=VALUE"),
        (("--set", "tls_private_key=secret"), "@FILE"),
        (("--calling", "A" * 17), "16 characters"),
        (("--login", "me"), "login"),
        (("--tls", "--tls-ca-certificate", "/nowhere/ca.pem"), "/nowhere/ca.pem cannot be read"),
    ],
)
def test_wrong_usage_is_refused_before_any_network(program, arguments, says):
    ended = program("find", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert not program.daemon.counts


def test_values_stay_out_of_messages(program):
    ended = program("find", "-k", "PatientName=Mueller^Petra^^^^^^")
    assert ended.status == 2
    assert "Mueller" not in ended.err


def test_any_field_of_the_connection_can_be_set(program):
    ended = program(
        "find", "-k", f"PatientID={PATIENT}", "--set", "information_model=patient_root", "--set", "max_pdu=4096"
    )
    assert ended.status == 0
    password = program("echo", "--set", "tls_private_key_password=@/nowhere")
    assert "/nowhere cannot be read" in password.err


# ------------------------------------------------------------------------------------------------------ retrieve


def test_retrieve_by_move_brings_what_the_keys_select_and_the_second_time_nothing(program, clinic, tmp_path):
    command = ("retrieve", "--listen", program.listen, "--out", tmp_path, *OF_THE_DAY)
    first = program(*command)
    assert first.status == 0, first.err
    assert first.out.startswith("complete: 12 of 12 instances verified\n")
    expected = {
        image.sop_instance_uid
        for plan in facts(clinic)
        if plan.patient_id == PATIENT
        for image in plan.images(clinic.days[-1])
    }
    assert {path.stem.removeprefix("RTIMAGE.") for path in files_below(tmp_path)} == expected
    assert program.daemon.counts["C-MOVE"] > 0

    second = program(*command, "--json")
    assert second.status == 0
    assert second.json["counts"]["held"] == len(expected)
    assert program.daemon.counts["C-MOVE"] == 0
    manifest = json.loads(Path(second.json["manifest"]).read_text())
    assert {entry["sop_instance_uid"] for entry in manifest["instances"]} == expected
    assert PATIENT not in json.dumps(manifest)


def test_retrieve_fetches_a_plan_again_that_changed_unless_told_not_to(program, tmp_path):
    plan = ChangingPlan(program.daemon, tmp_path / "served")
    out = tmp_path / "out"
    command = ("retrieve", "--listen", program.listen, "--out", out, *PLAN_OF_PATIENT, "--json")
    assert program(*command).json["counts"]["verified"] == 1
    plan.write(ApprovalStatus="APPROVED", RTPlanLabel="B")
    assert program(*command, "--refresh", "never").json["counts"]["held"] == 1
    shown = program(*command, "--dry-run")
    assert [one.get("held", False) for one in shown.json["instances"]] == [False]
    assert program(*command).json["counts"]["held"] == 0
    assert program(*command, "--refresh", "always").json["counts"]["verified"] == 1
    assert program.daemon.counts["C-MOVE"] == 1
    (path,) = files_below(out)
    assert dcmread(path).RTPlanLabel == "B"
    assert len(list((out / ".dicom" / "versions").rglob("*.dcm"))) == 1


@pytest.mark.parametrize(("options", "lists"), [((), 2), (("--recheck", 0), 1)])
def test_retrieve_lists_again_as_often_as_is_said(program, tmp_path, options, lists):
    ended = program("retrieve", "--listen", program.listen, "--out", tmp_path, *PLAN_OF_PATIENT, *options)
    assert ended.status == 0, ended.err
    assert program.daemon.counts["C-FIND"] == lists * ARIA.stable_counts


def test_retrieve_verifies_by_hash_when_told_to(program, tmp_path):
    command = ("retrieve", "--listen", program.listen, "--out", tmp_path, *OF_THE_DAY, "--json")
    assert program(*command).status == 0
    path = files_below(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-2] + b"!!")
    assert program(*command).json["counts"]["held"] == 12
    assert program(*command, "--verify", "hash").json["counts"]["conflict"] == 1


def test_retrieve_by_get_needs_no_port(program_with_get, clinic, tmp_path):
    series = plan_of(clinic, "OPEN_6MV").image_series_uid(clinic.days[-1])
    ended = program_with_get("retrieve", "--out", tmp_path, "-k", f"SeriesInstanceUID={series}", "--json")
    assert ended.status == 0, ended.err
    assert ended.json["counts"]["verified"] == 1
    assert program_with_get.daemon.counts["C-MOVE"] == 0
    assert len(files_below(tmp_path)) == 1


def test_whole_series_are_asked_for_as_such(program, tmp_path):
    ended = program(
        *("retrieve", "--listen", program.listen, "--out", tmp_path, "--level", "SERIES", "--json"),
        *("-k", f"PatientID={PATIENT}", "-k", "Modality=RTIMAGE", "-k", "StudyID=QA"),
    )
    assert ended.status == 0, ended.err
    # Three days of three plans, 12 images a day.
    assert ended.json["counts"]["verified"] == 36
    assert program.daemon.counts["C-MOVE"] == 9


def test_a_peer_that_must_be_told_every_level_is_told(program, tmp_path):
    ended = program(
        *("retrieve", "--listen", program.listen, "--out", tmp_path, "--level", "STUDY", "--profile", "generic"),
        *("-k", f"PatientID={PATIENT}", "-k", "StudyID=QA*", "--set", 'profile_overrides={"settle_seconds": 0.2}'),
        "--json",
    )
    assert ended.status == 0, ended.err
    # Three days of 12 images and three plans in one course, one plan and its images in the older one.
    assert ended.json["counts"]["found"] == ended.json["counts"]["verified"] > 39


def test_a_dry_run_lists_and_leaves_no_trace(program, tmp_path):
    out = tmp_path / "out"
    ended = program("retrieve", "--listen", program.listen, "--out", out, *OF_THE_DAY, "--dry-run")
    assert ended.status == 0, ended.err
    assert ended.out.count("to retrieve") == 12
    assert "nothing was retrieved" in ended.err
    assert program.daemon.counts["C-MOVE"] == 0
    assert not out.exists()


def test_a_dry_run_knows_what_is_held(program, tmp_path):
    command = ("retrieve", "--listen", program.listen, "--out", tmp_path, *OF_THE_DAY)
    assert program(*command).status == 0
    files_below(tmp_path)[0].unlink()
    planned = program(*command, "--dry-run", "--json").json
    assert planned["counts"]["held"] == 11
    assert [entry.get("held", False) for entry in planned["instances"]].count(False) == 1


def test_a_limit_leaves_the_retrieval_limited(program, tmp_path):
    ended = program("retrieve", "--listen", program.listen, "--out", tmp_path, *OF_THE_DAY, "--limit", 2, "--json")
    assert (ended.status, ended.json["outcome"]) == (3, "limited")
    assert len(files_below(tmp_path)) == 2


def test_the_account_of_a_part_does_not_take_the_place_of_the_account_of_the_whole(program, tmp_path):
    command = ("retrieve", "--listen", program.listen, "--out", tmp_path, *PLAN_OF_PATIENT, "--json")
    whole = program(*command)
    assert (whole.status, whole.json["outcome"]) == (0, "complete")
    parts = [program(*command, *bound) for bound in (("--limit", 2), ("--limit", 1), ("--minimum", 99))]
    assert [part.json["outcome"] for part in parts] == ["limited", "limited", "short"]
    assert len({whole.json["manifest"], *(part.json["manifest"] for part in parts)}) == 4
    manifest = json.loads(Path(whole.json["manifest"]).read_text())
    assert (manifest["outcome"], len(manifest["instances"])) == ("complete", whole.json["counts"]["found"])
    assert program(*command, "--limit", 2).json["manifest"] == parts[0].json["manifest"]


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["retrieve", "dry-run"])
def test_fewer_than_there_must_be_is_status_3(program, tmp_path, options):
    command = ("retrieve", "--listen", program.listen, "--out", tmp_path, *OF_THE_DAY, *options)
    assert program(*command, "--minimum", 12).status == 0
    short = program(*command, "--minimum", 13)
    assert short.status == 3
    assert "at least 13 are expected" in short.out + short.err
    none = program(
        "retrieve", "--out", tmp_path, "-k", "PatientID=NOBODY", "-k", "Modality=CT", "--minimum", 1, *options
    )
    assert none.status == 3


def test_retrieve_gives_late_objects_up_after_as_long_as_is_said(program, tmp_path, monkeypatch):
    from airflow_provider_varian.retrieval import retrieve as module

    inner, told = module.retrieve, []

    def noting(*arguments, **settings):
        told.append(settings["settle_seconds"])
        return inner(*arguments, **settings)

    monkeypatch.setattr(module, "retrieve", noting)
    command = ("retrieve", "--listen", program.listen, "--out", tmp_path, *PLAN_OF_PATIENT)
    assert program(*command, "--settle", "0.25").status == 0
    assert program(*command).status == 0
    assert told == [0.25, None]


def test_nothing_to_retrieve_is_status_4(program, tmp_path):
    selected = program("retrieve", "--out", tmp_path, "-k", "PatientID=NOBODY", "-k", "Modality=CT", "--json")
    assert (selected.status, selected.json["outcome"]) == (4, "empty")
    assert Path(selected.json["manifest"]).exists()
    named = program("retrieve", "--out", tmp_path, "-k", "SeriesInstanceUID=1.2.3", "--json")
    assert (named.status, named.json["outcome"]) == (4, "empty")


def test_a_layout_files_objects_by_what_they_say(program, tmp_path):
    layout = "{AcquisitionDate}/{RTImageLabel}.{SOPInstanceUID}.dcm"
    ended = program(
        "retrieve", "--listen", program.listen, "--out", tmp_path, *OF_THE_DAY, "--limit", 1, "--layout", layout
    )
    assert ended.status == 3, ended.err
    (path,) = files_below(tmp_path)
    assert path.parent.name == "20260105"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--method", "move", "-k", "SeriesInstanceUID=1.2"), 2, "--listen"),
        (("-k", f"PatientID={PATIENT}"), 2, "level to PATIENT"),
        (("-k", "SeriesInstanceUID="), 2, "SeriesInstanceUID has no value"),
        ((), 2, "nothing says what to retrieve"),
        (("--layout", "{Nonsense}", "-k", "SeriesInstanceUID=1.2"), 2, "layout"),
    ],
)
def test_what_cannot_be_retrieved_is_refused(program, tmp_path, arguments, status, says):
    ended = program("retrieve", "--out", tmp_path, *arguments)
    assert ended.status == status
    assert says in ended.err
    assert not program.daemon.counts


def test_without_a_port_and_without_get_it_says_what_is_missing(program, clinic, tmp_path):
    series = plan_of(clinic, "OPEN_6MV").image_series_uid(clinic.days[-1])
    ended = program("retrieve", "--out", tmp_path, "-k", f"SeriesInstanceUID={series}")
    assert ended.status == 1
    assert "add --listen" in ended.err


def test_several_patients_are_not_taken_in_one(program, tmp_path):
    ended = program("retrieve", "--out", tmp_path, "--level", "PATIENT", "-k", "PatientID=*QA*")
    assert ended.status == 2
    assert "PatientID takes one value" in ended.err


def test_control_c_cancels_a_retrieval(program, clinic, tmp_path):
    series = plan_of(clinic, "OPEN_6MV").image_series_uid(clinic.days[-1])
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", program.listen))
        taken.listen()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "airflow_provider_varian.cli", "retrieve", "--verbose", "--port-wait", "60"),
                *("--peer", program.address, "--listen", str(program.listen), "--out", str(tmp_path)),
                *("-k", f"SeriesInstanceUID={series}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "is taken" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1, "".join(seen) + err
    assert "cancelled" in err
    assert "Traceback" not in err
    assert out == ""


# ---------------------------------------------------------------------------------------------------------- move


@pytest.fixture
def third_party(program, tmp_path):
    """A File Daemon that the daemon trusts."""
    with FilingStation(tmp_path / "filed") as station:
        station.folder.mkdir()
        host, port = station.address
        program.daemon.trust(
            [
                TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=program.listen),
                TrustedEntity(ae_title="VMSFD", host=host, port=port),
            ]
        )
        yield station


@pytest.fixture
def session(clinic):
    return ("-k", f"SeriesInstanceUID={plan_of(clinic, 'WL_10MV').image_series_uid(clinic.days[-1])}")


QUICK = ("--set", 'profile_overrides={"stable_counts": 1}', "--settle", "0.3")


def test_move_sends_to_somebody_else_and_only_reports(program, third_party, session, tmp_path):
    ended = program("move", "--destination", "VMSFD", *session)
    assert ended.status == 0, ended.err
    assert ended.out.startswith("reported: 10 of 10 instances reported as sent to VMSFD\nby the peer's own counts")
    assert len(third_party.got) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"filed"}


def test_move_selects_by_find_first(program, third_party):
    ended = program("move", "--destination", "VMSFD", *OF_THE_DAY, "--json")
    assert (ended.status, ended.json["outcome"], ended.json["completed"]) == (0, "reported", 12)
    assert len(set(third_party.got)) == 12


def test_move_keeps_an_account_and_asks_for_what_is_missing_alone(program, third_party, session, tmp_path):
    command = ("--destination", "VMSFD", "--manifest", tmp_path / "moves", "--verify-path", third_party.folder, *QUICK)
    third_party.keeps = lambda uid: uid != third_party.got[0]
    ended = program("move", *command, *session)
    lost = third_party.got[0]
    assert ended.status == 3, ended.err
    reason = "asked for 2 times, the peer reports it as sent; no file of it is there"
    assert f"missing    1 of 10\n  {reason}\n    {lost}\n" in ended.out
    (path,) = (tmp_path / "moves" / ".dicom").glob("*-*.json")
    assert str(path) in ended.out
    third_party.keeps = lambda uid: True
    third_party.got.clear()
    ended = program("move", *command, *session, "--json")
    assert (ended.status, ended.json["outcome"], ended.json["counts"]["verified"]) == (0, "complete", 10)
    assert (ended.json["missing_sop_instance_uids"], third_party.got) == ([], [lost])
    assert json.loads(path.read_text())["attempts"] == 2


def test_move_asks_the_destination_what_it_has(program, third_party, session):
    with Archive([]) as archive:
        third_party.on_store = lambda ds: archive.instances.__setitem__(str(ds.SOPInstanceUID), ds)
        address = f"VMSDBD@127.0.0.1:{archive.port}"
        ended = program("move", "--destination", "VMSFD", "--verify-peer", address, *session, *QUICK, "--json")
    assert (ended.status, ended.json["outcome"], ended.json["counts"]["listed"]) == (0, "complete", 10)


@pytest.mark.parametrize(("options", "lists"), [((), 2), (("--recheck", 0), 1)])
def test_move_lists_again_as_often_as_is_said(program, third_party, options, lists):
    ended = program("move", "--destination", "VMSFD", *PLAN_OF_PATIENT, *options)
    assert ended.status == 0, ended.err
    assert program.daemon.counts["C-FIND"] == lists * ARIA.stable_counts


def test_move_takes_one_kind_of_proof(program, session):
    with pytest.raises(SystemExit) as ended:
        program("move", "--destination", "VMSFD", "--verify-peer", "A@b:1", "--verify-path", "/srv", *session)
    assert ended.value.code == 2


def test_move_of_nothing_is_status_4(program):
    ended = program("move", "--destination", "VMSFD", "-k", "PatientID=NOBODY", "-k", "Modality=CT", "--json")
    assert (ended.status, ended.json["outcome"], ended.json["counts"]["found"]) == (4, "empty", 0)


def test_a_destination_that_the_peer_does_not_know_says_so(program, clinic):
    series = plan_of(clinic, "WL_10MV").image_series_uid(clinic.days[-1])
    ended = program("move", "--destination", "NOWHERE", "-k", f"SeriesInstanceUID={series}")
    assert ended.status == 1
    assert "move destination unknown (0xA801)" in ended.err
    assert "asked for is 'NOWHERE'" in ended.err


# ------------------------------------------------------------------------------------------------------ simulate


@pytest.fixture
def simulator():
    """Start ``simulate`` as a process of its own and wait for its line."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow_provider_varian.cli", "simulate", "--port", "0", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        watch = threading.Timer(60, process.kill)
        watch.start()
        line = process.stdout.readline()
        watch.cancel()
        return process, line

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_simulate_tells_its_address_serves_and_stops_cleanly(simulator, capsys):
    trust = ("--trust", "AIRFLOW@127.0.0.1:11112", "--trust", "OTHER@127.0.0.1:11113")
    process, line = simulator("--ae-title", "Db Daemon", *trust, "--days", 2, "--until", "2026-01-05", "--matrix", 32)
    assert line.startswith("listening on 127.0.0.1:")
    address = line.split()[-1]
    for calling, status in (("AIRFLOW", 0), ("OTHER", 0), ("STRANGER", 1)):
        assert main(["echo", "--peer", f"Db Daemon@{address}", "--calling", calling]) == status
    capsys.readouterr()
    keys = ("-k", f"PatientID={PATIENT}", "-k", "Modality=RTIMAGE", "-k", "AcquisitionDate=20260105-")
    assert main(["find", "--peer", f"Db Daemon@{address}", *keys, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 12
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err


def test_simulate_serves_files_and_offers_get(simulator, program, clinic, tmp_path):
    series = plan_of(clinic, "OPEN_6MV").image_series_uid(clinic.days[-1])
    source = tmp_path / "source"
    brought = program("retrieve", "--listen", program.listen, "--out", source, "-k", f"SeriesInstanceUID={series}")
    assert brought.status == 0, brought.err

    _, line = simulator("--trust", "AIRFLOW@127.0.0.1:11112", "--data", source, "--get")
    peer = f"VMSDBD@{line.split()[-1]}"
    copy = tmp_path / "copy"
    assert main(["retrieve", "--peer", peer, "--out", str(copy), "-k", f"SeriesInstanceUID={series}"]) == 0
    assert len(files_below(copy)) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--quirk", "row_limt=1"), "row_limit"),
        (("--quirk", "row_limit=many"), "row_limit"),
        (("--trust", "AIRFLOW"), "AET@host:port"),
        (("--ae-title", "A" * 17), "16 characters"),
        (("--data", "/nowhere"), "/nowhere"),
        (("--host", "192.0.2.1"), "192.0.2.1"),
    ],
)
def test_simulate_refuses_what_it_cannot_do(capsys, arguments, says):
    assert main(["simulate", "--port", "0", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_simulate_leaves_out_the_sessions_of_machines_that_were_down(simulator, capsys):
    _, line = simulator("--trust", "AIRFLOW@127.0.0.1:11112", "--days", "3", "--missing-sessions", "1")
    peer = ["--peer", f"VMSDBD@{line.split()[-1]}"]
    images = ["-k", "PatientID=QA_TB_WL", "-k", "Modality=RTIMAGE", "-k", "AcquisitionDate=20260101-"]
    assert main(["find", *peer, "--level", "IMAGE", *images]) == 4
    assert main(["find", *peer, "--level", "IMAGE", "-k", "PatientID=QA_TB_WL", "-k", "Modality=RTPLAN"]) == 0


def test_simulate_on_a_port_that_is_taken_fails_and_says_so(program, capsys):
    _, port = program.daemon.address
    assert main(["simulate", "--port", str(port), "--trust", "AIRFLOW@127.0.0.1:11112"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"port {port} of 127.0.0.1 is taken" in err
    assert "--port 0" in err


def test_simulate_that_trusts_nobody_says_how_to_add_somebody(simulator):
    trusting, _ = simulator("--trust", "AIRFLOW@127.0.0.1:11112")
    alone, _ = simulator()
    notes = []
    for process in (trusting, alone):
        process.send_signal(signal.SIGTERM)
        notes.append(process.communicate(timeout=30)[1])
    assert notes == ["", "nobody is trusted yet: add --trust AET@HOST:PORT\n"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--days", "0"),
        ("--until", "yesterday"),
        ("--port", "70000"),
        ("--seed", "-1"),
        ("--timezone", "Mars/Olympus"),
        ("--missing-sessions", "1.5"),
        ("--late-sessions", "often"),
    ],
)
# What is not refused is served until a signal comes.
@pytest.mark.timeout(30, method="signal")
def test_simulate_refuses_values_of_the_wrong_kind(arguments):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2


# ------------------------------------------------------------------------------------------- Airflow connections


@pytest.mark.airflow
def test_an_airflow_connection_names_the_peer_and_options_override_it(program, monkeypatch, capsys):
    host, port = program.daemon.address
    connection = {
        "conn_type": "dicom",
        "host": host,
        "port": port,
        "extra": {"called_ae_title": "VMSDBD", "calling_ae_title": "NOBODY"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_THE_DAEMON", json.dumps(connection))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", os.environ.get("_AIRFLOW_PROCESS_CONTEXT", "client"))
    assert main(["echo", "--conn", "the_daemon"]) == 1
    assert "NOBODY" in capsys.readouterr().err
    assert main(["echo", "--conn", "the_daemon", "--calling", "AIRFLOW"]) == 0


@pytest.mark.airflow
def test_pynetdicom_is_quiet_once_airflow_has_set_up_logging(program):
    host, port = program.daemon.address
    connection = {"conn_type": "dicom", "host": host, "port": port, "extra": {"called_ae_title": "VMSDBD"}}
    # A process of its own: Airflow sets up logging when it is first imported.
    command = [sys.executable, "-m", "airflow_provider_varian.cli", "echo", "--conn", "the_daemon"]
    environment = os.environ | {"AIRFLOW_CONN_THE_DAEMON": json.dumps(connection)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "pynetdicom" not in done.stderr
    assert "Requesting Association" not in done.stderr


@pytest.mark.airflow
def test_a_peer_of_a_connection_that_cannot_be_reached_is_one_line(tmp_path):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        connection = {"conn_type": "dicom", "host": "127.0.0.1", "port": bound.getsockname()[1]}
        connection["extra"] = {"called_ae_title": "VMSDBD"}
        command = [sys.executable, "-m", "airflow_provider_varian.cli", "echo", "--conn", "the_daemon"]
        environment = os.environ | {"AIRFLOW_CONN_THE_DAEMON": json.dumps(connection)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert [line for line in (done.stdout + done.stderr).splitlines() if "Association request" in line] == []
    assert "TCP Initialisation Error" not in done.stdout + done.stderr
    assert "the connection was refused" in done.stderr


@pytest.mark.airflow
def test_an_airflow_connection_of_another_type_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW_CONN_A_DATABASE", json.dumps({"conn_type": "postgres", "host": "h"}))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", os.environ.get("_AIRFLOW_PROCESS_CONTEXT", "client"))
    assert main(["echo", "--conn", "a_database"]) == 2
    assert "type 'postgres', not 'dicom'" in capsys.readouterr().err
