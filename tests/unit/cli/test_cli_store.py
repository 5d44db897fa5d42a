"""``varian-dicom store`` against a Storage SCP and the simulated daemon."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.certificates import server_that_demands_ours
from support.dicom_files import image_file
from support.storage_peer import StoragePeer

from airflow_provider_varian.cli.main import main
from airflow_provider_varian.cli.output import Output
from airflow_provider_varian.cli.verbs import store as verb


@pytest.fixture
def peer():
    with StoragePeer() as running:
        yield running


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "export"
    for number in (1, 2):
        image_file(folder, number)
    return folder


@pytest.fixture
def store(peer, capsys):
    def run(*arguments):
        capsys.readouterr()
        status = main(["store", "--peer", f"STORAGE@127.0.0.1:{peer.port}", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def test_a_table_names_each_file_as_typed_and_what_became_of_it(store, files, peer):
    status, out, _ = store(files)
    assert status == 0
    rows = out.splitlines()
    assert rows[0].split() == ["file", "sop_instance_uid", "state", "status", "reason"]
    assert rows[2].split()[0] == str(files / "0001.dcm")
    assert rows[2].split()[2:] == ["stored", "0x0000"]
    assert rows[-1] == "complete: 2 of 2 files accepted by the peer"
    assert len(peer.received) == 2


def test_partial_is_status_3_and_nothing_is_status_1(store, files, peer):
    (files / "letter.txt").write_text("x")
    status, out, _ = store(files, "--json")
    answer = json.loads(out)
    assert (status, answer["outcome"], answer["document"]) == (3, "partial", None)
    assert answer["objects"][2]["file"] == str(files / "letter.txt")
    assert answer["objects"][2]["state"] == "refused"
    assert answer["hints"] == ["Name files that each hold one whole DICOM object"]
    peer.answer = lambda uid: 0xA700
    status, out, _ = store(files / "0001.dcm")
    assert status == 1
    assert "out of resources (0xA700)" in out
    # What the table says is not said again below it; what to do is.
    assert out.splitlines()[-2:] == [
        "nothing: 0 of 1 files accepted by the peer; 1 failed",
        "hint: Try again later, or ask for less at a time",
    ]


def test_with_a_place_for_the_account_the_same_command_sends_the_rest(store, files, peer, tmp_path, monkeypatch):
    peer.answer = lambda uid: 0xA700 if uid.endswith(".2") else 0
    assert store(files, "--out", tmp_path / "sent")[0] == 3
    peer.answer = lambda uid: 0
    peer.received.clear()
    monkeypatch.chdir(files.parent)
    status, out, _ = store("export", "--out", tmp_path / "sent", "--json")
    answer = json.loads(out)
    assert (status, answer["counts"]["earlier"]) == (0, 1)
    assert [uid[-1] for uid in peer.uids] == ["2"]
    assert Path(answer["document"]).parent == tmp_path / "sent" / ".dicom"
    assert str(files) not in Path(answer["document"]).read_text()


def test_folders_are_looked_into_deeply_on_request(store, files, tmp_path):
    status, _, err = store(tmp_path)
    assert status == 4
    assert "--recursive" in err
    assert store("--recursive", tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/nowhere/Q.dcm"], "/nowhere/Q.dcm is not there"),
        (["Q" * 300], "Q is not there"),
        (["--set", "allow_store=false", "/nowhere"], "consent"),
        (["--set", " allow_store=true", "/nowhere"], "consent"),
    ],
)
def test_wrong_usage_calls_nobody(store, peer, arguments, says):
    status, _, err = store(*arguments)
    assert status == 2
    assert says in err
    assert peer.associations == 0


def test_progress_is_counted_now_and_then_and_to_the_end(store, files, peer, monkeypatch):
    shown = []

    @contextmanager
    def progress(self, label):
        yield lambda done, total, remark: shown.append((done, total))

    monkeypatch.setattr(Output, "progress", progress)
    monkeypatch.setattr(verb, "_SHOW_SECONDS", 0.0)
    assert store(files)[0] == 0
    assert shown[0] == (0, 2)
    assert shown[-1] == (2, 2)
    shown.clear()
    monkeypatch.setattr(verb, "_SHOW_SECONDS", 3600.0)
    assert store(files)[0] == 0
    assert shown == [(0, 2)]


def test_it_needs_a_file():
    with pytest.raises(SystemExit) as ended:
        main(["store", "--peer", "A@b:1"])
    assert ended.value.code == 2


def test_a_peer_that_refuses_everything_is_told(store, files, peer):
    status, out, _ = store("--set", "connect_timeout=1", files, "--tls")
    assert status == 1
    assert "TLS handshake" in out
    assert "hint:" not in out  # the message has it


def test_tls_carries_it(tmp_path, files, capsys):
    context, ours = server_that_demands_ours(tmp_path)
    with StoragePeer(tls=context) as peer:
        command = ["store", "--peer", f"STORAGE@127.0.0.1:{peer.port}", *ours, str(files)]
        assert main([*command, "--tls-ca-certificate", str(tmp_path / "ca.pem")]) == 0
        assert len(peer.received) == 2
    capsys.readouterr()


def test_the_simulated_daemon_takes_what_is_of_its_patients(program, clinic, tmp_path):
    listed = program("find", "--level", "PATIENT", "-k", "PatientID=QA_TB_WL", "-k", "PatientName=", "--json").json
    image_file(tmp_path, 1, patient="QA_TB_WL", PatientName=listed[0]["PatientName"])
    ended = program("store", tmp_path / "0001.dcm", "--json")
    assert ended.status == 0, ended.out
    uid = ended.json["objects"][0]["sop_instance_uid"]
    assert program("find", "-k", f"SOPInstanceUID={uid}").status == 0


@pytest.mark.airflow
def test_of_an_airflow_connection_its_own_allow_store_rules(peer, files, monkeypatch, capsys):
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", os.environ.get("_AIRFLOW_PROCESS_CONTEXT", "client"))

    def connect(**extra):
        fields = {"called_ae_title": "STORAGE"} | extra
        connection = {"conn_type": "dicom", "host": "127.0.0.1", "port": peer.port, "extra": fields}
        monkeypatch.setenv("AIRFLOW_CONN_THE_PACS", json.dumps(connection))

    connect()
    assert main(["store", "--conn", "the_pacs", str(files)]) == 2
    assert "allow_store" in capsys.readouterr().err
    assert main(["store", "--conn", "the_pacs", "--set", "allow_store=true", str(files)]) == 2
    assert "connection itself" in capsys.readouterr().err
    assert peer.associations == 0
    connect(allow_store=True)
    assert main(["store", "--conn", "the_pacs", str(files)]) == 0
