"""A DICOM client made of a bare socket, which tells exactly how a peer ended the connection."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import Dataset
from pynetdicom.dsutils import encode
from support.raw_peer import C_FIND_RQ, C_MOVE_RQ, IMPLICIT, Closed, Wire, _item, _pdu, _pdv, parse_command

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

    def associate(self, called: str = "VMSDBD", calling: str = "AIRFLOW") -> Told:
        """Ask for an association; ``final`` when it was accepted."""
        contexts = b"".join(
            _item(0x20, bytes([2 * number + 1, 0, 0, 0]) + _item(0x30, uid.encode()) + _item(0x40, IMPLICIT.encode()))
            for number, uid in enumerate(MODELS)
        )
        user = _item(0x50, _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3"))
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
        command = Dataset()
        command.AffectedSOPClassUID = model
        command.CommandField = C_MOVE_RQ if destination else C_FIND_RQ
        command.MessageID, command.Priority, command.CommandDataSetType = 1, 0, 1
        if destination:
            command.MoveDestination = destination
        content = encode(command, True, True)
        length = struct.pack("<HHII", 0, 0, 4, len(content))
        context = 2 * MODELS.index(model) + 1
        self.socket.sendall(_pdu(4, _pdv(context, 3, length + content)))
        self.socket.sendall(_pdu(4, _pdv(context, 2, encode(keys, True, True))))
        return self.listen()

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


@contextmanager
def raw_client(daemon, *, patience: float = 10.0) -> Iterator[RawClient]:
    """Connect to a daemon.

    :param patience: seconds of silence after which a wait ends.
    """
    with socket.create_connection(daemon.address) as connection:
        connection.settimeout(patience)
        yield RawClient(connection)
