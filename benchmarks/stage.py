"""What the parts of a run share: folders in memory and on a disk, the objects, and who is told what goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks import data
from benchmarks.contest import Contest, Contestant, Sample, play
from benchmarks.data import Sizes, Study
from benchmarks.load import FilesLoad, Load, of_study
from benchmarks.processes import ContestantError
from benchmarks.receivers import Receiver, Send
from benchmarks.results import Goal, Table


@dataclass
class Stage:
    """A run.

    :param memory: a folder in memory, for what is compared without a disk.
    :param disk: a folder on a disk.
    :param sizes: how much of everything there is.
    :param rounds: how many are counted.
    :param say: told what goes on, a line at a time.
    """

    memory: Path
    disk: Path
    sizes: Sizes
    rounds: int
    say: Callable[[str], None]
    _folders: int = field(default=0, init=False)

    def in_memory(self) -> Path:
        """Return the path of a new folder in memory; whoever takes it makes it."""
        return self._new(self.memory)

    def on_disk(self) -> Path:
        """Return the path of a new folder on the disk; whoever takes it makes it."""
        return self._new(self.disk)

    def play(self, contest: Contest) -> Table:
        """Hold a contest."""
        self.say(contest.title)
        return play(contest, self.rounds, self.say)

    @cached_property
    def plans(self) -> Study:
        """RT Plans of 20 KB."""
        return data.rt_plans(self._made(), self.sizes.plans)

    @cached_property
    def slices(self) -> Study:
        """CT slices of 0.5 MB."""
        return data.ct_slices(self._made(), self.sizes.slices)

    @cached_property
    def images(self) -> Study:
        """RT Images of 3.3 MB."""
        return data.rt_images(self._made(), self.sizes.images)

    @cached_property
    def dose(self) -> Study:
        """One RT Dose of 60 MB."""
        return data.rt_dose(self._made(), self.sizes.dose_frames)

    @cached_property
    def giant(self) -> Study:
        """One RT Dose of 1 GB."""
        return data.rt_dose(self._made(), self.sizes.giant_frames, number=5)

    @cached_property
    def few(self) -> FilesLoad:
        """Some RT Plans: what a peer sends that takes its time over each."""
        return FilesLoad(self.plans.files[:10])

    def load(self, study: Study) -> Load:
        """Return the objects of a study, read once."""
        if study.uid not in self._loads:
            self._loads[study.uid] = of_study(study)
        return self._loads[study.uid]

    @cached_property
    def _loads(self) -> dict[str, Load]:
        return {}

    def _made(self) -> Path:
        folder = self.on_disk()
        folder.mkdir()
        return folder

    def _new(self, top: Path) -> Path:
        self._folders += 1
        return top / str(self._folders)


@dataclass(frozen=True, slots=True)
class Absent:
    """A receiver that did not start: its row says why.

    :param name: for tables.
    :param reason: what it said.
    """

    name: str
    reason: str
    ours: bool

    def contestant(
        self, load: Load, send: Send | None = None, *, limit: int | None = None, goal: Goal | None = None
    ) -> Contestant:
        """Return it as a contestant that fails."""
        return failing(self.name, self.reason, ours=self.ours, goal=goal)


def failing(name: str, reason: str, *, ours: bool, goal: Goal | None = None) -> Contestant:
    """Return a contestant that fails at once."""

    def run() -> Sample:
        raise ContestantError(reason)

    return Contestant(name=name, run=run, ours=ours, goal=goal)


def started(
    stack: ExitStack, name: str, opening: AbstractContextManager[Receiver], *, ours: bool = False
) -> Receiver | Absent:
    """Start a receiver for as long as a stack is open."""
    try:
        return stack.enter_context(opening)
    except (ContestantError, OSError) as error:
        return Absent(name, str(error), ours)


def on_the_disk() -> None:
    """Wait until what was written and removed before is on the disk, so that nobody pays for others."""
    os.sync()
