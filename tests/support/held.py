"""All that a synthetic clinic holds, told by its facts: what queries and retrieves are compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from support.simulated import UNTIL

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import PortalImage
from airflow_provider_varian.simulator.facts import case_facts, facts, instance_facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic


@dataclass(frozen=True, kw_only=True)
class Held:
    """One instance that the clinic holds.

    :param day: of its acquisition, or of the treatment that it records.
    :param plan: SOP Instance UID of the plan that it names.
    :param beam: ReferencedBeamNumber.
    :param image_type: of RT Images.
    :param approval: ApprovalStatus of plans of patients.
    :param beams: number of a patient's plan's beams.
    :param image_series: of the images that name a plan; filled in by whoever wants it.
    """

    patient: str
    study: str
    course: str
    series: str
    uid: str
    sop_class: str
    modality: str
    birth_date: date | None = None
    day: date | None = None
    plan: str = ""
    label: str = ""
    beam: int | None = None
    image_type: tuple[str, ...] = ()
    approval: str = ""
    intent: str = ""
    beams: int | None = None
    fraction: int | None = None
    image_series: tuple[str, ...] = ()


def all_held(clinic: Clinic) -> list[Held]:
    """List the machines' QA plans and images, then what the patients have."""
    return [*_of_machines(clinic), *_of_patients(clinic)]


def whole_plan(held: list[Held]) -> Held:
    """Return the plan of a patient who has records, doses of plan and beams, and images of today and of before."""
    for plan in held:
        doses = {each.beam is None for each in held if each.modality == "RTDOSE" and each.plan == plan.uid}
        others = {each.modality for each in held if each.plan == plan.uid}
        if plan.modality == "RTPLAN" and doses == {True, False} and {"RTRECORD", "RTIMAGE"} <= others:
            images = [each for each in held if (each.modality, each.plan) == ("RTIMAGE", plan.uid)]
            if {each.day < UNTIL for each in images} == {True, False}:
                return replace(plan, image_series=tuple(dict.fromkeys(each.series for each in images)))
    raise AssertionError("no such patient")


def _of_machines(clinic: Clinic) -> list[Held]:
    found = []
    for plan in facts(clinic):
        place = {"patient": plan.patient_id, "study": plan.study_instance_uid, "course": plan.course}
        found.append(Held(**place, series=plan.series_instance_uid, uid=plan.sop_instance_uid, sop_class=uids.RT_PLAN,
                          modality="RTPLAN", label=plan.label))  # fmt: skip
        for day in plan.days:
            series = plan.image_series_uid(day)
            found += [
                Held(**place, series=series, uid=image.sop_instance_uid, sop_class=uids.RT_IMAGE, modality="RTIMAGE",
                     day=image.acquired.date(), plan=plan.sop_instance_uid, beam=image.beam)
                for image in plan.images(day)
            ]  # fmt: skip
    return found


def _of_patients(clinic: Clinic) -> list[Held]:
    found = []
    for case in case_facts(clinic):
        courses = {
            each.study.uid: each.study.study_id for each in (*case.image_series, *case.structure_sets, *case.plans)
        }
        courses |= {dose.study.uid: dose.study.study_id for plan in case.plans for dose in plan.doses}
        known = {uid: {"day": images.acquired.date()} for images in case.image_series for uid in images.instance_uids}
        for plan in case.plans:
            known[plan.sop_instance_uid] = {
                "label": plan.label, "approval": str(plan.approval), "intent": plan.intent, "beams": len(plan.beams),
            }  # fmt: skip
            own = {"plan": plan.sop_instance_uid}
            known |= {
                beam.drr_uid: own | {"day": plan.planned.date(), "beam": beam.number,
                                     "image_type": ("DERIVED", "SECONDARY", "DRR")}
                for beam in plan.beams
            }  # fmt: skip
            known |= {
                each.sop_instance_uid: own | {"day": each.treated.date(), "fraction": each.fraction}
                for each in plan.records
            }
            known |= {each.sop_instance_uid: own | {"beam": each.beam} for each in plan.doses}
            known |= {each.sop_instance_uid: own | _portal(each) for each in plan.portal_images}
        known |= {each.sop_instance_uid: _portal(each) for each in case.strays}
        found += [
            Held(patient=case.patient_id, study=each.study_instance_uid, course=courses[each.study_instance_uid],
                 series=each.series_instance_uid, uid=each.sop_instance_uid, sop_class=each.sop_class_uid,
                 modality=each.modality, birth_date=case.birth_date, **known.get(each.sop_instance_uid, {}))
            for each in instance_facts(clinic, case)
        ]  # fmt: skip
    return found


def _portal(image: PortalImage) -> dict[str, object]:
    beam = image.beam.number if image.beam else None
    return {"day": image.acquired.date(), "image_type": image.image_type, "beam": beam}
