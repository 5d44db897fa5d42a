"""A small HTTP server for those who watch a receiver: ``/metrics``, ``/healthz`` and ``/readyz``.

It has a thread of its own, and a bounded number of them for requests; each request has to come, be small, and be taken
within seconds. Nothing that it does holds up receiving. It asks nobody who they are, and listens on the loopback
unless told otherwise: a port for the hospital's network is for the site to guard.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry

from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver.metrics import exposition
from airflow_provider_varian.receiver.readiness import Readiness

logger = logging.getLogger(__name__)

#: Requests that are served at once: two Prometheus servers, a probe, and a person.
MAXIMUM_REQUESTS: Final = 8
#: How long a request may take to come, and its answer to be taken.
REQUEST_SECONDS: Final = 5.0
#: Bytes of a request's head. Prometheus sends 300.
REQUEST_BYTES: Final = 8192
_STOP_SECONDS: Final = 5.0
#: The format that each Prometheus reads (text, version 0.0.4), which is what exposition() writes.
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_JSON: Final = "application/json"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}

Answer = tuple[int, str, bytes]


class HealthServer:
    """Listens until it is stopped.

    :param readiness: what ``/readyz`` tells.
    :param registry: what ``/metrics`` tells.
    :param host: the address to listen on.
    :param port: the port; 0 takes a free one.
    :param request_seconds: how long a request may take to come, and its answer to be taken.
    """

    def __init__(
        self,
        readiness: Readiness,
        registry: CollectorRegistry,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._readiness = readiness
        self._registry = registry
        self._where = (host, port)
        self._request_seconds = request_seconds
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._free = threading.BoundedSemaphore(MAXIMUM_REQUESTS)
        self._pages: dict[str, Callable[[], Answer]] = {
            "/metrics": self._metrics,
            "/healthz": self._alive,
            "/readyz": self._ready,
        }

    @property
    def address(self) -> tuple[str, int]:
        """Host and port on which it listens."""
        if self._listener is None:
            raise ReceiverUnavailableError("the health server is not running", step="health")
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Listen.

        :raises ReceiverUnavailableError: when the port is taken or cannot be had.
        """
        host, port = self._where
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._listener = socket.create_server((host, port), family=family, backlog=MAXIMUM_REQUESTS)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise ReceiverUnavailableError(
                f"port {port} of {host} {'is taken' if taken else f'cannot be listened on: {error.strerror or error}'}",
                step="health",
                hint="Choose another port or address for health and metrics",
            ) from error
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), name="dicom-health", daemon=True)
        self._thread.start()
        host, port = self.address
        logger.info("Health and metrics on http://%s:%d/", f"[{host}]" if ":" in host else host, port)

    def stop(self) -> None:
        """Stop listening. Requests that are being served end by themselves. May be called twice."""
        listener, thread = self._listener, self._thread
        self._listener = self._thread = None
        if listener is None or thread is None:
            return
        # Wakes accept(), which closing alone does not.
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        thread.join(_STOP_SECONDS)
        listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._listener is not listener or error.errno in (errno.EINVAL, errno.EBADF):
                    return
                # No descriptors left, or the caller is gone again: neither ends the server.
                time.sleep(0.1)
                continue
            if not self._free.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="dicom-health-request", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                head = self._head(connection)
                if head is not None:
                    connection.settimeout(self._request_seconds)
                    connection.sendall(self._answer(head))
        except OSError:
            pass  # the caller is gone, or too slow
        except Exception as error:  # noqa: BLE001 - a page that cannot be made harms no other request
            logger.error("Health server: a request failed: %s", type(error).__name__)
        finally:
            self._free.release()

    def _head(self, connection: socket.socket) -> bytes | None:
        """Return the head of a request; ``None`` when it does not come in time or is too long."""
        end = time.monotonic() + self._request_seconds
        head = b""
        while b"\r\n\r\n" not in head:
            left = end - time.monotonic()
            if left <= 0 or len(head) > REQUEST_BYTES:
                return None
            connection.settimeout(left)
            piece = connection.recv(REQUEST_BYTES)
            if not piece:
                return None
            head += piece
        return head

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(400, "text/plain", b"this is HTTP/1.1\n")
        method, target = words[0], words[1].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response(405, "text/plain", b"GET and HEAD only\n")
        page = self._pages.get(target.decode("ascii", "replace"))
        if page is None:
            return _response(404, "text/plain", b"there are /metrics, /healthz and /readyz\n")
        status, kind, body = page()
        return _response(status, kind, body, without_body=method == b"HEAD")

    def _metrics(self) -> Answer:
        return 200, _METRICS, exposition(self._registry)

    def _alive(self) -> Answer:
        return 200, _JSON, _json({"alive": True, "pid": os.getpid()})

    def _ready(self) -> Answer:
        report = self._readiness.report()
        told = {"ready": report.ready, "problems": list(report.problems), "degraded": list(report.degraded)}
        return 200 if report.ready else 503, _JSON, _json(told)


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _response(status: int, kind: str, body: bytes, *, without_body: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if without_body else body)
