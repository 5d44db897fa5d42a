"""A DICOM client made of a bare socket, which tells exactly how a peer ended the connection."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import Dataset
from pynetdicom.dsutils import encode
from support.raw_peer import (
    C_CANCEL_RQ,
    C_FIND_RQ,
    C_MOVE_RQ,
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

MODELS = (uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE)


@dataclass
class Told:
    """What a peer said, and how it ended: ``final``, ``abort``, ``reject``, ``reset``, ``closed`` or ``silence``."""

    end: str
    responses: list[dict] = field(default_factory=list)
    reason: tuple[int, ...] = ()
    rest: bytes = b""

    @property
    def pending(self) -> int:
        return sum(1 for each in self.responses if each.get("status") == 0xFF00)

    @property
    def final(self) -> dict:
        assert self.end == "final"
        return self.responses[-1]


class RawClient:
    """Asks one thing on one association."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.wire = Wire(connection)

    def associate(self, called: str = "VMSDBD", calling: str = "AIRFLOW", max_pdu: int = 16384) -> Told:
        """Ask for an association; ``final`` when it was accepted."""
        contexts = b"".join(
            _item(0x20, bytes([2 * number + 1, 0, 0, 0]) + _item(0x30, uid.encode()) + _item(0x40, IMPLICIT.encode()))
            for number, uid in enumerate(MODELS)
        )
        user = _item(0x50, _item(0x51, struct.pack(">I", max_pdu)) + _item(0x52, b"1.2.3"))
        titles = called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
        body = struct.pack(">HH", 1, 0) + titles + _item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + user
        try:
            self.socket.sendall(_pdu(1, body))
            kind, answer = self.wire.read_pdu()
        except (Closed, OSError) as error:
            return Told(_end_of(error))
        if kind == 3:
            return Told("reject", reason=tuple(answer[1:4]))
        return Told({2: "final", 7: "abort"}[kind])

    def ask(self, model: str, keys: Dataset, destination: str = "") -> Told:
        """Send a C-FIND or C-MOVE and read what comes back."""
        self.socket.sendall(self.request(model, keys, destination))
        return self.listen()

    def request(self, model: str, keys: Dataset, destination: str = "") -> bytes:
        """Return a C-FIND or C-MOVE of Message ID 1 in its PDUs."""
        command = Dataset()
        command.AffectedSOPClassUID = model
        command.CommandField = C_MOVE_RQ if destination else C_FIND_RQ
        command.MessageID, command.Priority, command.CommandDataSetType = 1, 0, 1
        if destination:
            command.MoveDestination = destination
        content = encode(command, True, True)
        length = struct.pack("<HHII", 0, 0, 4, len(content))
        context = 2 * MODELS.index(model) + 1
        return _pdu(4, _pdv(context, 3, length + content)) + _pdu(4, _pdv(context, 2, encode(keys, True, True)))

    def cancel(self, model: str) -> bytes:
        """Return a C-CANCEL of that message as a PDU."""
        command = build_command(command=C_CANCEL_RQ, responds_to=1, data_set=0x0101)
        return _pdu(4, _pdv(2 * MODELS.index(model) + 1, 3, command))

    def listen(self) -> Told:
        """Read until the final response or the end."""
        told = Told("")
        while True:
            try:
                kind, body = self.wire.read_pdu()
            except (Closed, OSError) as error:
                told.end = _end_of(error)
                return told
            if kind == 7:
                told.end = "abort"
                return told
            stream = BytesIO(body)
            while head := stream.read(6):
                length, _, flags = struct.unpack(">IBB", head)
                fragment = stream.read(length - 2)
                if flags & 1:
                    told.responses.append(parse_command(fragment))
                whole = flags & 2 and (not flags & 1 or told.responses[-1]["data_set"] == 0x0101)
                if whole and told.responses[-1].get("status") not in (0xFF00, None):
                    told.end = "final"
                    return told

    def release(self) -> None:
        """Ask for the end of the association and wait for the answer; the connection stays open."""
        self.socket.sendall(_pdu(5, bytes(4)))
        kind, _ = self.wire.read_pdu()
        assert kind == 6

    def drain(self) -> bytes:
        """Return what is left to read until the connection ends or nothing comes."""
        data = b""
        try:
            while piece := self.socket.recv(65536):
                data += piece
        except OSError:
            pass
        return data


def _end_of(error: Exception) -> str:
    if isinstance(error, Closed):
        return "closed"
    return "silence" if isinstance(error, TimeoutError) else "reset"


class _Decrypting:
    """TLS over a socket that stays in our hands: Python's own takes a reset for a plain end."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=connection.getpeername()[0])
        self._await(self._tls.do_handshake)

    def fileno(self) -> int:
        return self._connection.fileno()

    def sendall(self, data: bytes) -> None:
        self._tls.write(data)
        self._connection.sendall(self._outgoing.read())

    def recv(self, count: int) -> bytes:
        return self._await(lambda: self._tls.read(count)) or b""

    def _await(self, step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLEOFError:
                return None
            finally:
                # Sending nothing would tell of a reset before all that came ahead of it has been read.
                if data := self._outgoing.read():
                    self._connection.sendall(data)
            if data := self._connection.recv(65536):
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


@contextmanager
def raw_client(daemon, *, patience: float = 10.0, tls: ssl.SSLContext | None = None) -> Iterator[RawClient]:
    """Connect to a daemon.

    :param patience: seconds of silence after which a wait ends.
    """
    with socket.create_connection(daemon.address) as connection:
        connection.settimeout(patience)
        yield RawClient(connection if tls is None else _Decrypting(connection, tls))
