"""The TLS handshake with whoever connected, in its own time, and who the other side is by its certificate."""

from __future__ import annotations

import ssl
import time
from typing import Any, Final

from airflow_provider_varian.receiver.connections import Connection
from airflow_provider_varian.receiver.observer import printable_subject

#: What OpenSSL's reasons mean to who reads the log.
_MEANINGS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, and one is demanded",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of an authority that is trusted here, or has expired",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it finds our certificate expired",
    "UNSUPPORTED_PROTOCOL": "it speaks TLS older than 1.2 only",
    "NO_SHARED_CIPHER": "it has no cipher in common with us",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: plain DICOM on a port of TLS",
    "HTTP_REQUEST": "it speaks HTTP",
}
#: Short names of the parts of a subject.
_PARTS: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
}


class HandshakeError(Exception):
    """A handshake that failed; says why in words of ours."""


def shake_hands(connection: Connection, context: ssl.SSLContext, seconds: float) -> None:
    """Do the handshake of an accepted connection, whose socket is replaced by the one that encrypts.

    :param context: the receiver's.
    :param seconds: how long it may take in all, counted from when the connection was accepted.
    :raises TimeoutError: when it takes longer.
    :raises HandshakeError: when it fails.
    """
    try:
        connection.raw.settimeout(max(0.01, connection.began + seconds - time.monotonic()))
        secured = context.wrap_socket(connection.raw, server_side=True, do_handshake_on_connect=False)
        connection.replace(secured)
        # The time-out is for all of it, not for each read.
        secured.do_handshake()
    except TimeoutError:
        raise
    except OSError as error:  # ssl.SSLError is one
        reason = str(getattr(error, "reason", None) or "")
        raise HandshakeError(_MEANINGS.get(reason) or reason or "it hung up") from error


def subject_of(raw: Any) -> str:
    """Return the subject of the certificate that the other side showed, as ``CN=...,O=...``; empty without one."""
    if not isinstance(raw, ssl.SSLSocket):
        return ""
    names: Any = (raw.getpeercert() or {}).get("subject", ())
    return printable_subject(",".join(f"{_PARTS.get(key, key)}={value}" for name in names for key, value in name))
