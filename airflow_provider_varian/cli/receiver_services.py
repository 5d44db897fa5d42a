"""What runs beside a standing receiver, from its options: health and metrics, sweep, publishing, audit."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from airflow_provider_varian.cli.arguments import days, port_number, positive
from airflow_provider_varian.cli.audit_options import add_audit_arguments, audit_sink

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from airflow_provider_varian.receiver.audit import AuditTrail
    from airflow_provider_varian.receiver.metrics import Metrics
    from airflow_provider_varian.receiver.observer import Observer
    from airflow_provider_varian.receiver.publishing import Publisher
    from airflow_provider_varian.receiver.spool import Spool
    from airflow_provider_varian.receiver.standing import ReceiverSettings, Service, StandingReceiver
    from airflow_provider_varian.receiver.upkeep import UpkeepObserver

_SECONDS_OF_A_DAY: Final = 86400.0


def add_service_arguments(parser: ArgumentParser) -> None:
    """Add the options of what runs beside the receiver."""
    group = parser.add_argument_group("beside it")
    add = group.add_argument
    add(
        "--health-port",
        type=port_number,
        metavar="PORT",
        help="serve /healthz, /readyz and /metrics (Prometheus) over HTTP, 0 for a free port; default: not at all",
    )
    add("--health-host", default="127.0.0.1", metavar="ADDRESS", help="where to serve them; default: %(default)s")
    add(
        "--retention-days",
        type=days,
        default=14.0,
        metavar="N",
        help="remove what nobody has claimed for so long, 0 for never; default: %(default)g",
    )
    add("--publish", metavar="URI", help="also copy what comes to a store that workers elsewhere read, e.g. s3://b/p")
    add(
        "--publish-threads",
        type=positive,
        default=4,
        metavar="N",
        help="how many objects at once, 10 at most, to a folder or object store (others get one); default: %(default)s",
    )
    add_audit_arguments(group)


@dataclass(slots=True)
class Services:
    """What runs beside a receiver.

    :param observers: are told what the receiver does.
    :param services: run from before it listens until it has ended.
    """

    observers: list[Observer] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    _metrics: Metrics | None = None
    _troubles: list[Callable[[], str | None]] = field(default_factory=list)
    _health: tuple[str, int] | None = None

    def probes(self, receiver: StandingReceiver) -> list[Service]:
        """Return what tells others how the receiver is."""
        from airflow_provider_varian.receiver.health import HealthServer
        from airflow_provider_varian.receiver.readiness import Readiness

        if self._health is None or self._metrics is None:
            return []
        readiness = Readiness(
            receiver.spool,
            listening=lambda: receiver.is_listening,
            draining=lambda: receiver.is_draining,
            min_free_bytes=receiver.limits.min_free_bytes,
            degraded=self._troubles,
        )
        host, port = self._health
        return [HealthServer(readiness, self._metrics.registry, host=host, port=port)]


def services_from_arguments(arguments: Namespace, settings: ReceiverSettings) -> Services:
    """Make what the options ask for; nothing is started.

    :param arguments: parsed options of :func:`add_service_arguments`.
    :param settings: of the receiver.
    :raises ConfigurationError: an option or a file is wrong.
    :raises ReceiverUnavailableError: when the spool cannot be used.
    """
    from airflow_provider_varian.receiver.metrics import Metrics
    from airflow_provider_varian.receiver.spool import Spool
    from airflow_provider_varian.receiver.sweep import Sweeper
    from airflow_provider_varian.receiver.upkeep import upkeep_observers

    spool = Spool(settings.spool)
    titles = [entry.ae_title for entry in settings.entries]
    theirs = [title for entry in settings.entries for title in entry.calling_ae_titles]
    made = Services()
    upkeep: list[UpkeepObserver] = []
    if (trail := _audit(arguments, titles)) is not None:
        made.observers.append(trail)
        made.services.append(trail)
        made._troubles.append(trail.trouble)
        upkeep.append(trail)
    if arguments.health_port is not None:
        made._health = (arguments.health_host, arguments.health_port)
        made._metrics = Metrics(ae_titles=[*titles, *theirs], spool=spool)
        made.observers.append(made._metrics)
        upkeep.append(made._metrics)
        if trail is not None:
            made._metrics.watch_audit(trail)
    told = upkeep_observers(*upkeep)
    sweeper = Sweeper(spool, retention_seconds=arguments.retention_days * _SECONDS_OF_A_DAY, observer=told)
    made.services.append(sweeper)
    made._troubles.append(sweeper.trouble)
    if arguments.publish is not None:
        publisher = _publisher(arguments.publish, spool, told, threads=arguments.publish_threads)
        made.observers.append(publisher)
        made.services.append(publisher)
        made._troubles.append(publisher.trouble)
        if made._metrics is not None:
            made._metrics.watch_publisher(publisher)
    return made


def _audit(arguments: Namespace, titles: list[str]) -> AuditTrail | None:
    from airflow_provider_varian.receiver.audit import AuditTrail

    sink = audit_sink(arguments)
    return None if sink is None else AuditTrail(sink, ae_titles=titles)


def _publisher(uri: str, spool: Spool, observer: UpkeepObserver, *, threads: int) -> Publisher:
    from airflow_provider_varian.receiver.publishing import Publisher
    from airflow_provider_varian.retrieval.destination import Destination
    from airflow_provider_varian.retrieval.remote_writers import ATOMIC_PROTOCOLS

    protocol, _, path = uri.partition("://")
    # The clients of others (SFTP, FTP) are for one thread.
    is_for_several = not path or protocol in {"file", "local", *ATOMIC_PROTOCOLS}
    again = functools.partial(Destination, uri) if is_for_several else None
    return Publisher(spool, Destination(uri), observer=observer, again=again, threads=threads)
