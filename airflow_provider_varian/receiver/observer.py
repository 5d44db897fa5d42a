"""Who looks on while a receiver works: metrics, audit, logs.

A receiver tells its observers what happens, in the order in which it happens. They change nothing: one that
fails is logged once, and the association goes on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from airflow_provider_varian.dimse.sink import StoreRequest

logger = logging.getLogger(__name__)

#: AE titles have 16 characters at most (PS3.5 6.2).
_TITLE_CHARACTERS: Final = 16
#: Room for the names of a department's certificate, and none for a flood of the log.
_SUBJECT_CHARACTERS: Final = 128


class Refusal(StrEnum):
    """Why somebody was not let in, or was sent away before an association was there."""

    NETWORK = "network"
    CALLED_AE_TITLE = "called-ae-title"
    CALLING_AE_TITLE = "calling-ae-title"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    TOO_MANY_OF_SOURCE = "too-many-of-source"
    TOO_MANY_ASSOCIATIONS = "too-many-associations"
    TLS = "tls"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"
    QUOTA = "quota"
    STOPPING = "stopping"


class Ending(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    #: The peer sent an A-ABORT.
    ABORTED = "aborted"
    #: The connection ended without a word.
    CUT = "cut"
    #: The peer was silent for too long, and was aborted.
    TIMEOUT = "timeout"
    #: The peer broke the protocol, and was aborted.
    PROTOCOL = "protocol"
    #: The receiver stopped, and aborted it.
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationFacts:
    """Who is at the other end of an association. All text is fit for logs: printable, and cut.

    :param number: counts the associations of a receiver, from 1.
    :param source_address: IP address of the peer.
    :param calling_ae_title: what the peer calls itself; a claim, not a proof.
    :param called_ae_title: under which title it called us.
    :param tls_subject: subject of its certificate, as ``CN=...,O=...``; empty without TLS, or without a certificate.
    """

    number: int
    source_address: str
    calling_ae_title: str
    called_ae_title: str
    tls_subject: str = ""


class Observer:
    """Is told what a receiver does; each method does nothing until it is overridden.

    Calls come from many threads at once, and the receiver waits for each of them: return at once, and keep what
    takes time for a thread of your own. Calls about one connection come one after the other, in this order:

    1. ``connected``
    2. ``refused``; or ``associated``, any number of ``stored`` and ``not_stored``, and ``ended``; or nothing, when its
       peer ends it before an association is there
    3. ``disconnected``
    """

    def connected(self, source: str) -> None:
        """Somebody connected.

        :param source: IP address.
        """

    def refused(self, source: str, reason: Refusal) -> None:
        """Somebody was not let in: the connection was closed, or the association rejected.

        With :attr:`Refusal.QUOTA`, once within an association: what it brings from now on is refused.
        """

    def associated(self, facts: AssociationFacts) -> None:
        """An association is accepted; the peer has not heard of it yet."""

    def ended(self, facts: AssociationFacts, how: Ending) -> None:
        """An association has ended."""

    def stored(
        self,
        facts: AssociationFacts,
        request: StoreRequest,
        size: int,
        seconds: float,
        study_instance_uid: str = "",
    ) -> None:
        """An object is durable; its sender has not been answered yet.

        :param size: bytes of the data set.
        :param seconds: from its command to its durable file.
        :param study_instance_uid: (0020,000D) of its data set; empty when it does not tell.
        """

    def not_stored(self, facts: AssociationFacts, request: StoreRequest, status: int | None, reason: str) -> None:
        """An object was not stored.

        :param request: as the peer sent it: its UIDs may be none.
        :param status: what is answered; ``None`` when nobody is there to be answered any more.
        :param reason: a few words.
        """

    def disconnected(self, source: str) -> None:
        """The connection is closed; for each ``connected`` there is one of these."""


class observers(Observer):  # noqa: N801 - reads as the function that it stands for
    """Several observers as one. What one of them raises is logged once, and harms nobody.

    :param many: are told in this order.
    """

    def __init__(self, *many: Observer) -> None:
        # Those of others one by one: each object is told of, and a call within a call takes time.
        self._many: tuple[Observer, ...] = tuple(
            one for each in many for one in (each._many if isinstance(each, observers) else (each,))
        )
        self._failed: set[tuple[int, str]] = set()

    def connected(self, source: str) -> None:
        """Tell all."""
        self._tell("connected", source)

    def refused(self, source: str, reason: Refusal) -> None:
        """Tell all."""
        self._tell("refused", source, reason)

    def associated(self, facts: AssociationFacts) -> None:
        """Tell all."""
        self._tell("associated", facts)

    def ended(self, facts: AssociationFacts, how: Ending) -> None:
        """Tell all."""
        self._tell("ended", facts, how)

    def stored(
        self,
        facts: AssociationFacts,
        request: StoreRequest,
        size: int,
        seconds: float,
        study_instance_uid: str = "",
    ) -> None:
        """Tell all."""
        self._tell("stored", facts, request, size, seconds, study_instance_uid)

    def not_stored(self, facts: AssociationFacts, request: StoreRequest, status: int | None, reason: str) -> None:
        """Tell all."""
        self._tell("not_stored", facts, request, status, reason)

    def disconnected(self, source: str) -> None:
        """Tell all."""
        self._tell("disconnected", source)

    def _tell(self, what: str, *arguments: object) -> None:
        for number, observer in enumerate(self._many):
            try:
                getattr(observer, what)(*arguments)
            except Exception as error:  # noqa: BLE001 - whatever it is, the association goes on
                if (number, what) not in self._failed:
                    self._failed.add((number, what))
                    # The message of the error may hold what must not be logged.
                    logger.error(
                        "%s failed to note '%s': %s. Receiving goes on; this is said once",
                        type(observer).__name__,
                        what,
                        type(error).__name__,
                    )


def printable_title(ae_title: str) -> str:
    """Return an AE title that a peer sent, fit for a log: printable, and no longer than a title may be."""
    return _printable(ae_title.strip(), _TITLE_CHARACTERS)


def printable_subject(subject: str) -> str:
    """Return the subject of a certificate, fit for a log."""
    return _printable(subject, _SUBJECT_CHARACTERS)


def _printable(text: str, length: int) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text[:length])
