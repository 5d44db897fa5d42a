"""The index of a run of plan exports: one line per plan with its verdict, for machines (CSV, JSON) and for people.

Pseudonymous unless told otherwise: a patient is a pseudonym, a plan its UID, and neither label nor course nor day is
told. What stands in a cell was written by many hands: nothing of it may become a formula in a spreadsheet.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SCHEMA_VERSION: Final = 1
#: Outcomes after which nothing is left to do.
DONE: Final = ("complete", "reported")
#: Roles that have a column of their own, and what the column is called.
_ROLE_COLUMNS: Final = {
    "plan": "plans",
    "structure_set": "structure_sets",
    "image": "images",
    "plan_dose": "plan_doses",
    "beam_dose": "beam_doses",
    "other_dose": "other_doses",
    "record": "all_records",
    "registration": "registrations",
    "cbct": "cbct_images",
    "rt_image": "rt_images",
    "drr": "drrs",
}
_LACKING: Final = ("missing", "not_exportable", "ambiguous")
#: The columns, in order. Those of :data:`_IDENTIFYING` stand behind them where they are asked for.
COLUMNS: Final = (
    "patient",
    "plan_uid",
    "outcome",
    "message",
    "approval_status",
    "days_treated",
    "records_in_window",
    "machines",
    *_ROLE_COLUMNS.values(),
    *_LACKING,
    "bytes",
    "transferred",
    "folder",
    "manifest",
)
_IDENTIFYING: Final = ("patient_id", "plan_label", "course", "days")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_TABLE: Final = ("patient", "plan", "outcome", "here", "lacking", "MB", "moved")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanIndex:
    """What became of the plans of a run.

    :param about: what the list of plans said of itself: kind, days, warnings, undecided.
    :param run_id: of the DAG run.
    :param lines: one mapping per plan, by the names of :data:`COLUMNS`.
    :param warnings: per plan UID sentences without identifiers.
    :param identifying: whether the lines hold Patient ID, label, course and days.
    """

    about: Mapping[str, Any]
    run_id: str
    lines: Sequence[Mapping[str, Any]] = field(repr=False)
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    identifying: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return all(line["outcome"] in DONE for line in self.lines)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, in order."""
        return (*COLUMNS, *_IDENTIFYING) if self.identifying else COLUMNS

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "about": dict(self.about),
            "outcomes": dict(Counter(str(line["outcome"]) for line in self.lines)),
            "plans": [{**line, "warnings": list(self.warnings.get(line["plan_uid"], ()))} for line in self.lines],
        }

    def to_csv(self) -> str:
        """Return it as CSV (RFC 4180), with a heading; lists are joined by blanks."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self.columns)
        for line in self.lines:
            writer.writerow([_cell(line[column]) for column in self.columns])
        return text.getvalue()

    def to_text(self) -> str:
        """Return the summary that a physicist reads: the numbers, a table, and what is not well, by name."""
        days = [str(self.about.get(name) or "") for name in ("first_day", "last_day")]
        when = f", {days[0]} to {days[1]}" if all(days) else ""
        outcomes = Counter(str(line["outcome"]) for line in self.lines)
        patients = len({line["patient"] for line in self.lines})
        parts = [f"{len(self.lines)} plans of {patients} patients{when}"]
        if outcomes:
            # Most first; of equal numbers not as the pseudonyms happen to be sorted.
            ordered = sorted(outcomes.items(), key=lambda each: (-each[1], each[0]))
            parts.append(", ".join(f"{count} {outcome}" for outcome, count in ordered))
        text = [": ".join(parts)]
        if self.lines:
            text += ["", *_table(self.lines)]
        if told := [line for line in self.lines if line["outcome"] not in DONE]:
            text += ["", "Not complete:"]
            text += [f"  {line['patient']}  {line['plan_uid']}: {line['outcome']}. {line['message']}" for line in told]
        warnings = [
            *map(str, self.about.get("warnings") or ()),
            *(f"{uid}: {words}" for uid, sentences in self.warnings.items() for words in sentences),
        ]
        if warnings:
            text += ["", "To know:", *(f"  {words}" for words in warnings)]
        return "\n".join(text)


def index_line(
    *, pseudonym: str, plan: Mapping[str, Any], result: Mapping[str, Any], identifying: bool = False
) -> dict[str, Any]:
    """Return the line of a plan.

    :param pseudonym: of its patient.
    :param plan: the row of the list: days, records, machines, and who it is.
    :param result: what its export told: outcome, message, counts by role and standing, and where it is.
    :param identifying: tell Patient ID, label, course and days too.
    """
    counts: Mapping[str, Mapping[str, int]] = result["counts"]
    line: dict[str, Any] = {
        "patient": pseudonym,
        "plan_uid": str(result.get("plan_uid") or plan["plan_uid"]),
        "outcome": result["outcome"],
        "message": result["message"],
        "approval_status": result["approval_status"] or plan["approval_status"],
        "days_treated": len(plan["days"]),
        "records_in_window": plan["records"],
        "machines": list(plan["machines"]),
        **{column: counts.get(role, {}).get("held", 0) for role, column in _ROLE_COLUMNS.items()},
        **{standing: sum(of_role.get(standing, 0) for of_role in counts.values()) for standing in _LACKING},
        "bytes": result["bytes"],
        "transferred": result["transferred"],
        "folder": result["folder"],
        "manifest": result["manifest"] or "",
    }
    if identifying:
        line |= {name: plan[name] for name in _IDENTIFYING}
    return line


def _table(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = [_TABLE]
    for line in lines:
        here = sum(line[column] for column in _ROLE_COLUMNS.values())
        lacking = sum(line[standing] for standing in _LACKING)
        rows.append(
            (
                str(line["patient"]),
                str(line["plan_uid"]),
                str(line["outcome"]),
                str(here),
                str(lacking),
                f"{line['bytes'] / 1e6:.1f}",
                str(line["transferred"]),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TABLE))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
