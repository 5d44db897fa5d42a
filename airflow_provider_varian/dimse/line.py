"""An association's connection in the hands of one thread, for as long as it sends objects.

pynetdicom's upper layer is a thread that looks at its queues and its socket a thousand times a second and
passes each PDU through several threads (performance 1.4, 7). For a run of C-STORE sub-operations the
thread that sends them owns the socket instead: that thread waits at a gate, between two steps of its state
machine, and nothing else reads or writes. What the sender cannot deal with it hands over, as
``DULServiceProvider._read_pdu_data`` would, and lets the gate go: association, release and abort stay
pynetdicom's. One thread at a time on the socket is also what TLS demands.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from pynetdicom.association import Association

from airflow_provider_varian.dimse import parked, socket_manners
from airflow_provider_varian.dimse.framing import Buffers

P_DATA_TF: Final = 0x04

#: How often a wait looks whether somebody here wants the association to end.
_TICK_SECONDS: Final = 0.05
#: How long pynetdicom's thread may take to come to the gate, or to deal with what was handed over.
_HANDSHAKE_SECONDS: Final = 2.0
#: How long that thread rests at the gate before it looks at the socket by itself, when nobody holds the line.
_REST_SECONDS: Final = 0.02
_ESTABLISHED: Final = "Sta6"
_MOST_BUFFERS: Final = 1000
_PDU_HEAD: Final = struct.Struct(">BBI")
#: What a PDU may be longer than we announced; with no limit announced, what it may be long.
_PDU_SLACK: Final = 128
_PDU_BOUND: Final = 1024 * 1024
# pynetdicom's events (PS3.8 9.2.3).
_CONNECTION_CLOSED: Final = "Evt17"
_INVALID_PDU: Final = "Evt19"


class LineLostError(Exception):
    """The line was given back before its time.

    :param silent: the peer is there, but does not answer, or does not take what is sent.
    """

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__("silent" if silent else "ended")
        self.silent = silent


class Line:
    """The connection of an established association, for one thread to hold again and again.

    :param assoc: an association on which no request of ours is under way.
    """

    def __init__(self, assoc: Association) -> None:
        # pynetdicom's inside, and instance attributes over methods: mypy has no words for these.
        self._assoc: Any = assoc
        self._dul: Any = assoc.dul
        self._gate = threading.Condition()
        self._open = self._waiting = self._held = False
        self._stock_step: Callable[[], bool] = self._dul._process_recv_primitive
        self._stock_send: Callable[[Any], None] = self._dul.send_pdu
        self._gates = {"_process_recv_primitive": self._pass_gate, "send_pdu": self._send_pdu}
        #: What somebody else has put over pynetdicom's methods before.
        self._before = {name: self._dul.__dict__[name] for name in self._gates if name in self._dul.__dict__}
        self._connection: Any = None
        self._timeout: float | None = None
        #: What reads for pynetdicom, if it does not itself (:mod:`.streaming`).
        self._reader: Any = getattr(assoc.dul, "stream", None)
        own = assoc.requestor if assoc.is_requestor else assoc.acceptor
        self._longest = own.maximum_length + _PDU_SLACK if own.maximum_length else _PDU_BOUND

    def close(self) -> None:
        """Take the gate away, and leave pynetdicom's thread as it was found; harmless when it was done before."""
        self.give_back()
        if self._reader is not None:
            self._reader.rests_elsewhere = False
        with self._gate:
            self._open = True
            self._gate.notify_all()
        found = self._dul.__dict__
        for name, gate in self._gates.items():
            # What was put over it meanwhile leads through it, and is not ours to take away.
            if found.get(name) != gate:
                continue
            if name in self._before:
                found[name] = self._before[name]
            else:
                del found[name]

    def set_up(self) -> None:
        """Put the gate before pynetdicom's thread; undone by :meth:`close`."""
        self._dul.__dict__.update(self._gates)
        if self._reader is not None:
            # It rests at the gate from now on.
            self._reader.rests_elsewhere = True
            self._reader.wake()

    @property
    def established(self) -> bool:
        """Whether there is an association to send on, and the run was not ended by its peer."""
        return not self._open and bool(self._dul.is_alive()) and self._dul.state_machine.current_state == _ESTABLISHED

    def take(self) -> bool:
        """Wait until pynetdicom's thread is at the gate, and hold the line until :meth:`give_back`.

        :return: whether the line is held; not so when the association has ended, or pynetdicom has read half of a
            message, which only it can finish.
        """
        with self._gate:
            self._gate.wait_for(lambda: self._at_gate() or not self.established, _HANDSHAKE_SECONDS)
            wrapped = self._dul.socket
            self._connection = wrapped.socket if wrapped is not None else None
            usable = self._at_gate() and self.established and self._assoc.dimse.message is None
            usable = usable and not (self._reader is not None and self._reader.holds_something)
            self._held = usable and self._connection is not None
        if self._held:
            self._timeout = self._connection.gettimeout()
            self._connection.settimeout(_TICK_SECONDS)
        return self._held

    def give_back(self) -> None:
        """Let pynetdicom go on; harmless when the line is not held."""
        if self._held:
            # When it is closed meanwhile, pynetdicom finds out by itself.
            with suppress(OSError):
                self._connection.settimeout(self._timeout)
            self._dul._idle_timer.restart()
            # Nobody is woken: pynetdicom's thread looks by itself soon enough, unless there is something to send.
            self._held = False

    def write(self, buffers: Buffers, deadline: float) -> None:
        """Send buffers.

        :param deadline: seconds that the peer may take none of it.
        :raises LineLostError: the connection is gone, somebody here ended it, or the peer takes nothing.
        """
        limit = time.monotonic() + deadline
        if isinstance(self._connection, ssl.SSLSocket):
            # TLS knows no gathering, and each small write would become a record of its own.
            buffers = [b"".join(buffers)]
        first = 0
        while first < len(buffers):
            try:
                sent = self._send(buffers[first : first + _MOST_BUFFERS], deadline)
            except (TimeoutError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._look_around(limit)
                continue
            except OSError:
                # What the peer said before it went is read by pynetdicom.
                self._end()
                raise LineLostError from None
            limit = time.monotonic() + deadline
            first = _advance(buffers, first, sent)
        socket_manners.acknowledge_at_once(self._connection)

    def readable(self) -> bool:
        """Say whether the peer has sent something that was not read yet."""
        connection = self._connection
        pending = getattr(connection, "pending", None)
        if pending is not None and pending():
            return True
        poll = select.poll()
        try:
            poll.register(connection, select.POLLIN)
        except (OSError, ValueError):
            return True  # Closed meanwhile: reading finds out.
        return bool(poll.poll(0))

    def read_pdu(self, deadline: float) -> bytearray:
        """Read one PDU, head and all.

        :param deadline: when to give up, as ``time.monotonic()`` counts.
        :raises LineLostError: the connection is gone, the PDU is longer than announced, somebody here ended the
            association, or nothing came.
        """
        self._look_around(deadline)
        pdu = bytearray(_PDU_HEAD.size)
        self._read_into(memoryview(pdu), deadline)
        _, _, length = _PDU_HEAD.unpack(pdu)
        if length > self._longest:
            self.hand_over_event(_INVALID_PDU)
        pdu += bytes(length)
        self._read_into(memoryview(pdu)[_PDU_HEAD.size :], deadline)
        return pdu

    def hand_over(self, pdus: Sequence[bytearray]) -> NoReturn:
        """Give PDUs to pynetdicom as if it had read them itself, and the line with them.

        :raises LineLostError: always: this is the end of the run.
        """
        for raw in pdus:
            try:
                pdu, event = self._dul._decode_pdu(raw)
            except Exception:  # noqa: BLE001 - whatever pynetdicom's decoder raises, as in _read_pdu_data
                self._dul.event_queue.put(_INVALID_PDU)
                break
            self._dul.event_queue.put(event)
            self._dul._recv_pdu.put(pdu)
        self._end()
        raise LineLostError

    def hand_over_event(self, event: str) -> NoReturn:
        """Tell pynetdicom's state machine of an event that no PDU stands for, and give the line back.

        :raises LineLostError: always.
        """
        self._dul.event_queue.put(event)
        self._end()
        raise LineLostError

    def _send(self, buffers: Buffers, seconds: float) -> int:
        connection = self._connection
        sent: int
        if issubclass(type(connection), ssl.SSLSocket):
            sent = connection.send(buffers[0])
            return sent
        if type(connection) is socket.socket:
            return connection.sendmsg(buffers)
        # What stands in for a socket, of TLS or not, as the simulator's faults do, sends all or fails.
        connection.settimeout(seconds)
        try:
            sent = connection.sendmsg(buffers)
        finally:
            connection.settimeout(_TICK_SECONDS)
        return sent

    def _read_into(self, view: memoryview, deadline: float) -> None:
        while view:
            try:
                count = self._connection.recv_into(view)
            except (TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self._look_around(deadline)
                continue
            except OSError:
                count = 0
            if not count:
                self.hand_over_event(_CONNECTION_CLOSED)
            view = view[count:]

    def _look_around(self, deadline: float) -> None:
        """Give the line back when somebody here wants to send, which is to abort, or time is over."""
        if not self._dul.to_provider_queue.empty() or not self._dul.is_alive():
            self.give_back()
            raise LineLostError
        if time.monotonic() > deadline:
            self.give_back()
            raise LineLostError(silent=True)

    def _pass_gate(self) -> bool:
        """Run in pynetdicom's thread, where it looks for something to send (``_process_recv_primitive``)."""
        with self._gate:
            if self._dul.event_queue.empty():
                self._waiting = True
                self._gate.notify_all()
                self._gate.wait_for(self._may_pass, _REST_SECONDS)
                while self._held:
                    self._gate.wait_for(self._may_pass, _REST_SECONDS)
                self._waiting = False
        return self._stock_step()

    def _at_gate(self) -> bool:
        return self._waiting and self._dul.to_provider_queue.empty()

    def _may_pass(self) -> bool:
        return not self._held and (self._open or not self._dul.to_provider_queue.empty())

    def _send_pdu(self, primitive: Any) -> None:
        """Leave a primitive to pynetdicom's thread (``send_pdu``), and wake it."""
        self._stock_send(primitive)
        with self._gate:
            self._gate.notify_all()

    def _end(self) -> None:
        """Give the line back, and wait until pynetdicom has told the end to who asks, or has taken the message."""
        self.close()
        limit = time.monotonic() + _HANDSHAKE_SECONDS
        while time.monotonic() < limit and self._dul.is_alive() and not parked.end_waits(self._assoc):
            if self._dul.event_queue.empty() and not self._assoc.dimse.msg_queue.empty():
                return
            time.sleep(0.001)


def _advance(buffers: Buffers, first: int, sent: int) -> int:
    """Return the number of the first buffer that is not sent yet, cut to what is left of it."""
    while sent:
        length = len(buffers[first])
        if sent < length:
            buffers[first] = memoryview(buffers[first])[sent:]
            return first
        sent -= length
        first += 1
    return first
