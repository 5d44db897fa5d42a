"""Airflow as a service, and a headless browser in front of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.airflow_process import Home
from support.ports import free_port, wait_until


@dataclass(frozen=True)
class Page:
    """A running api-server that takes everybody for an administrator."""

    url: str

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """Call the public REST API; fail when it refuses.

        On SQLite it answers 503 while another process has the database, and did nothing then: it is asked again.
        """
        request = urllib.request.Request(
            f"{self.url}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"},
        )
        end = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(request, timeout=180) as answer:
                    content = answer.read()
                return json.loads(content) if content else None
            except urllib.error.HTTPError as error:
                said = error.read().decode()[:2000]
                if error.code != 503 or "locked" not in said or time.monotonic() > end:
                    raise AssertionError(f"{method} {path}: {error.code} {said}") from error
            time.sleep(0.5)

    def _token(self) -> str:
        with urllib.request.urlopen(f"{self.url}/auth/token", timeout=60) as answer:
            return json.load(answer)["access_token"]

    def health(self, part: str) -> bool:
        """Say whether a part of Airflow is healthy: ``metadatabase``, ``scheduler`` or ``dag_processor``."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/monitor/health", timeout=5) as answer:
                return (json.load(answer).get(part) or {}).get("status") == "healthy"
        except (OSError, ValueError):
            return False


@contextmanager
def api_server(home: Home) -> Iterator[Page]:
    """Run the api-server alone on a free loopback port until the block ends."""
    with _serving(home, "api-server", lambda page: page.health("metadatabase")) as page:
        yield page


@contextmanager
def standalone(home: Home, *, parallelism: int = 3) -> Iterator[Page]:
    """Run all of Airflow, scheduler and workers too, on loopback until the block ends.

    :param parallelism: how many tasks may run at once.
    """
    home.environment["AIRFLOW__CORE__PARALLELISM"] = str(parallelism)
    with _serving(home, "standalone", lambda page: page.health("dag_processor") and page.health("scheduler")) as page:
        yield page


@contextmanager
def _serving(home: Home, command: str, is_ready: Callable[[Page], bool]) -> Iterator[Page]:
    port = free_port()
    page = Page(f"http://127.0.0.1:{port}")
    environment = home.environment | {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": page.url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{page.url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
    }
    log = home.root / f"{command}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", command],
            env=environment,
            cwd=home.root,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            return is_ready(page)

        wait_until(ready, seconds=200, what=command)
        yield page
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and all its children."""
    for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
    process.wait(timeout=10)


@contextmanager
def browser(chromium: str, chromedriver: str, profile: Path, *, size: str = "1400,1300") -> Iterator[Any]:
    """Run a headless browser with a profile of its own until the block ends."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        f"--window-size={size}",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield driver
    finally:
        driver.quit()
