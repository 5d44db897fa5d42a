"""RT Plans of patients (PS3.3 A.20), of the standard class and of Varian's own for ring machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case, CaseBeam, Dose, Plan
from airflow_provider_varian.simulator.objects import beams, general
from airflow_provider_varian.simulator.objects.deferred import Deferred
from airflow_provider_varian.simulator.objects.machine import model_of
from airflow_provider_varian.simulator.objects.prescription import prescribed_gy


def plan_values(case: Case, plan: Plan) -> Mapping[str, Any]:
    """Return SERIES- and IMAGE-level attributes; beams are made when looked at.

    Its SOP class is the plan's own, the content that of an RT Plan (varian-daemon 1.2: ring machines). A plan
    without beams has an empty Beam Sequence, as Eclipse keeps some (varian-daemon 1.4).
    """
    planned = plan.planned
    ready: dict[str, Any] = {
        **general.made_by_aria(plan, sop_class_uid=plan.sop_class_uid, modality="RTPLAN", made=planned, series="Plans"),
        "RTPlanLabel": plan.label,
        "RTPlanName": plan.label,
        "RTPlanDescription": None,
        "RTPlanDate": general.dicom_date(planned),
        "RTPlanTime": general.dicom_time(planned),
        "PlanIntent": plan.intent,
        "RTPlanGeometry": "PATIENT" if plan.structure_set else "TREATMENT_DEVICE",
        "FrameOfReferenceUID": plan.frame_of_reference_uid,
        "PositionReferenceIndicator": None,
        **_references(plan),
        **general.approval(plan.approval, plan.reviewed),
    }
    return Deferred(
        ready,
        {
            "DoseReferenceSequence": lambda: [_dose_reference(plan)],
            "FractionGroupSequence": lambda: [_fraction_group(plan)],
            "PatientSetupSequence": lambda: [
                {"PatientPosition": "HFS", "PatientSetupNumber": 1, "SetupTechnique": "ISOCENTRIC"}
            ],
            "BeamSequence": lambda: [_beam(plan, beam) for beam in plan.beams],
        },
    )


def _references(plan: Plan) -> dict[str, Any]:
    """What the plan was made on, the dose of the whole, and the plan that it verifies (PS3.3 C.8.8.9)."""
    values: dict[str, Any] = {}
    if plan.structure_set:
        item = general.reference(uids.RT_STRUCTURE_SET, plan.structure_set.sop_instance_uid)
        values["ReferencedStructureSetSequence"] = [item]
    if whole := [dose for dose in plan.doses if dose.beam is None]:
        values["ReferencedDoseSequence"] = _doses(whole)
    if plan.verifies:
        item = {**general.plan_reference(plan.verifies), "RTPlanRelationship": "VERIFIED_PLAN"}
        values["ReferencedRTPlanSequence"] = [item]
    return values


def _doses(doses: list[Dose]) -> list[dict[str, Any]]:
    return [general.reference(uids.RT_DOSE, dose.sop_instance_uid) for dose in doses]


def _dose_reference(plan: Plan) -> dict[str, Any]:
    return {
        "DoseReferenceNumber": 1,
        "DoseReferenceStructureType": "SITE",
        "DoseReferenceDescription": "Target",
        "DoseReferenceType": "TARGET",
        "TargetPrescriptionDose": round(prescribed_gy(plan), 4),
    }


def _fraction_group(plan: Plan) -> dict[str, Any]:
    group: dict[str, Any] = {
        "FractionGroupNumber": 1,
        "NumberOfFractionsPlanned": plan.fractions,
        "NumberOfBeams": len(plan.beams),
        "NumberOfBrachyApplicationSetups": 0,
    }
    if plan.beams:
        group["ReferencedBeamSequence"] = [_referenced_beam(plan, beam) for beam in plan.beams]
    return group


def _referenced_beam(plan: Plan, beam: CaseBeam) -> dict[str, Any]:
    item: dict[str, Any] = {"BeamMeterset": beam.meterset, "ReferencedBeamNumber": beam.number}
    if own := [dose for dose in plan.doses if dose.beam == beam.number]:
        item["ReferencedDoseSequence"] = _doses(own)
    return item


def _beam(plan: Plan, beam: CaseBeam) -> dict[str, Any]:
    openings = beams.openings(beam.width_mm / 2, beam.length_mm / 2)
    rate = beams.dose_rate(plan.flattened)
    item: dict[str, Any] = {
        **beams.beam_head(beam.number, beam.name, plan.machine, "STATIC", model_of(plan.machine)),
        "PrimaryFluenceModeSequence": [beams.fluence(plan.flattened)],
        "NumberOfControlPoints": 2,
        "ControlPointSequence": [
            beams.first_control_point(plan.energy, beam.gantry, beam.collimator, beam.couch, rate, openings),
            {"ControlPointIndex": 1, "CumulativeMetersetWeight": 1.0},
        ],
        "ReferencedPatientSetupNumber": 1,
    }
    if beam.drr_uid:
        drr = {**general.reference(uids.RT_IMAGE, beam.drr_uid), "ReferenceImageNumber": 1}
        item["ReferencedReferenceImageSequence"] = [drr]
    return item
