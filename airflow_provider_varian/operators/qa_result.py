"""What became of a machine's run, by day: what the task decides by, and what its summary tells."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_varian.aria.expectation import Judgement
    from airflow_provider_varian.errors import DicomError


@dataclass(frozen=True, slots=True, kw_only=True)
class QADay:
    """One day of a machine.

    :param judgement: what was expected, found and received.
    :param expected: are images expected on that day?
    :param size: bytes of the images received.
    """

    judgement: Judgement
    expected: bool
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "day": self.judgement.day.isoformat(),
            "expected": self.expected,
            "images": self.judgement.received,
            "found": self.judgement.found,
            "wanted": self.judgement.wanted,
            "missing_beams": list(self.judgement.missing_beams),
            "bytes": self.size,
            "outcome": str(self.judgement.state),
            "message": self.judgement.message,
        }

    def log_line(self, *, own: bool) -> tuple[int, str, str, str]:
        """Return level, format and arguments of the line that a log gets."""
        fine = self.judgement.state in ("complete", "not_expected")
        return (
            logging.INFO if fine else logging.WARNING,
            "%s%s",
            "" if own else "look-back: ",
            self.judgement.message,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QAResult:
    """What became of a machine's run.

    :param run_day: the day that sets the task's state.
    :param days: all days that were judged, the run's own among them.
    :param manifest_uri: where the manifest is.
    :param counts: the ledger's numbers by word.
    :param warnings: what else to know, without identifiers: e.g. that the peer may have cropped its answer, or that
        its list did not stand still.
    :param error: what went wrong on the way of the images, if anything did.
    """

    run_day: date
    days: tuple[QADay, ...]
    manifest_uri: str
    counts: dict[str, int]
    warnings: tuple[str, ...] = ()
    error: DicomError | None = None

    @property
    def own(self) -> QADay:
        """The run's own day."""
        return next(day for day in self.days if day.judgement.day == self.run_day)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, free of identifiers."""
        return {
            "run_day": self.run_day.isoformat(),
            "outcome": str(self.own.judgement.state),
            "message": self.own.judgement.message,
            "manifest": self.manifest_uri,
            "days": [day.to_json() for day in self.days],
            "counts": self.counts,
            "warnings": list(self.warnings),
        }
