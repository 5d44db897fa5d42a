"""Receiving by C-MOVE, like for like: DCMTK's archive sends, DCMTK's client asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from benchmarks import archives, goals, processes, receivers
from benchmarks.archives import ARCHIVE, CLIENT, Archive
from benchmarks.contest import Contest
from benchmarks.data import Study
from benchmarks.receivers import Receiver, Send
from benchmarks.results import Table
from benchmarks.sender import Sent
from benchmarks.stage import Stage, started

_STORESCP: Final = "STORESCP"
_STANDING: Final = "STANDING"
_IN_TASK: Final = "INTASK"


def tables(stage: Stage) -> Iterator[Table]:
    """Let the archive send to each receiver in turn."""
    ports = {title: processes.free_port() for title in (_STORESCP, _STANDING, _IN_TASK)}
    studies = {"plans": stage.plans, "slices": stage.slices, "images": stage.images}
    with ExitStack() as stack:
        here, quick = stage.in_memory, {"durable": False}
        entrants = {
            _STORESCP: started(stack, receivers.STORESCP, receivers.storescp(here(), port=ports[_STORESCP])),
            _STANDING: started(
                stack,
                receivers.STANDING,
                receivers.standing(here(), port=ports[_STANDING], ae_title=_STANDING, **quick),
                ours=True,
            ),
            _IN_TASK: started(
                stack,
                receivers.IN_TASK,
                receivers.in_task(here(), port=ports[_IN_TASK], ae_title=_IN_TASK, **quick),
                ours=True,
            ),
        }
        archive = stack.enter_context(archives.dcmqrscp(stage.on_disk(), list(studies.values()), ports))
        for kind, study in studies.items():
            load, goal = stage.load(study), goals.MOVE.get(kind)
            yield stage.play(
                Contest(
                    section="move",
                    title=f"C-MOVE of {study.name} to us: movescu asks, dcmqrscp sends",
                    short=study.name,
                    contestants=[
                        each.contestant(load, _moving(archive, study, title), goal=goal if each.ours else None)
                        for title, each in entrants.items()
                    ],
                )
            )


def move(archive: Archive, study: Study, title: str) -> processes.Ended:
    """Have a study sent, by DCMTK's client, from the start of its process to the end."""
    return processes.run("movescu", "-S", "-aet", CLIENT, "-aec", ARCHIVE, "-aem", title, *keys(study),
                         "127.0.0.1", str(archive.port))  # fmt: skip


def keys(study: Study) -> list[str]:
    """Return how DCMTK's clients name a study."""
    return ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.uid}"]


def _moving(archive: Archive, study: Study, title: str) -> Send:
    def send(_: Receiver) -> Sent:
        return Sent(move(archive, study, title).seconds, len(study.files))

    return send
