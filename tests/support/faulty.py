"""A clinic with single objects hidden, listed but not to be had, or held up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from pydicom.dataset import Dataset

from airflow_provider_varian.simulator.holdings.tree import Holdings, Node, Search


@dataclass
class Faulty:
    """Holdings with faults, which may be changed while a daemon serves them.

    :param inner: the clinic.
    :param hidden: says of an SOP Instance UID whether it is not there.
    :param broken: says of an SOP Instance UID whether it is listed but cannot be sent; it may take its time.
    """

    inner: Holdings
    hidden: Callable[[str], bool] = field(default=lambda uid: False)
    broken: Callable[[str], bool] = field(default=lambda uid: False)

    def patients(self, wanted: Search) -> Iterator[Node]:
        yield from self._seen(self.inner.patients(wanted))

    def sop_classes(self) -> frozenset[str]:
        return self.inner.sop_classes()

    def _seen(self, nodes: Iterable[Node]) -> Iterator[Node]:
        for node in nodes:
            if node.level == "IMAGE" and self.hidden(node.uid):
                continue
            yield replace(
                node,
                children=lambda node=node: self._seen(node.children()),
                fetch=lambda node=node: self._fetched(node),
            )

    def _fetched(self, node: Node) -> Dataset:
        if self.broken(node.uid):
            raise ValueError("this object cannot be exported")
        return node.fetch()


@dataclass
class Gate:
    """Holds up one object when it is asked for first; to be the ``broken`` or ``hidden`` of :class:`Faulty`.

    :param before: so many others are let through before.
    :ivar asked: how often each object was asked for, in the order of the first time.
    :ivar reached: set when one is held up; no other is from then on.
    :ivar opened: to be set at the end: it lets the object go.
    """

    before: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, uid: str) -> bool:
        with self._lock:
            self.asked[uid] += 1
            if len(self.asked) <= self.before or self.reached.is_set():
                return False
            self.reached.set()
        self.opened.wait(600)
        return False
