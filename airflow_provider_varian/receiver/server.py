"""A Storage SCP that listens (PS3.4 Annex B, PS3.8): one implementation for both ways of running it.

A thread accepts and counts; each connection has a thread of its own (:mod:`.conversation`); pynetdicom's two threads of
an association are started when the first byte has come. Who may associate is decided here, before pynetdicom
negotiates: it would count connections that never asked for anything.
"""

from __future__ import annotations

import functools
import itertools
import logging
import ssl
import threading
import time
from typing import Any, Final

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT, A_RELEASE
from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse import contexts, quiet, socket_manners, streaming
from airflow_provider_varian.dimse.sink import StorageSink
from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver import admission as rejections
from airflow_provider_varian.receiver.admission import Admission, Rejection, plain_address
from airflow_provider_varian.receiver.connections import Connection, Connections
from airflow_provider_varian.receiver.conversation import Conversation
from airflow_provider_varian.receiver.limits import Limits
from airflow_provider_varian.receiver.listener import Door, bind
from airflow_provider_varian.receiver.observer import (
    AssociationFacts,
    Ending,
    Observer,
    Refusal,
    observers,
    printable_title,
)
from airflow_provider_varian.receiver.quota import Quotas
from airflow_provider_varian.receiver.reception import Reception
from airflow_provider_varian.receiver.refusals import Refusals
from airflow_provider_varian.receiver.tls_peer import subject_of
from airflow_provider_varian.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

logger = logging.getLogger(__name__)

#: pynetdicom's own limit counts connections that never asked for anything, and those that it has just rejected.
_NO_LIMIT: Final = 1_000_000
#: For aborts to reach their peers, before the connections are cut.
_ABORT_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 10.0
#: DICOM's application context (PS3.7 A.2.1).
_DICOM: Final = "1.2.840.10008.3.1.1.1"
_REJECTIONS: Final = {
    Refusal.TOO_MANY_ASSOCIATIONS: rejections.LOCAL_LIMIT_EXCEEDED,
    Refusal.TOO_MANY_OF_SOURCE: rejections.SOURCE_LIMIT_EXCEEDED,
}
#: A P-ABORT's reason for a PDU that was not expected, or none (PS3.8 table 9-26).
_CONNECTION_LOST: Final = 0x00


class ReceiverServer:
    """Listens, lets in whom it may, and stores what they bring.

    :param ae_title: what we call ourselves; who may call which title is for ``admission``.
    :param admission: who may connect and associate.
    :param sink: where objects go.
    :param limits: how much at once, and for how long.
    :param max_pdu: the longest P-DATA-TF that we announce to take, in bytes (PS3.8 D.1); never 0, which is no limit.
    :param tls_context: serve TLS with it.
    :param observer: is told what happens.
    """

    def __init__(
        self,
        *,
        ae_title: str,
        admission: Admission,
        sink: StorageSink,
        limits: Limits,
        max_pdu: int,
        tls_context: ssl.SSLContext | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.limits = limits
        self._admission = admission
        self._sink = sink
        self._observer = observers(*([observer] if observer is not None else []))
        self._quotas = Quotas(limits)
        self._connections = Connections(limits)
        self._refusals = Refusals(admission, limits, self._observer)
        self._conversation = Conversation(
            self._connections,
            limits,
            tls_context=tls_context,
            hand_over=self._hand_over,
            refusals=self._refusals,
            observer=self._observer,
        )
        self._ae = _application_entity(ae_title, limits, max_pdu)
        self._of_association: dict[Association, Connection] = {}
        self._handed_over = threading.local()
        self._numbers = itertools.count(1)
        self._door: Door | None = None
        self._listener: Any = None
        self._stopping = False
        #: When something came from the network last, on the clock of :func:`time.monotonic`.
        self.last_activity = time.monotonic()
        #: How many have connected since the start, let in or not, and how many associations were accepted.
        self.inbound = self.accepted = 0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port on which it listens."""
        if self._listener is None:
            raise ReceiverUnavailableError("the receiver is not running", step="receiver")
        host, port = self._listener.address
        return host, port

    @property
    def is_listening(self) -> bool:
        """Whether associations are taken."""
        return self._door is not None and not self._stopping

    @property
    def connections(self) -> int:
        """How many connections there are, with an association or without."""
        return len(self._connections)

    @property
    def associations(self) -> int:
        """How many associations there are."""
        return self._connections.associations

    def start(self, host: str, port: int) -> None:
        """Listen.

        :param host: address or name; empty: all interfaces.
        :param port: 0 takes a free one.
        :raises OSError: when the port cannot be had.
        """
        quiet.silence()
        handlers: list[Any] = [
            *socket_manners.handlers(),
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_ACSE_SENT, self._sent),
            (evt.EVT_ACSE_RECV, self._received),
            (evt.EVT_ABORTED, self._aborted),
            (evt.EVT_C_ECHO, _answer_echo),
        ]
        self._listener = bind(self._ae, host, port, handlers, _contexts())
        self._door = Door(self._listener, self._accepted)
        self._refusals.start()
        self._door.open()

    def drain(self, seconds: float) -> bool:
        """Take no more connections nor associations, and wait for those that there are.

        :param seconds: how long to wait at most.
        :return: whether all have ended by themselves.
        """
        self._stopping = True
        if self._door is not None:
            self._door.close()
        return self._connections.wait_until_no_associations(seconds)

    def stop(self) -> None:
        """Stop listening and end what is open. May be called twice."""
        self._stopping = True
        door, self._door = self._door, None
        if door is None:
            return
        door.close()
        for connection in self._connections.all():
            self._end(connection)
        if not self._connections.wait_until_empty(_ABORT_SECONDS):
            # Somebody does not read what we send, or is in the middle of a PDU.
            for connection in self._connections.all():
                connection.cut()
            if not self._connections.wait_until_empty(_STOP_SECONDS):
                logger.warning("Receiver: %d connections did not end", self.connections)
        self._refusals.stop()
        self._listener = None

    def _accepted(self, raw: Any, address: Any) -> None:
        """Let a connection in, or close it; on the thread that accepts."""
        self.inbound += 1
        self.last_activity = time.monotonic()
        source = str(plain_address(str(address[0])))
        connection = Connection(source, raw)
        reason: Refusal | None
        if self._stopping:
            reason = Refusal.STOPPING
        elif not self._admission.admits_address(source):
            reason = Refusal.NETWORK
        else:
            reason = self._connections.enter(connection)
        if reason is not None:
            connection.close()
            self._refusals.at_the_door(source, reason)
            return
        try:
            threading.Thread(
                target=self._serve, args=(connection, address), name="dicom-connection", daemon=True
            ).start()
        except RuntimeError:  # no more threads
            self._connections.leave(connection)
            raise

    def _serve(self, connection: Connection, address: Any) -> None:
        """Serve a connection to its end, and keep nothing of it."""
        self._conversation.serve(connection, address)
        if connection.association is not None:
            self._of_association.pop(connection.association, None)

    def _hand_over(self, connection: Connection, address: Any) -> None:
        """Have pynetdicom make an association of a connection; it does so in this thread, by way of :meth:`_opened`."""
        self._handed_over.connection = connection
        try:
            self._listener.finish_request(connection.raw, address)
        finally:
            self._handed_over.connection = None

    def _opened(self, event: evt.Event) -> None:
        """Make an association ours, before its threads start (``EVT_CONN_OPEN``)."""
        connection: Connection = self._handed_over.connection
        connection.association = event.assoc
        reception = Reception(connection, self._observer, self._touch)
        sink = self._quotas.sink(reception.sink(self._sink), connection.source, reception.quota_exceeded)
        try:
            streaming.attach(event, sink, self.limits.bounds, reception)
        except Exception as error:
            # pynetdicom goes on, and an association that is not entered here is rejected.
            logger.error("Receiver: an association cannot be served: %s", type(error).__name__)
            raise
        self._of_association[event.assoc] = connection

    def _requested(self, event: evt.Event) -> None:
        """Decide about an association that is asked for (``EVT_REQUESTED``)."""
        assoc: Any = event.assoc
        connection = self._of_association.get(assoc)
        try:
            rejection = self._judge(assoc, connection) if connection is not None else rejections.NOT_JUDGED
        except Exception as error:  # noqa: BLE001 - pynetdicom takes a handler that failed for one that agreed
            logger.error("Receiver: an association could not be judged: %s", type(error).__name__)
            rejection = rejections.NOT_JUDGED
        if rejection is None:
            return
        if connection is not None:
            connection.refusal = connection.refusal or rejection.reason
        # Whatever happens while it is rejected, pynetdicom must not go on to accept it.
        assoc.is_rejected = True
        assoc.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        assoc.kill()

    def _judge(self, assoc: Any, connection: Connection) -> Rejection | None:
        connection.has_asked = True
        request = assoc.requestor.primitive
        called, calling = str(request.called_ae_title or ""), str(request.calling_ae_title or "")
        if request.application_context_name != _DICOM:
            return rejections.APPLICATION_NOT_SUPPORTED
        rejection = self._admission.judge(called, calling, connection.source)
        if rejection is None and self._stopping:
            rejection = rejections.STOPPING
        if rejection is not None:
            return rejection
        if (full := self._connections.associate(connection)) is not None:
            return _REJECTIONS.get(full, rejections.LOCAL_LIMIT_EXCEEDED)
        facts = AssociationFacts(
            number=next(self._numbers),
            source_address=connection.source,
            calling_ae_title=printable_title(calling),
            called_ae_title=printable_title(called),
            tls_subject=subject_of(connection.raw),
        )
        self.accepted += 1
        self._observer.associated(facts)
        connection.facts = facts
        return None

    def _sent(self, event: Any) -> None:
        """Give the place back before the peer hears that it is released: it may call again at once."""
        connection = self._of_association.get(event.assoc)
        if connection is not None and isinstance(event.primitive, A_RELEASE):
            connection.ending = connection.ending or Ending.RELEASED
            self._connections.part(connection)

    def _received(self, event: Any) -> None:
        connection = self._of_association.get(event.assoc)
        if connection is None or connection.ending is not None:
            return
        if isinstance(event.primitive, A_ABORT):
            connection.ending = Ending.ABORTED
        elif isinstance(event.primitive, A_P_ABORT):
            lost = event.primitive.provider_reason == _CONNECTION_LOST
            connection.ending = Ending.CUT if lost else Ending.PROTOCOL

    def _aborted(self, event: evt.Event) -> None:
        """Note why pynetdicom aborts: for silence, or for what it does not understand."""
        connection = self._of_association.get(event.assoc)
        if connection is not None and connection.ending is None:
            silent = event.assoc.dul.idle_timer_expired()
            connection.ending = Ending.TIMEOUT if silent else Ending.PROTOCOL

    def _end(self, connection: Connection) -> None:
        """Abort an association; hang up on a caller with whom there is none."""
        association = connection.association
        connection.ending = connection.ending or Ending.STOPPED
        # PS3.8 table 9-10 knows no A-ABORT for who has not asked for an association yet (Sta2) or was sent away
        # (Sta13).
        if association is None or association.dul.state_machine.current_state in ("Sta1", "Sta2", "Sta13"):
            connection.refusal = connection.refusal or Refusal.STOPPING
            connection.cut()
        else:
            association.abort(block=False)

    def _touch(self) -> None:
        self.last_activity = time.monotonic()


class _Shared(list[PresentationContext]):
    """Presentation contexts that all associations share: pynetdicom copies 170 of them for each connection, deeply.

    It does not change them: an acceptor's negotiation makes new ones of them.
    """

    def __deepcopy__(self, memo: Any) -> _Shared:
        return self


def _application_entity(ae_title: str, limits: Limits, max_pdu: int) -> AE:
    ae = AE(ae_title)
    ae.maximum_associations = _NO_LIMIT
    ae.maximum_pdu_size = max_pdu
    ae.acse_timeout = limits.bounds.association_seconds
    ae.dimse_timeout = limits.idle_seconds
    ae.network_timeout = limits.idle_seconds
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return ae


@functools.cache
def _contexts() -> _Shared:
    """Return what every receiver of this process accepts: making it takes longer than an association."""
    return _Shared(contexts.receiver_contexts())


def _answer_echo(_event: evt.Event) -> int:
    return 0x0000
