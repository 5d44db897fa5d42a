"""The limit of what a receiver can do that acknowledges one object at a time: socket to file, and a byte back.

Durable, it does what it takes to promise something: file, fsync, rename, fsync of the folder.

    python -m benchmarks.raw_copy PORT FOLDER [--durable]
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Final

_LENGTH: Final = struct.Struct(">Q")
_BUFFER_BYTES: Final = 1024 * 1024


class RawCopy:
    """Writes what comes on connections, each in a thread of its own.

    :param folder: where to; what is being written is in ``tmp`` below it, the rest in ``new``.
    :param durable: whether it is on the disk before it is acknowledged.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._tmp, self._new, self._durable = folder / "tmp", folder / "new", durable
        self._numbers = itertools.count()
        for each in (self._tmp, self._new):
            each.mkdir(parents=True, exist_ok=True)
        self._folder = os.open(self._new, os.O_RDONLY | os.O_DIRECTORY)

    def listen(self, port: int) -> None:
        """Serve until the process is ended."""
        with socket.create_server(("127.0.0.1", port)) as server:
            while True:
                connection, _ = server.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        """Take one object after the other."""
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while len(head := connection.recv(_LENGTH.size, socket.MSG_WAITALL)) == _LENGTH.size:
                if not self._take(connection, _LENGTH.unpack(head)[0], buffer):
                    return
                connection.sendall(b"k")

    def _take(self, connection: socket.socket, left: int, buffer: memoryview) -> bool:
        name = str(next(self._numbers))
        path = self._tmp / name if self._durable else self._new / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            while left:
                count = connection.recv_into(buffer[: min(left, _BUFFER_BYTES)])
                if not count:
                    return False
                os.write(descriptor, buffer[:count])
                left -= count
            if self._durable:
                os.fsync(descriptor)
                os.rename(path, self._new / name)
                os.fsync(self._folder)
        finally:
            os.close(descriptor)
        return True


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description="receive as plainly as can be")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--durable", action="store_true")
    options = parser.parse_args()
    RawCopy(options.folder, durable=options.durable).listen(options.port)


if __name__ == "__main__":
    main()
