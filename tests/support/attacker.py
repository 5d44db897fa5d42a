"""A bare socket that attacks a receiver, tells exactly how the receiver ended it, and plays the good peer too."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from support import lying_pdus as wire

_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass
class Answer:
    """A DIMSE response: its command field, Message ID Being Responded To, and status."""

    command: int | None
    message: int | None
    status: int | None


@dataclass
class End:
    """How a connection ended.

    :param how: ``abort`` (an A-ABORT came; it is for us to close then), ``rejected``, ``released``, ``closed``,
        ``reset``, or ``open`` when it had not ended within the patience.
    :param reason: result, source and reason of a rejection; source and reason of an abort.
    :param answers: the DIMSE responses that came before.
    :param seconds: how long that took.
    """

    how: str
    reason: tuple[int, ...] = ()
    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def statuses(self) -> list[int | None]:
        return [answer.status for answer in self.answers]


class Gone(Exception):  # noqa: N818 - an end, not an error
    """The receiver has ended the connection."""


class Aborted(AssertionError):  # noqa: N818 - an end too, which fails a test that did not ask for it
    """The receiver has sent an A-ABORT where something else was waited for."""


class Attacker:
    """One connection.

    :param connection: to the receiver.
    :param patience: seconds after which a wait ends.
    """

    def __init__(self, connection: socket.socket, patience: float) -> None:
        self.socket = connection
        self.patience = patience
        #: Accepted presentation contexts: ID, and the transfer syntax that was chosen.
        self.accepted: dict[int, str] = {}
        #: All contexts of the answer: ID and result (PS3.8 table 9-18).
        self.results: dict[int, int] = {}
        self._buffer = b""

    def send(self, *parts: bytes) -> bool:
        """Send; say whether the receiver was still there."""
        try:
            for part in parts:
                self.socket.sendall(part)
        except (OSError, ValueError):  # a closed TLS socket raises the latter
            return False
        return True

    def associate(self, request: bytes | None = None) -> End | None:
        """Ask for an association; return ``None`` when it was accepted, else how it ended."""
        self.send(wire.association_request() if request is None else request)
        began = time.monotonic()
        try:
            kind, body = self.read_pdu()
        except Gone as gone:
            return End(str(gone), seconds=time.monotonic() - began)
        if kind == wire.ASSOCIATE_RJ:
            return End("rejected", tuple(body[1:4]), seconds=time.monotonic() - began)
        if kind == wire.ABORT:
            return End("abort", tuple(body[2:4]), seconds=time.monotonic() - began)
        assert kind == wire.ASSOCIATE_AC, kind
        for code, value in _items(body[68:]):
            if code == 0x21:
                self.results[value[0]] = value[2]
                if value[2] == 0:
                    syntax = next(inner for sub, inner in _items(value[4:]) if sub == 0x40)
                    self.accepted[value[0]] = syntax.decode()
        return None

    def read_pdu(self) -> tuple[int, bytes]:
        """Read one PDU, or raise :class:`Gone` with the word of :class:`End` for it."""
        deadline = time.monotonic() + self.patience
        kind, _, length = struct.unpack(">BBI", self._take(6, deadline))
        return kind, self._take(length, deadline)

    def answer(self) -> Answer:
        """Read the next DIMSE response; it came whole in one PDU."""
        kind, body = self.read_pdu()
        if kind == wire.ABORT:
            raise Aborted(f"source {body[2]}, reason {body[3]}")
        assert kind == wire.P_DATA, f"PDU of type {kind} instead of a response"
        return _answer(body)

    def end(self) -> End:
        """Read on until the receiver ends the connection."""
        told, began = End(""), time.monotonic()
        deadline = began + self.patience
        try:
            while True:
                kind, _, length = struct.unpack(">BBI", self._take(6, deadline))
                body = self._take(length, deadline)
                if kind == wire.P_DATA:
                    told.answers.append(_answer(body))
                elif kind == wire.ASSOCIATE_RJ:
                    told.how, told.reason = "rejected", tuple(body[1:4])
                elif kind == wire.RELEASE_RP:
                    told.how = "released"
                elif kind == wire.ABORT:
                    told.how, told.reason = "abort", tuple(body[2:4])
                    break
        except Gone as gone:
            if str(gone) == "open" or not told.how:
                told.how = str(gone)
        told.seconds = time.monotonic() - began
        return told

    def release(self) -> None:
        """End the association in order."""
        self.send(wire.pdu(wire.RELEASE_RQ, bytes(4)))
        kind, _ = self.read_pdu()
        assert kind == wire.RELEASE_RP, kind
        self.fin()

    def abort(self) -> None:
        """Send an A-ABORT and close, as PS3.8 says."""
        self.send(wire.pdu(wire.ABORT, bytes(4)))
        self.fin()

    def fin(self) -> None:
        """Close our side, with all that was sent delivered."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def rst(self) -> None:
        """Reset the connection."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.socket.close()

    def _take(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Gone("open")
            self.socket.settimeout(left)
            try:
                piece = self.socket.recv(65536)
            except TimeoutError:
                raise Gone("open") from None
            except ssl.SSLEOFError:
                raise Gone("closed") from None
            except (OSError, ValueError):
                raise Gone("reset") from None
            finally:
                with suppress(OSError):
                    self.socket.settimeout(self.patience)
            if not piece:
                raise Gone("closed")
            self._buffer += piece
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


@contextmanager
def connected(
    address: tuple[str, int], *, tls: ssl.SSLContext | None = None, patience: float = 20.0, narrow: bool = False
) -> Iterator[Attacker]:
    """Connect, and close at the end of the block.

    :param tls: shake hands; ``None`` for plain TCP, whatever the receiver speaks.
    :param narrow: take so little at a time that who sends to us soon has to wait.
    """
    connection = socket.socket()
    connection.settimeout(patience)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if narrow:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    connection.connect(address)
    if tls is not None:
        connection = tls.wrap_socket(connection, server_hostname=address[0])
    attacker = Attacker(connection, patience)
    try:
        yield attacker
    finally:
        attacker.socket.close()


def serve_good_peer(address: tuple[str, int], objects: Sequence[str], *, tls: ssl.SSLContext | None = None) -> float:
    """Do what a well-behaved peer does, and fail unless it is served: associate, C-ECHO, C-STORE, release.

    :param objects: SOP Instance UIDs of the images to store; they are those of :func:`.lying_pdus.data_set`.
    :return: how many seconds it took.
    """
    began = time.monotonic()
    with connected(address, tls=tls) as peer:
        refusal = peer.associate(wire.association_request(calling="GOODPEER"))
        assert refusal is None, f"a good peer was not let in: {refusal}"
        peer.send(*wire.message(wire.VERIFICATION_CONTEXT, wire.echo_command()))
        assert peer.answer() == Answer(wire.C_ECHO_RQ | wire.RESPONSE, 1, 0)
        for uid in objects:
            peer.send(*wire.store_message(uid))
            assert peer.answer() == Answer(wire.C_STORE_RQ | wire.RESPONSE, 1, 0)
        peer.release()
    return time.monotonic() - began


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, _, length = struct.unpack(">BBH", data[:4])
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def _answer(body: bytes) -> Answer:
    """Take a response apart that is one fragment."""
    length, _, control = struct.unpack(">IBB", body[:6])
    assert control == wire.COMMAND | wire.LAST
    assert length == len(body) - 4
    values: dict[int, int] = {}
    data = body[6:]
    while data:
        _, tag, size = struct.unpack("<HHI", data[:8])
        if size == 2:
            values[tag] = int.from_bytes(data[8:10], "little")
        data = data[8 + size :]
    return Answer(values.get(0x0100), values.get(0x0120), values.get(0x0900))
