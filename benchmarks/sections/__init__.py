"""The parts of a run, in their order; each sets up its contestants and yields a table after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from benchmarks.results import Table
from benchmarks.sections import at_once, durable, find, get, memory, move, receive, retrieve, send
from benchmarks.stage import Stage

Section = Callable[[Stage], Iterator[Table]]

SECTIONS: Final[Mapping[str, Section]] = {
    "receive": receive.tables,
    "durable": durable.tables,
    "at-once": at_once.tables,
    "move": move.tables,
    "get": get.tables,
    "retrieve": retrieve.tables,
    "find": find.tables,
    "send": send.tables,
    "memory": memory.tables,
}
