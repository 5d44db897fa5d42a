"""What the beams of all plans have alike (PS3.3 C.8.8.14): a linac with two pairs of jaws and an MLC of 60 pairs."""

from __future__ import annotations

from typing import Any, Final

#: Edges of the leaf pairs in the isocentre plane, millimetres, from the lowest y up.
LEAF_BOUNDARIES: Final = tuple(
    float(edge) for edge in (*range(-200, -99, 10), *range(-95, 96, 5), *range(100, 201, 10))
)


def dose_rate(flattened: bool) -> int:
    """Return the dose rate, MU/min."""
    return 600 if flattened else 1400


def fluence(flattened: bool) -> dict[str, Any]:
    """Return an item of the Primary Fluence Mode Sequence."""
    return {"FluenceMode": "STANDARD"} if flattened else {"FluenceMode": "NON_STANDARD", "FluenceModeID": "FFF"}


def beam_head(number: int, name: str, machine: str, beam_type: str, model: str) -> dict[str, Any]:
    """Return what a beam says before its control points."""
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
                "NumberOfLeafJawPairs": len(LEAF_BOUNDARIES) - 1,
                "LeafPositionBoundaries": list(LEAF_BOUNDARIES),
            },
        ],
        "TreatmentDeliveryType": "TREATMENT",
        "NumberOfWedges": 0,
        "NumberOfCompensators": 0,
        "NumberOfBoli": 0,
        "NumberOfBlocks": 0,
        "FinalCumulativeMetersetWeight": 1.0,
    }


def first_control_point(
    energy: int, gantry: float, collimator: float, couch: float, rate: int, openings: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the control point that says where everything stands.

    :param energy: nominal, MV.
    :param rate: dose rate, MU/min.
    :param openings: items of the Beam Limiting Device Position Sequence.
    """
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


def openings(half_x_mm: float, half_y_mm: float) -> list[dict[str, Any]]:
    """Return jaws and leaves of an open field: the leaves stand at the jaws."""
    return [*jaws(half_x_mm, half_y_mm), leaves(-half_x_mm, half_x_mm)]


def jaws(half_x_mm: float, half_y_mm: float) -> list[dict[str, Any]]:
    """Return the positions of both pairs of jaws, symmetric about the axis."""
    return [
        {"RTBeamLimitingDeviceType": "ASYMX", "LeafJawPositions": [-half_x_mm, half_x_mm]},
        {"RTBeamLimitingDeviceType": "ASYMY", "LeafJawPositions": [-half_y_mm, half_y_mm]},
    ]


def leaves(left_mm: float, right_mm: float) -> dict[str, Any]:
    """Return the positions of the leaves, all pairs alike."""
    pairs = len(LEAF_BOUNDARIES) - 1
    return {"RTBeamLimitingDeviceType": "MLCX", "LeafJawPositions": [left_mm] * pairs + [right_mm] * pairs}
