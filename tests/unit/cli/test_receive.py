"""The verb `receive`: its options, the line that it prints, and its end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pynetdicom import AE
from support.archive import rt_image, sendable
from support.certificates import Authority
from support.parking import PARKED
from support.ports import is_listening, wait_until

from airflow_provider_varian.cli.main import main, parser
from airflow_provider_varian.cli.receiver_options import settings_from_arguments
from airflow_provider_varian.cli.receiver_services import _publisher
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.receiver.admission import ANYBODY
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.upkeep import UpkeepObserver
from airflow_provider_varian.uids import RT_IMAGE

ROOT = Path(__file__).parents[3]
LOOPBACK = ("--host", "127.0.0.1")


def settings(*options, tmp_path=Path("spool")):
    arguments = parser().parse_args(["receive", "--spool", str(tmp_path), *map(str, options)])
    return settings_from_arguments(arguments)


def who(*options):
    """Return who may send, by title: networks, and calling titles."""
    return {
        entry.ae_title: (
            "any" if entry.networks == ANYBODY else [str(network) for network in entry.networks],
            sorted(entry.calling_ae_titles),
        )
        for entry in settings(*options).entries
    }


# Who may send


def test_lists_belong_to_the_title_before_them():
    found = who(
        *("--ae-title", "AIRFLOW", "--allow-from", "10.1.0.0/16", "10.2.0.1", "--allow-calling", "ARIA"),
        *("--ae-title", "DB DAEMON", "--allow-from", "192.168.7.0/24", "--allow-from", "2001:db8::/32"),
        *("--ae-title", "OPEN", "--allow-any", "--allow-calling", "A", "B", "--allow-calling", "C"),
    )
    assert found == {
        "AIRFLOW": (["10.1.0.0/16", "10.2.0.1/32"], ["ARIA"]),
        "DB DAEMON": (["192.168.7.0/24", "2001:db8::/32"], []),
        "OPEN": ("any", ["A", "B", "C"]),
    }


def test_lists_before_the_first_title_belong_to_all():
    found = who(
        *("--allow-from", "10.0.0.1", "--allow-calling", "ARIA"),
        *("--ae-title", "A", "--ae-title", "B", "--allow-from", "10.0.0.2", "--allow-calling", "PACS"),
    )
    assert found == {"A": (["10.0.0.1/32"], ["ARIA"]), "B": (["10.0.0.1/32", "10.0.0.2/32"], ["ARIA", "PACS"])}


def test_without_a_title_it_is_the_one_of_connections():
    assert who("--allow-from", "10.1.2.3/16") == {"AIRFLOW": (["10.1.0.0/16"], [])}
    assert who("--allow-any") == {"AIRFLOW": ("any", [])}
    assert who(*LOOPBACK) == {"AIRFLOW": ([], [])}


def test_a_title_without_a_list_is_named():
    with pytest.raises(ConfigurationError, match="nobody may send to 'A'"):
        who("--ae-title", "A", "--ae-title", "B", "--allow-from", "10.0.0.2")
    with pytest.raises(ConfigurationError, match="both given for 'A'"):
        who("--ae-title", "A", "--allow-any", "--allow-from", "10.0.0.2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--allow-from", "aria-db"], "'aria-db' is not an address or a network"),
        (["--allow-from", "10.0.0.0/33"], "not an address or a network"),
        (["--ae-title", "SEVENTEEN LETTERS"], "not an AE title"),
        (["--ae-title", "  "], "not an AE title"),
        (["--ae-title", "A\\B"], "not an AE title"),
        (["--max-object", "8X"], "not a number of bytes"),
        (["--max-object", "G"], "not a number of bytes"),
        (["--max-object", "-1"], "not a number of bytes"),
        (["--port", "65536"], "not a port"),
        (["--max-connections", "0"], "not a whole number from 1"),
        (["--durability", "maybe"], "invalid choice"),
        (["--retention-days", "-1"], "not a number of days"),
    ],
)
def test_a_wrong_value_says_what_is_right(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        settings(*options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


# Limits


def test_the_defaults_are_those_of_the_settings():
    found = settings(*LOOPBACK)
    assert found.limits == Limits()
    assert (found.max_pdu, found.durable, found.drain_seconds, found.port, found.tls) == (131072, True, 30, 11112, None)


def test_each_limit_has_an_option():
    found = settings(
        *LOOPBACK,
        *("--max-connections", 1, "--max-connections-per-source", 2, "--max-associations", 3),
        *("--max-associations-per-source", 4, "--handshake-seconds", 5, "--idle-seconds", 6, "--min-free", "7M"),
        *("--association-objects", 8, "--association-bytes", "9K", "--hourly-objects", 10, "--hourly-bytes", "11G"),
        *("--association-seconds", 12, "--read-seconds", 13, "--max-object", "14", "--max-pdu", "16K"),
        *("--durability", "none", "--drain-seconds", 15, "--port", 0),
    )
    limits = found.limits
    assert (limits.connections, limits.connections_per_source) == (1, 2)
    assert (limits.associations, limits.associations_per_source) == (3, 4)
    assert (limits.handshake_seconds, limits.idle_seconds, limits.min_free_bytes) == (5, 6, 7 << 20)
    assert (limits.objects_per_association, limits.bytes_per_association) == (8, 9 << 10)
    assert (limits.objects_per_source_hour, limits.bytes_per_source_hour) == (10, 11 << 30)
    assert (limits.bounds.association_seconds, limits.bounds.read_seconds, limits.bounds.object_bytes) == (12, 13, 14)
    assert (found.max_pdu, found.durable, found.drain_seconds, found.port) == (16384, False, 15, 0)


def test_no_free_space_may_be_kept():
    assert settings(*LOOPBACK, "--min-free", 0).limits.min_free_bytes == 0


@pytest.mark.parametrize("option", ["--read-seconds", "--association-seconds", "--handshake-seconds", "--max-object"])
def test_a_wait_of_nothing_is_wrong(option):
    with pytest.raises(ConfigurationError, match=f"{option} has to be more than 0"):
        settings(*LOOPBACK, option, 0)


# TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, authority = tmp_path_factory.mktemp("tls"), Authority()
    plain, secret = authority.issue("receiver"), authority.issue("receiver", password="words")
    texts = {
        "ca": authority.certificate,
        "certificate": plain.certificate,
        "key": plain.key,
        "secret-certificate": secret.certificate,
        "secret-key": secret.key,
        "password": "words\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in texts}


def test_certificates_come_from_files(files):
    found = settings(
        *LOOPBACK,
        *("--tls-certificate", files["secret-certificate"], "--tls-private-key", files["secret-key"]),
        *("--tls-private-key-password-file", files["password"], "--tls-ca", files["ca"]),
    )
    assert found.tls.private_key_password == "words"
    assert found.tls_context() is not None
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"--tls-certificate": "certificate"}, "--tls-private-key is missing, although --tls-certificate is given"),
        ({"--tls-ca": "ca"}, "--tls-certificate is missing, although --tls-ca is given"),
        ({"--tls-certificate": "certificate", "--tls-private-key": "nowhere"}, "--tls-private-key: .* cannot be read"),
    ],
)
def test_half_of_tls_is_none(files, given, message):
    options = [part for option, name in given.items() for part in (option, files.get(name, "nowhere"))]
    with pytest.raises(ConfigurationError, match=message):
        settings(*LOOPBACK, *options)


def test_a_key_without_its_password_is_wrong_usage_and_asks_nobody(files, tmp_path, capsys):
    options = ("--tls-certificate", files["secret-certificate"], "--tls-private-key", files["secret-key"])
    status = main(["receive", "--spool", str(tmp_path), *LOOPBACK, *map(str, options)])
    assert status == 2
    assert "--tls-private-key-password-file" in capsys.readouterr().err


# The process


@dataclass
class Receiver:
    """A running `varian-dicom receive`."""

    process: subprocess.Popen
    port: int
    errors: list[str] = field(default_factory=list)

    def said(self, words):
        return any(words in line for line in self.errors)

    def associate(self):
        ae = AE("SENDER")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        ae.add_requested_context(RT_IMAGE, "1.2.840.10008.1.2")
        return ae.associate("127.0.0.1", self.port, ae_title="AIRFLOW", evt_handlers=PARKED)


@contextmanager
def running(spool, *options):
    command = [sys.executable, "-m", "airflow_provider_varian.cli", "receive", *LOOPBACK, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--spool", str(spool), *map(str, options)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    receiver = Receiver(process, 0)
    reader = threading.Thread(target=lambda: receiver.errors.extend(iter(process.stderr.readline, "")), daemon=True)
    reader.start()
    try:
        line = process.stdout.readline()
        assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+\n", line), (line, receiver.errors)
        receiver.port = int(line.rpartition(":")[2])
        yield receiver
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        process.stdout.close()
        process.stderr.close()


def test_sigterm_lets_an_association_finish_and_ends_with_0(tmp_path):
    with running(tmp_path / "spool") as receiver:
        association = receiver.associate()
        assert association.send_c_store(sendable(rt_image(1))).Status == 0
        receiver.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(receiver.port), what="the port to be given back")
        assert receiver.process.poll() is None
        assert association.send_c_store(sendable(rt_image(2))).Status == 0
        association.release()
        assert receiver.process.wait(30) == 0
        assert receiver.process.stdout.read() == "", "one line and no more"
    assert receiver.said("1 association has up to 30 s to end")
    assert receiver.said("released after")
    assert not receiver.said("Traceback")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} info: ", receiver.errors[0])
    spool = Spool(tmp_path / "spool")
    assert len(list(spool.unclaimed())) == 2
    assert list((spool.root / "tmp").iterdir()) == []


def test_what_does_not_end_while_it_drains_is_aborted_and_the_status_is_0(tmp_path):
    with running(tmp_path / "spool", "--drain-seconds", 0.2) as receiver:
        association = receiver.associate()
        assert association.send_c_store(sendable(rt_image(1))).Status == 0
        receiver.process.send_signal(signal.SIGINT)
        assert receiver.process.wait(30) == 0
        wait_until(lambda: association.is_aborted)
    assert len(list(Spool(tmp_path / "spool").unclaimed())) == 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_and_loses_nothing(tmp_path, second):
    with running(tmp_path / "spool", "--drain-seconds", 300) as receiver:
        association = receiver.associate()
        assert association.send_c_store(sendable(rt_image(1))).Status == 0
        receiver.process.send_signal(signal.SIGTERM)
        wait_until(lambda: receiver.said("Stopping"), what="it to drain")
        receiver.process.send_signal(second)
        assert receiver.process.wait(30) == -second
        wait_until(lambda: association.is_aborted)
    spool = Spool(tmp_path / "spool")
    assert len(list(spool.unclaimed())) == 1
    assert len(list((spool.root / "tmp").iterdir())) == 1
    assert spool.reconcile().unclaimed == 1
    assert list((spool.root / "tmp").iterdir()) == []


def test_a_taken_port_is_a_failure_and_a_wrong_address_wrong_usage(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["receive", "--spool", str(tmp_path), *LOOPBACK, "--port", port]) == 1
        assert "is taken" in capsys.readouterr().err
    options = ["--host", "203.0.113.1", "--allow-any", "--port", "0"]
    assert main(["receive", "--spool", str(tmp_path), *options]) == 2
    assert "--host takes an address of this machine" in capsys.readouterr().err
    assert main(["receive", "--spool", str(tmp_path)]) == 2
    assert "--allow-from" in capsys.readouterr().err


def test_two_kinds_of_audit_are_one_too_many(tmp_path, capsys):
    audit = ["--audit-file", str(tmp_path / "audit"), "--audit-syslog", "logs.example.org"]
    assert main(["receive", "--spool", str(tmp_path), *LOOPBACK, *audit]) == 2
    assert "--audit-file and --audit-syslog are both given" in capsys.readouterr().err


def test_what_runs_beside_it_starts_and_ends_with_it(tmp_path):
    audit, store = tmp_path / "audit.xml", tmp_path / "store"
    options = ("--health-port", 0, "--audit-file", audit, "--publish", store, "--retention-days", 1)
    with running(tmp_path / "spool", *options) as receiver:
        association = receiver.associate()
        assert association.send_c_store(sendable(rt_image(1))).Status == 0
        association.release()
        wait_until(lambda: list(store.glob("objects/*/*.dcm")), what="it to be published")
        receiver.process.send_signal(signal.SIGTERM)
        assert receiver.process.wait(30) == 0
    assert str(rt_image(1).StudyInstanceUID) in audit.read_text()
    assert not receiver.said("Traceback")


@pytest.mark.parametrize("threads", ["0", "11"])
def test_so_many_objects_at_once_cannot_be_published(tmp_path, capsys, threads):
    options = ["--publish", str(tmp_path / "store"), "--publish-threads", threads]
    try:
        status = main(["receive", "--spool", str(tmp_path / "spool"), *LOOPBACK, *options])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert threads in capsys.readouterr().err


@pytest.mark.parametrize(("uri", "at_once"), [("{}/store", 3), ("file://{}/store", 3), ("memory://store", 1)])
def test_where_a_client_is_for_one_thread_one_object_is_published_at_a_time(tmp_path, uri, at_once):
    publisher = _publisher(uri.format(tmp_path), Spool(tmp_path / "spool"), UpkeepObserver(), threads=3)
    assert publisher._crew._size == at_once
