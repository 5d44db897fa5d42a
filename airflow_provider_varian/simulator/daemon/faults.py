"""What can go wrong, where, and how often: faults that a test or a rehearsal arms.

A fault is a kind at a step: ``abort`` after the third row of a C-FIND, a ``stall`` before the second
sub-operation, a ``status`` instead of the final one. :class:`Faults` holds those that are armed and says
when one is due; what it then does to a connection is in :mod:`.turn` and :mod:`.harm`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Final

from airflow_provider_varian.dimse.status import Service
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.simulator.daemon import limits
from airflow_provider_varian.simulator.daemon.settings_text import read_settings


class Step(StrEnum):
    """Where a fault strikes; ``at`` counts what the step says."""

    #: The at-th TCP connection, before a word is read from it.
    CONNECT = "connect"
    #: The at-th association request, before it is answered.
    ASSOCIATION = "association"
    #: The at-th request, before anything is done.
    REQUEST = "request"
    #: In the answers of a C-FIND, after the at-th row.
    ROW = "row"
    #: In a retrieve, before the at-th sub-operation.
    BEFORE_SUBOPERATION = "before-suboperation"
    #: In a retrieve, after the at-th sub-operation.
    AFTER_SUBOPERATION = "after-suboperation"
    #: The at-th final response.
    FINAL = "final"
    #: The at-th association of a C-MOVE to its destination.
    OUTGOING = "outgoing"
    #: On that association, the at-th object.
    OBJECT = "object"


class Kind(StrEnum):
    """What happens."""

    ABORT = "abort"
    RESET = "reset"
    CLOSE = "close"
    STALL = "stall"
    SLOW = "slow"
    HALF = "half"
    REJECT = "reject"
    STATUS = "status"
    NO_STATUS = "no-status"
    NO_COUNTERS = "no-counters"
    UNREACHABLE = "unreachable"
    RESTART = "restart"


#: How to see all of them.
LISTING: Final = "varian-dicom simulate --fault help"

#: What a client can ask for, and a fault be kept to.
SERVICES: Final[tuple[Service, ...]] = ("C-ECHO", "C-FIND", "C-MOVE", "C-GET", "C-STORE")
_RETRIEVES: Final[tuple[Service, ...]] = ("C-MOVE", "C-GET")
#: C-ECHO and C-STORE are answered by pynetdicom, which sends whole responses only.
_OF_OUR_OWN: Final[tuple[Service, ...]] = ("C-FIND", *_RETRIEVES)
#: Which requests come to a step; none where nobody has asked for anything yet.
_SERVICES_AT: Final[dict[Step, tuple[Service, ...]]] = {
    Step.CONNECT: (),
    Step.ASSOCIATION: (),
    Step.REQUEST: SERVICES,
    Step.ROW: ("C-FIND",),
    Step.BEFORE_SUBOPERATION: _RETRIEVES,
    Step.AFTER_SUBOPERATION: _RETRIEVES,
    Step.FINAL: SERVICES,
    Step.OUTGOING: ("C-MOVE",),
    Step.OBJECT: ("C-MOVE",),
}
_IN_REQUEST: Final = (
    Step.REQUEST,
    Step.ROW,
    Step.BEFORE_SUBOPERATION,
    Step.AFTER_SUBOPERATION,
    Step.FINAL,
)
#: Steps counted from when a fault is armed; the others are counted anew in each request.
_COUNTED: Final = frozenset({Step.CONNECT, Step.ASSOCIATION, Step.REQUEST, Step.FINAL, Step.OUTGOING})


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """A kind of fault, for tables in documentation and tests, and to refuse what cannot be.

    :param steps: where it can strike.
    :param settings: the settings that it takes beside ``at``, ``times`` and ``service``.
    :param services: whose requests it can strike.
    """

    kind: Kind
    meaning: str
    steps: tuple[Step, ...]
    settings: tuple[str, ...] = ()
    services: tuple[Service, ...] = SERVICES


FAULT_KINDS: Final = (
    FaultKind(
        kind=Kind.ABORT,
        meaning="A-ABORT; of an object after so many `bytes`, at the end of a PDU",
        steps=(Step.ASSOCIATION, *_IN_REQUEST, Step.OBJECT),
        settings=("bytes",),
    ),
    FaultKind(
        kind=Kind.RESET,
        meaning="the connection is reset (TCP RST); of an object after so many `bytes`",
        steps=(Step.CONNECT, Step.ASSOCIATION, *_IN_REQUEST, Step.OBJECT),
        settings=("bytes",),
    ),
    FaultKind(
        kind=Kind.CLOSE,
        meaning="the connection is closed without a word; of an object after so many `bytes`",
        steps=(Step.CONNECT, Step.ASSOCIATION, *_IN_REQUEST, Step.OBJECT),
        settings=("bytes",),
    ),
    FaultKind(
        kind=Kind.STALL,
        meaning="nothing happens for so many `seconds`, then it goes on; of an object after so many `bytes`",
        steps=(Step.ASSOCIATION, *_IN_REQUEST, Step.OUTGOING, Step.OBJECT),
        settings=("seconds", "bytes"),
    ),
    FaultKind(
        kind=Kind.SLOW,
        meaning="from then on each response comes `seconds` late, or at so many `bytes_per_second`",
        steps=(*_IN_REQUEST, Step.OBJECT),
        settings=("seconds", "bytes_per_second"),
    ),
    FaultKind(
        kind=Kind.HALF,
        meaning="half of the next response is sent, then nothing, and after `seconds` the connection is closed",
        steps=_IN_REQUEST,
        settings=("seconds",),
        services=_OF_OUR_OWN,
    ),
    FaultKind(
        kind=Kind.REJECT,
        meaning="the association is rejected with a `reason`, result/source/reason: 2/3/2 = local limit exceeded, "
        "2/3/1 = temporary congestion",
        steps=(Step.ASSOCIATION,),
        settings=("reason",),
    ),
    FaultKind(
        kind=Kind.STATUS,
        meaning="the request ends there with a `status`, e.g. 0xA700, 0xA701 or 0xA702 = out of resources; "
        "what was not sent counts as failed",
        steps=_IN_REQUEST,
        settings=("status",),
    ),
    FaultKind(
        kind=Kind.NO_STATUS,
        meaning="the next response has no Status element",
        steps=_IN_REQUEST,
        services=_OF_OUR_OWN,
    ),
    FaultKind(
        kind=Kind.NO_COUNTERS,
        meaning="the final response of a retrieve has no counters",
        steps=(Step.FINAL,),
        services=_RETRIEVES,
    ),
    FaultKind(
        kind=Kind.UNREACHABLE,
        meaning="the daemon never connects to the receiver; after `seconds` it says so",
        steps=(Step.OUTGOING,),
        settings=("seconds",),
    ),
    FaultKind(
        kind=Kind.RESTART,
        meaning="the daemon restarts: all associations are aborted, and new ones for so many `seconds`; "
        "with `refuses=on` connections are refused instead",
        steps=(Step.ASSOCIATION, *_IN_REQUEST),
        settings=("seconds", "refuses"),
    ),
)
_BY_KIND: Final = {each.kind: each for each in FAULT_KINDS}
_LIMITS: Final = {
    "at": limits.FROM_ONE,
    "times": limits.NOT_NEGATIVE,
    "seconds": limits.SECONDS,
    "bytes": limits.NOT_NEGATIVE,
    "bytes_per_second": limits.NOT_NEGATIVE,
    "status": limits.STATUS,
}
_ANY_FAULT: Final = ("at", "times", "service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault to arm.

    :param kind: what happens.
    :param step: where.
    :param at: the how many-th; see :class:`Step`.
    :param times: how often it strikes; 0 = each time.
    :param service: only in requests of this service, e.g. ``C-FIND``; empty = any.
    :param seconds: how long, where the kind takes time.
    :param bytes: of a C-STORE request, after which it strikes.
    :param bytes_per_second: how slow.
    :param status: Status (0000,0900) of the final response.
    :param reason: result/source/reason of a rejection (PS3.8 9.3.4).
    :param refuses: a restarting daemon refuses connections instead of aborting associations.
    :raises ConfigurationError: when the kind cannot strike at the step.
    """

    kind: Kind
    step: Step
    at: int = 1
    times: int = 1
    service: str = ""
    seconds: float = 0.0
    bytes: int = 0
    bytes_per_second: int = 0
    status: int = 0xA700
    reason: str = "2/3/2"
    refuses: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot happen."""
        steps = _BY_KIND[self.kind].steps
        if self.step not in steps:
            raise ConfigurationError(
                f"a fault {self.kind} cannot strike at {self.step}",
                hint=f"{self.kind} strikes at {', '.join(steps)}",
            )
        possible = [each for each in _SERVICES_AT[self.step] if each in _BY_KIND[self.kind].services]
        if self.service and self.service not in possible:
            allowed = f"one of {', '.join(possible)}" if possible else "not known there: leave it out"
            raise ConfigurationError(
                f"{self.service!r} does not fit service of the fault {self.kind}@{self.step}",
                hint=f"service is {allowed}",
            )
        for name, limit in _LIMITS.items():
            limit.check(name, getattr(self, name))
        self.rejection()

    def rejection(self) -> tuple[int, int, int]:
        """Return result, source and reason of a rejection."""
        return limits.read_rejection("reason", self.reason)

    def can_strike(self, service: str) -> bool:
        """Say whether it can strike a request of a service, or, without one, where nobody has asked yet."""
        return self.service in ("", service) and (not service or service in _BY_KIND[self.kind].services)

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read a fault as the command line takes it: ``KIND@STEP[:NAME=VALUE,...]``.

        :raises ConfigurationError: when a part is unknown, does not fit, or the kind does not take it.
        """
        what, _, rest = text.partition(":")
        kind, _, step = what.partition("@")
        if kind not in list(Kind) or step not in list(Step):
            raise ConfigurationError(
                f"{text!r} is not a fault of the simulator",
                hint=f"Write KIND@STEP[:NAME=VALUE,...]. Kinds: {', '.join(Kind)}. Steps: {', '.join(Step)}. "
                f"Explained by: {LISTING}",
            )
        fault = cls(kind=Kind(kind), step=Step(step))
        taken = (*_ANY_FAULT, *_BY_KIND[fault.kind].settings)
        current = {each.name: getattr(fault, each.name) for each in fields(cls) if each.name in taken}
        settings = [part.strip() for part in rest.split(",") if part.strip()]
        return replace(fault, **read_settings(settings, current, kind=f"setting of the fault {kind}"))


@dataclass(slots=True)
class _Armed:
    fault: Fault
    left: int | None
    seen: int = field(default=0)

    def is_due(self, position: int | None) -> bool:
        if position is None:
            self.seen += 1
            return self.seen >= self.fault.at
        return position == self.fault.at


class Faults:
    """The faults that are armed; may be changed at any time, from any thread."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._lock = threading.Lock()

    def arm(self, *faults: Fault) -> None:
        """Arm faults; each strikes as often as its ``times`` say. Counting begins now."""
        with self._lock:
            self._armed += [_Armed(fault, fault.times or None) for fault in faults]

    def disarm(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._armed.clear()

    @property
    def armed(self) -> tuple[Fault, ...]:
        """The faults that may still strike."""
        with self._lock:
            return tuple(each.fault for each in self._armed)

    def due(self, step: Step, *, service: str = "", position: int | None = None) -> Fault | None:
        """Return the fault that strikes now, if one does; it is counted as having struck.

        :param service: of the request under way.
        :param position: for the steps within a request, the how many-th row, sub-operation or object.
        """
        if not self._armed:
            return None  # without the lock: this is asked for each row and each object
        with self._lock:
            if step in _COUNTED:
                position = None
            fitting = [
                each
                for each in self._armed
                if each.fault.step is step and each.fault.can_strike(service) and each.is_due(position)
            ]
            if not fitting:
                return None
            struck = fitting[0]
            if struck.left is not None:
                struck.left -= 1
                if not struck.left:
                    self._armed.remove(struck)
            return struck.fault
