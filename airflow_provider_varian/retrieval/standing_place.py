"""Where a standing receiver's objects are found: its spool on this host, or the store to which it publishes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_varian.receiver.progress import Progress
from airflow_provider_varian.receiver.spooled import SpooledObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A received object that nobody has claimed.

    :param name: its name in the spool, which is the same in the store.
    :param sop_instance_uid: which object.
    :param begun: when its receiver began to receive it, seconds since the epoch by the receiver's clock.
    :param may_change: it is of a class whose objects may change under their UID, or nobody knows of which.
    :param parents: UIDs of its series and study; empty for an instance that is expected.
    """

    name: str
    sop_instance_uid: str
    begun: float
    may_change: bool
    parents: frozenset[str] = frozenset()


class Place(Protocol):
    """Where a standing receiver's objects are found."""

    @property
    def look_seconds(self) -> float:
        """Seconds from the end of one look to the next, at least."""

    @property
    def lag_seconds(self) -> float:
        """How much later than it was received an object may be found."""

    @property
    def unseen_seconds(self) -> float:
        """How long nothing may be seen at most while what was received has not been seen."""

    @property
    def skew_seconds(self) -> float:
        """How far the receiver's clock may be from ours."""

    @property
    def progress(self) -> Progress | None:
        """How far its receiver is with showing what it has received, by the last look; ``None`` when nobody says."""

    @property
    def where(self) -> str:
        """What it is called in messages."""

    def open(self) -> None:
        """See that it can be used; may wait for its receiver. Raises as :meth:`.arrivals.Arrivals.start`."""

    def copies(self, uids: Collection[str], whole: Collection[str]) -> Iterable[Copy]:
        """Look, and return the copies of these instances, and of others of these series and studies where it can."""

    def arriving(self) -> Iterable[str]:
        """Return the SOP Instance UIDs of what is being received, as far as that can be seen."""

    def pause(self, seconds: float) -> None:
        """Wait."""

    def bring(self, copy: Copy) -> SpooledObject | None:
        """Claim a copy and return where it lies; ``None`` when somebody else has it by now."""

    def resume(self) -> None:
        """Complete the claims of a killed try."""
