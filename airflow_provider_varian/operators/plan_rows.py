"""Plans on storage: what export tasks map over is opaque keys, and whose plan it is stays in the file of rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.errors import ConfigurationError, NotFoundError
from airflow_provider_varian.hooks.settings import below, destination_path
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.rows import read_row, read_rows, write_rows
from airflow_provider_varian.uids import is_uid

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_varian.operators.rows import RowsFile

_TEXTS: Final = ("patient_id", "plan_uid", "plan_label", "course", "study_instance_uid", "approval_status")
_LISTS: Final = ("days", "machines")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """A plan to export.

    :param patient_id: whose it is, exact.
    :param plan_uid: SOP Instance UID of the plan; empty: it is found by label.
    :param plan_label: RT Plan Label, where there is no UID.
    :param course: Course ID, which tells plans of one label apart.
    :param study_instance_uid: the plan's study, where that is known.
    :param approval_status: as it was when the plan was listed.
    :param days: days of the clinic on which it was treated, ``YYYY-MM-DD``.
    :param records: how many treatment records of it there are on these days.
    :param machines: where it was treated.
    """

    patient_id: str = field(repr=False)
    plan_uid: str = ""
    plan_label: str = field(default="", repr=False)
    course: str = field(default="", repr=False)
    study_instance_uid: str = ""
    approval_status: str = ""
    days: tuple[str, ...] = ()
    records: int = 0
    machines: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanList:
    """A file of plans.

    :param plans: by row key, in order.
    :param about: what stands beside them: kind, days and warnings.
    """

    plans: Mapping[str, PlanRow]
    about: Mapping[str, Any]


def parse_plan(row: object) -> PlanRow:
    """Check a plan that somebody gives.

    :param row: a mapping.
    :raises ConfigurationError: names what is wrong, without values.
    """
    if not isinstance(row, Mapping):
        raise ConfigurationError("a plan is no mapping", hint="Give patient_id, and plan_uid or plan_label.")
    known = {item.name for item in fields(PlanRow)}
    if unknown := sorted(str(key) for key in row if key not in known):
        raise ConfigurationError(f"a plan has no {', '.join(unknown)}", hint="It has " + ", ".join(sorted(known)) + ".")
    plan = PlanRow(**{"patient_id": ""} | _checked(row))
    if not plan.patient_id.strip():
        raise ConfigurationError("a plan has no patient_id", hint="The peer was not told whose it is, or did not say.")
    if plan.plan_uid and not is_uid(plan.plan_uid):
        raise ConfigurationError("plan_uid of a plan is no UID", hint="Digits and single dots, at most 64 characters.")
    if not plan.plan_uid and not plan.plan_label.strip():
        raise ConfigurationError("a plan has neither plan_uid nor plan_label", hint="Give one of them.")
    return plan


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a plan, each of the kind that it should be."""
    values = dict(row)
    for name in _TEXTS:
        if not isinstance(values.get(name, ""), str):
            raise ConfigurationError(f"{name} of a plan is no text")
    for name in _LISTS:
        given = values.get(name, ())
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ConfigurationError(f"{name} of a plan is no list")
        values[name] = tuple(str(each) for each in given)
    if isinstance(values.get("records", 0), bool) or not isinstance(values.get("records", 0), int):
        raise ConfigurationError("records of a plan is no number")
    return values


def write_plans(context: Context, root: ObjectStoragePath, plans: Iterable[PlanRow], **about: Any) -> RowsFile:
    """Write a list of plans, each under an opaque key.

    :param context: Airflow's context; the file is named after the task instance.
    :param root: the destination of the exports.
    :param about: JSON-ready values that stand beside the rows.
    """
    path = below(root, ".dicom", "rows", f"{retrieval_id(context)}.json")
    return write_rows(path, [plan.to_json() for plan in plans], about=about)


def read_plan(uri: str, key: str) -> PlanRow:
    """Return one plan of a file that :func:`write_plans` wrote."""
    return parse_plan(read_row(uri, key))


def read_plans(uri: str) -> PlanList:
    """Return all plans of such a file; one of which the patient is not known is among them.

    :raises NotFoundError: when there is no such file.
    :raises ConfigurationError: when it is not such a file.
    """
    rows = read_rows(uri)
    try:
        about = json.loads(destination_path(uri).read_bytes()).get("about") or {}
        plans = {key: PlanRow(**_as_tuples(row)) for key, row in rows.items()}
    except FileNotFoundError as error:
        raise NotFoundError(f"the rows file {uri} is not there") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{uri} is not a file of plans") from error
    return PlanList(plans=plans, about=about)


def _as_tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
