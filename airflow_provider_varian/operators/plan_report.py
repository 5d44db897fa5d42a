"""The end of a run of plan exports: its index on storage, its summary in the log, and a pool that may shrink."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.hooks.settings import below, root_of
from airflow_provider_varian.operators.plan_export import EXPORT_KEY, without_set
from airflow_provider_varian.operators.plan_pool import sweep_pools, thin_pool
from airflow_provider_varian.operators.plan_rows import PlanList, read_plans
from airflow_provider_varian.operators.rows import pull_from_mapped, write_private

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_varian.reports.plan_index import PlanIndex

log = logging.getLogger(__name__)

#: Folder of the indexes, below the destination.
INDEX_FOLDER: Final = "index"
#: Outcome of a plan whose task told nothing: it did not run, or was killed before it could.
NO_RESULT: Final = "no result"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenIndex:
    """Where the index of a run is.

    :param csv: URI of the CSV file.
    :param json: URI of the JSON file.
    :param text: URI of the summary.
    """

    csv: str
    json: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {"csv": self.csv, "json": self.json, "text": self.text}


def pull_exports(context: Context, task_id: str) -> list[Mapping[str, Any]]:
    """Return what the instances of an :class:`~.plan_export.AriaPlanExportOperator` told so far, also failed ones.

    :param context: Airflow's context.
    :param task_id: the mapped task, with its group's prefix.
    """
    return pull_from_mapped(context, task_id, EXPORT_KEY)


def write_plan_index(
    context: Context,
    rows_uri: str | None,
    results: Iterable[Mapping[str, Any]],
    *,
    dicom_conn_id: str,
    destination: str | None = None,
    identifying: bool = False,
) -> WrittenIndex:
    """Write the index of a run as CSV, JSON and text, log the text, and tidy the run's pool.

    The files are ``index/{dag}/{first day}_{last day}.csv`` and so on, below the destination. They are pseudonymous:
    the log always is.

    :param context: Airflow's context.
    :param rows_uri: the file of plans, so that those without a result are named too; None when there is none.
    :param results: what :class:`~.plan_export.AriaPlanExportOperator` pushed as ``plan_export``, per plan.
    :param dicom_conn_id: whose patients they are: a pseudonym is of one connection.
    :param destination: the destination of the exports.
    :param identifying: write Patient ID, label, course and days into CSV and JSON too; these are then readable by
        their owner alone.
    """
    root = root_of(destination)
    plans = read_plans(rows_uri) if rows_uri else PlanList(plans={}, about={})
    index = _index(context, root, plans, list(results), dicom_conn_id, identifying=identifying)
    log.info("Plan export\n%s", index.to_text())
    written = _write(context, root, index)
    if index.is_done:
        thin_pool(context, root, exported=[str(line["plan_uid"]) for line in index.lines])
    sweep_pools(context, root)
    return written


def _index(
    context: Context,
    root: ObjectStoragePath,
    plans: PlanList,
    results: list[Mapping[str, Any]],
    dicom_conn_id: str,
    *,
    identifying: bool,
) -> PlanIndex:
    from airflow_provider_varian.aria.pseudonyms import patient_pseudonym
    from airflow_provider_varian.reports.plan_index import PlanIndex, index_line
    from airflow_provider_varian.retrieval.destination import Destination

    key = Destination(root).random_id()
    by_row = {str(result.get("row_key") or ""): result for result in results}
    told = {row_key: by_row.get(row_key) or _silent(row_key) for row_key in plans.plans}
    lines = [
        index_line(
            pseudonym=patient_pseudonym(key, dicom_conn_id, plan.patient_id),
            plan=plan.to_json(),
            result=told[row_key],
            identifying=identifying,
        )
        for row_key, plan in plans.plans.items()
    ]
    return PlanIndex(
        about=plans.about,
        run_id=context["ti"].run_id,
        lines=sorted(lines, key=lambda line: (line["patient"], line["plan_uid"])),
        warnings={
            line["plan_uid"]: result["warnings"]
            for line, result in zip(lines, told.values(), strict=True)
            if result["warnings"]
        },
        identifying=identifying,
    )


def _silent(row_key: str) -> dict[str, Any]:
    return {"row_key": row_key, "plan_uid": ""} | without_set(NO_RESULT, "see the log of this plan's task")


def _write(context: Context, root: ObjectStoragePath, index: PlanIndex) -> WrittenIndex:
    from airflow_provider_varian.retrieval.destination import Destination
    from airflow_provider_varian.retrieval.layout import safe_value

    days = [str(index.about.get(name) or "") for name in ("first_day", "last_day")]
    name = "_".join(days) if all(days) else safe_value(index.run_id)
    folder = PurePosixPath(INDEX_FOLDER) / safe_value(context["ti"].dag_id)
    contents = {
        "csv": index.to_csv(),
        "json": json.dumps(index.to_json(), indent=1) + "\n",
        "txt": index.to_text() + "\n",
    }
    destination = Destination(root)
    for suffix, content in contents.items():
        path = folder / f"{name}.{suffix}"
        if index.identifying:
            write_private(below(root, *path.parts), content.encode())
        else:
            destination.write_text(path, content)
    uris = {suffix: str(below(root, *folder.parts, f"{name}.{suffix}")) for suffix in contents}
    return WrittenIndex(csv=uris["csv"], json=uris["json"], text=uris["txt"])
