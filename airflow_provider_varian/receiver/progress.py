"""How far a receiver is with publishing, as it says in the store to those who look for objects there.

::

    {store}/published/{spool}.json    one for each spool from which is published there

A small document, written whole over the last one: what was received before a time is there, so much waits, and which
objects are arriving at this moment. Times are those of the receiver's host. Of the objects it has SOP Instance UIDs
only; a hint, on which no outcome depends.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_varian.uids import is_uid

FOLDER: Final = PurePosixPath("published")
SUFFIX: Final = ".json"
#: A publisher that lives says so at least this often, also when there is nothing new: a request to the store.
SAID_SECONDS: Final = 30.0
#: What was said so long ago says nothing any more: two may be late or fail, and that one be written slowly.
VALID_SECONDS: Final = 90.0
#: Objects that arrive at one moment, at most: one for each association, of which a receiver has ten by default.
MAXIMUM_ARRIVING: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is said.

    :param written: when, in seconds since the epoch.
    :param until: all that was received before this time is in the store, but for objects that alone cannot be brought.
    :param waiting: how many objects wait to be brought there, those included.
    :param since: when the oldest of them was written to the spool; ``None`` when none waits.
    :param arriving: SOP Instance UIDs of what is being received.
    """

    written: float
    until: float
    waiting: int = 0
    since: float | None = None
    arriving: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it as a document."""
        said = {
            "written": self.written,
            "until": self.until,
            "waiting": self.waiting,
            "since": self.since,
            "arriving": list(self.arriving),
        }
        return json.dumps(said, separators=(",", ":"))

    @classmethod
    def parsed(cls, text: str) -> Progress | None:
        """Read a document; ``None`` when it is none."""
        try:
            said: dict[str, Any] = json.loads(text)
            since = said["since"]
            read = cls(
                written=float(said["written"]),
                until=float(said["until"]),
                waiting=int(said["waiting"]),
                since=None if since is None else float(since),
                arriving=bounded(str(uid) for uid in said["arriving"]),
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        times = (read.written, read.until, read.since or 0.0)
        return read if read.waiting >= 0 and all(map(math.isfinite, times)) else None

    @classmethod
    def of_all(cls, many: Collection[Progress]) -> Progress:
        """Return what is true of all of them together; one at least."""
        return cls(
            written=min(one.written for one in many),
            until=min(one.until for one in many),
            waiting=sum(one.waiting for one in many),
            since=min((one.since for one in many if one.since is not None), default=None),
            arriving=tuple(uid for one in many for uid in one.arriving),
        )

    def is_valid(self, now: float, *, skew: float) -> bool:
        """Say whether it still says something.

        :param now: seconds since the epoch, by our clock.
        :param skew: how many seconds the receiver's clock may be behind ours, or ahead. By a clock that is farther
            away nothing can be compared.
        """
        return -skew <= now - self.written <= VALID_SECONDS + skew


def bounded(uids: Iterable[str]) -> tuple[str, ...]:
    """Return the UIDs among texts, no more than a document has."""
    found = []
    for uid in uids:
        if is_uid(uid):
            found.append(uid)
        if len(found) == MAXIMUM_ARRIVING:
            break
    return tuple(found)
