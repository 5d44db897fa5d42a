"""The two ways to run a receiver, each as a process that can be attacked, measured and killed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from support.certificates import Authority
from support.datasets import wire_bytes
from support.ports import wait_until

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.receiver.in_task import limits_of

TOP = Path(__file__).parents[2]
IN_TASK, STANDING = "in-task", "standing"
WAYS = (IN_TASK, STANDING)
#: PS3.8 has no other; an attack on the TLS port is told by it.
PLAIN, TLS = "plain", "tls"


@dataclass(frozen=True, kw_only=True)
class Small:
    """Limits of a receiver that is attacked: small, so that what is waited for comes soon.

    :param port: where to listen; 0 for a free one.
    :param connections: at a time, with an association or without.
    :param associations: at a time.
    :param handshake_seconds: for TLS.
    :param association_seconds: from the connection to the association.
    :param read_seconds: for a PDU that has begun, and for the next piece of an object.
    :param object_bytes: the largest object.
    :param max_pdu: what we announce.
    :param min_free_bytes: what has to stay free where the spool is.
    """

    port: int = 0
    connections: int = 12
    associations: int = 4
    handshake_seconds: float = 1.5
    association_seconds: float = 1.5
    read_seconds: float = 1.5
    object_bytes: int = 4 * 1024 * 1024
    max_pdu: int = 16384
    min_free_bytes: int = 0


@dataclass
class Receiver:
    """A running receiver.

    :param way: ``in-task`` or ``standing``.
    :param jail: a folder in which it has its spool, and all else that it could write to by a relative path.
    :param client_tls: how to call it; ``None``: it speaks plain TCP.
    """

    way: str
    address: tuple[str, int]
    process: subprocess.Popen[str]
    jail: Path
    limits: Small
    client_tls: ssl.SSLContext | None = None
    #: What good peers, and attacks that are let do so, were told 0x0000 for: SOP Instance UID and data set.
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    #: Threads and sockets that it has when nobody is there.
    threads_idle: int = 0
    sockets_idle: int = 0

    @property
    def spool(self) -> Path:
        return self.jail / "spool"

    @property
    def log(self) -> str:
        return (self.jail / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def memory(self) -> tuple[int, int]:
        """Return what is resident now, and the most that ever was since :meth:`forget_peak`, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        now, most = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
        return now, most

    def forget_peak(self) -> None:
        """Let the highest resident size begin anew (proc(5): 5 in clear_refs)."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def sockets(self) -> int:
        """Return how many sockets it has open."""
        folder, count = f"/proc/{self.process.pid}/fd", 0
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                count += os.readlink(f"{folder}/{name}").startswith("socket:")
        return count

    def fragments(self) -> list[str]:
        """Return what lies in ``tmp/`` of the spool but the marks of a living writer."""
        found = [path for path in (self.spool / "tmp").rglob("*") if path.is_file()]
        # Their names begin with the writer's, as the folder's is.
        return [str(path.relative_to(self.spool)) for path in found if path.name.startswith(path.parent.name)]

    def stored(self) -> dict[str, list[Path]]:
        """Return the files of ``new/`` by the UID in their names."""
        found: dict[str, list[Path]] = {}
        for path in (self.spool / "new").rglob("*"):
            if path.is_file():
                found.setdefault(path.name.rsplit(".", 2)[0], []).append(path)
        return found

    def elsewhere(self) -> dict[str, str]:
        """Return all files of the jail but the log and what the spool keeps, and their digests."""
        own = {self.spool / "new", self.spool / "tmp"}
        found = {}
        for path in self.jail.rglob("*"):
            if path.is_file() and path != self.jail / "log" and not own & set(path.parents):
                found[str(path.relative_to(self.jail))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def check_stored(self) -> None:
        """Fail unless the spool has what was acknowledged, byte for byte, and nothing else."""
        stored = self.stored()
        assert stored.keys() == self.acknowledged.keys()
        for uid, paths in stored.items():
            assert {wire_bytes(path) for path in paths} == {self.acknowledged[uid]}, uid


@cache
def authority() -> Authority:
    return Authority()


@cache
def client_tls() -> ssl.SSLContext:
    """Return how a good peer calls: with a certificate, and knowing the receiver's authority."""
    import tempfile

    context = ssl.create_default_context(cadata=authority().certificate)
    own = authority().issue("goodpeer.example")
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{own.key}\n{own.certificate}\n")
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _in_task_command(jail: Path, limits: Small, tls: Mapping[str, str]) -> list[str]:
    settings = asdict(limits) | {"tls": dict(tls)}
    return [sys.executable, "-m", "robustness.attack_in_task", str(jail / "spool"), json.dumps(settings)]


def _standing_command(jail: Path, limits: Small, tls: Mapping[str, str]) -> list[str]:
    options = {
        "--ae-title": "AIRFLOW",
        "--allow-from": "127.0.0.1",
        "--host": "127.0.0.1",
        "--port": limits.port,
        "--spool": jail / "spool",
        "--max-connections": limits.connections,
        "--max-connections-per-source": limits.connections,
        "--max-associations": limits.associations,
        "--max-associations-per-source": limits.associations,
        "--handshake-seconds": limits.handshake_seconds,
        "--association-seconds": limits.association_seconds,
        "--read-seconds": limits.read_seconds,
        "--idle-seconds": limits.read_seconds,
        "--max-object": limits.object_bytes,
        "--max-pdu": limits.max_pdu,
        "--min-free": limits.min_free_bytes,
    }
    for option, name in (
        ("--tls-ca", "ca_certificate"),
        ("--tls-certificate", "certificate"),
        ("--tls-private-key", "private_key"),
    ):
        if tls:
            path = jail / f"{name}.pem"
            path.write_text(tls[name])
            options[option] = path
    words = [word for option, value in options.items() for word in (option, str(value))]
    return [sys.executable, "-m", "airflow_provider_varian.cli", "receive", *words]


_COMMANDS: dict[str, Callable[[Path, Small, Mapping[str, str]], list[str]]] = {
    IN_TASK: _in_task_command,
    STANDING: _standing_command,
}


@contextmanager
def running(
    way: str, jail: Path, *, tls: bool = False, limits: Small | None = None, environment: Mapping[str, str] = {}
) -> Iterator[Receiver]:
    """Run a receiver until the block ends.

    :param jail: an empty folder, or that of one that was killed, which it comes back to.
    :param environment: what else its process finds there.
    """
    limits = limits or Small()
    for name in ("cwd", "home", "temporary"):
        (jail / name).mkdir(parents=True, exist_ok=True)
    (jail / "outside.dcm").write_bytes(b"not to be touched")
    shown: dict[str, str] = {}
    if tls:
        issued = authority().issue("receiver.example")
        shown = {
            "ca_certificate": authority().certificate,
            "certificate": issued.certificate,
            "private_key": issued.key,
        }
    variables: dict[str, Any] = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOP), str(TOP / "tests")])}
    variables |= {"TMPDIR": str(jail / "temporary"), "HOME": str(jail / "home")} | dict(environment)
    with (jail / "log").open("ab") as log:
        process = subprocess.Popen(
            _COMMANDS[way](jail, limits, shown),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=jail / "cwd",
            env=variables,
        )
    if way == IN_TASK:
        # A connection has no fields for these: it has one peer, to whom they all belong.
        own = limits_of(Peer(host="127.0.0.1", port=104, called_ae_title="PEER"))
        limits = replace(limits, connections=own.connections, associations=own.associations)
    try:
        yield Receiver(way, _address_of(process, jail), process, jail, limits, client_tls() if tls else None)
    finally:
        _stop(process)


def _address_of(process: subprocess.Popen[str], jail: Path) -> tuple[str, int]:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"listening on (\S+):(\d+)", line):
            return found[1], int(found[2])
    log = (jail / "log").read_text(errors="replace")[-2000:]
    raise AssertionError(f"the receiver did not start: {log}")


def _stop(process: subprocess.Popen[str]) -> None:
    """End it as it is meant to end: by SIGTERM, or by the end of its input."""
    assert process.stdin is not None
    process.stdin.close()
    if process.poll() is None and process.args[3] != "robustness.attack_in_task":  # type: ignore[index]
        process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def kill(receiver: Receiver) -> None:
    """End it by SIGKILL."""
    receiver.process.send_signal(signal.SIGKILL)
    receiver.process.wait()


def at_rest(receiver: Receiver) -> None:
    """Wait until nothing of an attack is left in the process: no thread, no socket, no fragment."""
    threads, sockets = receiver.threads_idle, receiver.sockets_idle
    wait_until(lambda: receiver.sockets() <= sockets, what=f"{sockets} sockets, as before")
    wait_until(lambda: receiver.threads() <= threads, what=f"{threads} threads, as before")
    assert receiver.fragments() == []
