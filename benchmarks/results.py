"""What came of a run, as data: it is written as JSON, and tables and picture are made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Measure = Literal["ratio", "growth_mb", "slowest_ms"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a contestant should reach.

    :param bound: no more than this.
    :param measure: of what: its time over the reference's, megabytes of memory that it grew by, or milliseconds until
        its slowest answer.
    """

    bound: float
    measure: Measure = "ratio"

    def text(self) -> str:
        """Return it in words."""
        return {"ratio": "≤ {}", "growth_mb": "≤ {} MB", "slowest_ms": "≤ {} ms"}[self.measure].format(
            f"{self.bound:g}"
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """Values of several rounds."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contestant in one contest. Times are for one object, or one answer.

    :param name: of the contestant.
    :param failure: what went wrong, and what is missing for it; empty when nothing did.
    :param ours: whether it is of this project.
    :param goal: what it should reach; ``None``: it is reported, no more.
    :param rounds: how many were counted.
    :param ratio: its time over the reference's in the same round; ``None`` for the reference, and without one.
    :param milliseconds: median of the time.
    :param p99_ms: median of what 99 of 100 answers took at most; 0 where answers were not timed one by one.
    :param slowest_ms: median of the slowest answer; likewise.
    :param megabytes_per_second: 0 where nothing of size is moved.
    :param cpu_seconds_per_gb: processor time; 0 where nothing of size is moved.
    :param cpu_milliseconds: processor time.
    :param peak_mb: largest resident memory.
    :param growth_mb: by how much it grew in a round, at most.
    :param threads: most at a time, those of child processes too.
    :param notes: further measures by name, seconds.
    """

    name: str
    failure: str = ""
    ours: bool = False
    goal: Goal | None = None
    rounds: int = 0
    ratio: Spread | None = None
    milliseconds: float = 0.0
    p99_ms: float = 0.0
    slowest_ms: float = 0.0
    megabytes_per_second: float = 0.0
    cpu_seconds_per_gb: float = 0.0
    cpu_milliseconds: float = 0.0
    peak_mb: float = 0.0
    growth_mb: float = 0.0
    threads: int = 0
    notes: Mapping[str, float] = field(default_factory=dict)

    @property
    def reached(self) -> float | None:
        """What is held against the goal; ``None`` when it was not measured."""
        if self.goal is None or self.failure or not self.rounds:
            return None
        if self.goal.measure == "ratio":
            return self.ratio.median if self.ratio else None
        return self.growth_mb if self.goal.measure == "growth_mb" else self.slowest_ms

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        reached = self.reached
        return self.goal is not None and reached is not None and reached <= self.goal.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A contest that is over.

    :param section: which part of the run it belongs to.
    :param title: what was done, with how much.
    :param short: the same, for those who know the part.
    :param reference: the contestant that ratios are over.
    :param unit: of what there were so many: ``object`` or ``answer``.
    :param rows: the contestants, the reference first.
    """

    section: str
    title: str
    short: str
    reference: str
    unit: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run.

    :param machine: what it ran on, by name.
    :param settings: how it ran, by name.
    :param whole: whether it was all of it, at full size.
    :param tables: the contests.
    :param failures: parts that came to no result, and why.
    """

    machine: Mapping[str, str]
    settings: Mapping[str, str]
    whole: bool
    tables: tuple[Table, ...]
    failures: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return what :meth:`to_json` wrote."""
        data = json.loads(text)
        tables = tuple(Table(**each | {"rows": tuple(map(_row, each["rows"]))}) for each in data["tables"])
        return cls(**data | {"tables": tables, "failures": tuple(data["failures"])})

    @classmethod
    def read(cls, path: Path) -> Report:
        """Return what was written to a file."""
        return cls.from_json(path.read_text(encoding="utf-8"))


def _row(data: Mapping[str, Any]) -> Row:
    goal, ratio = data["goal"], data["ratio"]
    return Row(**{**data, "goal": goal and Goal(**goal), "ratio": ratio and Spread(**ratio)})
