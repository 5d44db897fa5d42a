"""What we want to reach: the numbers that this project set itself, by section and by what is moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.results import Goal

#: Receiving, neither side waiting for a disk, against DCMTK's storescp.
RECEIVE: Final[Mapping[str, Goal]] = {
    "plans": Goal(1.0),
    "slices": Goal(0.95),
    "images": Goal(0.9),
    "dose": Goal(0.9),
}
#: Receiving with everything on the disk before it is acknowledged, against a raw copy that does the same.
DURABLE: Final[Mapping[str, Goal]] = {
    "plans": Goal(1.3),
    "slices": Goal(1.15),
    "images": Goal(1.15),
    "dose": Goal(1.15),
}
#: Several associations at once, like for like, by their number.
AT_ONCE: Final[Mapping[int, Goal]] = {4: Goal(1.1)}
#: A C-MOVE of CT slices to us, like for like.
MOVE: Final[Mapping[str, Goal]] = {"slices": Goal(1.2)}
GET: Final[Mapping[str, Goal]] = {"plans": Goal(1.0), "slices": Goal(1.0), "images": Goal(1.0)}
#: A retrieval with its account, everything durable, against movescu and storescp, which promise nothing.
RETRIEVE: Final = Goal(2.0)
#: Few answers, many answers.
FIND_FEW: Final = Goal(0.2)
FIND_MANY: Final = Goal(1.5)
SEND: Final[Mapping[str, Goal]] = {"plans": Goal(1.5), "slices": Goal(1.5)}
#: No message waits for Nagle's algorithm at the peer.
SLOWEST: Final = Goal(5.0, "slowest_ms")
#: Neither one large object, nor many of them, nor many associations stay in memory.
GROWTH: Final = Goal(16.0, "growth_mb")
