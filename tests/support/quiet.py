"""A clock for quiet hours that a test sets, and hours that hold at whatever it shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_provider_varian.dimse import quiet_hours

#: A Saturday, ten minutes before and ten minutes into the quiet hours.
BEFORE = datetime(2026, 11, 21, 2, 50, tzinfo=UTC)
WITHIN = datetime(2026, 11, 21, 3, 10, tzinfo=UTC)
AFTER = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)

#: Settings of a peer with quiet hours from 3 to 4.
QUIET = {"quiet_hours": {"daily": ("03:00-04:00",)}, "timezone": "UTC"}


class Clock:
    """What the quiet hours take for the time; stands still unless it is told to go on.

    :param monkeypatch: pytest's.
    :param now: what it shows at first.

    ``looks`` counts how often it was looked at while it was quiet, and :meth:`over_after` ends that.
    """

    def __init__(self, monkeypatch, now: datetime) -> None:
        self.now = now
        self.looks = 0
        self._ends_after: int | None = None
        # Waiting goes on in small steps, so that nobody sleeps for real until four o'clock.
        monkeypatch.setattr(quiet_hours, "_LOOK_SECONDS", 0.02)
        monkeypatch.setattr(quiet_hours, "utc_now", self._look)

    def over_after(self, looks: int) -> None:
        """Let the quiet hours be over once the clock was looked at so often in them."""
        self._ends_after = self.looks + looks

    def _look(self) -> datetime:
        if BEFORE + timedelta(minutes=10) <= self.now < AFTER:
            self.looks += 1
            if self._ends_after is not None and self.looks > self._ends_after:
                self.now = AFTER
        return self.now
