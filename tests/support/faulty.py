"""A clinic with single objects hidden, or listed but not to be had."""

from __future__ import annotations

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
