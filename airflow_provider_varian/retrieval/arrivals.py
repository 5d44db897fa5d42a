"""Where what a C-MOVE sends arrives, as far as a transfer needs to know it.

Three ways: a receiver inside the task (here), the spool of a standing receiver on this host, and the store to which a
standing receiver elsewhere publishes (:mod:`.standing_arrivals`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from airflow_provider_varian.dimse import quiet_hours
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.receiver.in_task import InTaskReceiver
from airflow_provider_varian.receiver.observer import Observer
from airflow_provider_varian.receiver.spooled import SpooledObject
from airflow_provider_varian.retrieval.claims import Claims
from airflow_provider_varian.retrieval.reception import Reception


class Arrivals(Protocol):
    """The receiving side of C-MOVE. Used from the retrieval's own thread alone."""

    @property
    def lag_seconds(self) -> float:
        """How much later than it was received an object may be seen."""

    @property
    def unseen_seconds(self) -> float:
        """How long nothing may be seen at most while the peer has sent more, as it says, than has been seen."""

    @property
    def can_be_watched(self) -> bool:
        """Whether somebody else can wait here for what comes, while this process is gone."""

    @property
    def heard(self) -> bool:
        """Whether anything came that may be for us, since the start."""

    def start(self) -> None:
        """Be ready for what is sent from now on; may wait. Called once, before the first C-MOVE.

        :raises ReceiverUnavailableError: when nobody can receive.
        :raises ConfigurationError: when it cannot be used as it is configured.
        """

    def stop(self, *, for_now: bool = False) -> None:
        """End; harmless before :meth:`start`.

        :param for_now: somebody goes on later, in the same try; what comes meanwhile is still waited for.
        """

    def record(self, uids: Collection[str]) -> dict[str, Any]:
        """Return, as JSON, what whoever goes on has to know to tell what is ours.

        :param uids: SOP Instance UIDs of what is outstanding.
        """

    def resume(self, record: Mapping[str, Any]) -> None:
        """Go on with what :meth:`record` returned; called once, after :meth:`start`."""

    def announce(self, uids: Collection[str], whole: Collection[str]) -> None:
        """Note what is about to be asked for, before the first request for it.

        :param uids: SOP Instance UIDs.
        :param whole: UIDs of series and studies that are asked for as a whole.
        """

    def asking(self, uids: Collection[str]) -> None:
        """Note that these are asked for now."""

    def answered(self) -> None:
        """Note that nothing is asked for any more, and what came late has been waited for."""

    def take(self, *, now: bool = False) -> list[SpooledObject]:
        """Claim what another process received for us since the last call.

        :param now: look although one has looked a moment ago.
        """

    def leftovers(self, uids: Collection[str]) -> list[SpooledObject]:
        """Claim what came too late for an earlier try, and is of a class that does not change under its UID.

        :param uids: SOP Instance UIDs that an earlier try asked for in vain, and that are still outstanding.
        """

    def idle_for(self) -> float:
        """Return the seconds of quiet, as far as one has looked: since something came that may be for us."""

    def is_receiving(self) -> bool:
        """Say whether something is on its way in that may be for us."""

    def unreached_hint(self) -> str:
        """Say what to check when the peer says that it could not send (0xA702); empty when there is nothing to say."""

    def silence_warning(self) -> str:
        """Say what to check when the peer says that it sent, and nothing came; empty when that can be no wonder."""


class InTaskArrivals:
    """A receiver inside the task. What it receives is in the queue of its reception.

    :param peer: who sends.
    :param reception: what receives.
    :param claims: takes leftovers.
    :param wait_seconds: how long to wait for a port that is taken.
    :param cancellation: ends the wait.
    :param observer: is told what the receiver does.
    """

    lag_seconds = 0.0
    unseen_seconds = 0.0
    #: Nobody would listen.
    can_be_watched = False

    def __init__(
        self,
        peer: Peer,
        reception: Reception,
        claims: Claims,
        *,
        wait_seconds: float,
        cancellation: Cancellation,
        observer: Observer | None = None,
    ) -> None:
        self._peer = peer
        self._reception = reception
        self._claims = claims
        self._wait_seconds = wait_seconds
        self._cancellation = cancellation
        self._observer = observer
        self._receiver: InTaskReceiver | None = None

    @property
    def heard(self) -> bool:
        """Whether an association was accepted since the start."""
        return self._receiver is not None and self._receiver.accepted > 0

    def start(self) -> None:
        """Listen, after waiting for the port; raises as :class:`InTaskReceiver` does."""
        receiver = InTaskReceiver(
            self._peer,
            self._reception.sink,
            wait_seconds=self._wait_seconds,
            cancellation=self._cancellation,
            observer=self._observer,
        )
        while self._receiver is None:
            # A receiver that only waits would keep the port from others.
            quiet_hours.wait_past(self._peer, self._cancellation)
            try:
                receiver.start()
                self._receiver = receiver
            except ReceiverUnavailableError:
                # Who has the port pauses too.
                if quiet_hours.quiet_until(self._peer) is None:
                    raise

    def stop(self, *, for_now: bool = False) -> None:
        """Stop listening."""
        if self._receiver is not None:
            self._receiver.stop()

    def record(self, uids: Collection[str]) -> dict[str, Any]:
        """Nothing: what comes to a living task's receiver is its own."""
        return {}

    def resume(self, record: Mapping[str, Any]) -> None:
        """Nothing, as above."""

    def announce(self, uids: Collection[str], whole: Collection[str]) -> None:
        """Nothing to note: nobody else takes from a living task's receiver."""

    def asking(self, uids: Collection[str]) -> None:
        """Nothing to note, as above."""

    def answered(self) -> None:
        """Nothing to note, as above."""

    def take(self, *, now: bool = False) -> list[SpooledObject]:
        """Nothing: no other process receives for us."""
        return []

    def leftovers(self, uids: Collection[str]) -> list[SpooledObject]:
        """Claim what lies unclaimed in the spool."""
        return self._claims.unclaimed(uids)

    def idle_for(self) -> float:
        """Return the seconds since anything came from the network."""
        return self._receiver.idle_for() if self._receiver is not None else 0.0

    def is_receiving(self) -> bool:
        """Say whether an object is on its way in."""
        return self._reception.sink.in_flight > 0

    def unreached_hint(self) -> str:
        """Tell who was refused, else where nobody called."""
        receiver = self._receiver
        if receiver is None:
            return ""
        if receiver.refused:
            return f"Our receiver refused {', '.join(receiver.refused)}; its log says what to change"
        if receiver.saw_inbound:
            return ""
        return f"The daemon never reached {self._where}: check the trusted entity's address and port, and the firewall"

    def silence_warning(self) -> str:
        """Say where nobody called."""
        if self._receiver is None or self._receiver.refused or self._receiver.saw_inbound:
            return ""
        return (
            f"the peer reports instances as sent, but never reached {self._where}: the trusted entity may point to "
            "another machine"
        )

    @property
    def _where(self) -> str:
        port = self._receiver.address[1] if self._receiver is not None else self._peer.receiver_port
        return f"{self._peer.move_destination} on port {port}"
