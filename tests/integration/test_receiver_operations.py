"""`varian-dicom receive` as those see it who keep it running: health, metrics, sweep, store and audit trail."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from support.archive import rt_image, sendable
from support.audit_schema import checked, event, sop_classes
from support.parking import PARKED
from support.ports import wait_until

from airflow_provider_varian.dimse import socket_manners
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.uids import RT_IMAGE

ROOT = Path(__file__).parents[2]
SECRET = "QA_TB_SECRET"
START, STOP, BEGIN, TRANSFERRED, DELETED = "110100/110120", "110100/110121", "110102", "110104", "110103"


class Receiver:
    """A process, and what it says of itself."""

    def __init__(self, folder, process):
        self.folder = folder
        self.process = process
        self.spool = Spool(folder / "spool")
        self.log = folder / "log"
        self.port = 0

    @property
    def health(self):
        return int(re.search(r"Health and metrics on http://127\.0\.0\.1:(\d+)/", self.log.read_text())[1])

    def get(self, page):
        connection = http.client.HTTPConnection("127.0.0.1", self.health, timeout=20)
        try:
            connection.request("GET", page)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metrics(self):
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            (sample.name.removeprefix("dicom_receiver_"), *sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    def trail(self):
        return [checked(line) for line in (self.folder / "audit.xml").read_text().splitlines()]

    @contextmanager
    def association(self):
        ae = AE("VMSDBD")
        ae.add_requested_context(RT_IMAGE, ImplicitVRLittleEndian)
        manners = [*socket_manners.handlers(), *PARKED]
        opened = ae.associate("127.0.0.1", self.port, ae_title="AIRFLOW", evt_handlers=manners)
        assert opened.is_established
        try:
            yield opened
        finally:
            opened.release()

    def send(self, *numbers):
        with self.association() as opened:
            for number in numbers:
                image = sendable(rt_image(number, PatientID=SECRET, PatientName=f"{SECRET}^Patient"))
                assert opened.send_c_store(image).Status == 0


@contextmanager
def receiving(folder, *options):
    command = [sys.executable, "-m", "airflow_provider_varian.cli", "receive", "--host", "127.0.0.1", "--port", "0"]
    command += ["--spool", str(folder / "spool"), "--min-free", "0", "--health-port", "0", *map(str, options)]
    with (folder / "log").open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
    receiver = Receiver(folder, process)
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), receiver.log.read_text()
        receiver.port = int(line.strip().rpartition(":")[2])
        yield receiver
    finally:
        process.kill()
        process.communicate()


def objects_in(store):
    return sorted(path.name for path in store.glob("objects/*/*"))


def test_what_comes_is_counted_published_and_audited_and_no_patient_is_named(tmp_path):
    store, audit = tmp_path / "store", tmp_path / "audit.xml"
    options = ["--publish", store, "--audit-file", audit, "--allow-from", "127.0.0.1", "--allow-calling", "VMSDBD"]
    with receiving(tmp_path, *options) as receiver:
        status, ready = receiver.get("/readyz")
        assert (status, json.loads(ready)) == (200, {"ready": True, "problems": [], "degraded": []})
        receiver.send(1, 2, 3)
        wait_until(lambda: len(objects_in(store)) == 3, what="three objects in the store")
        wait_until(lambda: receiver.metrics()["publish_backlog_objects",] == 0, what="their notes")
        numbers = receiver.metrics()
        assert numbers["objects_total", "AIRFLOW", "VMSDBD"] == 3
        assert numbers["spool_unclaimed_objects",] in (0, 3), "counted at most 10 seconds ago"
        assert numbers["published_objects_total",] == 3
        assert numbers["associations_open",] == 0
        assert numbers["object_seconds_count",] == 3
        assert objects_in(store) == sorted(item.path.name for item in receiver.spool.unclaimed())
        for item in receiver.spool.unclaimed():
            (path,) = store.glob(f"objects/*/{item.path.name}")
            assert path.read_bytes() == item.path.read_bytes()
        told = receiver.get("/metrics")[1]
        receiver.process.send_signal(signal.SIGTERM)
        assert receiver.process.wait(60) == 0
        assert stat.S_IMODE(audit.stat().st_mode) == 0o600
        trail = receiver.trail()
        assert [event(message) for message in trail] == [START, BEGIN, TRANSFERRED, STOP]
        assert sop_classes(trail[2]) == {RT_IMAGE: 3}
        assert (SECRET.encode() in next(receiver.spool.unclaimed()).path.read_bytes()) is True
        for text in (told, audit.read_text(), receiver.log.read_text()):
            assert SECRET not in text
        assert rt_image(1).StudyInstanceUID not in receiver.log.read_text()


def test_it_says_that_it_stops_while_an_association_ends(tmp_path):
    with receiving(tmp_path, "--audit-file", tmp_path / "audit.xml", "--drain-seconds", "60") as receiver:
        with receiver.association() as opened:
            receiver.process.send_signal(signal.SIGTERM)
            wait_until(lambda: receiver.get("/readyz")[0] == 503, what="its not being ready")
            assert json.loads(receiver.get("/readyz")[1])["problems"] == [
                "it is stopping: open associations may end, no new ones are accepted"
            ]
            assert receiver.get("/healthz")[0] == 200
            assert opened.send_c_store(sendable(rt_image(1))).Status == 0
        assert receiver.process.wait(60) == 0
        assert [event(message) for message in receiver.trail()] == [START, BEGIN, TRANSFERRED, STOP]


def test_what_nobody_claimed_is_swept_at_its_start_and_told_of(tmp_path):
    with receiving(tmp_path, "--retention-days", "0") as receiver:
        receiver.send(1, 2)
        receiver.process.send_signal(signal.SIGTERM)
        assert receiver.process.wait(60) == 0
    old, young = receiver.spool.unclaimed()
    os.utime(old.path, (0, time.time() - 3 * 86400))
    with receiving(tmp_path, "--retention-days", "2", "--audit-file", tmp_path / "audit.xml") as receiver:
        wait_until(lambda: receiver.metrics()["swept_objects_total",] == 1, what="the sweep")
        assert [item.path for item in receiver.spool.unclaimed()] == [young.path]
        assert f"removed {old.sop_instance_uid}, which nobody claimed" in receiver.log.read_text()
        wait_until(lambda: len(receiver.trail()) == 2, what="the audit message")
        assert [event(message) for message in receiver.trail()] == [START, DELETED]


def test_a_store_and_a_trail_that_are_down_hold_up_nobody(tmp_path):
    (tmp_path / "store").write_text("a file lies where the store should be")
    folder = tmp_path / "audit"
    folder.mkdir()
    with receiving(tmp_path, "--publish", tmp_path / "store", "--audit-file", folder / "x.xml") as receiver:
        folder.rename(tmp_path / "gone")
        receiver.send(1, 2, 3)
        assert len(list(receiver.spool.unclaimed())) == 3

        def degraded():
            status, ready = receiver.get("/readyz")
            assert status == 200
            return len(json.loads(ready)["degraded"]) == 2

        wait_until(degraded, what="both troubles in words")
        trail, store = json.loads(receiver.get("/readyz")[1])["degraded"]
        assert "audit messages cannot be written to" in trail
        assert "3 objects wait" in store
        assert receiver.metrics()["publish_troubled",] == 1
        (tmp_path / "store").unlink()
        (tmp_path / "gone").rename(folder)
        wait_until(lambda: len(objects_in(tmp_path / "store")) == 3, what="the store's share", seconds=60)
        wait_until(lambda: json.loads(receiver.get("/readyz")[1])["degraded"] == [], what="health", seconds=60)


@pytest.mark.parametrize("option", ["--audit-file", "--health-port"])
def test_what_cannot_be_had_ends_it_with_words(tmp_path, option):
    (tmp_path / "audit.xml").touch()
    (tmp_path / "audit.xml").chmod(0o666)
    with receiving(tmp_path) as other:
        value = tmp_path / "audit.xml" if option == "--audit-file" else other.health
        command = [sys.executable, "-m", "airflow_provider_varian.cli", "receive", "--host", "127.0.0.1", "--port", "0"]
        command += ["--spool", str(tmp_path / "spool2"), option, str(value)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.returncode == (2 if option == "--audit-file" else 1)
    assert ("may be written by others" if option == "--audit-file" else "is taken") in ended.stderr
