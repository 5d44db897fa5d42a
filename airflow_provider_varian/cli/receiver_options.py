"""From the options of ``varian-dicom receive`` to the settings of a standing receiver.

Who may send is said for each AE title: ``--allow-from``, ``--allow-calling`` and ``--allow-any`` belong to the
``--ae-title`` before them, and those before the first one to all.
"""

from __future__ import annotations

from argparse import Action
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.cli.arguments import ae_title, network, port_number, positive, seconds, size
from airflow_provider_varian.cli.files import read_text
from airflow_provider_varian.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.dimse.peer import TlsSettings
    from airflow_provider_varian.receiver.admission import Entry
    from airflow_provider_varian.receiver.limits import Limits
    from airflow_provider_varian.receiver.standing import ReceiverSettings

#: What a connection calls itself when nothing else is typed, and so what a peer's trusted entity is mostly called.
DEFAULT_AE_TITLE: Final = "AIRFLOW"


@dataclass(slots=True)
class _Scope:
    """What was typed after one ``--ae-title``, or before the first."""

    title: str | None = None
    networks: list[Any] = field(default_factory=list)
    calling: list[str] = field(default_factory=list)
    anybody: bool = False


class _Scoped(Action):
    """Puts an option's value where it belongs: to the ``--ae-title`` before it."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None) -> None:
        scopes: list[_Scope] = getattr(namespace, "scopes", None) or [_Scope()]
        namespace.scopes = scopes
        if self.dest == "ae_title":
            scopes.append(_Scope(title=values))
        elif self.dest == "allow_from":
            scopes[-1].networks += values
        elif self.dest == "allow_calling":
            scopes[-1].calling += values
        else:
            scopes[-1].anybody = True


def add_receiver_arguments(parser: ArgumentParser) -> None:
    """Add the options that say who may send, where to, and how much."""
    _add_who(parser)
    add = parser.add_argument
    add("--spool", required=True, type=Path, metavar="DIR", help="folder for what is received, on a local disk")
    add("--host", default="", metavar="ADDRESS", help="address to listen on; default: all interfaces")
    add("--port", type=port_number, default=11112, help="port to listen on, 0 for a free one; default: %(default)s")
    add(
        "--drain-seconds",
        type=seconds,
        default=30.0,
        metavar="N",
        help="how long associations may go on after SIGTERM or Ctrl-C; default: %(default)g",
    )
    add(
        "--durability",
        choices=("fsync", "none"),
        default="fsync",
        help="none: acknowledge before it is on the disk, for benchmarks and scratch use only; default: %(default)s",
    )
    _add_tls(parser)
    _add_limits(parser)


def _add_who(parser: ArgumentParser) -> None:
    group = parser.add_argument_group(
        "who may send",
        "The lists belong to the --ae-title before them; those before the first one belong to all.\n"
        "Without --allow-from or --allow-any nobody may, unless it listens on this machine alone\n"
        "(--host 127.0.0.1).",
    )
    group.add_argument(
        "--ae-title",
        action=_Scoped,
        type=ae_title,
        metavar="AET",
        help=f"our AE title; repeatable; default: {DEFAULT_AE_TITLE}",
    )
    group.add_argument(
        "--allow-from",
        action=_Scoped,
        type=network,
        nargs="+",
        metavar="CIDR",
        help="addresses or networks that may send, e.g. 10.1.0.0/16; repeatable",
    )
    group.add_argument(
        "--allow-calling",
        action=_Scoped,
        type=ae_title,
        nargs="+",
        metavar="AET",
        help="AE titles that may call; repeatable; default: any, since a title is a claim and no proof",
    )
    group.add_argument("--allow-any", action=_Scoped, nargs=0, help="everybody who reaches the port may send")


def _add_tls(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("TLS", "1.2 or later, as soon as a certificate is given.")
    group.add_argument("--tls-certificate", metavar="FILE", help="PEM of our certificate, and of those between it and "
                       "its authority")  # fmt: skip
    group.add_argument("--tls-private-key", metavar="FILE", help="PEM of its key")
    group.add_argument("--tls-private-key-password-file", metavar="FILE", help="file with the password of the key")
    group.add_argument("--tls-ca", metavar="FILE", help="PEM of the authority whose certificates may send; without it "
                       "no certificate is asked for")  # fmt: skip


def _add_limits(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("limits", "SIZE: a number of bytes, or 512K, 64M, 8G.")
    add = group.add_argument
    for option, what in _COUNTS.items():
        add(option, type=positive, metavar="N", help=what)
    for option, what in _WAITS.items():
        add(option, type=seconds, metavar="SECONDS", help=what)
    add("--max-pdu", type=size, default=131072, metavar="SIZE", help="longest P-DATA-TF to announce; default: 128K")
    for option, what in _SIZES.items():
        add(option, type=size, metavar="SIZE", help=what)


_COUNTS: Final = {
    "--max-connections": "connections at once, from when they are accepted; default: 64",
    "--max-connections-per-source": "of one address; default: 32",
    "--max-associations": "associations at once; default: 10",
    "--max-associations-per-source": "of one address; default: 8",
    "--association-objects": "objects that one association may bring; default: any number",
    "--hourly-objects": "objects that one address may bring in an hour; default: any number",
}
_WAITS: Final = {
    "--handshake-seconds": "for the TLS handshake; default: 10",
    "--association-seconds": "from the connection to the request for an association; default: 30",
    "--read-seconds": "for the rest of what has begun to come; default: 60",
    "--idle-seconds": "that an association may be silent between two messages; default: 120",
}
_SIZES: Final = {
    "--max-object": "largest object that is taken; default: 8G",
    "--min-free": "free space of the spool's file system below which objects are refused, 0 for none; default: 1G",
    "--association-bytes": "that one association may bring; default: any number",
    "--hourly-bytes": "that one address may bring in an hour; default: any number",
}


def settings_from_arguments(arguments: Namespace) -> ReceiverSettings:
    """Return the settings that the options describe.

    :param arguments: parsed options of :func:`add_receiver_arguments`.
    :raises ConfigurationError: an option or a file is wrong.
    """
    from airflow_provider_varian.receiver.standing import ReceiverSettings

    return ReceiverSettings(
        spool=arguments.spool,
        entries=_entries(getattr(arguments, "scopes", None) or [_Scope()]),
        host=arguments.host.removeprefix("[").removesuffix("]"),
        port=arguments.port,
        tls=_tls(arguments),
        limits=_limits(arguments),
        max_pdu=arguments.max_pdu,
        durable=arguments.durability != "none",
        drain_seconds=arguments.drain_seconds,
    )


def _entries(scopes: list[_Scope]) -> tuple[Entry, ...]:
    from airflow_provider_varian.receiver.admission import ANYBODY, Entry

    for_all, *each = scopes
    entries = []
    for scope in each or [_Scope(title=DEFAULT_AE_TITLE)]:
        networks = for_all.networks + scope.networks
        anybody = for_all.anybody or scope.anybody
        if anybody and networks:
            raise ConfigurationError(
                f"--allow-any and --allow-from are both given for {scope.title!r}",
                hint="Leave one of them out: with --allow-any everybody may send.",
            )
        entries.append(
            Entry(
                ae_title=scope.title or DEFAULT_AE_TITLE,
                networks=ANYBODY if anybody else tuple(dict.fromkeys(networks)),
                calling_ae_titles=frozenset(for_all.calling + scope.calling),
            )
        )
    return tuple(entries)


def _tls(arguments: Namespace) -> TlsSettings | None:
    from airflow_provider_varian.dimse.peer import TlsSettings

    options = ("tls_certificate", "tls_private_key", "tls_private_key_password_file", "tls_ca")
    given = {name: getattr(arguments, name) for name in options if getattr(arguments, name) is not None}
    if not given:
        return None
    for name in ("tls_certificate", "tls_private_key"):
        if name not in given:
            raise ConfigurationError(
                f"{_option(name)} is missing, although {_option(next(iter(given)))} is given",
                hint="TLS needs a certificate and its key.",
            )
    texts = {name: read_text(path, _option(name)) for name, path in given.items()}
    return TlsSettings(
        certificate=texts["tls_certificate"],
        private_key=texts["tls_private_key"],
        private_key_password=texts.get("tls_private_key_password_file", "").rstrip("\r\n"),
        ca_certificate=texts.get("tls_ca", ""),
    )


def _limits(arguments: Namespace) -> Limits:
    from airflow_provider_varian.dimse.bounds import Bounds
    from airflow_provider_varian.receiver.limits import Limits

    return Limits(
        **_given(
            connections=arguments.max_connections,
            connections_per_source=arguments.max_connections_per_source,
            associations=arguments.max_associations,
            associations_per_source=arguments.max_associations_per_source,
            handshake_seconds=_above_zero(arguments.handshake_seconds, "--handshake-seconds"),
            idle_seconds=_above_zero(arguments.idle_seconds, "--idle-seconds"),
            min_free_bytes=arguments.min_free,
            objects_per_association=arguments.association_objects,
            bytes_per_association=arguments.association_bytes,
            objects_per_source_hour=arguments.hourly_objects,
            bytes_per_source_hour=arguments.hourly_bytes,
        ),
        bounds=Bounds(
            **_given(
                association_seconds=_above_zero(arguments.association_seconds, "--association-seconds"),
                read_seconds=_above_zero(arguments.read_seconds, "--read-seconds"),
                object_bytes=_above_zero(arguments.max_object, "--max-object"),
            )
        ),
    )


def _given(**values: Any) -> dict[str, Any]:
    """Leave out what was not typed: the defaults are those of the settings themselves."""
    return {name: value for name, value in values.items() if value is not None}


def _above_zero(value: float | None, option: str) -> float | None:
    if value is not None and value <= 0:
        raise ConfigurationError(f"{option} has to be more than 0", hint="Leave it out for the default.")
    return value


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
