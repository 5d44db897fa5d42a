"""One request in the hands of the daemon: where faults strike it, and what chance decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from threading import Event
from typing import Final, NoReturn

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from airflow_provider_varian.dimse.status import Service
from airflow_provider_varian.simulator.daemon import harm, wire
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.faults import Fault, Faults, Kind, Step
from airflow_provider_varian.simulator.daemon.tally import Tally

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.02
_FOR_EVER: Final = 1e9


class OverError(Exception):
    """There is nobody left to answer.

    :param settle: ends the association, if it has not ended yet. It is called when whoever worked on the request has
        let go of everything, for the association's own thread may have to do with it.
    """

    def __init__(self, settle: Callable[[], None] | None = None) -> None:
        super().__init__("the association is over")
        self.settle = settle or (lambda: None)


class CutShortError(Exception):
    """The request ends here.

    :param status: of its final response.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"0x{status:04X}")
        self.status = status


@dataclass(slots=True, kw_only=True)
class Exposed:
    """A request under way, as far as faults can strike it whoever answers it.

    :param assoc: the association on which it came.
    :param service: what was asked for.
    :param restart: restarts the daemon: for so many seconds, refusing connections or not.
    """

    assoc: Association
    service: Service
    behaviour: Behaviour
    faults: Faults
    tally: Tally
    stopping: Event
    restart: Callable[[float, bool], None]
    _delay: float = field(default=0.0, init=False)

    @property
    def broken(self) -> bool:
        """Whether the association has ended, so that nobody is left to answer."""
        return not self.assoc.is_established or self.assoc.acse.is_aborted()

    def due(self, step: Step, position: int | None = None) -> Fault | None:
        """Return the fault that strikes at a step of this request; it is counted and logged."""
        fault = self.faults.due(step, service=self.service, position=position)
        if fault is not None:
            self.tally.add("faults")
            log.info("Fault: %s at %s of a %s", fault.kind, step, self.service)
        return fault

    def reach(self, step: Step, position: int | None = None) -> None:
        """Come to a step, and suffer what is due there.

        :raises OverError: when the association has ended by it.
        :raises CutShortError: when the request is to end with a status.
        """
        fault = self.due(step, position)
        if fault is not None:
            self._suffer(fault)

    def _suffer(self, fault: Fault) -> None:
        if fault.kind in (Kind.ABORT, Kind.RESET, Kind.CLOSE):
            self.end(fault.kind)
        elif fault.kind is Kind.RESTART:
            raise OverError(partial(self.restart, fault.seconds, fault.refuses))
        elif fault.kind is Kind.STALL:
            self.wait(fault.seconds)
        elif fault.kind is Kind.STATUS:
            raise CutShortError(fault.status)
        elif fault.kind is Kind.SLOW:
            self._delay = fault.seconds
            if fault.bytes_per_second:
                self._spoil().slow(fault.bytes_per_second)

    def delay(self) -> None:
        """Wait before a response, where a fault says so.

        :raises OverError: when the association has ended by it.
        """
        if self._delay:
            self.wait(self._delay)

    def end(self, kind: Kind = Kind.ABORT) -> NoReturn:
        """End the association.

        :raises OverError: always.
        """
        raise OverError(partial(harm.finish, self.assoc, kind, self.stopping))

    def wait(self, seconds: float) -> None:
        """Do nothing for a while; what takes longer than a transaction may is aborted (quirk 20).

        :raises OverError: when the association ends, or the daemon stops.
        """
        limit = self.behaviour.transaction_seconds or _FOR_EVER
        deadline = time.monotonic() + min(seconds, limit)
        while (left := deadline - time.monotonic()) > 0:
            if self.stopping.wait(min(left, _LOOK_SECONDS)) or self.broken:
                raise OverError
        if seconds > limit:
            log.info("A %s took longer than %s s, its association is aborted", self.service, limit)
            self.end()

    def _spoil(self) -> harm.SpoiltSocket:
        try:
            return harm.spoil(self.assoc, self.stopping)
        except ConnectionError:
            raise OverError from None


@dataclass(slots=True, kw_only=True)
class Turn(Exposed):
    """A request in the hands of a service of our own, with all that it needs of the daemon.

    :param exchange: of the same association and service.
    :param number: counts the requests of the daemon; with the seed it decides what is random.
    """

    exchange: wire.Exchange
    number: int
    _spoilt: Kind | None = field(default=None, init=False)
    _half_seconds: float = field(default=0.0, init=False)

    def random(self, what: str) -> Random:
        """Return a source of chance that depends on seed, number of the request and purpose alone."""
        return Random(f"{self.behaviour.chance_seed}/{self.number}/{what}")

    def happens(self, what: str, probability: float) -> bool:
        """Let chance decide."""
        return probability > 0 and self.random(what).random() < probability

    @property
    def ended(self) -> bool:
        """Whether nobody waits for more: the request was cancelled, the association is over."""
        return self.exchange.cancelled or self.broken

    def _suffer(self, fault: Fault) -> None:
        if fault.kind in (Kind.HALF, Kind.NO_STATUS, Kind.NO_COUNTERS):
            self._spoilt, self._half_seconds = fault.kind, fault.seconds
        else:
            # Not super(): a dataclass with slots is another class than the one that the name was bound to.
            Exposed._suffer(self, fault)

    def respond(
        self,
        status: int,
        *,
        identifier: Dataset | None = None,
        counts: wire.Counts | None = None,
        remaining: bool = False,
        comment: str = "",
    ) -> None:
        """Send a response (see :meth:`.Exchange.respond`), spoilt when a fault says so.

        :raises OverError: when the association has ended by it.
        """
        spoilt, self._spoilt = self._spoilt, None
        self.delay()
        if spoilt is Kind.HALF:
            self._spoil().halve()
        self.exchange.respond(
            None if spoilt is Kind.NO_STATUS else status,
            identifier=identifier,
            counts=None if spoilt is Kind.NO_COUNTERS else counts,
            remaining=remaining,
            comment=comment,
        )
        if spoilt is Kind.HALF:
            self.wait(self._half_seconds or _FOR_EVER)
            self.end(Kind.CLOSE)

    def conclude(self, status: int, *, counts: wire.Counts | None = None, comment: str = "") -> int:
        """Send the final response; return its status, which a fault may have changed.

        :raises OverError: when the association has ended by it.
        """
        try:
            self.reach(Step.FINAL)
        except CutShortError as cut:
            status = cut.status
        self.respond(status, counts=counts, comment=comment)
        return status
