"""Run DAGs by ``dag.test()`` and print what they came to; see :func:`support.airflow_process.run_dags`."""

from __future__ import annotations

import functools
import json
import os
import sys
from datetime import datetime, timedelta
from typing import Any


def _when(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _keep_the_api() -> None:
    """Let all tasks have one execution API, as in later releases: Airflow 3.1 takes seconds to build one for each."""
    from airflow.sdk.execution_time import supervisor

    module: Any = supervisor
    module.in_process_api_server = functools.cache(module.in_process_api_server)


def _dags() -> Any:
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag
    # Named explicitly: the default depends on when Airflow's settings were first imported.
    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if bag.import_errors:
        raise SystemExit(f"DAGs with errors: {bag.import_errors}")
    return bag


def _run(request: dict[str, Any]) -> dict[str, Any]:
    # A bag of its own: what a run's configuration sets stays in the params of its DAG object.
    dag = _dags().dags[request["dag_id"]]
    if "intervals" in request:
        return {"intervals": _intervals(dag, request["intervals"])}
    for task in dag.tasks:
        task.retries = request.get("retries", 0)
        task.retry_delay = timedelta(seconds=request.get("retry_delay", 0))
    arguments: dict[str, Any] = {"run_conf": request.get("conf") or {}}
    if "logical_date" in request:
        arguments["logical_date"] = _when(request["logical_date"])
    if request.get("run_after"):
        arguments["run_after"] = _when(request["run_after"])
    run = dag.test(**arguments)
    return {"state": str(getattr(run.state, "value", run.state)), "run_id": run.run_id} | _left_behind(run)


def _intervals(dag: Any, moments: list[str]) -> list[list[str]]:
    """Return what data intervals the scheduler makes of a DAG's timetable: what a DAG file holds cannot tell always."""
    import pendulum

    try:
        from airflow.serialization.serialized_objects import DagSerialization
    except ImportError:  # Airflow 3.1
        from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization
    timetable = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
    told = [timetable.infer_manual_data_interval(run_after=pendulum.parse(moment)) for moment in moments]
    return [[interval.start.isoformat(), interval.end.isoformat()] for interval in told]


def _left_behind(run: Any) -> dict[str, Any]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        where = {"dag_id": run.dag_id, "run_id": run.run_id}
        tasks = session.scalars(select(TaskInstance).filter_by(**where)).all()
        xcoms = session.scalars(select(XComModel).filter_by(**where)).all()
        return {
            "tasks": [
                {
                    "task_id": task.task_id,
                    "map_index": task.map_index,
                    "state": str(getattr(task.state, "value", task.state)),
                    "name": task.rendered_map_index,
                    "try_number": task.try_number,
                }
                for task in tasks
            ],
            "xcoms": [
                {
                    "task_id": xcom.task_id,
                    "map_index": xcom.map_index,
                    "key": xcom.key,
                    "value": XComModel.deserialize_value(xcom),
                }
                for xcom in xcoms
            ],
        }


def main() -> None:
    requests = json.load(sys.stdin)
    _keep_the_api()
    results = [_run(request) for request in requests]
    print("\nRESULT " + json.dumps(results, default=str), flush=True)


if __name__ == "__main__":
    main()
