"""Finding a plan by patient and label, the way the DB Daemon allows it.

RTPlanLabel as a matching key fails beyond 12 characters (varian-daemon 1.3) and is unique only
inside a course, so all plans of the patient are listed by one IMAGE-level C-FIND and the label is
compared here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydicom.dataset import Dataset

from airflow_provider_varian.errors import AmbiguousMatchError, NotFoundError, UndecidedMatchError
from airflow_provider_varian.query.answers import to_answer
from airflow_provider_varian.query.find import FindSession
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.query.query import Exact, Query

log = logging.getLogger(__name__)

_STEP = "plan search"
_RETURNED = ("SOPClassUID", "RTPlanLabel", "RTPlanDate", "RTPlanTime", "ApprovalStatus", "PlanIntent", "StudyID")


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

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def list_plans(session: FindSession, patient_id: str) -> tuple[list[PlanRef], tuple[str, ...]]:
    """Return all plans of a patient, each once, and sentences on what may be wrong with the list.

    :param session: an open session.
    :param patient_id: exact; ``*`` and ``?`` in it are no wildcards.
    :raises DicomError: what :meth:`~airflow_provider_varian.query.find.FindSession.find` raises.
    """
    keys = {"PatientID": Exact(patient_id), "Modality": "RTPLAN", **dict.fromkeys(_RETURNED)}
    found = session.find(Query.build(Level.IMAGE, keys))
    plans = [_plan(answer) for answer in found.answers]
    return list({plan.sop_instance_uid: plan for plan in plans}.values()), tuple(found.warnings)


def find_plan(
    session: FindSession, patient_id: str, label: str, course: str | None = None
) -> tuple[PlanRef, tuple[str, ...]]:
    """Return the one plan with a label, and sentences on what may be wrong with the list that it stands in.

    A list that was cropped at a limit of the peer may lack a second plan of that label (semantics 13). The sentences
    hold no identifiers.

    :param session: an open session.
    :param patient_id: Patient ID of the QA phantom, exact.
    :param label: RT Plan Label, exact but for padding.
    :param course: Course ID, which tells plans of the same label apart; None when one plan bears it.
    :raises NotFoundError: says how many plans there are, and the labels that come near.
    :raises AmbiguousMatchError: several plans fit; names their UIDs and courses.
    :raises UndecidedMatchError: no plan fits for certain, and answers came without label or course.
    """
    peer = session.peer.name
    plans, warnings = list_plans(session, patient_id)
    named = [plan for plan in plans if plan.label == label.strip()]
    fitting = [plan for plan in named if course is None or plan.course == course.strip()]
    unclear = [plan for plan in plans if not plan.label or (plan in named and plan not in fitting and not plan.course)]
    if len(fitting) > 1:
        uids = "; ".join(f"{plan.sop_instance_uid} in course {plan.course or '(not named)'!r}" for plan in fitting)
        courses = {plan.course for plan in fitting}
        hint = "Set course to the right one" if len(courses) > 1 and course is None else "Rename or remove one in ARIA"
        raise AmbiguousMatchError(
            f"{len(fitting)} plans bear the label {label!r}: {uids}", peer=peer, step=_STEP, hint=hint
        )
    if unclear and not fitting:
        raise UndecidedMatchError(
            f"{len(unclear)} of {len(plans)} plans came without RTPlanLabel or StudyID, none of the others fits",
            peer=peer,
            step=_STEP,
            hint="The peer does not answer these keys: look at the plans there",
        )
    if not fitting:
        raise _not_found(plans, label, course, peer)
    if unclear:
        log.warning("%s listed %d plans without RTPlanLabel or StudyID beside the one that fits", peer, len(unclear))
    return fitting[0], warnings


def beam_numbers(plan: Dataset) -> tuple[int, ...]:
    """Return the beam numbers of an RT Plan object that leave an image: setup beams are left out.

    :param plan: the RT Plan, read from its file.
    :return: BeamNumber (300A,00C0) of each item of BeamSequence (300A,00B0) whose
        TreatmentDeliveryType (300A,00CE) is not ``SETUP``, ascending.
    """
    beams = to_answer(plan, only=("BeamSequence",)).get("BeamSequence") or []
    numbers = (beam.get("BeamNumber") for beam in beams if beam.get("TreatmentDeliveryType") != "SETUP")
    return tuple(sorted({number for number in numbers if isinstance(number, int)}))


def _not_found(plans: Sequence[PlanRef], label: str, course: str | None, peer: str) -> NotFoundError:
    if not plans:
        return NotFoundError(
            "the patient has no plan, or is not there",
            peer=peer,
            step=_STEP,
            hint="Check patient_id; an ID that the daemon does not find exactly can be asked by a pattern: "
            "patient_id_patterns in the connection's profile_overrides",
        )
    same = sorted({plan.course for plan in plans if plan.label == label.strip()})
    if same:
        what = f"the plan {label!r} is not in course {course!r}, but in " + ", ".join(map(repr, same))
        return NotFoundError(what, peer=peer, step=_STEP, hint="Correct course")
    near = get_close_matches(label, {plan.label for plan in plans}, n=3, cutoff=0.5)
    return NotFoundError(
        f"none of the patient's {len(plans)} plans bears the label {label!r}",
        peer=peer,
        step=_STEP,
        hint="Nearest: " + ", ".join(map(repr, near)) if near else "Check plan_label: it is the plan ID in Eclipse",
    )


def _plan(answer: Mapping[str, Any]) -> PlanRef:
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
    )


def _text(answer: Mapping[str, Any], keyword: str) -> str:
    value = answer.get(keyword)
    return "" if value is None else str(value).strip()
