"""RT Beams Treatment Records (PS3.3 A.29): one fraction of a plan, all beams delivered as planned."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case, CaseBeam, Plan, Record
from airflow_provider_varian.simulator.objects import general
from airflow_provider_varian.simulator.objects.beams import dose_rate, jaws
from airflow_provider_varian.simulator.objects.deferred import Deferred
from airflow_provider_varian.simulator.objects.machine import model_of

_BETWEEN_BEAMS: Final = timedelta(seconds=75)


def record_values(case: Case, plan: Plan, record: Record) -> Mapping[str, Any]:
    """Return SERIES- and IMAGE-level attributes; the beams are made when looked at."""
    ready: dict[str, Any] = {
        **general.made_by_aria(
            record,
            sop_class_uid=uids.RT_BEAMS_TREATMENT_RECORD,
            modality="RTRECORD",
            made=record.treated,
            series="Treatment Records",
        ),
        "TreatmentDate": general.dicom_date(record.treated),
        "TreatmentTime": general.dicom_time(record.treated),
        "ReferencedRTPlanSequence": [general.plan_reference(plan)],
        "ReferencedFractionGroupNumber": 1,
        "NumberOfFractionsPlanned": plan.fractions,
        "PrimaryDosimeterUnit": "MU",
        "TreatmentMachineSequence": [
            {
                "TreatmentMachineName": plan.machine,
                "Manufacturer": "Varian Medical Systems",
                "InstitutionName": None,
                "ManufacturerModelName": model_of(plan.machine),
                "DeviceSerialNumber": None,
            }
        ],
        "PatientSetupSequence": [{"PatientSetupNumber": 1, "PatientPosition": "HFS", "SetupTechnique": "ISOCENTRIC"}],
    }
    return Deferred(
        ready,
        {
            "TreatmentSessionBeamSequence": lambda: [
                _beam(plan, record, beam, record.treated + index * _BETWEEN_BEAMS)
                for index, beam in enumerate(plan.beams)
            ]
        },
    )


def _beam(plan: Plan, record: Record, beam: CaseBeam, begun: datetime) -> dict[str, Any]:
    ended = begun + timedelta(minutes=beam.meterset / dose_rate(plan.flattened))
    return {
        "ReferencedBeamNumber": beam.number,
        "BeamName": beam.name,
        "BeamType": "STATIC",
        "RadiationType": "PHOTON",
        "CurrentFractionNumber": record.fraction,
        "TreatmentDeliveryType": "TREATMENT",
        "TreatmentTerminationStatus": "NORMAL",
        "TreatmentVerificationStatus": "VERIFIED",
        "SpecifiedPrimaryMeterset": beam.meterset,
        "DeliveredPrimaryMeterset": beam.meterset,
        "NumberOfWedges": 0,
        "NumberOfCompensators": 0,
        "NumberOfBoli": 0,
        "NumberOfBlocks": 0,
        "BeamLimitingDeviceLeafPairsSequence": [
            {"RTBeamLimitingDeviceType": device, "NumberOfLeafJawPairs": 1} for device in ("ASYMX", "ASYMY")
        ],
        "ReferencedPatientSetupNumber": 1,
        "NumberOfControlPoints": 2,
        "ControlPointDeliverySequence": [
            _first_control_point(plan, beam, begun),
            _control_point(plan, 1, beam.meterset, ended),
        ],
    }


def _control_point(plan: Plan, index: int, meterset: float, reached: datetime) -> dict[str, Any]:
    rate = dose_rate(plan.flattened)
    return {
        "ReferencedControlPointIndex": index,
        "TreatmentControlPointDate": general.dicom_date(reached),
        "TreatmentControlPointTime": general.dicom_time(reached),
        "SpecifiedMeterset": meterset,
        "DeliveredMeterset": meterset,
        "DoseRateSet": rate,
        "DoseRateDelivered": rate,
    }


def _first_control_point(plan: Plan, beam: CaseBeam, reached: datetime) -> dict[str, Any]:
    return {
        **_control_point(plan, 0, 0.0, reached),
        "NominalBeamEnergy": plan.energy,
        "NominalBeamEnergyUnit": "MV",
        "BeamLimitingDevicePositionSequence": jaws(beam.width_mm / 2, beam.length_mm / 2),
        "GantryAngle": float(beam.gantry),
        "GantryRotationDirection": "NONE",
        "BeamStopperPosition": "UNKNOWN",
        "BeamLimitingDeviceAngle": float(beam.collimator),
        "BeamLimitingDeviceRotationDirection": "NONE",
        "PatientSupportAngle": float(beam.couch),
        "PatientSupportRotationDirection": "NONE",
        "TableTopEccentricAngle": 0.0,
        "TableTopEccentricRotationDirection": "NONE",
        "TableTopVerticalPosition": None,
        "TableTopLongitudinalPosition": None,
        "TableTopLateralPosition": None,
    }
