"""What a C-MOVE sends to a standing receiver, which others use at the same time (semantics 9 and 11).

Nothing in a C-STORE says for certain whose it is: the Move Originator (0000,1030) is optional, is the same for all of
one connection, and no daemon has to tell the truth there. So it is not looked at. Copies are given out by these rules,
and each of N retrievals that ask for an instance gets one of the N copies that come:

- A retrieval takes one copy of an instance while it asks for it. When it does not, it takes one only if no other
  retrieval that runs waits for that instance: otherwise it would be the other one's that it takes.
- A further copy of what it has got is looked at, as a duplicate or a conflict, only where no other retrieval asked for
  that instance. Otherwise it is the other one's, also when that was killed: its retry finds it.
- Of a class whose objects may change under their UID only what began to arrive after the peer was asked is taken; of
  others, what arrived since this try began or was not there when it asked, and what an earlier try asked for in vain
  (:mod:`.claims`).
- What was sent to another AE title is nobody's here: places do not show it, or do not give it (:mod:`.addressee`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import DicomError, ReceiverUnavailableError
from airflow_provider_varian.receiver.spooled import SpooledObject
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.others import Others
from airflow_provider_varian.retrieval.standing_place import Copy, Place
from airflow_provider_varian.retrieval.wanted import Want, Wanted
from airflow_provider_varian.uids import CHANGING_STORAGE

logger = logging.getLogger(__name__)

#: How often it is said what has come: others wait for it, and it is as long as the list.
_TELL_SECONDS: Final = 1.0
#: While the peer sends, a sign of life is enough; so many times more seldom than when one waits for what is late.
_IDLE_LOOKS: Final = 5.0
#: And a look is then followed by a pause of so many times its length.
_IDLE_SHARE: Final = 4.0


class StandingArrivals:
    """The arrivals of one retrieval at a standing receiver.

    :param place: where its objects are found.
    :param wanted: what the retrievals there ask for.
    :param ledger: the account.
    :param peer: who sends.
    """

    def __init__(self, place: Place, wanted: Wanted, *, ledger: Ledger, peer: Peer) -> None:
        self._place = place
        self._wanted = wanted
        self._ledger = ledger
        self._peer = peer
        self._since = time.time()
        #: Instances that are asked for in this try; and since when, as far as they may change.
        self._asked: set[str] = set()
        self._from: dict[str, float] = {}
        #: Series and studies that are asked for as a whole, and since when.
        self._whole: dict[str, float] = {}
        #: What is asked for at the moment.
        self._asking: set[str] = set()
        self._is_asking_whole = False
        #: What was there before it was asked for; and instances of which that is known, with since when.
        self._older: set[str] = set()
        self._watched: dict[str, float] = {}
        self._copies: dict[str, Copy] = {}
        #: Names of copies that were claimed, by us or sooner by others, or are others'.
        self._judged: set[str] = set()
        self._told = 0.0
        #: Up to when one knows what came; when the last look ended; when something came.
        self._looked = self._look_ended = self._activity = time.monotonic()
        self._look_took = 0.0
        self._heard = False
        self._has_doubted = False

    @property
    def can_be_watched(self) -> bool:
        """The receiver goes on, whoever waits."""
        return True

    @property
    def lag_seconds(self) -> float:
        """How much later than it was received an object may be seen: as long as is known to wait, if more than usual.

        Who waits until it has been quiet for so long has waited until all can be seen that was received before.
        """
        return max(self._place.lag_seconds, self._behind_seconds())

    @property
    def unseen_seconds(self) -> float:
        """How long nothing may be seen at most; see :class:`.arrivals.Arrivals`. Where the receiver says it, it is
        known what has not been seen.
        """
        progress = self._place.progress
        return self._place.unseen_seconds if progress is None else self._age_of(progress.until)

    def _behind_seconds(self) -> float:
        """Return for how long what was received may have been waiting to be seen; 0 when none is known to wait."""
        progress = self._place.progress
        return self._age_of(progress.until) if progress is not None and progress.waiting else 0.0

    def _age_of(self, moment: float) -> float:
        """Return how many seconds ago a moment is by the receiver's clock, at most."""
        return max(0.0, time.time() - moment + self._place.skew_seconds)

    @property
    def heard(self) -> bool:
        """Whether something came, or is on its way in, that may be for us."""
        if not self._heard:
            self._look()
        return self._heard

    def start(self) -> None:
        """See that the receiver can be used; see :class:`.arrivals.Arrivals`."""
        self._place.open()
        self._wanted.sweep()

    def stop(self, *, for_now: bool = False) -> None:
        """Say that nothing is waited for any more; when that is only for now, all is said as of a killed try."""
        if not for_now:
            with _if_possible():
                self._wanted.end()

    def record(self, uids: Collection[str]) -> dict[str, Any]:
        """Return since when what comes is ours; see :class:`.arrivals.Arrivals`."""
        changing = {uid for uid in uids if uid in self._from and self._may_change(uid)}
        older = {
            name for name, copy in self._copies.items() if name in self._older and copy.sop_instance_uid in changing
        }
        return {
            "since": self._since,
            "from": {uid: self._from[uid] for uid in sorted(changing)},
            "whole": self._whole,
            "older": sorted(older),
        }

    def resume(self, record: Mapping[str, Any]) -> None:
        """Take what has come since then for ours; see :class:`.arrivals.Arrivals`."""
        self._since = min(self._since, float(record.get("since", self._since)))
        self._from = {str(uid): float(since) for uid, since in record.get("from", {}).items()}
        self._asked |= self._from.keys()
        self._whole = {str(uid): float(since) for uid, since in record.get("whole", {}).items()}
        self._older.update(record.get("older", ()))

    def announce(self, uids: Collection[str], whole: Collection[str]) -> None:
        """Let the others know what is about to be asked for; see :class:`.arrivals.Arrivals`."""
        new = set(uids) - self._asked
        self._asked |= new
        self._whole = {**dict.fromkeys(whole, time.time()), **self._whole}
        self._is_asking_whole = bool(whole)
        self._tell()
        if self._place.skew_seconds and any(self._may_change(uid) for uid in new):
            # What began to arrive after this moment by the other clock may have begun so much earlier or later by ours.
            # What began earlier can be seen after that time; what we ask for after it begins later by both.
            self._note_asked(new)
            self._place.pause(self._place.skew_seconds)
        if new:
            self._note_what_is_there(new)

    def asking(self, uids: Collection[str]) -> None:
        """From now on a copy of these may be the answer to us; see :class:`.arrivals.Arrivals`."""
        self._asking.update(uids)
        self._note_asked(uids)
        self._give_sign()

    def answered(self) -> None:
        """From now on a copy is sooner somebody else's; see :class:`.arrivals.Arrivals`."""
        self._asking.clear()
        self._is_asking_whole = False
        with _if_possible():
            self._tell()

    def take(self, *, now: bool = False) -> list[SpooledObject]:
        """Claim what is ours; see :class:`.arrivals.Arrivals`."""
        if not now and not self._is_due(self._place.look_seconds, share=1.0):
            return []
        self._look()
        taken, here = list[SpooledObject](), set[str]()
        others = Others(self._wanted, skew=self._place.skew_seconds)
        for copy in sorted(self._copies.values(), key=lambda copy: copy.begun):
            is_here = copy.sop_instance_uid in here or self._is_here(copy.sop_instance_uid)
            if self._is_in_window(copy) and self._is_ours(copy, others, is_here=is_here):
                taken += (brought := self._brought(copy))
                here.update(item.sop_instance_uid for item in brought)
        if taken and time.monotonic() > self._told + _TELL_SECONDS:
            with _if_possible():
                self._tell(without=here)
        return taken

    def leftovers(self, uids: Collection[str]) -> list[SpooledObject]:
        """Claim one copy of each that nobody else waits for; see :class:`.arrivals.Arrivals`."""
        self._place.resume()
        if not uids:
            return []
        self._look()
        others, left, taken = Others(self._wanted, skew=0.0), set(uids), list[SpooledObject]()
        for copy in sorted(self._copies.values(), key=lambda copy: copy.begun):
            uid = copy.sop_instance_uid
            if uid in left and not copy.may_change and not others.wait_for(copy):
                taken += (brought := self._brought(copy))
                left -= {item.sop_instance_uid for item in brought}
        return taken

    def idle_for(self) -> float:
        """Return the seconds of quiet up to the last look; looks itself now and then."""
        if self._is_due(_IDLE_LOOKS * self._place.look_seconds, share=_IDLE_SHARE):
            try:
                self._look()
            except ReceiverUnavailableError as error:
                # Whether it is out of order for longer, the next look tells; the peer is at work meanwhile.
                logger.warning("%s", error)
                self._look_ended = time.monotonic()
        return max(0.0, self._looked - self._activity)

    def is_receiving(self) -> bool:
        """Say whether an instance that is outstanding is on its way in, as far as that can be seen."""
        return any(uid in self._ledger.entries and not self._is_here(uid) for uid in self._place.arriving())

    def unreached_hint(self) -> str:
        """Say what makes a peer reach a receiver."""
        return f"{self._checks[0].upper()}{self._checks[1:]}?"

    def silence_warning(self) -> str:
        """Say what makes a peer reach a receiver, where nothing came."""
        if self._place.lag_seconds:
            # Whether it came, only its receiver knows.
            found = f"the peer reports instances as sent, and none has been found in the store of {self._place.where}"
            progress = self._place.progress
            if progress is None:
                return f"{found} so far: does it publish (its log says what waits), {self._checks}?"
            if progress.waiting:
                return (
                    f"{found} so far, where {progress.waiting} objects wait to be published since "
                    f"{_in_words(progress.since)}: the next try looks for them (its log and /readyz say what holds "
                    "them up)"
                )
            return f"{found}, which has all that was received up to {_in_words(progress.until)}: {self._checks}?"
        return f"the peer reports instances as sent, but nothing arrived at {self._place.where}: {self._checks}?"

    @property
    def _checks(self) -> str:
        return (
            f"is {self._place.where} running, and are its AE title, host and port what the trusted entity "
            f"{self._peer.move_destination!r} says"
        )

    def _is_due(self, seconds: float, *, share: float) -> bool:
        # Where a look takes long, to look is not all that is done.
        return time.monotonic() >= self._look_ended + max(seconds, share * self._look_took)

    def _look(self) -> None:
        started = time.monotonic()
        outstanding = {entry.sop_instance_uid for entry in self._ledger.outstanding}
        copies = self._place.copies(outstanding | self._asked, self._whole.keys())
        found = {copy.name: copy for copy in copies if copy.name not in self._judged}
        new = [copy for name, copy in found.items() if name not in self._copies]
        is_news = any(self._is_in_window(copy) and not self._is_here(copy.sop_instance_uid) for copy in new)
        self._doubt_clocks(new)
        self._copies = found
        self._looked, self._look_ended = started - self._behind_seconds(), time.monotonic()
        self._look_took = self._look_ended - started
        if is_news or self.is_receiving():
            self._heard = True
            self._activity = started
        self._give_sign()

    def _give_sign(self) -> None:
        """Let the others know, now and then, that we live."""
        with _if_possible():
            self._wanted.give_sign()

    def _note_what_is_there(self, new: Collection[str]) -> None:
        """Note which copies of instances are older than the request for them, whatever any clock says."""
        now, on_their_way = time.time(), set(self._place.arriving())
        self._look()
        self._older.update(copy.name for copy in self._copies.values() if copy.sop_instance_uid in new)
        self._watched.update(dict.fromkeys(set(new) - on_their_way, now))

    def _is_in_window(self, copy: Copy) -> bool:
        """Say whether a copy began to arrive late enough to be an answer to this try."""
        if not copy.may_change:
            has_come_since = copy.sop_instance_uid in self._watched and copy.name not in self._older
            return has_come_since or copy.begun >= self._since - self._place.skew_seconds
        since = [self._from.get(copy.sop_instance_uid), *(self._whole.get(parent) for parent in copy.parents)]
        asked = [moment for moment in since if moment is not None]
        return bool(asked) and copy.begun >= min(asked) and copy.name not in self._older

    def _doubt_clocks(self, new: Iterable[Copy]) -> None:
        """Say once that something came since the peer was asked, and began before that by the receiver's clock."""
        for copy in new:
            uid = copy.sop_instance_uid
            since = min(self._from.get(uid, 0.0), self._watched.get(uid, 0.0))
            if copy.may_change and copy.begun < since and not self._has_doubted:
                self._has_doubted = True
                logger.warning(
                    "Object %s has come to %s since it was asked for, and by the receiver's clock it began to come "
                    "before: it is not taken. Do the clocks of the receiver's host and of this one agree? Was one set "
                    "back?",
                    uid,
                    self._place.where,
                )

    def _is_ours(self, copy: Copy, others: Others, *, is_here: bool) -> bool:
        if is_here:
            if others.explain(copy):
                self._judged.add(copy.name)
                return False
            return True
        if copy.sop_instance_uid in self._asking or (self._is_asking_whole and copy.parents):
            return True
        return not others.wait_for(copy)

    def _brought(self, copy: Copy) -> list[SpooledObject]:
        # A store shows it for a while after it was claimed.
        self._judged.add(self._copies.pop(copy.name).name)
        item = self._place.bring(copy)
        return [] if item is None else [item]

    def _note_asked(self, uids: Collection[str]) -> None:
        now = time.time()
        for uid in uids:
            self._from.setdefault(uid, now)

    def _may_change(self, uid: str) -> bool:
        entry = self._ledger.entries.get(uid)
        return entry is None or not entry.sop_class_uid or entry.sop_class_uid in CHANGING_STORAGE

    @cached_property
    def _killed(self) -> Want | None:
        """What a killed try of ours asked for; read before we first say something ourselves."""
        return self._wanted.resume()

    def _tell(self, *, without: Collection[str] = ()) -> None:
        """Write what is asked for, and what of it has not come."""
        self._told = time.monotonic()
        asked, whole = self._asked, set(self._whole)
        if self._killed is not None:
            # Its stragglers come before we ask for anything ourselves.
            asked, whole = asked | self._killed.asked, whole | self._killed.whole
        waits = {uid for uid in asked if uid not in without and not self._is_here(uid)}
        self._wanted.tell(asked=asked, waits=waits, whole=whole)

    def _is_here(self, uid: str) -> bool:
        entry = self._ledger.entries.get(uid) or self._ledger.unexpected.get(uid)
        return entry is not None and entry.is_here


def _in_words(moment: float | None) -> str:
    return "a moment ago" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment))


@contextmanager
def _if_possible() -> Iterator[None]:
    """Let what others are told not stand in the way: they only wait for longer."""
    try:
        yield
    except DicomError as error:
        logger.warning("What this retrieval waits for could not be written: %s", error)
