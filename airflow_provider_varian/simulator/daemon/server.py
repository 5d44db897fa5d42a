"""The simulated DB Daemon: who may call, what is accepted, and where requests go."""

from __future__ import annotations

import logging
import socketserver
import threading
import traceback
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import ThreadedAssociationServer

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import parked, socket_manners
from airflow_provider_varian.dimse.quiet import silence
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.simulator.daemon import wire
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.find_service import CANNOT_UNDERSTAND, find
from airflow_provider_varian.simulator.daemon.outgoing import TRANSACTION_SECONDS, OutgoingAssociations, end
from airflow_provider_varian.simulator.daemon.retrieve_service import Export, retrieve
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntities, TrustedEntity
from airflow_provider_varian.simulator.holdings.tree import Holdings

log = logging.getLogger(__name__)

_CALLING_NOT_RECOGNISED: Final = 3
_CALLED_NOT_RECOGNISED: Final = 7
_NOT_AUTHORISED: Final = 0x0124

_POLL_SECONDS: Final = 0.05
_END_SECONDS: Final = 5.0
_MAX_ASSOCIATIONS: Final = 100

_STUDY_ROOT: Final = (uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE)
_PATIENT_ROOT: Final = (uids.PATIENT_ROOT_FIND, uids.PATIENT_ROOT_MOVE)


class _Server(ThreadedAssociationServer):
    """Takes many clients at once."""

    request_queue_size = 128
    daemon_threads = True


class SimulatedDaemon:
    """A DB Daemon over some holdings, listening in this process.

    :param holdings: what it serves: a :class:`~.clinic.Clinic` or a :class:`~.data_directory.DataDirectory`.
    :param ae_title: its own AE title.
    :param host: address to listen on.
    :param port: port to listen on; 0 picks a free one, see :attr:`address`.
    :param trusted: who may call, and where C-MOVE sends to; may be replaced while it runs.
    :param behaviour: the habits; may be replaced while it runs, for associations from then on.
    :param timezone: the clinic's zone, for the time of an export.
    :param ssl_context: serve TLS with it.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. ``counts`` tells how many
    associations and requests there were, by ``"association"``, ``"rejected"``, ``"C-FIND"`` etc.
    """

    def __init__(
        self,
        holdings: Holdings,
        *,
        ae_title: str = "VMSDBD",
        host: str = "127.0.0.1",
        port: int = 0,
        trusted: Iterable[TrustedEntity] = (),
        behaviour: Behaviour | None = None,
        timezone: ZoneInfo | None = None,
        ssl_context: SSLContext | None = None,
    ) -> None:
        self.holdings = holdings
        self.ae_title = ae_title
        self.counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._listen = (host, port)
        self._trusted = TrustedEntities(trusted)
        self._behaviour = behaviour or Behaviour()
        self._timezone = timezone or ZoneInfo("UTC")
        self._ssl_context = ssl_context
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._outgoing = OutgoingAssociations()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port on which it listens; only while it runs."""
        if self._server is None:
            raise ConfigurationError("the simulated daemon does not run", hint="Call start() first")
        found = self._server.server_address
        return str(found[0]), int(found[1])

    @property
    def behaviour(self) -> Behaviour:
        """The habits in force."""
        return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        if self._server is not None:
            self._introduce(self._server.ae)
            self._server.contexts = self._contexts()

    def trust(self, entities: Iterable[TrustedEntity]) -> None:
        """Replace the list of trusted entities; the real daemon needs a restart for that."""
        self._trusted = TrustedEntities(entities)

    def start(self) -> None:
        """Begin to listen.

        :raises ConfigurationError: when the port cannot be had.
        """
        silence()
        ae = AE(ae_title=self.ae_title)
        ae.maximum_associations = _MAX_ASSOCIATIONS
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TRANSACTION_SECONDS
        self._introduce(ae)
        handlers: list[Any] = [
            *socket_manners.handlers(),
            (evt.EVT_CONN_OPEN, parked.bound_waiting),
            (evt.EVT_CONN_OPEN, wire.divert, [self._serve]),
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_C_STORE, lambda _: _NOT_AUTHORISED),
        ]
        try:
            server: Any = ae.make_server(
                self._listen,
                ae_title=self.ae_title,
                contexts=self._contexts(),
                ssl_context=self._ssl_context,
                evt_handlers=handlers,
                server_class=_Server,
            )
        except OSError as error:
            host, port = self._listen
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                hint="Choose another port; 0 picks a free one",
            ) from error
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(_POLL_SECONDS,), name="simulated-daemon", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and end all associations; harmless when it does not run."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None or thread is None:
            return
        # BaseServer's shutdown: pynetdicom's own wants to take the server off its AE's list.
        socketserver.TCPServer.shutdown(server)
        server.server_close()
        thread.join()
        # Clients first: nobody shall take the end of the daemon for a result of his request.
        acceptors = server.active_associations
        established = [assoc for assoc in acceptors if assoc.is_established]
        for assoc in acceptors:
            end(assoc)
        self._outgoing.abort()
        for assoc in established:
            assoc.join(timeout=_END_SECONDS)

    def _introduce(self, ae: AE) -> None:
        """Give an application entity the daemon's identity (quirk 2)."""
        ae.implementation_class_uid = self._behaviour.implementation_class_uid
        ae.implementation_version_name = self._behaviour.implementation_version_name
        ae.maximum_pdu_size = self._behaviour.max_pdu

    def _contexts(self) -> list[PresentationContext]:
        """Return what is accepted: extended negotiation is left unanswered by pynetdicom (quirks 2 to 4)."""
        syntaxes = [uids.IMPLICIT_VR_LITTLE_ENDIAN]
        if not self._behaviour.implicit_only:
            syntaxes.insert(0, uids.EXPLICIT_VR_LITTLE_ENDIAN)
        models = [uids.VERIFICATION, *_STUDY_ROOT]
        if self._behaviour.patient_root:
            models += _PATIENT_ROOT
        if self._behaviour.get:
            models.append(uids.STUDY_ROOT_GET)
            if self._behaviour.patient_root:
                models.append(uids.PATIENT_ROOT_GET)
        contexts = [build_context(uid, syntaxes) for uid in models]
        if self._behaviour.get:
            contexts += self._storage_contexts(syntaxes)
        return contexts

    def _storage_contexts(self, syntaxes: list[str]) -> list[PresentationContext]:
        contexts = []
        for uid in sorted(self.holdings.sop_classes() | set(uids.RADIOTHERAPY_STORAGE)):
            context = build_context(uid, syntaxes)
            context.scu_role, context.scp_role = False, True
            contexts.append(context)
        return contexts

    def _admit(self, event: evt.Event) -> None:
        """Reject whom the daemon does not know (quirk 1)."""
        assoc = event.assoc
        reason = self._rejection(assoc)
        self._count("rejected" if reason else "association")
        if reason:
            assoc.acse.send_reject(1, 1, reason)
            assoc.kill()

    def _rejection(self, assoc: Association) -> int:
        primitive = assoc.requestor.primitive
        address = assoc.requestor.address if self._behaviour.check_source_address else None
        called = str(getattr(primitive, "called_ae_title", "")).strip()
        calling = str(getattr(primitive, "calling_ae_title", "")).strip()
        if self._behaviour.check_called_ae_title and called != self.ae_title.strip():
            log.info("Rejected an association: it called %r, this is %r", called, self.ae_title)
            return _CALLED_NOT_RECOGNISED
        if self._behaviour.check_calling_ae_title and self._trusted.client(calling, address) is None:
            log.info("Rejected an association: %r at %s is not a trusted entity", calling, assoc.requestor.address)
            return _CALLING_NOT_RECOGNISED
        return 0

    def _count(self, what: str) -> None:
        with self._counting:
            self.counts[what] += 1

    def _serve(self, exchange: wire.Exchange) -> None:
        self._count(exchange.service)
        try:
            self._answer(exchange)
        except Exception as error:  # noqa: BLE001 - the daemon must outlive any request
            # Where it happened, without the error's own words, which may quote a patient.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s could not be served: %s\n%s", exchange.service, type(error).__name__, where)
            exchange.respond(CANNOT_UNDERSTAND, comment="Unexpected exception")

    def _answer(self, exchange: wire.Exchange) -> None:
        behaviour = self._behaviour
        client = self._trusted.destination(exchange.client)
        if isinstance(exchange.request, C_FIND):
            find(
                exchange,
                self.holdings,
                behaviour,
                character_set=self._character_set(client),
                ae_title=self.ae_title,
            )
            return
        named = getattr(exchange.request, "MoveDestination", None)
        destination = self._trusted.destination(str(named)) if named else None
        receiver = destination if named else client
        export = Export(behaviour=behaviour, character_set=self._character_set(receiver), now=self._now)
        retrieve(exchange, self.holdings, export, destination=destination, associate=self._open)

    def _character_set(self, entity: TrustedEntity | None) -> str:
        if entity is None or entity.character_set is None:
            return self._behaviour.character_set
        return entity.character_set

    def _open(self, entity: TrustedEntity, syntaxes: dict[str, set[str]]) -> AbstractContextManager[Association | None]:
        self._count("outgoing")
        ae = AE(ae_title=self._behaviour.store_calling_ae_title or self.ae_title)
        self._introduce(ae)
        return self._outgoing.open(ae, entity, syntaxes)

    def _now(self) -> datetime:
        return datetime.now(self._timezone)
