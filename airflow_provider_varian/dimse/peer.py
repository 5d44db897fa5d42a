"""Who the peer is and how to talk to it: a connection's settings, validated once.

:func:`peer_from_connection` is the only way from an Airflow connection, or from the options of the
command line, to a :class:`Peer`. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_varian.connection_fields import CONNECTION_TYPE, FIELDS_BY_KEY
from airflow_provider_varian.dimse import settings
from airflow_provider_varian.errors import ConfigurationError

_TLS_KEYS: Final = (
    "tls_server_name",
    "tls_ca_certificate",
    "tls_certificate",
    "tls_private_key",
    "tls_private_key_password",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """How to secure the connection: TLS 1.2 or later, the peer verified (semantics 21).

    :param server_name: name in the peer's certificate, when the host is an address; empty: the host.
    :param ca_certificate: PEM text of the authority; empty: the system's authorities.
    :param certificate: PEM text of our certificate, shown to the peer and by an in-task receiver.
    :param private_key: PEM text of its key.
    :param private_key_password: password of the key; empty when it has none.
    """

    server_name: str = ""
    ca_certificate: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    private_key_password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """User Identity Negotiation (PS3.7 D.3.3.7): type 1 with a login alone, type 2 with a passcode."""

    login: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A remote Application Entity and what we know of it (design 5 lists the meanings).

    ``move_destination`` is the calling AE title when none is given. Times are seconds, ``max_pdu``
    bytes. ``quiet_hours`` maps ``"daily"`` or a weekday to tuples of ``"HH:MM-HH:MM"``.
    ``deferred_as`` is no setting of a connection: it is the name by which somebody else can wait for the peer, who is
    asked to (:mod:`airflow_provider_varian.waiting`); empty: whoever comes to a long wait waits himself.
    """

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str = "AIRFLOW"
    move_destination: str = ""
    receiver_host: str = ""
    receiver_port: int | None = None
    receiver: str | None = None
    information_model: str = "auto"
    retrieve_method: str = "auto"
    profile: str = "aria"
    profile_overrides: Mapping[str, Any] = field(default_factory=dict)
    timezone: str | None = None
    quiet_hours: Mapping[str, tuple[str, ...]] | None = None
    max_associations: int = 2
    request_pause_seconds: float = 0.0
    connect_timeout: float = 10.0
    acse_timeout: float = 30.0
    dimse_timeout: float = 120.0
    network_timeout: float = 120.0
    retrieve_deadline: float = 3600.0
    max_pdu: int = 131072
    allow_store: bool = False
    assume_character_set: str | None = None
    tls: TlsSettings | None = None
    user_identity: UserIdentity | None = None
    require_user_identity: bool = False
    deferred_as: str = ""

    def __post_init__(self) -> None:
        if not self.move_destination:
            object.__setattr__(self, "move_destination", self.calling_ae_title)

    @property
    def name(self) -> str:
        """The peer as messages name it: ``VMSDBD@host:port``, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.called_ae_title}@{host}:{self.port}"


def peer_from_connection(
    *,
    host: str | None,
    port: int | None,
    login: str | None = None,
    password: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Peer:
    """Validate the settings of a connection and return the peer they describe.

    :param host: name or address of the peer.
    :param port: TCP port of the peer.
    :param login: user identity; refused for profile ``aria`` unless ``profile_overrides`` says
        ``{"user_identity": true}`` (semantics 22).
    :param password: passcode of the user identity; refused without TLS.
    :param extra: values by the keys of :data:`~airflow_provider_varian.connection_fields.FIELDS_BY_KEY`;
        ``None`` means absent. Numbers and switches may come as text, as in a connection URI.
    :raises ConfigurationError: names the field and what to type.
    """
    values = settings.read_fields(extra or {})
    values["receiver_host"] = values["receiver_host"] or ""
    values["move_destination"] = values["move_destination"] or ""
    tls = _tls(values)
    return Peer(
        host=settings.read_host(host),
        port=settings.read_port(port),
        tls=tls,
        user_identity=_user_identity(values, login, password, tls),
        **{key: value for key, value in values.items() if key not in (*_TLS_KEYS, "tls")},
    )


def connection_parts(conn_id: str, connection: Any) -> dict[str, Any]:
    """Return what :func:`peer_from_connection` takes, out of an Airflow connection.

    :param conn_id: its ID, for the error.
    :param connection: Airflow's object of it; Airflow itself is not imported here.
    :raises ConfigurationError: when it is a connection of another type.
    """
    if connection.conn_type != CONNECTION_TYPE:
        raise ConfigurationError(
            f"connection {conn_id!r} is of type {connection.conn_type!r}, not {CONNECTION_TYPE!r}",
            hint=f"Name a connection of type {CONNECTION_TYPE}",
        )
    return {
        "host": connection.host,
        "port": connection.port,
        "login": connection.login,
        "password": connection.password,
        "extra": dict(connection.extra_dejson),
    }


def parse_peer_address(text: str) -> tuple[str, str, int]:
    """Take ``AET@host:port`` apart, at the last ``@``; an IPv6 address stands in brackets.

    :raises ConfigurationError: when a part is missing or wrong.
    """
    called, at, address = text.rpartition("@")
    host, colon, port = address.rpartition(":")
    if not at or not colon:
        raise ConfigurationError(
            f"{text!r} is not a peer address", hint="Write it as AET@host:port, e.g. VMSDBD@aria-db.example.org:51402"
        )
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigurationError(
            f"{text!r} is not a peer address", hint="Put an IPv6 address in brackets: AET@[2001:db8::1]:51402"
        )
    title = settings.read_ae_title(FIELDS_BY_KEY["called_ae_title"], called)
    return title, settings.read_host(host), settings.read_port(port)


def _tls(values: Mapping[str, Any]) -> TlsSettings | None:
    given = {key.removeprefix("tls_"): values[key] for key in _TLS_KEYS if values[key]}
    if not values["tls"]:
        if given:
            key = f"tls_{next(iter(given))}"
            raise settings.wrong(FIELDS_BY_KEY[key], "is set, but TLS is off", 'Set "tls" to true, or remove the field')
        return None
    for key, other in (("tls_certificate", "tls_private_key"), ("tls_private_key", "tls_certificate")):
        if values[key] and not values[other]:
            raise settings.wrong(
                FIELDS_BY_KEY[other], f"is missing, although {key} is set", "Paste both, as PEM text, or neither"
            )
    return TlsSettings(**given)


def _user_identity(
    values: Mapping[str, Any], login: str | None, password: str | None, tls: TlsSettings | None
) -> UserIdentity | None:
    if not login:
        if password or values["require_user_identity"]:
            raise ConfigurationError(
                "connection field login is empty, but a passcode is set or a user identity is required",
                step="connection",
                hint="Type the login of the user identity, or remove the passcode and require_user_identity",
            )
        return None
    if values["profile"] == "aria" and values["profile_overrides"].get("user_identity") is not True:
        raise ConfigurationError(
            "connection field login is set, but the DB Daemon knows no user identity",
            step="connection",
            hint="Remove login and password (never type an ARIA login here), or set "
            'profile_overrides to {"user_identity": true} if this peer really asks for one',
        )
    if password and tls is None:
        raise ConfigurationError(
            "connection field password is set, but it would travel in clear text",
            step="connection",
            hint='Set "tls" to true, or remove the password',
        )
    return UserIdentity(login, password or None)
