"""Associations as context managers that always end, and the reasons why one does not begin.

Negotiation, release and abort are pynetdicom's. What is added: every way to fail has a typed error that
says what to change, nothing waits for ever, and a cancellation reaches whatever runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse import parked, proposal, reasons, socket_manners, streaming
from airflow_provider_varian.dimse.bounds import Bounds
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.contexts import MAXIMUM_CONTEXTS
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.quiet import QuietAE, silence
from airflow_provider_varian.dimse.tls import client_context
from airflow_provider_varian.dimse.turn import TASK, Patience, note_request, turn
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    CancelledError,
    ConfigurationError,
    ContextRejectedError,
    DicomError,
    PeerTimeoutError,
    PermanentRejectionError,
)
from airflow_provider_varian.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from airflow_provider_varian.waiting import Waiting

log = logging.getLogger(__name__)

Handler = tuple[evt.EventType, Callable[..., Any]]

#: Nobody's work depends on the answer to a release, so it is not waited for as long as for others.
_RELEASE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What the peer said when it accepted the association.

    :param implementation_class_uid: (PS3.7 D.3.3.2); empty when it sent none.
    :param implementation_version_name: e.g. ``"DB Svc 16.1"``; empty when it sent none.
    :param max_pdu: largest PDU the peer takes, bytes; 0 means no limit.
    :param accepted: pairs of abstract syntax and transfer syntax, in the order of the proposal.
    """

    implementation_class_uid: str
    implementation_version_name: str
    max_pdu: int
    accepted: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Trace:
    """What the event handlers saw of an association."""

    #: When it was opened and when something last came, ``time.monotonic()``; 0.0: never.
    opened: float = 0.0
    heard: float = 0.0
    #: How the peer ended it, in words; the first is the cause, others follow from it.
    endings: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PeerAssociation:
    """An open association with a peer; what the verbs of :mod:`.echo`, :mod:`.find` etc. take.

    One verb at a time. ``assoc`` is pynetdicom's object.
    """

    peer: Peer
    assoc: Association
    cancellation: Cancellation
    negotiated: Negotiated
    _last_message_id: int = field(default=0, repr=False)
    _running: tuple[int, int] | None = field(default=None, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _trace: _Trace = field(default_factory=_Trace, repr=False)

    def accepts(self, sop_class_uid: str) -> bool:
        """Say whether the peer accepted a presentation context for a SOP class."""
        return any(abstract == sop_class_uid for abstract, _ in self.negotiated.accepted)

    def context_for(self, sop_class_uid: str, *, step: str) -> PresentationContext:
        """Return the accepted presentation context of a service.

        :raises ContextRejectedError: names the service that was refused.
        """
        for context in self.assoc.accepted_contexts:
            if context.abstract_syntax == sop_class_uid:
                return context
        raise ContextRejectedError(
            f"the peer accepted no presentation context for {reasons.name_of(sop_class_uid)}",
            peer=self.peer.name,
            step=step,
            hint=reasons.context_hint(sop_class_uid),
        )

    @contextmanager
    def running(self, context: PresentationContext) -> Iterator[int]:
        """Mark a request as running, so that a cancellation can name it to the peer.

        :return: the Message ID (0000,0110) to use.
        """
        self._last_message_id = self._last_message_id % 0xFFFF + 1
        parked.claim(self.assoc)
        self._running = (self._last_message_id, context.context_id or 0)
        try:
            yield self._last_message_id
        finally:
            self._running = None
            note_request(self.peer)
            parked.hand_back(self.assoc)

    def cancel_request(self) -> None:
        """Send a C-CANCEL for the running request, if there is one (PS3.7 9.3.2.3)."""
        running = self._running
        if running is None or not self.assoc.is_established:
            return
        try:
            self.assoc.send_c_cancel(running[0], running[1])
        except RuntimeError:
            log.debug("The association with %s ended before the C-CANCEL", self.peer.name)

    def abort(self) -> None:
        """End the association at once; a request that waits on it notices."""
        self.assoc.abort()

    def stop(self, grace_seconds: float) -> None:
        """Cancel what is running, wait, then abort: called by a cancellation, from a helper thread."""
        self.cancel_request()
        if not self._ended.wait(grace_seconds):
            log.info("%s did not end in %s s after C-CANCEL, aborting", self.peer.name, grace_seconds)
            self.abort()

    @property
    def heard(self) -> float:
        """When the peer last sent something whole, as ``time.monotonic()``: a part of a message counts."""
        return self._trace.heard

    @property
    def was_ended_by_peer(self) -> bool:
        """Whether the peer was seen to end it: it aborted, released or hung up before we did."""
        return bool(self._trace.endings)

    def note_ending(self, words: str) -> None:
        """Remember how the association ended, for :meth:`lost`."""
        self._trace.endings.append(words)

    def lost(self, step: str) -> DicomError:
        """Return the error for an association that is gone, after finding out why."""
        if self.cancellation.cancelled:
            return reasons.cancelled(self.peer, step)
        words = self._trace.endings[0] if self._trace.endings else "the connection was lost"
        return AssociationAbortedError(
            words,
            peer=self.peer.name,
            step=step,
            hint="The daemon may have restarted or run into an error: try again, and look into its log",
        )


@contextmanager
def associate(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    step: str,
    cancellation: Cancellation | None = None,
    extra_handlers: Sequence[Handler] = (),
    patience: Patience = TASK,
    on_wait: Callable[[float], None] | None = None,
) -> Iterator[PeerAssociation]:
    """Open an association for the length of a ``with`` block; it is always released or aborted.

    Aborted when the block is cancelled or raises something that is not a :class:`DicomError`. Before, it is waited
    for the end of the peer's quiet hours and for an association of its budget; see :mod:`.turn`. So a block must not
    open another association with the same peer.

    :param peer: whom to call.
    :param contexts: presentation contexts to propose, see :mod:`.contexts`.
    :param step: what it is for, e.g. ``"C-FIND"``: errors say it.
    :param cancellation: ends the association from outside.
    :param extra_handlers: further event handlers of pynetdicom.
    :param patience: how long to wait until the peer may be called.
    :param on_wait: called with the seconds that were waited until then.
    :raises AssociationBudgetError: all associations that the peer is to hold for us are in use.
    :raises PeerUnreachableError: host not found, connection refused or timed out, TLS handshake failed.
    :raises TransientRejectionError: rejected for now (semantics 24).
    :raises PermanentRejectionError: rejected, e.g. because the calling AE title is not a trusted entity.
    :raises ContextRejectedError: accepted, but without any of the services asked for.
    :raises AssociationAbortedError: the peer hung up during the negotiation.
    :raises PeerTimeoutError: the peer did not answer the association request.
    :raises CancelledError: cancelled before or during the negotiation.
    """
    cancellation = cancellation or Cancellation()
    cancellation.raise_if_cancelled()
    with turn(peer, step=step, cancellation=cancellation, patience=patience, on_wait=on_wait):
        attempt = _Attempt(peer, step, cancellation)
        with cancellation.attach(attempt):
            assoc = attempt.request(contexts, extra_handlers)
        association = PeerAssociation(peer, assoc, cancellation, _negotiated(assoc), _trace=attempt.trace)
        try:
            with cancellation.attach(association):
                _check_user_identity(association, step)
                yield association
        except BaseException as error:
            # A daemon should not have to log an abort because, say, a plan was not found.
            _abort(assoc) if _spoils(error) else parked.release(assoc, _RELEASE_SECONDS)
            raise
        else:
            parked.release(assoc, _RELEASE_SECONDS)
        finally:
            parked.close_socket(assoc)
            association._ended.set()


class _Attempt:
    """One attempt to open an association, and what was seen of it."""

    def __init__(self, peer: Peer, step: str, cancellation: Cancellation) -> None:
        self._peer = peer
        self._step = step
        self._cancellation = cancellation
        # Known once the request is on its way, which is before the connection stands.
        self._assoc: Association | None = None
        self._gave_up = 0.0
        self._answer: A_ASSOCIATE | None = None
        self.trace = _Trace()

    def request(self, contexts: Sequence[PresentationContext], extra_handlers: Sequence[Handler]) -> Association:
        """Negotiate; return the established association or raise why there is none."""
        silence()
        peer = self._peer
        if len(contexts) > MAXIMUM_CONTEXTS:
            raise ConfigurationError(
                f"{len(contexts)} presentation contexts cannot be proposed, only {MAXIMUM_CONTEXTS}", step=self._step
            )
        ae = QuietAE(ae_title=peer.calling_ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.connection_timeout = peer.connect_timeout
        ae.acse_timeout = peer.acse_timeout
        ae.dimse_timeout = peer.dimse_timeout
        ae.network_timeout = peer.network_timeout
        tls = (client_context(peer.tls), peer.tls.server_name or peer.host) if peer.tls else None
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._on_open),
            (evt.EVT_CONN_OPEN, parked.bound_waiting),
            (evt.EVT_CONN_OPEN, parked.park),
            (evt.EVT_CONN_OPEN, self._read_within_bounds),
            (evt.EVT_PDU_RECV, self._on_pdu),
            (evt.EVT_ACSE_RECV, self._on_acse),
            (evt.EVT_ACSE_SENT, self._on_acse_sent),
            *socket_manners.handlers(),
            *extra_handlers,
        ]
        try:
            assoc = ae.associate(
                peer.host,
                peer.port,
                contexts=proposal.Contexts(contexts),
                ae_title=peer.called_ae_title,
                max_pdu=peer.max_pdu,
                ext_neg=proposal.negotiation_items(peer, contexts),
                tls_args=tls,
                evt_handlers=handlers,
            )
        except (OSError, UnicodeError) as error:  # the host's name cannot be resolved
            raise reasons.unreachable(peer, self._step, error) from error
        if assoc.is_established:
            return assoc
        try:
            raise self._reason(assoc)
        finally:
            parked.close_socket(assoc)

    def stop(self, grace_seconds: float) -> None:
        """Abort the negotiation: it has no cancel of its own."""
        if self._assoc is not None and not self._assoc.is_established:
            parked.close_socket(self._assoc)

    def _on_open(self, event: evt.Event) -> None:
        self.trace.opened = time.monotonic()

    def _read_within_bounds(self, event: evt.Event) -> None:
        # Whoever waits for an answer gives up before, and says what it has waited for.
        bounds = Bounds(read_seconds=self._peer.dimse_timeout + self._peer.network_timeout)
        streaming.attach_requestor(event, bounds, self._note_activity)

    def _note_activity(self) -> None:
        self.trace.heard = time.monotonic()

    def _on_pdu(self, event: evt.Event) -> None:
        self._note_activity()
        if isinstance(getattr(event, "pdu", None), A_ABORT_RQ):
            self.trace.endings.append("the peer aborted the association")

    def _on_acse_sent(self, event: evt.Event) -> None:
        self._assoc = event.assoc
        if isinstance(getattr(event, "primitive", None), A_ABORT):
            self._gave_up = time.monotonic()

    def _on_acse(self, event: evt.Event) -> None:
        primitive = getattr(event, "primitive", None)
        if isinstance(primitive, A_ASSOCIATE):
            self._answer = primitive
        elif words := reasons.ending(primitive):
            self.trace.endings.append(words)

    def _reason(self, assoc: Association) -> DicomError:
        """Find out why there is no association."""
        peer, step = self._peer, self._step
        # A peer that answers and closes at once is taken for one that could not be reached: pynetdicom
        # looks whether the socket is still open before it looks for the answer.
        while assoc.dul.receive_pdu(wait=False) is not None:
            pass
        answer = self._answer
        if self._cancellation.cancelled:
            return reasons.cancelled(peer, step)
        if answer is not None and answer.result:
            return reasons.rejection(peer, step, answer.result, answer.result_source or 0, answer.diagnostic or 0)
        if answer is not None and assoc.rejected_contexts:
            proposed = [str(context.abstract_syntax) for context in assoc.requestor.requested_contexts]
            return reasons.no_context(peer, step, proposed)
        if not self.trace.opened:
            return reasons.unreachable(peer, step, reasons.probe(peer))
        if answer is None and self._gave_up - self.trace.opened >= peer.acse_timeout:
            return PeerTimeoutError(
                f"no answer to the association request within {peer.acse_timeout:g} s",
                peer=peer.name,
                step=step,
                hint="Something listens there but does not speak DICOM, or is overloaded: check port and TLS setting",
            )
        words = self.trace.endings[0] if self.trace.endings else "the peer ended it at once"
        return AssociationAbortedError(
            f"no association came about: {words}",
            peer=peer.name,
            step=step,
            hint=reasons.aborted_hint(peer),
        )


def _negotiated(assoc: Association) -> Negotiated:
    acceptor = assoc.acceptor
    return Negotiated(
        implementation_class_uid=str(acceptor.implementation_class_uid or ""),
        implementation_version_name=str(acceptor.implementation_version_name or ""),
        max_pdu=acceptor.maximum_length or 0,
        accepted=tuple((str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in assoc.accepted_contexts),
    )


def _check_user_identity(association: PeerAssociation, step: str) -> None:
    peer = association.peer
    if peer.require_user_identity and association.assoc.acceptor.user_identity is None:
        raise PermanentRejectionError(
            "the peer accepted the association without confirming the user identity",
            peer=peer.name,
            step=step,
            hint="Have the peer verify user identities, or set require_user_identity to false",
        )


def _spoils(error: BaseException) -> bool:
    """Say whether an error leaves the association in no state for good manners."""
    broken = (AssociationAbortedError, PeerTimeoutError, CancelledError)
    return not isinstance(error, (DicomError, Waiting)) or isinstance(error, broken)


def _abort(assoc: Association) -> None:
    if assoc.is_established:
        assoc.abort()
