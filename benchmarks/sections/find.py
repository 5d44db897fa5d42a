"""C-FIND: few answers and many, from prebuilt PDUs; ours are mappings with decoded text, filtered again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final

from benchmarks import archives, find_answers, goals, ours
from benchmarks.archives import ARCHIVE, CLIENT, Archive
from benchmarks.clients import command, dcmtk, ours_as
from benchmarks.contest import Contest
from benchmarks.ours import Answer, Worker
from benchmarks.processes import Ended
from benchmarks.results import Table
from benchmarks.stage import Stage

_FEW: Final = 10


def tables(stage: Stage) -> Iterator[Table]:
    """Ask each over an association of its own."""
    with ExitStack() as stack:
        worker = stack.enter_context(ours.working(stage.memory))
        for count, goal in ((_FEW, goals.FIND_FEW), (stage.sizes.answers, goals.FIND_MANY)):
            with archives.stub(stage.in_memory(), answers=count) as stub:
                yield stage.play(
                    Contest(
                        section="find",
                        title=f"C-FIND with {count} answers",
                        short=f"{count} answers",
                        unit="answer",
                        contestants=[
                            dcmtk("findscu", partial(_findscu, stub, stock=False), objects=count),
                            dcmtk("findscu, Nagle on", partial(_findscu, stub, stock=True), objects=count),
                            ours_as(ours.NAME, partial(_find, worker, stub, count), objects=count, goal=goal),
                        ],
                    )
                )


def _findscu(stub: Archive, *, stock: bool) -> Ended:
    keys = [part for keyword in find_answers.KEYWORDS for part in ("-k", keyword)]
    return command("findscu", "-q", "-S", "-aet", CLIENT, "-aec", ARCHIVE, "-k", "QueryRetrieveLevel=STUDY", *keys,
                   "127.0.0.1", stub.port, stock=stock)()  # fmt: skip


def _find(worker: Worker, stub: Archive, count: int) -> Answer:
    done = worker.do("find", stub, called=ARCHIVE)
    # Each time: an answer that is lost would make it faster.
    return done.must(count=count, fingerprint=find_answers.expected(count))
