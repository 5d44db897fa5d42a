"""Asking Airflow for what it commits in several steps."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.airflow_page import Page, RefusedError

WANTED = {"dag_id": "daily", "from_date": "2026-11-18", "to_date": "2026-11-18"}


class Airflow:
    """Backfills, with a database that another process has at times.

    :param gives_up: at what step the first call ends with 500: before all, once the backfill is committed, or once its
        runs are as well; each later call is carried out.
    """

    def __init__(self, gives_up: str) -> None:
        self.gives_up = gives_up
        self.backfills: list[dict] = []
        self.runs: list[dict] = []

    def answer(self, method: str, path: str) -> tuple[int, object]:
        if path == "/auth/token":
            return 200, {"access_token": "token"}
        if method == "POST":
            return self._make()
        if method == "PUT":
            (wanted,) = [one for one in self.backfills if path == f"/api/v2/backfills/{one['id']}/cancel"]
            wanted["completed_at"] = "2026-11-22T10:00:00Z"
            return 200, wanted
        if path.startswith("/api/v2/dags/daily/dagRuns?"):
            return 200, {"dag_runs": self.runs}
        assert path == "/api/v2/backfills?dag_id=daily"
        return 200, {"backfills": self.backfills}

    def _make(self) -> tuple[int, object]:
        gives_up, self.gives_up = self.gives_up, ""
        if gives_up == "before":
            return 500, {"detail": "database is locked"}
        if any(one["completed_at"] is None for one in self.backfills):
            return 409, {"detail": "There is already a running backfill for dag daily"}
        self.backfills.append({"id": len(self.backfills) + 1, "completed_at": None})
        if gives_up == "begun":
            return 500, {"detail": "database is locked"}
        self.runs.append({"run_type": "backfill"})
        return (500, {"detail": "database is locked"}) if gives_up == "done" else (200, self.backfills[-1])


@contextmanager
def page_of(airflow):
    class Handler(BaseHTTPRequestHandler):
        def _answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, content = airflow.answer(self.command, self.path)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the names of http.server

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield Page(url=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize(("gives_up", "begun"), [("", 1), ("before", 1), ("begun", 2), ("done", 1)])
def test_a_backfill_is_there_once_with_its_runs(gives_up, begun):
    airflow = Airflow(gives_up)
    with page_of(airflow) as page:
        page.backfill(**WANTED)
    assert len(airflow.runs) == 1
    assert [one["completed_at"] is None for one in airflow.backfills] == [False] * (begun - 1) + [True]


def test_what_is_refused_for_another_reason_is_told():
    airflow = Airflow("")
    airflow._make = lambda: (409, {"detail": "it has no schedule"})
    with page_of(airflow) as page, pytest.raises(RefusedError, match=r"409 .*no schedule"):
        page.backfill(**WANTED)
