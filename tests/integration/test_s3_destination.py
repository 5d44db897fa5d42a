"""Whole retrievals from the simulated daemon into S3: complete, each object once at its key, resumed after a kill."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import PurePosixPath
from types import SimpleNamespace

import pytest
from support import s3
from support.faulty import Faulty
from support.ports import free_port, wait_until
from upath import UPath

from airflow_provider_varian.aria.profile import profile_for
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import DestinationWriteError
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.retrieve import retrieve
from airflow_provider_varian.retrieval.selection import select
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

PATIENT = "QA_TB_WL"
IMAGES = {"PatientID": PATIENT, "Modality": "RTIMAGE", "AcquisitionDate": "20260105"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with s3.store(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def bucket(store):
    with store.bucket() as made:
        yield made


@pytest.fixture(scope="module")
def holdings():
    return Clinic(days=1, patients=1, matrix=16, until=date(2026, 1, 5))


@pytest.fixture
def clinic(holdings, bucket, tmp_path):
    """Return ``run(method, ...)`` and what it works with."""
    port = free_port()
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=port)]
    faulty = Faulty(holdings)
    with SimulatedDaemon(faulty, trusted=trusted, behaviour=Behaviour(get=True)) as daemon:
        place = SimpleNamespace(daemon=daemon, faulty=faulty, port=port, spool=tmp_path / "spool")

        def run(method="get", *, root=bucket.root, layout="", keys=IMAGES, retrieval_id="r-1"):
            peer = Peer(
                host="127.0.0.1",
                port=daemon.address[1],
                called_ae_title="VMSDBD",
                receiver_host="127.0.0.1",
                receiver_port=port,
                retrieve_method=method,
            )
            profile = replace(profile_for(peer), settle_seconds=0.2, stable_interval_seconds=0.01)
            chosen = Layout(layout) if layout else Layout()
            request = select(peer, None, keys, profile=profile, layout=chosen)
            daemon.counts.clear()
            return retrieve(
                peer,
                request,
                profile=profile,
                destination=root,
                spool_root=place.spool,
                retrieval_id=retrieval_id,
                layout=chosen,
            )

        place.run = run
        yield place


def entries_of(result):
    return list(result.manifest.ledger.entries.values())


def objects_in(bucket):
    return {key: content for key, content in bucket.contents().items() if not key.startswith(".dicom/")}


def _first_object(clinic, bucket):
    clinic.run()
    return sorted(objects_in(bucket).items())[0]


def spooled_uids(folder):
    return {path.name.removesuffix(".dcm").rpartition(".")[0] for path in folder.rglob("*.dcm")}


@pytest.mark.parametrize("method", ["get", "move"])
def test_each_object_is_written_once_to_its_final_key_as_the_manifest_says(clinic, bucket, method):
    result = clinic.run(method)
    assert result.outcome is Outcome.COMPLETE
    entries = entries_of(result)
    assert len(entries) > 3
    contents = bucket.contents()
    manifest = json.loads(contents.pop(".dicom/r-1.json"))
    assert manifest["outcome"] == "complete"
    assert {entry["path"] for entry in manifest["instances"]} == set(contents)
    for entry in manifest["instances"]:
        content = contents[entry["path"]]
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert content[128:132] == b"DICM"
    written = Counter(bucket.door.written())
    del written["qa/.dicom/r-1.json"]
    assert written == {f"qa/{path}": 1 for path in contents}
    assert result.manifest_path == f"{bucket.uri}/.dicom/r-1.json"


def test_what_is_held_is_not_asked_for_again(clinic, bucket):
    clinic.run()
    bucket.door.requests.clear()
    result = clinic.run(retrieval_id="r-2")
    assert result.counts["held"] == len(entries_of(result)) > 0
    assert clinic.daemon.counts["sub-operations"] == 0
    assert set(bucket.door.written()) == {"qa/.dicom/r-2.json"}


def test_a_store_that_fails_half_way_ends_the_try_and_the_next_one_asks_for_nothing_that_is_here(clinic, bucket):
    written = []

    def before(request):
        if request.writes and ".dicom" not in request.key:
            written.append(request.key)
            return 500 if len(written) > 2 else None
        return None

    bucket.door.before = before
    with pytest.raises(DestinationWriteError):
        clinic.run()
    bucket.door.before = lambda request: None
    assert len(objects_in(bucket)) == 2
    assert json.loads(bucket.contents()[".dicom/r-1.json"])["outcome"] == "pending"
    here = spooled_uids(clinic.spool)
    assert here
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert clinic.daemon.counts["sub-operations"] == len(entries_of(result)) - 2 - len(here)
    assert spooled_uids(clinic.spool) == set()


def test_an_upload_whose_answer_is_lost_is_no_conflict(clinic, bucket):
    answers = [s3.LOSE_THE_ANSWER]
    bucket.door.before = lambda request: (
        answers.pop() if answers and request.writes and ".dicom" not in request.key else None
    )
    result = clinic.run()
    assert not answers
    assert result.outcome is Outcome.COMPLETE
    assert set(objects_in(bucket)) == {entry.path for entry in entries_of(result)}


def test_other_content_that_another_writer_brings_first_is_a_conflict_and_both_are_kept(clinic, bucket):
    path, content = _first_object(clinic, bucket)
    other = content[:-2] + bytes(255 - byte for byte in content[-2:])
    second = bucket.store.path(f"s3://{bucket.name}/second")

    def be_faster(request):
        if request.writes and request.key == f"second/{path}" and "if-none-match" in request.headers:
            bucket.door.before = lambda request: None
            bucket.put(request.key, other)

    bucket.door.before = be_faster
    result = clinic.run(root=second, retrieval_id="r-2")
    assert result.outcome is Outcome.PARTIAL
    (entry,) = (entry for entry in entries_of(result) if entry.conflicts)
    assert entry.path == path
    contents = {key: content for key, content in bucket.contents().items() if key.startswith(f"{bucket.name}/second/")}
    assert contents[f"{bucket.name}/second/{path}"] == other
    # It differs from the first export in when that was, at the head.
    kept = contents[f"{bucket.name}/second/{entry.conflicts[0]}"]
    assert (len(kept), kept[-512:]) == (len(content), content[-512:])
    again = clinic.run(root=second, retrieval_id="r-3")
    assert (again.outcome, again.counts["held"]) == (Outcome.PARTIAL, len(entries_of(again)))
    assert clinic.daemon.counts["sub-operations"] == 0


def test_a_plan_that_changed_takes_the_key_and_the_old_one_is_kept(clinic, bucket):
    plans = {"PatientID": PATIENT, "Modality": "RTPLAN"}
    first = clinic.run(keys=plans)
    entry = entries_of(first)[0]
    old = objects_in(bucket)[entry.path]
    # The one that is held says nothing of its state any more: what comes is another version of it.
    held = old.replace(b"APPROVED", b"REJECTED")
    assert held != old
    bucket.put(f"qa/{entry.path}", held)
    second = clinic.run(keys=plans, retrieval_id="r-2")
    assert second.outcome is Outcome.COMPLETE
    again = second.manifest.ledger.entries[entry.sop_instance_uid]
    contents = bucket.contents()
    assert contents[again.superseded] == held
    assert PurePosixPath(again.superseded).is_relative_to(f".dicom/versions/{entry.sop_instance_uid}")
    assert (again.bytes, again.sha256) == (
        len(contents[entry.path]),
        hashlib.sha256(contents[entry.path]).hexdigest(),
    )
    assert b"APPROVED" in contents[entry.path]
    assert clinic.daemon.counts["sub-operations"] == 1


def down(bucket):
    return UPath(bucket.uri, **{**bucket.store.options, "endpoint_url": f"http://127.0.0.1:{free_port()}"})


def denied(bucket):
    bucket.door.before = lambda request: 403
    return bucket.root


def read_only(bucket):
    bucket.door.before = lambda request: 403 if request.writes else None
    return bucket.root


def no_such_bucket(bucket):
    return bucket.store.path("s3://no-such-bucket/qa")


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (down, "can be reached from here"),
        (denied, "credentials have to"),
        (read_only, "credentials have to"),
        (no_such_bucket, "no such bucket"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_before_anything_is_asked_of_the_peer(clinic, bucket, make, advice, caplog):
    caplog.set_level(logging.INFO)
    root = make(bucket)
    with pytest.raises(DestinationWriteError, match=advice) as caught:
        clinic.run(root=root, layout="{PatientID}/{SOPInstanceUID}.dcm")
    assert clinic.daemon.counts["requests"] == 0
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert PATIENT not in told


def test_a_store_that_fails_names_no_patient_although_the_layout_does(clinic, bucket, caplog):
    caplog.set_level(logging.INFO)
    bucket.door.before = lambda request: 500 if request.writes and ".dicom" not in request.key else None
    with pytest.raises(DestinationWriteError) as caught:
        clinic.run(layout="{PatientID}/{SOPInstanceUID}.dcm")
    assert any(f"qa/{PATIENT}/" in key for key in bucket.door.written())
    assert PATIENT not in "".join(traceback.format_exception(caught.value)) + caplog.text
    manifest = bucket.contents()[".dicom/r-1.json"].decode()
    assert json.loads(manifest)["outcome"] == "pending"
    assert PATIENT not in manifest


def command(clinic, bucket, method):
    return {
        "args": [
            *(sys.executable, "-m", "airflow_provider_varian.cli", "retrieve", "--json"),
            *("--peer", f"VMSDBD@127.0.0.1:{clinic.daemon.address[1]}", "--calling", "AIRFLOW"),
            *("--listen", f"127.0.0.1:{clinic.port}", "--method", method),
            *("--out", bucket.uri, "--spool", str(clinic.spool)),
            *(part for keyword, value in IMAGES.items() for part in ("-k", f"{keyword}={value}")),
        ],
        "env": {**os.environ, **bucket.store.environment},
    }


@pytest.mark.parametrize("method", ["get", "move"])
def test_the_program_is_killed_and_the_rerun_asks_for_the_missing_alone(clinic, bucket, method):
    writing, killed = threading.Event(), threading.Event()
    sent = []

    def hold_the_third(request):
        if request.writes and ".dicom" not in request.key and len(objects) == 2:
            writing.set()
            killed.wait(60)
            return 500
        if request.writes and ".dicom" not in request.key:
            objects.append(request.key)
        return None

    def hang_at_the_sixth(uid):
        sent.append(uid)
        return len(sent) > 5 and not killed.wait(60)

    objects = []
    bucket.door.before = hold_the_third
    clinic.faulty.broken = hang_at_the_sixth
    process = subprocess.Popen(**command(clinic, bucket, method), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert writing.wait(90)
    finally:
        process.kill()
        process.wait(30)
        killed.set()
        bucket.door.before = lambda request: None
    wait_until(lambda: clinic.daemon.counts["open"] == 0, seconds=60, what="the daemon to notice")
    clinic.faulty.broken = lambda uid: False

    held = set(objects_in(bucket))
    assert held == {key.removeprefix("qa/") for key in objects}
    (manifest,) = (json.loads(text) for key, text in bucket.contents().items() if key.endswith(".json"))
    assert manifest["outcome"] == "pending"
    listed = {entry["sop_instance_uid"] for entry in manifest["instances"]}
    here = {PurePosixPath(key).name.split(".", 1)[1].removesuffix(".dcm") for key in held}
    here |= spooled_uids(clinic.spool)
    assert 2 < len(here) < len(listed)

    clinic.daemon.counts.clear()
    bucket.door.requests.clear()
    done = subprocess.run(**command(clinic, bucket, method), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["outcome"], told["counts"]["verified"]) == ("complete", len(listed))
    assert clinic.daemon.counts["sub-operations"] == len(listed - here)
    assert len(objects_in(bucket)) == len(listed)
    again = Counter(bucket.door.written())
    assert all(f"qa/{key}" not in again for key in held)
    assert {count for key, count in again.items() if ".dicom" not in key} == {1}
    assert sorted(key for key in bucket.contents() if key.startswith(".dicom/")) == [
        f".dicom/{PurePosixPath(told['manifest']).name}",
        ".dicom/id",
    ]
    assert spooled_uids(clinic.spool) == set()
