"""When a wait is over: what was answered, judged poll by poll. The same for sensors and triggers.

A criterion returns counts and other facts that name nobody once it is met, and keeps between two polls no more than a
count, a time and a digest. Standard library only.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_varian.errors import (
    AssociationBudgetError,
    ConfigurationError,
    DicomError,
    QuietHoursError,
    ReceiverUnavailableError,
)
from airflow_provider_varian.triggers.asking import EchoAnswer, FindAnswer, ReceivedAnswer

Clock = Callable[[], float]

#: While these last nothing is wrong with the peer, and nothing is to be done: they are waited out.
_NO_FAILURE: Final = (QuietHoursError, AssociationBudgetError)


@dataclass(slots=True)
class Borne:
    """Which errors a wait outlives: transient ones, so many in a row.

    :param most: how many; the next one ends it.
    """

    most: int
    in_a_row: int = 0

    def bears(self, error: DicomError) -> bool:
        """Count an error, and say whether it is waited on all the same."""
        if isinstance(error, _NO_FAILURE):
            return True
        if not error.transient:
            return False
        self.in_a_row += 1
        return self.in_a_row <= self.most

    def clear(self) -> None:
        """Begin to count anew: the peer has answered."""
        self.in_a_row = 0


@dataclass(slots=True)
class Criterion(ABC):
    """Judges the answers, one after the other.

    :param seen: what was seen so far, in words.
    """

    seen: str = field(default="no answer yet", init=False)

    @abstractmethod
    def met(self, answer: Any) -> dict[str, Any] | None:
        """Return the facts, or ``None`` when it is not met yet."""

    def state(self) -> dict[str, Any]:
        """Return what has to be kept between two polls, as JSON; nothing when it goes by the last answer alone."""
        return {}

    def resume(self, state: dict[str, Any]) -> None:  # noqa: B027 - there is nothing to resume by itself
        """Go on from what was kept."""


@dataclass(slots=True)
class EchoCriterion(Criterion):
    """Met by any answer."""

    def met(self, answer: EchoAnswer) -> dict[str, Any] | None:
        """Return the facts."""
        self.seen = "the peer answers"
        return {"seconds": round(answer.seconds, 4)}


@dataclass(slots=True)
class FindCriterion(Criterion):
    """Met by so many answers, and the same ones for a while.

    :param at_least: how many answers.
    :param stable_polls: how many polls in a row have to bring the same answers.
    :param stable_seconds: since when they have been the same, at least.
    :param clock: tells seconds.
    """

    at_least: int = 1
    stable_polls: int = 1
    stable_seconds: float = 0.0
    clock: Clock = time.monotonic
    _digest: str = field(default="", repr=False)
    _since: float = 0.0
    _polls: int = 0

    def __post_init__(self) -> None:
        _check(at_least=self.at_least, stable_polls=self.stable_polls)

    @property
    def needs_all(self) -> bool:
        """Whether all answers are to be compared, or a count is enough."""
        return self.stable_polls > 1 or self.stable_seconds > 0

    def met(self, answer: FindAnswer) -> dict[str, Any] | None:
        """Return the facts, or ``None`` when it is not met yet."""
        if answer.count < self.at_least:
            self.seen, self._digest, self._polls = f"{answer.count} of {self.at_least} answers", "", 0
            return None
        self.seen = _counted(answer.count, "answer")
        if not self.needs_all:
            # Others may have asked for more in the same round.
            return {"count": min(answer.count, self.at_least), "whole": answer.count == self.at_least and answer.whole}
        now = self.clock()
        if self._polls == 0 or answer.digest != self._digest:
            self._digest, self._since, self._polls = answer.digest, now, 0
        self._polls += 1
        for_seconds = now - self._since
        if self._polls >= self.stable_polls and for_seconds >= self.stable_seconds:
            return {"count": answer.count, "whole": answer.whole}
        self.seen = f"{_counted(answer.count, 'answer')}, the same in {_counted(self._polls, 'poll')}"
        return None

    def state(self) -> dict[str, Any]:
        """See :meth:`Criterion.state`."""
        return {"digest": self._digest, "since": self._since, "polls": self._polls}

    def resume(self, state: dict[str, Any]) -> None:
        """See :meth:`Criterion.resume`."""
        if state:
            self._digest, self._since, self._polls = str(state["digest"]), float(state["since"]), int(state["polls"])


@dataclass(slots=True)
class ReceivedCriterion(Criterion):
    """Met by so many objects, of which none is newer than a while.

    :param at_least: how many objects.
    :param quiet_seconds: how long nothing more may have come.
    :param clock: tells seconds since the epoch, by which objects are dated.
    """

    at_least: int = 1
    quiet_seconds: float = 0.0
    clock: Clock = time.time

    def __post_init__(self) -> None:
        _check(at_least=self.at_least)

    def met(self, answer: ReceivedAnswer) -> dict[str, Any] | None:
        """Return the facts, or ``None`` when it is not met yet.

        :raises ReceiverUnavailableError: it is not, and no receiver is running that could bring more.
        """
        if answer.count < self.at_least:
            self.seen = f"{answer.count} of {self.at_least} objects"
            if answer.is_running is False:
                raise ReceiverUnavailableError(
                    f"no receiver is running on the spool that is waited for, and it holds {self.seen}",
                    step="receiver",
                    hint="Start it (varian-dicom receive), or look into its log",
                )
            return None
        if self.quiet_seconds and (answer.is_arriving or self.clock() - answer.newest < self.quiet_seconds):
            self.seen = f"{_counted(answer.count, 'object')}, and not long ago the last"
            return None
        self.seen = _counted(answer.count, "object")
        return {"count": answer.count, "studies": answer.studies, "series": answer.series}


@dataclass(slots=True, kw_only=True)
class _Settling(Criterion):
    """Met by all that is waited for, or when nothing has changed for a while.

    :param quiet_seconds: how long nothing may change.
    :param most_seconds: how long is looked at most, whatever changes.
    :param poll_seconds: how often one looks: between two looks that lie further apart nobody could look, and whether it
        was quiet then is not known.
    :param clock: tells seconds.
    """

    quiet_seconds: float
    most_seconds: float
    poll_seconds: float
    clock: Clock = time.monotonic
    _last: object = field(default=None, repr=False)
    _looked: float | None = None
    _quiet: float = 0.0
    _spent: float = 0.0

    def judged(self, found: object, *, count: int, is_all: bool, is_busy: bool = False) -> dict[str, Any] | None:
        """Return the facts: how many there are, and whether it was waited until nothing changed any more.

        :param found: what there is; anything that is equal when nothing has changed.
        :param count: how many of them.
        :param is_all: that is all that is waited for.
        :param is_busy: more of it is coming at this moment.
        """
        now = self.clock()
        passed = 0.0 if self._looked is None else min(now - self._looked, 2 * self.poll_seconds)
        self._looked = now
        self._spent += passed
        self._quiet = 0.0 if is_busy or found != self._last else self._quiet + passed
        self._last = found
        # The same words as long as nothing changes, so that they are logged once.
        self.seen = f"{_counted(count, 'object')} so far"
        if is_all and not is_busy:
            self.seen = f"{_counted(count, 'object')}, which may be all"
            return {"count": count, "waited_out": False}
        if self._quiet >= self.quiet_seconds or self._spent >= self.most_seconds:
            return {"count": count, "waited_out": True}
        return None


@dataclass(slots=True, kw_only=True)
class LateCriterion(_Settling):
    """Met by as many objects at a standing receiver as are outstanding, or when nothing comes any more.

    :param at_least: how many are outstanding.
    """

    at_least: int

    def met(self, answer: ReceivedAnswer) -> dict[str, Any] | None:
        """Return the facts, or ``None`` when it is not met yet."""
        found = (answer.count, answer.newest)
        is_all = answer.count >= self.at_least
        return self.judged(found, count=answer.count, is_all=is_all, is_busy=answer.is_arriving)


@dataclass(slots=True, kw_only=True)
class ListedCriterion(_Settling):
    """Met by as many instances in each series as should be listed, or when nothing changes any more.

    :param at_least: how many, for each of the questions.
    """

    at_least: tuple[int, ...]

    def met(self, answer: Sequence[FindAnswer]) -> dict[str, Any] | None:
        """Return the facts, or ``None`` when it is not met yet."""
        # Others may have asked for more in the same round.
        found = tuple(min(each.count, most) for each, most in zip(answer, self.at_least, strict=True))
        return self.judged(found, count=sum(found), is_all=found == self.at_least)


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _check(**counts: Any) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigurationError(f"{name} is {count!r}, not a whole number from 1", step="sensor")
