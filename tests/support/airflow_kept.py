"""What Airflow keeps, writes and tells, to be searched."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.airflow_page import Page
from support.airflow_process import Home
from support.asked_runs import AskedRun, listed


def rows_of(database: Path) -> dict[str, bytes]:
    """Return all values of a database by ``table.column``."""
    found: dict[str, list[bytes]] = defaultdict(list)
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=90) as opened:
        tables = [row[0] for row in opened.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            rows = opened.execute(f'select * from "{table}"')
            names = [column[0] for column in rows.description]
            for row in rows:
                for name, value in zip(names, row, strict=True):
                    if value is not None:
                        found[f"{table}.{name}"].append(value if isinstance(value, bytes) else str(value).encode())
    return {name: b"\n".join(values) for name, values in found.items()}


def files_of(home: Home) -> dict[str, bytes]:
    """Return the files in a home by their names below it: all but the database and DICOM objects."""
    files = [path for path in home.root.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    ours = [path for path in files if path not in _files_of_database(home)]
    return {str(path.relative_to(home.root)): path.read_bytes() for path in ours}


def pages_of(home: Home) -> dict[str, bytes]:
    """Return the files of the database: what was deleted or replaced is in their pages for a while."""
    return {path.name: path.read_bytes() for path in _files_of_database(home)}


def _files_of_database(home: Home) -> list[Path]:
    return list(home.root.glob(f"{home.database.name}*"))


def told_by(page: Page) -> dict[str, bytes]:
    """Return what the REST API tells: of runs, task instances, XComs, logs and events."""
    told: dict[str, list[Any]] = defaultdict(list)
    told["events"] = list(listed(page, "eventLogs", "event_logs"))
    told["runs"] = list(listed(page, "dags/~/dagRuns", "dag_runs"))
    for run in told["runs"]:
        asked = AskedRun(page, run["dag_id"], run["dag_run_id"])
        for task in asked.tasks():
            told["task instances"].append(task)
            told["logs"] += _logs(asked, task)
            told["xcoms"] += _xcoms(asked, task)
    return {name: json.dumps(answers, ensure_ascii=False).encode() for name, answers in told.items()}


def _logs(run: AskedRun, task: dict[str, Any]) -> Iterator[str]:
    numbers = [task["try_number"]]
    if task["try_number"] > 1:  # Airflow does not know each of them any more
        tries = run.page.rest("GET", f"{run.path}/taskInstances/{task['task_id']}/tries")["task_instances"]
        numbers = [each["try_number"] for each in tries]
    for number in numbers:
        yield run.log(task["task_id"], number, task["map_index"])


def _xcoms(run: AskedRun, task: dict[str, Any]) -> Iterator[Any]:
    path = f"{run.path}/taskInstances/{task['task_id']}/xcomEntries?map_index={task['map_index']}"
    for entry in listed(run.page, path, "xcom_entries"):
        yield run.xcom(task["task_id"], entry["key"], task["map_index"])
