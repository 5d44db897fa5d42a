"""The options of the audit trail: of the receiver, and of the verbs that ask, bring and send."""

from __future__ import annotations

import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from airflow_provider_varian.cli.files import read_text
from airflow_provider_varian.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ArgumentGroup
    from collections.abc import Iterator

    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.receiver.audit_sinks import AuditSink
    from airflow_provider_varian.retrieval.trail import WorkTrail


def add_trail_arguments(parser: ArgumentParser) -> None:
    """Add the options of the trail to a verb that asks, brings or sends."""
    group = parser.add_argument_group(
        "audit trail", "Off by default; with --conn what Airflow's configuration says ([varian] audit)."
    )
    add_audit_arguments(group)


def add_audit_arguments(group: _ArgumentGroup) -> None:
    """Add the options that say where an audit trail goes."""
    add = group.add_argument
    add("--audit-file", metavar="FILE", help="write an audit trail (PS3.15 A.5) to this file, for our user alone")
    add("--audit-syslog", metavar="HOST[:PORT]", help="send it to a syslog server over TLS (RFC 5425) instead")
    add("--audit-ca", metavar="FILE", help="PEM of the syslog server's authority; default: the system's")
    add("--audit-certificate", metavar="FILE", help="PEM of the certificate to show to it, when it wants one")
    add("--audit-private-key", metavar="FILE", help="PEM of its key")


def audit_sink(arguments: Namespace) -> AuditSink | None:
    """Return where the trail goes; ``None`` when there is to be none.

    :param arguments: parsed options of :func:`add_audit_arguments`.
    :raises ConfigurationError: when options or files do not fit.
    """
    from airflow_provider_varian.receiver.audit_sinks import SYSLOG_TLS_PORT, AuditFile, AuditSyslog

    _check(arguments)
    if arguments.audit_file is not None:
        return AuditFile(arguments.audit_file)
    if arguments.audit_syslog is None:
        return None
    from airflow_provider_varian.dimse.peer import TlsSettings

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


@contextmanager
def work_trail(arguments: Namespace, peer: Peer) -> Iterator[WorkTrail | None]:
    """Open the trail of one command: the one that was typed, else with ``--conn`` the one that Airflow has.

    :param arguments: parsed options of :func:`add_trail_arguments`, and of the peer.
    :param peer: with whom the work is done.
    :raises ConfigurationError: when it cannot be used.
    """
    sink = audit_sink(arguments)
    if sink is not None:
        from airflow_provider_varian.receiver.audit_xml import Us
        from airflow_provider_varian.retrieval.trail import WorkTrail
        from airflow_provider_varian.retrieval.trail_messages import Requestor, system_user

        try:
            yield WorkTrail(sink, Requestor(user_id=system_user()), us=Us(ae_titles=(peer.calling_ae_title,)))
        finally:
            sink.close()
    elif arguments.conn:
        # As for a connection: standard output belongs to the verb's result.
        with redirect_stdout(sys.stderr):
            from airflow_provider_varian.hooks import audit
        with audit.work_trail(peer) as trail:
            yield trail
    else:
        yield None


def _check(arguments: Namespace) -> None:
    if arguments.audit_file is not None and arguments.audit_syslog is not None:
        raise ConfigurationError("--audit-file and --audit-syslog are both given", hint="Choose one of them.")
    for name in ("audit_ca", "audit_certificate", "audit_private_key"):
        if getattr(arguments, name) is not None and arguments.audit_syslog is None:
            raise ConfigurationError(f"{_option(name)} is given without --audit-syslog", hint="It is for that server.")
    if (arguments.audit_certificate is None) != (arguments.audit_private_key is None):
        raise ConfigurationError(
            "--audit-certificate and --audit-private-key are not both given", hint="A certificate needs its key."
        )


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
