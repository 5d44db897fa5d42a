"""What DIMSE statuses mean, in words and as errors.

PS3.7 Annex C for the general ones, PS3.4 C.4.1.1.4 (C-FIND), C.4.2.1.5 (C-MOVE), C.4.3.1.4 (C-GET) and
B.2.3 (C-STORE) for those of a service. Standard library only.
"""

from __future__ import annotations

from typing import Final, Literal

from airflow_provider_varian.errors import (
    CroppedAnswerError,
    DicomError,
    OutOfResourcesError,
    PeerFailureError,
    RefusedByPeerError,
    UnknownMoveDestinationError,
)
from airflow_provider_varian.privacy import harmless

Service = Literal["C-ECHO", "C-FIND", "C-GET", "C-MOVE", "C-STORE"]

SUCCESS: Final = 0x0000
CANCELLED: Final = 0xFE00
PENDING: Final = frozenset({0xFF00, 0xFF01})
#: 0xFF01: optional keys were not supported in the same manner as required ones (semantics 12).
PENDING_OPTIONAL_KEYS_UNSUPPORTED: Final = 0xFF01

_GENERAL: Final = {
    0x0000: "success",
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0107: "attribute list error",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0112: "no such SOP instance",
    0x0115: "invalid argument value",
    0x0116: "attribute value out of range",
    0x0117: "invalid SOP instance",
    0x0118: "no such SOP class",
    0x0119: "class-instance conflict",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0210: "duplicate invocation",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xFE00: "cancelled",
    0xFF00: "pending",
    0xFF01: "pending, some optional keys not supported",
}
_BY_SERVICE: Final[dict[str, dict[int, str]]] = {
    "C-FIND": {
        0xA700: "refused: out of resources",
        0xA900: "identifier does not match SOP class",
        0xFE00: "matching ended by a cancel request",
    },
    "C-MOVE": {
        0xA701: "out of resources: unable to calculate number of matches",
        0xA702: "out of resources: unable to perform sub-operations",
        0xA801: "move destination unknown",
        0xA900: "identifier does not match SOP class",
        0xB000: "sub-operations complete, one or more failures or warnings",
        0xFE00: "sub-operations ended by a cancel request",
    },
    "C-GET": {
        0xA701: "out of resources: unable to calculate number of matches",
        0xA702: "out of resources: unable to perform sub-operations",
        0xA900: "identifier does not match SOP class",
        0xB000: "sub-operations complete, one or more failures or warnings",
        0xFE00: "sub-operations ended by a cancel request",
    },
    "C-STORE": {
        0xA700: "refused: out of resources",
        0xA900: "data set does not match SOP class",
        0xB000: "stored, data elements coerced",
        0xB006: "stored, elements discarded",
        0xB007: "stored, data set does not match SOP class",
        0xC000: "cannot understand",
    },
}
_UNABLE: Final = {"C-STORE": "cannot understand", "C-ECHO": "failure"}


def describe(service: Service, status: int) -> str:
    """Return a status in words, with its number.

    :param service: the service whose response carried it.
    :param status: Status (0000,0900).
    :return: e.g. ``"move destination unknown (0xA801)"``.
    """
    words = _BY_SERVICE.get(service, {}).get(status) or _GENERAL.get(status)
    if words is None and status & 0xF000 == 0xC000:
        words = _UNABLE.get(service, "unable to process")
    elif words is None and status & 0xFF00 == 0xA700:
        words = "refused: out of resources"
    elif words is None and service == "C-STORE" and status & 0xFF00 == 0xA900:
        words = _BY_SERVICE[service][0xA900]
    elif words is None and (status & 0xF000 == 0xB000 or status == 0x0001):
        words = "warning"
    return f"{words or 'unknown status'} (0x{status:04X})"


def is_pending(status: int) -> bool:
    """Say whether more responses follow."""
    return status in PENDING


def is_warning(status: int) -> bool:
    """Say whether a final status means done, with a remark (PS3.7 C.3): 0x0001, 0x0107, 0x0116, 0xBxxx."""
    return status in (0x0001, 0x0107, 0x0116) or status & 0xF000 == 0xB000


def error_for(service: Service, status: int, *, peer: str, comment: str = "") -> DicomError | None:
    """Return the error that a final status stands for; ``None`` when it is a success or a warning.

    :param service: the service whose response carried it.
    :param status: Status (0000,0900), not a pending one.
    :param peer: the peer's name, for the message.
    :param comment: Error Comment (0000,0902) as received; only its harmless words are repeated.
    """
    if status == SUCCESS or is_pending(status) or is_warning(status):
        return None
    kind, hint = _kind(service, status)
    said = harmless(comment)
    what = f"the peer answered: {describe(service, status)}" + (f", with the comment {said!r}" if said else "")
    return kind(what, peer=peer, step=service, status=status, hint=hint)


def _kind(service: Service, status: int) -> tuple[type[DicomError], str]:
    if status == CANCELLED:
        return CroppedAnswerError, "Nobody here cancelled: the peer stopped early, so ask for less at a time"
    if service == "C-MOVE" and status == 0xA801:
        return (
            UnknownMoveDestinationError,
            "Enter the move destination, with this machine's address and the receiver's port, under "
            "Trusted Application Entities of the DB Service and restart the service",
        )
    if service == "C-STORE" and (status == 0x0122 or status & 0xFF00 == 0xA900 or status & 0xF000 == 0xC000):
        # PS3.4 B.2.3: about this object, which would be refused again.
        return (
            RefusedByPeerError,
            "The peer does not import this object as it is: look for the cause in the log of the DB Service, e.g. a "
            "patient that ARIA does not know",
        )
    if status == 0x0122:
        return RefusedByPeerError, "The peer does not offer this service: check information model and retrieve method"
    if status == 0x0124:
        return RefusedByPeerError, "Allow the calling AE title to do this in the peer's configuration"
    if status == 0xA900:
        return RefusedByPeerError, "The peer does not accept these keys at this level"
    if status & 0xFF00 == 0xA700 or status == 0x0213:
        return OutOfResourcesError, "Try again later, or ask for less at a time"
    return PeerFailureError, "Look for the cause in the log of the DB Service"
