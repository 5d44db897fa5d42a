"""From what people write as a key to what goes on the wire, by VR (PS3.5 6.2, PS3.4 C.2.2.2).

Every function returns the values as text and raises :class:`ValueError` with the rule that was
broken. The message never repeats the value: it may be a patient's.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, tzinfo
from types import MappingProxyType
from typing import Any, Final

from pydicom.valuerep import format_number_as_ds

from airflow_provider_varian.query.matching import WILDCARD_VRS
from airflow_provider_varian.query.temporal import TEMPORAL_VRS, key_span
from airflow_provider_varian.query.values import NUMBER_FORMATS
from airflow_provider_varian.uids import is_uid

#: The longest value in characters (PS3.5 6.2); for PN of each component group.
MAX_LENGTH: Final = MappingProxyType(
    {"AE": 16, "CS": 16, "LO": 64, "LT": 10240, "PN": 64, "SH": 16, "ST": 1024, "DS": 16, "IS": 12, "AS": 4}
)

_LINES: Final = frozenset({"LT", "ST", "UT"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_CODE_STRING = re.compile(r"[A-Z0-9 _*?]*")
_AGE = re.compile(r"\d{3}[DWMY]")
_INTEGER = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_ISO_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")


@dataclass(frozen=True, slots=True)
class Exact:
    """A text that is meant as it stands, although it holds ``*`` or ``?``.

    DICOM has no exact match for such values: the peer reads them as wildcards and lists too much,
    and the answers are compared here (semantics 13).

    :param value: the text.
    """

    value: str = field(repr=False)


def wire_values(vr: str, value: Any, zone: tzinfo | None) -> tuple[str, ...]:
    """Turn a key's value into the values to send.

    :param vr: the key's VR, not SQ.
    :param value: None or ``""`` for a return key, a text, a number, a date or time, a pair of
        those for DA, TM and DT, a list for UI.
    :param zone: the clinic's zone, into which instants are converted.
    :return: the values; empty for universal matching.
    :raises ValueError: with the broken rule.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    if isinstance(value, bool):
        raise ValueError("true and false are no values of it")
    if isinstance(value, bytes):
        raise ValueError("bytes are no value of it: write text")
    if vr == "UI":
        return _uids(value)
    if vr in TEMPORAL_VRS:
        return (_temporal(vr, value, zone),)
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        raise ValueError("it takes one value: lists are for UIDs alone (PS3.4 C.2.2.2.2)")
    rule = _RULES.get(vr)
    if rule is None:
        raise ValueError("it cannot be matched on: leave it empty to have it returned")
    return (rule(vr, value),)


def several(vr: str, value: Any) -> tuple[str, ...]:
    """Split a value of several parts, text with backslashes or a list; for keys that are compared here alone.

    :raises ValueError: with the broken rule.
    """
    if value is None or value == "":
        return ()
    if not isinstance(value, (str, list, tuple)):
        raise ValueError("it takes text, or a list of texts")
    parts = value.split("\\") if isinstance(value, str) else value
    if not parts:
        raise ValueError("the list is empty")
    return tuple(_text(vr, part) for part in parts)


def _uids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (str, list, tuple)):
        raise ValueError("it takes a UID, or a list of them")
    parts = value.split("\\") if isinstance(value, str) else value
    if not parts:
        raise ValueError("the list is empty")
    uids = [part.strip(" \0") if isinstance(part, str) else "" for part in parts]
    if any("*" in uid or "?" in uid for uid in uids):
        raise ValueError("wildcards do not exist in UIDs (PS3.4 C.2.2.2.4)")
    if not all(is_uid(uid) for uid in uids):
        raise ValueError("a UID is digits and single dots, at most 64 characters (PS3.5 9.1)")
    return tuple(dict.fromkeys(uids))


def _temporal(vr: str, value: Any, zone: tzinfo | None) -> str:
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise ValueError("the list is empty" if not value else "a range is a pair (from, to)")
        first, last = (_moment(vr, end, zone) for end in value)
        if not first and not last:
            raise ValueError("a range needs one end at least")
        text = f"{first}-{last}"
    else:
        text = _moment(vr, value, zone)
    key_span(vr, text)
    return text.strip()


def _moment(vr: str, value: Any, zone: tzinfo | None) -> str:
    """Write one end of a range, or a single date or time."""
    if value is None:
        return ""
    if isinstance(value, str):
        found = _ISO_DATE.fullmatch(value.strip())
        return "".join(found.groups()) if found and vr != "TM" else value.strip()
    if isinstance(value, datetime):
        return _from_datetime(vr, value, zone)
    if isinstance(value, date) and vr != "TM":
        return value.strftime("%Y%m%d")
    if isinstance(value, time) and vr == "TM":
        return value.strftime("%H%M%S") + (f".{value.microsecond:06d}" if value.microsecond else "")
    raise ValueError({"DA": "it takes a date", "TM": "it takes a time of the day"}.get(vr, "it takes a date and time"))


def _from_datetime(vr: str, value: datetime, zone: tzinfo | None) -> str:
    if value.tzinfo is not None and zone is not None:
        value = value.astimezone(zone)
    elif value.tzinfo is not None and vr != "DT":
        raise ValueError(
            "an instant has no date here until the clinic's zone is known: "
            "set the connection's time zone, or give a plain date"
        )
    if vr == "DA":
        return value.strftime("%Y%m%d")
    if vr == "TM":
        return _moment(vr, value.time(), zone)
    fraction = f".{value.microsecond:06d}" if value.microsecond else ""
    return value.strftime("%Y%m%d%H%M%S") + fraction + (value.strftime("%z")[:5] if value.tzinfo else "")


def _text(vr: str, value: Any) -> str:
    if not isinstance(value, str):
        # Labels and IDs that look like numbers come as numbers from JSON and forms.
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("it takes text")
        value = str(value)
    if "\\" in value and vr not in _LINES:
        raise ValueError("a backslash separates values, and it takes one value (PS3.5 6.4)")
    if (_CONTROL_BUT_LINES if vr in _LINES else _CONTROL).search(value):
        raise ValueError("control characters are not allowed in it (PS3.5 6.2)")
    if vr == "PN":
        return _person_name(value)
    _limit(vr, value.strip() if vr not in _LINES else value)
    if vr == "CS" and not _CODE_STRING.fullmatch(value):
        raise ValueError("it takes upper-case letters, digits, blank and underscore (PS3.5 6.2, VR CS)")
    if vr == "AE" and not value.isascii():
        raise ValueError("an AE title is ASCII (PS3.5 6.2)")
    return str(value)


def _person_name(value: str) -> str:
    groups = value.split("=")
    if len(groups) > 3:
        raise ValueError("a person's name has at most three component groups (PS3.5 6.2.1)")
    if any(group.count("^") > 4 for group in groups):
        raise ValueError("a component group has at most five components (PS3.5 6.2.1)")
    for group in groups:
        _limit("PN", group)
    return value


def _limit(vr: str, value: str) -> None:
    most = MAX_LENGTH.get(vr)
    if most is not None and len(value) > most:
        raise ValueError(f"it takes at most {most} characters, and this has {len(value)} (PS3.5 6.2)")


def _age(vr: str, value: Any) -> str:
    if not isinstance(value, str) or not _AGE.fullmatch(value.strip()):
        raise ValueError("an age is three digits and one of D, W, M, Y (PS3.5 6.2)")
    return str(value.strip())


def _integer_string(vr: str, value: Any) -> str:
    text = str(value).strip()
    if not isinstance(value, (str, int)) or not _INTEGER.fullmatch(text):
        raise ValueError("it takes a whole number")
    _limit(vr, text)
    if not -(2**31) <= int(text) < 2**31:
        raise ValueError("it takes a whole number of 32 bits (PS3.5 6.2)")
    return text


def _decimal_string(vr: str, value: Any) -> str:
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            raise ValueError("it takes a finite number")
        return str(value) if isinstance(value, int) else format_number_as_ds(value)
    text = str(value).strip()
    if not isinstance(value, str) or not _DECIMAL.fullmatch(text):
        raise ValueError("it takes a number")
    _limit(vr, text)
    return text


def _binary_number(vr: str, value: Any) -> str:
    text = str(value).strip()
    try:
        number = float(text) if vr in ("FL", "FD") else int(text)
        if not math.isfinite(number):
            raise ValueError("not finite")
        struct.pack("<" + NUMBER_FORMATS[vr], number)
    except (ValueError, OverflowError, struct.error):
        raise ValueError("it takes a number that its VR can hold (PS3.5 6.2)") from None
    return text


_RULES: Final[Mapping[str, Callable[[str, Any], str]]] = MappingProxyType(
    {
        **dict.fromkeys(WILDCARD_VRS, _text),
        "AS": _age,
        "IS": _integer_string,
        "DS": _decimal_string,
        **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"), _binary_number),
    }
)
