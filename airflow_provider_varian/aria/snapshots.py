"""Snapshots: which approval state each plan of a stated set had, as one JSON file.

The DB Daemon tells what a plan's state is, never when it became so: what was approved since yesterday is the
difference to what was written down yesterday (semantics 17). A snapshot holds plan UIDs, states, and dates of plans and
reviews; no name, no ID, no label, and no hash of them. It lies under ``.dicom/snapshots/`` of a destination.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.retrieval.destination import OWN_FOLDER, Destination
from airflow_provider_varian.retrieval.layout import safe_value
from airflow_provider_varian.retrieval.schema import check_schema_version

SCHEMA_VERSION: Final = 1
_STEP: Final = "snapshot"
_FOLDER: Final = OWN_FOLDER / "snapshots"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanState:
    """What the peer answered of a plan.

    :param status: ApprovalStatus (300E,0002).
    :param reviewed: ReviewDate (300E,0004) and ReviewTime (300E,0005) in one text of digits, as far as they are known.
    :param planned: RTPlanDate (300A,0006) and RTPlanTime (300A,0007), likewise.
    """

    status: str
    reviewed: str = ""
    planned: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, values: Any) -> PlanState:
        """Read what :meth:`to_json` made.

        :raises ValueError: when it is nothing of the kind.
        """
        if not isinstance(values, Mapping) or not all(isinstance(value, str) for value in values.values()):
            raise ValueError("a state is no mapping of texts")
        return cls(
            status=values.get("status", ""), reviewed=values.get("reviewed", ""), planned=values.get("planned", "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The states of a set of plans at a moment.

    :param taken: when the peer was asked; an instant in UTC.
    :param run: opaque key of the run that took it.
    :param until: end of that run's data interval; None when it has none.
    :param scope: the set: ``clinic`` or ``patients``; whose plans they are is not written down.
    :param planned_from: of the clinic: plans with an RTPlanDate from this day on.
    :param plans: states by plan UID. Plans that were listed once stay.
    :param before: of what that run found changed, the state before; None for a plan that was not there. With it, the
        same run again finds the same.
    """

    taken: datetime
    run: str
    scope: str
    until: datetime | None = None
    planned_from: date | None = None
    plans: Mapping[str, PlanState] = field(default_factory=dict, repr=False)
    before: Mapping[str, PlanState | None] = field(default_factory=dict, repr=False)

    def rolled_back(self) -> dict[str, PlanState]:
        """Return the states before the run that took it."""
        states = dict(self.plans)
        for uid, state in self.before.items():
            if state is None:
                states.pop(uid, None)
            else:
                states[uid] = state
        return states

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "taken": self.taken.astimezone(UTC).isoformat(),
            "run": self.run,
            "until": self.until.astimezone(UTC).isoformat() if self.until else None,
            "candidates": {
                "scope": self.scope,
                "planned_from": self.planned_from.isoformat() if self.planned_from else None,
            },
            "plans": {uid: state.to_json() for uid, state in sorted(self.plans.items())},
            "before": {uid: state.to_json() if state else None for uid, state in sorted(self.before.items())},
        }

    @classmethod
    def from_json(cls, values: Any) -> Snapshot:
        """Read what :meth:`to_json` made.

        :raises ValueError: when it is nothing of the kind; likewise KeyError, TypeError and AttributeError.
        """
        candidates = values["candidates"]
        planned_from = candidates["planned_from"]
        return cls(
            taken=_instant(values["taken"]),
            run=str(values["run"]),
            until=_instant(values["until"]) if values["until"] else None,
            scope=str(candidates["scope"]),
            planned_from=date.fromisoformat(planned_from) if planned_from else None,
            plans={uid: PlanState.from_json(state) for uid, state in values["plans"].items()},
            before={
                uid: None if state is None else PlanState.from_json(state) for uid, state in values["before"].items()
            },
        )


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("an instant has no zone")
    return moment.astimezone(UTC)


def snapshot_path(name: str) -> PurePosixPath:
    """Return where a snapshot lies below the root.

    :raises ConfigurationError: for a name that is no plain file name.
    """
    if not name or safe_value(name) != name:
        raise ConfigurationError(
            f"a snapshot cannot be called {name!r}",
            step=_STEP,
            hint="Use letters, digits, -, _ and inner dots, and nothing about a patient: the name becomes a file's",
        )
    return _FOLDER / f"{name}.json"


def read_snapshot(destination: Destination, name: str) -> Snapshot | None:
    """Return the snapshot of a name; None when none was taken yet.

    :raises ConfigurationError: when it cannot be read: a base line taken anew would hide what was approved meanwhile,
        so a person has to decide.
    :raises DestinationWriteError: when the destination cannot be used.
    """
    path = snapshot_path(name)
    text = destination.read_text(path)
    if text is None:
        return None
    try:
        values = json.loads(text)
        what = f"the snapshot {destination.uri_of(path)}"
        check_schema_version(values, SCHEMA_VERSION, what=what, step=_STEP, instead="a snapshot of another name")
        return Snapshot.from_json(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigurationError(
            f"the snapshot {destination.uri_of(path)} cannot be read",
            step=_STEP,
            hint="Bring it back from a backup. Removed, it is taken anew, and what was approved since the last one "
            "is not reported",
        ) from None


def write_snapshot(destination: Destination, name: str, snapshot: Snapshot) -> None:
    """Put a snapshot in the place of the one before, whole or not at all.

    :raises ConfigurationError: for a name that is no plain file name.
    :raises DestinationWriteError: when it cannot be written; the one before is still there then.
    """
    destination.write_text(snapshot_path(name), json.dumps(snapshot.to_json(), indent=1, ensure_ascii=True) + "\n")
