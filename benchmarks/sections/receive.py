"""Receiving by C-STORE, like for like: in memory, nobody waits for a disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import goals, processes, receivers, sender
from benchmarks.contest import Contest
from benchmarks.data import Study
from benchmarks.load import Load
from benchmarks.receivers import Receiver, Send
from benchmarks.results import Table
from benchmarks.sender import Sent
from benchmarks.stage import Absent, Stage, started

_SECTION: Final = "receive"
_STOCK: Final = f"{receivers.STORESCP}, Nagle on"
#: With Nagle's algorithm on each object takes 40 ms, however small.
_FEW: Final = 10


def tables(stage: Stage) -> Iterator[Table]:
    """Receive from prebuilt PDUs, from storescu, and from senders that leave Nagle's algorithm on."""
    with ExitStack() as stack:
        dcmtk = started(stack, receivers.STORESCP, receivers.storescp(stage.in_memory()))
        stock = started(stack, _STOCK, receivers.storescp(stage.in_memory(), name=_STOCK, stock=True))
        copy = started(stack, receivers.RAW_COPY, receivers.raw_copy(stage.in_memory()))
        plain = started(stack, receivers.PLAIN, receivers.plain_pynetdicom(stage.in_memory()))
        ours = like_for_like(stack, stage)
        for kind, study in studies(stage).items():
            load = stage.load(study)
            yield stage.play(
                Contest(
                    section=_SECTION,
                    title=f"C-STORE of {study.name} to us, prebuilt PDUs",
                    short=study.name,
                    contestants=[
                        dcmtk.contestant(load),
                        stock.contestant(load, limit=_FEW),
                        copy.contestant(load),
                        *(each.contestant(load, goal=goals.RECEIVE[kind]) for each in ours),
                        plain.contestant(load),
                    ],
                    expected=load.digests(),
                )
            )
        yield from _from_storescu(stage, dcmtk, ours)
        yield _from_halting(stage, dcmtk, ours)


def studies(stage: Stage) -> Mapping[str, Study]:
    """Return what is received, by its name in the goals."""
    return {"plans": stage.plans, "slices": stage.slices, "images": stage.images, "dose": stage.dose}


def like_for_like(stack: ExitStack, stage: Stage) -> list[Receiver | Absent]:
    """Start our receivers, both ways, without fsync and in memory."""
    return [
        started(stack, receivers.STANDING, receivers.standing(stage.in_memory(), durable=False), ours=True),
        started(stack, receivers.IN_TASK, receivers.in_task(stage.in_memory(), durable=False), ours=True),
    ]


def _from_storescu(stage: Stage, dcmtk: Receiver | Absent, ours: list[Receiver | Absent]) -> Iterator[Table]:
    for study in (stage.plans, stage.slices):
        load = stage.load(study)
        send = partial(by_storescu, files=study.files)
        yield stage.play(
            Contest(
                section=_SECTION,
                title=f"C-STORE of {study.name} to us by storescu",
                short=f"{study.name} by storescu",
                contestants=[each.contestant(load, send) for each in (dcmtk, *ours)],
                expected=load.digests(),
            )
        )
    few = stage.few
    yield stage.play(
        Contest(
            section=_SECTION,
            title=f"C-STORE of {few.count} RT Plans to us by a storescu with Nagle on",
            short=f"{few.count} RT Plans by storescu, Nagle on",
            contestants=[
                each.contestant(few, partial(by_storescu, files=few.files, stock=True)) for each in (dcmtk, *ours)
            ],
            expected=few.digests(),
        )
    )


def _from_halting(stage: Stage, dcmtk: Receiver | Absent, ours: list[Receiver | Absent]) -> Table:
    few = stage.few
    return stage.play(
        Contest(
            section=_SECTION,
            title=f"C-STORE of {few.count} RT Plans to us, prebuilt PDUs, Nagle on",
            short=f"{few.count} RT Plans, Nagle on",
            contestants=[
                dcmtk.contestant(few, _halting(few)),
                *(each.contestant(few, _halting(few), goal=goals.SLOWEST) for each in ours),
            ],
            expected=few.digests(),
        )
    )


def _halting(load: Load) -> Send:
    return lambda receiver: sender.send(receiver.port, load, halting=True)


def by_storescu(receiver: Receiver, *, files: tuple[Path, ...], stock: bool = False) -> Sent:
    """Send files by DCMTK's sender, from the start of its process to the end."""
    command = ["storescu", "-R", "-xi", "-aet", sender.CALLING, "-aec", sender.CALLED, "127.0.0.1", str(receiver.port)]
    environment = processes.STOCK if stock else processes.ENVIRONMENT
    return Sent(processes.run(*command, *map(str, files), environment=environment).seconds, len(files))
