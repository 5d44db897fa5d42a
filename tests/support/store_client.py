"""A Storage SCU made of a bare socket: it sends any bytes, cut anywhere, and tells what came back."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from support.raw_peer import (
    C_ECHO_RQ,
    C_STORE_RQ,
    IMPLICIT,
    Closed,
    Wire,
    _item,
    _pdu,
    _pdv,
    build_command,
    parse_command,
)

from airflow_provider_varian import uids

COMMAND, DATA, LAST = 1, 0, 2
CONTEXTS = {1: uids.RT_IMAGE, 3: uids.CT_IMAGE, 5: uids.VERIFICATION}
RELEASE_RQ, RELEASE_RP, ABORT = _pdu(5, bytes(4)), _pdu(6, bytes(4)), _pdu(7, bytes(4))


def associate_rq(contexts=None, *, called="RECEIVER", calling="SENDER", max_pdu=16384, more=b"") -> bytes:
    """Return an A-ASSOCIATE-RQ."""
    asked = b"".join(
        _item(0x20, bytes([number, 0, 0, 0]) + _item(0x30, uid.encode()) + _item(0x40, IMPLICIT.encode()))
        for number, uid in (contexts or CONTEXTS).items()
    )
    user = _item(0x50, _item(0x51, struct.pack(">I", max_pdu)) + _item(0x52, b"1.2.3"))
    fixed = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    return _pdu(1, fixed + _item(0x10, b"1.2.840.10008.3.1.1.1") + asked + user + more)


def store_command(uid="1.2.3.4", *, message_id=7, sop_class=uids.RT_IMAGE, data_set=1, **more) -> bytes:
    """Return the command set of a C-STORE-RQ; a field of ``None`` is left out."""
    fields = {
        "command": C_STORE_RQ,
        "message_id": message_id,
        "affected_class": sop_class,
        "affected_instance": uid,
        "data_set": data_set,
        "priority": 0,
    }
    return build_command(**{name: value for name, value in (fields | more).items() if value is not None})


def echo_command(message_id=9) -> bytes:
    """Return the command set of a C-ECHO-RQ."""
    return build_command(command=C_ECHO_RQ, message_id=message_id, affected_class=uids.VERIFICATION, data_set=0x0101)


def pdu(*items: bytes) -> bytes:
    """Return a P-DATA-TF PDU."""
    return _pdu(4, b"".join(items))


def item(flags: int, data: bytes, context_id: int = 1) -> bytes:
    """Return an item of a P-DATA-TF PDU."""
    return _pdv(context_id, flags, data)


def message(command: bytes, data: bytes | None, context_id: int = 1) -> bytes:
    """Return a message, each of its parts in a PDU."""
    parts = [pdu(item(COMMAND | LAST, command, context_id))]
    return b"".join(parts if data is None else [*parts, pdu(item(DATA | LAST, data, context_id))])


class StoreClient:
    """One connection.

    :param connection: to a receiver.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.wire = Wire(connection)
        #: Each PDU that came, kind and body.
        self.came: list[tuple[int, bytes]] = []

    def associate(self, **options) -> None:
        """Ask for an association; fails when it is not accepted."""
        self.send(associate_rq(**options))
        assert self.read()[0] == 2

    def send(self, data: bytes, cuts=()) -> None:
        """Send bytes, cut into TCP segments at some places."""
        start = 0
        for end in [*sorted(cut for cut in set(cuts) if 0 < cut < len(data)), len(data)]:
            self.socket.sendall(data[start:end])
            start = end

    def read(self) -> tuple[int, bytes]:
        """Return the next PDU; of kind 0 when the connection has ended."""
        try:
            found = self.wire.read_pdu()
        except (Closed, ConnectionError, ssl.SSLError):
            found = (0, b"")
        self.came.append(found)
        return found

    def answer(self) -> dict | None:
        """Return the next message, its command set as a mapping; ``None`` at an abort or the end."""
        command = b""
        while True:
            kind, body = self.read()
            if kind != 4:
                return None
            while body:
                length, _, flags = struct.unpack(">IBB", body[:6])
                command += body[6 : 4 + length]
                body = body[4 + length :]
                if flags & LAST:
                    return parse_command(command)

    def end(self) -> str:
        """Read to the end; say what came last: an A-ABORT, an A-RELEASE-RP, or nothing but the end."""
        last = 0
        while (kind := self.read()[0]) != 0:
            last = kind
        return {6: "released", 7: "aborted"}.get(last, "closed")

    def release(self) -> None:
        """End in good manners."""
        self.send(RELEASE_RQ)
        assert self.read()[0] == 6


@contextmanager
def store_client(port: int, *, tls: ssl.SSLContext | None = None, patience: float = 15.0) -> Iterator[StoreClient]:
    """Connect to a receiver on this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            yield StoreClient(connection)
            return
        with tls.wrap_socket(connection, server_hostname="127.0.0.1") as wrapped:
            yield StoreClient(wrapped)
