"""Real Airflow in processes of its own: a home, a migrated database, DAG runs, and what they left behind."""

from __future__ import annotations

import base64
import fcntl
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_DISTRIBUTION = "airflow-provider-varian"


def _discovery_path(folder: Path) -> list[str]:
    """Return what a Python must have on its path for Airflow to discover this provider.

    Nothing when the package is installed; else a folder with the entry point that installing would write.
    """
    try:
        importlib.metadata.distribution(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        info = folder / f"{_DISTRIBUTION.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {_DISTRIBUTION}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(
            "[apache_airflow_provider]\nprovider_info = airflow_provider_varian.get_provider_info:get_provider_info\n"
        )
        return [str(folder)]
    return []


@dataclass(frozen=True)
class Home:
    """An Airflow home with its environment.

    :param root: the folder; storage and spool lie in it as well.
    :param environment: environment of its processes.
    """

    root: Path
    environment: dict[str, str]

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def local_settings(self) -> Path:
        """What all processes of this home begin with."""
        return self.root / "config" / "airflow_local_settings.py"

    @property
    def database(self) -> Path:
        return self.root / "airflow.db"

    def python(self, *arguments: str, stdin: str = "", timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run Python in this home; its output is returned whole, standard error within standard output."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment,
            cwd=self.root,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def airflow(self, *arguments: str) -> str:
        """Run Airflow's command line; fail when it does."""
        done = self.python("-m", "airflow", *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout


#: How long a process of Airflow waits for another to leave the SQLite database. Its default of 5 seconds is short on a
#: busy machine; the page then answers 500.
_LOCK_SECONDS = 90

#: What all processes of a home begin with. Nothing of it has to outlive the machine, and a database that syncs each
#: commit on a busy disk is locked most of the time.
_SETTINGS = """\
from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "connect")
def _sync_nothing(connection, _record):
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()
"""

#: Names a folder that all processes of one run of the tests share; see ``tests/conftest.py``.
SHARED = "DICOM_TESTS_SHARED"


def new_home(root: Path, *, dags: Path = ROOT / "dags", connections: Mapping[str, Any] | None = None) -> Home:
    """Make an Airflow home with a migrated database; see :func:`bare_home`."""
    home = bare_home(root, dags=dags, connections=connections)
    # Migrated once for all: a copy saves the seconds that each migration takes.
    migrated = Path(os.environ[SHARED]) / "migrated.db"
    with migrated.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not migrated.exists():
            home.airflow("db", "migrate")
            # Who is killed amid the copy leaves none.
            os.replace(shutil.copy(home.database, migrated.with_suffix(".part")), migrated)
            return home
    shutil.copy(migrated, home.database)
    return home


def bare_home(root: Path, *, dags: Path = ROOT / "dags", connections: Mapping[str, Any] | None = None) -> Home:
    """Make an Airflow home without a database.

    :param root: an empty folder.
    :param dags: folder of the DAGs.
    :param connections: connection IDs with their fields, put into the environment.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW"))}
    environment |= {
        "AIRFLOW_HOME": str(root),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "patientid,patientname",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root / 'airflow.db'}?timeout={_LOCK_SECONDS}",
        "AIRFLOW__VARIAN__STORAGE_ROOT": str(root / "storage"),
        "AIRFLOW__VARIAN__SPOOL_ROOT": str(root / "spool"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join([*_discovery_path(root / "discovery"), str(ROOT), str(ROOT / "tests")]),
    }
    for name, fields in (connections or {}).items():
        environment[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(fields)
    home = Home(root, environment)
    home.local_settings.parent.mkdir(parents=True, exist_ok=True)
    home.local_settings.write_text(_SETTINGS)
    return home


def connection_to(port: int, *, receiver_port: int, zone: object) -> dict[str, Any]:
    """Return the fields of a connection to a simulated daemon, quick about late objects.

    :param port: the daemon's.
    :param receiver_port: where our receiver is to listen.
    :param zone: the clinic's.
    """
    extra = {
        "called_ae_title": "VMSDBD",
        "receiver_host": "127.0.0.1",
        "receiver_port": receiver_port,
        "timezone": str(zone),
        "profile_overrides": {"settle_seconds": 0.3, "stable_interval_seconds": 0.05},
    }
    return {"conn_type": "dicom", "host": "127.0.0.1", "port": port, "extra": extra}


@dataclass(frozen=True)
class DagRunResult:
    """What a DAG run came to.

    :param state: state of the run.
    :param tasks: ``(task_id, map_index)`` to state and rendered map index.
    :param xcoms: ``(task_id, map_index, key)`` to value.
    """

    state: str
    tasks: dict[tuple[str, int], dict[str, Any]]
    xcoms: dict[tuple[str, int, str], Any]

    def states(self, task_id: str) -> list[str]:
        """States of a task's instances, by map index."""
        return [task["state"] for (name, _), task in sorted(self.tasks.items()) if name == task_id]

    def xcom(self, task_id: str, key: str = "return_value") -> list[Any]:
        """Values of an XCom of a task's instances, by map index."""
        return [value for (name, _, k), value in sorted(self.xcoms.items()) if name == task_id and k == key]


def run_dags(home: Home, requests: Iterable[Mapping[str, Any]], *, timeout: float = 300) -> tuple[list[Any], str]:
    """Run DAGs one after the other in one process by ``dag.test()``; return the results and all output.

    :param requests: each with ``dag_id``, and optionally ``logical_date`` (ISO, or None for none), ``run_after``,
        ``conf``, ``retries``, ``retry_delay`` in seconds. One with ``intervals``, a list of moments (ISO), runs
        nothing: its result is a list of the start and end of the data interval that each moment gets.
    :param timeout: how long all of them may take, seconds.
    """
    done = home.python("-m", "support.dag_runner", stdin=json.dumps(list(requests)), timeout=timeout)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0, done.stdout[-6000:]
    assert lines, done.stdout[-6000:]
    results = [
        run["intervals"]
        if "intervals" in run
        else DagRunResult(
            state=run["state"],
            tasks={(task["task_id"], task["map_index"]): task for task in run["tasks"]},
            xcoms={(xcom["task_id"], xcom["map_index"], xcom["key"]): xcom["value"] for xcom in run["xcoms"]},
        )
        for run in json.loads(lines[-1].removeprefix("RESULT "))
    ]
    return results, "\n".join(line for line in done.stdout.splitlines() if not line.startswith("RESULT "))
