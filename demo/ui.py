"""``make demo-ui``: Airflow's web page with the simulated ARIA behind it, for a person to press Trigger."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from demo.stage import DAG_ID, PROJECT, Stage, free_port, stage

ROOT = PROJECT / ".demo-ui"
START_SECONDS = 180


def _serve(run: Stage, port: int) -> subprocess.Popen[bytes]:
    """Start ``airflow standalone``, bound to loopback, in a process group of its own."""
    run.environment.update(
        {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        }
    )
    with (run.root / "airflow.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=run.environment,
            cwd=run.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"Airflow stopped while starting; see {log}")
        try:
            with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as answer:
                health = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError):
            health = {}
        if (health.get("dag_processor") or {}).get("status") == "healthy":
            return
        time.sleep(0.5)
    sys.exit(f"Airflow was not ready within {START_SECONDS} s; see {log}")


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """End Airflow with all its parts: standalone leaves them running when it alone is told to stop."""
    for number, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
        deadline = time.monotonic() + seconds
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()  # reaps the leader, which would otherwise keep the group alive
                os.killpg(process.pid, 0)
                time.sleep(0.2)
        except ProcessLookupError:
            return


def main() -> int:
    """Serve until Ctrl-C."""
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    with stage(ROOT) as run:
        port = free_port()
        run.airflow("db", "migrate", log=ROOT / "airflow.log")
        # In the database, so that the page lists it; the form and its Test button can be tried.
        connection = run.environment.pop("AIRFLOW_CONN_ARIA")
        run.airflow("connections", "add", "aria", "--conn-json", connection, log=ROOT / "airflow.log")
        process = _serve(run, port)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(process, url, ROOT / "airflow.log")
            print(f"Airflow is ready:  {url}/dags/{DAG_ID}   (no password; only from this machine)")
            print(f"Press Trigger. The images come to  {run.storage}")
            print(f"The connection and its Test button:  {url}/connections   (Ctrl-C ends all)")
            process.wait()
        except KeyboardInterrupt:
            print("\nstopping")
        finally:
            _stop_group(process)
    return 0


if __name__ == "__main__":
    # Both end it in good order, also where a shell has started it with Ctrl-C switched off.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
