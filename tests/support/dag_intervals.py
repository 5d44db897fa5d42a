"""What data intervals the scheduler makes of a DAG's timetable."""

from __future__ import annotations

from collections.abc import Sequence

from support.airflow_process import Home, run_dags


def intervals_of(home: Home, dag_id: str, moments: Sequence[str]) -> list[list[str]]:
    """Return start and end of the interval that each moment gets, as ISO texts."""
    (intervals,), _ = run_dags(home, [{"dag_id": dag_id, "intervals": list(moments)}])
    return intervals
