"""Why an association could not be had, in words that a physicist or an administrator can act on."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.tls import client_context
from airflow_provider_varian.errors import (
    CancelledError,
    ContextRejectedError,
    DicomError,
    PeerUnreachableError,
    PermanentRejectionError,
    TransientRejectionError,
)

# PS3.8 9.3.4: who rejects, and why.
_REJECTIONS: Final = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given, by the service provider",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
#: Semantics 24: what would end the same way next time. All other rejections may pass.
_PERMANENT: Final = frozenset({(1, 1, 2), (1, 1, 3), (1, 1, 7), (1, 2, 2)})

_PRIVATE_NAMES: Final = {
    uids.VARIAN_HALCYON_RT_PLAN: "Varian Halcyon RT Plan Storage",
    uids.VARIAN_MOTION_MANAGEMENT: "Varian Motion Management Storage",
    uids.VARIAN_LONG_TERM_ARCHIVE_RECORD: "Varian Long-Term Archive Record Storage",
}


def name_of(sop_class_uid: str) -> str:
    """Return a SOP class as a person knows it, with its UID."""
    name = _PRIVATE_NAMES.get(sop_class_uid) or UID(sop_class_uid).name
    return f"{name} ({sop_class_uid})" if name != sop_class_uid else sop_class_uid


def cancelled(peer: Peer, step: str) -> DicomError:
    """Return the error of work that was cancelled from outside."""
    return CancelledError("the work was cancelled", peer=peer.name, step=step)


def ending(primitive: Any) -> str:
    """Say how an ACSE primitive ends an association; empty when it does not."""
    if isinstance(primitive, A_ABORT):
        # PS3.8 9.3.8: 0 is the peer's application, 2 its upper layer.
        return "the peer aborted the association"
    if isinstance(primitive, A_P_ABORT):
        return "the connection was closed, or the peer sent something that is not DICOM"
    return ""


def rejection(peer: Peer, step: str, result: int, source: int, reason: int) -> DicomError:
    """Return the error for an A-ASSOCIATE-RJ (PS3.8 9.3.4), permanent or transient by semantics 24.

    :param result: 1 permanent, 2 transient, in the peer's opinion.
    :param source: 1 service user, 2 service provider (ACSE), 3 service provider (presentation).
    :param reason: reason/diagnostic; its meaning depends on the source.
    """
    kind = PermanentRejectionError if (result, source, reason) in _PERMANENT else TransientRejectionError
    words = _REJECTIONS.get((source, reason), "unknown reason")
    return kind(
        f"the association was rejected: {words} ({result}/{source}/{reason})",
        peer=peer.name,
        step=step,
        hint=_rejection_hint(peer, source, reason),
    )


def no_context(peer: Peer, step: str, proposed: Sequence[str]) -> DicomError:
    """Return the error for an association that was accepted without any presentation context."""
    service = proposed[0]
    return ContextRejectedError(
        f"the peer accepted no presentation context for {name_of(service)}"
        + (f" nor for the other {len(proposed) - 1} proposed" if len(proposed) > 1 else ""),
        peer=peer.name,
        step=step,
        hint=context_hint(service),
    )


def context_hint(sop_class_uid: str) -> str:
    """Say what to change when a peer refuses a service."""
    if sop_class_uid in (uids.PATIENT_ROOT_GET, uids.STUDY_ROOT_GET):
        return "Set retrieve_method to move: older DB Services have no C-GET"
    if sop_class_uid in (uids.PATIENT_ROOT_FIND, uids.PATIENT_ROOT_MOVE):
        return "Set information_model to study_root: older DB Services have no Patient Root"
    return "Check that host, port and called AE title are those of the DB Service, not of another DICOM service"


def aborted_hint(peer: Peer) -> str:
    """Say what to change when a peer hangs up instead of answering an association request."""
    if peer.tls is not None:
        return "With TLS this often means that the peer does not trust our certificate: check tls_certificate"
    return "The service may be restarting, may expect TLS, or may not be a DICOM service: check port and TLS setting"


def unreachable(peer: Peer, step: str, error: Exception | None) -> DicomError:
    """Return the error for a peer to which no connection could be made.

    :param error: what a plain connection attempt ran into; ``None`` when it worked this time.
    """
    what, hint = _unreachable(peer, error)
    return PeerUnreachableError(what, peer=peer.name, step=step, hint=hint)


def probe(peer: Peer) -> Exception | None:
    """Connect once without DICOM and return what went wrong; ``None`` when nothing did.

    pynetdicom tells failure from success only; the reason is looked for when it has failed.
    """
    try:
        with closing(socket.create_connection((peer.host, peer.port), peer.connect_timeout)) as plain:
            if peer.tls is not None:
                context = client_context(peer.tls)
                with closing(context.wrap_socket(plain, server_hostname=peer.tls.server_name or peer.host)):
                    return None
    except (OSError, UnicodeError) as error:
        return error
    return None


def _rejection_hint(peer: Peer, source: int, reason: int) -> str:
    if (source, reason) in ((1, 1), (1, 3)):
        return (
            f'Enter the calling AE title "{peer.calling_ae_title}" with this machine\'s address under '
            "Trusted Application Entities of the DB Service and restart the service"
        )
    if (source, reason) == (1, 7):
        return (
            f'Set called_ae_title to the AE title shown in the DB Service\'s configuration; "{peer.called_ae_title}" '
            "is not it (capital letters and blanks count)"
        )
    if source == 3:
        return (
            "The peer is busy or has too many associations: try again later, lower max_associations of the connection, "
            "or give the tasks that talk to it an Airflow pool with fewer slots"
        )
    if (source, reason) in ((1, 2), (2, 2)):
        return "Check that host and port are those of a DICOM service"
    return "Look for the reason in the log of the DB Service"


def _unreachable(peer: Peer, error: Exception | None) -> tuple[str, str]:
    if isinstance(error, socket.gaierror):
        return f"the host name {peer.host!r} cannot be found", "Check the host of the connection and the DNS"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the TLS handshake failed: the peer's certificate was not accepted ({error.verify_message})",
            "Paste the authority of the peer's certificate into tls_ca_certificate, and set tls_server_name to the "
            "name in the certificate",
        )
    if isinstance(error, ssl.SSLError):
        return f"the TLS handshake failed ({error.reason})", "Check that this port speaks TLS, and our certificate"
    if isinstance(error, ConnectionRefusedError):
        return (
            f"the connection was refused: nothing listens on port {peer.port}",
            "Check the port, and that the DB Service is running",
        )
    if isinstance(error, TimeoutError):
        return (
            f"no connection within {peer.connect_timeout:g} s",
            "Check host and port, and that the firewall lets this machine through",
        )
    if error is None:
        return "the connection failed a moment ago, and works now", "The service was probably restarting: try again"
    return f"no connection ({error.strerror or type(error).__name__})" if isinstance(error, OSError) else (
        f"no connection ({type(error).__name__})"
    ), "Check host, port and network"
