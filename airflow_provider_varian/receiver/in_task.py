"""A receiver that lives as long as one retrieval: C-MOVE sends to it (PS3.4 C.4.2, Annex B).

The port belongs to the trusted entity that the peer knows, so tasks of one connection share it and
take it in turn: whoever finds it taken waits, says so once, and gives up with an error that names
the port. How it listens is :mod:`.server`'s.
"""

from __future__ import annotations

import logging
import os
import time
from types import TracebackType
from typing import Final

import tenacity

from airflow_provider_varian.dimse import tls
from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.sink import StorageSink
from airflow_provider_varian.errors import ConfigurationError, ReceiverUnavailableError
from airflow_provider_varian.receiver.admission import Admission
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.listener import is_taken
from airflow_provider_varian.receiver.observer import Observer
from airflow_provider_varian.receiver.server import ReceiverServer

logger = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS: Final = 0.5


class InTaskReceiver:
    """Listens on the connection's receiver port; a context manager.

    :param peer: who may send, and where to listen (``receiver_host``, ``receiver_port``; port 0
        takes a free one).
    :param sink: where objects go.
    :param wait_seconds: how long to wait for a port that is taken.
    :param cancellation: ends the wait.
    :param observer: is told what happens.
    :raises ConfigurationError: when the connection has no receiver port.
    """

    def __init__(
        self,
        peer: Peer,
        sink: StorageSink,
        *,
        wait_seconds: float = 0.0,
        cancellation: Cancellation | None = None,
        observer: Observer | None = None,
    ) -> None:
        if peer.receiver_port is None:
            raise ConfigurationError(
                "the connection has no receiver port, so C-MOVE has nowhere to send to",
                peer=peer.name,
                step="receiver",
                hint=f"Set receiver_port to the port of the trusted entity {peer.move_destination!r}",
            )
        self._peer = peer
        self._sink = sink
        self._wait_seconds = wait_seconds
        self._cancellation = cancellation or Cancellation()
        self._observer = observer
        self._server: ReceiverServer | None = None
        #: The same, also when it has stopped: what it has counted is still asked for.
        self._last: ReceiverServer | None = None
        self._made = time.monotonic()
        self.admission: Admission | None = None

    def __enter__(self) -> InTaskReceiver:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port on which it listens."""
        if self._server is None:
            raise ReceiverUnavailableError("the receiver is not running", step="receiver")
        return self._server.address

    @property
    def saw_inbound(self) -> bool:
        """Whether anybody connected since the start, let in or not."""
        return bool(self._last and self._last.inbound)

    @property
    def accepted(self) -> int:
        """How many associations were accepted since the start."""
        return self._last.accepted if self._last else 0

    @property
    def refused(self) -> tuple[str, ...]:
        """Who was refused, in words."""
        return self.admission.refused if self.admission else ()

    def idle_for(self) -> float:
        """Return the seconds since anything came from the network."""
        return time.monotonic() - (self._last.last_activity if self._last else self._made)

    def start(self) -> None:
        """Listen, after waiting for the port if it is taken.

        :raises ReceiverUnavailableError: when the port is still taken at the end, or cannot be had.
        :raises PeerUnreachableError: when the peer's host has no address.
        """
        peer = self._peer
        self.admission = Admission.for_peer(peer)
        server = ReceiverServer(
            ae_title=peer.move_destination,
            admission=self.admission,
            sink=self._sink,
            limits=limits_of(peer),
            max_pdu=peer.max_pdu,
            tls_context=tls.server_context(peer.tls) if peer.tls else None,
            observer=self._observer,
        )
        self._listen(server)
        self._server = self._last = server
        logger.info("Receiver %s listening on port %d", peer.move_destination, self.address[1])

    def stop(self) -> None:
        """Stop listening and end the associations that are open. May be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def _listen(self, server: ReceiverServer) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_taken),
            stop=tenacity.stop_after_delay(self._wait_seconds),
            wait=tenacity.wait_fixed(_ASK_AGAIN_SECONDS) + tenacity.wait_random(0, _ASK_AGAIN_SECONDS),
            before_sleep=self._say_that_we_wait,
            sleep=self._cancellation.pause,
            reraise=True,
        )
        try:
            retrying(self._bind, server)
        except OSError as error:
            raise self._unavailable(error) from error

    def _bind(self, server: ReceiverServer) -> None:
        self._cancellation.raise_if_cancelled()
        server.start(self._peer.receiver_host, self._peer.receiver_port or 0)

    def _say_that_we_wait(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:
            logger.info(
                "Port %d is taken, probably by the receiver of another task of this connection: waiting for up to "
                "%.0f s. A pool with one slot for these tasks saves the wait",
                self._peer.receiver_port,
                self._wait_seconds,
            )

    def _unavailable(self, error: OSError) -> ReceiverUnavailableError:
        where = f"port {self._peer.receiver_port}"
        if self._peer.receiver_host:
            where += f" of {self._peer.receiver_host}"
        if is_taken(error):
            return ReceiverUnavailableError(
                f"{where} is still taken after {self._wait_seconds:.0f} s",
                peer=self._peer.name,
                step="receiver",
                hint="Another task's receiver or another program listens there: put the tasks of this connection "
                "into a pool with one slot, or end the other program",
            )
        return ReceiverUnavailableError(
            f"{where} cannot be listened on: {os.strerror(error.errno) if error.errno else error}",
            peer=self._peer.name,
            step="receiver",
            hint="Check receiver_host and receiver_port of the connection; ports below 1024 need a privilege",
        )


def limits_of(peer: Peer) -> Limits:
    """Return the limits of a receiver for one peer: the waits of its connection, no share kept for other sources."""
    limits = Limits()
    return Limits(
        connections_per_source=limits.connections,
        associations_per_source=limits.associations,
        handshake_seconds=peer.connect_timeout,
        idle_seconds=peer.network_timeout,
        bounds=Bounds(association_seconds=peer.acse_timeout, read_seconds=peer.network_timeout),
    )
