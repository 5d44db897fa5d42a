"""Real peers: DCMTK's archive and receiver, and Orthanc, each as a process of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.ports import free_port, is_listening, wait_until

# Without it DCMTK waits 40 ms for each message (Nagle against delayed ACK).
ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}


@dataclass(frozen=True)
class Archive:
    """A running archive that knows one move destination, ``AIRFLOW`` on ``receiver_port``."""

    name: str
    ae_title: str
    port: int
    receiver_port: int


@contextmanager
def running(command: list[str], *, port: int, log: Path, cwd: Path | None = None) -> Iterator[subprocess.Popen]:
    """Run a server until the block ends; yield once its port listens."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=cwd, env=ENVIRONMENT)
    try:

        def ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"{command[0]} stopped: {log.read_text(errors='replace')[-2000:]}")
            return is_listening(port)

        wait_until(ready, what=f"{command[0]} to listen")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(*command: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a client to its end."""
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False
    )


def store(port: int, ae_title: str, files: Iterable[Path]) -> None:
    """Fill an archive with DCMTK's ``storescu``, bytes as in the files."""
    result = run("storescu", "-R", "-aec", ae_title, "-aet", "AIRFLOW", "127.0.0.1", str(port), *map(str, files))
    assert result.returncode == 0, result.stderr


@contextmanager
def dcmqrscp(root: Path, files: Iterable[Path], receivers: dict[str, int]) -> Iterator[Archive]:
    """Run DCMTK's archive, loaded with files; it knows the given move destinations on loopback."""
    port = free_port()
    (root / "db").mkdir(parents=True)
    hosts = "\n".join(f"{name.lower()} = ({name}, 127.0.0.1, {number})" for name, number in receivers.items())
    config = root / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        f"HostTable BEGIN\n{hosts}\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nARCHIVE {root / 'db'} RW (2000, 4096mb) ANY\nAETable END\n"
    )
    with running(["dcmqrscp", "-c", str(config)], port=port, log=root / "dcmqrscp.log"):
        store(port, "ARCHIVE", files)
        yield Archive("dcmqrscp", "ARCHIVE", port, receivers["AIRFLOW"])


@contextmanager
def orthanc(root: Path, files: Iterable[Path], receivers: dict[str, int]) -> Iterator[Archive]:
    """Run Orthanc without its web server, loaded with files; it knows the given move destinations."""
    port = free_port()
    root.mkdir(parents=True, exist_ok=True)
    config = root / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "Name": "test",
                "StorageDirectory": str(root / "storage"),
                "IndexDirectory": str(root / "index"),
                "HttpServerEnabled": False,
                "DicomServerEnabled": True,
                "DicomAet": "ORTHANC",
                "DicomPort": port,
                "DicomCheckCalledAet": True,
                "DicomAlwaysAllowFind": True,
                "DicomAlwaysAllowGet": True,
                "DicomAlwaysAllowMove": True,
                "DicomModalities": {name.lower(): [name, "127.0.0.1", number] for name, number in receivers.items()},
                "Plugins": [],
            }
        )
    )
    with running(["Orthanc", str(config)], port=port, log=root / "orthanc.log", cwd=root):
        store(port, "ORTHANC", files)
        yield Archive("orthanc", "ORTHANC", port, receivers["AIRFLOW"])


@contextmanager
def storescp(root: Path, *, ae_title: str = "STORESCP", port: int | None = None) -> Iterator[tuple[Path, int]]:
    """Run DCMTK's receiver in bit-preserving mode; yield its folder and port."""
    root.mkdir(parents=True, exist_ok=True)
    received = root / "received"
    received.mkdir()
    port = port or free_port()
    command = ["storescp", "+B", "-aet", ae_title, "-od", str(received), "-fe", ".dcm", str(port)]
    with running(command, port=port, log=root / "storescp.log"):
        yield received, port
