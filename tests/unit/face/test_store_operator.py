"""Storing as a task: only where the connection allows it, each file accounted for, a retry sends the rest."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, ObjectStoragePath
from airflow.sdk.io import attach
from support.archive import rt_image
from support.dicom_files import image_file
from support.identifiers import forms_of, found_in
from support.storage_peer import StoragePeer

from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    EmptyResultError,
    OutOfResourcesError,
    PeerUnreachableError,
)
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.store import SENT_KEY, DicomStoreOperator
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour


@pytest.fixture
def peer():
    with StoragePeer() as running:
        yield running


@pytest.fixture
def pacs(peer, connect):
    return connect("pacs", port=peer.port, called_ae_title="STORAGE", allow_store=True)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "export"
    for number in (1, 2, 3):
        image_file(folder, number)
    return folder


@pytest.fixture
def task(pacs, files):
    def make(**settings):
        return DicomStoreOperator(**({"task_id": "s", "dicom_conn_id": pacs, "files": str(files)} | settings))

    return make


def document_at(uri):
    return json.loads(Path(uri.removeprefix("file://")).read_text())


def test_files_arrive_and_the_account_is_told_from_the_start(task, context, peer, storage):
    at = context()
    told = task().execute(at)
    assert (told["outcome"], told["counts"]["stored"]) == ("complete", 3)
    assert len(peer.received) == 3
    pushed = at["ti"].xcoms(SENT_KEY)
    assert [value["outcome"] for value in pushed] == ["pending", "complete"]
    assert pushed[-1] == {"uri": told["document"], "outcome": "complete", "counts": told["counts"]}
    assert document_at(told["document"])["outcome"] == "complete"
    assert Path(told["document"].removeprefix("file://")).parent == storage / ".dicom"


@pytest.mark.parametrize("named", ["/nowhere/at/all", "nowhere"])
@pytest.mark.parametrize("allow", [{}, {"allow_store": False}, {"allow_store": "false"}])
def test_without_consent_it_fails_before_network_and_files(task, context, peer, connect, allow, storage, named):
    strict = connect("strict", port=peer.port, called_ae_title="STORAGE", **allow)
    at = context()
    with pytest.raises(AirflowFailException, match="allow_store"):
        # That this is no absolute path, or not there, would be found out next.
        task(dicom_conn_id=strict, files=named).execute(at)
    assert (peer.associations, at["ti"].pushed, storage.exists()) == (0, [], False)


def test_files_destination_and_connection_are_templated(pacs, context, files, tmp_path):
    operator = DicomStoreOperator(
        task_id="s", dicom_conn_id="{{ conn }}", files=["{{ folder }}/0001.dcm"], destination="{{ out }}"
    )
    operator.render_template_fields({"conn": pacs, "folder": str(files), "out": str(tmp_path / "out")})
    told = operator.execute(context())
    assert told["counts"]["files"] == 1
    assert (tmp_path / "out" / ".dicom").is_dir()


def test_what_cannot_be_had_by_a_retry_fails_at_once(task, context, peer, files):
    peer.answer = lambda uid: 0xC001 if uid.endswith(".2") else 0
    with pytest.raises(
        AirflowFailException, match=r"partial: 2 of 3 .*number 2 .*cannot understand .0xC001.*see file:"
    ):
        task().execute(context())
    (files / "letter.txt").write_text("x")
    peer.answer = lambda uid: 0
    with pytest.raises(AirflowFailException, match=r"partial: 3 of 4 .*number 4"):
        task().execute(context())


def test_what_a_retry_may_get_over_is_retried_and_sends_the_rest_alone(task, context, peer, files):
    (files / "letter.txt").write_text("x")
    peer.answer = lambda uid: {"1": 0xA700, "2": 0xC001}.get(uid[-1], 0)
    with pytest.raises(OutOfResourcesError, match=r"partial: 1 of 4 .*number 1 .*number 2 .*number 4"):
        task().execute(context())
    (files / "letter.txt").unlink()
    peer.received.clear()
    peer.answer = lambda uid: 0
    told = task().execute(context())
    assert (told["outcome"], told["counts"]["earlier"]) == ("complete", 1)
    assert [uid[-1] for uid in peer.uids] == ["1", "2"]
    peer.received.clear()
    assert task().execute(context())["counts"]["earlier"] == 3
    assert peer.received == []
    # Another task instance is another run.
    task().execute(context(run_id="another"))
    assert len(peer.received) == 3


def test_partial_may_be_accepted_and_nothing_never(task, context, peer):
    peer.answer = lambda uid: 0xA700 if uid.endswith(".2") else 0
    told = task(on_partial="accept").execute(context())
    assert (told["outcome"], told["counts"]["failed"]) == ("partial", 1)
    peer.answer = lambda uid: 0xA700
    with pytest.raises(OutOfResourcesError, match="nothing: 0 of 3"):
        task(on_partial="accept").execute(context(run_id="another"))


def test_a_warning_of_the_peer_is_no_failure(task, context, peer, caplog):
    peer.answer = lambda uid: 0xB000
    told = task().execute(context())
    assert (told["outcome"], told["counts"]["warning"]) == ("complete", 3)
    assert "coerced" in caplog.text


def test_a_peer_that_is_away_or_goes_away_is_worth_a_retry(task, context, peer, connect):
    away = connect("away", port=1, called_ae_title="STORAGE", allow_store=True)
    with pytest.raises(PeerUnreachableError, match="nothing: 0 of 3"):
        task(dicom_conn_id=away).execute(context())
    peer.answer = lambda uid: None
    with pytest.raises(AssociationAbortedError, match="nothing: 0 of 3"):
        task().execute(context())


@pytest.mark.parametrize(("on_empty", "error"), [("skip", AirflowSkipException), ("fail", EmptyResultError)])
def test_no_file_skips_or_fails(task, context, tmp_path, on_empty, error):
    (tmp_path / "none").mkdir()
    with pytest.raises(error, match="there is no file to send"):
        task(files=str(tmp_path / "none"), on_empty=on_empty).execute(context())
    assert task(files=[], on_empty="accept").execute(context())["outcome"] == "empty"


@pytest.mark.parametrize("choice", [{"on_partial": "ignore"}, {"on_empty": "ignore"}])
def test_an_unknown_choice_is_refused_before_any_network(task, context, peer, choice):
    with pytest.raises(AirflowFailException, match="ignore"):
        task(**choice).execute(context())
    assert peer.associations == 0


@pytest.mark.parametrize("named", ["export/Quixotte.dcm", "nostore://Quixotte/1.dcm", "/nowhere/Quixotte.dcm"])
def test_a_path_that_cannot_be_used_is_told_by_its_place(task, context, files, peer, named):
    with pytest.raises(AirflowFailException, match="number 2 of the files") as refused:
        task(files=[str(files), named]).execute(context())
    assert "Quixotte" not in str(refused.value) + str(refused.value.__cause__)
    assert peer.associations == 0


def test_files_of_an_object_store_are_sent(task, context, files, peer):
    attach("memory", fs=fsspec.filesystem("memory"))
    path = ObjectStoragePath("memory://export-for-store/a.dcm")
    path.write_bytes((files / "0001.dcm").read_bytes())
    assert task(files=["memory://export-for-store/a.dcm"]).execute(context())["outcome"] == "complete"
    assert DicomHook("pacs").store(path.parent, store_id="x").counts["stored"] == 1
    assert DicomHook("pacs").store(files / "0002.dcm", store_id="y").counts["stored"] == 1
    assert len(peer.received) == 3


def test_a_kill_ends_the_task_and_the_retry_sends_the_rest(task, context, peer):
    heard, let_go = threading.Event(), threading.Event()

    def hang(uid):
        if uid.endswith(".2"):
            heard.set()
            let_go.wait(30)
        return 0

    peer.answer = hang
    operator = task()
    killer = threading.Thread(target=lambda: heard.wait(10) and (operator.on_kill(), let_go.set()))
    killer.start()
    at = context()
    with pytest.raises(CancelledError):
        operator.execute(at)
    killer.join()
    assert at["ti"].xcoms(SENT_KEY)[-1]["outcome"] == "pending"
    peer.answer = lambda uid: 0
    before = len(peer.received)
    assert task().execute(context())["outcome"] == "complete"
    assert "1" not in [uid[-1] for uid in peer.uids[before:]]


def test_xcom_log_and_errors_name_no_patient_and_no_file(task, context, peer, tmp_path, caplog):
    caplog.set_level("DEBUG")
    name, patient = "Quixotte^Dulcinea", "ZX98765"
    for number in (1, 2):
        made = image_file(tmp_path / "named", number, patient=patient, PatientName=name)
        made.rename(made.with_name(f"Quixotte_{patient}_{number}.dcm"))
    (tmp_path / "named" / f"Quixotte_{patient}.txt").write_text("x")
    peer.answer = lambda uid: 0xC001 if uid.endswith(".2") else 0
    at = context()
    with pytest.raises(AirflowFailException) as failed:
        task(files=str(tmp_path / "named")).execute(at)
    told = json.dumps(at["ti"].pushed) + caplog.text + str(failed.value)
    assert rt_image(2).SOPInstanceUID in told
    assert not found_in(told.encode(), list(forms_of(patient, name)))


def test_the_simulated_daemon_imports_for_patients_whom_it_knows(daemon, aria, connect, context, files, tmp_path):
    importing = connect("importing", port=daemon.address[1], timezone="UTC", allow_store=True)
    known = DicomHook(aria).find("PATIENT", {"PatientID": "QA_TB_WL", "PatientName": ""}).answers[0]
    image_file(tmp_path / "known", 11, patient="QA_TB_WL", PatientName=known["PatientName"])
    image_file(tmp_path / "known", 12, patient="NOBODY", PatientName="No^Body")
    operator = DicomStoreOperator(task_id="s", dicom_conn_id=importing, files=str(tmp_path / "known"))
    with pytest.raises(AirflowFailException, match=r"partial: 1 of 2 .*number 2"):
        operator.execute(context())
    assert DicomHook(aria).find("IMAGE", {"SOPInstanceUID": rt_image(11).SOPInstanceUID}).answers
    daemon.behaviour = replace(Behaviour(), store=False)
    image_file(tmp_path / "more", 13, patient="QA_TB_WL", PatientName=known["PatientName"])
    with pytest.raises(AirflowFailException, match="accepts no presentation context for RT Image"):
        DicomStoreOperator(task_id="t", dicom_conn_id=importing, files=str(tmp_path / "more")).execute(context())
