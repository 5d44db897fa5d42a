"""Retrievals in processes of their own, at once, through one standing receiver in another one (semantics 11)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager

import pytest
from pydicom import dcmread
from support.faulty import Faulty
from support.held import all_held
from support.ports import wait_until
from support.simulated import UNTIL, trusted

from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

PROGRAM = (sys.executable, "-m", "airflow_provider_varian.cli")
PATIENCE = 90


@contextmanager
def standing_receiver(spool, *options):
    """Run ``varian-dicom receive`` and give its port."""
    command = (*PROGRAM, "receive", "--ae-title", "AIRFLOW", "--host", "127.0.0.1", "--port", "0", "--spool", spool)
    with subprocess.Popen((*command, *options), stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on 127.0.0.1:"), line
            yield int(line.rpartition(":")[2])
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def clinic():
    return Clinic(seed=1, patients=2, days=2, until=UNTIL, matrix=16)


@pytest.fixture(scope="module")
def series(clinic):
    """Three series of a machine's images, of several instances each, by UID."""
    found = {}
    for each in all_held(clinic):
        if each.modality == "RTIMAGE" and each.birth_date is None:
            found.setdefault(each.series, set()).add(each.uid)
    return sorted(found.items(), key=lambda item: (len(item[1]), item[0]))[-3:]


class Site:
    """A daemon that sends to a standing receiver, and retrievals from it."""

    def __init__(self, daemon, root, receiver):
        self.daemon = daemon
        self.root = root
        self.receiver = receiver
        self.sent = Counter()
        self._processes = []

    def retrieve(self, name, chosen, *options):
        host, port = self.daemon.address
        keys = [word for uid, _ in chosen for word in ("-k", f"SeriesInstanceUID={uid}")]
        process = subprocess.Popen(
            (
                *(*PROGRAM, "retrieve", "--peer", f"VMSDBD@{host}:{port}", "--method", "move", "--json"),
                *("--receiver", str(self.receiver), "--out", str(self.root / name), "--set", "max_associations=4"),
                *(*keys, *options),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def close(self):
        """End what a failed test has left."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def filed(self, name):
        files = [path for path in (self.root / name).rglob("*.dcm") if ".dicom" not in path.parts]
        return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}

    @property
    def moves(self):
        return self.daemon.counts["C-MOVE"]


@contextmanager
def site(clinic, root, receiver, port):
    with SimulatedDaemon(Faulty(clinic), trusted=[trusted(port)]) as daemon:
        here = Site(daemon, root, receiver)
        try:
            yield here
        finally:
            here.close()


def ended(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, json.loads(out) if out.strip() else err


def send_when_two_have_asked(here):
    """Let the daemon send nothing before it was asked twice."""

    def wait(uid):
        here.sent[uid] += 1
        wait_until(lambda: here.moves >= 2, seconds=PATIENCE)
        return False

    here.daemon.holdings.broken = wait


def uids_of(chosen):
    return set().union(*(instances for _, instances in chosen))


def test_two_at_once_over_series_that_both_want(clinic, series, tmp_path):
    spool = tmp_path / "spool"
    with standing_receiver(spool) as port, site(clinic, tmp_path, spool, port) as here:
        send_when_two_have_asked(here)
        running = {"first": series[:2], "second": series[1:]}
        processes = {name: here.retrieve(name, chosen) for name, chosen in running.items()}
        for name, chosen in running.items():
            status, told = ended(processes[name])
            assert status == 0, told
            counts = {"found": len(uids_of(chosen)), "verified": len(uids_of(chosen)), "missing": 0}
            assert told["counts"] | counts | {"unexpected": 0, "duplicate": 0, "conflict": 0} == told["counts"]
            assert here.filed(name) == uids_of(chosen)
        assert list(Spool(spool).unclaimed()) == []
        # Each was sent once to each that asked for it, and no more.
        assert {here.sent[uid] for uid in series[1][1]} == {2}
        assert {here.sent[uid] for uid in uids_of([series[0], series[2]])} == {1}


def test_a_killed_retrieval_loses_nothing_beside_one_that_goes_on(clinic, series, tmp_path):
    """Both want the same series; one is killed while the peer sends, and its retry finds what came for it."""
    spool, chosen = tmp_path / "spool", series[1:2]
    with standing_receiver(spool) as port, site(clinic, tmp_path, spool, port) as here:
        go_on = threading.Event()

        def wait(uid):
            here.sent[uid] += 1
            assert go_on.wait(PATIENCE)
            return False

        here.daemon.holdings.broken = wait
        killed, other = here.retrieve("killed", chosen), here.retrieve("other", chosen)
        try:
            wait_until(lambda: here.moves >= 2, seconds=PATIENCE)
            killed.kill()
            killed.communicate(timeout=PATIENCE)
        finally:
            go_on.set()
        status, told = ended(other)
        assert status == 0, told
        assert told["counts"] | {"duplicate": 0, "unexpected": 0} == told["counts"]
        # What came for the one that was killed is there, and nobody else has taken it.
        before = {item.sop_instance_uid for item in Spool(spool).unclaimed()}
        here.sent.clear()
        status, told = ended(here.retrieve("killed", chosen))
        assert status == 0, told
        assert here.filed("killed") == here.filed("other") == uids_of(chosen)
        assert before.isdisjoint(here.sent)
        assert before.isdisjoint(item.sop_instance_uid for item in Spool(spool).unclaimed())


def test_two_at_once_through_the_store_of_a_receiver_elsewhere(clinic, series, tmp_path):
    store = f"file://{tmp_path}/store"
    publishing = standing_receiver(tmp_path / "elsewhere", "--publish", store)
    with publishing as port, site(clinic, tmp_path, store, port) as here:
        send_when_two_have_asked(here)
        running = {"first": series[:2], "second": series[1:]}
        processes = {name: here.retrieve(name, chosen) for name, chosen in running.items()}
        for name, chosen in running.items():
            status, told = ended(processes[name])
            assert status == 0, told
            assert told["counts"] | {"unexpected": 0, "duplicate": 0, "conflict": 0} == told["counts"]
            assert here.filed(name) == uids_of(chosen)
            assert not list((tmp_path / name / ".dicom" / "spool").rglob("*.dcm"))
