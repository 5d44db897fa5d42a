"""`varian-dicom receive` as its users run it: with DCMTK as the sender, with TLS, stopped and killed in the middle."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import dcmtk
from support.archive import rt_image, sendable
from support.certificates import Authority
from support.datasets import wire_bytes
from support.ports import wait_until

from airflow_provider_varian.receiver.spool import Spool

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
COUNT = 300


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        sendable(rt_image(number)).save_as(folder / f"{number:04}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


@contextmanager
def receiving(folder, *options):
    """Run a receiver; yield its process, its port and the file of its log."""
    log = folder / "log"
    command = [sys.executable, "-m", "airflow_provider_varian.cli", "receive", "--host", "127.0.0.1", "--port", "0"]
    command += ["--spool", str(folder / "spool"), *map(str, options)]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), log.read_text()
        yield process, line.strip().rpartition(":")[2], log
    finally:
        process.kill()
        process.communicate()


def acknowledged(output, images):
    """Return the files of which `storescu -v` was told Success."""
    statuses = re.findall(r"Received Store Response \((\w+)", output)
    return [image for image, status in zip(images, statuses, strict=False) if status == "Success"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_acknowledged_is_lost_when_it_ends_in_the_middle(tmp_path, program, images, how):
    storescu = program("storescu")
    with receiving(tmp_path, "--drain-seconds", 0) as (process, port, _):
        spool = Spool(tmp_path / "spool")
        command = [storescu, "-v", "-aec", "AIRFLOW", "127.0.0.1", port, *images * 3]
        with (tmp_path / "sender").open("w") as output:
            sender = subprocess.Popen(
                [str(part) for part in command], stdout=output, stderr=output, env=dcmtk.ENVIRONMENT
            )
        wait_until(lambda: len(list(spool.unclaimed())) > 20, what="objects", every=0.001)
        process.send_signal(how)
        assert sender.wait(60) != 0, "the sender noticed"
        assert process.wait(30) == (0 if how == signal.SIGTERM else -how)
    sent = acknowledged((tmp_path / "sender").read_text(), images * 3)
    assert 10 < len(sent) < 3 * COUNT
    swept = spool.reconcile()
    assert swept.without_receipt == ()
    here = sorted(wire_bytes(item.path) for item in spool.unclaimed())
    for image in sent:
        here.remove(wire_bytes(image))  # fails when it is not there, whole
    assert len(here) <= 1, "at most one that was durable, and whose sender was not told any more"
    if how == signal.SIGTERM:
        assert swept.swept_fragments == 0
    with receiving(tmp_path) as (_, port, log):
        sent = dcmtk.run(storescu, "-aec", "AIRFLOW", "127.0.0.1", port, images[0])
        assert sent.returncode == 0, sent.stderr
        assert "fragments removed" in log.read_text()


def test_it_drains_while_dcmtk_sends(tmp_path, program, images):
    storescu = program("storescu")
    with receiving(tmp_path, "--drain-seconds", 60) as (process, port, log):
        spool = Spool(tmp_path / "spool")
        command = [storescu, "-aec", "AIRFLOW", "127.0.0.1", port, *images]
        sender = subprocess.Popen([str(part) for part in command], env=dcmtk.ENVIRONMENT)
        wait_until(lambda: any(True for _ in spool.unclaimed()), what="an object", every=0.001)
        process.send_signal(signal.SIGTERM)
        assert sender.wait(60) == 0
        assert process.wait(30) == 0
    assert len(list(spool.unclaimed())) == COUNT
    assert f"{COUNT} objects stored" in log.read_text()


def test_dcmtk_sends_over_tls_with_a_certificate_and_not_without(tmp_path, program, images):
    storescu = program("storescu")
    authority = Authority()
    (tmp_path / "ca.pem").write_text(authority.certificate)
    for name in ("receiver", "sender"):
        issued = authority.issue(name)
        (tmp_path / f"{name}.pem").write_text(issued.certificate)
        (tmp_path / f"{name}.key").write_text(issued.key)
    tls = ["--tls-certificate", tmp_path / "receiver.pem", "--tls-private-key", tmp_path / "receiver.key"]
    with receiving(tmp_path, *tls, "--tls-ca", tmp_path / "ca.pem") as (_, port, log):
        to = ["-aec", "AIRFLOW", "127.0.0.1", port]
        own = ["+tls", tmp_path / "sender.key", tmp_path / "sender.pem"]
        sent = dcmtk.run(storescu, *own, "+cf", tmp_path / "ca.pem", *to, *images[:20])
        assert sent.returncode == 0, sent.stderr
        for wrong in (["+tla", "+cf", tmp_path / "ca.pem"], []):
            assert dcmtk.run(storescu, *wrong, *to, images[30]).returncode != 0
        wait_until(lambda: "plain DICOM on a port of TLS" in log.read_text())
    assert "TLS CN=sender): released" in log.read_text()
    assert "it showed no certificate" in log.read_text()
    assert len(list(Spool(tmp_path / "spool").unclaimed())) == 20


def test_dcmtk_is_told_how_it_was_refused(tmp_path, program, images):
    storescu = program("storescu")
    with receiving(tmp_path, "--ae-title", "AIRFLOW", "--allow-calling", "PACS") as (_, port, log):
        wrong = dcmtk.run(storescu, "-aet", "PACS", "-aec", "OTHER", "127.0.0.1", port, images[0])
        assert "Called AE Title Not Recognized" in wrong.stderr
        unknown = dcmtk.run(storescu, "-aet", "SENDER", "-aec", "AIRFLOW", "127.0.0.1", port, images[0])
        assert "Calling AE Title Not Recognized" in unknown.stderr
        right = dcmtk.run(storescu, "-aet", "PACS", "-aec", "AIRFLOW", "127.0.0.1", port, images[0])
        assert right.returncode == 0, right.stderr
    text = log.read_text()
    assert "it called 'OTHER', and we are 'AIRFLOW'" in text
    assert "--allow-calling 'SENDER' after --ae-title 'AIRFLOW'" in text


def test_a_silent_peer_does_not_delay_dcmtk(tmp_path, program, images):
    storescu = program("storescu")
    with receiving(tmp_path, "--max-connections", 8) as (_, port, log):
        silent = [socket.create_connection(("127.0.0.1", int(port))) for _ in range(30)]
        started = time.monotonic()
        sent = dcmtk.run(storescu, "-aec", "AIRFLOW", "127.0.0.1", port, images[0])
        assert sent.returncode == 0, sent.stderr
        assert time.monotonic() - started < 10, "not after the 30 s that they have"
        for each in silent:
            each.close()
    assert "(--max-connections)" in log.read_text()
