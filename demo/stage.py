"""What both demos stand on: a simulated ARIA, an Airflow home of their own, and the connection between them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DAG_ID = "daily_machine_qa"
TIMEZONE = "Europe/Zurich"


def free_port() -> int:
    """Return a TCP port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Stage:
    """A set-up demo.

    :param root: folder of the demo; everything it makes lies below.
    :param environment: environment of all its processes.
    """

    root: Path
    environment: dict[str, str]

    @property
    def storage(self) -> Path:
        """Where retrieved objects go."""
        return self.root / "dicom"

    def airflow(self, *arguments: str, log: Path | None = None) -> int:
        """Run Airflow's command line and return its exit status.

        :param log: file that takes its output; without it the output is shown.
        """
        command = [sys.executable, "-m", "airflow", *arguments]
        if log is None:
            return subprocess.run(command, env=self.environment, cwd=self.root, check=False).returncode
        with log.open("ab") as stream:
            return subprocess.run(
                command, env=self.environment, cwd=self.root, check=False, stdout=stream, stderr=stream
            ).returncode


def _environment(root: Path, connection: dict[str, object]) -> dict[str, str]:
    # A developer's own Airflow settings must not leak into the demo.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    environment |= {
        "AIRFLOW_HOME": str(root / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "patientid,patientname",
        "AIRFLOW__VARIAN__STORAGE_ROOT": str(root / "dicom"),
        "AIRFLOW__VARIAN__SPOOL_ROOT": str(root / "spool"),
        "AIRFLOW_CONN_ARIA": json.dumps(connection),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}",
        "PYTHONPATH": str(PROJECT),
    }
    return environment


@contextmanager
def simulated_aria(root: Path, receiver_port: int, days: int) -> Iterator[int]:
    """Run the simulator as its own process, as a person would, and yield its port."""
    command = [
        sys.executable, "-m", "airflow_provider_varian.cli", "simulate",
        "--ae-title", "VMSDBD", "--port", "0",
        "--trust", f"AIRFLOW@127.0.0.1:{receiver_port}", "--days", str(days),
    ]  # fmt: skip
    with (root / "simulator.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=PROJECT)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("listening on "):
            raise SystemExit(f"The simulator did not start; see {root / 'simulator.log'}")
        yield int(line.rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def stage(root: Path, *, days: int = 10) -> Iterator[Stage]:
    """Set up a demo and take down all its processes at the end.

    :param root: folder of the demo; made when missing.
    :param days: how many days of machine QA the simulated clinic holds.
    """
    (root / "airflow").mkdir(parents=True, exist_ok=True)
    receiver_port = free_port()
    with simulated_aria(root, receiver_port, days) as port:
        connection = {
            "conn_type": "dicom",
            "host": "127.0.0.1",
            "port": port,
            "extra": {
                "called_ae_title": "VMSDBD",
                "calling_ae_title": "AIRFLOW",
                "receiver_host": "127.0.0.1",
                "receiver_port": receiver_port,
                "timezone": TIMEZONE,
            },
        }
        yield Stage(root=root, environment=_environment(root, connection))
