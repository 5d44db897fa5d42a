"""A receiver that stands: one process that takes what peers send, for whoever retrieves it from its spool.

What it acknowledged is never lost: it is durable first, and a stop, a kill or a restart changes nothing about that.
Told to stop it drains: nobody new is let in, and the associations that there are may finish.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import queue
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from airflow_provider_varian.dimse import tls
from airflow_provider_varian.dimse.peer import TlsSettings
from airflow_provider_varian.errors import ConfigurationError, ReceiverUnavailableError
from airflow_provider_varian.receiver.admission import ANYBODY, Admission, Entry, OptionAdvice
from airflow_provider_varian.receiver.association_log import AssociationLog
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.listener import is_taken
from airflow_provider_varian.receiver.observer import Observer, observers
from airflow_provider_varian.receiver.server import ReceiverServer
from airflow_provider_varian.receiver.spool import Reconciliation, Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink

logger = logging.getLogger(__name__)

#: PS3.8 D.1 knows 0 as "no limit", which no receiver shall say. The others are those of a connection's field.
_LEAST_PDU: Final = 4096
_LARGEST_PDU: Final = 1048576
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LOOK_SECONDS: Final = 1.0


class Service(Protocol):
    """Something that runs beside a receiver, in threads of its own."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End; may be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSettings:
    """What a standing receiver is to do.

    :param spool: folder of its spool.
    :param entries: its AE titles, and who may call each. Without networks nobody may, unless it listens on loopback
        alone, where only this machine can call.
    :param host: address to listen on; empty: all interfaces.
    :param port: port to listen on; 0 takes a free one.
    :param tls: certificate and key to show; with an authority, who calls has to show a certificate of it.
    :param limits: how much at once, and for how long.
    :param max_pdu: the longest P-DATA-TF to announce, in bytes. 128 KiB: what is larger is not faster.
    :param durable: whether objects are on the disk before they are acknowledged.
    :param drain_seconds: how long associations may go on when it is told to stop. What runs beside it ends after that,
        in more than a minute at worst: whoever kills it later, a supervisor, has to wait for the sum
        (docs/howto/receiver.md, 120 seconds).
    :raises ConfigurationError: names what is wrong, and what to change.
    """

    spool: Path
    entries: tuple[Entry, ...]
    host: str = ""
    port: int = 11112
    tls: TlsSettings | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)
    max_pdu: int = 131072
    durable: bool = True
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what would let in nobody, or who was not meant."""
        if not self.entries:
            raise ConfigurationError(
                "a receiver needs an AE title", step="receiver", hint="Give it one: --ae-title AET"
            )
        titles = [entry.ae_title for entry in self.entries]
        if twice := next((title for title in titles if titles.count(title) > 1), None):
            raise ConfigurationError(
                f"AE title {twice!r} is given twice", step="receiver", hint="Give all its lists after one --ae-title"
            )
        if not _LEAST_PDU <= self.max_pdu <= _LARGEST_PDU:
            raise ConfigurationError(
                f"a maximum PDU of {self.max_pdu} bytes cannot be announced",
                step="receiver",
                hint=f"--max-pdu takes {_LEAST_PDU} to {_LARGEST_PDU}",
            )
        open_to_none = [entry.ae_title for entry in self.entries if not entry.networks]
        if open_to_none and not _is_loopback(self.host):
            raise ConfigurationError(
                f"nobody may send to {', '.join(repr(title) for title in open_to_none)}",
                step="receiver",
                hint="Say who may, after that --ae-title: --allow-from 10.1.0.0/16 (an address or a network; "
                "repeatable), or --allow-any for everybody who reaches the port; or listen on this machine alone: "
                "--host 127.0.0.1",
            )

    def admission(self) -> Admission:
        """Return who may connect and associate."""
        return Admission(
            (entry if entry.networks else replace(entry, networks=ANYBODY) for entry in self.entries), OptionAdvice()
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the context to serve TLS with; ``None`` without TLS.

        :raises ConfigurationError: when certificate, key or authority cannot be used.
        """
        if self.tls is None:
            return None
        try:
            return tls.server_context(self.tls, demand_certificate=bool(self.tls.ca_certificate))
        except ConfigurationError as error:
            if "tls_ca_certificate" in error.what:
                raise _wrong("--tls-ca is not a certificate", "Name a PEM file with the authority's") from None
            raise _wrong(
                "--tls-certificate and --tls-private-key do not fit together or cannot be read",
                "Name PEM files; an encrypted key needs --tls-private-key-password-file",
            ) from None


class StandingReceiver:
    """A receiver over a spool that others claim from; a context manager.

    Several may share a spool, each on a port of its own.

    :param settings: what to do.
    :param observer: is told what happens.
    :raises ConfigurationError: when TLS is set and cannot be served.
    :raises ReceiverUnavailableError: when the spool cannot be used.
    """

    def __init__(self, settings: ReceiverSettings, *, observer: Observer | None = None) -> None:
        self.settings = settings
        self.limits = settings.limits
        self._tls_context = settings.tls_context()
        self._observer = observers(AssociationLog(), *([observer] if observer is not None else []))
        self.spool = Spool(settings.spool)
        #: What was found in the spool at the start.
        self.reconciliation: Reconciliation | None = None
        self._sink: SpoolSink | None = None
        self._server: ReceiverServer | None = None
        self._is_draining = False

    def __enter__(self) -> StandingReceiver:
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
    def is_listening(self) -> bool:
        """Whether associations are taken."""
        return self._server is not None and self._server.is_listening

    @property
    def is_draining(self) -> bool:
        """Whether it was told to stop."""
        return self._is_draining

    @property
    def connections(self) -> int:
        """How many connections there are, with an association or without."""
        return self._server.connections if self._server is not None else 0

    @property
    def associations(self) -> int:
        """How many associations there are."""
        return self._server.associations if self._server is not None else 0

    def start(self) -> None:
        """Look the spool over, then listen.

        :raises ReceiverUnavailableError: when the spool cannot be used, or the port is taken.
        :raises ConfigurationError: when the address is none of this machine's, or the port needs a privilege.
        """
        settings = self.settings
        self._sink = SpoolSink(
            self.spool,
            durable=settings.durable,
            min_free_bytes=settings.limits.min_free_bytes,
            standing=True,
            tls=self._tls_context is not None,
        )
        try:
            self.reconciliation = self.spool.reconcile()
            server = ReceiverServer(
                ae_title=settings.entries[0].ae_title,
                admission=settings.admission(),
                sink=self._sink,
                limits=settings.limits,
                max_pdu=settings.max_pdu,
                tls_context=self._tls_context,
                observer=self._observer,
            )
            self._listen(server)
        except BaseException:
            self.stop()
            raise
        self._server = server
        self._is_draining = False

    def drain(self, seconds: float | None = None) -> bool:
        """Take nobody new, and wait for the associations that there are.

        :param seconds: how long to wait; ``None``: as the settings say.
        :return: whether all have ended by themselves.
        """
        self._is_draining = True
        if self._server is None:
            return True
        return self._server.drain(self.settings.drain_seconds if seconds is None else seconds)

    def stop(self) -> None:
        """End at once: abort the associations that there are. May be called twice."""
        server, sink = self._server, self._sink
        self._server = self._sink = None
        if server is not None:
            server.stop()
        if sink is not None:
            # After the last association: whatever is still on its way in has nowhere to go.
            sink.close()

    def _listen(self, server: ReceiverServer) -> None:
        settings = self.settings
        try:
            server.start(settings.host, settings.port)
        except OSError as error:
            where = f"port {settings.port}" + (f" of {settings.host}" if settings.host else "")
            if is_taken(error):
                raise ReceiverUnavailableError(
                    f"{where} is taken, perhaps by another receiver",
                    step="receiver",
                    hint="End that one, or choose another --port",
                ) from error
            raise ConfigurationError(
                f"{where} cannot be listened on: {_reason(error)}",
                step="receiver",
                hint="--host takes an address of this machine; ports below 1024 need a privilege",
            ) from error


def run(
    receiver: StandingReceiver,
    announce: Callable[[str], None],
    *,
    services: Sequence[Service] = (),
    probes: Sequence[Service] = (),
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; in the main thread only, which is where signals arrive.

    A second signal ends the process at once. Nothing that was acknowledged is lost by that either.

    :param receiver: not started yet.
    :param announce: takes the one line ``listening on HOST:PORT`` when the receiver is ready.
    :param services: run beside it: started before it listens, stopped when it has ended.
    :param probes: tell others how it is: started when it listens, stopped last.
    :raises ConfigurationError: when the address cannot be had.
    :raises ReceiverUnavailableError: when the port is taken, or the spool cannot be used.
    """
    # The one queue whose put() may be called from a signal handler, on top of a get() in the same thread.
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    with _told_by_signals(told), ExitStack() as stack:
        # Entered first, ended last: whether it drains can be asked until the end.
        probing = stack.enter_context(ExitStack())
        for service in services:
            service.start()
            stack.callback(service.stop)
        stack.enter_context(receiver)
        for probe in probes:
            probe.start()
            probing.callback(probe.stop)
        _say_hello(receiver)
        host, port = receiver.address
        announce(f"listening on {f'[{host}]' if ':' in host else host}:{port}")
        _wait(told)
        if there := receiver.associations:
            logger.info(
                "Stopping: nobody new is let in, and %d association%s up to %g s to end. A second signal ends at once",
                there,
                " has" if there == 1 else "s have",
                receiver.settings.drain_seconds,
            )
        if not receiver.drain():
            logger.warning("Stopping: what did not end in time is aborted (%d associations)", receiver.associations)
        receiver.stop()
        logger.info("Stopped. What was acknowledged lies in the spool %s", receiver.spool.root)


def _wait(told: queue.SimpleQueue[int]) -> None:
    """Wait for a signal. The kernel may hand it to another thread, which does not wake this one: it looks by itself."""
    while True:
        try:
            told.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            continue
        return


def _say_hello(receiver: StandingReceiver) -> None:
    settings = receiver.settings
    for entry in settings.entries:
        networks = ", ".join(str(network) for network in entry.networks) or "this machine"
        if set(ANYBODY) <= set(entry.networks):
            networks = "anybody who reaches the port"
        titles = ", ".join(repr(title) for title in sorted(entry.calling_ae_titles)) or "any title"
        logger.info("AE title %r: %s may send, calling as %s", entry.ae_title, networks, titles)
    if settings.tls is None:
        logger.info("Without TLS: what comes can be read and changed on the network")
    elif settings.tls.ca_certificate:
        logger.info("TLS 1.2 or later; who calls has to show a certificate of the authority in --tls-ca")
    else:
        logger.warning("TLS without --tls-ca: what comes is encrypted, but anybody may have sent it")
    if not settings.durable:
        logger.warning(
            "Durability none: nothing is synced before it is acknowledged. What came in the last seconds before a loss "
            "of power, or a crash of the machine, is gone although its sender was told 0x0000. For benchmarks and "
            "scratch use only"
        )
    logger.info("Spool %s: %s", receiver.spool.root, _in_words(receiver.reconciliation))


def _in_words(found: Reconciliation | None) -> str:
    if found is None:
        return "not looked over"
    return (
        f"{found.unclaimed} objects wait to be claimed, {len(found.without_receipt)} files without a receipt, "
        f"{found.swept_fragments} fragments removed"
    )


@contextmanager
def _told_by_signals(told: queue.SimpleQueue[int]) -> Iterator[None]:
    def tell(number: int, _: object) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        told.put(number)

    previous = {number: signal.signal(number, tell) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_loopback(host: str) -> bool:
    """Say whether an address can be reached from this machine alone."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except OSError:
        return False
    addresses = {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}
    return bool(addresses) and all(address.is_loopback for address in addresses)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return error.strerror or "the host is not known"
    return os.strerror(error.errno) if error.errno else str(error)


def _wrong(what: str, hint: str) -> ConfigurationError:
    return ConfigurationError(what, step="TLS", hint=hint)
