"""What objects say of the machine and the imager that they were made on (varian-daemon 1.6)."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_varian.simulator.clinic.linacs import LINACS

_LINACS: Final = {linac.name: linac for linac in LINACS}


def model_of(machine: str) -> str:
    """Return the model of a linac; TrueBeam for one that the clinic does not know."""
    return _LINACS[machine].model if machine in _LINACS else "TrueBeam"


def imager(machine: str) -> dict[str, Any]:
    """Return the equipment of images that a linac's imager made.

    :param machine: name of the linac; one that the clinic does not know has no serial number, as some CBCTs.
    """
    serial = {"DeviceSerialNumber": _LINACS[machine].serial} if machine in _LINACS else {}
    return {
        "Manufacturer": "Varian Medical Systems",
        "ManufacturerModelName": "On-Board Imager",
        **serial,
        "SoftwareVersions": "1.6.20.0",
        "StationName": machine,
        "OperatorsName": "DICOM Service",
    }
