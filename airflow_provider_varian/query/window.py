"""Time as the clinic has it: DICOM dates and times are local, Airflow's instants are UTC (semantics 1 to 3).

A peer is asked by whole days, then date and time are compared here. Around a change of the clock a
local time may name two instants, or one that no clock showed; both readings are tried, and only
what holds for all of them is decided. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from airflow_provider_varian.errors import ConfigurationError, QueryError
from airflow_provider_varian.query.temporal import Span, parse_date, time_span
from airflow_provider_varian.query.verdict import Verdict

#: Days before the interval that each run lists again: data reaches ARIA late.
DEFAULT_LOOKBACK_DAYS: Final = 3
#: More would be a slip of the pen: years are exported by a backfill.
LONGEST_LOOKBACK_DAYS: Final = 366

_INSTANT: Final = timedelta(microseconds=1)


def clinic_zone(name: str | None) -> ZoneInfo:
    """Return the clinic's time zone.

    :param name: ``timezone`` of the connection, an IANA name.
    :raises ConfigurationError: when there is none, or it is unknown.
    """
    if not name:
        raise ConfigurationError(
            "the connection has no time zone",
            hint="Set 'Time zone of the clinic' (timezone), e.g. Europe/Zurich: DICOM dates are local to the clinic",
        )
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise ConfigurationError(
            f"there is no time zone {name!r}", hint="Set timezone to an IANA name, e.g. Europe/Zurich"
        ) from None


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time: from its start up to, and without, its end.

    :param start: an instant, aware of its zone.
    :param end: a later instant, aware of its zone.
    :raises QueryError: when an end has no zone, or nothing lies between them.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise QueryError("an end of the window has no time zone")
        # In UTC: two instants of one zone are compared by their clocks otherwise, also in the hour that comes twice.
        object.__setattr__(self, "start", self.start.astimezone(UTC))
        object.__setattr__(self, "end", self.end.astimezone(UTC))
        if self.start >= self.end:
            raise QueryError(
                "the window is empty",
                hint="Use a timetable with a real interval, e.g. CronDataIntervalTimetable: "
                "a bare cron text gives data intervals without width",
            )

    def days(self, zone: ZoneInfo) -> tuple[date, ...]:
        """Return the clinic's days that the window touches."""
        first = self.start.astimezone(zone).date()
        last = run_day(self.end, zone)
        return tuple(first + timedelta(days=n) for n in range((last - first).days + 1))

    def contains(self, day: str | None, clock: str | None, zone: ZoneInfo) -> Verdict:
        """Say whether a DICOM date and time lie in the window.

        :param day: DA value, local to the clinic; None when absent.
        :param clock: TM value, perhaps stopping at the hour; None when absent: any time of the day.
        :param zone: the clinic's zone.
        :return: undecided when the date is missing or unreadable, or when the window ends within
            what the two leave open.
        """
        if not day:
            return Verdict.UNDECIDED
        try:
            moments = _moments(parse_date(str(day)), time_span(str(clock)) if clock else None, zone)
        except ValueError:
            return Verdict.UNDECIDED
        if self.start <= min(moments) and max(moments) < self.end:
            return Verdict.MATCH
        return Verdict.MISS if max(moments) < self.start or self.end <= min(moments) else Verdict.UNDECIDED


def _moments(day: date, span: Span | None, zone: ZoneInfo) -> list[datetime]:
    """Return the instants that a date and the ends of a time may name, in both readings (PEP 495)."""
    if span is None:
        return [
            _midnight(day, zone).astimezone(UTC),
            _midnight(day + timedelta(days=1), zone).astimezone(UTC) - _INSTANT,
        ]
    clocks = [
        datetime.combine(day, time(tzinfo=zone)) + timedelta(microseconds=at or 0) for at in (span.low, span.high)
    ]
    return [clock.replace(fold=fold).astimezone(UTC) for clock in clocks for fold in (0, 1)]


def day_window(first: date, last: date, zone: ZoneInfo) -> Window:
    """Return the window of whole clinic days, both included; a day may have 23 or 25 hours.

    :raises QueryError: when the last is before the first.
    """
    if last < first:
        raise QueryError("the last day lies before the first")
    return Window(_midnight(first, zone), _midnight(last + timedelta(days=1), zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(tzinfo=zone))


def date_range_key(window: Window, zone: ZoneInfo) -> str:
    """Return the DA key that asks for the days of a window: one day, or ``A-B`` (PS3.4 C.2.2.2.5)."""
    days = window.days(zone)
    first, last = days[0].strftime("%Y%m%d"), days[-1].strftime("%Y%m%d")
    return first if first == last else f"{first}-{last}"


def run_day(end: datetime, zone: ZoneInfo) -> date:
    """Return the clinic's day on which a data interval ends.

    An end at midnight belongs to the day before, since the end itself is not part of an interval.

    :param end: ``data_interval_end``, aware of its zone.
    """
    return (end.astimezone(UTC) - _INSTANT).astimezone(zone).date()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWindow:
    """What one run of a dated DAG lists and judges.

    :param window: what it lists: from the first minute of the first look-back day to the interval's end.
    :param run_day: the clinic's day that sets the run's state, judged up to the window's end.
    :param days: all days it judges and reports, the run's own last.
    """

    window: Window
    run_day: date
    days: tuple[date, ...]


def run_window(
    zone: ZoneInfo,
    *,
    data_interval_start: datetime | None = None,
    data_interval_end: datetime | None = None,
    run_after: datetime | None = None,
    first_day: date | None = None,
    last_day: date | None = None,
    lookback_days: int = DEFAULT_LOOKBACK_DAYS,
) -> RunWindow:
    """Return what a run lists and judges (semantics 2 and 3).

    Dates of the run's form come first, then its data interval, then the 24 hours before ``run_after``.

    :param zone: the clinic's zone.
    :param data_interval_start: start of the data interval, None for a run without a logical date.
    :param data_interval_end: its end.
    :param run_after: when the run was due.
    :param first_day: first day of the form; alone it means that one day.
    :param last_day: last day of the form; alone it means that one day.
    :param lookback_days: days before the interval that are listed and judged again.
    :raises QueryError: when nothing says what to judge, the interval is empty, or so many days are not looked back.
    """
    is_number = isinstance(lookback_days, int) and not isinstance(lookback_days, bool)
    if not is_number or not 0 <= lookback_days <= LONGEST_LOOKBACK_DAYS:
        raise QueryError(f"lookback_days is not a whole number from 0 to {LONGEST_LOOKBACK_DAYS}")
    if first_day or last_day:
        interval = day_window(first_day or last_day or date.min, last_day or first_day or date.min, zone)
    elif data_interval_start is not None and data_interval_end is not None:
        interval = Window(data_interval_start, data_interval_end)
    elif run_after is not None:
        interval = Window(run_after - timedelta(hours=24), run_after)
    else:
        raise QueryError(
            "nothing says which days to judge", hint="Give the form's dates, a data interval, or run_after"
        )
    first = interval.start.astimezone(zone).date() - timedelta(days=lookback_days)
    window = Window(_midnight(first, zone), interval.end)
    return RunWindow(window=window, run_day=run_day(interval.end, zone), days=window.days(zone))
