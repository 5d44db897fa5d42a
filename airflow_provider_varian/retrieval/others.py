"""What the other retrievals at a standing receiver want, as far as a copy of an object may be theirs."""

from __future__ import annotations

from typing import Protocol

from airflow_provider_varian.retrieval.wanted import Want, Wanted


class Received(Protocol):
    """What is known of a copy; see :class:`.standing_arrivals.Copy`."""

    @property
    def sop_instance_uid(self) -> str:
        """Which object."""

    @property
    def begun(self) -> float:
        """When its receiver began to receive it, by the receiver's clock."""

    @property
    def parents(self) -> frozenset[str]:
        """UIDs of its series and study."""


class Others:
    """What other retrievals want, read at the first question: after the look at what is there."""

    def __init__(self, wanted: Wanted, *, skew: float) -> None:
        self._wanted = wanted
        self._skew = skew
        self._wants: list[Want] | None = None

    def _all(self) -> list[Want]:
        if self._wants is None:
            self._wants = self._wanted.others()
        return self._wants

    def wait_for(self, copy: Received) -> bool:
        """Say whether another retrieval that runs waits for this instance."""
        uid, parents = copy.sop_instance_uid, copy.parents
        return any(want.waits_for(uid) or (want.lives and not want.whole.isdisjoint(parents)) for want in self._all())

    def explain(self, copy: Received) -> bool:
        """Say whether a copy may be the answer to another retrieval."""
        uid, begun, parents = copy.sop_instance_uid, copy.begun, copy.parents
        return any(want.explains(uid, begun, parents, skew=self._skew) for want in self._all())
