from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from support.simulated import Client

from airflow_provider_varian.cli.main import main
from airflow_provider_varian.dimse.echo import echo_peer
from airflow_provider_varian.dimse.peer import peer_from_connection
from airflow_provider_varian.errors import PeerFailureError, TransientRejectionError
from airflow_provider_varian.simulator.clinic.irregularities import Irregularity
from airflow_provider_varian.simulator.daemon.behaviour import habits
from airflow_provider_varian.simulator.daemon.faults import FAULT_KINDS
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.run import SimulatorOptions

PROGRAM = """
from datetime import date
from airflow_provider_varian.simulator.run import SimulatorOptions, run
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
trusted = (TrustedEntity.parse("AIRFLOW@127.0.0.1:11112"),)
run(SimulatorOptions(port=0, trusted=trusted, until=date(2026, 11, 20)), lambda line: print(line, flush=True))
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_serves_and_stops_on_a_signal(number):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    try:
        line = process.stdout.readline().strip()
        assert line.startswith("listening on 127.0.0.1:")
        peer = peer_from_connection(
            host="127.0.0.1", port=int(line.rpartition(":")[2]), extra={"called_ae_title": "VMSDBD"}
        )
        assert echo_peer(peer).seconds >= 0
        assert len(Client(peer).find("STUDY", PatientID="QA_TB_WL")) == 2
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out.strip(), err) == (0, "stopped", "")


def test_options_build_the_clinic_they_say():
    options = SimulatorOptions(seed=3, patients=2, days=4, until=date(2026, 1, 31), matrix=32)
    clinic = options.daemon().holdings
    assert (clinic.identity.seed, clinic.panel.matrix, len(clinic.days)) == (3, 32, 4)
    assert TrustedEntity.parse("A@[::1]:104").host == "::1"


def test_quirks_and_faults_of_the_command_line_reach_the_daemon():
    options = ["--port", "0", "--trust", "AIRFLOW@127.0.0.1:11112", "--until", "2026-11-20"]
    options += ["--quirk", "row_limit=1", "--fault", "reject@association:reason=2/3/1,times=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_varian.cli", "simulate", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    try:
        port = int(process.stdout.readline().rpartition(":")[2])
        peer = peer_from_connection(host="127.0.0.1", port=port, extra={"called_ae_title": "VMSDBD"})
        for _ in range(2):
            with pytest.raises(TransientRejectionError):
                echo_peer(peer)
        assert echo_peer(peer).seconds >= 0
        with pytest.raises(PeerFailureError, match="0xC001"):
            Client(peer).find("STUDY", PatientID="QA_TB_WL")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--fault", "abort@lunch"), "Steps: connect, association"),
        (("--fault", "explode@row"), "Kinds: abort"),
        (
            ("--quirk", "irregularities=drs"),
            "Did you mean drrs? All 33 are listed by: varian-dicom simulate --quirk help",
        ),
        (("--quirk", "short_answer_probability=2"), "from 0 to 1"),
        (("--quirk", "move_counters=some"), "sent, asked, zero, absent"),
        (("--quirk", "late_images_seconds=-1"), "a number from 0"),
        (("--quirk", "client_character_sets=OLD:LATIN"), "ISO_IR 192"),
        (("--fault", "reject@association:reason=9/9/9"), "'9/9/9' does not fit reason"),
        (("--trust", "SEVENTEEN_LETTERS@127.0.0.1:1"), "does not fit AE title of a trusted entity"),
        (("--ae-title", "A\\B"), "does not fit ae_title"),
        (("--matrix", "31"), "31 does not fit matrix. matrix is a number of rows from 32 to 4096"),
        (("--matrix", "4097"), "4097 does not fit matrix"),
        (("--days", "3661"), "3661 does not fit days"),
        (("--until", "1699-12-31"), "1699-12-31 does not fit until"),
        (
            ("--until", "2026-11-20", "--patients", "5000000"),
            "patients is from 0 to 111110: one is planned each weekday",
        ),
        (("--until", "2026-11-20", "--patients", "111111"), "111111 does not fit patients"),
    ],
)
# What is not refused is served until a signal comes.
@pytest.mark.timeout(30, method="signal")
def test_what_the_simulator_cannot_do_is_wrong_usage(capsys, arguments, says):
    assert main(["simulate", "--port", "0", "--trust", "AIRFLOW@127.0.0.1:11112", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_clinic_may_have_all_patients_that_were_ever_planned():
    options = SimulatorOptions(until=date(2026, 11, 20), patients=111110, days=3660, matrix=4096)
    assert len(options.daemon().holdings.clinical_numbers) == 111110


@pytest.mark.timeout(30, method="signal")
def test_a_port_that_is_taken_is_told_without_saying_the_verb_twice(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["simulate", "--port", str(port), "--trust", "AIRFLOW@127.0.0.1:11112"]) == 1
    assert capsys.readouterr().err.startswith(f"varian-dicom simulate: port {port} of 127.0.0.1 is taken")


def test_all_quirks_and_faults_can_be_listed(capsys):
    assert main(["simulate", "--quirk", "help"]) == 0
    told = capsys.readouterr().out
    assert all(f"{habit.name} " in told and habit.meaning in told for habit in habits())
    assert re.search(r"^not_found_status +0xC001 ", told, re.MULTILINE)
    assert all(re.search(rf"^{each} +{re.escape(each.meaning)} *$", told, re.MULTILINE) for each in Irregularity)
    assert main(["simulate", "--fault", "help"]) == 0
    told = capsys.readouterr().out
    assert all(each.meaning in told and ", ".join(each.steps) in told for each in FAULT_KINDS)
    assert "row_limit" not in told
