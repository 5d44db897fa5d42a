"""The daily QA told to people: a table in the log and a JSON report on storage, both free of identifiers.

A machine's name and its plan's label are configuration of the QA, not of a patient.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.hooks.settings import below, storage_root
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.machines import read_machines
from airflow_provider_varian.operators.rows import pull_from_mapped, write_private

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1

#: XCom key of what became of a machine, pushed also when its task fails.
SUMMARY_KEY: Final = "qa_summary"

#: Outcome of a machine whose task told nothing: its daemon did not answer, or the task ended before it could.
NO_RESULT: Final = "no result"

_COLUMNS: Final = ("machine", "plan", "day", "expected", "images", "bytes", "outcome")


def without_days(outcome: str, message: str, *, manifest: str | None = None) -> dict[str, Any]:
    """Return what is told of a machine of which no day could be judged.

    :param outcome: its outcome.
    :param message: why, without identifiers.
    :param manifest: URI of the manifest that a retrieval left behind; None when there is none.
    """
    return {"outcome": outcome, "message": message, "manifest": manifest, "days": [], "warnings": []}


def pull_summaries(context: Context, task_id: str) -> list[Mapping[str, Any]]:
    """Return what the instances of an :class:`~.aria.AriaQAImagesOperator` told so far, also those that failed.

    :param context: Airflow's context.
    :param task_id: the mapped task, with its group's prefix.
    """
    return pull_from_mapped(context, task_id, SUMMARY_KEY)


def write_qa_report(context: Context, rows_uri: str | None, results: Iterable[Mapping[str, Any]]) -> str:
    """Log a table of all machines and days, write the report, and return its URI.

    :param context: Airflow's context; the report is named after the DAG and the task instance.
    :param rows_uri: the file of machines, so that those without a result are named too; None when there is none,
        since the configuration was refused.
    :param results: what :class:`~.aria.AriaQAImagesOperator` pushed as ``qa_summary``, per machine.
    """
    by_key = {str(result.get("row_key") or ""): dict(result) for result in results}
    machines = [
        by_key.get(key)
        or {"row_key": key, "machine": machine.name, "plan": machine.plan_label}
        | without_days(NO_RESULT, "see the log of this machine's tasks")
        for key, machine in (read_machines(rows_uri) if rows_uri else {}).items()
    ]
    log.info("Machine QA\n%s", _table(machines))
    for machine in machines:
        if machine["outcome"] != "complete":
            log.warning("%s, %s: %s. %s", machine["machine"], machine["plan"], machine["outcome"], machine["message"])
        for warning in machine["warnings"]:
            log.warning("%s, %s: %s", machine["machine"], machine["plan"], warning)
    report = {"schema_version": SCHEMA_VERSION, "run_id": context["ti"].run_id, "machines": machines}
    path = below(storage_root(), ".dicom", "reports", context["ti"].dag_id, f"{retrieval_id(context)}.json")
    write_private(path, json.dumps(report, indent=1).encode())
    return str(path)


def _table(machines: Sequence[Mapping[str, Any]]) -> str:
    rows = [_COLUMNS]
    for machine in machines:
        days = [day for day in machine["days"] if day["images"] or day["expected"]]
        rows += [
            (
                str(machine["machine"]),
                str(machine["plan"]),
                str(day["day"]),
                "yes" if day["expected"] else "no",
                str(day["images"]),
                f"{day['bytes']:,}",
                str(day["outcome"]),
            )
            for day in days
        ] or [(str(machine["machine"]), str(machine["plan"]), "", "", "", "", str(machine["outcome"]))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
