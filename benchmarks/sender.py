"""The sender of all that is received: prebuilt PDUs from memory to a socket, and an answer awaited for each object.

It speaks C-STORE to receivers, and to a raw copy something simpler: a length, the bytes, and one byte back.
"""

from __future__ import annotations

import itertools
import multiprocessing
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Final

from airflow_provider_varian.dimse.command_set import Command
from benchmarks import wire
from benchmarks.load import Load, Message
from benchmarks.processes import ContestantError

CALLED: Final = "BENCH"
CALLING: Final = "SENDER"
_LENGTH: Final = struct.Struct(">Q")
#: With less than this an object goes out together with its length.
_TOGETHER_BYTES: Final = 65536
_AT_ONCE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Sent:
    """Objects that were sent and acknowledged.

    :param seconds: from the first byte of the first to the last answer; the association stood before.
    :param objects: how many.
    :param latencies: seconds for each of them; empty when they were not looked at one by one.
    """

    seconds: float
    objects: int
    latencies: Sequence[float] = ()


#: Sends what was made ready.
_Go = Callable[[], Sent]


def send(port: int, load: Load, *, limit: int | None = None, halting: bool = False) -> Sent:
    """Send a load over one association.

    :param limit: so many of its objects at most.
    :param halting: as stock DCMTK sends: each PDU in two system calls, head and body, with Nagle's algorithm on.
    :raises WireError: the association was not accepted, or ended.
    :raises ContestantError: an object was refused.
    """
    with _sending(port, load, limit, halting=halting) as go:
        return go()


def copy(port: int, load: Load, *, limit: int | None = None) -> Sent:
    """Send a load to a raw copy.

    :param limit: so many of its objects at most.
    """
    with _copying(port, load, limit) as go:
        return go()


def send_at_once(port: int, loads: Sequence[Load]) -> Sent:
    """Send loads over as many associations, each from a process of its own.

    :raises ContestantError: when one of them was not sent as a whole.
    """
    for load in loads:
        # What is built here is there in the processes as well.
        with _sending(port, load, 0):
            pass
    return _at_once([partial(_sending, port, load) for load in loads])


def copy_at_once(port: int, loads: Sequence[Load]) -> Sent:
    """Send loads to a raw copy over as many connections, each from a process of its own."""
    return _at_once([partial(_copying, port, load) for load in loads])


@contextmanager
def _sending(port: int, load: Load, limit: int | None = None, *, halting: bool = False) -> Iterator[_Go]:
    line = wire.call(port, load.sop_classes, called=CALLED, calling=CALLING, no_delay=not halting)
    try:
        contexts = [line.contexts[uid] for uid in load.sop_classes if uid in line.contexts]
        if len(contexts) < len(load.sop_classes):
            raise ContestantError("a presentation context was not accepted")
        messages = load.messages(line.max_pdu, contexts)
        if halting:
            messages = map(_in_two, messages)
        yield partial(_timed, line.connection, itertools.islice(messages, limit))
    finally:
        line.release()


@contextmanager
def _copying(port: int, load: Load, limit: int | None = None) -> Iterator[_Go]:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield partial(_timed_copies, connection, itertools.islice(load.data_sets(), limit))


def _timed(connection: socket.socket, messages: Iterable[Message]) -> Sent:
    latencies: list[float] = []
    start = time.perf_counter()
    for message in messages:
        began = time.perf_counter()
        for part in message:
            connection.sendall(part)
        kind, pdu = wire.read_pdu(connection)
        latencies.append(time.perf_counter() - began)
        if kind != wire.P_DATA_TF:
            raise ContestantError(f"object {len(latencies)} was answered by a PDU of type {kind}")
        if status := Command(bytes(pdu[wire.FRAGMENT_AT :])).status:
            raise ContestantError(f"object {len(latencies)} was refused: 0x{status:04X}")
    return Sent(time.perf_counter() - start, len(latencies), latencies)


def _timed_copies(connection: socket.socket, data_sets: Iterable[bytes]) -> Sent:
    latencies: list[float] = []
    start = time.perf_counter()
    for data_set in data_sets:
        began = time.perf_counter()
        length = _LENGTH.pack(len(data_set))
        if len(data_set) < _TOGETHER_BYTES:
            connection.sendall(length + data_set)
        else:
            connection.sendall(length)
            connection.sendall(data_set)
        wire.read_exactly(connection, 1)
        latencies.append(time.perf_counter() - began)
    return Sent(time.perf_counter() - start, len(latencies), latencies)


def _in_two(message: Message) -> Iterator[bytes]:
    """Cut a message into heads and bodies of its PDUs."""
    data = b"".join(message)
    position = 0
    while position < len(data):
        end = position + 6 + int.from_bytes(data[position + 2 : position + 6], "big")
        yield data[position : position + wire.FRAGMENT_AT]
        yield data[position + wire.FRAGMENT_AT : end]
        position = end


def _at_once(openings: Sequence[Callable[[], AbstractContextManager[_Go]]]) -> Sent:
    """Run each in a process of its own; the time is from when all are ready to when all are done."""
    # Forked: they have the prebuilt messages without a copy. The one other thread, which looks at processes, waits.
    context = multiprocessing.get_context("fork")
    barrier, objects = context.Barrier(len(openings) + 1), context.Value("q", 0)

    def run(opening: Callable[[], AbstractContextManager[_Go]]) -> None:
        try:
            with opening() as go:
                barrier.wait(_AT_ONCE_SECONDS)
                sent = go()
                with objects.get_lock():
                    objects.value += sent.objects
                barrier.wait(_AT_ONCE_SECONDS)
        except BaseException:
            barrier.abort()
            raise

    processes = [context.Process(target=run, args=(opening,), daemon=True) for opening in openings]
    for process in processes:
        process.start()
    try:
        seconds = _between(barrier)
    except threading.BrokenBarrierError as broken:
        raise ContestantError(f"one of {len(openings)} senders failed; what it said stands above") from broken
    finally:
        for process in processes:
            process.join(_AT_ONCE_SECONDS)
            process.kill()
    return Sent(seconds, objects.value)


def _between(barrier: Barrier) -> float:
    barrier.wait(_AT_ONCE_SECONDS)
    start = time.perf_counter()
    barrier.wait(_AT_ONCE_SECONDS)
    return time.perf_counter() - start
