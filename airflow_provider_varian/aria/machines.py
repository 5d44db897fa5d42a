"""Machines as a site configures them for daily QA: checked, JSON-ready. Standard library only.

The default configuration lives in the DAG file and can be changed in the form of a run, so every
mistake has to name the machine, the key and what to type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from typing import Any, Final

from airflow_provider_varian.aria.expectation import WEEKDAYS, Expectation
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.window import DEFAULT_LOOKBACK_DAYS, LONGEST_LOOKBACK_DAYS

#: Which images of a plan count (ImageType, compared as a whole; see :mod:`.qa_images`).
IMAGE_KINDS: Final = ("portal", "portal_dose", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine and plan of the daily QA.

    :param name: what people call it; stands in messages, so no patient data.
    :param dicom_conn_id: the Airflow connection of its daemon.
    :param patient_id: Patient ID of the QA phantom.
    :param plan_label: RT Plan Label, exactly.
    :param course: Course ID (StudyID), needed when courses hold plans of the same label.
    :param images: ``portal``, ``portal_dose`` or ``any``.
    :param kv: are kV images wanted too?
    :param expected: what should exist on which day.
    :param lookback_days: days before the interval that are listed and judged again.
    """

    name: str
    dicom_conn_id: str
    patient_id: str = field(repr=False)
    plan_label: str
    course: str | None = None
    images: str = "portal"
    kv: bool = False
    expected: Expectation = field(default_factory=Expectation)
    lookback_days: int = DEFAULT_LOOKBACK_DAYS

    def to_json(self) -> dict[str, Any]:
        """Return it as :func:`parse_machines` takes it."""
        return {
            "name": self.name,
            "dicom_conn_id": self.dicom_conn_id,
            "patient_id": self.patient_id,
            "plan_label": self.plan_label,
            "course": self.course,
            "images": self.images,
            "kv": self.kv,
            "expected": self.expected.to_json(),
            "lookback_days": self.lookback_days,
        }


def parse_machines(configuration: object) -> list[Machine]:
    """Check a list of machines.

    :param configuration: a JSON list of mappings with the fields of :class:`Machine`; absent and
        null fields take their defaults.
    :return: one machine for each.
    :raises ConfigurationError: names the machine, the key and what to type.
    """
    if not _is_list(configuration) or not configuration:
        raise ConfigurationError("the machines are not a list with one mapping or more")
    machines = [parse_machine(entry, place) for place, entry in enumerate(configuration, start=1)]  # type: ignore[arg-type, var-annotated]
    seen: set[tuple[str, str, str | None]] = set()
    for machine in machines:
        identity = (machine.name, machine.plan_label, machine.course)
        if identity in seen:
            raise ConfigurationError(f"machine {machine.name!r}: the plan {machine.plan_label!r} is listed twice")
        seen.add(identity)
    return machines


def parse_machine(entry: object, place: int = 1) -> Machine:
    """Check one machine; ``place`` names it in messages as long as it has no name."""
    name = entry.get("name") if isinstance(entry, Mapping) else None
    where = f"machine {name!r}" if isinstance(name, str) and name.strip() else f"machine number {place}"
    values = _fields(entry, _MACHINE, where, required=_REQUIRED)
    return Machine(**values)


def machines_schema() -> dict[str, Any]:
    """Return the JSON schema of the list of machines, for the form of an Airflow ``Param``.

    The schema helps to type; :func:`parse_machines` is what checks.
    """
    text = {"type": "string", "minLength": 1}
    expected = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "working_days": {"type": "array", "items": {"type": "string", "enum": list(WEEKDAYS)}, "uniqueItems": True},
            "holidays": {"type": "array", "items": {"type": "string", "format": "date"}},
            "minimum": {"type": ["integer", "null"], "minimum": 1},
            "each_beam_once": {"type": ["boolean", "null"]},
        },
    }
    return {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": list(_REQUIRED),
            "properties": {
                "name": text,
                "dicom_conn_id": text,
                "patient_id": {**text, "maxLength": 64},
                "plan_label": text,
                "course": {"type": ["string", "null"]},
                "images": {"type": "string", "enum": list(IMAGE_KINDS)},
                "kv": {"type": "boolean"},
                "expected": expected,
                "lookback_days": {"type": "integer", "minimum": 0, "maximum": LONGEST_LOOKBACK_DAYS},
            },
        },
    }


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _fields(
    entry: object, readers: Mapping[str, Callable[[Any], Any]], where: str, *, required: Sequence[str] = ()
) -> dict[str, Any]:
    """Read a mapping by its readers; absent and null values are left out."""
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"{where} is not a mapping", hint="Its keys are " + ", ".join(readers))
    for key in entry:
        if key not in readers:
            near = get_close_matches(str(key), readers, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Known keys: " + ", ".join(readers)
            raise ConfigurationError(f"{where} has the unknown key {key!r}", hint=hint)
    values: dict[str, Any] = {}
    for key, reader in readers.items():
        if entry.get(key) is None:
            if key in required:
                raise ConfigurationError(f"{where} lacks {key}")
            continue
        try:
            values[key] = reader(entry[key])
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error.what}", hint=error.hint) from None
        except ValueError as error:
            raise ConfigurationError(f"{where}: {key} {error}") from None
    return values


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("takes text that is not empty")
    return value.strip()


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("takes true or false")
    return value


def _kind(value: Any) -> str:
    if value not in IMAGE_KINDS:
        raise ValueError("takes one of " + ", ".join(IMAGE_KINDS))
    return str(value)


def _whole(lowest: int, highest: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ValueError(f"takes a whole number from {lowest} to {highest}")
        return value

    return read


def _patient_id(value: Any) -> str:
    text = _text(value)
    # VR LO (PS3.5 6.2); a wildcard would list other patients.
    if len(text) > 64 or "\\" in text:
        raise ValueError("takes at most 64 characters without a backslash")
    if set("*?") & set(text):
        raise ValueError("takes the exact Patient ID: patterns belong into the connection's profile_overrides")
    return text


def _weekdays(value: Any) -> tuple[str, ...]:
    if not _is_list(value) or not all(day in WEEKDAYS for day in value):
        raise ValueError("takes a list of " + ", ".join(WEEKDAYS))
    return tuple(day for day in WEEKDAYS if day in value)


def _holidays(value: Any) -> tuple[date, ...]:
    if not _is_list(value):
        raise ValueError("takes a list of dates like 2026-12-25")
    try:
        return tuple(sorted({day if type(day) is date else date.fromisoformat(str(day)) for day in value}))
    except ValueError:
        raise ValueError("takes a list of dates like 2026-12-25") from None


def _expectation(value: Any) -> Expectation:
    values = _fields(value, _EXPECTED, "expected")
    if values.get("each_beam_once"):
        if "minimum" in values:
            raise ConfigurationError("expected has both minimum and each_beam_once", hint="Keep one of them")
        values["minimum"] = None
    return Expectation(**values)


_EXPECTED: Final[Mapping[str, Callable[[Any], Any]]] = {
    "working_days": _weekdays,
    "holidays": _holidays,
    "minimum": _whole(1, 100_000),
    "each_beam_once": _switch,
}
_MACHINE: Final[Mapping[str, Callable[[Any], Any]]] = {
    "name": _text,
    "dicom_conn_id": _text,
    "patient_id": _patient_id,
    "plan_label": _text,
    "course": _text,
    "images": _kind,
    "kv": _switch,
    "expected": _expectation,
    "lookback_days": _whole(0, LONGEST_LOOKBACK_DAYS),
}
_REQUIRED: Final = ("name", "dicom_conn_id", "patient_id", "plan_label")
