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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil
from support.airflow_process import Home
from support.ports import free_port, wait_until


class RefusedError(AssertionError):
    """The REST API refused a call.

    :ivar code: the status of HTTP.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Page:
    """A running api-server that takes everybody for an administrator."""

    url: str

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """Call the public REST API; fail when it refuses.

        On SQLite it answers 500 or 503 while another process has the database, and is asked again. What it did until
        then is undone, but for what it commits in several steps.

        :raises RefusedError: when it refuses, or answers nothing else in 240 s.
        """
        request = urllib.request.Request(
            f"{self.url}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        end = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(request, timeout=180) as answer:
                    content = answer.read()
                return json.loads(content) if content else None
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read().decode()[:2000]
                if error.code < 500 or time.monotonic() > end:
                    raise RefusedError(f"{method} {path}: {error.code} {said}", error.code) from error
            time.sleep(0.5)

    def backfill(self, **wanted: Any) -> None:
        """Ask for a backfill.

        Airflow commits it before its runs: one that had to be asked for again may be in its own way. Without any run it
        is cancelled, and asked for once more; with runs it is what was wanted.
        """
        backfills = f"backfills?dag_id={wanted['dag_id']}"
        while True:
            try:
                self.rest("POST", "backfills", wanted)
            except RefusedError as refused:
                if refused.code != HTTPStatus.CONFLICT:
                    raise
                begun = [one["id"] for one in self.rest("GET", backfills)["backfills"] if one["completed_at"] is None]
                if not begun:
                    raise
                if self.backfilled(wanted["dag_id"]):
                    return
                for number in begun:
                    self.rest("PUT", f"backfills/{number}/cancel")
            else:
                return

    def backfilled(self, dag: str) -> list[dict[str, Any]]:
        """Return the runs that backfills made, the earliest first."""
        found = self.rest("GET", f"dags/{dag}/dagRuns?run_type=backfill&order_by=logical_date")["dag_runs"]
        return [run for run in found if run["run_type"] == "backfill"]

    @cached_property
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


@dataclass(frozen=True)
class Standalone(Page):
    """All of Airflow; its triggerer can be ended, and another one started in its place.

    :param home: whose it is.
    :param process: leads the group of all its processes.
    :param environment: of its processes.
    """

    home: Home
    process: subprocess.Popen[bytes]
    environment: dict[str, str] = field(repr=False)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_triggerer(self) -> None:
        """Start one more triggerer."""
        self._started.append(_start(self.home, "triggerer", self.environment, f"triggerer-{len(self._started)}"))

    def end_triggerers(self, number: signal.Signals) -> None:
        """End all triggerers, and wait until they are gone.

        :param number: ``SIGKILL`` goes to all their processes, as where a container is ended; another to the first.
        """
        triggerers = self._triggerers()
        assert triggerers
        theirs = [each for parent in triggerers for each in parent.children(recursive=True)]
        for each in (*triggerers, *theirs) if number == signal.SIGKILL else triggerers:
            each.send_signal(number)
        wait_until(lambda: not any(map(_runs, (*triggerers, *theirs))), seconds=60, what="the end of the triggerers")

    def _triggerers(self) -> list[psutil.Process]:
        """Return the first process of each triggerer that runs."""
        children = [*psutil.Process(self.process.pid).children(), *(psutil.Process(each.pid) for each in self._started)]
        return [each for each in children if _runs(each) and "triggerer" in each.cmdline()]

    def end_started(self) -> None:
        """End the triggerers that were started here."""
        for process in self._started:
            _end_group(process)


def _runs(process: psutil.Process) -> bool:
    """Say whether a process runs; one that is over may be there until its parent asks after it."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@contextmanager
def api_server(home: Home) -> Iterator[Page]:
    """Run the api-server alone on a free loopback port until the block ends."""
    with _serving(home, "api-server", lambda page: page.health("metadatabase")) as page:
        yield page


@contextmanager
def standalone(home: Home, *, parallelism: int = 3) -> Iterator[Standalone]:
    """Run all of Airflow, scheduler and workers too, on loopback until the block ends.

    :param parallelism: how many tasks may run at once.
    """
    home.environment["AIRFLOW__CORE__PARALLELISM"] = str(parallelism)
    with _serving(home, "standalone", lambda page: page.health("dag_processor") and page.health("scheduler")) as page:
        try:
            yield page
        finally:
            page.end_started()


#: An api-server begins to answer a request while that of another still has the database, which its own loop has to come
#: back to; while it waits for the database in that loop, all of Airflow stands still. So it waits for a short while,
#: answers that it cannot, and is asked again; the others wait as long as they need.
_SETTINGS = """

import sys

from airflow import settings

if "api-server" in sys.argv:
    SQL_ALCHEMY_CONN = settings.SQL_ALCHEMY_CONN.partition("?")[0] + "?timeout=3"
"""


@contextmanager
def _serving(home: Home, command: str, is_ready: Callable[[Page], bool]) -> Iterator[Standalone]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    environment = home.environment | {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
    }
    with home.local_settings.open("a") as settings:
        settings.write(_SETTINGS)
    process = _start(home, command, environment, command)
    page = Standalone(url, home, process, environment)
    try:

        def ready() -> bool:
            assert process.poll() is None, (home.root / f"{command}.log").read_text(errors="replace")[-4000:]
            return is_ready(page)

        wait_until(ready, seconds=200, what=command)
        yield page
    finally:
        _end_group(process)


def _start(home: Home, command: str, environment: dict[str, str], log: str) -> subprocess.Popen[bytes]:
    """Start a command of Airflow, which leads a group of its own and writes a log in the home."""
    with (home.root / f"{log}.log").open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", command],
            env=environment,
            cwd=home.root,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and all its children: at once, since nobody looks at what they leave."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
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
