"""What a machine is expected to hold on a day, and what to say about what was found (semantics 5).

Nothing on an expected day is ``empty``, less than expected is ``short``, found but not received is
``partial``: different words for different mornings. Standard library only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Final, Protocol

from airflow_provider_varian.errors import ConfigurationError

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class DayState(StrEnum):
    """What became of one machine's day."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    SHORT = "short"
    EMPTY = "empty"
    NOT_EXPECTED = "not_expected"


class FoundImage(Protocol):
    """What is judged: an image by its UID and beam."""

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""

    @property
    def beam_number(self) -> int | None:
        """ReferencedBeamNumber (300C,0006); None when unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What should exist on a day (semantics 5).

    :param working_days: days of the week on which images are expected, of ``mon`` to ``sun``.
    :param holidays: days on which none are, although the weekday is a working day.
    :param minimum: how many images at least; None with ``each_beam_once``.
    :param each_beam_once: each beam of the plan has an image (ReferencedBeamNumber).
    """

    working_days: tuple[str, ...] = WEEKDAYS[:5]
    holidays: tuple[date, ...] = ()
    minimum: int | None = 1
    each_beam_once: bool = False

    def expects(self, day: date) -> bool:
        """Say whether images are expected on a day."""
        return WEEKDAYS[day.weekday()] in self.working_days and day not in self.holidays

    def to_json(self) -> dict[str, Any]:
        """Return it as :func:`parse_machines` takes it."""
        return {
            "working_days": list(self.working_days),
            "holidays": [day.isoformat() for day in self.holidays],
            **({"each_beam_once": True} if self.each_beam_once else {"minimum": self.minimum}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What to say about one machine's day.

    :param state: the word.
    :param message: a sentence that names machine, day and counts.
    :param day: the clinic's day.
    :param found: images found.
    :param received: images received; equal to ``found`` when nothing was said about receiving.
    :param wanted: images wanted at least; 0 on a day without expectation.
    :param missing_beams: beams of the plan without an image.
    """

    state: DayState
    message: str
    day: date
    found: int
    received: int
    wanted: int
    missing_beams: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "state": str(self.state),
            "message": self.message,
            "day": self.day.isoformat(),
            "found": self.found,
            "received": self.received,
            "wanted": self.wanted,
            "missing_beams": list(self.missing_beams),
        }


def judge(
    machine: str,
    day: date,
    images: Iterable[FoundImage],
    expected: Expectation,
    *,
    plan_beams: Collection[int] | None = None,
    received: Collection[str] | None = None,
    owed: int = 0,
) -> Judgement:
    """Judge what was found, and received, of one day.

    :param machine: its name in the configuration.
    :param day: the clinic's day.
    :param images: the images acquired on that day; one that is listed twice counts once.
    :param expected: what should exist.
    :param plan_beams: beam numbers of the plan, needed for ``each_beam_once``.
    :param received: UIDs of the images that are held; None when nothing was to be received yet.
    :param owed: images that an earlier try found and that did not come, although no list names them any more. Their
        day is not known, so they are to count for the day that sets the state.
    :raises ConfigurationError: when ``each_beam_once`` is to be judged without the plan's beams.
    """
    found = {image.sop_instance_uid: image for image in images}
    held = len(found) if received is None else len(found.keys() & set(received))
    due = expected.expects(day)
    missing, doubled = _beams(list(found.values()), expected, plan_beams) if due else ((), ())
    wanted = _wanted(expected, plan_beams) if due else 0
    state = _state(len(found), held, owed, due=due, short=bool(missing) or len(found) < wanted)
    return Judgement(
        state=state,
        message=f"{machine}, {day.isoformat()}: "
        + _words(state, len(found), held, wanted, owed, due=due, missing=missing, doubled=doubled),
        day=day,
        found=len(found),
        received=held,
        wanted=wanted,
        missing_beams=missing,
    )


def _wanted(expected: Expectation, plan_beams: Collection[int] | None) -> int:
    return len(set(plan_beams or ())) if expected.each_beam_once else expected.minimum or 1


def _beams(
    images: Sequence[FoundImage], expected: Expectation, plan_beams: Collection[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the beams without an image, and those with several."""
    if not expected.each_beam_once:
        return (), ()
    if not plan_beams:
        raise ConfigurationError(
            "each_beam_once needs the beam numbers of the plan, and there are none",
            hint="Use minimum instead, or look whether the plan's beams came",
        )
    counts = Counter(image.beam_number for image in images)
    beams = sorted(set(plan_beams))
    return tuple(beam for beam in beams if not counts[beam]), tuple(beam for beam in beams if counts[beam] > 1)


def _state(found: int, held: int, owed: int, *, due: bool, short: bool) -> DayState:
    if held < found or owed:
        return DayState.PARTIAL
    if not found:
        return DayState.EMPTY if due else DayState.NOT_EXPECTED
    return DayState.SHORT if short else DayState.COMPLETE


def _words(
    state: DayState,
    found: int,
    held: int,
    wanted: int,
    owed: int,
    *,
    due: bool,
    missing: tuple[int, ...],
    doubled: tuple[int, ...],
) -> str:
    if state is DayState.NOT_EXPECTED:
        return "no images, and none expected on this day"
    if state is DayState.EMPTY:
        return f"no image found, at least {wanted} expected"
    parts = [f"{found} found" + (f", at least {wanted} expected" if due else ", none expected on this day")]
    if held < found:
        parts.append(f"only {held} of them received")
    if owed:
        parts.append(f"{owed} that an earlier try found did not come")
    if missing:
        parts.append("no image of beam " + ", ".join(map(str, missing)))
    if doubled:
        parts.append("several images of beam " + ", ".join(map(str, doubled)))
    return f"{state}: " + "; ".join(parts)
