"""Sending by C-STORE, to DCMTK's receiver; ours gives an account of each file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import goals, ours, receivers, sender
from benchmarks.archives import Archive
from benchmarks.clients import command, dcmtk, ours_as
from benchmarks.contest import Contest
from benchmarks.load import Load
from benchmarks.ours import Answer, Worker
from benchmarks.receivers import Receiver
from benchmarks.results import Goal, Table
from benchmarks.stage import Stage


def tables(stage: Stage) -> Iterator[Table]:
    """Send to a receiver that answers at once, and to one that leaves Nagle's algorithm on."""
    with ExitStack() as stack:
        worker = stack.enter_context(ours.working(stage.memory))
        quick = stack.enter_context(receivers.storescp(stage.in_memory()))
        halting = stack.enter_context(receivers.storescp(stage.in_memory(), stock=True))
        for kind, study in (("plans", stage.plans), ("slices", stage.slices), ("images", stage.images)):
            yield stage.play(
                _contest(
                    f"{study.name} to storescp", worker, quick, stage.load(study), study.files, goals.SEND.get(kind)
                )
            )
        few = stage.few
        title = f"{few.count} RT Plans to a storescp with Nagle on"
        yield stage.play(_contest(title, worker, halting, few, few.files))


def _contest(
    short: str, worker: Worker, to: Receiver, load: Load, files: tuple[Path, ...], goal: Goal | None = None
) -> Contest:
    storescu = command("storescu", "-R", "-xi", "-aet", sender.CALLING, "-aec", sender.CALLED, "127.0.0.1", to.port,
                       *files)  # fmt: skip
    contestants = [
        dcmtk("storescu", storescu, objects=load.count, size=load.size),
        ours_as(ours.NAME, partial(_store, worker, to, files), objects=load.count, size=load.size, goal=goal),
    ]
    return Contest(
        section="send",
        title=f"C-STORE of {short}",
        short=short,
        contestants=[replace(each, clear=to.clear, arrived=to.arrived) for each in contestants],
        expected=load.digests(),
    )


def _store(worker: Worker, to: Receiver, files: tuple[Path, ...]) -> Answer:
    more: dict[str, Any] = {"id": "00000000-0000-5000-8000-000000000000", "files": [str(path) for path in files]}
    done = worker.do("store", Archive(to.name, to.port), called=sender.CALLED, **more)
    return done.must(outcome="complete")
