"""What data intervals the scheduler makes of a DAG's timetable."""

from __future__ import annotations

import json
from collections.abc import Sequence

from support.airflow_process import Home

_INTERVALS = """
import os, json, sys
import pendulum
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 3.1
    from airflow.models.dagbag import DagBag
try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # Airflow 3.1
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

dag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).dags[sys.argv[1]]
# What the scheduler makes of it: what a DAG file holds cannot tell intervals in every version.
timetable = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
told = [timetable.infer_manual_data_interval(run_after=pendulum.parse(moment)) for moment in json.load(sys.stdin)]
print("INTERVALS", json.dumps([[interval.start.isoformat(), interval.end.isoformat()] for interval in told]))
"""


def intervals_of(home: Home, dag_id: str, moments: Sequence[str]) -> list[list[str]]:
    """Return start and end of the interval that each moment gets, as ISO texts."""
    done = home.python("-c", _INTERVALS, dag_id, stdin=json.dumps(list(moments)))
    lines = [line for line in done.stdout.splitlines() if line.startswith("INTERVALS ")]
    assert lines, done.stdout[-6000:]
    return json.loads(lines[-1].removeprefix("INTERVALS "))
