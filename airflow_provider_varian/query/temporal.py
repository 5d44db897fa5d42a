"""DICOM dates and times as spans on a line (PS3.5 6.2, PS3.4 C.2.2.2.5). Standard library only.

A DICOM time may stop at the hour: ``0630`` is the whole minute from 06:30:00.000000 to
06:30:59.999999. Each value is therefore a span with both ends included, and a range key matches
when its span touches the value's.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date
from typing import Final

#: The VRs that range matching knows (PS3.4 C.2.2.2.5).
TEMPORAL_VRS: Final = frozenset({"DA", "TM", "DT"})

MICROSECONDS_PER_DAY: Final = 86_400_000_000

_DA = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})")
_TM = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?")
_DT = re.compile(
    r"(?P<year>\d{4})(?:(?P<month>\d{2})(?:(?P<day>\d{2})(?:(?P<hour>\d{2})(?:(?P<minute>\d{2})"
    r"(?:(?P<second>\d{2})(?:\.(?P<fraction>\d{1,6}))?)?)?)?)?)?(?P<offset>[+-]\d{4})?"
)


@dataclass(frozen=True, slots=True)
class Span:
    """Both ends included.

    :param low: days (DA) or microseconds (TM: of the day, DT: since year 1), None for an open end.
    :param high: the other end, in the same unit.
    :param aware: for DT, whether the value named its offset from UTC; such spans are in UTC.
    """

    low: int | None
    high: int | None
    aware: bool = False

    def touches(self, other: Span) -> bool:
        """Say whether the two have a point in common."""
        below = self.high is not None and other.low is not None and self.high < other.low
        above = self.low is not None and other.high is not None and self.low > other.high
        return not (below or above)


def parse_date(text: str) -> date:
    """Read a DA value; the ACR-NEMA form with dots is understood (PS3.5 6.2 note).

    :raises ValueError: when it is no date. The message does not repeat the value.
    """
    found = _DA.fullmatch(text.strip(" \0"))
    if found is None:
        raise ValueError("not a date of the form YYYYMMDD")
    try:
        return date(int(found[1]), int(found[3]), int(found[4]))
    except ValueError:
        raise ValueError("not a day of the calendar") from None


def time_span(text: str) -> Span:
    """Read a TM value as the span it covers, in microseconds of the day.

    :raises ValueError: when it is no time. The message does not repeat the value.
    """
    found = _TM.fullmatch(text.strip(" \0"))
    if found is None:
        raise ValueError("not a time of the form HHMMSS.FFFFFF")
    hour, minute, second = (int(part) if part else 0 for part in found.groups()[:3])
    # 60 is a leap second (PS3.5 6.2).
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError("not a time of the day")
    fraction = found[4] or ""
    low = (hour * 3600 + minute * 60 + second) * 1_000_000 + int(fraction.ljust(6, "0") or 0)
    width = 1_000_000 if found[3] else 60_000_000 if found[2] else 3_600_000_000
    width = 10 ** (6 - len(fraction)) if fraction else width
    last = MICROSECONDS_PER_DAY - 1
    return Span(min(low, last), min(low + width - 1, last))


def _datetime_span(text: str) -> Span:
    found = _DT.fullmatch(text.strip(" \0"))
    if found is None:
        raise ValueError("not a date and time of the form YYYYMMDDHHMMSS.FFFFFF&ZZXX")
    year, month = int(found["year"]), int(found["month"] or 1)
    try:
        start = date(year, month, int(found["day"] or 1))
    except ValueError:
        raise ValueError("not a day of the calendar") from None
    if found["hour"]:
        clock = time_span("".join(found[part] or "" for part in ("hour", "minute", "second")) + _fraction(found))
    elif found["day"]:
        clock = Span(0, MICROSECONDS_PER_DAY - 1)
    else:
        days = monthrange(year, month)[1] if found["month"] else (date(year, 12, 31) - date(year, 1, 1)).days + 1
        clock = Span(0, days * MICROSECONDS_PER_DAY - 1)
    base = start.toordinal() * MICROSECONDS_PER_DAY - _offset(found["offset"])
    return Span(base + (clock.low or 0), base + (clock.high or 0), aware=found["offset"] is not None)


def _fraction(found: re.Match[str]) -> str:
    return f".{found['fraction']}" if found["fraction"] else ""


def _offset(text: str | None) -> int:
    if text is None:
        return 0
    minutes = int(text[1:3]) * 60 + int(text[3:5])
    minutes = -minutes if text[0] == "-" else minutes
    # PS3.5 6.2: from -1200 to +1400; this also tells an offset from the second half of a range.
    if not -720 <= minutes <= 840:
        raise ValueError("not an offset from UTC")
    return minutes * 60_000_000


def value_span(vr: str, text: str) -> Span:
    """Read one DA, TM or DT value.

    :raises ValueError: when it breaks its VR. The message does not repeat the value.
    """
    if vr == "DA":
        day = parse_date(text).toordinal()
        return Span(day, day)
    return time_span(text) if vr == "TM" else _datetime_span(text)


def key_span(vr: str, text: str) -> Span:
    """Read a matching key: one value, or a range ``A-B``, ``A-``, ``-B`` (PS3.4 C.2.2.2.5).

    :raises ValueError: when it breaks its VR, or ends before it begins. The message does not
        repeat the value.
    """
    text = text.strip(" \0")
    problem = ValueError("not a range of the form A-B")
    # A hyphen may belong to an offset from UTC, so every split is tried, the whole text first.
    for at in (None, *(index for index, char in enumerate(text) if char == "-")):
        try:
            if at is None:
                return value_span(vr, text)
            span = _range(vr, text[:at].strip(), text[at + 1 :].strip())
        except ValueError as error:
            problem = error
            continue
        if span.low is not None and span.high is not None and span.low > span.high:
            raise ValueError("the range ends before it begins")
        return span
    raise problem


def _range(vr: str, first: str, last: str) -> Span:
    if not first and not last:
        raise ValueError("a range without ends")
    low = value_span(vr, first) if first else None
    high = value_span(vr, last) if last else None
    if low and high and low.aware != high.aware:
        raise ValueError("only one end of the range names its offset from UTC")
    aware = bool((low or high or Span(0, 0)).aware)
    return Span(low.low if low else None, high.high if high else None, aware)
