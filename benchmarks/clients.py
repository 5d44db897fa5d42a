"""Who asks and sends, as contestants: DCMTK's clients, started anew each time, and our worker."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import arrived, processes
from benchmarks.contest import Contestant, Sample
from benchmarks.ours import Answer
from benchmarks.proc import Usage
from benchmarks.processes import Ended
from benchmarks.results import Goal


class Basket:
    """A folder in which a client puts what it gets.

    :param folder: made here.
    :param pattern: which files below it are objects.
    :param removed: what is removed before each round; ``None``: the objects. A spool stays as it is in real life.
    """

    def __init__(self, folder: Path, pattern: str = "*", *, removed: str | None = None) -> None:
        self.folder, self._pattern, self._removed = folder, pattern, removed or pattern
        folder.mkdir(parents=True)

    def clear(self) -> None:
        """Make ready for a round."""
        for path in list(self.folder.glob(self._removed)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def arrived(self) -> arrived.Digests:
        """Return the digests of what is there."""
        return arrived.in_files(path for path in self.folder.glob(self._pattern) if path.is_file())


def dcmtk(
    name: str,
    run: Callable[[], Ended],
    *,
    objects: int,
    size: int = 0,
    basket: Basket | None = None,
) -> Contestant:
    """Return a client of DCMTK's as a contestant; its time is from the start of its process to the end.

    :param objects: how many it gets, or sends.
    :param size: of them, bytes.
    :param basket: where it puts them.
    """

    def sample() -> Sample:
        ended = run()
        usage = Usage(ended.cpu_seconds, ended.peak_mb, ended.peak_mb, ended.threads)
        return Sample(seconds=ended.seconds, objects=objects, size=size, usage=usage)

    return _contestant(name, sample, basket)


def ours_as(
    name: str,
    run: Callable[[], Answer],
    *,
    objects: int,
    size: int = 0,
    basket: Basket | None = None,
    goal: Goal | None = None,
    notes: Callable[[Answer], Mapping[str, float]] = lambda _: {},
) -> Contestant:
    """Return what our worker does as a contestant; see :func:`dcmtk`.

    :param goal: what it should reach.
    :param notes: further measures, of its answer.
    """

    def sample() -> Sample:
        answer = run()
        return Sample(seconds=answer.seconds, objects=objects, size=size, usage=answer.usage, notes=notes(answer))

    return _contestant(name, sample, basket, ours=True, goal=goal)


def _contestant(
    name: str, run: Callable[[], Sample], basket: Basket | None, *, ours: bool = False, goal: Goal | None = None
) -> Contestant:
    if basket is None:
        return Contestant(name=name, run=run, ours=ours, goal=goal)
    return Contestant(name=name, run=run, clear=basket.clear, arrived=basket.arrived, ours=ours, goal=goal)


def command(*parts: object, stock: bool = False) -> Callable[[], Ended]:
    """Return what runs a client of DCMTK's.

    :param stock: with Nagle's algorithm on, as it is installed.
    """
    environment = processes.STOCK if stock else processes.ENVIRONMENT
    return lambda: processes.run(*map(str, parts), environment=environment)
