"""Whether the peer holds another revision of an object than the one that is held here (semantics 9).

Plans, structure sets and doses change under the same SOP Instance UID: when they are approved, when contours are
drawn. A C-FIND tells by a few attributes; the file that is held tells by the same ones, whoever brought it. They are
compared here, and nothing else is needed: no manifest, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from airflow_provider_varian.retrieval.excerpt import Excerpt
from airflow_provider_varian.retrieval.verify import layout_values

_APPROVAL: Final = "ApprovalStatus"
_DATES: Final = ("RTPlanDate", "StructureSetDate", "ContentDate", "ReviewDate")
_TIMES: Final = ("RTPlanTime", "StructureSetTime", "ContentTime")
#: What is asked for in a C-FIND at IMAGE level: Approval Status (300E,0002), RT Plan Date and Time (300A,0006 and
#: 0007), Structure Set Date and Time (3006,0008 and 0009), Content Date and Time (0008,0023 and 0033), Review Date
#: (300E,0004).
REVISION_KEYWORDS: Final = (_APPROVAL, *_DATES, *_TIMES)


class Verdict(StrEnum):
    """What the attributes say of an object that is held."""

    SAME = "same"
    """The peer answers what the file says."""
    CHANGED = "changed"
    """The peer answers something else."""
    UNDECIDED = "undecided"
    """The peer answers nothing that the file has, or no date, or a date that the file lacks."""


def judge_revision(answered: Mapping[str, Any], held: Mapping[str, Any]) -> Verdict:
    """Compare what the peer answers of an object with what the held file says.

    What both of them have is compared. Any difference is a change. Equal are they when a date is among it: an approval
    status alone stays what it is while contours are drawn, so it decides nothing. A date that the peer alone has may
    have come with a change, as the one of a review does: then nothing is decided.

    :param answered: values of a C-FIND answer by keyword.
    :param held: values of the file by keyword.
    """
    both = [key for key in REVISION_KEYWORDS if _text(answered.get(key)) and _text(held.get(key))]
    if any(not _agree(key, _text(answered[key]), _text(held[key])) for key in both):
        return Verdict.CHANGED
    answers_more = any(_text(answered.get(key)) and key not in both for key in _DATES)
    return Verdict.SAME if any(key in _DATES for key in both) and not answers_more else Verdict.UNDECIDED


def is_later(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Say whether a file is of a later day than another, by a date that both have.

    :param first: values of a file by keyword, as :func:`revision_of` reads them.
    :param second: those of the other one.
    """
    for key in _DATES:
        days = [_text(values.get(key)) for values in (first, second)]
        if all(days) and days[0] != days[1]:
            return days[0] > days[1]
    return False


def revision_of(path: Path) -> dict[str, Any]:
    """Read from a file what :func:`judge_revision` compares, and its SOP Class UID.

    :param path: an object.
    :return: values by keyword; empty when the file cannot be read as DICOM.
    """
    try:
        return layout_values(path, ("SOPClassUID", *REVISION_KEYWORDS))
    except Exception:  # noqa: BLE001 - pydicom raises many kinds; what cannot be read says nothing
        return {}


def revision_in(excerpt: Excerpt) -> dict[str, Any]:
    """Return the same, without the class, of an object that was inspected for :data:`REVISION_KEYWORDS`.

    :param excerpt: of its head.
    """
    try:
        return excerpt.values(REVISION_KEYWORDS)
    except Exception:  # noqa: BLE001 - as above
        return {}


def _agree(keyword: str, answered: str, held: str) -> bool:
    if keyword not in _TIMES:
        return answered.upper() == held.upper()
    first, second = _time(answered), _time(held)
    # A database may keep less of a time than the object has: they agree as far as both say something.
    return first.startswith(second) or second.startswith(first)


def _time(value: str) -> str:
    """Return the digits of a time (PS3.5 6.2, TM) without zeros at the end of its fraction."""
    whole, _, fraction = value.replace(":", "").partition(".")
    return whole + fraction.rstrip("0")


def _text(value: Any) -> str:
    if value is None or isinstance(value, (list, tuple, Mapping)):
        return ""
    return str(value).strip(" \0")
