"""A clinic with plans under treatment behind a daemon, and what tests of exports have in common."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

from support.identifiers import forms_of
from support.short_clinic import ShortClinic

from airflow_provider_varian.operators.aria import AriaPatientListOperator, AriaPlanExportOperator
from airflow_provider_varian.operators.patient_list import ROWS_KEY
from airflow_provider_varian.operators.plan_export import EXPORT_KEY

UNTIL = date(2026, 7, 31)
#: One whose structure set is nowhere; one with two plans of one label on the same images; one who is plain.
DANGLING, TWICE, PLAIN = 111120, 111126, 111119


class FewPatients(ShortClinic):
    """The patients above alone."""

    @property
    def clinical_numbers(self):
        return (PLAIN, DANGLING, TWICE)


def clinic() -> FewPatients:
    return FewPatients(seed=3, patients=12, days=1, until=UNTIL, matrix=16)


def plan_uids(of: FewPatients, number: int) -> list[str]:
    return [plan.sop_instance_uid for plan in of.case(number).plans]


def words_of(of: FewPatients) -> set[bytes]:
    """Return what must not leak: IDs and names in all forms, and plan labels."""
    cases = [of.case(number) for number in of.clinical_numbers]
    labels = {plan.label.encode() for case in cases for plan in case.plans}
    return labels | {word for case in cases for word in forms_of(case.patient_id, case.name)}


def row_of(of: FewPatients, number: int, plan: int = 0) -> dict[str, Any]:
    case = of.case(number)
    return {"patient_id": case.patient_id, "plan_uid": case.plans[plan].sop_instance_uid}


def week_of(context, **ti) -> dict[str, Any]:
    start, end = (datetime.fromisoformat(f"2026-{day}T00:00:00+02:00") for day in ("07-24", "08-01"))
    return context(start=start, end=end, **{"dag_id": "weekly", **ti})


def listed(conn: str, at: dict[str, Any], **more) -> tuple[list[str], str]:
    """List what was treated; return the keys and the file's URI."""
    settings = {"lookback_days": 1, **more}
    keys = AriaPatientListOperator(task_id="plans", dicom_conn_id=conn, **settings).execute(at)
    (uri,) = at["ti"].xcoms(ROWS_KEY)
    return keys, uri


def exported(conn: str, at: dict[str, Any], **more) -> dict[str, Any]:
    """Export a plan, whatever its verdict; return what was pushed."""
    AriaPlanExportOperator(task_id="export", dicom_conn_id=conn, **{"on_partial": "accept", **more}).execute(at)
    return told_of(at)


def told_of(at: dict[str, Any]) -> dict[str, Any]:
    (told,) = at["ti"].xcoms(EXPORT_KEY)
    return told


def index_of(storage: Path, uid: str) -> dict[str, Any]:
    return json.loads((storage / uid / "plan-set.json").read_text())
