"""Who gets the messages of an association: a taker, piece by piece, or pynetdicom, whole.

What pynetdicom gets is held in memory until it is whole, within bounds, and put into one P-DATA-TF PDU.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from airflow_provider_varian.dimse.bounds import Bounds, MalformedError
from airflow_provider_varian.dimse.command_set import Command

_PDU_HEAD: Final = struct.Struct(">BBI")
_ITEM_HEAD: Final = struct.Struct(">IBB")
_P_DATA_TF: Final = 0x04
_LAST_COMMAND, _LAST_DATA = 3, 2
_RSP: Final = 0x8000
#: C-STORE, C-GET, C-FIND, C-MOVE, C-ECHO, their responses, and C-CANCEL (PS3.7 E.1). No normalized service is ever
#: negotiated, and pynetdicom starts a thread for each N-EVENT-REPORT that comes.
_KNOWN: Final = frozenset({each | kind for each in (0x01, 0x10, 0x20, 0x21, 0x30) for kind in (0, _RSP)} | {0x0FFF})
#: What a Storage SCP is asked. All else pynetdicom would log, each one, or drop without a word.
SERVED: Final = frozenset({0x01, 0x30, 0x0FFF})


class Taker(Protocol):
    """Takes messages instead of pynetdicom. Called in the thread that reads the association."""

    @property
    def full(self) -> bool:
        """Whether it wants no more for now; looked at between messages."""

    def begin(self, context_id: int, command: Command) -> bool:
        """Say whether it takes this message; else pynetdicom gets it."""

    def data(self, piece: memoryview) -> None:
        """Take the next piece of the data set; valid until this returns."""

    def end(self) -> None:
        """Take note that the message is whole."""

    def abandon(self) -> None:
        """Take note that the rest of the message will not come."""


class _Nobody:
    """Takes the rest of a message whose taker is gone."""

    full = False

    def begin(self, context_id: int, command: Command) -> bool:
        return True

    def data(self, piece: memoryview) -> None:
        pass

    def end(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class Dispatch:
    """Gives messages to who takes them; what :class:`~airflow_provider_varian.dimse.incoming.Incoming` calls.

    :param bounds: of a message that is held in memory.
    :param hand_over: gives pynetdicom a P-DATA-TF PDU, head and all.
    :param pause: makes reading stop before the next message, when a taker wants no more for now.
    :param known: the Command Fields of messages that may come.
    """

    def __init__(
        self,
        bounds: Bounds,
        hand_over: Callable[[bytes], None],
        pause: Callable[[], None] = lambda: None,
        *,
        known: frozenset[int] = _KNOWN,
    ) -> None:
        self._known = known
        self._most = bounds.message_bytes
        self._hand_over = hand_over
        self._pause = pause
        self._takers: dict[int, Taker] = {}
        self._all: tuple[Taker, ...] = ()
        #: Held while a taker is called.
        self._lock = threading.RLock()
        self._taker: Taker | None = None
        self._context_id = 0
        self._command: Command | None = None
        self._data = bytearray()

    def give_to(self, command_field: int, taker: Taker) -> None:
        """Give messages of one kind to a taker from now on.

        :param command_field: Command Field (0000,0100), e.g. :data:`.command_set.C_STORE_RQ`.
        """
        with self._lock:
            self._takers[command_field] = taker
            self._all = tuple(self._takers.values())

    @contextmanager
    def taking(self, command_field: int, taker: Taker) -> Iterator[None]:
        """Give messages of one kind to a taker while the block runs; after it no call of the taker runs any more."""
        self.give_to(command_field, taker)
        try:
            yield
        finally:
            with self._lock:
                del self._takers[command_field]
                self._all = tuple(self._takers.values())
                if self._taker is taker:
                    self._taker = _Nobody()
                    taker.abandon()

    @property
    def full(self) -> bool:
        """Whether a taker wants no more for now."""
        # No generator: asked a few times for each message.
        for taker in self._all:  # noqa: SIM110
            if taker.full:
                return True
        return False

    def begin(self, context_id: int, command: Command) -> None:
        """Find out who takes a message."""
        if command.command_field not in self._known:
            raise MalformedError("a command that nobody here understands")
        self._command, self._context_id = command, context_id
        with self._lock:
            taker = self._takers.get(command.command_field)
            if taker is not None and taker.begin(context_id, command):
                self._taker = taker

    def data(self, piece: memoryview) -> None:
        """Pass a piece on, or keep it."""
        with self._lock:
            if self._taker is not None:
                self._taker.data(piece)
                return
        if len(self._data) + len(piece) > self._most:
            raise MalformedError("a message that is far too long")
        self._data += piece

    def end(self) -> None:
        """Let the taker end it, or hand it over."""
        with self._lock:
            taker, self._taker = self._taker, None
            if taker is not None:
                taker.end()
                if taker.full:
                    self._pause()
                return
        if self._command is not None:
            pdu = _as_one_pdu(self._context_id, self._command, self._data)
            self._command, self._data = None, bytearray()
            self._hand_over(pdu)

    def abandon(self) -> None:
        """Forget a message whose rest will not come; harmless when there is none."""
        with self._lock:
            taker, self._taker = self._taker, None
            if taker is not None:
                taker.abandon()
        self._command, self._data = None, bytearray()


def _as_one_pdu(context_id: int, command: Command, data: bytearray) -> bytes:
    items: list[bytes | bytearray] = [_ITEM_HEAD.pack(len(command.data) + 2, context_id, _LAST_COMMAND), command.data]
    if command.has_data_set:
        items += [_ITEM_HEAD.pack(len(data) + 2, context_id, _LAST_DATA), data]
    return _PDU_HEAD.pack(_P_DATA_TF, 0, sum(map(len, items))) + b"".join(items)
