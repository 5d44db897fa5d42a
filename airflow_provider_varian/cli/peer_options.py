"""From options to a :class:`~airflow_provider_varian.dimse.peer.Peer`.

Every option ends as a field of the connection table, so that the command line and an Airflow
connection are validated by the same function and mean the same.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.cli.files import read_text
from airflow_provider_varian.connection_fields import FIELDS_BY_KEY
from airflow_provider_varian.errors import ConfigurationError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from airflow_provider_varian.dimse.peer import Peer

_TLS_FILES: Final = ("tls_ca_certificate", "tls_certificate", "tls_private_key")
# Kinds whose values are long or secret: secrets on a command line are seen by every user of the machine.
_FROM_FILE_ONLY: Final = ("text", "password")
_FROM_FILE: Final = (*_FROM_FILE_ONLY, "object")
# Fields that have an option of their own.
_OPTIONS: Final = {
    "called_ae_title": "the AET of --peer",
    "calling_ae_title": "--calling",
    **{key: "--" + key.replace("_", "-") for key in _TLS_FILES},
}
# In a sentence, "profile" or "receiver" may be just a word.
_FIELD_NAME: Final = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")


@dataclass(slots=True)
class _Settings:
    """A connection's parts, before they are validated."""

    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)


def add_peer_arguments(parser: ArgumentParser) -> None:
    """Add the options that say who the peer is and how to talk to it."""
    group = parser.add_argument_group("peer")
    who = group.add_mutually_exclusive_group(required=True)
    who.add_argument("--peer", metavar="AET@HOST:PORT", help="the peer, e.g. VMSDBD@aria-db:51402; IPv6 in brackets")
    who.add_argument("--conn", metavar="ID", help="an Airflow connection of type dicom")
    group.add_argument("--calling", metavar="AET", help="our AE title, as entered under Trusted Application Entities")
    group.add_argument("--profile", choices=FIELDS_BY_KEY["profile"].choices, help="habits of the peer to allow for")
    group.add_argument("--login", metavar="NAME", help="user identity to send; leave it out for ARIA")
    group.add_argument("--password-file", metavar="FILE", help="file with the passcode of the user identity")
    group.add_argument("--tls", action="store_true", help="TLS 1.2 or later, the peer verified")
    group.add_argument("--tls-ca-certificate", metavar="FILE", help="PEM of the authority that signed the peer's")
    group.add_argument("--tls-certificate", metavar="FILE", help="PEM of our certificate")
    group.add_argument("--tls-private-key", metavar="FILE", help="PEM of its key")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="FIELD=VALUE",
        help="any other field of the connection, e.g. dimse_timeout=300; FIELD=@FILE reads it from a file",
    )


def peer_from_arguments(arguments: Namespace, **overrides: Any) -> Peer:
    """Return the peer that the options describe.

    Options override the fields of an Airflow connection.

    :param arguments: parsed options of :func:`add_peer_arguments`.
    :param overrides: connection fields that other options of the verb set; ``None`` sets nothing.
    :raises ConfigurationError: an option, a file or a field is wrong.
    """
    from airflow_provider_varian.dimse.peer import peer_from_connection

    settings = _from_connection(arguments.conn) if arguments.conn else _from_address(arguments.peer)
    if arguments.login is not None:
        settings.login = arguments.login
    if arguments.password_file is not None:
        settings.password = read_text(arguments.password_file, "--password-file").rstrip("\r\n")
    settings.extra |= dict(_typed_field(text) for text in arguments.settings)
    settings.extra |= _named_options(arguments)
    settings.extra |= {key: value for key, value in overrides.items() if value is not None}
    return peer_from_connection(
        host=settings.host,
        port=settings.port,
        login=settings.login,
        password=settings.password,
        extra=settings.extra,
    )


def as_options(text: str) -> str:
    """Say how the fields of a connection that a text names are given beside ``--peer``; empty when it names none.

    :param text: of an error, which speaks of a connection's fields.
    """
    named = dict.fromkeys(name for name in _FIELD_NAME.findall(text) if name in FIELDS_BY_KEY)
    return ", ".join(f"{name} is {_OPTIONS.get(name, f'--set {name}=...')}" for name in named)


def peer_beside(*, address: str | None, conn_id: str | None, calling: str | None) -> Peer:
    """Return another peer than the one that :func:`peer_from_arguments` describes.

    :param address: ``AET@host:port``; a peer of the generic profile then, without TLS.
    :param conn_id: an Airflow connection instead.
    :param calling: our AE title for an address; ``None``: the default.
    :raises ConfigurationError: an address, a connection or a field is wrong.
    """
    from airflow_provider_varian.dimse.peer import peer_from_connection

    settings = _from_connection(conn_id) if conn_id else _from_address(address or "")
    if not conn_id:
        settings.extra |= {"profile": "generic"} | ({"calling_ae_title": calling} if calling else {})
    return peer_from_connection(
        host=settings.host,
        port=settings.port,
        login=settings.login,
        password=settings.password,
        extra=settings.extra,
    )


def _named_options(arguments: Namespace) -> dict[str, Any]:
    named: dict[str, Any] = {"calling_ae_title": arguments.calling, "profile": arguments.profile}
    for key in _TLS_FILES:
        path = getattr(arguments, key)
        named[key] = None if path is None else read_text(path, "--" + key.replace("_", "-"))
    if arguments.tls:
        named["tls"] = True
    return {key: value for key, value in named.items() if value is not None}


def _typed_field(text: str) -> tuple[str, Any]:
    """Return one ``--set FIELD=VALUE`` as a field's key and its text, which is validated with all the others."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals:
        raise ConfigurationError("--set needs FIELD=VALUE", hint="For example: --set dimse_timeout=300.")
    kind = FIELDS_BY_KEY[key].kind if key in FIELDS_BY_KEY else ""
    if value.startswith("@") and kind in _FROM_FILE:
        value = read_text(value[1:], f"--set {key}")
        # An editor ends a file with a newline; no password does.
        value = value.rstrip("\r\n") if kind == "password" else value
    elif kind in _FROM_FILE_ONLY:
        raise ConfigurationError(
            f"--set {key} takes its value from a file, not from the command line",
            hint=f"Write --set {key}=@FILE.",
        )
    return key, value


def _from_address(address: str) -> _Settings:
    from airflow_provider_varian.dimse.peer import parse_peer_address

    ae_title, host, port = parse_peer_address(address)
    return _Settings(host=host, port=port, extra={"called_ae_title": ae_title})


def _from_connection(conn_id: str) -> _Settings:
    # Some versions of Airflow log to standard output, which belongs to the verb's result.
    with redirect_stdout(sys.stderr):
        return _looked_up(conn_id)


def _looked_up(conn_id: str) -> _Settings:
    from airflow_provider_varian.dimse.peer import connection_parts

    try:
        from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
    except ImportError:
        raise ConfigurationError(
            "--conn needs Airflow, which is not installed in this Python",
            hint="Name the peer by --peer AET@HOST:PORT instead.",
        ) from None
    # What Airflow's own command line sets before it looks up a connection: without it, connections
    # that are kept in the metadata database are not seen outside a task.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"Airflow has no connection {conn_id!r}", hint="See the names by: airflow connections list."
        ) from None
    return _Settings(**connection_parts(conn_id, connection))
