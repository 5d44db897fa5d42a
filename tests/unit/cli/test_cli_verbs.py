"""Each verb against a simulated DB Daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import RTImageStorage
from support.certificates import Authority

from airflow_provider_varian.cli.main import main
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.facts import facts

PATIENT = "QA_TB_WL"
OF_THE_DAY = ("-k", f"PatientID={PATIENT}", "-k", "Modality=RTIMAGE", "-k", "AcquisitionDate=20260105")


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
    authority = Authority()
    for name, issued in (("server", authority.issue("localhost")), ("client", authority.issue("airflow"))):
        (tmp_path / f"{name}.pem").write_text(issued.certificate)
        (tmp_path / f"{name}.key").write_text(issued.key)
    (tmp_path / "ca.pem").write_text(authority.certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED

    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=11112)]
    with SimulatedDaemon(clinic, trusted=trusted, ssl_context=context) as daemon:
        peer = ("echo", "--peer", f"VMSDBD@127.0.0.1:{daemon.address[1]}", "--tls")
        ours = ("--tls-certificate", str(tmp_path / "client.pem"), "--tls-private-key", str(tmp_path / "client.key"))
        assert main([*peer, *ours, "--tls-ca-certificate", str(tmp_path / "ca.pem")]) == 0
        # An authority that is not ours: the handshake fails, and nothing falls back to clear text.
        (tmp_path / "other.pem").write_text(Authority("Other").certificate)
        assert main([*peer, *ours, "--tls-ca-certificate", str(tmp_path / "other.pem")]) == 1
    assert "PRIVATE KEY" not in "".join(capsys.readouterr())


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
def third_party(program):
    """A receiver that the daemon trusts, and the UIDs that it got."""
    got = []

    def store(event):
        got.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    ae = AE("VMSFD")
    ae.add_supported_context(RTImageStorage, "1.2.840.10008.1.2")
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    program.daemon.trust(
        [
            TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=program.listen),
            TrustedEntity(ae_title="VMSFD", host="127.0.0.1", port=server.server_address[1]),
        ]
    )
    yield got
    server.shutdown()


def test_move_sends_to_somebody_else_and_only_reports(program, third_party, clinic):
    series = plan_of(clinic, "WL_10MV").image_series_uid(clinic.days[-1])
    ended = program("move", "--destination", "VMSFD", "-k", f"SeriesInstanceUID={series}")
    assert ended.status == 0, ended.err
    assert ended.out.startswith("reported: by the peer's own counts")
    assert len(third_party) == 10


def test_move_selects_by_find_first(program, third_party):
    ended = program("move", "--destination", "VMSFD", *OF_THE_DAY, "--json")
    assert (ended.status, ended.json["outcome"], ended.json["completed"]) == (0, "reported", 12)
    assert len(set(third_party)) == 12


def test_move_of_nothing_is_status_4(program):
    ended = program("move", "--destination", "VMSFD", "-k", "PatientID=NOBODY", "-k", "Modality=CT")
    assert ended.status == 4


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
def test_an_airflow_connection_of_another_type_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW_CONN_A_DATABASE", json.dumps({"conn_type": "postgres", "host": "h"}))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", os.environ.get("_AIRFLOW_PROCESS_CONTEXT", "client"))
    assert main(["echo", "--conn", "a_database"]) == 2
    assert "type 'postgres', not 'dicom'" in capsys.readouterr().err
