"""A DICOM peer made of bare sockets, which can misbehave in every way at every moment."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress

IMPLICIT = "1.2.840.10008.1.2"
_TAGS = {
    "affected_class": 0x0002,
    "command": 0x0100,
    "message_id": 0x0110,
    "responds_to": 0x0120,
    "destination": 0x0600,
    "priority": 0x0700,
    "data_set": 0x0800,
    "status": 0x0900,
    "comment": 0x0902,
    "affected_instance": 0x1000,
    "remaining": 0x1020,
    "completed": 0x1021,
    "failed": 0x1022,
    "warning": 0x1023,
    "originator": 0x1030,
    "originator_id": 0x1031,
}
_NAMES = {tag: name for name, tag in _TAGS.items()}

C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF
RSP = 0x8000


class Closed(Exception):  # noqa: N818 - an end, not an error
    """The other side is gone."""


class Wire:
    """One accepted connection, at the level of PDUs and DIMSE messages."""

    def __init__(self, connection):
        self.socket = connection
        self.contexts = {}

    def read(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise Closed
            data += piece
        return data

    def read_pdu(self):
        kind, _, length = struct.unpack(">BBI", self.read(6))
        return kind, self.read(length)

    def accept(self, *, refuse=(), max_pdu=16384, items=b"", roles=True):
        """Read an A-ASSOCIATE-RQ and answer with an AC that takes all contexts in Implicit VR."""
        kind, body = self.read_pdu()
        assert kind == 1
        self.request = body
        self.socket.sendall(self.accept_pdu(body, refuse, max_pdu, items, roles))

    def accept_pdu(self, body, refuse=(), max_pdu=16384, items=b"", roles=True):
        variable, answers, granted = body[68:], b"", b""
        for kind, item in _items(variable):
            if kind == 0x20:
                abstract = next(value for sub, value in _items(item[4:]) if sub == 0x30).decode()
                ok = abstract not in refuse
                if ok:
                    self.contexts[item[0]] = abstract
                answers += _item(0x21, bytes([item[0], 0, 0 if ok else 3, 0]) + _item(0x40, IMPLICIT.encode()))
            elif kind == 0x50:
                granted = b"".join(_item(sub, value) for sub, value in _items(item) if sub == 0x54 and roles)
        user = (
            _item(0x51, struct.pack(">I", max_pdu))
            + _item(0x52, b"1.2.3.4")
            + _item(0x55, b"RAW_PEER")
            + granted
            + items
        )
        application = _item(0x10, b"1.2.840.10008.3.1.1.1")
        return _pdu(2, struct.pack(">HH", 1, 0) + body[4:68] + application + answers + _item(0x50, user))

    def reject(self, result, source, reason):
        self.read_pdu()
        self.socket.sendall(_pdu(3, bytes([0, result, source, reason])))

    def abort(self, source=0, reason=0):
        self.socket.sendall(_pdu(7, bytes([0, 0, source, reason])))

    def read_message(self):
        """Return the next command set as a mapping, and its data set; answers a release on the way."""
        command, data, fields = b"", b"", None
        while True:
            kind, body = self.read_pdu()
            if kind == 5:
                self.socket.sendall(_pdu(6, bytes(4)))
                raise Closed
            if kind in (6, 7):  # our own release is answered, or the association aborted: both end it
                raise Closed
            assert kind == 4
            while body:
                length, context, flags = struct.unpack(">IBB", body[:6])
                fragment, body = body[6 : 4 + length], body[4 + length :]
                if flags & 1:
                    command += fragment
                else:
                    data += fragment
                if flags == 3:
                    fields = parse_command(command)
                    fields["context"] = context
                last = flags & 2
            if fields is not None and (fields.get("data_set") == 0x0101 or (last and not flags & 1)):
                return fields, data

    def message(self, context, data=None, **fields):
        """Return a DIMSE message as a list of PDUs: the command set, and the data set if there is one."""
        fields["data_set"] = 0x0101 if data is None else 0x0001
        pdus = [_pdu(4, _pdv(context, 3, build_command(**fields)))]
        if data is not None:
            pdus.append(_pdu(4, _pdv(context, 2, data)))
        return pdus

    def send(self, context, data=None, **fields):
        for pdu in self.message(context, data, **fields):
            self.socket.sendall(pdu)

    def send_fragment(self, context, data, *, last):
        """Send a piece of a data set in a PDU of its own."""
        self.socket.sendall(_pdu(4, _pdv(context, 2 if last else 0, data)))

    def respond(self, request, status, data=None, **fields):
        self.send(
            request["context"],
            data,
            command=request["command"] | RSP,
            responds_to=request["message_id"],
            affected_class=request["affected_class"],
            status=status,
            **fields,
        )

    def wait_for_end(self):
        """Ignore what comes until the other side is gone, but answer a release."""
        try:
            while True:
                self.read_message()
        except (Closed, OSError):
            pass

    def ignore_everything(self):
        """Read on until the other side is gone, and answer nothing."""
        try:
            while self.socket.recv(65536):
                pass
        except OSError:
            pass


@contextmanager
def raw_peer(play):
    """Run ``play(wire)`` for each connection; yields the port. What a player raises fails the test."""
    server = socket.create_server(("127.0.0.1", 0))
    threads, problems, connections = [], [], []

    def one(connection):
        connections.append(connection)
        with connection, suppress(Closed, ConnectionError):
            try:
                play(Wire(connection))
            except (AssertionError, KeyError, TypeError, ValueError, StopIteration) as error:
                problems.append(error)

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=one, args=(connection,), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=serve, daemon=True)
    acceptor.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        acceptor.join(10)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
    if problems:
        raise problems[0]


def element(tag, value):
    """Encode an element of Implicit VR Little Endian."""
    value += b"\0" if len(value) % 2 else b""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def build_command(**fields):
    body = b""
    for name, value in sorted(fields.items(), key=lambda pair: _TAGS[pair[0]]):
        encoded = struct.pack("<H", value) if isinstance(value, int) else value.encode()
        body += element(_TAGS[name], encoded)
    return element(0x0000, struct.pack("<I", len(body))) + body


def parse_command(data):
    fields = {}
    while data:
        _, number, length = struct.unpack("<HHI", data[:8])
        value, data = data[8 : 8 + length], data[8 + length :]
        name = _NAMES.get(number)
        if name is not None:
            text = name in ("affected_class", "affected_instance", "destination", "comment", "originator")
            fields[name] = value.decode().rstrip("\0 ") if text else struct.unpack("<H", value)[0]
    return fields


def _items(data):
    while data:
        kind, _, length = struct.unpack(">BBH", data[:4])
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def _item(kind, value):
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _pdu(kind, body):
    return struct.pack(">BBI", kind, 0, len(body)) + body


def _pdv(context, flags, data):
    return struct.pack(">IBB", len(data) + 2, context, flags) + data
