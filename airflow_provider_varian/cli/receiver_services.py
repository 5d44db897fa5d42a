"""What runs beside a standing receiver, from its options: health and metrics, sweep, publishing, audit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from airflow_provider_varian.cli.arguments import days, port_number
from airflow_provider_varian.cli.receiver_options import read_text
from airflow_provider_varian.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from airflow_provider_varian.receiver.audit import AuditTrail
    from airflow_provider_varian.receiver.audit_sinks import AuditSink
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
    add("--audit-file", metavar="FILE", help="write an audit trail (PS3.15 A.5) to this file, for our user alone")
    add("--audit-syslog", metavar="HOST[:PORT]", help="send it to a syslog server over TLS (RFC 5425) instead")
    add("--audit-ca", metavar="FILE", help="PEM of the syslog server's authority; default: the system's")
    add("--audit-certificate", metavar="FILE", help="PEM of the certificate to show to it, when it wants one")
    add("--audit-private-key", metavar="FILE", help="PEM of its key")


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
        publisher = _publisher(arguments.publish, spool, told)
        made.observers.append(publisher)
        made.services.append(publisher)
        made._troubles.append(publisher.trouble)
        if made._metrics is not None:
            made._metrics.watch_publisher(publisher)
    return made


def _audit(arguments: Namespace, titles: list[str]) -> AuditTrail | None:
    from airflow_provider_varian.receiver.audit import AuditTrail

    if arguments.audit_file is not None and arguments.audit_syslog is not None:
        raise ConfigurationError("--audit-file and --audit-syslog are both given", hint="Choose one of them.")
    for name in ("audit_ca", "audit_certificate", "audit_private_key"):
        if getattr(arguments, name) is not None and arguments.audit_syslog is None:
            raise ConfigurationError(f"{_option(name)} is given without --audit-syslog", hint="It is for that server.")
    if (arguments.audit_certificate is None) != (arguments.audit_private_key is None):
        raise ConfigurationError(
            "--audit-certificate and --audit-private-key are not both given", hint="A certificate needs its key."
        )
    sink = _audit_sink(arguments)
    return None if sink is None else AuditTrail(sink, ae_titles=titles)


def _audit_sink(arguments: Namespace) -> AuditSink | None:
    from airflow_provider_varian.dimse.peer import TlsSettings
    from airflow_provider_varian.receiver.audit_sinks import SYSLOG_TLS_PORT, AuditFile, AuditSyslog

    if arguments.audit_file is not None:
        return AuditFile(arguments.audit_file)
    if arguments.audit_syslog is None:
        return None
    host, port = _server(arguments.audit_syslog, SYSLOG_TLS_PORT)
    options = ("audit_ca", "audit_certificate", "audit_private_key")
    authority, certificate, key = (
        "" if (path := getattr(arguments, name)) is None else read_text(path, _option(name)) for name in options
    )
    settings = TlsSettings(ca_certificate=authority, certificate=certificate, private_key=key)
    try:
        return AuditSyslog(host, port, settings)
    except ConfigurationError as error:
        if "tls_ca_certificate" in error.what:
            raise ConfigurationError("--audit-ca is not a certificate", hint="Name a PEM file.") from None
        raise ConfigurationError(
            "--audit-certificate and --audit-private-key do not fit together or cannot be read", hint="Name PEM files."
        ) from None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _server(text: str, default_port: int) -> tuple[str, int]:
    """Return ``HOST`` or ``HOST:PORT`` as host and port; an IPv6 address with a port stands in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.startswith("[")):
        return text.removeprefix("[").removesuffix("]"), default_port
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"--audit-syslog: {text!r} is not HOST:PORT", hint="E.g. logs.example.org:6514.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _publisher(uri: str, spool: Spool, observer: UpkeepObserver) -> Publisher:
    from airflow_provider_varian.receiver.publishing import Publisher
    from airflow_provider_varian.retrieval.destination import Destination

    return Publisher(spool, Destination(uri), observer=observer)
