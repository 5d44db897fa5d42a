"""The fields of a ``dicom`` connection: one table that feeds form, validation, documentation and CLI.

Pure data and standard library only. The hook's form, the provider metadata, the validation in
:mod:`airflow_provider_varian.dimse.peer` and the connection page of the documentation are all
made from :data:`CONNECTION_FIELDS`, so none of them can drift from the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["string", "integer", "number", "boolean", "choice", "object", "text", "password"]

#: What Airflow itself calls the standard fields, as the form of a DICOM connection names them.
CONNECTION_TYPE: Final = "dicom"
HOOK_NAME: Final = "DICOM peer"
HOOK_CLASS_NAME: Final = "airflow_provider_varian.hooks.dicom.DicomHook"
DEFAULT_CONNECTION_ID: Final = "dicom_default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionField:
    """One extra of the connection.

    :param key: the key in the connection's ``extra``.
    :param label: what the form calls it.
    :param help: one or two sentences for form and documentation.
    :param kind: the type of its value; ``text`` is multi-line, ``password`` is masked.
    :param default: the value when it is absent or ``null``.
    :param required: may it be absent?
    :param choices: the allowed values of a ``choice``.
    :param minimum: the smallest value of a number.
    :param maximum: the largest value of a number.
    :param max_length: how many characters a string may have.
    """

    key: str
    label: str
    help: str
    kind: Kind = "string"
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None

    def schema(self) -> dict[str, Any]:
        """Return the field as JSON schema, in the dialect of Airflow's connection form."""
        kinds = {"choice": "string", "text": "string", "password": "string"}
        base = kinds.get(self.kind, self.kind)
        # A type without "null" is shown as required (reference: airflow-provider 3.3).
        schema: dict[str, Any] = {"type": base if self.required else [base, "null"]}
        if self.kind == "text":
            schema["format"] = "multiline"
        elif self.kind == "password":
            schema["format"] = "password"
        elif self.kind == "choice":
            schema["enum"] = list(self.choices)
        for name, value in (
            ("minimum", self.minimum),
            ("maximum", self.maximum),
            ("maxLength", self.max_length),
            ("default", self.default),
        ):
            if value is not None:
                schema[name] = value
        if self.required and base == "string":
            schema["minLength"] = 1
        return schema


def _seconds(key: str, label: str, help_: str, default: float, maximum: float = 86400) -> ConnectionField:
    return ConnectionField(
        key=key, label=label, help=help_, kind="number", default=default, minimum=0.1, maximum=maximum
    )


CONNECTION_FIELDS: Final[tuple[ConnectionField, ...]] = (
    ConnectionField(
        key="called_ae_title",
        label="Called AE title",
        help="The daemon's AE title, e.g. VMSDBD. At most 16 characters; blanks inside are allowed.",
        required=True,
        max_length=16,
    ),
    ConnectionField(
        key="calling_ae_title",
        label="Calling AE title",
        help="Ours, exactly as entered under Trusted Application Entities of the DB Service.",
        default="AIRFLOW",
        max_length=16,
    ),
    ConnectionField(
        key="move_destination",
        label="Move destination",
        help="The trusted entity that C-MOVE sends to when we receive. Empty: the calling AE title.",
        max_length=16,
    ),
    ConnectionField(
        key="receiver_host",
        label="Receiver host",
        help="Address on which a receiver inside a task listens. Empty: all interfaces.",
        max_length=255,
    ),
    ConnectionField(
        key="receiver_port",
        label="Receiver port",
        help="Port of the trusted entity, on which a receiver inside a task listens. Required for C-MOVE without a "
        "standing receiver.",
        kind="integer",
        minimum=1,
        maximum=65535,
    ),
    ConnectionField(
        key="receiver",
        label="Standing receiver",
        help="Name of a standing receiver of the [varian] receivers setting, to which C-MOVE sends. Empty: receive in "
        "the task.",
        max_length=64,
    ),
    ConnectionField(
        key="information_model",
        label="Information model",
        help="Query/Retrieve information model. auto: Study Root, and Patient Root for patient level.",
        kind="choice",
        choices=("auto", "study_root", "patient_root"),
        default="auto",
    ),
    ConnectionField(
        key="retrieve_method",
        label="Retrieve method",
        help="auto: C-GET where the peer accepts it, else C-MOVE.",
        kind="choice",
        choices=("auto", "move", "get"),
        default="auto",
    ),
    ConnectionField(
        key="profile",
        label="Profile",
        help="Which habits of the peer to allow for: aria for the DB Daemon, generic for any other archive.",
        kind="choice",
        choices=("aria", "generic"),
        default="aria",
    ),
    ConnectionField(
        key="profile_overrides",
        label="Profile overrides (JSON)",
        help="Single habits that differ at this peer, by the profile's names.",
        kind="object",
    ),
    ConnectionField(
        key="timezone",
        label="Time zone of the clinic",
        help="IANA name, e.g. Europe/Zurich. DICOM dates are local to the clinic; dated recipes need it.",
        max_length=64,
    ),
    ConnectionField(
        key="quiet_hours",
        label="Quiet hours (JSON)",
        help="Weekly windows of the clinic's time in which to leave the peer alone: tasks wait until they are over. "
        'Needs the time zone. {"daily": ["03:50-04:30"], "sunday": ["00:00-01:45"]}.',
        kind="object",
    ),
    ConnectionField(
        key="max_associations",
        label="Associations at once",
        help="How many associations the peer is asked to hold at a time for this user of this machine; others wait. "
        "An Airflow pool bounds several machines.",
        kind="integer",
        default=2,
        minimum=1,
        maximum=64,
    ),
    ConnectionField(
        key="request_pause_seconds",
        label="Pause between requests (s)",
        help="Seconds to wait between two requests of a task to the peer.",
        kind="number",
        default=0,
        minimum=0,
        maximum=3600,
    ),
    _seconds("connect_timeout", "Connect timeout (s)", "Seconds for the TCP connection and the TLS handshake.", 10),
    _seconds("acse_timeout", "Association timeout (s)", "Seconds for the answer to an association request.", 30),
    _seconds("dimse_timeout", "Message timeout (s)", "Seconds between two messages of a running operation.", 120),
    _seconds("network_timeout", "Network timeout (s)", "Seconds of silence after which an association is ended.", 120),
    _seconds(
        "retrieve_deadline",
        "Retrieve deadline (s)",
        "Seconds that one retrieve request may take in all.",
        3600,
        maximum=604800,
    ),
    ConnectionField(
        key="max_pdu",
        label="Maximum PDU (bytes)",
        help="Largest PDU we are willing to receive.",
        kind="integer",
        default=131072,
        minimum=4096,
        maximum=1048576,
    ),
    ConnectionField(
        key="allow_store",
        label="Allow storing to this peer",
        help="May objects be sent to it? The daemon imports what it gets, often creating patients.",
        kind="boolean",
        default=False,
    ),
    ConnectionField(
        key="assume_character_set",
        label="Assumed character set",
        help="Specific Character Set for answers that name none, e.g. ISO_IR 100.",
        max_length=64,
    ),
    ConnectionField(
        key="tls",
        label="Use TLS",
        help="TLS 1.2 or later, peer verified; never downgraded.",
        kind="boolean",
        default=False,
    ),
    ConnectionField(
        key="tls_server_name",
        label="TLS server name",
        help="Name in the peer's certificate, when the host above is an address.",
        max_length=255,
    ),
    ConnectionField(
        key="tls_ca_certificate",
        label="TLS CA certificate (PEM)",
        help="Authority that signed the peer's certificate. Empty: the system's authorities.",
        kind="text",
    ),
    ConnectionField(
        key="tls_certificate",
        label="TLS certificate (PEM)",
        help="Our certificate, shown to the peer and by the receiver inside a task.",
        kind="text",
    ),
    ConnectionField(
        key="tls_private_key",
        label="TLS private key (PEM)",
        help="Key of our certificate.",
        kind="password",
    ),
    ConnectionField(
        key="tls_private_key_password",
        label="TLS private key password",
        help="Password of the key, if it has one.",
        kind="password",
    ),
    ConnectionField(
        key="require_user_identity",
        label="Require user identity",
        help="The peer must confirm the login (User Identity Negotiation, PS3.7 D.3.3.7).",
        kind="boolean",
        default=False,
    ),
)

FIELDS_BY_KEY: Final = {field.key: field for field in CONNECTION_FIELDS}

#: How the form names Airflow's standard fields, and which it hides.
UI_FIELD_BEHAVIOUR: Final[dict[str, Any]] = {
    "hidden-fields": ["schema"],
    "relabeling": {
        "host": "Host of the peer",
        "port": "Port of the peer",
        "login": "User identity (not your ARIA login)",
        "password": "User identity passcode",
    },
    "placeholders": {
        "host": "aria-db.example.org",
        "port": "51402",
        "login": "leave empty for ARIA",
        "password": "leave empty for ARIA",
    },
}


def connection_form() -> dict[str, dict[str, Any]]:
    """Return ``conn-fields`` of the provider metadata (Airflow 3.2 and later)."""
    return {
        field.key: {"label": field.label, "description": field.help, "schema": field.schema()}
        for field in CONNECTION_FIELDS
    }
