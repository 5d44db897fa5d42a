"""A retrieval end to end: listed, moved, received durably, verified by SHA-256, filed, and accounted for in a manifest.

DCMTK's side of it is ``movescu`` and ``storescp``, which promise nothing of all that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from benchmarks import archives, goals, ours, processes, receivers
from benchmarks.archives import ARCHIVE, Archive
from benchmarks.clients import Basket, ours_as
from benchmarks.contest import Contest, Contestant
from benchmarks.data import Study
from benchmarks.ours import Answer, Worker
from benchmarks.results import Goal, Table
from benchmarks.sections.move import move
from benchmarks.sender import Sent
from benchmarks.stage import Stage, on_the_disk, started

_THEIRS: Final = "movescu + storescp +B"
_OURS: Final = "AIRFLOW"
#: How often the list of instances is asked for before the transfer: once, or until it stands still, as by default.
_ONCE: Final = 1
_UNTIL_STABLE: Final = 3


def tables(stage: Stage) -> Iterator[Table]:
    """Retrieve CT slices, and RT Plans."""
    ports = {title: processes.free_port() for title in ("STORESCP", "DURABLE", _OURS)}
    studies = (stage.slices, stage.plans)
    with ExitStack() as stack:
        storescp = started(stack, _THEIRS, receivers.storescp(stage.on_disk(), name=_THEIRS, port=ports["STORESCP"]))
        # What each object costs until it is there for good, before anybody looks at it.
        durable = started(
            stack,
            receivers.IN_TASK,
            receivers.in_task(stage.on_disk(), durable=True, port=ports["DURABLE"], ae_title="DURABLE"),
            ours=True,
        )
        basket = Basket(stage.on_disk(), "out/*/*/*.dcm", removed="out")
        worker = stack.enter_context(ours.working(stage.memory))
        archive = stack.enter_context(archives.dcmqrscp(stage.on_disk(), studies, ports))
        mine = _Mine(worker, archive, basket, ports[_OURS])
        for study in studies:
            yield stage.play(
                Contest(
                    section="retrieve",
                    title=f"retrieve {study.name} from dcmqrscp, with account and hashes, durable",
                    short=study.name,
                    contestants=[
                        storescp.contestant(
                            stage.load(study), partial(_moved, archive=archive, study=study, title="STORESCP")
                        ),
                        durable.contestant(
                            stage.load(study), partial(_moved, archive=archive, study=study, title="DURABLE")
                        ),
                        mine.contestant("C-MOVE", study, _ONCE, goals.RETRIEVE if study is stage.slices else None),
                        mine.contestant("C-GET", study, _ONCE),
                        mine.contestant("C-MOVE", study, _UNTIL_STABLE),
                    ],
                    settle=on_the_disk,
                )
            )


class _Mine:
    def __init__(self, worker: Worker, archive: Archive, basket: Basket, port: int) -> None:
        self._worker, self._archive, self._basket, self._port = worker, archive, basket, port
        self._numbers = itertools.count(1)

    def contestant(self, verb: str, study: Study, lists: int, goal: Goal | None = None) -> Contestant:
        """Return a retrieval by one method."""
        how = "listed once" if lists == _ONCE else "listed until the list stands still, as by default"
        return ours_as(
            f"by {verb}, {how}",
            partial(self._retrieve, verb.removeprefix("C-").lower(), study, lists),
            objects=len(study.files),
            size=study.bytes,
            basket=self._basket,
            goal=goal,
            notes=lambda answer: answer.facts["timings"],
        )

    def _retrieve(self, method: str, study: Study, lists: int) -> Answer:
        folder = self._basket.folder
        request: dict[str, Any] = {
            "study": study.uid,
            "destination": str(folder / "out"),
            "spool": str(folder / "spool"),
            "id": f"00000000-0000-5000-8000-{next(self._numbers):012d}",
            "method": method,
            "lists": lists,
            "receiver_port": self._port,
        }
        done = self._worker.do("retrieve", self._archive, called=ARCHIVE, calling=_OURS, **request)
        return done.must(outcome="complete", verified=len(study.files))


def _moved(_: receivers.Receiver, *, archive: Archive, study: Study, title: str) -> Sent:
    return Sent(move(archive, study, title).seconds, len(study.files))
