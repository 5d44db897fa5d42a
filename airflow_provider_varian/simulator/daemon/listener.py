"""The listening socket: takes connections, closes some before a word is said, refuses them for a while."""

from __future__ import annotations

import logging
import socket
from typing import Any

from pynetdicom.transport import ThreadedAssociationServer

from airflow_provider_varian.simulator.daemon import harm
from airflow_provider_varian.simulator.daemon.faults import Fault, Faults, Kind, Step
from airflow_provider_varian.simulator.daemon.tally import Tally

log = logging.getLogger(__name__)


class Listener(ThreadedAssociationServer):
    """Takes many clients at once, and may close a connection before a word is said."""

    request_queue_size = 128
    daemon_threads = True
    faults: Faults
    tally: Tally

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Say whether a connection is served."""
        fault = self.faults.due(Step.CONNECT)
        if fault is None:
            return True
        note(self.tally, fault)
        if fault.kind is Kind.RESET:
            harm.reset(request)
        return False

    def refuse(self) -> None:
        """Refuse connections from now on, but keep the port from others."""
        listener: Any = self.socket
        listener.close()
        held = socket.socket(listener.family, socket.SOCK_STREAM)
        held.settimeout(self.ae.network_timeout)
        # Connections of before still have the port, which is shared by consent only.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(self.server_address)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self.socket = held

    def take_again(self) -> None:
        """Take connections again."""
        held: Any = self.socket
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.listen(self.request_queue_size)


def note(tally: Tally, fault: Fault) -> None:
    """Count and log that a fault strikes."""
    tally.add("faults")
    log.info("Fault: %s at %s", fault.kind, fault.step)
