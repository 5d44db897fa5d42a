"""Receiving on a real disk: each object is there for good before its sender is told so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from benchmarks import goals, receivers
from benchmarks.contest import Contest
from benchmarks.results import Table
from benchmarks.sections.receive import studies
from benchmarks.stage import Stage, on_the_disk, started

_UNPROMISING: Final = f"{receivers.STORESCP}, no fsync"


def tables(stage: Stage) -> Iterator[Table]:
    """Receive as we do by default, against a raw copy that does what it takes, and nothing more."""
    with ExitStack() as stack:
        entrants = [
            started(stack, f"{receivers.RAW_COPY}, durable", receivers.raw_copy(stage.on_disk(), durable=True)),
            started(stack, receivers.STANDING, receivers.standing(stage.on_disk(), durable=True), ours=True),
            started(stack, receivers.IN_TASK, receivers.in_task(stage.on_disk(), durable=True), ours=True),
            started(stack, _UNPROMISING, receivers.storescp(stage.on_disk(), name=_UNPROMISING)),
        ]
        for kind, study in studies(stage).items():
            load = stage.load(study)
            yield stage.play(
                Contest(
                    section="durable",
                    title=f"C-STORE of {study.name} to us, durable, prebuilt PDUs",
                    short=study.name,
                    contestants=[
                        each.contestant(load, goal=goals.DURABLE[kind] if each.ours else None) for each in entrants
                    ],
                    expected=load.digests(),
                    settle=on_the_disk,
                )
            )
