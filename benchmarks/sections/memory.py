"""Memory: one object of 1 GB, 20,000 small ones over one association, many associations; nothing may stay."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from benchmarks import archives, goals, ours, receivers
from benchmarks.clients import Basket
from benchmarks.contest import Contest, Contestant
from benchmarks.load import CopiesLoad, FilesLoad, Load
from benchmarks.receivers import Receiver, Send
from benchmarks.results import Table
from benchmarks.sections.get import by_getscu, by_ours
from benchmarks.sender import Sent
from benchmarks.stage import Absent, Stage, started

#: What a receiver has got before its memory is looked at.
_BEFORE: Final = 100
#: Each takes seconds, and memory does not vary.
_ROUNDS: Final = 3


def tables(stage: Stage) -> Iterator[Table]:
    """Receive, and get, on a disk, without fsync on either side."""
    giant, many = stage.load(stage.giant), CopiesLoad(stage.plans.files[0], stage.sizes.many)
    before = FilesLoad(stage.plans.files[:_BEFORE])
    with ExitStack() as stack:
        entrants = [
            started(stack, receivers.STORESCP, receivers.storescp(stage.on_disk())),
            started(stack, receivers.STANDING, receivers.standing(stage.on_disk(), durable=False), ours=True),
            started(stack, receivers.IN_TASK, receivers.in_task(stage.on_disk(), durable=False), ours=True),
        ]
        for title, load in (
            (f"C-STORE of {many.count} RT Plans to us over one association", many),
            (f"C-STORE of {stage.giant.name} to us, {_gigabytes(giant)}", giant),
        ):
            yield stage.play(
                Contest(
                    section="memory",
                    title=title,
                    short=title,
                    contestants=[_after(each, load, before) for each in entrants],
                    expected=load.digests(),
                    rounds=_ROUNDS,
                )
            )
        yield stage.play(_many_associations(stage, entrants, before))
    with ExitStack() as stack:
        theirs, mine = Basket(stage.on_disk()), Basket(stage.on_disk(), "new/*/*.dcm")
        worker = stack.enter_context(ours.working(stage.memory))
        archive = stack.enter_context(archives.dcmqrscp(stage.on_disk(), [stage.giant, stage.plans], {}))
        getting = by_ours(worker, archive, stage.giant, mine, goals.GROWTH)
        title = f"C-GET of {stage.giant.name} from dcmqrscp, {_gigabytes(giant)}"
        yield stage.play(
            Contest(
                section="memory",
                title=title,
                short=title,
                contestants=[
                    by_getscu(archive, stage.giant, theirs),
                    replace(getting, warm_up=by_ours(worker, archive, stage.plans, mine, None).run),
                ],
                rounds=_ROUNDS,
            )
        )


def _many_associations(stage: Stage, entrants: list[Receiver | Absent], before: Load) -> Contest:
    load = CopiesLoad(stage.plans.files[0], stage.sizes.associations)
    title = f"{load.count} associations to us one after the other, an RT Plan each"

    def send(receiver: Receiver) -> Sent:
        start = time.perf_counter()
        for number in range(load.count):
            # Unlike elsewhere, asking for the association and ending it is part of the time.
            receiver.sent(load.part(number))
        return Sent(time.perf_counter() - start, load.count)

    return Contest(
        section="memory",
        title=title,
        short=title,
        contestants=[_after(each, load, before, send) for each in entrants],
        expected=load.digests(),
        rounds=_ROUNDS,
    )


def _after(each: Receiver | Absent, load: Load, before: Load, send: Send | None = None) -> Contestant:
    contestant = each.contestant(load, send, goal=goals.GROWTH if each.ours else None)
    return replace(contestant, warm_up=partial(each.sent, before)) if isinstance(each, Receiver) else contestant


def _gigabytes(load: Load) -> str:
    return f"{load.size / 1e9:.2f} GB"
