"""The ways in which others end a task of Airflow's."""

from __future__ import annotations

import signal
from importlib.metadata import version
from typing import Final

import psutil
from support.asked_runs import AskedRun

#: A task that is to be out of its time is waited for, and not ended here.
TIMED_OUT: Final = "timed_out"

_SIGNALS: Final = {
    "terminated": signal.SIGTERM,
    "killed": signal.SIGKILL,
    "worker_terminated": signal.SIGTERM,
    "worker_killed": signal.SIGKILL,
}


def _ways() -> tuple[str, ...]:
    ways = ["marked_failed", "cleared", TIMED_OUT, *_SIGNALS]
    if version("apache-airflow-core").startswith("3.1."):
        ways.remove("worker_terminated")  # the LocalExecutor's does not heed it
    return tuple(ways)


WAYS: Final = _ways()


def end(run: AskedRun, task_id: str, way: str) -> None:
    """End a task that runs.

    :param way: one of :data:`WAYS`, but for :data:`TIMED_OUT`.
    """
    if way == "marked_failed":
        run.mark_failed(task_id)
    elif way == "cleared":
        run.clear(task_id)
    else:
        process = psutil.Process(run.task(task_id)["pid"])
        (process.parent() if way.startswith("worker") else process).send_signal(_SIGNALS[way])
