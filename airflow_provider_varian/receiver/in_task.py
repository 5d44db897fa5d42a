"""A receiver that lives as long as one retrieval: C-MOVE sends to it (PS3.4 C.4.2, Annex B).

The port belongs to the trusted entity that the peer knows, so tasks of one connection share it and
take it in turn: whoever finds it taken waits, says so once, and gives up with an error that names
the port. TLS handshakes and refusals happen in the connection's own thread, so that no caller can
keep the others from being heard.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import sys
import threading
import time
from types import TracebackType
from typing import Any, Final, cast

import tenacity
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from airflow_provider_varian.dimse import contexts, quiet, socket_manners, storage, tls
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.sink import StorageSink
from airflow_provider_varian.errors import ConfigurationError, ReceiverUnavailableError
from airflow_provider_varian.receiver.admission import Admission
from airflow_provider_varian.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

logger = logging.getLogger(__name__)

#: Associations that a peer may hold at once; a daemon sends over one, or a few.
MAXIMUM_ASSOCIATIONS: Final = 10
_ASK_AGAIN_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 10.0
_ANY_IPV6: Final = "::"
_ANY_IPV4: Final = "0.0.0.0"


class InTaskReceiver:
    """Listens on the connection's receiver port; a context manager.

    :param peer: who may send, and where to listen (``receiver_host``, ``receiver_port``; port 0
        takes a free one).
    :param sink: where objects go.
    :param wait_seconds: how long to wait for a port that is taken.
    :param cancellation: ends the wait.
    :raises ConfigurationError: when the connection has no receiver port.
    """

    def __init__(
        self,
        peer: Peer,
        sink: StorageSink,
        *,
        wait_seconds: float = 0.0,
        cancellation: Cancellation | None = None,
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
        self._activity = time.monotonic()
        self._inbound = 0
        self._accepted = 0
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._ae: AE | None = None
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
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    @property
    def saw_inbound(self) -> bool:
        """Whether anybody connected since the start, let in or not."""
        return self._inbound > 0

    @property
    def accepted(self) -> int:
        """How many associations were accepted since the start."""
        return self._accepted

    @property
    def refused(self) -> tuple[str, ...]:
        """Who was refused, in words."""
        return self.admission.refused if self.admission else ()

    def idle_for(self) -> float:
        """Return the seconds since anything came from the network."""
        return time.monotonic() - self._activity

    def start(self) -> None:
        """Listen, after waiting for the port if it is taken.

        :raises ReceiverUnavailableError: when the port is still taken at the end, or cannot be had.
        :raises PeerUnreachableError: when the peer's host has no address.
        """
        quiet.silence()
        self.admission = Admission.for_peer(self._peer)
        ssl_context = tls.server_context(self._peer.tls) if self._peer.tls else None
        self._ae = _application_entity(self._peer)
        handlers: list[Any] = [
            *socket_manners.handlers(),
            (evt.EVT_DATA_RECV, self._touch),
            (evt.EVT_ACCEPTED, self._note_accepted),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_ECHO, _answer_echo),
            (evt.EVT_C_STORE, storage.store_handler(self._sink)),
        ]
        self._server = self._listen(handlers, ssl_context)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="dicom-receiver", daemon=True
        )
        self._thread.start()
        logger.info("Receiver %s listening on port %d", self._peer.move_destination, self.address[1])

    def stop(self) -> None:
        """Stop listening and end the associations that are open. May be called twice."""
        server, ae, thread = self._server, self._ae, self._thread
        self._server = self._ae = self._thread = None
        if server is None or ae is None:
            return
        server.shutdown()
        for association in ae.active_associations:
            _end(association)
        if thread is not None:
            thread.join(_STOP_SECONDS)

    def connected(self, address: str) -> bool:
        """Note a connection and say whether it may stay; called by the server."""
        self._inbound += 1
        self._activity = time.monotonic()
        return self.admission is not None and self.admission.admits_address(address)

    def _listen(self, handlers: list[Any], ssl_context: ssl.SSLContext | None) -> _Server:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_taken),
            stop=tenacity.stop_after_delay(self._wait_seconds),
            wait=tenacity.wait_fixed(_ASK_AGAIN_SECONDS) + tenacity.wait_random(0, _ASK_AGAIN_SECONDS),
            before_sleep=self._say_that_we_wait,
            sleep=self._cancellation.pause,
            reraise=True,
        )
        try:
            return retrying(self._bind, handlers, ssl_context)
        except OSError as error:
            raise self._unavailable(error) from error

    def _bind(self, handlers: list[Any], ssl_context: ssl.SSLContext | None) -> _Server:
        self._cancellation.raise_if_cancelled()
        ae = self._ae
        if ae is None:
            raise ReceiverUnavailableError("the receiver was stopped", step="receiver")
        server = self._server_on(ae, handlers)
        # shutdown() of pynetdicom takes the server out of the entity's list.
        ae._servers.append(server)
        server.receiver = self
        server.tls_context = ssl_context
        server.handshake_seconds = self._peer.connect_timeout
        server.network_seconds = self._peer.network_timeout
        return server

    def _server_on(self, ae: AE, handlers: list[Any]) -> _Server:
        """Bind the configured address; without one, all interfaces of IPv6 and IPv4 in one socket."""

        def bind(host: str) -> _Server:
            address = (host, self._peer.receiver_port or 0)
            return cast(_Server, ae.make_server(address, evt_handlers=handlers, server_class=_Server))

        if self._peer.receiver_host:
            return bind(self._peer.receiver_host)
        if socket.has_dualstack_ipv6():
            try:
                return bind(_ANY_IPV6)
            except OSError as error:
                # IPv6 is built in and switched off.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
        return bind(_ANY_IPV4)

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
        if _is_taken(error):
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

    def _touch(self, _event: evt.Event) -> None:
        self._activity = time.monotonic()

    def _note_accepted(self, _event: evt.Event) -> None:
        self._accepted += 1

    def _rejected(self, event: evt.Event) -> None:
        request = event.assoc.requestor.primitive
        if self.admission is not None and request is not None:
            called = str(request.called_ae_title)
            if called.strip() != self.admission.called_ae_title:
                self.admission.refuse_title(called, str(event.assoc.requestor.address))


class _Server(ThreadedAssociationServer):
    """pynetdicom's server, with admission and TLS handshakes in each connection's own thread."""

    receiver: InTaskReceiver | None = None
    tls_context: ssl.SSLContext | None = None
    handshake_seconds: float = 10.0
    network_seconds: float = 120.0
    daemon_threads = True
    # What pynetdicom offers of TLS is not used: it shakes hands on the thread that accepts, where a
    # caller who says nothing keeps all others out (prior-art 5.1).

    def server_bind(self) -> None:
        """Bind; all interfaces of IPv6 means those of IPv4 too, whatever the system's default is."""
        if self.server_address[0] == _ANY_IPV6 and self.socket is not None:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Let in whom the receiver admits (a hook of :mod:`socketserver`, on the accept thread)."""
        return self.receiver is not None and self.receiver.connected(str(client_address[0]))

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands, then serve; in a thread of this connection."""
        if self.tls_context is not None:
            try:
                request.settimeout(self.handshake_seconds)
                request = self.tls_context.wrap_socket(request, server_side=True)
            except OSError as error:  # ssl.SSLError and time-outs are OSErrors
                reason = getattr(error, "reason", None) or error
                logger.warning("Receiver: TLS handshake with %s failed: %s", client_address[0], reason)
                self.shutdown_request(request)
                return
        # A peer that stops in the middle of a PDU is not waited for without end.
        request.settimeout(self.network_seconds)
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a connection; the default prints it to stderr."""
        error = sys.exc_info()[1]  # set: socketserver calls this from its except block
        logger.warning("Receiver: serving %s failed: %s", client_address[0], type(error).__name__)


def _application_entity(peer: Peer) -> AE:
    ae = AE(peer.move_destination)
    ae.require_called_aet = True
    ae.maximum_associations = MAXIMUM_ASSOCIATIONS
    ae.maximum_pdu_size = peer.max_pdu
    ae.acse_timeout = peer.acse_timeout
    ae.dimse_timeout = peer.dimse_timeout
    ae.network_timeout = peer.network_timeout
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.supported_contexts = contexts.receiver_contexts()
    return ae


def _end(association: Association) -> None:
    """Abort an association; hang up on a caller with whom there is none.

    PS3.8 table 9-10 knows no A-ABORT for who has not asked for an association yet (Sta2) or was sent away (Sta13).
    """
    connection = association.dul.socket
    if association.dul.state_machine.current_state not in ("Sta2", "Sta13"):
        association.abort()
    elif connection is not None:
        connection.close()


def _answer_echo(_event: evt.Event) -> int:
    return 0x0000


def _is_taken(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE
