"""What a receiver does, in numbers that Prometheus reads.

No label has a value that a stranger could make up: AE titles are told when they are configured, all others are
``other``, and addresses are told nowhere. What lies in the spool is counted when it is asked for (:mod:`.census`).
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import airflow_provider_varian
from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.receiver.census import Census
from airflow_provider_varian.receiver.observer import AssociationFacts, Ending, Observer, Refusal
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.upkeep import Removed, UpkeepObserver

logger = logging.getLogger(__name__)

_PREFIX: Final = "dicom_receiver"
_OTHER: Final = "other"
#: Statuses that a receiver of ours answers (PS3.4 B.2.3, PS3.7 C); whatever else comes is counted as one.
_STATUSES: Final = (0x0110, 0x0117, 0x0122, 0x0124, 0x0210, 0x0211, 0xA700, 0xA900, 0xC000)
#: Seconds per object: a small one on a disk, an image, a dose over a slow line, and what is wrong.
_SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


class PublishesObjects(Protocol):
    """What is told of a publisher."""

    @property
    def backlog(self) -> int:
        """How many objects wait to be published."""

    @property
    def troubled(self) -> bool:
        """Whether the store did not take the last object."""


class KeepsTrail(Protocol):
    """What is told of an audit trail."""

    @property
    def written(self) -> int:
        """How many messages were written."""

    @property
    def dropped(self) -> int:
        """How many events were lost because there was no room for them."""

    @property
    def failures(self) -> int:
        """How often writing failed."""


class Metrics(Observer, UpkeepObserver):
    """Counts what it is told of; a few microseconds for each object.

    :param registry: where the metrics are registered; a new one when there is none.
    :param ae_titles: the AE titles that are configured, ours and others': these alone become labels.
    :param spool: the spool whose contents are told.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        ae_titles: Iterable[str] = (),
        spool: Spool | None = None,
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self._titles = frozenset(title.strip() for title in ae_titles)
        self._connections_open = self._gauge("connections_open", "Connections that are open.")
        self._connections = self._counter("connections", "Connections that were made.")
        self._refusals = self._counter("refusals", "Connections and associations that were refused.", "reason")
        self._associations_open = self._gauge("associations_open", "Associations that are open.")
        self._associations = self._counter("associations", "Associations that were accepted.", "calling", "called")
        self._ended = self._counter("associations_ended", "Associations that ended.", "how")
        self._objects = self._counter("objects", "Objects that were stored.", "calling", "called")
        self._bytes = self._counter("object_bytes", "Bytes of the data sets that were stored.", "calling", "called")
        self._not_stored = self._counter("objects_not_stored", "Objects that were not stored.", "status")
        self._seconds = Histogram(
            f"{_PREFIX}_object_seconds",
            "Seconds from the command of an object to its durable file.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._swept = self._counter("swept_objects", "Objects that were removed because nobody claimed them.")
        self._published = self._counter("published_objects", "Objects that were brought to the store.")
        self._published_bytes = self._counter("published_bytes", "Bytes of the files that were brought to the store.")
        self._publish_failures = self._counter("publish_failures", "Attempts to publish that failed.", "reason")
        Info(f"{_PREFIX}_build", "Which program this is.", registry=self.registry).info(
            {"version": airflow_provider_varian.__version__, "python": platform.python_version()}
        )
        # The children of a pair of titles, so that no look-up by name happens for each object.
        self._stored_of: dict[tuple[str, str], tuple[Counter, Counter]] = {}
        # There from the start: an alert on what never happened yet needs a zero to begin from.
        for reason in Refusal:
            self._refusals.labels(reason.value)
        for how in Ending:
            self._ended.labels(how.value)
        for status in ("none", _OTHER, *(f"0x{status:04X}" for status in _STATUSES)):
            self._not_stored.labels(status)
        for failed in ("store", "spool"):
            self._publish_failures.labels(failed)
        # Memory, open files, CPU and start of the process, under their usual names.
        ProcessCollector(registry=self.registry)
        if spool is not None:
            self.registry.register(_SpoolCollector(spool))

    def connected(self, source: str) -> None:
        """Count a connection."""
        self._connections.inc()
        self._connections_open.inc()

    def disconnected(self, source: str) -> None:
        """Count the end of a connection."""
        self._connections_open.dec()

    def refused(self, source: str, reason: Refusal) -> None:
        """Count a refusal by its reason."""
        self._refusals.labels(str(reason)).inc()

    def associated(self, facts: AssociationFacts) -> None:
        """Count an association."""
        self._associations.labels(*self._labels(facts)).inc()
        self._associations_open.inc()

    def ended(self, facts: AssociationFacts, how: Ending) -> None:
        """Count the end of an association."""
        self._ended.labels(str(how)).inc()
        self._associations_open.dec()

    def stored(
        self, facts: AssociationFacts, request: StoreRequest, size: int, seconds: float, study_instance_uid: str = ""
    ) -> None:
        """Count an object and its bytes."""
        titles = self._labels(facts)
        counters = self._stored_of.get(titles)
        if counters is None:
            counters = self._stored_of[titles] = (self._objects.labels(*titles), self._bytes.labels(*titles))
        counters[0].inc()
        counters[1].inc(size)
        self._seconds.observe(seconds)

    def not_stored(self, facts: AssociationFacts, request: StoreRequest, status: int | None, reason: str) -> None:
        """Count an object that was not stored by what was answered, ``none`` when nobody was there any more."""
        answered = "none" if status is None else f"0x{status:04X}" if status in _STATUSES else _OTHER
        self._not_stored.labels(answered).inc()

    def removed(self, item: Removed) -> None:
        """Count what was swept."""
        self._swept.inc()

    def published(self, name: str, size: int, seconds: float) -> None:
        """Count what was published."""
        self._published.inc()
        self._published_bytes.inc(size)

    def publish_failed(self, reason: str) -> None:
        """Count a failure, by who did not do what it should."""
        self._publish_failures.labels(reason).inc()

    def watch_publisher(self, publisher: PublishesObjects) -> None:
        """Tell how much waits to be published, and whether the store is in trouble."""
        backlog = self._gauge("publish_backlog_objects", "Objects that wait to be published.")
        backlog.set_function(lambda: publisher.backlog)
        troubled = self._gauge("publish_troubled", "1 while the store does not take objects.")
        troubled.set_function(lambda: publisher.troubled)

    def watch_audit(self, trail: KeepsTrail) -> None:
        """Tell how the audit trail fares."""
        self.registry.register(_TrailCollector(trail))

    def _labels(self, facts: AssociationFacts) -> tuple[str, str]:
        calling, called = facts.calling_ae_title, facts.called_ae_title
        return (calling if calling in self._titles else _OTHER, called if called in self._titles else _OTHER)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, registry=self.registry)


def exposition(registry: CollectorRegistry) -> bytes:
    """Return all metrics as text (version 0.0.4).

    Without the time at which each of them began: that is the start of the process, which is told once.
    """
    return generate_latest(_WithoutCreated(registry))


class _WithoutCreated(CollectorRegistry):
    """A registry of which what ends in ``_created`` is not seen."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._whole = registry

    def collect(self) -> Iterator[Metric]:
        """Collect the others."""
        for metric in self._whole.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _SpoolCollector(Collector):
    """What lies in the spool at the moment of asking."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._census = Census(spool)

    def describe(self) -> Iterator[Metric]:
        """Name nothing: a registry would count the spool once only to learn the names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Count; a spool that cannot be read is left out, and readiness says why."""
        try:
            free, found = self._spool.free_bytes(), self._census.count()
        except OSError as error:
            logger.warning("Metrics: the spool cannot be looked at: %s", error.strerror or type(error).__name__)
            return
        yield _told("spool_free_bytes", "Bytes that the spool's file system has left.", free)
        yield _told("spool_unclaimed_objects", "Objects that nobody has claimed.", found.unclaimed)
        yield _told(
            "spool_oldest_unclaimed_seconds",
            "Seconds since the oldest of them was written; 0 when there is none.",
            found.oldest_seconds,
        )
        yield _told("spool_claimed_objects", "Objects that retrievals have claimed and not let go of.", found.claimed)
        yield _told(
            "spool_oldest_claim_seconds",
            "Seconds since the oldest claim that holds one of them was last changed; 0 when there is none.",
            found.oldest_claimed_seconds,
        )
        yield _told("spool_broken_objects", "Files that were set aside because they are no data set.", found.broken)
        yield _told("spool_counted_whole", "0 when there was too much in the spool to count it in time.", found.whole)


class _TrailCollector(Collector):
    """How the audit trail fares at the moment of asking."""

    def __init__(self, trail: KeepsTrail) -> None:
        self._trail = trail

    def collect(self) -> Iterator[Metric]:
        """Tell its counters."""
        for name, text, value in (
            ("audit_messages", "Audit messages that were written.", self._trail.written),
            ("audit_dropped_events", "Events that are not in the audit trail, for want of room.", self._trail.dropped),
            ("audit_failures", "Attempts to write audit messages that failed.", self._trail.failures),
        ):
            yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=value)


def _told(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=value)
