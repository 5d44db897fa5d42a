"""C-GET, like for like: what is asked for comes back on the same association, into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import archives, goals, ours
from benchmarks.archives import ARCHIVE, CLIENT, Archive
from benchmarks.clients import Basket, command, dcmtk, ours_as
from benchmarks.contest import Contest, Contestant
from benchmarks.data import Study
from benchmarks.ours import Answer, Worker
from benchmarks.results import Goal, Table
from benchmarks.sections.move import keys
from benchmarks.stage import Stage

GETSCU: Final = "getscu +B"
_STOCK: Final = f"{GETSCU}, Nagle on"


def tables(stage: Stage) -> Iterator[Table]:
    """Get from DCMTK's archive, from one that leaves Nagle's algorithm on, and from prebuilt PDUs."""
    studies = {"plans": stage.plans, "slices": stage.slices, "images": stage.images}
    with ExitStack() as stack:
        theirs, mine = Basket(stage.in_memory()), Basket(stage.in_memory(), "new/*/*.dcm")
        worker = stack.enter_context(ours.working(theirs.folder.parent))

        def pair(archive: Archive, study: Study, goal: Goal | None = None) -> list[Contestant]:
            return [by_getscu(archive, study, theirs), by_ours(worker, archive, study, mine, goal)]

        archive = stack.enter_context(archives.dcmqrscp(stage.on_disk(), list(studies.values()), {}))
        for kind, study in studies.items():
            contestants = pair(archive, study, goals.GET[kind])
            if kind == "images":
                contestants.insert(1, by_getscu(archive, study, theirs, stock=True))
            yield stage.play(_contest(archive, study, contestants))
        halting = stack.enter_context(archives.dcmqrscp(stage.on_disk(), [stage.images], {}, stock=True))
        yield stage.play(_contest(halting, stage.images, pair(halting, stage.images), "dcmqrscp with Nagle on"))
        for kind, study in studies.items():
            # One after the other: each holds its objects in memory.
            with archives.stub(stage.in_memory(), files=study.files) as stub:
                yield stage.play(_contest(stub, study, pair(stub, study, goals.GET[kind])))


def by_getscu(archive: Archive, study: Study, basket: Basket, *, stock: bool = False) -> Contestant:
    """Return DCMTK's client."""
    run = command("getscu", "-S", "+B", "-aet", CLIENT, "-aec", ARCHIVE, "--max-pdu", 131072, "-od", basket.folder,
                  *keys(study), "127.0.0.1", archive.port, stock=stock)  # fmt: skip
    return dcmtk(_STOCK if stock else GETSCU, run, objects=len(study.files), size=study.bytes, basket=basket)


def by_ours(worker: Worker, archive: Archive, study: Study, basket: Basket, goal: Goal | None) -> Contestant:
    """Return ours, into a spool and without fsync."""
    run = partial(_get, worker, archive, study, basket.folder)
    return ours_as(ours.NAME, run, objects=len(study.files), size=study.bytes, basket=basket, goal=goal)


def _get(worker: Worker, archive: Archive, study: Study, spool: Path) -> Answer:
    more: dict[str, Any] = {
        "study": study.uid,
        "sop_classes": [study.sop_class_uid],
        "spool": str(spool),
        "durable": False,
    }
    return worker.do("get", archive, called=ARCHIVE, **more).must(status=0)


def _contest(archive: Archive, study: Study, contestants: Sequence[Contestant], peer: str = "") -> Contest:
    short = f"{study.name} from {peer or archive.name}"
    return Contest(section="get", title=f"C-GET of {short}", short=short, contestants=contestants)
