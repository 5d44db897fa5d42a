"""Side by side: contestants do the same work in turn, round after round, on the same machine at the same time.

One round is not counted: what arrives in it is compared with what was sent. A contestant that fails is out, and its row
says why; the others go on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.arrived import Digests, difference
from benchmarks.proc import Usage
from benchmarks.processes import ContestantError
from benchmarks.results import Goal, Row, Spread, Table
from benchmarks.wire import WireError

_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One contestant's work in one round.

    :param seconds: wall time.
    :param objects: of how many objects, or answers.
    :param size: of all of them, bytes; 0 where it does not matter.
    :param usage: what the contestant's process used.
    :param latencies: seconds of single objects, where they were looked at.
    :param notes: further measures by name, seconds.
    """

    seconds: float
    objects: int
    size: int = 0
    usage: Usage = field(default_factory=Usage)
    latencies: Sequence[float] = ()
    notes: Mapping[str, float] = field(default_factory=dict)

    @property
    def each(self) -> float:
        """Seconds for one."""
        return self.seconds / self.objects


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Somebody who does the work.

    :param name: for the table.
    :param run: does it once.
    :param warm_up: what to do in the round that is not counted, if not the same.
    :param clear: makes ready for a round; not timed.
    :param arrived: looks at what arrived in the last round; ``None``: there is nothing to look at.
    :param ours: whether it is of this project.
    :param goal: what it should reach.
    """

    name: str
    run: Callable[[], Sample]
    warm_up: Callable[[], object] | None = None
    clear: Callable[[], None] = _nothing
    arrived: Callable[[], Digests] | None = None
    ours: bool = False
    goal: Goal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One kind of work.

    :param section: which part of the run it belongs to.
    :param title: what is done, with how much.
    :param short: the same, for those who know the part.
    :param contestants: the reference first.
    :param expected: what should arrive; ``None``: what arrives at the reference.
    :param unit: of what each does so many.
    :param rounds: counted rounds at most; ``None``: as many as asked for.
    :param settle: what to do before each turn, after clearing; not timed.
    """

    section: str
    title: str
    short: str
    contestants: Sequence[Contestant]
    expected: Digests | None = None
    unit: str = "object"
    rounds: int | None = None
    settle: Callable[[], None] = _nothing


def play(contest: Contest, rounds: int, say: Callable[[str], None] = lambda _: None) -> Table:
    """Let the contestants do their work, and return what came of it.

    :param rounds: how many are counted.
    :param say: told of each failure, and of each round.
    """
    match = _Match(contest, say)
    for number in range(min(rounds, contest.rounds or rounds) + 1):
        for contestant in contest.contestants:
            if contestant.name not in match.failures:
                match.turn(contestant, number)
    return Table(
        section=contest.section,
        title=contest.title,
        short=contest.short,
        reference=contest.contestants[0].name,
        unit=contest.unit,
        rows=tuple(match.row(contestant) for contestant in contest.contestants),
    )


class _Match:
    """A contest that is under way."""

    def __init__(self, contest: Contest, say: Callable[[str], None]) -> None:
        self._contest, self._say = contest, say
        self._expected = contest.expected
        self._samples: dict[str, dict[int, Sample]] = {each.name: {} for each in contest.contestants}
        self.failures: dict[str, str] = {}

    def turn(self, contestant: Contestant, number: int) -> None:
        """Let one of them do its work; round 0 is not counted."""
        try:
            contestant.clear()
            self._contest.settle()
            if number == 0:
                (contestant.warm_up or contestant.run)()
            else:
                self._samples[contestant.name][number] = contestant.run()
            # A small warm-up tells nothing of the work itself.
            if number == (1 if contestant.warm_up else 0):
                self._compare(contestant)
        except (ContestantError, WireError, OSError) as error:
            words = str(error).strip() or type(error).__name__
            self._say(f"{self._contest.title}: {contestant.name}: {words}")
            # Of what a process said, the end tells most.
            self.failures[contestant.name] = words.splitlines()[-1]

    def row(self, contestant: Contestant) -> Row:
        """Return what came of one of them."""
        samples = self._samples[contestant.name]
        base = Row(name=contestant.name, ours=contestant.ours, goal=contestant.goal)
        failure = self.failures.get(contestant.name, "")
        if failure or not samples:
            return replace(base, failure=failure or "no round was counted")
        return _measured(base, list(samples.values()), self._ratio(contestant))

    def _compare(self, contestant: Contestant) -> None:
        if contestant.arrived is None:
            return
        arrived = contestant.arrived()
        # The first to come through, which is the reference unless that has failed.
        if self._expected is None:
            self._expected = arrived
        if words := difference(self._expected, arrived):
            raise ContestantError(words)

    def _ratio(self, contestant: Contestant) -> Spread | None:
        reference = self._contest.contestants[0]
        if contestant is reference or reference.name in self.failures:
            return None
        theirs = self._samples[reference.name]
        mine = self._samples[contestant.name]
        ratios = [mine[number].each / theirs[number].each for number in mine if number in theirs]
        return Spread(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def _measured(base: Row, samples: Sequence[Sample], ratio: Spread | None) -> Row:
    cpu, size = sum(each.usage.cpu_seconds for each in samples), sum(each.size for each in samples)
    objects = sum(each.objects for each in samples)
    names = dict.fromkeys(name for each in samples for name in each.notes)
    return replace(
        base,
        rounds=len(samples),
        ratio=ratio,
        milliseconds=1000 * statistics.median(each.each for each in samples),
        p99_ms=1000 * statistics.median(_of_100(each.latencies, 99) for each in samples),
        slowest_ms=1000 * statistics.median(max(each.latencies, default=0.0) for each in samples),
        megabytes_per_second=statistics.median(each.size / each.seconds for each in samples) / 1e6,
        cpu_seconds_per_gb=cpu / (size / _GB) if size else 0.0,
        cpu_milliseconds=1000 * cpu / objects,
        peak_mb=max(each.usage.peak_mb for each in samples),
        growth_mb=max(each.usage.growth_mb for each in samples),
        threads=max(each.usage.threads for each in samples),
        notes={name: statistics.median(each.notes.get(name, 0.0) for each in samples) for name in names},
    )


def _of_100(values: Sequence[float], count: int) -> float:
    """Return what so many of a hundred do not exceed; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * count // 100)] if ordered else 0.0
