"""What was treated in a window, by the treatment records: exact, and for any window of the past (semantics 17).

Each fraction leaves an RT treatment record with its TreatmentDate (3008,0250), so a window of weeks ago gives the same
answer today. The records of the whole clinic are listed by one query at IMAGE level (varian-daemon 3), asked in parts
where the peer finds it too broad, and repeated until the answer stands still.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from airflow_provider_varian import uids
from airflow_provider_varian.aria.listing import ask_by_uid, by_uid, filled, stable_listing, text
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.query.answers import to_answer
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Query
from airflow_provider_varian.query.splitting import ByDate, BySuffix
from airflow_provider_varian.query.temporal import parse_date
from airflow_provider_varian.query.verdict import Verdict
from airflow_provider_varian.query.window import Window, clinic_zone, date_range_key
from airflow_provider_varian.retrieval.request import Expected

log = logging.getLogger(__name__)

_STEP: Final = "search of treatment records"
#: What is asked for beside the date. The flat reference is what some daemons answer instead of the sequence
#: (varian-daemon 1.3).
_RETURNED: Final[dict[str, Any]] = {
    "PatientID": None,
    "SOPClassUID": None,
    "TreatmentTime": None,
    "ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": None},
    "ReferencedSOPInstanceUID": None,
    "TreatmentMachineSequence": {"TreatmentMachineName": None},
}
_READ: Final = frozenset(
    {*_RETURNED, "Modality", "TreatmentDate", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"}
)
NO_PLAN: Final = "names no plan"
NO_DATE: Final = "has no date and time that say whether it lies in the window"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRef:
    """A treatment record, as far as it is known.

    :param sop_instance_uid: names the record.
    :param sop_class_uid: RT Beams Treatment Record as a rule; empty when not answered.
    :param series_instance_uid: its series.
    :param study_instance_uid: its study, the plan's (varian-daemon 1.5).
    :param patient_id: whose; empty when not answered.
    :param day: TreatmentDate, local to the clinic; None when not known.
    :param machines: TreatmentMachineName (300A,00B2); empty when not known.
    :param reason: why it is not decided, in words that go on from "the record".
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_id: str = field(repr=False)
    day: date | None
    machines: tuple[str, ...] = ()
    reason: str = ""

    def expected(self) -> Expected:
        """Return it as what a retrieval should bring."""
        return Expected(
            sop_instance_uid=self.sop_instance_uid,
            sop_class_uid=self.sop_class_uid,
            series_instance_uid=self.series_instance_uid,
            study_instance_uid=self.study_instance_uid,
            values={"Modality": "RTRECORD"},
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the Patient ID."""
        return {
            "sop_instance_uid": self.sop_instance_uid,
            "study_instance_uid": self.study_instance_uid,
            "day": self.day.isoformat() if self.day else None,
            "machines": list(self.machines),
            "reason": self.reason,
        }


#: Reads records that the answers leave open: heads by SOP Instance UID; what could not be read is absent.
ReadRecords = Callable[[Sequence[RecordRef]], Mapping[str, Dataset]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreatedPlan:
    """A plan with records in the window.

    :param plan_uid: SOP Instance UID of the plan.
    :param study_instance_uid: of its newest record, which is the plan's own (varian-daemon 1.5).
    :param patient_id: whose; empty when the peer did not answer it.
    :param days: the clinic's days on which it was treated, ascending.
    :param records: number of records. A fraction that was interrupted has several.
    :param machines: where; empty when the peer did not answer it.
    """

    plan_uid: str
    study_instance_uid: str
    patient_id: str = field(repr=False)
    days: tuple[date, ...]
    records: int
    machines: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the Patient ID."""
        return {
            "plan_uid": self.plan_uid,
            "study_instance_uid": self.study_instance_uid,
            "days": [day.isoformat() for day in self.days],
            "records": self.records,
            "machines": list(self.machines),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Treated:
    """What was treated in a window.

    :param plans: by first day, then by UID.
    :param undecided: records of which nobody says which plan they are of, or whether they lie in the window. A plan may
        be missing for each of them.
    :param warnings: sentences without identifiers.
    """

    plans: tuple[TreatedPlan, ...]
    undecided: tuple[RecordRef, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """The patients treated, each once."""
        return tuple(sorted({plan.patient_id for plan in self.plans if plan.patient_id}))


def find_treated(
    session: FindSession,
    window: Window,
    *,
    zone: ZoneInfo | None = None,
    read: ReadRecords | None = None,
    stable_counts: int | None = None,
    stable_interval_seconds: float | None = None,
    cancellation: Cancellation | None = None,
) -> Treated:
    """Return the plans, and by them the patients, treated in a window.

    The plan of a record is what its answer names: ReferencedRTPlanSequence (300C,0002), or the flat reference that some
    daemons answer. Where the answer names none, or leaves the date open, the record is asked for by its UID, then read
    by ``read``, and else listed as undecided (semantics 12).

    :param session: an open session.
    :param window: by whole days or not: date and time of each record are compared here.
    :param zone: the clinic's zone; the connection's when None.
    :param read: brings and reads records that stay open.
    :param stable_counts: equal lists in a row that make a list stable; None: as the session's profile says.
    :param stable_interval_seconds: seconds between two of them; None: as the session's profile says.
    :param cancellation: stops it from outside.
    :raises ConfigurationError: no time zone, or a number out of range.
    :raises CroppedAnswerError: the peer does not list a single day's records of IDs with equal endings.
    :raises DicomError: what :meth:`~airflow_provider_varian.query.find.FindSession.find` and ``read`` raise.
    """
    zone = zone or clinic_zone(session.peer.timezone)
    query = Query.build(
        Level.IMAGE, {"Modality": "RTRECORD", "TreatmentDate": date_range_key(window, zone), **_RETURNED}
    )
    listed = stable_listing(
        session,
        [query],
        by=(ByDate("TreatmentDate"), BySuffix("PatientID")),
        stable_counts=stable_counts,
        stable_interval_seconds=stable_interval_seconds,
        cancellation=cancellation,
    )
    answers = by_uid(listed.answers, what="a treatment record", step=_STEP)
    judge = _Judge(window, zone)
    ask_by_uid(
        session,
        answers,
        judge.open_ones(answers),
        {**_RETURNED, "Modality": None, "TreatmentDate": None},
        completed=_completed,
        cancellation=cancellation,
    )
    if read is not None:
        _read_objects(answers, judge, read)
    return _sorted_out(answers, judge, tuple(listed.warnings))


class _Judge:
    """Says what an answer decides."""

    def __init__(self, window: Window, zone: ZoneInfo) -> None:
        self._window = window
        self._zone = zone

    def reason(self, answer: Mapping[str, Any]) -> str | None:
        """Return why a record is open, empty when it is decided, None when it is not wanted."""
        if text(answer, "SOPClassUID") == uids.RT_TREATMENT_SUMMARY_RECORD:
            # It sums up a course, and is no fraction of any day.
            return None
        inside = self._window.contains(
            text(answer, "TreatmentDate") or None, text(answer, "TreatmentTime") or None, self._zone
        )
        if inside is Verdict.MISS:
            return None
        if inside is Verdict.UNDECIDED:
            return NO_DATE
        return "" if _plan_uids(answer) else NO_PLAN

    def open_ones(self, answers: Mapping[str, dict[str, Any]]) -> list[str]:
        """Return the UIDs of the records that are open, those of unknown patients among them."""
        return [uid for uid, answer in answers.items() if self.reason(answer) or self._lacks_patient(answer)]

    def _lacks_patient(self, answer: Mapping[str, Any]) -> bool:
        return not text(answer, "PatientID") and self.reason(answer) is not None


def _read_objects(answers: dict[str, dict[str, Any]], judge: _Judge, read: ReadRecords) -> None:
    open_ones = judge.open_ones(answers)
    if not open_ones:
        return
    log.info("%d treatment records are read, since the answers leave them open", len(open_ones))
    heads = read([_record(answers[uid], judge.reason(answers[uid]) or "") for uid in open_ones])
    for uid in open_ones:
        if uid in heads:
            answers[uid] = _completed(answers[uid], to_answer(heads[uid], only=_READ))


def _completed(answer: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Fill what an answer leaves empty."""
    made = filled(answer, further)
    if not _plan_uids(answer):
        # A sequence of empty items is no answer either.
        made |= {name: further[name] for name in _PLAN_REFERENCES if further.get(name)}
    return made


_PLAN_REFERENCES: Final = ("ReferencedRTPlanSequence", "ReferencedSOPInstanceUID")


def _sorted_out(answers: Mapping[str, dict[str, Any]], judge: _Judge, warnings: tuple[str, ...]) -> Treated:
    by_plan: dict[str, list[RecordRef]] = defaultdict(list)
    undecided: list[RecordRef] = []
    for answer in answers.values():
        reason = judge.reason(answer)
        if reason is None:
            continue
        record = _record(answer, reason)
        if reason:
            undecided.append(record)
            continue
        for plan_uid in _plan_uids(answer):
            by_plan[plan_uid].append(record)
    plans: list[TreatedPlan] = []
    for plan_uid, records in by_plan.items():
        of_patients = _by_patient(records)
        if len(of_patients) > 1:
            warnings = (*warnings, f"the records of plan {plan_uid} name {len(of_patients)} patients")
        plans += (_plan(plan_uid, patient_id, own) for patient_id, own in of_patients.items())
    if undecided:
        reasons = ", ".join(
            f"{sum(record.reason == reason for record in undecided)}: {reason}"
            for reason in sorted({record.reason for record in undecided})
        )
        warnings = (*warnings, f"{len(undecided)} treatment records are undecided ({reasons}): a plan may be missing")
    return Treated(
        plans=tuple(sorted(plans, key=lambda plan: (plan.days, plan.plan_uid, plan.patient_id))),
        undecided=tuple(sorted(undecided, key=lambda record: (record.day or date.max, record.sop_instance_uid))),
        warnings=warnings,
    )


def _by_patient(records: Iterable[RecordRef]) -> dict[str, list[RecordRef]]:
    """Return records by patient; those that name none are of the patient that the others name, if it is one."""
    found: dict[str, list[RecordRef]] = defaultdict(list)
    for record in records:
        found[record.patient_id].append(record)
    named = [patient_id for patient_id in found if patient_id]
    if len(named) == 1 and "" in found:
        found[named[0]] += found.pop("")
    return found


def _plan(plan_uid: str, patient_id: str, records: Sequence[RecordRef]) -> TreatedPlan:
    newest = max(records, key=lambda record: (record.day or date.min, record.sop_instance_uid))
    return TreatedPlan(
        plan_uid=plan_uid,
        study_instance_uid=newest.study_instance_uid,
        patient_id=patient_id,
        days=tuple(sorted({record.day for record in records if record.day})),
        records=len(records),
        machines=tuple(sorted({machine for record in records for machine in record.machines})),
    )


def _record(answer: Mapping[str, Any], reason: str) -> RecordRef:
    return RecordRef(
        sop_instance_uid=text(answer, "SOPInstanceUID"),
        sop_class_uid=text(answer, "SOPClassUID"),
        series_instance_uid=text(answer, "SeriesInstanceUID"),
        study_instance_uid=text(answer, "StudyInstanceUID"),
        patient_id=text(answer, "PatientID"),
        day=_day(answer),
        machines=tuple(
            dict.fromkeys(
                name
                for item in answer.get("TreatmentMachineSequence") or ()
                if (name := text(item, "TreatmentMachineName"))
            )
        ),
        reason=reason,
    )


def _day(answer: Mapping[str, Any]) -> date | None:
    try:
        return parse_date(text(answer, "TreatmentDate"))
    except ValueError:
        return None


def _plan_uids(answer: Mapping[str, Any]) -> tuple[str, ...]:
    items = answer.get("ReferencedRTPlanSequence") or ()
    named = tuple(dict.fromkeys(uid for item in items if (uid := text(item, "ReferencedSOPInstanceUID"))))
    flat = text(answer, "ReferencedSOPInstanceUID")
    return named or ((flat,) if flat else ())
