"""The daemon's habits as named switches, each with what is known as its default.

The numbers are those of varian-daemon section 4. A switch can be set at the start
(``simulate --quirk NAME=VALUE``) and, because a daemon holds its behaviour by reference, replaced
while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Final

from airflow_provider_varian.errors import ConfigurationError

#: varian-daemon 1.1, the identity of a 16.1 service.
IMPLEMENTATION_CLASS_UID: Final = "1.2.246.352.70.2.1.162.2"
IMPLEMENTATION_VERSION_NAME: Final = "DB Svc 16.1"
MAX_PDU: Final = 64234


def _habit(default: Any, quirk: int | None, meaning: str) -> Any:
    return field(default=default, metadata={"quirk": quirk, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """All switches. ``quirk`` in a field's metadata is its number in varian-daemon section 4."""

    check_called_ae_title: bool = _habit(True, 1, "a wrong called AE title is rejected with 1/1/7")
    check_calling_ae_title: bool = _habit(True, 1, "a calling AE title that is not trusted is rejected with 1/1/3")
    check_source_address: bool = _habit(True, 1, "a trusted title from another computer is rejected with 1/1/3")
    implicit_only: bool = _habit(True, 2, "only Implicit VR Little Endian is accepted and sent")
    max_pdu: int = _habit(MAX_PDU, 2, "largest PDU announced, bytes")
    implementation_class_uid: str = _habit(IMPLEMENTATION_CLASS_UID, 2, "implementation class UID announced")
    implementation_version_name: str = _habit(IMPLEMENTATION_VERSION_NAME, 2, "implementation version name announced")
    patient_root: bool = _habit(True, 3, "the Patient Root model is accepted (off = version 8)")
    get: bool = _habit(False, 3, "C-GET is accepted (off = old, on = 2025)")
    row_limit: int = _habit(2000, 5, "a query with more rows ends with 0xC001 and none; 0 = no limit")
    unmatchable_patient_ids: tuple[str, ...] = _habit((), 6, "IDs that no exact key finds, a pattern does; comma list")
    plan_label_key_length: int = _habit(12, 7, "an RTPlanLabel key longer than this never matches; 0 = no limit")
    series_date_empty: bool = _habit(True, 9, "SeriesDate comes back empty at SERIES level")
    related_counts: bool = _habit(True, None, "ModalitiesInStudy and Number of Related ... come filled")
    move_unique_keys_only: bool = _habit(True, 15, "other keys than unique ones are ignored in C-MOVE and C-GET")
    not_found_status: int = _habit(0xC001, 12, "final status of a retrieve that matches nothing")
    creation_at_export: bool = _habit(True, 16, "InstanceCreationDate/Time is the time of the export")
    store_calling_ae_title: str = _habit("", 17, "calling AE title of C-STORE; empty = the daemon's own")
    pending_responses: bool = _habit(True, None, "C-MOVE and C-GET send pending responses")
    character_set: str = _habit(
        "ISO_IR 192", 23, "of what is exported: ISO_IR 192, ISO_IR 100, or empty for none named"
    )

    def __post_init__(self) -> None:
        """Refuse values that no daemon could have."""
        if self.character_set not in ("ISO_IR 192", "ISO_IR 100", ""):
            raise ConfigurationError(
                f"{self.character_set!r} is not a character set of the simulator",
                hint="character_set is ISO_IR 192, ISO_IR 100 or empty",
            )

    def with_settings(self, settings: Iterable[str]) -> Behaviour:
        """Return a copy with switches set as the command line gives them, ``NAME=VALUE`` each.

        :raises ConfigurationError: for an unknown name (with the nearest) or a value that does not fit.
        """
        known = {each.name: each for each in fields(self)}
        changes: dict[str, Any] = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if name not in known or not equals:
                near = get_close_matches(name, known, n=1)
                meant = f"Did you mean {near[0]}=...? " if near else ""
                raise ConfigurationError(
                    f"{setting!r} is not a switch of the simulator",
                    hint=f"{meant}Known switches: {', '.join(sorted(known))}",
                )
            changes[name] = _read(name, getattr(self, name), text)
        return replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """A switch, for tables in documentation and tests."""

    name: str
    quirk: int | None
    default: Any
    meaning: str


def habits() -> tuple[Habit, ...]:
    """List the switches in the order of their declaration."""
    return tuple(
        Habit(name=each.name, quirk=each.metadata["quirk"], default=each.default, meaning=each.metadata["meaning"])
        for each in fields(Behaviour)
    )


def _read(name: str, current: object, text: str) -> object:
    reader = _READERS[type(current)]
    try:
        return reader(text.strip())
    except (KeyError, ValueError):
        kind = _KINDS[type(current)]
        raise ConfigurationError(f"{text!r} does not fit {name}", hint=f"{name} takes {kind}") from None


def _switch(text: str) -> bool:
    return {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}[
        text.lower()
    ]


def _number(text: str) -> int:
    number = int(text, 0)
    if number < 0:
        raise ValueError(text)
    return number


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_READERS: Final[dict[type, Callable[[str], object]]] = {bool: _switch, int: _number, tuple: _names, str: str}
_KINDS: Final = {bool: "on or off", int: "a whole number", tuple: "a list with commas", str: "text"}
