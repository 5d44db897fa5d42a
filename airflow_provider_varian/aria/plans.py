"""Finding a plan by patient and label, the way the DB Daemon allows it.

RTPlanLabel as a matching key fails beyond 12 characters (varian-daemon 1.3) and is unique only
inside a course, so all plans of the patient are listed by one IMAGE-level C-FIND and the label is
compared here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from pydicom.dataset import Dataset

from airflow_provider_varian.errors import AmbiguousMatchError, NotFoundError, UndecidedMatchError
from airflow_provider_varian.query.answers import to_answer
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Exact, Query
from airflow_provider_varian.query.verdict import Verdict, all_of

log = logging.getLogger(__name__)

_STEP: Final = "plan search"
#: What is asked for of a plan beside its UIDs.
PLAN_KEYS: Final = ("SOPClassUID", "RTPlanLabel", "RTPlanDate", "RTPlanTime", "ApprovalStatus", "PlanIntent", "StudyID")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRef:
    """A plan as C-FIND describes it; texts are empty where the peer said nothing.

    :param sop_instance_uid: names the plan.
    :param sop_class_uid: RT Plan, RT Ion Plan or Varian's own.
    :param study_instance_uid: the study that its RT Images and records share (varian-daemon 1.5).
    :param series_instance_uid: its series.
    :param label: RT Plan Label (300A,0002), the plan ID of Eclipse.
    :param course: StudyID (0020,0010), which is the Course ID for objects of a course.
    :param approval_status: (300E,0002).
    :param plan_date: RT Plan Date (300A,0006), ``YYYYMMDD``.
    :param plan_time: RT Plan Time (300A,0007).
    :param intent: PlanIntent (300A,000A): ``CURATIVE``, ``VERIFICATION``, ``MACHINE_QA`` and others.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    label: str
    course: str = ""
    approval_status: str = ""
    plan_date: str = ""
    plan_time: str = ""
    intent: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def list_plans(session: FindSession, patient_id: str) -> tuple[list[PlanRef], tuple[str, ...]]:
    """Return all plans of a patient, each once, and sentences on what may be wrong with the list.

    :param session: an open session.
    :param patient_id: exact; ``*`` and ``?`` in it are no wildcards.
    :raises DicomError: what :meth:`~airflow_provider_varian.query.find.FindSession.find` raises.
    """
    keys = {"PatientID": Exact(patient_id), "Modality": "RTPLAN", **dict.fromkeys(PLAN_KEYS)}
    found = session.find(Query.build(Level.IMAGE, keys))
    plans = [plan_of(answer) for answer in found.answers]
    return list({plan.sop_instance_uid: plan for plan in plans}.values()), tuple(found.warnings)


def select_plans(
    plans: Iterable[PlanRef],
    *,
    label: str | None = None,
    course: str | None = None,
    approval: str | None = None,
    intent: str | None = None,
) -> list[PlanRef]:
    """Return all plans that fit, in their order; several may bear one label, each in a course of its own.

    Of the daemon's keys only the patient's can be trusted, so these are compared here (varian-daemon 1.3).

    :param plans: as :func:`list_plans` returns them.
    :param label: RT Plan Label, exact but for padding; None: any.
    :param course: Course ID (StudyID), exact but for padding; None: any.
    :param approval: ApprovalStatus: ``APPROVED``, ``UNAPPROVED`` or ``REJECTED``; None: any.
    :param intent: PlanIntent, e.g. ``CURATIVE`` or ``VERIFICATION``; None: any.
    :raises UndecidedMatchError: a plan lacks what would decide, and nothing else rules it out (semantics 12).
    """
    wanted = _Wanted(label=label, course=course, approval=approval, intent=intent)
    listed = list(plans)
    unclear = [plan for plan in listed if wanted.of(plan) is Verdict.UNDECIDED]
    if unclear:
        raise _undecided(unclear, len(listed), wanted)
    return [plan for plan in listed if wanted.of(plan) is Verdict.MATCH]


def one_plan(
    plans: Iterable[PlanRef],
    *,
    label: str,
    course: str | None = None,
    approval: str | None = None,
    intent: str | None = None,
    peer: str = "",
) -> PlanRef:
    """Return the one plan that fits; of several none is chosen.

    :param plans: as :func:`list_plans` returns them.
    :param label: see :func:`select_plans`, as for the others.
    :param peer: whom to name in errors.
    :raises NotFoundError: says how many plans there are, and the labels that come near.
    :raises AmbiguousMatchError: several plans fit; names their UIDs and courses.
    :raises UndecidedMatchError: no plan fits for certain, and some lack what would decide.
    """
    wanted = _Wanted(label=label, course=course, approval=approval, intent=intent)
    listed = list(plans)
    fitting = [plan for plan in listed if wanted.of(plan) is Verdict.MATCH]
    unclear = [plan for plan in listed if wanted.of(plan) is Verdict.UNDECIDED]
    if len(fitting) > 1:
        uids = "; ".join(f"{plan.sop_instance_uid} in course {plan.course or '(not named)'!r}" for plan in fitting)
        courses = {plan.course for plan in fitting}
        hint = "Set course to the right one" if len(courses) > 1 and course is None else "Rename or remove one in ARIA"
        raise AmbiguousMatchError(
            f"{len(fitting)} plans bear the label {label!r}: {uids}", peer=peer, step=_STEP, hint=hint
        )
    if unclear and not fitting:
        raise _undecided(unclear, len(listed), wanted, peer, ", none of the others fits")
    if not fitting:
        raise _not_found(listed, wanted, peer)
    if unclear:
        lacking = " or ".join(wanted.lacking(unclear))
        log.warning("%s listed %d plans without %s beside the one that fits", peer, len(unclear), lacking)
    return fitting[0]


def find_plan(
    session: FindSession,
    patient_id: str,
    label: str,
    course: str | None = None,
    *,
    approval: str | None = None,
    intent: str | None = None,
) -> tuple[PlanRef, tuple[str, ...]]:
    """Return the one plan with a label, and sentences on what may be wrong with the list that it stands in.

    A list that was cropped at a limit of the peer may lack a second plan of that label (semantics 13). The sentences
    hold no identifiers.

    :param session: an open session.
    :param patient_id: Patient ID, exact.
    :param label: RT Plan Label, exact but for padding.
    :param course: Course ID, which tells plans of the same label apart; None when one plan bears it.
    :param approval: see :func:`select_plans`; None: any.
    :param intent: see :func:`select_plans`; None: any.
    :raises NotFoundError: says how many plans there are, and the labels that come near.
    :raises AmbiguousMatchError: several plans fit; names their UIDs and courses.
    :raises UndecidedMatchError: no plan fits for certain, and answers came without what would decide.
    """
    plans, warnings = list_plans(session, patient_id)
    found = one_plan(plans, label=label, course=course, approval=approval, intent=intent, peer=session.peer.name)
    return found, warnings


def beam_numbers(plan: Dataset) -> tuple[int, ...]:
    """Return the beam numbers of an RT Plan object that leave an image: setup beams are left out.

    :param plan: the RT Plan, read from its file.
    :return: BeamNumber (300A,00C0) of each item of BeamSequence (300A,00B0) whose
        TreatmentDeliveryType (300A,00CE) is not ``SETUP``, ascending.
    """
    beams = to_answer(plan, only=("BeamSequence",)).get("BeamSequence") or []
    numbers = (beam.get("BeamNumber") for beam in beams if beam.get("TreatmentDeliveryType") != "SETUP")
    return tuple(sorted({number for number in numbers if isinstance(number, int)}))


#: What is compared, by the field of :class:`PlanRef`, and the keyword that answers it.
_COMPARED: Final = {
    "label": "RTPlanLabel",
    "course": "StudyID",
    "approval_status": "ApprovalStatus",
    "intent": "PlanIntent",
}


class _Wanted:
    """What a plan must say."""

    def __init__(self, *, label: str | None, course: str | None, approval: str | None, intent: str | None) -> None:
        given = {"label": label, "course": course, "approval_status": approval, "intent": intent}
        self.values = {name: value.strip() for name, value in given.items() if value is not None}

    def of(self, plan: PlanRef) -> Verdict:
        """Say whether a plan fits."""
        return all_of(self._verdict(plan, name) for name in self.values)

    def lacking(self, plans: Iterable[PlanRef]) -> list[str]:
        """Return the keywords that some plans were not answered with."""
        listed = list(plans)
        return [_COMPARED[name] for name in self.values if any(not getattr(plan, name) for plan in listed)]

    def _verdict(self, plan: PlanRef, name: str) -> Verdict:
        said: str = getattr(plan, name)
        if not said:
            return Verdict.UNDECIDED
        wanted = self.values[name]
        # Labels and courses are people's own; the others are code strings, of upper case (PS3.5 6.2).
        same = said == wanted if name in ("label", "course") else said.upper() == wanted.upper()
        return Verdict.MATCH if same else Verdict.MISS


def _undecided(
    unclear: Sequence[PlanRef], count: int, wanted: _Wanted, peer: str = "", more: str = ""
) -> UndecidedMatchError:
    return UndecidedMatchError(
        f"{len(unclear)} of {count} plans came without {' or '.join(wanted.lacking(unclear))}{more}",
        peer=peer,
        step=_STEP,
        hint="The peer does not answer these keys: look at the plans there",
    )


def _not_found(plans: Sequence[PlanRef], wanted: _Wanted, peer: str) -> NotFoundError:
    if not plans:
        return NotFoundError(
            "the patient has no plan, or is not there",
            peer=peer,
            step=_STEP,
            hint="Check patient_id; an ID that the daemon does not find exactly can be asked by a pattern: "
            "patient_id_patterns in the connection's profile_overrides",
        )
    label, course = wanted.values["label"], wanted.values.get("course")
    same = [plan for plan in plans if plan.label == label]
    if same and course is not None and all(plan.course != course for plan in same):
        courses = ", ".join(map(repr, sorted({plan.course for plan in same})))
        what = f"the plan {label!r} is not in course {course!r}, but in {courses}"
        return NotFoundError(what, peer=peer, step=_STEP, hint="Correct course")
    if same:
        states = sorted({f"{plan.approval_status or 'no status'}, {plan.intent or 'no intent'}" for plan in same})
        what = f"the plan {label!r} is there, but has another state or intent: {'; '.join(states)}"
        return NotFoundError(what, peer=peer, step=_STEP, hint="Correct approval or intent, or approve the plan")
    near = get_close_matches(label, {plan.label for plan in plans}, n=3, cutoff=0.5)
    return NotFoundError(
        f"none of the patient's {len(plans)} plans bears the label {label!r}",
        peer=peer,
        step=_STEP,
        hint="Nearest: " + ", ".join(map(repr, near)) if near else "Check plan_label: it is the plan ID in Eclipse",
    )


def plan_of(answer: Mapping[str, Any]) -> PlanRef:
    """Return the plan that an answer describes.

    :param answer: a mapping as :func:`~airflow_provider_varian.query.answers.to_answer` makes it.
    """
    return PlanRef(
        sop_instance_uid=_text(answer, "SOPInstanceUID"),
        sop_class_uid=_text(answer, "SOPClassUID"),
        study_instance_uid=_text(answer, "StudyInstanceUID"),
        series_instance_uid=_text(answer, "SeriesInstanceUID"),
        label=_text(answer, "RTPlanLabel"),
        course=_text(answer, "StudyID"),
        approval_status=_text(answer, "ApprovalStatus"),
        plan_date=_text(answer, "RTPlanDate"),
        plan_time=_text(answer, "RTPlanTime"),
        intent=_text(answer, "PlanIntent"),
    )


def _text(answer: Mapping[str, Any], keyword: str) -> str:
    value = answer.get(keyword)
    return "" if value is None else str(value).strip()
