"""Associations without a library's threads, for load generators: bytes in, bytes out (PS3.8 9.3).

pynetdicom encodes and decodes what is negotiated; the rest is a socket.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context

ASSOCIATE_RQ: Final = 1
ASSOCIATE_AC: Final = 2
P_DATA_TF: Final = 4
RELEASE_RQ: Final = 5

#: Bytes of a P-DATA-TF PDU before the fragment: PDU type and length, item length, context ID, control header.
FRAGMENT_AT: Final = 12
#: DCMTK's own largest; within the noise of anything larger.
MAX_PDU: Final = 131072
_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_IMPLEMENTATION: Final = "1.2.826.0.1.3680043.10.1499.9"
_IMPLICIT: Final = "1.2.840.10008.1.2"
_HEAD: Final = struct.Struct(">BBI")
_RELEASE_RQ: Final = struct.pack(">BBII", RELEASE_RQ, 0, 4, 0)
RELEASE_RP: Final = struct.pack(">BBII", RELEASE_RQ + 1, 0, 4, 0)
#: A peer that says nothing for so long has failed.
_SECONDS: Final = 120.0


class WireError(Exception):
    """The other side did not do what the protocol says."""


@dataclass(slots=True)
class Line:
    """An association.

    :param connection: its socket.
    :param max_pdu: the largest PDU that the other side takes; 0: no limit.
    :param contexts: presentation context IDs by abstract syntax, those that were accepted.
    """

    connection: socket.socket
    max_pdu: int
    contexts: Mapping[str, int]

    def release(self) -> None:
        """End it, in order where the other side takes part."""
        try:
            self.connection.sendall(_RELEASE_RQ)
            read_pdu(self.connection)
        except (OSError, WireError):
            pass
        finally:
            self.connection.close()


def call(port: int, abstract_syntaxes: Sequence[str], *, called: str, calling: str, no_delay: bool = True) -> Line:
    """Ask for an association on loopback, in Implicit VR Little Endian.

    :param no_delay: whether small messages go out at once.
    :raises WireError: when it is not accepted.
    """
    connection = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, no_delay)
    try:
        connection.sendall(_request(abstract_syntaxes, called, calling))
        kind, pdu = read_pdu(connection)
        if kind != ASSOCIATE_AC:
            raise WireError(f"the association was not accepted, but answered by a PDU of type {kind}")
        answer = _decoded(A_ASSOCIATE_AC(), pdu)
        accepted = {cx.context_id for cx in answer.presentation_context_definition_results_list if cx.result == 0}
        contexts = {uid: 2 * at + 1 for at, uid in enumerate(abstract_syntaxes) if 2 * at + 1 in accepted}
        return Line(connection, answer.maximum_length_received or 0, contexts)
    except BaseException:
        connection.close()
        raise


def answer(connection: socket.socket) -> tuple[Line, A_ASSOCIATE]:
    """Accept the association that somebody asks for, each context of it in Implicit VR Little Endian.

    :return: the association, and what was asked for.
    :raises WireError: when nobody asks.
    """
    connection.settimeout(_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kind, pdu = read_pdu(connection)
    if kind != ASSOCIATE_RQ:
        raise WireError(f"a PDU of type {kind} came before the association")
    asked = _decoded(A_ASSOCIATE_RQ(), pdu)
    proposed = asked.presentation_context_definition_list
    connection.sendall(_acceptance(asked, proposed))
    contexts = {str(cx.abstract_syntax): int(cx.context_id or 0) for cx in proposed}
    return Line(connection, asked.maximum_length_received or 0, contexts), asked


def read_pdu(connection: socket.socket) -> tuple[int, bytearray]:
    """Read one PDU.

    :return: its type, and the whole of it.
    :raises WireError: when the connection ends before it does.
    """
    head = read_exactly(connection, _HEAD.size)
    kind, _, length = _HEAD.unpack(head)
    return kind, head + read_exactly(connection, length)


def read_exactly(connection: socket.socket, count: int) -> bytearray:
    """Read so many bytes.

    :raises WireError: when the connection ends before.
    """
    data = bytearray(count)
    view, position = memoryview(data), 0
    while position < count:
        received = connection.recv_into(view[position:])
        if not received:
            raise WireError("the connection was closed")
        position += received
    return data


def _request(abstract_syntaxes: Sequence[str], called: str, calling: str) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(_APPLICATION_CONTEXT)
    primitive.called_ae_title, primitive.calling_ae_title = called, calling
    contexts = [build_context(uid, [_IMPLICIT]) for uid in abstract_syntaxes]
    for at, context in enumerate(contexts):
        context.context_id = 2 * at + 1
    primitive.presentation_context_definition_list = contexts
    primitive.user_information = _user_information()
    return _encoded(A_ASSOCIATE_RQ(), primitive)


def _acceptance(asked: A_ASSOCIATE, proposed: Sequence[PresentationContext]) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(_APPLICATION_CONTEXT)
    primitive.called_ae_title, primitive.calling_ae_title = asked.called_ae_title, asked.calling_ae_title
    primitive.result, primitive.result_source = 0, 1
    results = []
    for context in proposed:
        result = build_context(str(context.abstract_syntax), [_IMPLICIT])
        result.context_id, result.result = context.context_id, 0
        results.append(result)
    primitive.presentation_context_definition_results_list = results
    roles = [item for item in asked.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    primitive.user_information = [*_user_information(), *roles]
    return _encoded(A_ASSOCIATE_AC(), primitive)


def _user_information() -> list[Any]:
    size, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    size.maximum_length_received = MAX_PDU
    implementation.implementation_class_uid = UID(_IMPLEMENTATION)
    return [size, implementation]


def _encoded(pdu: Any, primitive: A_ASSOCIATE) -> bytes:
    pdu.from_primitive(primitive)
    return cast(bytes, pdu.encode())


def _decoded(pdu: Any, data: bytearray) -> A_ASSOCIATE:
    pdu.decode(bytes(data))
    return cast(A_ASSOCIATE, pdu.to_primitive())
