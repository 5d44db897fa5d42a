"""The daemon's habits as named switches, each with what is known as its default.

The numbers are those of varian-daemon section 4. A switch can be set at the start
(``simulate --quirk NAME=VALUE``) and, because a daemon holds its behaviour by reference, replaced
while it runs. What goes wrong rather than being a habit is in :mod:`.faults`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

from airflow_provider_varian.simulator.daemon import limits
from airflow_provider_varian.simulator.daemon.limits import Limit
from airflow_provider_varian.simulator.daemon.settings_text import read_settings

#: varian-daemon 1.1, the identity of a 16.1 service.
IMPLEMENTATION_CLASS_UID: Final = "1.2.246.352.70.2.1.162.2"
IMPLEMENTATION_VERSION_NAME: Final = "DB Svc 16.1"
MAX_PDU: Final = 64234

#: How to see all switches.
LISTING: Final = "varian-dicom simulate --quirk help"

#: Value of ``irregularities`` that leaves the holdings as they are.
AS_HELD: Final = "as held"


class Counters(StrEnum):
    """What the responses of a C-MOVE say of its sub-operations (quirk 11)."""

    #: What was sent.
    SENT = "sent"
    #: As if all that was asked for had been sent.
    ASKED = "asked"
    #: 0 remaining, completed, failed and warning.
    ZERO = "zero"
    #: The elements are not there.
    ABSENT = "absent"


def _habit(default: Any, quirks: int | tuple[int, ...], meaning: str, limit: Limit | None = None) -> Any:
    numbers = (quirks,) if isinstance(quirks, int) else quirks
    return field(default=default, metadata={"quirks": numbers, "meaning": meaning, "limit": limit})


def _limit_of(name: str, default: object) -> Limit | None:
    """Return what switches of a kind may be."""
    if name.endswith("_status"):
        return limits.STATUS
    if name.endswith("_probability"):
        return limits.SHARE
    if name.endswith("_seconds"):
        return limits.SECONDS
    return limits.NOT_NEGATIVE if type(default) is int else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """All switches. ``quirks`` in a field's metadata are its numbers in varian-daemon section 4."""

    check_called_ae_title: bool = _habit(True, 1, "a wrong called AE title is rejected with 1/1/7")
    check_calling_ae_title: bool = _habit(True, 1, "a calling AE title that is not trusted is rejected with 1/1/3")
    check_source_address: bool = _habit(True, 1, "a trusted title from another computer is rejected with 1/1/3")
    max_associations: int = _habit(
        100, (), "more associations of clients at once are rejected with 2/3/2; 0 = no limit"
    )
    implicit_only: bool = _habit(True, 2, "only Implicit VR Little Endian is accepted and sent")
    max_pdu: int = _habit(MAX_PDU, 2, "largest PDU announced, bytes; 0 = no limit", limits.MAX_PDU)
    implementation_class_uid: str = _habit(
        IMPLEMENTATION_CLASS_UID, 2, "implementation class UID announced", limits.UID_TEXT
    )
    implementation_version_name: str = _habit(
        IMPLEMENTATION_VERSION_NAME, 2, "implementation version name announced", limits.VERSION_NAME
    )
    patient_root: bool = _habit(True, 3, "the Patient Root model is accepted (off = version 8: Study Root only)")
    patient_study_only: bool = _habit(False, 3, "the retired Patient/Study Only model is accepted")
    get: bool = _habit(False, 3, "C-GET is accepted (off = old, on = 2025)")
    extended_negotiation: bool = _habit(False, 4, "extended negotiation of relational queries is answered with yes")
    relational: bool = _habit(True, 4, "upper unique keys may be missing; off: only where negotiated, else 0xA900")
    row_limit: int = _habit(2000, 5, "a query with more rows ends with 0xC001 and none; 0 = no limit")
    selective_key_needed: bool = _habit(
        True,
        5,
        "a SERIES or IMAGE query ends with 0xC001 unless it has a unique key or part of one, part of a name, "
        "or a modality or SOP class with a date",
    )
    unmatchable_patient_ids: tuple[str, ...] = _habit((), 6, "IDs that no exact key finds, a pattern does; comma list")
    plan_label_key_length: int = _habit(12, 7, "an RTPlanLabel key longer than this never matches; 0 = no limit")
    irregularities: tuple[str, ...] = _habit(
        (AS_HELD,),
        (6, 7, 8, 12, 19, 21, 22, 24),
        "irregular patients of the synthetic clinic: names with commas, `all` or `none`; "
        "`as held` leaves the clinic as it is",
    )
    series_date_empty: bool = _habit(True, 9, "SeriesDate comes back empty at SERIES level")
    related_counts: bool = _habit(True, (), "ModalitiesInStudy and Number of Related ... come filled")
    acquisition_seconds: float = _habit(
        0.0, 10, "an RT Image series appears image by image, within so many seconds of being first looked into"
    )
    short_answer_probability: float = _habit(0.0, 10, "an IMAGE query leaves out its last rows, this often (0 to 1)")
    partial_move_probability: float = _habit(
        0.0, 11, "a C-MOVE sends a random part of what was asked for and ends with 0x0000, this often (0 to 1)"
    )
    empty_move_probability: float = _habit(0.0, 11, "a C-MOVE sends nothing and ends with 0x0000, this often (0 to 1)")
    extra_move_probability: float = _habit(
        0.0, 11, "a C-MOVE sends one more instance of the patient than was asked for, this often (0 to 1)"
    )
    move_counters: Counters = _habit(  # noqa: RUF009 - a description of a field, as the others are
        Counters.SENT, 11, "counters of C-MOVE responses: sent; asked = as if all had been sent; zero; absent"
    )
    not_found_status: int = _habit(0xC001, 12, "final status of a retrieve that matches nothing")
    final_response_lead_seconds: float = _habit(
        0.0, 13, "the final C-MOVE response comes so many seconds before the last C-STORE; 0 = after it"
    )
    late_images: int = _habit(0, 14, "so many last images of each RT Image series come late")
    late_images_seconds: float = _habit(1080.0, 14, "how late: after the series was first looked into")
    move_unique_keys_only: bool = _habit(True, 15, "other keys than unique ones are ignored in C-MOVE and C-GET")
    creation_at_export: bool = _habit(True, 16, "InstanceCreationDate/Time is the time of the export")
    store_calling_ae_title: str = _habit(
        "", 17, "calling AE title of C-STORE; empty = the daemon's own", limits.AE_TITLE_OR_EMPTY
    )
    unknown_destination_status: int = _habit(0xA801, 18, "final status of a C-MOVE to a title that is not trusted")
    unreachable_destination_status: int = _habit(
        0xA702, 18, "final status of a C-MOVE whose receiver cannot be reached; all instances are counted as failed"
    )
    move_exception_plan_series: int = _habit(
        0, 19, "a STUDY move of a patient with more RTPLAN series ends with 0xC000; 0 = never, 30 is known"
    )
    restart_seconds: float = _habit(0.0, 20, "from when this is set, the daemon restarts for so long; 0 = it does not")
    restart_refuses: bool = _habit(False, 20, "a restarting daemon refuses connections; off: it takes them, and aborts")
    transaction_seconds: float = _habit(
        100.0, 20, "an association is aborted when a step takes longer: a client's, a receiver's or its own; 0 = never"
    )
    pending_responses: bool = _habit(True, (), "C-MOVE and C-GET send pending responses")
    character_set: str = _habit(
        "ISO_IR 192", 23, "of what is exported: ISO_IR 192, ISO_IR 100, or empty for none named", limits.CHARACTER_SET
    )
    client_character_sets: tuple[str, ...] = _habit(
        (), 23, "exceptions of single clients, `AET:CHARACTER SET` with commas", limits.CLIENT_CHARACTER_SETS
    )
    store: bool = _habit(True, (), "C-STORE is taken, for patients that are known by ID, last and first name")
    automatic_patient_creation: bool = _habit(False, (), "C-STORE for a patient who is not known makes him known")
    patient_match_birth_date: bool = _habit(False, (), "the birth date must match, too, for a C-STORE to be taken")
    chance_seed: int = _habit(1, (), "with the number of the request it decides all that is random")

    def __post_init__(self) -> None:
        """Refuse values that no daemon could have.

        :raises ConfigurationError: naming the switch, the value and what is allowed.
        """
        for each in fields(self):
            limit = each.metadata["limit"] or _limit_of(each.name, each.default)
            if limit is not None:
                limit.check(each.name, getattr(self, each.name))

    def character_sets_by_client(self) -> dict[str, str]:
        """Return the character sets of single clients, by AE title."""
        parts = (entry.rpartition(":") for entry in self.client_character_sets)
        return {title.strip(): character_set.strip() for title, _, character_set in parts}

    def with_settings(self, settings: Iterable[str]) -> Behaviour:
        """Return a copy with switches set as the command line gives them, ``NAME=VALUE`` each.

        :raises ConfigurationError: for an unknown name (with the nearest ones) or a value that does not fit.
        """
        current = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **read_settings(settings, current, kind="switch of the simulator", listing=LISTING))


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """A switch, for tables in documentation and tests.

    :param quirks: its numbers in varian-daemon section 4; none for a switch that tests need beside them.
    """

    name: str
    quirks: tuple[int, ...]
    default: Any
    meaning: str


def habits() -> tuple[Habit, ...]:
    """List the switches in the order of their declaration."""
    return tuple(
        Habit(name=each.name, quirks=each.metadata["quirks"], default=each.default, meaning=each.metadata["meaning"])
        for each in fields(Behaviour)
    )
