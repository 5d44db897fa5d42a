"""What lies in a spool, counted for those who look on: bounded in time, and not counted anew for each who asks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airflow_provider_varian.receiver.spool import Spool

#: For how long a count is told again: metrics are asked for every 15 to 60 s, often by two servers at once.
KEPT_SECONDS: Final = 10.0
#: How long one count may take. 20,000 objects take a tenth of it; a spool with millions has other troubles.
COUNTING_SECONDS: Final = 1.0
_LOOK_AT_CLOCK_EVERY: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What lay there.

    :param unclaimed: objects that nobody has claimed.
    :param oldest_seconds: since the last byte of the oldest of them was written; 0 when there is none.
    :param broken: files that were set aside because they are no data set.
    :param claimed: objects that retrievals have claimed and not let go of.
    :param oldest_claimed_seconds: since the oldest claim that holds one of them was last changed, by a try that took or
        let go of something; 0 when there is none.
    :param whole: whether all was counted in time; else there is more, and may be older.
    """

    unclaimed: int
    oldest_seconds: float
    broken: int
    claimed: int
    oldest_claimed_seconds: float
    whole: bool


class Census:
    """Counts what lies in a spool, at most every few seconds. Safe from any thread.

    :param spool: the spool.
    :param kept_seconds: for how long a count is told again.
    :param counting_seconds: how long a count may take.
    """

    def __init__(
        self, spool: Spool, *, kept_seconds: float = KEPT_SECONDS, counting_seconds: float = COUNTING_SECONDS
    ) -> None:
        self._spool = spool
        self._kept_seconds = kept_seconds
        self._counting_seconds = counting_seconds
        self._lock = threading.Lock()
        self._count: Count | None = None
        self._counted_at = 0.0

    def count(self) -> Count:
        """Return the last count, or a new one when it is too old. Whoever asks while one is made waits for it.

        :raises OSError: when the spool cannot be read.
        """
        with self._lock:
            if self._count is None or time.monotonic() - self._counted_at >= self._kept_seconds:
                self._count = self._made()
                self._counted_at = time.monotonic()
            return self._count

    def _made(self) -> Count:
        end = time.monotonic() + self._counting_seconds
        now = time.time()
        unclaimed, oldest, all_unclaimed = _counted(_times(self._spool.new), now, end)
        claimed, oldest_claimed, all_claimed = _counted(_claims(self._spool.root / "claimed"), now, end)
        with os.scandir(self._spool.broken) as found:
            broken = sum(1 for _ in found)
        return Count(
            unclaimed=unclaimed,
            oldest_seconds=oldest,
            broken=broken,
            claimed=claimed,
            oldest_claimed_seconds=oldest_claimed,
            whole=all_unclaimed and all_claimed,
        )


def _counted(times: Iterator[float], now: float, end: float) -> tuple[int, float, bool]:
    """Count until a time of the monotonic clock; return how many, the age of the oldest, and whether that is all."""
    count, oldest = 0, 0.0
    for at in times:
        count += 1
        oldest = max(oldest, now - at)
        if count % _LOOK_AT_CLOCK_EVERY == 0 and time.monotonic() > end:
            return count, oldest, False
    return count, oldest, True


def _times(new: Path) -> Iterator[float]:
    """Iterate over the times at which the objects of all shards were written."""
    for shard in sorted(new.iterdir()):
        with os.scandir(shard) as found:
            for entry in found:
                try:
                    written = entry.stat(follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue  # claimed in this moment
                yield written


def _claims(claimed: Path) -> Iterator[float]:
    """Iterate over the objects of all claims: for each the time at which its claim was last changed.

    Not that of the object, which may have waited long before it was claimed.
    """
    with os.scandir(claimed) as found:
        claims = [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
    for claim in claims:
        try:
            changed = os.stat(claim, follow_symlinks=False).st_mtime
            with os.scandir(claim) as objects:
                count = sum(entry.name.endswith(".dcm") for entry in objects)
        except FileNotFoundError:
            continue  # closed in this moment
        for _ in range(count):
            yield changed
