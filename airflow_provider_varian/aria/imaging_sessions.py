"""Imaging sessions: images that were acquired one soon after the other, of one patient on one machine.

A session may lie in several series, and a series may hold several sessions (varian-daemon 1.4, 1.5): what belongs
together shows by date and time of acquisition alone. Works on lists of :mod:`.rt_images`; no network.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from airflow_provider_varian.aria.rt_images import RTImage, unique_images
from airflow_provider_varian.errors import ConfigurationError

#: Minutes without an image after which the next one begins a session. A fraction takes less, and between two of a day
#: lie six hours.
DEFAULT_GAP_MINUTES: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagingSession:
    """Images that belong together.

    :param day: the clinic's day on which it began.
    :param images: in the order of their acquisition.
    """

    day: date
    images: tuple[RTImage, ...]

    @property
    def begin(self) -> datetime | None:
        """When the first image was acquired, by the clinic's clock, without zone; None when no time is known."""
        return min((moment for image in self.images if (moment := image.acquired)), default=None)

    @property
    def end(self) -> datetime | None:
        """When the last image was acquired; as :attr:`begin`."""
        return max((moment for image in self.images if (moment := image.acquired)), default=None)

    @property
    def machine(self) -> str:
        """The machine; empty when it is not known."""
        return next((image.machine for image in self.images if image.machine), "")

    @property
    def series_instance_uids(self) -> tuple[str, ...]:
        """The series in which the images lie, each once."""
        return tuple(dict.fromkeys(image.series_instance_uid for image in self.images))


def sessions_of(
    images: Iterable[RTImage], *, gap_minutes: float = DEFAULT_GAP_MINUTES
) -> tuple[list[ImagingSession], list[RTImage]]:
    """Return all sessions, oldest first, and the images without a readable date, which belong to none.

    Images with a date and without a time are a session of their own, of that day: nobody knows to which of the day's
    they belong.

    :param images: as :func:`~airflow_provider_varian.aria.rt_images.find_rt_images` returns them.
    :param gap_minutes: minutes without an image after which the next one begins a session.
    :raises ConfigurationError: when that is no positive number.
    """
    if isinstance(gap_minutes, bool) or not 0 < gap_minutes < math.inf:
        raise ConfigurationError(f"gap_minutes is {gap_minutes!r}", hint="Give a number of minutes above 0")
    timed: dict[tuple[str, str], list[tuple[datetime, RTImage]]] = defaultdict(list)
    untimed: dict[tuple[str, str, date], list[RTImage]] = defaultdict(list)
    undated: list[RTImage] = []
    for image in unique_images(images):
        whose = (image.patient_id, image.machine)
        if image.day is None:
            undated.append(image)
        elif (moment := image.acquired) is None:
            untimed[*whose, image.day].append(image)
        else:
            timed[whose].append((moment, image))
    found = [ImagingSession(day=day, images=tuple(those)) for (*_, day), those in untimed.items()]
    gap = timedelta(minutes=gap_minutes)
    for of_one in timed.values():
        found += _split(of_one, gap)
    return sorted(found, key=_order), undated


def _order(one: ImagingSession) -> tuple[date, bool, str, str]:
    """Sessions without times come after the others of their day."""
    return one.day, one.begin is None, one.begin.isoformat() if one.begin else "", one.images[0].sop_instance_uid


def newest_session(images: Iterable[RTImage], *, gap_minutes: float = DEFAULT_GAP_MINUTES) -> ImagingSession | None:
    """Return the session that began last; None when there is none.

    Not the newest series: a session may lie in several (varian-daemon 5).
    """
    found, _ = sessions_of(images, gap_minutes=gap_minutes)
    return found[-1] if found else None


def sessions_on(
    images: Iterable[RTImage], day: date, *, gap_minutes: float = DEFAULT_GAP_MINUTES
) -> list[ImagingSession]:
    """Return the sessions that began on a day of the clinic, oldest first."""
    return [one for one in sessions_of(images, gap_minutes=gap_minutes)[0] if one.day == day]


def _split(images: list[tuple[datetime, RTImage]], gap: timedelta) -> list[ImagingSession]:
    """Split the images of one patient on one machine where nothing was acquired for longer than a gap."""
    ordered = sorted(images, key=lambda pair: (pair[0], pair[1].sop_instance_uid))
    groups: list[list[tuple[datetime, RTImage]]] = []
    for moment, image in ordered:
        if not groups or moment - groups[-1][-1][0] > gap:
            groups.append([])
        groups[-1].append((moment, image))
    return [ImagingSession(day=group[0][0].date(), images=tuple(image for _, image in group)) for group in groups]
