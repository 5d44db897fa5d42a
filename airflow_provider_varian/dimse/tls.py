"""TLS contexts from PEM text: 1.2 or later, the other side always verified (semantics 21)."""

from __future__ import annotations

import os
import ssl
import tempfile

from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.errors import ConfigurationError


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return the context with which we call a peer: its certificate and name are verified.

    :raises ConfigurationError: when a certificate or key cannot be used.
    """
    return _context(ssl.Purpose.SERVER_AUTH, settings)


def server_context(settings: TlsSettings, *, demand_certificate: bool = True) -> ssl.SSLContext:
    """Return the context of a receiver: it shows our certificate and demands one from whoever calls.

    :param demand_certificate: whether who calls has to show a certificate of the authority, too.
    :raises ConfigurationError: when a certificate or key is missing or cannot be used.
    """
    if not settings.certificate:
        raise _wrong("tls_certificate", "is missing, and a receiver has to show one", "Paste certificate and key")
    context = _context(ssl.Purpose.CLIENT_AUTH, settings)
    context.verify_mode = ssl.CERT_REQUIRED if demand_certificate else ssl.CERT_NONE
    return context


def _context(purpose: ssl.Purpose, settings: TlsSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(purpose, cadata=settings.ca_certificate or None)
    except (ssl.SSLError, ValueError):
        raise _wrong("tls_ca_certificate", "is not a certificate", "Paste it as PEM text") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate:
        _load_own(context, settings)
    return context


def _load_own(context: ssl.SSLContext, settings: TlsSettings) -> None:
    # OpenSSL reads our certificate and key from files only. mkstemp makes them for our eyes alone (0600).
    descriptor, path = tempfile.mkstemp(prefix="dicom-", suffix=".pem")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii", errors="replace") as file:
            file.write(f"{settings.private_key}\n{settings.certificate}\n")
        # Without a password of ours OpenSSL would ask the terminal for it, and wait.
        context.load_cert_chain(path, password=settings.private_key_password)
    except (ssl.SSLError, ValueError, OSError):
        raise _wrong(
            "tls_certificate",
            "and tls_private_key do not fit together or cannot be read",
            "Paste both as PEM text; check the key's password",
        ) from None
    finally:
        os.unlink(path)


def _wrong(key: str, what: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"connection field {key} {what}", step="TLS", hint=hint)
