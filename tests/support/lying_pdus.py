"""Bytes of the upper layer and of DIMSE, right or wrong as the caller likes: lengths may lie (PS3.8 9.3, PS3.7 E)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from airflow_provider_varian import uids

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF
RESPONSE = 0x8000
NO_DATA_SET = 0x0101

#: Bits of a message control header (PS3.8 E.2).
COMMAND, LAST = 1, 2

VERIFICATION_CONTEXT, IMAGE_CONTEXT, DOSE_CONTEXT = 1, 3, 5
#: What is proposed unless an attack says otherwise: context ID, abstract syntax, transfer syntaxes.
CONTEXTS = (
    (VERIFICATION_CONTEXT, uids.VERIFICATION, (uids.IMPLICIT_VR_LITTLE_ENDIAN,)),
    (IMAGE_CONTEXT, uids.RT_IMAGE, (uids.IMPLICIT_VR_LITTLE_ENDIAN,)),
    (DOSE_CONTEXT, uids.RT_DOSE, (uids.IMPLICIT_VR_LITTLE_ENDIAN,)),
)


def pdu(kind: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a PDU; ``length`` is what its header says instead of the truth."""
    return struct.pack(">BBI", kind, 0, len(body) if length is None else length) + body


def item(kind: int, value: bytes = b"", *, length: int | None = None) -> bytes:
    """Return an item of an A-ASSOCIATE-RQ."""
    return struct.pack(">BBH", kind, 0, len(value) if length is None else length) + value


def pdv(context: int, control: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a presentation data value item."""
    return struct.pack(">IBB", len(data) + 2 if length is None else length, context, control) + data


def presentation_context(
    number: int, abstract: str, syntaxes: Sequence[str] = (uids.IMPLICIT_VR_LITTLE_ENDIAN,)
) -> bytes:
    """Return a proposed presentation context (PS3.8 9.3.2.2)."""
    inside = item(0x30, abstract.encode()) + b"".join(item(0x40, each.encode()) for each in syntaxes)
    return item(0x20, bytes([number, 0, 0, 0]) + inside)


def user_information(*more: bytes, max_pdu: int = 16384) -> bytes:
    """Return the user information item, with more sub-items behind the usual two."""
    return item(0x50, item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.3.4") + b"".join(more))


def association_body(
    *,
    called: str | bytes = "AIRFLOW",
    calling: str | bytes = "ATTACKER",
    contexts: Iterable[bytes] | None = None,
    application: bytes | None = None,
    user: bytes | None = None,
    version: int = 1,
) -> bytes:
    """Return what follows the header of an A-ASSOCIATE-RQ."""
    if contexts is None:
        contexts = [presentation_context(*each) for each in CONTEXTS]
    application = item(0x10, APPLICATION_CONTEXT.encode()) if application is None else application
    variable = application + b"".join(contexts) + (user_information() if user is None else user)
    return struct.pack(">HH", version, 0) + _title(called) + _title(calling) + bytes(32) + variable


def association_request(**parts: object) -> bytes:
    """Return an A-ASSOCIATE-RQ of the parts that :func:`association_body` takes."""
    return pdu(ASSOCIATE_RQ, association_body(**parts))  # type: ignore[arg-type]


def _title(title: str | bytes) -> bytes:
    raw = title if isinstance(title, bytes) else title.encode()
    return raw.ljust(16)[:16]


def element(tag: int, value: bytes, *, length: int | None = None) -> bytes:
    """Return an element of Implicit VR Little Endian; a value of odd length gets a NUL."""
    if length is None:
        value += b"\0" * (len(value) % 2)
        length = len(value)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length) + value


def command_set(elements: Iterable[bytes], *, group_length: int | None = None) -> bytes:
    """Return a command set of elements of group 0000."""
    body = b"".join(elements)
    return element(0, struct.pack("<I", len(body) if group_length is None else group_length)) + body


def number(tag: int, value: int) -> bytes:
    """Return a US element."""
    return element(tag, struct.pack("<H", value))


def echo_command(message: int = 1) -> bytes:
    """Return the command set of a C-ECHO-RQ."""
    parts = [element(0x0002, uids.VERIFICATION.encode()), number(0x0100, C_ECHO_RQ), number(0x0110, message)]
    return command_set([*parts, number(0x0800, NO_DATA_SET)])


def store_elements(
    uid: str | bytes, *, message: int = 1, sop_class: str = uids.RT_IMAGE, data_set: int = 1
) -> list[bytes]:
    """Return the elements of a C-STORE-RQ, in their order."""
    raw = uid if isinstance(uid, bytes) else uid.encode()
    return [
        element(0x0002, sop_class.encode()),
        number(0x0100, C_STORE_RQ),
        number(0x0110, message),
        number(0x0700, 0),
        number(0x0800, data_set),
        element(0x1000, raw),
    ]


def store_command(uid: str | bytes, **parts: object) -> bytes:
    """Return the command set of a C-STORE-RQ of the parts that :func:`store_elements` takes."""
    return command_set(store_elements(uid, **parts))  # type: ignore[arg-type]


#: A name and an ID that are in each data set of the attacks, and may be in no log.
PLANTED_NAME, PLANTED_ID = "Zqplanted^Personname", "ZQPLANTEDID77"


def data_set(
    uid: str | bytes,
    *,
    sop_class: str = uids.RT_IMAGE,
    filling: int = 1000,
    patient_id: str | bytes = PLANTED_ID,
) -> bytes:
    """Return a small image in Implicit VR Little Endian whose pixels are ``filling`` bytes."""

    def text(tag: int, value: str | bytes, padding: bytes = b" ") -> bytes:
        raw = value if isinstance(value, bytes) else value.encode()
        return element(tag, raw + padding * (len(raw) % 2))

    return b"".join(
        (
            text(0x00080016, sop_class, b"\0"),
            text(0x00080018, uid, b"\0"),
            text(0x00100010, PLANTED_NAME),
            text(0x00100020, patient_id),
            text(0x0020000D, "1.2.826.0.1.3680043.10.1511.5", b"\0"),
            text(0x0020000E, "1.2.826.0.1.3680043.10.1511.5.1", b"\0"),
            element(0x7FE00010, bytes(number % 251 for number in range(filling + filling % 2))),
        )
    )


def message(context: int, command: bytes, data: bytes | None = None, *, fragment: int = 16000) -> list[bytes]:
    """Return a DIMSE message as P-DATA-TF PDUs: the command, then the data set in fragments of so many bytes."""
    pdus = [pdu(P_DATA, pdv(context, COMMAND | LAST, command))]
    if data is not None:
        pieces = [data[start : start + fragment] for start in range(0, len(data), fragment)]
        pdus += [pdu(P_DATA, pdv(context, 0, piece)) for piece in pieces[:-1]]
        pdus.append(pdu(P_DATA, pdv(context, LAST, pieces[-1])))
    return pdus


def store_message(uid: str, *, filling: int = 1000, fragment: int = 16000) -> list[bytes]:
    """Return a C-STORE of an image as PDUs."""
    return message(IMAGE_CONTEXT, store_command(uid), data_set(uid, filling=filling), fragment=fragment)
