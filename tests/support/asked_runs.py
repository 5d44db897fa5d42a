"""DAG runs that are asked for, looked at and interfered with by REST, as a person or another program does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.airflow_page import Page
from support.ports import wait_until

FINAL = ("success", "failed")
#: At the most as many as a page of Airflow's API may have.
_PAGE = 100


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait as long as a busy machine needs; asking keeps a server busy that has better to do."""
    wait_until(condition, seconds=300, what=what, every=0.5)


def listed(page: Page, path: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield all entries of a list, page by page."""
    done = 0
    while True:
        answer = page.rest("GET", f"{path}{'&' if '?' in path else '?'}limit={_PAGE}&offset={done}")
        yield from answer[name]
        done += len(answer[name])
        if not answer[name] or done >= answer["total_entries"]:
            return


@dataclass(frozen=True)
class AskedRun:
    """A run of a DAG.

    :param page: Airflow.
    :param dag: ID of the DAG.
    :param id: of the run.
    """

    page: Page
    dag: str
    id: str

    @classmethod
    def ask(cls, page: Page, dag: str, *, logical_date: str | None = None, **conf: Any) -> AskedRun:
        """Trigger a run.

        :param conf: what a person types into the form.
        """
        body = {"logical_date": logical_date, "conf": conf}
        return cls(page, dag, page.rest("POST", f"dags/{dag}/dagRuns", body)["dag_run_id"])

    @property
    def path(self) -> str:
        return f"dags/{self.dag}/dagRuns/{self.id}"

    def told(self) -> dict[str, Any]:
        """Return what Airflow says of the run."""
        return self.page.rest("GET", self.path)

    def finished(self) -> dict[str, Any]:
        """Wait for its end, however it is, and return what Airflow says of it."""
        wait_for(lambda: self.told()["state"] in FINAL, f"the end of {self.dag} {self.id}")
        return self.told()

    def tasks(self) -> list[dict[str, Any]]:
        return list(listed(self.page, f"{self.path}/taskInstances", "task_instances"))

    def states(self) -> dict[tuple[str, str | None], str]:
        """Return the states by task and rendered map index."""
        return {(task["task_id"], task["rendered_map_index"]): task["state"] for task in self.tasks()}

    def task(self, task_id: str) -> dict[str, Any]:
        return self.page.rest("GET", f"{self.path}/taskInstances/{task_id}")

    def ended(self, task_id: str) -> dict[str, Any]:
        """Wait for the end of a task, its retries included, and return what Airflow says of it."""
        wait_for(lambda: self.task(task_id)["state"] in FINAL, f"the end of {task_id} of {self.dag} {self.id}")
        return self.task(task_id)

    def xcom(self, task_id: str, key: str = "return_value", index: int = -1) -> Any:
        path = f"{self.path}/taskInstances/{task_id}/xcomEntries/{key}?map_index={index}&deserialize=true"
        return self.page.rest("GET", path)["value"]

    def manifest(self, task_id: str) -> Mapping[str, Any]:
        """Return what the last try of a retrieval wrote down."""
        uri = self.xcom(task_id, "dicom_manifest")["uri"]
        return json.loads(Path(uri.removeprefix("file://")).read_text())

    def tries(self, task_id: str) -> list[int]:
        """Return the numbers of a task's tries, in order; of one the oldest Airflow lost the record, once."""
        return sorted(
            one["try_number"]
            for one in self.page.rest("GET", f"{self.path}/taskInstances/{task_id}/tries")["task_instances"]
        )

    def log(self, task_id: str, number: int = 1, index: int = -1) -> str:
        """Return the log of a try as JSON."""
        path = f"{self.path}/taskInstances/{task_id}/logs/{number}?map_index={index}&full_content=true"
        return json.dumps(self.page.rest("GET", path), ensure_ascii=False)

    def mark_failed(self, task_id: str) -> None:
        self.page.rest("PATCH", f"{self.path}/taskInstances/{task_id}", {"new_state": "failed"})

    def clear(self, task_id: str) -> None:
        body = {"dry_run": False, "dag_run_id": self.id, "task_ids": [task_id], "only_failed": False}
        self.page.rest("POST", f"dags/{self.dag}/clearTaskInstances", body)
