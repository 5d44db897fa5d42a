"""Quiet hours: weekly windows of the clinic's wall clock in which a peer is left alone (semantics 4).

ARIA restarts at night and on Sundays. Work that meets such a window waits until it is over, which is no failure and
costs no retry. Standard library only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from airflow_provider_varian.errors import ConfigurationError, QuietHoursError
from airflow_provider_varian.waiting import WORTH_SECONDS, QuietHours, Waiting

if TYPE_CHECKING:
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.dimse.peer import Peer

log = logging.getLogger(__name__)

#: Names of the days, by the numbers of :meth:`datetime.date.weekday`.
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
EVERY_DAY: Final = "daily"

_DAY_MINUTES: Final = 24 * 60
_WEEK_MINUTES: Final = 7 * _DAY_MINUTES
#: How often a waiting task looks at the clock, seconds: a clock that is set meanwhile is followed.
_LOOK_SECONDS: Final = 15.0

Windows = Mapping[str, Sequence[str]]


def utc_now() -> datetime:
    """Return the time; what the whole module goes by."""
    return datetime.now(UTC)


def end_of_quiet(instant: datetime, windows: Windows, timezone: str) -> datetime | None:
    """Say until when a peer is to be left alone.

    A window that ends inside another one, or where the next begins, goes on with it. A window that ends before it
    begins goes over midnight, and belongs to the day on which it begins. When clocks change, a wall time that exists
    twice, or not at all, is taken in both of its readings: such a window gets longer, and none is lost.

    :param instant: a moment; an aware time.
    :param windows: ``"daily"`` or a weekday to windows ``"HH:MM-HH:MM"``; the end is outside, and may be ``24:00``.
    :param timezone: the clinic's zone, an IANA name.
    :return: the end in the clinic's zone, ``None`` when it is no quiet time.
    """
    zone = ZoneInfo(timezone)
    # From the days before, whose windows may reach into this one, to a week of windows that adjoin.
    first = instant.astimezone(zone).date() - timedelta(days=2)
    spans = sorted(
        (min(_readings(day, begin, zone)), max(_readings(day, end, zone)))
        for day in (first + timedelta(days=number) for number in range(11))
        for begin, end in _minutes_of(windows, day.weekday())
    )
    until = None
    for begins, ends in spans:
        # In the order of their beginnings, so one pass finds whatever carries on.
        if begins <= (until or instant) < ends:
            until = ends
    return until.astimezone(zone) if until is not None else None


def covers_week(windows: Windows) -> bool:
    """Say whether the windows leave no moment of a week."""
    left = set(range(_WEEK_MINUTES))
    for weekday in range(len(WEEKDAYS)):
        for begin, end in _minutes_of(windows, weekday):
            left -= {(weekday * _DAY_MINUTES + minute) % _WEEK_MINUTES for minute in range(begin, end)}
    return not left


def quiet_until(peer: Peer) -> datetime | None:
    """Return until when a peer is to be left alone, in the clinic's zone; ``None`` when it may be called now.

    :raises ConfigurationError: when it has quiet hours and no time zone.
    """
    if not peer.quiet_hours:
        return None
    if peer.timezone is None:
        raise ConfigurationError(
            "the connection has quiet hours and no time zone", peer=peer.name, hint="Set timezone, e.g. Europe/Zurich"
        )
    return end_of_quiet(utc_now(), peer.quiet_hours, peer.timezone)


def in_words(until: datetime) -> str:
    """Return a moment as people of the clinic write it, with the zone."""
    return f"{until:%Y-%m-%d %H:%M} ({until.tzinfo})"


def note_of(until: datetime) -> str:
    """Return the sentence for somebody who asks now and does not wait."""
    return (
        f"It is quiet time of this connection until {in_words(until)}: tasks wait for its end, and the peer may be "
        "down on purpose"
    )


def error_of(peer: Peer, step: str, until: datetime) -> QuietHoursError:
    """Return the error for somebody who asks again later instead of waiting.

    :param peer: who is to be left alone.
    :param step: what it would have been called for.
    :param until: see :func:`quiet_until`.
    """
    return QuietHoursError(
        f"it is quiet time of this connection until {in_words(until)}",
        peer=peer.name,
        step=step,
        hint="Nothing is to be done: the peer is called again afterwards",
    )


def wait_past(peer: Peer, cancellation: Cancellation) -> bool:
    """Wait until a peer's quiet hours are over; logged once.

    :return: whether there was anything to wait for.
    :raises CancelledError: cancelled meanwhile.
    :raises Waiting: somebody else is to wait for their end.
    """
    waited = False
    if peer.deferred_as and (until := quiet_until(peer)) is not None:
        cancellation.raise_if_cancelled()
        if (until - utc_now()).total_seconds() >= WORTH_SECONDS:
            raise Waiting(
                QuietHours(deferred_as=peer.deferred_as),
                f"{peer.name} is left alone until {in_words(until)}: these are its quiet hours",
            )
    for seconds in _naps(peer):
        waited = True
        cancellation.pause(seconds)
    return waited


async def await_past(peer: Peer) -> None:
    """:func:`wait_past` for triggers, which hold no thread meanwhile."""
    import asyncio

    for seconds in _naps(peer):
        await asyncio.sleep(seconds)


def _naps(peer: Peer) -> Iterator[float]:
    """Yield how long to sleep until the next look at the clock, as long as it is quiet."""
    said = False
    while (until := quiet_until(peer)) is not None:
        if not said:
            log.info("Quiet hours of %s: waiting until %s", peer.name, in_words(until))
            said = True
        yield max(0.0, min((until - utc_now()).total_seconds(), _LOOK_SECONDS))


def _minutes_of(windows: Windows, weekday: int) -> Iterator[tuple[int, int]]:
    """Yield the windows that begin on a weekday, in minutes of its wall clock; past 1440 is the day after."""
    for name in (EVERY_DAY, WEEKDAYS[weekday]):
        for window in windows.get(name, ()):
            begin, end = (60 * int(text[:2]) + int(text[3:]) for text in window.split("-"))
            yield begin, end if end > begin else end + _DAY_MINUTES


def _readings(day: date, minute: int, zone: ZoneInfo) -> list[datetime]:
    """Return what a wall time may mean: two instants where clocks change (PEP 495), else twice the same one."""
    wall = datetime.combine(day, time()) + timedelta(minutes=minute)
    return [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
