"""Images that are not there yet: a series that grows, and late ones (quirks 10 and 14).

Time counts from when a series was first looked into, so that a rehearsal sees it whatever the hour is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.holdings.attributes import element_of, tag_of
from airflow_provider_varian.simulator.holdings.tree import Holdings, Node, Search


class Arrivals:
    """Remembers when each series was first looked into.

    :param clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: dict[str, float] = {}
        self._lock = threading.Lock()

    def age(self, series_uid: str) -> float:
        """Return the seconds since then."""
        now = self._clock()
        with self._lock:
            return now - self._first.setdefault(series_uid, now)


def same_rules(behaviour: Behaviour, other: Behaviour) -> bool:
    """Say whether images arrive alike under two behaviours, so that time goes on from one to the other."""
    return _rules(behaviour) == _rules(other)


def _rules(behaviour: Behaviour) -> tuple[float, ...]:
    return behaviour.acquisition_seconds, behaviour.late_images, behaviour.late_images_seconds


def as_arrived(holdings: Holdings, behaviour: Behaviour, arrivals: Arrivals) -> Holdings:
    """Return the holdings as they are by now."""
    if not behaviour.acquisition_seconds and not behaviour.late_images:
        return holdings
    return _Arrived(holdings, behaviour, arrivals)


@dataclass(frozen=True, slots=True)
class _Arrived:
    inner: Holdings
    behaviour: Behaviour
    arrivals: Arrivals

    def patients(self, wanted: Search) -> Iterator[Node]:
        yield from self._seen(self.inner.patients(wanted))

    def sop_classes(self) -> frozenset[str]:
        return self.inner.sop_classes()

    def _seen(self, nodes: Iterable[Node]) -> Iterator[Node]:
        for node in nodes:
            if node.level is not Level.SERIES:
                yield replace(node, children=partial(self._below, node))
            else:
                yield replace(node, children=partial(self._there, node)) if _is_image_series(node) else node

    def _below(self, node: Node) -> Iterator[Node]:
        return self._seen(node.children())

    def _there(self, series: Node) -> list[Node]:
        images = list(series.children())
        age = self.arrivals.age(series.uid)
        there = len(images)
        if age < self.behaviour.late_images_seconds:
            there = max(there - self.behaviour.late_images, 0)
        if age < self.behaviour.acquisition_seconds:
            there = min(there, 1 + int((len(images) - 1) * age / self.behaviour.acquisition_seconds))
        return images[:there]


def _is_image_series(series: Node) -> bool:
    modality = element_of(series.values(), tag_of("Modality"))
    return modality is not None and modality.value == "RTIMAGE"
