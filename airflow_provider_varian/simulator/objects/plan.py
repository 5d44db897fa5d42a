"""RT Plans of machine QA (PS3.3 A.20)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_varian.simulator.clinic.linacs import Beam, Exercise, Linac, QAPlan
from airflow_provider_varian.simulator.objects import beams

_PICKETS: Final = tuple((index - 4.5) * 15.0 for index in range(10))


def plan_beams(linac: Linac, plan: QAPlan) -> dict[str, Any]:
    """Return the beams and the fraction group of a QA plan, by keyword."""
    half = plan.field_mm / 2
    return {
        "FractionGroupSequence": [
            {
                "FractionGroupNumber": 1,
                "NumberOfFractionsPlanned": 1,
                "NumberOfBeams": len(plan.beams),
                "NumberOfBrachyApplicationSetups": 0,
                "ReferencedBeamSequence": [
                    {"BeamMeterset": beam.meterset, "ReferencedBeamNumber": beam.number} for beam in plan.beams
                ],
            }
        ],
        "BeamSequence": [_beam(linac, plan, beam, half) for beam in plan.beams],
        "PatientSetupSequence": [
            {"PatientPosition": "HFS", "PatientSetupNumber": 1, "SetupTechnique": "ISOCENTRIC"},
        ],
    }


def _beam(linac: Linac, plan: QAPlan, beam: Beam, half_mm: float) -> dict[str, Any]:
    dynamic = plan.exercise is Exercise.PICKET_FENCE or bool(beam.turns)
    if plan.exercise is Exercise.PICKET_FENCE:
        points = _picket_points(plan, beam)
    else:
        points = _strip_points(plan, beam) if beam.turns else _static_points(plan, beam, half_mm)
    return {
        **beams.beam_head(beam.number, beam.name, linac.name, "DYNAMIC" if dynamic else "STATIC", linac.model),
        "PrimaryFluenceModeSequence": [beams.fluence(plan.flattened)],
        "NumberOfControlPoints": len(points),
        "ControlPointSequence": points,
        "ReferencedPatientSetupNumber": 1,
    }


def _static_points(plan: QAPlan, beam: Beam, half_mm: float) -> list[dict[str, Any]]:
    rate = beams.dose_rate(plan.flattened)
    first = beams.first_control_point(
        plan.energy, beam.gantry, beam.collimator, beam.couch, rate, beams.openings(half_mm, half_mm)
    )
    return [first, {"ControlPointIndex": 1, "CumulativeMetersetWeight": 1.0}]


def _picket_points(plan: QAPlan, beam: Beam) -> list[dict[str, Any]]:
    """One control point per strip: leaves wait at it with a 3 mm gap (step and shoot)."""
    rate = beams.dose_rate(plan.flattened)
    points = []
    for index, centre in enumerate(_PICKETS):
        weight = index / (len(_PICKETS) - 1)
        leaves = beams.leaves(centre - 1.5, centre + 1.5)
        if index == 0:
            jaws = beams.jaws(plan.field_mm / 2, plan.field_mm / 2)
            point = beams.first_control_point(
                plan.energy, beam.gantry, beam.collimator, beam.couch, rate, [*jaws, leaves]
            )
        else:
            point = {
                "ControlPointIndex": index,
                "BeamLimitingDevicePositionSequence": [leaves],
                "CumulativeMetersetWeight": round(weight, 6),
            }
        points.append(point)
    return points


def _strip_points(plan: QAPlan, beam: Beam) -> list[dict[str, Any]]:
    """Three control points per strip of a VMAT test, the gantry turning clockwise all the while.

    The leaves stand closed at the strip's left side; the right bank runs to the other side during half of the
    strip's monitor units, and the left bank follows during the other half. So each point sees half of them.
    """
    half = plan.strip_width_mm / 2
    gantry, share = beam.gantry, 1.0 / len(beam.turns)
    stops = []
    for index, (centre, turn) in enumerate(zip(plan.strips_mm, beam.turns, strict=True)):
        left, right = centre - half, centre + half
        stops += [(index * share, gantry, left, left), ((index + 0.5) * share, gantry + turn / 2, left, right)]
        gantry += turn
        stops.append(((index + 1) * share, gantry, right, right))
    points: list[dict[str, Any]] = [
        {
            "ControlPointIndex": index,
            "BeamLimitingDevicePositionSequence": [beams.leaves(left, right)],
            "GantryAngle": angle % 360.0,
            "GantryRotationDirection": "CW",
            "CumulativeMetersetWeight": round(weight, 6),
        }
        for index, (weight, angle, left, right) in enumerate(stops)
    ]
    points[-1]["GantryRotationDirection"] = "NONE"
    openings = [*beams.jaws(plan.field_mm / 2, plan.field_mm / 2), beams.leaves(stops[0][2], stops[0][3])]
    first = beams.first_control_point(
        plan.energy, beam.gantry, beam.collimator, beam.couch, beams.dose_rate(plan.flattened), openings
    )
    return [{**first, "GantryRotationDirection": "CW"}, *points[1:]]


def plan_head(*, label: str, day: str, approved: bool, description: str, intent: str) -> Mapping[str, Any]:
    """Return what a C-FIND may ask of a plan, by keyword.

    :param label: RTPlanLabel, ARIA's plan ID.
    :param day: RTPlanDate, ``YYYYMMDD``.
    :param approved: whether ApprovalStatus is APPROVED.
    :param description: RTPlanDescription.
    :param intent: PlanIntent (300A,000A), e.g. ``MACHINE_QA`` or ``CURATIVE``.
    """
    head: dict[str, Any] = {
        "RTPlanLabel": label,
        "RTPlanName": label,
        "RTPlanDescription": description,
        "RTPlanDate": day,
        "RTPlanTime": "101500",
        "PlanIntent": intent,
        "RTPlanGeometry": "TREATMENT_DEVICE",
        "ApprovalStatus": "APPROVED" if approved else "UNAPPROVED",
    }
    if approved:
        head |= {"ReviewDate": day, "ReviewTime": "113000", "ReviewerName": "Physicist^Medical"}
    return head
