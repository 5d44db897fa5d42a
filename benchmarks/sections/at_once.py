"""Several associations at once, like for like: one process of ours against one of DCMTK's for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks import goals, receivers
from benchmarks.contest import Contest
from benchmarks.load import FilesLoad, Load
from benchmarks.receivers import Receiver, Send
from benchmarks.results import Table
from benchmarks.sender import Sent
from benchmarks.stage import Stage, started

_FORKING: Final = f"{receivers.STORESCP} --fork"
_NUMBERS: Final = (1, 2, 4)


def tables(stage: Stage) -> Iterator[Table]:
    """Receive over 1, 2 and 4 associations; all of them together have the same work to do."""
    with ExitStack() as stack:
        entrants = [
            started(stack, _FORKING, receivers.storescp(stage.in_memory(), name=_FORKING, fork=True)),
            started(stack, receivers.RAW_COPY, receivers.raw_copy(stage.in_memory())),
            started(stack, receivers.STANDING, receivers.standing(stage.in_memory(), durable=False), ours=True),
        ]
        for study in (stage.plans, stage.slices):
            load = stage.load(study)
            for number in _NUMBERS:
                # Nobody has nothing to do.
                loads = [FilesLoad(files) for at in range(number) if (files := study.files[at::number])]
                goal = goals.AT_ONCE.get(number)
                yield stage.play(
                    Contest(
                        section="at-once",
                        title=f"C-STORE of {study.name} to us, {_associations(number)}",
                        short=f"{study.name}, {_associations(number)}",
                        contestants=[
                            each.contestant(load, _sending(loads), goal=goal if each.ours else None)
                            for each in entrants
                        ],
                        expected=load.digests(),
                    )
                )


def _sending(loads: Sequence[Load]) -> Send:
    def send(receiver: Receiver) -> Sent:
        return receiver.sent_at_once(loads)

    return send


def _associations(number: int) -> str:
    return "1 association" if number == 1 else f"{number} associations at once"
