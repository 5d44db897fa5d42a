"""Newly approved plans: what a snapshot of approval states says today and did not say at the last one (semantics 17).

DICOM tells a plan's state and not its history. So this goes forward only: the first snapshot is the base line, and what
was approved between two snapshots of the past cannot be found out any more. ReviewDate (300E,0004), where the peer or
the object has it, tells a plan that was approved, changed and approved again, which is a new revision (semantics 18).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from airflow_provider_varian.aria.listing import ask_by_uid, by_uid, filled, stable_listing, text
from airflow_provider_varian.aria.plans import PLAN_KEYS, PlanRef, plan_of
from airflow_provider_varian.aria.snapshots import PlanState, Snapshot
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.answers import to_answer
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Exact, Query
from airflow_provider_varian.query.splitting import ByDate, BySuffix
from airflow_provider_varian.query.window import clinic_zone

log = logging.getLogger(__name__)

_STEP: Final = "search of approved plans"
_APPROVED: Final = "APPROVED"
_KEYS: Final[dict[str, Any]] = dict.fromkeys((*PLAN_KEYS, "PatientID", "ReviewDate", "ReviewTime"))
_READ: Final = frozenset({*_KEYS, "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"})

#: Reads plans whose state the peer does not answer: heads by SOP Instance UID; what could not be read is absent.
ReadPlans = Callable[[Sequence[PlanRef]], Mapping[str, Dataset]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The plans whose states are compared. One of the two is given.

    :param planned_from: all plans of the clinic with an RTPlanDate from this day on.
    :param patient_ids: all plans of these patients. A patient who is added later brings all approved plans as new.
    :raises ConfigurationError: when none or both are given.
    """

    planned_from: date | None = None
    patient_ids: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if (self.planned_from is None) == (not self.patient_ids):
            raise ConfigurationError(
                "it is not said whose plans are compared",
                step=_STEP,
                hint="Give planned_from, a day, or patient_ids, and not both",
            )

    @property
    def scope(self) -> str:
        """What a snapshot says of them."""
        return "clinic" if self.planned_from else "patients"

    def queries(self, today: date) -> list[Query]:
        """Return what to ask for.

        :param today: the clinic's day. One more is asked for: a planner's clock may be ahead.
        """
        keys = {"Modality": "RTPLAN", **_KEYS}
        if self.planned_from is None:
            patients = dict.fromkeys(self.patient_ids)
            return [Query.build(Level.IMAGE, {**keys, "PatientID": Exact(patient)}) for patient in patients]
        last = max(today, self.planned_from) + timedelta(days=1)
        return [Query.build(Level.IMAGE, {**keys, "RTPlanDate": (self.planned_from, last)})]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedPlan:
    """A plan that was approved since the last snapshot.

    :param plan: which.
    :param patient_id: whose; empty when the peer did not answer it.
    :param again: it was approved at the last snapshot already, and was changed and approved again since.
    :param state: as it stands in the new snapshot.
    """

    plan: PlanRef
    patient_id: str = field(repr=False)
    again: bool
    state: PlanState


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """The difference of two snapshots.

    :param newly: plans approved since the last one, those planned first first.
    :param undecided: plans whose state neither the peer nor the object tells. Their state stays what it was in the
        snapshot, so that an approval shows when it is told.
    :param first: there was no snapshot: nothing is new, and what is there is the base line.
    :param snapshot: the new one. To be written when what is new is noted durably: written before, a crash would lose
        it; written after, it may be reported twice, which is harmless (semantics 18).
    :param warnings: sentences without identifiers.
    """

    newly: tuple[ApprovedPlan, ...]
    undecided: tuple[PlanRef, ...]
    first: bool
    snapshot: Snapshot
    warnings: tuple[str, ...]


def find_newly_approved(
    session: FindSession,
    candidates: Candidates,
    former: Snapshot | None,
    *,
    run: str,
    now: datetime,
    until: datetime | None = None,
    is_backfill: bool = False,
    read: ReadPlans | None = None,
    zone: ZoneInfo | None = None,
    stable_counts: int | None = None,
    stable_interval_seconds: float | None = None,
    cancellation: Cancellation | None = None,
) -> Approvals:
    """Compare the plans' states with the last snapshot.

    The same run again, as of a cleared task, finds the same again, and what was approved in between.

    :param session: an open session.
    :param candidates: whose states are compared.
    :param former: the last snapshot; None for the first.
    :param run: opaque key of this run.
    :param now: the present instant, aware of its zone.
    :param until: end of the run's data interval.
    :param is_backfill: the run is a backfill's.
    :param read: brings and reads plans whose state the peer does not answer.
    :param zone: the clinic's zone; the connection's when None.
    :param stable_counts: equal lists in a row that make a list stable; None: as the session's profile says.
    :param stable_interval_seconds: seconds between two of them; None: as the session's profile says.
    :param cancellation: stops it from outside.
    :raises ConfigurationError: it would go backward, or the snapshot is of other candidates.
    :raises DicomError: what :meth:`~airflow_provider_varian.query.find.FindSession.find` and ``read`` raise.
    """
    check_forward(former, candidates, until=until, is_backfill=is_backfill)
    zone = zone or clinic_zone(session.peer.timezone)
    listed = stable_listing(
        session,
        candidates.queries(now.astimezone(zone).date()),
        by=(ByDate("RTPlanDate"), BySuffix("PatientID")),
        stable_counts=stable_counts,
        stable_interval_seconds=stable_interval_seconds,
        cancellation=cancellation,
    )
    answers = by_uid(listed.answers, what="a plan", step=_STEP)
    ask_by_uid(session, answers, _open_ones(answers), _KEYS, completed=filled, cancellation=cancellation)
    if read is not None and (open_ones := _open_ones(answers)):
        for uid, head in read([plan_of(answers[uid]) for uid in open_ones]).items():
            answers[uid] = filled(answers[uid], to_answer(head, only=_READ))
    return _Difference(candidates, former, run, zone).of(answers, now, until, tuple(listed.warnings))


def check_forward(
    former: Snapshot | None, candidates: Candidates, *, until: datetime | None, is_backfill: bool
) -> None:
    """Refuse what a snapshot cannot answer; without any network.

    :raises ConfigurationError: with the reason.
    """
    if is_backfill:
        raise ConfigurationError(
            "newly approved plans cannot be backfilled: the peer tells which state a plan has, not which it had",
            step=_STEP,
            hint="Use the plans treated in the interval, which can be backfilled, or wait for the next scheduled run",
        )
    if former is None:
        return
    if former.scope != candidates.scope:
        raise ConfigurationError(
            f"the snapshot is of the plans of {_SCOPES.get(former.scope, former.scope)}, "
            f"and asked for are those of {_SCOPES[candidates.scope]}",
            step=_STEP,
            hint="Give the snapshot another name",
        )
    if until is not None and former.until is not None and until < former.until:
        raise ConfigurationError(
            "a later run has taken its snapshot already: what was approved before it cannot be found out any more",
            step=_STEP,
            hint="Clear the latest run instead, or use the plans treated in the interval, which can be run again",
        )


_SCOPES: Final = {"clinic": "the whole clinic", "patients": "single patients"}


def _open_ones(answers: Mapping[str, dict[str, Any]]) -> list[str]:
    return [uid for uid, answer in answers.items() if not text(answer, "ApprovalStatus")]


class _Difference:
    def __init__(self, candidates: Candidates, former: Snapshot | None, run: str, zone: ZoneInfo) -> None:
        self._candidates = candidates
        self._former = former
        self._run = run
        self._zone = zone
        self._entered = 0
        self._base: Mapping[str, PlanState] = {}
        if former is not None:
            # The same run again: compared with what it compared with.
            self._base = former.rolled_back() if former.run == run else former.plans

    def of(
        self, answers: Mapping[str, dict[str, Any]], now: datetime, until: datetime | None, warnings: tuple[str, ...]
    ) -> Approvals:
        """Return what is new."""
        states = dict(self._base)
        newly: list[ApprovedPlan] = []
        undecided: list[PlanRef] = []
        for uid, answer in answers.items():
            plan, before = plan_of(answer), self._base.get(uid)
            if not plan.approval_status:
                undecided.append(plan)
                continue
            states[uid] = state = _state(answer, before)
            if self._former is not None and self._is_new(state, before):
                again = before is not None and before.status == _APPROVED
                newly.append(ApprovedPlan(plan=plan, patient_id=text(answer, "PatientID"), again=again, state=state))
        changed = {uid for uid, state in states.items() if state != self._base.get(uid)} if self._former else set()
        first = self._former is None
        return Approvals(
            newly=tuple(sorted(newly, key=lambda one: (one.state.planned, one.plan.sop_instance_uid))),
            undecided=tuple(undecided),
            first=first,
            snapshot=Snapshot(
                taken=now.astimezone(UTC),
                run=self._run,
                scope=self._candidates.scope,
                until=until.astimezone(UTC) if until else None,
                planned_from=self._planned_from(),
                plans=states,
                before={uid: self._base.get(uid) for uid in changed},
            ),
            warnings=(*warnings, *self._sentences(states, len(undecided))),
        )

    def _is_new(self, state: PlanState, before: PlanState | None) -> bool:
        if state.status != _APPROVED:
            return False
        if before is None:
            return self._is_new_here(state)
        if before.status != _APPROVED:
            return True
        # A database may keep less of a time than the object has: they differ where both say something.
        return _differ(state.reviewed, before.reviewed) or _differ(state.planned, before.planned)

    def _is_new_here(self, state: PlanState) -> bool:
        """Say whether an approved plan that no snapshot knows was approved since the last one.

        It was, if it would have stood there before. Older plans come in when the candidates go further back than they
        did; of these their review tells.
        """
        former = self._former
        if former is None or former.planned_from is None or not state.planned:
            return True
        if state.planned[:8] >= former.planned_from.strftime("%Y%m%d"):
            return True
        taken = former.taken.astimezone(self._zone).strftime("%Y%m%d")
        if state.reviewed and state.reviewed[:8] >= taken:
            return True
        self._entered += 1
        return False

    def _planned_from(self) -> date | None:
        """Return from which day on the snapshots know the plans: those noted once stay."""
        days = (self._candidates.planned_from, self._former.planned_from if self._former else None)
        return min((day for day in days if day is not None), default=None)

    def _sentences(self, states: Mapping[str, PlanState], undecided: int) -> list[str]:
        found = []
        if self._former is None:
            approved = sum(state.status == _APPROVED for state in states.values())
            found.append(
                f"this is the first snapshot: the {len(states)} plans that are there, {approved} of them approved, are "
                "the base line; plans that are approved from now on are reported"
            )
        if self._entered:
            found.append(
                f"{self._entered} approved plans are among the candidates for the first time, since these go further "
                "back than before: they are noted, and not reported"
            )
        if undecided:
            found.append(
                f"{undecided} plans came without ApprovalStatus: whether they were approved is open, and they are "
                "looked at again by the next run"
            )
        return found


def _state(answer: Mapping[str, Any], before: PlanState | None) -> PlanState:
    status = text(answer, "ApprovalStatus").upper()
    same = before if before is not None and before.status == status else PlanState(status=status)
    return PlanState(
        status=status,
        # What is not answered this time is not forgotten.
        reviewed=_moment(answer, "Review") or same.reviewed,
        planned=_moment(answer, "RTPlan") or same.planned,
    )


def _moment(answer: Mapping[str, Any], what: str) -> str:
    day = text(answer, f"{what}Date")
    return day + text(answer, f"{what}Time").replace(":", "").partition(".")[0] if day else ""


def _differ(first: str, second: str) -> bool:
    return bool(first and second) and not first.startswith(second) and not second.startswith(first)
