"""RT Plans (PS3.3 A.20): of machine QA, and of clinical patients as decoys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_provider_varian.simulator.clinic.linacs import Beam, Exercise, Linac, QAPlan

_LEAF_BOUNDARIES: Final = tuple(
    float(edge) for edge in (*range(-200, -99, 10), *range(-95, 96, 5), *range(100, 201, 10))
)
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


def clinical_beams(machine: str, energy: int, gantry_angles: Sequence[float], meterset: float) -> dict[str, Any]:
    """Return the beams of a plain clinical plan: one static field per gantry angle."""
    beams = [
        {
            **_beam_head(number, f"Field {number}", machine, "STATIC", "TrueBeam"),
            "NumberOfControlPoints": 2,
            "ControlPointSequence": [
                _first_control_point(energy, gantry, 0.0, 0.0, 600, _openings(50.0)),
                {"ControlPointIndex": 1, "CumulativeMetersetWeight": 1.0},
            ],
            "ReferencedPatientSetupNumber": 1,
        }
        for number, gantry in enumerate(gantry_angles, start=1)
    ]
    references = [{"BeamMeterset": meterset, "ReferencedBeamNumber": beam["BeamNumber"]} for beam in beams]
    return {
        "FractionGroupSequence": [
            {
                "FractionGroupNumber": 1,
                "NumberOfFractionsPlanned": 20,
                "NumberOfBeams": len(beams),
                "NumberOfBrachyApplicationSetups": 0,
                "ReferencedBeamSequence": references,
            }
        ],
        "BeamSequence": beams,
        "PatientSetupSequence": [
            {"PatientPosition": "HFS", "PatientSetupNumber": 1, "SetupTechnique": "ISOCENTRIC"},
        ],
    }


def _beam(linac: Linac, plan: QAPlan, beam: Beam, half_mm: float) -> dict[str, Any]:
    dynamic = plan.exercise is Exercise.PICKET_FENCE
    points = _picket_points(plan, beam) if dynamic else _static_points(plan, beam, half_mm)
    return {
        **_beam_head(beam.number, beam.name, linac.name, "DYNAMIC" if dynamic else "STATIC", linac.model),
        "PrimaryFluenceModeSequence": [_fluence(plan.flattened)],
        "NumberOfControlPoints": len(points),
        "ControlPointSequence": points,
        "ReferencedPatientSetupNumber": 1,
    }


def _fluence(flattened: bool) -> dict[str, Any]:
    return {"FluenceMode": "STANDARD"} if flattened else {"FluenceMode": "NON_STANDARD", "FluenceModeID": "FFF"}


def _beam_head(number: int, name: str, machine: str, beam_type: str, model: str) -> dict[str, Any]:
    return {
        "BeamNumber": number,
        "BeamName": name,
        "BeamType": beam_type,
        "RadiationType": "PHOTON",
        "TreatmentMachineName": machine,
        "Manufacturer": "Varian Medical Systems",
        "ManufacturerModelName": model,
        "PrimaryDosimeterUnit": "MU",
        "SourceAxisDistance": 1000.0,
        "BeamLimitingDeviceSequence": [
            {"RTBeamLimitingDeviceType": "ASYMX", "NumberOfLeafJawPairs": 1},
            {"RTBeamLimitingDeviceType": "ASYMY", "NumberOfLeafJawPairs": 1},
            {
                "RTBeamLimitingDeviceType": "MLCX",
                "NumberOfLeafJawPairs": len(_LEAF_BOUNDARIES) - 1,
                "LeafPositionBoundaries": list(_LEAF_BOUNDARIES),
            },
        ],
        "TreatmentDeliveryType": "TREATMENT",
        "NumberOfWedges": 0,
        "NumberOfCompensators": 0,
        "NumberOfBoli": 0,
        "NumberOfBlocks": 0,
        "FinalCumulativeMetersetWeight": 1.0,
    }


def _static_points(plan: QAPlan, beam: Beam, half_mm: float) -> list[dict[str, Any]]:
    rate = 600 if plan.flattened else 1400
    first = _first_control_point(plan.energy, beam.gantry, beam.collimator, beam.couch, rate, _openings(half_mm))
    return [first, {"ControlPointIndex": 1, "CumulativeMetersetWeight": 1.0}]


def _picket_points(plan: QAPlan, beam: Beam) -> list[dict[str, Any]]:
    """One control point per strip: leaves wait at it with a 3 mm gap (step and shoot)."""
    rate = 600 if plan.flattened else 1400
    points = []
    for index, centre in enumerate(_PICKETS):
        weight = index / (len(_PICKETS) - 1)
        leaves = _leaves(centre - 1.5, centre + 1.5)
        if index == 0:
            jaws = _jaws(plan.field_mm / 2)
            point = _first_control_point(plan.energy, beam.gantry, beam.collimator, beam.couch, rate, [*jaws, leaves])
        else:
            point = {
                "ControlPointIndex": index,
                "BeamLimitingDevicePositionSequence": [leaves],
                "CumulativeMetersetWeight": round(weight, 6),
            }
        points.append(point)
    return points


def _first_control_point(
    energy: int, gantry: float, collimator: float, couch: float, rate: int, openings: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "ControlPointIndex": 0,
        "NominalBeamEnergy": energy,
        "DoseRateSet": rate,
        "BeamLimitingDevicePositionSequence": openings,
        "GantryAngle": float(gantry),
        "GantryRotationDirection": "NONE",
        "BeamLimitingDeviceAngle": float(collimator),
        "BeamLimitingDeviceRotationDirection": "NONE",
        "PatientSupportAngle": float(couch),
        "PatientSupportRotationDirection": "NONE",
        "TableTopEccentricAngle": 0.0,
        "TableTopEccentricRotationDirection": "NONE",
        "TableTopVerticalPosition": None,
        "TableTopLongitudinalPosition": None,
        "TableTopLateralPosition": None,
        "IsocenterPosition": [0.0, 0.0, 0.0],
        "CumulativeMetersetWeight": 0.0,
    }


def _openings(half_mm: float) -> list[dict[str, Any]]:
    return [*_jaws(half_mm), _leaves(-half_mm, half_mm)]


def _jaws(half_mm: float) -> list[dict[str, Any]]:
    return [
        {"RTBeamLimitingDeviceType": "ASYMX", "LeafJawPositions": [-half_mm, half_mm]},
        {"RTBeamLimitingDeviceType": "ASYMY", "LeafJawPositions": [-half_mm, half_mm]},
    ]


def _leaves(left_mm: float, right_mm: float) -> dict[str, Any]:
    pairs = len(_LEAF_BOUNDARIES) - 1
    return {"RTBeamLimitingDeviceType": "MLCX", "LeafJawPositions": [left_mm] * pairs + [right_mm] * pairs}


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
