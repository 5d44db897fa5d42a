"""``retrieve`` with a standing receiver."""

from __future__ import annotations

import json

import pytest

from airflow_provider_varian.cli.main import main
from airflow_provider_varian.receiver.admission import Entry
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.standing import ReceiverSettings, StandingReceiver

KEYS_OF_PATIENT = ("-k", "PatientID=QA_TB_WL")
OF_THE_DAY = (*KEYS_OF_PATIENT, "-k", "Modality=RTIMAGE", "-k", "AcquisitionDate=20260105")
PLAN_OF_PATIENT = (*KEYS_OF_PATIENT, "-k", "Modality=RTPLAN")


def files_below(folder):
    return sorted(path for path in folder.rglob("*.dcm") if ".dicom" not in path.parts)


@pytest.fixture
def standing(program, tmp_path):
    """A standing receiver where the daemon sends to; its spool."""
    spool = tmp_path / "standing"
    settings = ReceiverSettings(
        spool=spool, entries=(Entry(ae_title="AIRFLOW", networks=()),), host="127.0.0.1", port=program.listen
    )
    with StandingReceiver(settings):
        yield spool


def test_retrieve_through_a_standing_receiver_needs_no_port(program, standing, tmp_path):
    out = tmp_path / "out"
    ended = program("retrieve", "--method", "move", "--receiver", standing, "--out", out, *OF_THE_DAY, "--json")
    assert ended.status == 0, ended.err
    assert ended.json["counts"]["verified"] == len(files_below(out)) == 12
    assert list(Spool(standing).unclaimed()) == []
    assert not (out / ".dicom" / "spool").exists()


def test_a_receivers_spool_is_enough_where_the_destination_is_no_folder(program, standing):
    command = ("retrieve", "--receiver", standing, "--out", "memory://qa", *PLAN_OF_PATIENT)
    assert program(*command).status == 0
    ended = program(*command, "--method", "get")
    assert (ended.status, "Add --spool" in ended.err) == (2, True)


def test_a_folder_that_is_no_receivers_spool_is_not_made_one(program, tmp_path):
    ended = program("retrieve", "--receiver", tmp_path / "no", "--out", tmp_path / "out", *PLAN_OF_PATIENT)
    assert ended.status == 1
    assert "no is not the spool of a receiver on this host" in ended.err
    assert not (tmp_path / "no").exists()


def test_a_connections_standing_receiver_is_used_unless_a_port_is_given(
    program, standing, tmp_path, monkeypatch, capsys
):
    host, port = program.daemon.address
    extra = {"called_ae_title": "VMSDBD", "receiver": "night", "retrieve_method": "move"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_ARIA", json.dumps({"conn_type": "dicom", "host": host, "port": port, "extra": extra})
    )
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", json.dumps({"night": str(standing)}))
    command = ["retrieve", "--conn", "aria", "--out", str(tmp_path / "out"), "--json", *PLAN_OF_PATIENT]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "complete"
    # The port is the standing receiver's by now.
    again = [*command, "--refresh", "always", "--listen", f"127.0.0.1:{program.listen}", "--port-wait", "0"]
    assert main(again) == 1
    assert f"port {program.listen} of 127.0.0.1 is still taken" in capsys.readouterr().err
