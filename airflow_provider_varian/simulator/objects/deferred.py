"""Attributes of which the laborious ones wait until somebody looks at them.

A C-FIND asks for a handful of keywords of many objects; contours and control points are then never made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Deferred(Mapping[str, Any]):
    """A mapping by keyword with values that are there and values that are made when looked at, once.

    ``mapping | deferred`` and ``deferred | mapping`` stay deferred; ``{**deferred}`` makes everything.

    :param ready: values that cost nothing.
    :param makers: what makes the others, by keyword.
    """

    def __init__(self, ready: Mapping[str, Any], makers: Mapping[str, Callable[[], Any]]) -> None:
        self._ready = dict(ready)
        self._makers = dict(makers)

    def __getitem__(self, keyword: str) -> Any:
        maker = self._makers.get(keyword)
        if maker is not None:
            self._ready[keyword] = maker()
            # Two threads may have made it; both made the same.
            self._makers.pop(keyword, None)
        return self._ready[keyword]

    def __contains__(self, keyword: object) -> bool:
        # Mapping's own would make the value to see whether it is there.
        return keyword in self._ready or keyword in self._makers

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys((*self._ready, *self._makers))

    def __len__(self) -> int:
        return len(self._ready.keys() | self._makers.keys())

    def __or__(self, other: Mapping[str, Any]) -> Deferred:
        return _joined(self, other)

    def __ror__(self, other: Mapping[str, Any]) -> Deferred:
        return _joined(other, self)


def _joined(left: Mapping[str, Any], right: Mapping[str, Any]) -> Deferred:
    ready: dict[str, Any] = {}
    makers: dict[str, Callable[[], Any]] = {}
    for part in (left, right):
        waiting = part._makers if isinstance(part, Deferred) else {}
        for keyword in part:
            ready.pop(keyword, None)
            makers.pop(keyword, None)
            if keyword in waiting:
                makers[keyword] = waiting[keyword]
            else:
                ready[keyword] = part[keyword]
    return Deferred(ready, makers)
