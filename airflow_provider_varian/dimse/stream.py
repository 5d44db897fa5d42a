"""One association's connection read by us, in pynetdicom's own thread; :mod:`.streaming` tells why and how.

What is put over pynetdicom's methods is here, and what each of them promises the rest of pynetdicom.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Final, cast

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT, P_DATA

from airflow_provider_varian.dimse import association_request
from airflow_provider_varian.dimse.acceptor import Threads
from airflow_provider_varian.dimse.bounds import Bounds, MalformedError
from airflow_provider_varian.dimse.connection import Connection
from airflow_provider_varian.dimse.dispatch import SERVED, Dispatch, Taker
from airflow_provider_varian.dimse.incoming import Incoming
from airflow_provider_varian.dimse.pdu_reader import PduReader
from airflow_provider_varian.dimse.storage import PROTOCOL, TIMEOUT, StoreObserver

log = logging.getLogger(__name__)

# States of PS3.8 9.2, and events as pynetdicom calls them.
_IDLE: Final = "Sta1"
_AWAITING_REQUEST: Final = "Sta2"
_ESTABLISHED: Final = "Sta6"
_AWAITING_RELEASE: Final = "Sta7"
_RELEASE_ASKED: Final = "Sta8"
_OVER: Final = "Sta13"
_CONNECTION_CLOSED: Final = "Evt17"
_INVALID_PDU: Final = "Evt19"
_A_ASSOCIATE_RQ, _A_ASSOCIATE_AC, _A_ABORT = 1, 2, 7

#: Timers of pynetdicom are looked at so often. What else ends a wait ends it at once.
_LOOK_SECONDS: Final = 0.5
#: How often it is looked whether there is room again for what waits to be dealt with.
_FULL_SECONDS: Final = 0.005
#: How long a peer that we abort may go on sending before the connection is closed under it. Closed earlier, with
#: something unread, the connection is reset, and a peer may never see the A-ABORT.
_LINGER_SECONDS: Final = 0.2
#: pynetdicom asks again so often whether its thread has come to its end.
_STOP_SECONDS: Final = 0.02
#: Messages that may wait for who asked; a large one waits alone.
_MOST_WAITING: Final = 256
_LARGE_BYTES: Final = 64 * 1024


class Stream:
    """Reads one association's connection; made by :func:`.streaming.attach` and
    :func:`.streaming.attach_requestor`.

    :param assoc: an association whose connection is open, and not read by its thread yet.
    :param bounds: of what its peer may do.
    :param observer: is told of activity, and of an end that we make.
    """

    def __init__(self, assoc: Association, bounds: Bounds, observer: StoreObserver) -> None:
        # pynetdicom's inside, and instance attributes over methods: mypy has no words for these.
        self._assoc: Any = assoc
        self._dul: Any = assoc.dul
        self._wrapped = cast(Any, assoc.dul.socket)
        self._bounds = bounds
        self._observer = observer
        self._connection = Connection(self._wrapped.socket)
        known = {"known": SERVED} if assoc.is_acceptor else {}
        self._dispatch = Dispatch(bounds, self._hand_over, self._stop_before_next, **known)
        self._incoming = Incoming(bounds, self._dispatch)
        self._reader = PduReader(self._connection, bounds, self._incoming)
        self._pdus_told = 0
        self._large_waits = False
        #: Who has his answer goes on with the next object.
        self._has_answered = False
        #: An acceptor's thread serves from EVT_ESTABLISHED on, not yet when the peer may send.
        self._is_served = not assoc.is_acceptor
        #: A receiver is told by its observer, and may meet hundreds of such peers.
        self._level = logging.INFO if assoc.is_acceptor else logging.WARNING
        self._linger_until = 0.0
        self._aborting = self._told_end = False
        self._threads: Threads | None = None
        #: Set by who waits elsewhere for pynetdicom's thread, so that it does not wait here.
        self.rests_elsewhere = False
        self._find_primitive = self._dul._process_recv_primitive
        self._queue_primitive = self._dul.send_pdu
        self._kill = self._dul.kill_dul
        self._stock_abort = self._assoc._abort_blocking

    def install(self) -> None:
        """Put it in place of pynetdicom's reading."""
        dul = self._dul
        dul.stream = self
        # It waits in _read().
        dul._run_loop_delay = 0
        dul._is_transport_event = self._read
        dul._process_recv_primitive = self._find_to_send
        dul.send_pdu = self._send_pdu
        dul.kill_dul = self._kill_dul
        dul.stop_dul = self._stop_dul
        self._wrapped.send = self._send_for_library
        self._assoc._abort_blocking = self._abort
        if self._assoc.is_acceptor:
            self._threads = Threads(self._assoc, self._close)
            self._threads.install()
            self._assoc.bind(evt.EVT_ESTABLISHED, self._serve)

    def give_to(self, command_field: int, taker: Taker) -> None:
        """Give messages of one kind to a taker for as long as the association lives."""
        self._dispatch.give_to(command_field, taker)

    def taking(self, command_field: int, taker: Taker) -> AbstractContextManager[None]:
        """Give messages of one kind to a taker while a block runs; see :meth:`.dispatch.Dispatch.taking`."""
        return self._dispatch.taking(command_field, taker)

    def wake(self) -> None:
        """Make the reading thread look around, if it waits."""
        self._connection.wake()

    @property
    def holds_something(self) -> bool:
        """Whether the peer has begun to say something that was not dealt with yet."""
        return self._reader.has_begun

    def answer(self, message: bytes) -> None:
        """Send a message; for takers, in the thread that calls them. What was to be sent before goes before."""
        waiting = self._dul.to_provider_queue
        while waiting.queue and isinstance(waiting.queue[0], P_DATA) and self._state == _ESTABLISHED:
            self._dul._send(P_DATA_TF(waiting.get(block=False)))
        self._send(message)
        self._has_answered = True

    # ------------------------------------------------------------------------- in place of pynetdicom's own methods

    def _read(self) -> bool:
        """Read what there is, or wait for it (``_is_transport_event``); say whether something came."""
        if self._dul.event_queue.queue:
            if self._state == _AWAITING_REQUEST and self._dul.artim_timer.expired:
                self._tell_end(TIMEOUT)
            return False
        if self._wrapped.socket is None:
            self._pause(_FULL_SECONDS)
            return False
        if self._state == _OVER:
            self._let_go()
            return True
        try:
            heard = self._read_on()
            if self._dul._kill_thread:
                self._close()
            return heard
        except MalformedError as error:
            log.log(self._level, "Aborting the association with %s: %s", self._peer, error)
            self._break_off(PROTOCOL)
        except TimeoutError:
            log.log(self._level, "Aborting the association with %s: it is silent within a message", self._peer)
            self._break_off(TIMEOUT)
        except Exception:
            log.exception("Aborting the association with %s: reading failed unexpectedly", self._peer)
            self._break_off(None)
        return True

    def _find_to_send(self) -> bool:
        """Say whether there is something to send that may be sent now (``_process_recv_primitive``)."""
        waiting = self._dul.to_provider_queue.queue
        # One event at a time: the state in which a primitive is judged is the one that the last event led to.
        if not waiting or self._dul.event_queue.queue:
            return False
        state, first = self._state, waiting[0]
        is_abort = isinstance(first, A_ABORT | A_P_ABORT)
        # pynetdicom's thread dies of a primitive that does not belong into its state (PS3.8 table 9-10).
        if state == _OVER or (isinstance(first, P_DATA) and state not in (_ESTABLISHED, _RELEASE_ASKED)):
            self._dul.to_provider_queue.get(block=False)
            return False
        if state == _AWAITING_REQUEST and is_abort:
            # With whom there is no association, there is none to abort.
            self._dul.to_provider_queue.get(block=False)
            self._wrapped.close()
            return True
        if is_abort:
            self._dispatch.abandon()
        return bool(self._find_primitive())

    def _send_pdu(self, primitive: Any) -> None:
        if isinstance(primitive, A_ABORT) and self._dul.idle_timer_expired():
            self._tell_end(TIMEOUT)
        self._queue_primitive(primitive)
        self._connection.wake()

    def _send_for_library(self, data: bytes) -> None:
        """Send what pynetdicom has encoded (``AssociationSocket.send``)."""
        self._aborting = self._aborting or data[:1] == bytes([_A_ABORT])
        self._send(data)
        evt.trigger(self._assoc, evt.EVT_DATA_SENT, {"data": data})

    def _send(self, data: bytes) -> None:
        seconds = _LINGER_SECONDS if self._aborting else self._bounds.read_seconds
        try:
            self._connection.send(data, seconds, self._wants_abort)
        except OSError:
            self._put_event(_CONNECTION_CLOSED)

    def _abort(self, block: bool = True) -> None:
        """Abort; a taker that does so runs in the very thread that is to send it, and cannot wait for that."""
        self._stock_abort(block and threading.current_thread() is not self._dul)

    def _kill_dul(self) -> None:
        self._kill()
        if threading.current_thread() is self._dul:
            self._close()
        else:
            self._connection.wake()
        if self._threads is not None:
            self._threads.end()

    def _stop_dul(self) -> bool:
        outside = threading.current_thread() is not self._dul
        limit = time.monotonic() + _STOP_SECONDS
        # Its answer to a release wakes who waits for that a moment before the state machine has come to its end.
        while self._state != _IDLE:
            if not outside or not self._dul.is_alive() or time.monotonic() > limit:
                return False
            time.sleep(0.0005)
        self._kill_dul()
        if outside:
            self._dul.join()
        return True

    def _serve(self, _event: evt.Event) -> None:
        self._is_served = True
        self._connection.wake()

    # --------------------------------------------------------------------------------------------------- reading

    @property
    def _state(self) -> str:
        return self._dul.state_machine.current_state  # type: ignore[no-any-return]

    @property
    def _peer(self) -> str:
        assoc = self._assoc
        return str((assoc.requestor if assoc.is_acceptor else assoc.acceptor).address)

    def _read_on(self) -> bool:
        """Read until there is something for pynetdicom to do."""
        dul, reader = self._dul, self._reader
        reader.paused = heard = False
        while True:
            if self._must_hold():
                self._pause(_FULL_SECONDS if self._is_served else _LOOK_SECONDS)
                return heard
            if reader.has_bytes and not self._take_in():
                return True
            if dul.to_provider_queue.queue or dul._kill_thread:
                return heard
            if reader.paused:
                reader.paused = False
                continue
            # Where nothing has begun, there is hardly ever something yet; what TLS keeps is no news for poll(). Who has
            # an answer goes on with the next object in a moment.
            expected, self._has_answered = self._has_answered, False
            count = reader.fill(expected=expected) if expected or reader.has_begun or self._connection.is_tls else None
            if count is None:
                if not self._wait():
                    return heard
                count = reader.fill()
            if count:
                heard = True
                dul._idle_timer.restart()
            elif count == 0:
                self._dispatch.abandon()
                self._put_event(_CONNECTION_CLOSED)
                return True

    def _take_in(self) -> bool:
        """Deal with what was read; ``False``: pynetdicom has an event to deal with."""
        reader = self._reader
        accepted = self._state in (_ESTABLISHED, _AWAITING_RELEASE)
        pdu = reader.next(accepted=accepted, longest_data=self._longest_data if accepted else 0)
        if reader.pdus != self._pdus_told:
            self._pdus_told = reader.pdus
            self._observer.activity()
        if pdu is not None:
            self._dispatch.abandon()
            self._hand_over(pdu)
        return not self._dul.event_queue.queue

    @cached_property
    def _longest_data(self) -> int:
        """The maximum length that we announced, known once there is an association."""
        own = self._assoc.requestor if self._assoc.is_requestor else self._assoc.acceptor
        return own.maximum_length or 0

    def _must_hold(self) -> bool:
        """Say whether what comes next has to wait until somebody here has dealt with what came before."""
        if self._incoming.pdu_left or self._incoming.within_message:
            return False
        if not self._is_served:
            return self._state == _ESTABLISHED
        waiting = len(self._assoc.dimse.msg_queue.queue)
        self._large_waits = self._large_waits and waiting > 0
        return self._large_waits or waiting >= _MOST_WAITING or self._dispatch.full

    def _pause(self, seconds: float) -> None:
        if not self.rests_elsewhere:
            self._connection.wait(seconds, self._has_to_do, reading=False)

    def _stop_before_next(self) -> None:
        self._reader.paused = True

    def _wait(self) -> bool:
        """Wait for more; say whether there may be some."""
        if self.rests_elsewhere:
            return False
        if not self._reader.has_begun and self._state == _ESTABLISHED:
            return self._connection.wait(_LOOK_SECONDS, self._has_to_do)
        seconds = min(_LOOK_SECONDS, self._reader.patience)
        if self._state == _AWAITING_REQUEST:
            seconds = min(seconds, self._dul.artim_timer.remaining)
        began = time.monotonic()
        came = self._connection.wait(seconds, self._has_to_do)
        self._reader.note_wait(time.monotonic() - began)
        if not came and self._reader.patience <= 0:
            raise TimeoutError
        return came

    def _has_to_do(self) -> bool:
        dul = self._dul
        return bool(dul.to_provider_queue.queue or dul.event_queue.queue or dul._kill_thread)

    def _wants_abort(self) -> bool:
        return any(isinstance(each, A_ABORT | A_P_ABORT) for each in list(self._dul.to_provider_queue.queue))

    def _hand_over(self, pdu: bytes) -> None:
        """Give pynetdicom a PDU as ``_read_pdu_data`` does."""
        kind = pdu[0]
        if kind in (_A_ASSOCIATE_RQ, _A_ASSOCIATE_AC):
            association_request.check(memoryview(pdu)[6:], self._bounds, answer=kind == _A_ASSOCIATE_AC)
        try:
            decoded, event = self._dul._decode_pdu(bytearray(pdu))
            # Its state machine does so too, and does not survive what this raises; there it is the same again: to make
            # one of a hundred presentation contexts takes milliseconds.
            primitive = decoded.to_primitive()
            decoded.to_primitive = lambda: primitive
        except Exception as error:  # noqa: BLE001 - whatever pynetdicom's decoder raises, as in _read_pdu_data
            raise MalformedError(f"pynetdicom cannot read a PDU of kind {kind} ({type(error).__name__})") from None
        self._large_waits = self._large_waits or len(pdu) > _LARGE_BYTES
        self._reader.paused = True
        self._dul._recv_pdu.put(decoded)
        self._put_event(event)

    # -------------------------------------------------------------------------------------------------- the end

    def _break_off(self, how: str | None) -> None:
        self._dispatch.abandon()
        if how is not None:
            self._tell_end(how)
        self._put_event(_INVALID_PDU)

    def _tell_end(self, how: str) -> None:
        if not self._told_end:
            self._told_end = True
            self._observer.ended_by_us(how)

    def _put_event(self, event: str) -> None:
        self._dul.event_queue.put(event)

    def _let_go(self) -> None:
        """Close a connection whose association is over, once the peer has gone, or has had time to see why."""
        self._dispatch.abandon()
        if not self._linger_until:
            self._linger_until = time.monotonic() + (_LINGER_SECONDS if self._aborting else 0.0)
        self._reader.forget()
        count = self._reader.fill()
        left = self._linger_until - time.monotonic()
        if count == 0 or left <= 0:
            self._wrapped.close()
        elif count is None:
            self._connection.wait(left, lambda: self._dul._kill_thread)

    def _close(self) -> None:
        self._dispatch.abandon()
        self._connection.close_bell()
        self._reader.close()
