"""A line in the log for each association, when it has ended: who brought how much."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from airflow_provider_varian.dimse.sink import StoreRequest
from airflow_provider_varian.receiver.observer import AssociationFacts, Ending, Observer

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Brought:
    """What one association has brought up to now."""

    since: float = field(default_factory=time.monotonic)
    objects: int = 0
    size: int = 0
    refused: int = 0


class AssociationLog(Observer):
    """Writes the log of a standing receiver; nothing for each object, which the sink does where it refuses one."""

    def __init__(self) -> None:
        # By number: the calls about one association come one after the other.
        self._brought: dict[int, _Brought] = {}

    def associated(self, facts: AssociationFacts) -> None:
        """Begin to count."""
        self._brought[facts.number] = _Brought()
        logger.debug("Association %s: accepted", _who(facts))

    def stored(
        self,
        facts: AssociationFacts,
        request: StoreRequest,
        size: int,
        seconds: float,
        study_instance_uid: str = "",
    ) -> None:
        """Count an object."""
        brought = self._brought[facts.number]
        brought.objects += 1
        brought.size += size

    def not_stored(self, facts: AssociationFacts, request: StoreRequest, status: int | None, reason: str) -> None:
        """Count what was not stored."""
        self._brought[facts.number].refused += 1

    def ended(self, facts: AssociationFacts, how: Ending) -> None:
        """Log the sum."""
        brought = self._brought.pop(facts.number)
        count = f"{brought.objects} object{'' if brought.objects == 1 else 's'}" if brought.objects else "nothing"
        stored = f"{count} stored" + (f" ({in_words(brought.size)})" if brought.objects else "")
        refused = f", {brought.refused} not stored" if brought.refused else ""
        logger.log(
            logging.INFO if how is Ending.RELEASED else logging.WARNING,
            "Association %s: %s after %.1f s, %s%s",
            _who(facts),
            how,
            time.monotonic() - brought.since,
            stored,
            refused,
        )


def in_words(size: int) -> str:
    """Return a number of bytes for people, in decimal units: ``63.1 MB``."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"


def _who(facts: AssociationFacts) -> str:
    tls = f", TLS {facts.tls_subject}" if facts.tls_subject else ""
    return f"{facts.number} ({facts.calling_ae_title} at {facts.source_address} to {facts.called_ae_title}{tls})"
