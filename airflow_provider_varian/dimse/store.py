"""C-STORE as SCU (PS3.4 Annex B): objects to a peer, each with an account of what became of it.

The daemon imports what it gets, often with Automatic Patient Creation, so nothing is sent unless the
connection allows it (semantics 20). A context is proposed for each SOP class and transfer syntax that occurs;
compressed data sets go as they are or not at all. When an association is lost, the rest goes over a new one:
the object whose answer did not come is sent again, which is harmless, since it has the same UID.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context

from airflow_provider_varian import uids
from airflow_provider_varian.dimse import parked, reasons, status
from airflow_provider_varian.dimse.association import Negotiated, PeerAssociation, associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.command_set import StoreRequest
from airflow_provider_varian.dimse.contexts import MAXIMUM_CONTEXTS
from airflow_provider_varian.dimse.lasting import may_go_on
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.sender import Sender, StoreAnswer, sending
from airflow_provider_varian.dimse.slices import Slice
from airflow_provider_varian.dimse.turn import note_request
from airflow_provider_varian.errors import (
    AssociationAbortedError,
    ConfigurationError,
    ContextRejectedError,
    DicomError,
    PeerTimeoutError,
    TransientDicomError,
)
from airflow_provider_varian.privacy import harmless

log = logging.getLogger(__name__)

_STEP: Final = "C-STORE"
#: How often an object is sent whose answer does not come: it may be the one that brings the peer down.
OBJECT_TRIES: Final = 2
#: How many associations in a row may be lost without a single answer before the rest is left.
LOSSES_IN_A_ROW: Final = 3


class StoreState(StrEnum):
    """What became of one object that was to be sent."""

    UNSENT = "unsent"
    """Not sent: no association, or the work was cut short before its turn."""
    STORED = "stored"
    """The peer answered success."""
    WARNING = "warning"
    """The peer took it with a remark: 0xB000 coerced, 0xB006 elements discarded, 0xB007 does not match its class."""
    FAILED = "failed"
    """The peer answered a failure, accepts no context for it, or the file could not be read to its end."""
    UNANSWERED = "unanswered"
    """Sent, and no answer came: the peer may have it or not."""
    REFUSED = "refused"
    """Not sent by us: it is no DICOM object that can be stored."""

    @property
    def is_accepted(self) -> bool:
        """Whether the peer has it."""
        return self in (StoreState.STORED, StoreState.WARNING)


class UnsendableError(Exception):
    """An object cannot be sent; the text says why, and names nobody.

    :param transient: whether it may be another time: somebody is writing the file, for one.
    """

    def __init__(self, words: str, *, transient: bool = False) -> None:
        super().__init__(words)
        self.transient = transient


class Outgoing(Protocol):
    """An object that is to be sent; it is opened when its turn comes."""

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID of the data set."""

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID of the data set."""

    @property
    def transfer_syntax_uid(self) -> str:
        """How it is encoded now."""

    def opened(self, transfer_syntax_uid: str) -> AbstractContextManager[Sequence[Slice]]:
        """Give its data set for the length of a block, encoded in the transfer syntax that the peer took.

        :param transfer_syntax_uid: its own, or Implicit VR Little Endian for one in Explicit VR Little Endian.
        :raises UnsendableError: on entering, or on leaving when it changed while it was sent.
        :raises OSError: when it cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one try to send an object.

    :param state: see :class:`StoreState`.
    :param status: Status (0000,0900) of the answer; ``None`` when there was none.
    :param reason: status or failure in words, without identifiers; empty for a plain success.
    :param transfer_syntax_uid: in which it went; empty when it did not.
    :param error: what stands in the way, knowing whether a retry is worth it; ``None`` when it was accepted.
    :param on_the_wire: whether its bytes went out, whole or in part.
    """

    state: StoreState
    status: int | None = None
    reason: str = ""
    transfer_syntax_uid: str = ""
    error: DicomError | None = None
    on_the_wire: bool = True


OnSent = Callable[[Outgoing, Sent], None]
OnAssociated = Callable[[Negotiated], None]


def check_allowed(peer: Peer) -> None:
    """Refuse to store unless the connection allows it, before any file is read and any network used (semantics 20).

    :raises ConfigurationError: says which field to set, and what it means.
    """
    if not peer.allow_store:
        raise ConfigurationError(
            "storing to this peer is not allowed: allow_store of its connection is off",
            peer=peer.name,
            step=_STEP,
            hint="The daemon imports what it gets, often creating patients. Set allow_store to true only in the "
            "connection of a DB Service that is meant for it, with Automatic Patient Creation unticked",
        )


def store(
    peer: Peer,
    objects: Sequence[Outgoing],
    *,
    on_sent: OnSent,
    on_associated: OnAssociated | None = None,
    cancellation: Cancellation | None = None,
) -> DicomError | None:
    """Send objects, one after the other, and tell of each try.

    :param peer: to whom; it must be allowed.
    :param objects: what to send.
    :param on_sent: called at the end of each try of an object; one that was not answered may come again. Objects
        of which it hears nothing were not sent.
    :param on_associated: called with what the peer said when it accepted an association.
    :param cancellation: ends the work from outside.
    :return: what kept the rest from being sent; ``None`` when each object had its turn.
    :raises ConfigurationError: the connection does not allow it.
    :raises CancelledError: cancelled; what was told until then stands.
    """
    check_allowed(peer)
    run = _Run(peer, on_sent, on_associated, cancellation or Cancellation())
    for batch in _batches(objects):
        if (error := run.send(batch)) is not None:
            return error
    return None


class _Run:
    """Sends batches of objects, each of which fits into one association."""

    def __init__(
        self, peer: Peer, on_sent: OnSent, on_associated: OnAssociated | None, cancellation: Cancellation
    ) -> None:
        self._peer = peer
        self._on_sent = on_sent
        self._on_associated = on_associated
        self._cancellation = cancellation
        self._losses = 0
        self._message_id = 0
        self._unanswered: Counter[int] = Counter()

    def send(self, batch: Sequence[Outgoing]) -> DicomError | None:
        """Send a batch over as many associations as it takes; return what kept the rest from being sent."""
        rest = list(batch)
        while rest:
            self._cancellation.raise_if_cancelled()
            try:
                with associate(self._peer, _contexts(rest), step=_STEP, cancellation=self._cancellation) as association:
                    if self._on_associated is not None:
                        self._on_associated(association.negotiated)
                    self._send_over(association, rest)
            except ContextRejectedError:
                for each in rest:
                    self._on_sent(each, _no_context(self._peer, each))
                return None
            except (AssociationAbortedError, PeerTimeoutError) as lost:
                self._cancellation.raise_if_cancelled()
                self._losses += 1
                if rest and self._losses >= LOSSES_IN_A_ROW:
                    return lost
                log.warning("%s; objects left to send: %d", lost, len(rest))
            except DicomError as error:
                self._cancellation.raise_if_cancelled()
                return error
        return None

    def _send_over(self, association: PeerAssociation, rest: list[Outgoing]) -> None:
        """Send over one association, until quiet hours begin; what had its turn is taken off ``rest``.

        :raises AssociationAbortedError: it was lost, likewise PeerTimeoutError.
        :raises CancelledError: cancelled.
        """
        assoc = association.assoc
        # Not association.running(): a cancellation would put a C-CANCEL, which C-STORE does not have, among the data.
        parked.claim(assoc)
        try:
            with sending(assoc) as sender:
                while rest:
                    self._cancellation.raise_if_cancelled()
                    if (lost := self._send_one(association, sender, rest[0])) is not None:
                        self._give_up_or_keep(rest)
                        raise lost
                    del rest[0]
                    # We may have ended it ourselves, with half an object out: that is no loss that the peer caused.
                    if rest and not may_go_on(association):
                        return
        finally:
            note_request(self._peer)
            parked.hand_back(assoc)

    def _send_one(self, association: PeerAssociation, sender: Sender, each: Outgoing) -> DicomError | None:
        """Send one object and tell what became of it; return how the association was lost over it, if it was."""
        context = _context_for(association, each)
        if context is None:
            self._on_sent(each, _no_context(self._peer, each))
            return None
        transfer_syntax = str(context.transfer_syntax[0])
        self._message_id = self._message_id % 0xFFFF + 1
        request = StoreRequest(
            sop_class_uid=each.sop_class_uid, sop_instance_uid=each.sop_instance_uid, message_id=self._message_id
        )
        started = 0.0
        try:
            with each.opened(transfer_syntax) as slices:
                started = time.monotonic()
                answer = sender.store(context.context_id or 0, request, slices)
                note_request(self._peer)
        except UnsendableError as error:
            self._on_sent(each, _unsendable(str(error), transient=error.transient, on_the_wire=started > 0))
            return None
        except (OSError, ValueError) as error:
            words = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            words = f"it cannot be read and sent ({words})"
            self._on_sent(each, _unsendable(words, transient=True, on_the_wire=started > 0))
            return None
        except BaseException:
            # Raised into this thread from outside, as a task's time-out is; half of the object may be out.
            if started:
                words = "the work was interrupted while it was sent; the peer may have it"
                interrupted = TransientDicomError(words, peer=self._peer.name, step=_STEP)
                self._on_sent(each, _unanswered(words, transfer_syntax, interrupted))
            raise
        # Told before a cancellation is looked at: the peer has what it answered, whoever lost interest meanwhile.
        if answer is None:
            self._unanswered[id(each)] += 1
            lost = self._lost(association, time.monotonic() - started)
            words = f"no answer came: {lost.what}; the peer may have it"
            self._on_sent(each, _unanswered(words, transfer_syntax, lost))
            return lost
        self._losses = 0
        self._on_sent(each, _answered(self._peer, answer, transfer_syntax))
        return None

    def _give_up_or_keep(self, rest: list[Outgoing]) -> None:
        if self._unanswered[id(rest[0])] >= OBJECT_TRIES:
            del rest[0]

    def _lost(self, association: PeerAssociation, seconds: float) -> DicomError:
        """Return why no answer came in so many seconds."""
        if self._cancellation.cancelled or association.was_ended_by_peer or seconds < self._peer.dimse_timeout:
            return association.lost(_STEP)
        return PeerTimeoutError(
            f"no answer within {self._peer.dimse_timeout:g} s",
            peer=self._peer.name,
            step=_STEP,
            hint="Raise dimse_timeout, or look for the cause at the peer",
        )


def _unanswered(words: str, transfer_syntax: str, error: DicomError) -> Sent:
    return Sent(state=StoreState.UNANSWERED, reason=words, transfer_syntax_uid=transfer_syntax, error=error)


def _answered(peer: Peer, answer: StoreAnswer, transfer_syntax: str) -> Sent:
    if answer.status == status.SUCCESS:
        return Sent(state=StoreState.STORED, status=answer.status, transfer_syntax_uid=transfer_syntax)
    error = status.error_for(_STEP, answer.status, peer=peer.name, comment=answer.error_comment)
    said = harmless(answer.error_comment)
    return Sent(
        state=StoreState.WARNING if status.is_warning(answer.status) else StoreState.FAILED,
        status=answer.status,
        reason=status.describe(_STEP, answer.status) + (f", with the comment {said!r}" if said else ""),
        transfer_syntax_uid=transfer_syntax,
        error=error,
    )


def _no_context(peer: Peer, each: Outgoing) -> Sent:
    syntax, name = each.transfer_syntax_uid, reasons.name_of(each.sop_class_uid)
    if syntax in uids.UNCOMPRESSED_TRANSFER_SYNTAXES:
        words = f"the peer accepts no presentation context for {name}"
    else:
        words = f"the peer does not accept {name} in {UID(syntax).name}, and compressed data are never re-encoded"
    error = ContextRejectedError(
        words, peer=peer.name, step=_STEP, hint="The peer does not import this kind of object: see its configuration"
    )
    return Sent(state=StoreState.FAILED, reason=words, error=error, on_the_wire=False)


def _unsendable(words: str, *, transient: bool, on_the_wire: bool) -> Sent:
    error = (TransientDicomError if transient else ConfigurationError)(words, step=_STEP)
    return Sent(state=StoreState.FAILED, reason=words, error=error, on_the_wire=on_the_wire)


def _syntaxes(each: Outgoing) -> tuple[str, ...]:
    """Return in what an object may go, its own transfer syntax first."""
    own = each.transfer_syntax_uid
    return (own, uids.IMPLICIT_VR_LITTLE_ENDIAN) if own == uids.EXPLICIT_VR_LITTLE_ENDIAN else (own,)


def _contexts(objects: Sequence[Outgoing]) -> list[PresentationContext]:
    # One transfer syntax in each: the peer then says of each whether it takes it, and we choose.
    pairs = dict.fromkeys((each.sop_class_uid, syntax) for each in objects for syntax in _syntaxes(each))
    return [build_context(sop_class, [syntax]) for sop_class, syntax in pairs]


def _context_for(association: PeerAssociation, each: Outgoing) -> PresentationContext | None:
    accepted = {
        (str(context.abstract_syntax), str(context.transfer_syntax[0])): context
        for context in association.assoc.accepted_contexts
    }
    found = (accepted.get((each.sop_class_uid, syntax)) for syntax in _syntaxes(each))
    return next((context for context in found if context is not None), None)


def _batches(objects: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """Yield objects whose contexts fit into one association (PS3.8 9.3.2.2), in their order within it."""
    batches: list[tuple[set[tuple[str, str]], list[Outgoing]]] = []
    for each in objects:
        needed = {(each.sop_class_uid, syntax) for syntax in _syntaxes(each)}
        for pairs, batch in batches:
            if len(pairs | needed) <= MAXIMUM_CONTEXTS:
                pairs |= needed
                batch.append(each)
                break
        else:
            batches.append((needed, [each]))
    yield from (batch for _, batch in batches)
