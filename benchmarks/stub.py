"""A peer that costs nothing: it answers C-FIND and C-GET with prebuilt PDUs, so that the client is what is measured.

python -m benchmarks.stub PORT [--answers N] [--files FILE ...]
"""

from __future__ import annotations

import argparse
import socket
import struct
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from airflow_provider_varian.dimse.command_set import C_GET_RSP, RetrieveProgress
from airflow_provider_varian.uids import STUDY_ROOT_FIND, STUDY_ROOT_GET
from benchmarks import find_answers, wire
from benchmarks.load import FilesLoad

_C_FIND_RQ: Final = 0x0020
_C_GET_RQ: Final = 0x0010
_C_FIND_RSP: Final = 0x8020
_PENDING: Final = 0xFF00
_HEAD: Final = struct.Struct("<HHI")
_DATA_SET: Final = 0x0001
_NO_DATA_SET: Final = 0x0101
_COMMAND: Final = 1
_LAST: Final = 2


class Stub:
    """Answers whoever calls, each in a thread of its own.

    :param count: answers to each C-FIND.
    :param files: what each C-GET brings.
    """

    def __init__(self, count: int, files: list[Path]) -> None:
        self._identifiers = list(find_answers.identifiers(count))
        self._load = FilesLoad(files)
        # Built at the first request, kept for the next.
        self._answers = lru_cache(maxsize=8)(self._build)

    def listen(self, port: int) -> None:
        """Serve until the process is ended."""
        with socket.create_server(("127.0.0.1", port)) as server:
            while True:
                connection, _ = server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                line, _ = wire.answer(connection)
                while (request := _request(connection)) is not None:
                    context, command = request
                    self._answer(line, context, command)
                connection.sendall(wire.RELEASE_RP)
            except (OSError, wire.WireError):
                return  # whoever called has gone

    def _answer(self, line: wire.Line, context: int, command: dict[int, bytes]) -> None:
        field, message_id = _number(command, 0x0100), _number(command, 0x0110)
        if field == _C_FIND_RQ:
            line.connection.sendall(self._answers(context, message_id))
        elif field == _C_GET_RQ:
            self._bring(line, context, message_id)

    def _build(self, context: int, message_id: int) -> bytes:
        pending = _framed(context, _COMMAND | _LAST, _find_response(message_id, _PENDING))
        matches = b"".join(pending + _framed(context, _LAST, identifier) for identifier in self._identifiers)
        return matches + _framed(context, _COMMAND | _LAST, _find_response(message_id, 0x0000))

    def _bring(self, line: wire.Line, context: int, message_id: int) -> None:
        contexts = [line.contexts[uid] for uid in self._load.sop_classes]
        for message in self._load.messages(line.max_pdu, contexts):
            for part in message:
                line.connection.sendall(part)
            wire.read_pdu(line.connection)
        done = RetrieveProgress(
            command_field=C_GET_RSP,
            sop_class_uid=STUDY_ROOT_GET,
            responds_to=message_id,
            status=0x0000,
            remaining=0,
            completed=self._load.count,
            failed=0,
            warning=0,
        )
        line.connection.sendall(_framed(context, _COMMAND | _LAST, done.encoded()))


def _request(connection: socket.socket) -> tuple[int, dict[int, bytes]] | None:
    """Read a request and its identifier; ``None`` when the association is to end."""
    command = bytearray()
    while True:
        kind, pdu = wire.read_pdu(connection)
        if kind != wire.P_DATA_TF:
            return None
        for context, header, fragment in _fragments(pdu):
            if header & _COMMAND:
                command += fragment
            elif header & _LAST:
                return context, dict(_elements(bytes(command)))


def _fragments(pdu: bytearray) -> Iterator[tuple[int, int, bytes]]:
    position = 6
    while position < len(pdu):
        length, context, header = struct.unpack_from(">IBB", pdu, position)
        yield context, header, bytes(pdu[position + 6 : position + 4 + length])
        position += 4 + length


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        _, element, length = _HEAD.unpack_from(data, position)
        position += _HEAD.size + length
        yield element, data[position - length : position]


def _number(command: dict[int, bytes], element: int) -> int:
    return int.from_bytes(command[element], "little")


def _find_response(message_id: int, status: int) -> bytes:
    uid = STUDY_ROOT_FIND.encode()
    uid += b"\0" * (len(uid) % 2)
    follows = _DATA_SET if status == _PENDING else _NO_DATA_SET
    numbers = ((0x0100, _C_FIND_RSP), (0x0120, message_id), (0x0800, follows), (0x0900, status))
    body = _HEAD.pack(0, 0x0002, len(uid)) + uid
    body += b"".join(struct.pack("<HHIH", 0, element, 2, value) for element, value in numbers)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _framed(context: int, header: int, fragment: bytes) -> bytes:
    return struct.pack(">BBIIBB", wire.P_DATA_TF, 0, len(fragment) + 6, len(fragment) + 2, context, header) + fragment


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description="answer with prebuilt PDUs")
    parser.add_argument("port", type=int)
    parser.add_argument("--answers", type=int, default=0)
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    Stub(options.answers, options.files).listen(options.port)


if __name__ == "__main__":
    main()
