"""The errors of this package, one documented tree.

::

    DicomError
    ├── TransientDicomError                 worth a retry
    │   ├── PeerUnreachableError            no TCP connection, or no TLS handshake
    │   ├── AssociationBudgetError          our own budget of associations with the peer was used up
    │   ├── ConnectionLookupError           the triggerer did not get a connection that the task had
    │   ├── QuietHoursError                 quiet hours of the connection, and whoever asks does not wait for their end
    │   ├── TransientRejectionError         association rejected for now (PS3.8 9.3.4)
    │   ├── AssociationAbortedError         the peer, or the network, ended the association
    │   ├── PeerTimeoutError                no answer in time
    │   ├── OutOfResourcesError             status 0xA7xx of the peer
    │   ├── PeerFailureError                any other failure status (0xCxxx, 0x0110)
    │   ├── ReceiverUnavailableError        our receiver's port or spool could not be had
    │   ├── DestinationWriteError           the destination could not be written, or what it holds not be read
    │   ├── AuditUnavailableError           the audit trail takes nothing, and nothing is done without it
    │   ├── IncompleteRetrievalError        outcome ``partial`` or ``short`` that may not pass
    │   └── EmptyResultError                nothing there on a day when something must be (yet)
    └── PermanentDicomError                 a retry would end the same way
        ├── ConfigurationError              a connection, machine or option is wrong
        ├── QueryError                      a query that is refused before any network
        ├── PermanentRejectionError         association rejected, e.g. unknown calling AE title
        ├── ContextRejectedError            no accepted presentation context for what is asked
        ├── UnknownMoveDestinationError     status 0xA801
        ├── RefusedByPeerError              status 0x0122, 0x0124, 0xA900, storing also 0xCxxx: not supported or allowed
        ├── CroppedAnswerError              the peer holds more than it is willing to list
        ├── UndecidedMatchError             an answer lacks the key that was matched on
        ├── AmbiguousMatchError             one was asked for, several fit
        ├── NotFoundError                   what was named is not there
        └── CancelledError                  the task was killed; nothing failed by itself

Each error tells the peer, the step, the DIMSE status in words, and what to change, and knows
through :attr:`DicomError.transient` whether a retry is worth it. Standard library only, so that
the Airflow face can name them at module level.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar


class DicomError(Exception):
    """Base of all errors of this package.

    :param what: what happened, one sentence without a full stop.
    :param peer: who the peer is, as ``AET@host:port``; empty when no peer is involved.
    :param step: what was being done, e.g. ``"C-FIND"`` or ``"association"``.
    :param status: the DIMSE status (PS3.7 Annex C), when there was one.
    :param hint: what the reader should change or look at, one sentence.
    """

    transient: ClassVar[bool] = False

    def __init__(
        self,
        what: str,
        *,
        peer: str = "",
        step: str = "",
        status: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.peer = peer
        self.step = step
        self.status = status
        self.hint = hint

    @property
    def explanation(self) -> str:
        """What happened and what to change, without peer and step."""
        text = self.what
        if self.status is not None and f"0x{self.status:04X}" not in text:
            text += f" (status 0x{self.status:04X})"
        return f"{text}. {self.hint}" if self.hint else text

    def __str__(self) -> str:
        where = " ".join(part for part in (self.step, f"with {self.peer}" if self.peer else "") if part)
        return f"{where}: {self.explanation}" if where else self.explanation

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by positional arguments; Airflow pickles them across processes.
        again = partial(type(self), self.what, peer=self.peer, step=self.step, status=self.status, hint=self.hint)
        return again, ()


class TransientDicomError(DicomError):
    """Worth a retry: the same request may succeed later."""

    transient: ClassVar[bool] = True


class PermanentDicomError(DicomError):
    """A retry would end the same way: something has to be changed first."""


class PeerUnreachableError(TransientDicomError):
    """No TCP connection to the peer, or the TLS handshake failed."""


class AssociationBudgetError(TransientDicomError):
    """All associations that the connection's ``max_associations`` allows were in use for too long."""


class ConnectionLookupError(TransientDicomError):
    """The triggerer did not get a connection that the task had: it is gone, or Airflow's API could not be asked."""


class QuietHoursError(TransientDicomError):
    """It is quiet time of the connection, and whoever asks does not wait for its end; the peer was not called."""


class TransientRejectionError(TransientDicomError):
    """The peer rejected the association for now (PS3.8 9.3.4; see semantics of rejections)."""


class AssociationAbortedError(TransientDicomError):
    """The association ended without a release."""


class PeerTimeoutError(TransientDicomError):
    """The peer did not answer in time."""


class OutOfResourcesError(TransientDicomError):
    """The peer answered 0xA7xx: refused, out of resources."""


class PeerFailureError(TransientDicomError):
    """The peer answered with a failure that names no lasting cause (0xCxxx, 0x0110)."""


class ReceiverUnavailableError(TransientDicomError):
    """Our receiver could not listen, or its spool could not be used."""


class DestinationWriteError(TransientDicomError):
    """A destination refused to be written, or what it holds to be read."""


class AuditUnavailableError(TransientDicomError):
    """The audit trail could not be written, and what it was to be told could not be kept for it either."""


class IncompleteRetrievalError(TransientDicomError):
    """Found instances were not received, or fewer exist than expected.

    A peer that lost objects once often has them on the next try, which asks for the missing alone.
    """


class EmptyResultError(TransientDicomError):
    """Nothing is there although something is expected; data reaches ARIA late, so a retry may find it."""


class ConfigurationError(PermanentDicomError):
    """A connection field, a machine's configuration or an option is wrong."""


class QueryError(PermanentDicomError):
    """A query that is refused before any network is touched."""


class PermanentRejectionError(PermanentDicomError):
    """The peer rejected the association and will again (PS3.8 9.3.4)."""


class ContextRejectedError(PermanentDicomError):
    """The peer accepted the association, but no presentation context for what is asked."""


class UnknownMoveDestinationError(PermanentDicomError):
    """Status 0xA801: the peer does not know the move destination (PS3.4 C.4.2.1.5)."""


class RefusedByPeerError(PermanentDicomError):
    """The peer does not support, or does not allow, what was asked."""


class CroppedAnswerError(PermanentDicomError):
    """The peer holds more matches than it lists; the answer is not whole."""


class UndecidedMatchError(PermanentDicomError):
    """An answer lacks the value that would decide whether it matches."""


class AmbiguousMatchError(PermanentDicomError):
    """One object was asked for and several fit."""


class NotFoundError(PermanentDicomError):
    """What was named is not there."""


class CancelledError(PermanentDicomError):
    """The work was cancelled from outside."""
