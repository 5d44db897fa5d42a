"""Waiting for what a C-MOVE sends late (semantics 11): in the task, or by somebody else who is asked to.

Only what a standing receiver gets can be waited for by somebody else: at a receiver inside the task nobody would listen
meanwhile. Whoever goes on then takes what came by the rules of the same try; what it did not come for is kept as after
a kill, so that no other retrieval's copy is mixed up with it (:mod:`.standing_arrivals`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_provider_varian.retrieval.arrivals import Arrivals
from airflow_provider_varian.retrieval.intake import Intake
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest, RequestReport
from airflow_provider_varian.retrieval.means import Means
from airflow_provider_varian.retrieval.peers_time import PeersTime
from airflow_provider_varian.retrieval.plan import Ask
from airflow_provider_varian.retrieval.troubles import Troubles
from airflow_provider_varian.waiting import WORTH_SECONDS, LateObjects, Waiting

#: What was asked, and of which instances.
Reports = Sequence[tuple[RequestReport, Ask]]

_LOOK_SECONDS: Final = 0.05
#: So many UIDs tell somebody else what is waited for: they are kept in a row of Airflow's database.
_MOST_UIDS: Final = 100


class Settling:
    """Waits for late objects, and says what nothing at all means.

    :param means: what the transfer works with.
    :param manifest: of the retrieval.
    :param arrivals: where what is sent arrives.
    :param intake: takes it.
    :param troubles: where a warning goes.
    :param time_left: what bounds it all.
    :param before: as :meth:`record` returned it before somebody else waited; ``None``: nobody has.
    """

    def __init__(
        self,
        means: Means,
        *,
        manifest: Manifest,
        arrivals: Arrivals,
        intake: Intake,
        troubles: Troubles,
        time_left: PeersTime,
        before: Mapping[str, Any] | None,
    ) -> None:
        self._means = means
        self._manifest = manifest
        self._arrivals = arrivals
        self._intake = intake
        self._troubles = troubles
        self._time = time_left
        self._goes_on = before is not None
        self._before = dict(before or {})
        self._has_begun = False

    @property
    def heard(self) -> bool:
        """Whether anything came that may be for us."""
        return bool(self._before.get("heard")) or self._has_brought or self._arrivals.heard

    @property
    def _has_brought(self) -> bool:
        """Whether something is here that came while somebody else waited, which leftovers may have been."""
        return self._goes_on and any(
            entry.is_here and not entry.held for entry in self._manifest.ledger.entries.values()
        )

    def begin(self) -> None:
        """Go on with what is known from before; called once one can receive."""
        self._has_begun = True
        if self._goes_on:
            self._intake.whole.update(self._before.get("whole", ()))
            self._arrivals.resume(self._before.get("arrivals", {}))

    def take_late(self, ledger: Ledger, *, has_settled: bool) -> None:
        """Take what comes, or came, of what was asked for before this run.

        :param ledger: what is outstanding.
        :param has_settled: somebody else has waited until nothing came any more.
        """
        if has_settled:
            self._intake.take_arrived(now=True)
        else:
            # Where somebody else has waited for enough, as it seemed, and it was not: not once more, and on.
            self.wait(ledger, may_leave=not self._before.get("is_late"))
        self._intake.take_leftovers()
        if self._goes_on and ledger.outstanding:
            attempt = self._manifest.attempts
            moves = [report for report in self._manifest.requests if report.method == "C-MOVE"]
            self.warn_of_silence([report for report in moves if report.attempt == attempt])

    def wait(self, ledger: Ledger, reports: Reports = (), *, may_leave: bool = True) -> None:
        """Wait until it has been quiet for long enough where objects arrive, or nothing is outstanding.

        :param ledger: what is outstanding.
        :param reports: what the peer says that it has sent.
        :param may_leave: a long wait may be left to somebody else.
        :raises Waiting: it is; one has looked before.
        """
        means, started = self._means, time.monotonic()
        may_leave = may_leave and bool(means.peer.deferred_as) and self._arrivals.can_be_watched
        self._intake.take_arrived(now=may_leave)
        while True:
            silence = min(self._arrivals.idle_for(), time.monotonic() - started)
            if not ledger.outstanding or self._time.rest < 0:
                return
            quiet = means.settle_seconds + self._arrivals.lag_seconds
            if silence < self._arrivals.unseen_seconds and _is_short(reports, ledger):
                quiet = self._arrivals.unseen_seconds
            if silence >= quiet and not self._arrivals.is_receiving():
                return
            if may_leave and quiet - silence >= WORTH_SECONDS:
                raise self._left_to_others(ledger.outstanding, quiet)
            means.cancellation.pause(_LOOK_SECONDS)
            self._intake.take_arrived()

    def warn_of_silence(self, reports: Sequence[RequestReport]) -> None:
        """Warn when the peer says that it sent something, and nothing came to us from anybody."""
        if any_completed(reports) and not self.heard and (words := self._arrivals.silence_warning()):
            self._troubles.warn(words)

    def record(self) -> dict[str, Any]:
        """Return what whoever goes on has to know."""
        if not self._has_begun:  # all that came is known from before
            return self._before
        outstanding = [entry.sop_instance_uid for entry in self._manifest.ledger.outstanding]
        return {
            "heard": self.heard,
            "whole": sorted(self._intake.whole),
            "arrivals": self._arrivals.record(outstanding),
        }

    def _left_to_others(self, outstanding: Sequence[Entry], quiet: float) -> Waiting:
        count = len(outstanding)
        late = LateObjects(
            deferred_as=self._means.peer.deferred_as,
            retrieval_id=self._manifest.id,
            keys=_keys(outstanding),
            at_least=count,
            quiet_seconds=quiet,
            most_seconds=self._time.rest,
        )
        return Waiting(
            late, f"{count} objects have been asked for and may come late: they are waited for, {quiet:g} s at a time"
        )


def any_completed(reports: Sequence[RequestReport]) -> bool:
    """Say whether the peer reports that it has sent anything."""
    return any(report.completed for report in reports)


def _is_short(reports: Reports, ledger: Ledger) -> bool:
    """Say whether the peer has sent more, as it says, than has been seen."""
    for report, ask in reports:
        sent = min((report.completed or 0) + (report.warning or 0), len(ask.brings))
        if sent > sum(ledger.entries[uid].is_here for uid in ask.brings):
            return True
    return False


def _keys(outstanding: Sequence[Entry]) -> dict[str, list[str]]:
    """Return what tells the outstanding objects from others: as few UIDs as may be kept, else nothing."""
    for keyword, name in (
        ("SOPInstanceUID", "sop_instance_uid"),
        ("SeriesInstanceUID", "series_instance_uid"),
        ("StudyInstanceUID", "study_instance_uid"),
    ):
        uids = list(dict.fromkeys(getattr(entry, name) for entry in outstanding))
        if len(uids) <= _MOST_UIDS and all(uids):
            return {keyword: uids}
    return {}
