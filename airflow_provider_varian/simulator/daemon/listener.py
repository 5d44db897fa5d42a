"""The listening socket: takes connections, closes some before a word is said, refuses them for a while."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from typing import Any, Final

from pynetdicom.transport import ThreadedAssociationServer

from airflow_provider_varian.simulator.daemon import harm
from airflow_provider_varian.simulator.daemon.faults import Fault, Faults, Kind, Step
from airflow_provider_varian.simulator.daemon.tally import Tally

log = logging.getLogger(__name__)


#: How often the thread that takes connections looks whether it is to take no more.
_POLL_SECONDS: Final = 0.05


class Listener(ThreadedAssociationServer):
    """Takes many clients at once, and may close a connection before a word is said.

    It is used by :meth:`begin` and, once and for all, :meth:`end`; from any thread.
    """

    request_queue_size = 128
    daemon_threads = True
    faults: Faults
    tally: Tally

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._taking: threading.Thread | None = None

    def begin(self) -> None:
        """Take connections from now on, in a thread of its own."""
        with self._changing:
            self._take_connections()

    def end(self) -> None:
        """Take no more of them, and give the port back; associations go on."""
        self._ended.set()
        with self._changing:
            self._take_none()
            self.server_close()

    def refuse_for(self, seconds: float) -> None:
        """Refuse connections for a while, but keep the port from others. Returns at once."""
        with self._changing:
            if self._ended.is_set():
                return
            self._take_none()
            self._refuse()
        threading.Thread(
            target=self._take_again_after, args=(seconds,), name="simulated-daemon-restart", daemon=True
        ).start()

    def _take_again_after(self, seconds: float) -> None:
        if self._ended.wait(seconds):
            return
        with self._changing:
            # Another one may have done it already, or the end have come.
            if self._taking is None and not self._ended.is_set():
                held: Any = self.socket
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held.listen(self.request_queue_size)
                self._take_connections()

    def _take_connections(self) -> None:
        self._taking = threading.Thread(
            target=self.serve_forever, args=(_POLL_SECONDS,), name="simulated-daemon", daemon=True
        )
        self._taking.start()

    def _take_none(self) -> None:
        thread, self._taking = self._taking, None
        if thread is not None:
            # BaseServer's shutdown: pynetdicom's own wants to take the server off its AE's list.
            socketserver.TCPServer.shutdown(self)
            thread.join()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Say whether a connection is served."""
        fault = self.faults.due(Step.CONNECT)
        if fault is None:
            return True
        note(self.tally, fault)
        if fault.kind is Kind.RESET:
            harm.reset(request)
        return False

    def _refuse(self) -> None:
        listener: Any = self.socket
        listener.close()
        held = socket.socket(listener.family, socket.SOCK_STREAM)
        held.settimeout(self.ae.network_timeout)
        # Connections of before still have the port, which is shared by consent only.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(self.server_address)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self.socket = held


def note(tally: Tally, fault: Fault) -> None:
    """Count and log that a fault strikes."""
    tally.add("faults")
    log.info("Fault: %s at %s", fault.kind, fault.step)
