"""The simulated DB Daemon: who may call, what is accepted, and where requests go."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.pdu_primitives import A_ABORT, A_RELEASE
from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse import parked, socket_manners
from airflow_provider_varian.dimse.quiet import silence
from airflow_provider_varian.dimse.status import Service
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.simulator.daemon import harm, hierarchy, limits, negotiation, stock_service, wire
from airflow_provider_varian.simulator.daemon.arrivals import Arrivals, as_arrived, same_rules
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.faults import Faults, Kind, Step
from airflow_provider_varian.simulator.daemon.find_service import CANNOT_UNDERSTAND, find
from airflow_provider_varian.simulator.daemon.irregular import set_irregularities
from airflow_provider_varian.simulator.daemon.listener import Listener, note
from airflow_provider_varian.simulator.daemon.origin import origin
from airflow_provider_varian.simulator.daemon.outgoing import OutgoingAssociations
from airflow_provider_varian.simulator.daemon.retrieve_service import Export, retrieve
from airflow_provider_varian.simulator.daemon.store_service import StoreService
from airflow_provider_varian.simulator.daemon.tally import Tally
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntities, TrustedEntity
from airflow_provider_varian.simulator.daemon.turn import Exposed, OverError, Turn
from airflow_provider_varian.simulator.holdings.imported import Imported
from airflow_provider_varian.simulator.holdings.tree import Holdings

log = logging.getLogger(__name__)

_END_SECONDS: Final = 5.0
#: For pynetdicom's time-outs where a transaction has none.
_FOR_EVER: Final = 1e6
_MANY: Final = 1_000_000


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
    :param imports: folder for what clients store; see :class:`.Imported`.
    :raises ConfigurationError: for an AE title that is none, or a folder that cannot be had.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. ``counts`` tells what it has done, see
    :class:`.Tally`; ``faults`` holds what is to go wrong, see :meth:`.Faults.arm`; ``clock`` tells the seconds by
    which images arrive late.
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
        imports: Path | None = None,
    ) -> None:
        limits.AE_TITLE.check("ae_title", ae_title)
        self.holdings = holdings
        self.ae_title = ae_title
        self.counts = Tally()
        self.faults = Faults()
        self.clock = time.monotonic
        self._listen = (host, port)
        self._trusted = TrustedEntities(trusted)
        self._behaviour = behaviour or Behaviour()
        self._timezone = timezone or ZoneInfo("UTC")
        self._ssl_context = ssl_context
        self._server: Listener | None = None
        self._outgoing = OutgoingAssociations(self.counts)
        self._imported = Imported(imports)
        self._imports = StoreService(self._imported, self.counts)
        self._arrivals = self._new_arrivals()
        self._stopping = threading.Event()
        self._restarts_until = 0.0
        set_irregularities(self.holdings, self._behaviour.irregularities)

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
        before, self._behaviour = self._behaviour, behaviour
        if behaviour.irregularities != before.irregularities:
            set_irregularities(self.holdings, behaviour.irregularities)
        if not same_rules(behaviour, before):
            self._arrivals = self._new_arrivals()
        if self._server is not None:
            self._introduce(self._server.ae)
            self._server.contexts = self._contexts()
            if behaviour.restart_seconds and behaviour.restart_seconds != before.restart_seconds:
                self.restart(behaviour.restart_seconds, refuses=behaviour.restart_refuses)

    def trust(self, entities: Iterable[TrustedEntity]) -> None:
        """Replace the list of trusted entities; the real daemon needs a restart for that."""
        self._trusted = TrustedEntities(entities)

    def start(self) -> None:
        """Begin to listen.

        :raises ConfigurationError: when the port cannot be had.
        """
        silence()
        ae = AE(ae_title=self.ae_title)
        self._introduce(ae)
        handlers: list[Any] = [
            *socket_manners.handlers(),
            (evt.EVT_CONN_OPEN, parked.bound_waiting),
            (evt.EVT_CONN_OPEN, wire.divert, [self._serve]),
            (evt.EVT_DIMSE_RECV, wire.forget_cancel),
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_SOP_EXTENDED, self._extend),
            # A release is counted before the client hears of it: it may call again at once.
            (evt.EVT_ACSE_SENT, self._count_end),
            (evt.EVT_ABORTED, self._count_end),
            (evt.EVT_CONN_CLOSE, self._count_end),
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_C_STORE, self._import),
        ]
        try:
            server: Any = ae.make_server(
                self._listen,
                ae_title=self.ae_title,
                contexts=self._contexts(),
                ssl_context=self._ssl_context,
                evt_handlers=handlers,
                server_class=Listener,
            )
        except OSError as error:
            host, port = self._listen
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                hint="Choose another port; 0 picks a free one",
            ) from error
        server.faults, server.tally = self.faults, self.counts
        self._server = server
        self._stopping = threading.Event()
        server.begin()
        if self._behaviour.restart_seconds:
            self.restart(self._behaviour.restart_seconds, refuses=self._behaviour.restart_refuses)

    def stop(self) -> None:
        """Stop listening and end all associations; harmless when it does not run."""
        self._stopping.set()
        server, self._server = self._server, None
        if server is None:
            return
        server.end()
        # Clients first: nobody shall take the end of the daemon for a result of his request.
        self._end_associations(server)
        log.info("Stopped, having counted: %s", self.counts)

    def restart(self, seconds: float, *, refuses: bool = False, spare: Association | None = None) -> None:
        """Restart, as far as clients see: all associations are aborted, and so are new ones for a while.

        :param seconds: how long.
        :param refuses: connections are refused meanwhile.
        :param spare: an association that the caller ends.
        :raises ConfigurationError: when it does not run.
        """
        server = self._server
        if server is None:
            raise ConfigurationError("the simulated daemon does not run", hint="Call start() first")
        log.info("Restarting for %s s", seconds)
        self.counts.add("restarts")
        if refuses:
            server.refuse_for(seconds)
        else:
            self._restarts_until = time.monotonic() + seconds
        self._end_associations(server, wait=False, spare=spare)

    def _end_associations(self, server: Listener, *, wait: bool = True, spare: Association | None = None) -> None:
        acceptors = [assoc for assoc in server.active_associations if assoc is not spare]
        established = [assoc for assoc in acceptors if assoc.is_established]
        for assoc in acceptors:
            harm.end(assoc)
        self._outgoing.abort()
        for assoc in established:
            if wait:
                assoc.join(timeout=_END_SECONDS)

    def _introduce(self, ae: AE) -> None:
        """Give an application entity the daemon's identity (quirk 2) and its patience (quirk 20)."""
        ae.maximum_associations = _MANY  # pynetdicom counts those too that it has just rejected
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self._behaviour.transaction_seconds or _FOR_EVER
        ae.implementation_class_uid = self._behaviour.implementation_class_uid
        ae.implementation_version_name = self._behaviour.implementation_version_name
        ae.maximum_pdu_size = self._behaviour.max_pdu

    def _admit(self, event: evt.Event) -> None:
        """Let in whom the daemon knows, and nobody when that cannot be told."""
        try:
            self._judge(event.assoc)
        except Exception as error:  # noqa: BLE001 - pynetdicom takes a handler that failed for one that agreed
            log.error("An association could not be judged: %s at %s", type(error).__name__, origin(error))
            self.counts.add("rejected")
            negotiation.turn_away(event.assoc, self._stopping)

    def _judge(self, assoc: Association) -> None:
        """Reject whom the daemon does not know (quirk 1), and let go wrong what shall."""
        if time.monotonic() < self._restarts_until:
            harm.finish(assoc, Kind.ABORT, self._stopping)
            return
        fault = self.faults.due(Step.ASSOCIATION)
        if fault is not None:
            note(self.counts, fault)
            if fault.kind is Kind.RESTART:
                self.restart(fault.seconds, refuses=fault.refuses, spare=assoc)
                fault = replace(fault, kind=Kind.ABORT)
            self.counts.add("rejected", fault.kind is Kind.REJECT)
            if not negotiation.suffer(assoc, fault, self._stopping):
                self.counts.add("lost", fault.kind is not Kind.REJECT)
                return
        behaviour = self._behaviour
        why = negotiation.refusal(assoc, self.ae_title, behaviour, self._trusted)
        if why is None and not self.counts.enter("open", assoc, behaviour.max_associations):
            why = negotiation.LOCAL_LIMIT_EXCEEDED
        self.counts.add("rejected" if why else "association")
        if why is not None:
            negotiation.reject(assoc, *why)

    def _extend(self, event: Any) -> dict[str, bytes]:
        """Answer SOP Class Extended Negotiation, or do not (quirk 4)."""
        asked = {str(uid): said for uid, said in event.app_info.items()}
        return hierarchy.answer_to(asked, self._behaviour.extended_negotiation)

    def _exposed(self, assoc: Association, service: Service) -> Exposed:
        return Exposed(assoc=assoc, service=service, **self._surroundings())

    def _surroundings(self) -> dict[str, Any]:
        """What a request needs of the daemon to suffer its faults."""
        return {
            "behaviour": self._behaviour,
            "faults": self.faults,
            "tally": self.counts,
            "stopping": self._stopping,
            "restart": lambda seconds, refuses: self.restart(seconds, refuses=refuses),
        }

    def _echo(self, event: evt.Event) -> Dataset:
        """Answer C-ECHO."""
        self.counts.add("C-ECHO")
        response = Dataset()
        response.Status = 0x0000
        return stock_service.serve(self._exposed(event.assoc, "C-ECHO"), lambda: response)

    def _import(self, event: evt.Event) -> Dataset:
        """Answer C-STORE."""
        return stock_service.serve(self._exposed(event.assoc, "C-STORE"), lambda: self._keep(event))

    def _keep(self, event: evt.Event) -> Dataset:
        before = self._imported.sop_classes()
        answer = self._imports.serve(event, self.holdings, self._behaviour)
        if self._server is not None and self._imported.sop_classes() != before:
            # What is held can be had by C-GET.
            self._server.contexts = self._contexts()
        return answer

    def _count_end(self, event: Any) -> None:
        if event.event is not evt.EVT_ACSE_SENT or isinstance(event.primitive, A_RELEASE | A_ABORT):
            self.counts.leave("open", event.assoc)

    def _serve(self, exchange: wire.Exchange) -> None:
        self.counts.add(exchange.service)
        turn = Turn(
            assoc=exchange.assoc,
            service=exchange.service,
            exchange=exchange,
            number=self.counts.add("requests"),
            **self._surroundings(),
        )
        try:
            if self.faults.armed:
                # Before anybody else gets hold of the socket.
                harm.spoil(exchange.assoc, self._stopping)
            self._answer(turn)
        except OverError as over:
            log.info("A %s ended with its association", exchange.service)
            over.settle()
        except ConnectionError:
            log.info("A %s came on an association that is over", exchange.service)
        except Exception as error:  # noqa: BLE001 - the daemon must outlive any request
            log.error("%s could not be served: %s at %s", exchange.service, type(error).__name__, origin(error))
            exchange.respond(CANNOT_UNDERSTAND, comment="Unexpected exception")

    def _answer(self, turn: Turn) -> None:
        behaviour, request = turn.behaviour, turn.exchange.request
        holdings = as_arrived(self._imported.over(self.holdings), behaviour, self._arrivals)
        client = self._trusted.destination(turn.exchange.client)
        if isinstance(request, C_FIND):
            find(turn, holdings, character_set=self._character_set(client), ae_title=self.ae_title)
            return
        named = getattr(request, "MoveDestination", None)
        destination = self._trusted.destination(str(named)) if named else None
        receiver = destination if named else client
        export = Export(behaviour=behaviour, character_set=self._character_set(receiver), now=self._now)
        associate = partial(self._open, turn.exchange)
        retrieve(turn, holdings, export, destination=destination, associate=associate)

    def _character_set(self, entity: TrustedEntity | None) -> str:
        if entity is None:
            return self._behaviour.character_set
        if entity.character_set is not None:
            return entity.character_set
        return self._behaviour.character_sets_by_client().get(entity.ae_title, self._behaviour.character_set)

    def _open(
        self, exchange: wire.Exchange, entity: TrustedEntity, syntaxes: dict[str, set[str]]
    ) -> AbstractContextManager[Association | None]:
        self.counts.add("outgoing")
        ae = AE(ae_title=self._behaviour.store_calling_ae_title or self.ae_title)
        self._introduce(ae)
        return self._outgoing.open(ae, entity, syntaxes, unwanted=lambda: exchange.broken)

    def _contexts(self) -> list[PresentationContext]:
        return negotiation.accepted_contexts(self._behaviour, self._imported.over(self.holdings).sop_classes())

    def _new_arrivals(self) -> Arrivals:
        return Arrivals(lambda: self.clock())

    def _now(self) -> datetime:
        return datetime.now(self._timezone)
