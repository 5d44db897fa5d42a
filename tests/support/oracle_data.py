"""A small patient made by hand, of whom it is known what belongs together: for the tests of :mod:`support.oracle`.

Names stand for UIDs: :func:`uid_of` makes one of each. What the objects say beside their references is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydicom
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence

CLASSES = {
    "RTPLAN": "1.2.840.10008.5.1.4.1.1.481.5",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "RTDOSE": "1.2.840.10008.5.1.4.1.1.481.2",
    "RTRECORD": "1.2.840.10008.5.1.4.1.1.481.4",
    "RTIMAGE": "1.2.840.10008.5.1.4.1.1.481.1",
    "REG": "1.2.840.10008.5.1.4.1.1.66.1",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
}
PORTAL = ["ORIGINAL", "PRIMARY", "PORTAL"]
ACQUIRED = [*PORTAL, "ACQUIRED_DOSE"]
PREDICTED = ["DERIVED", "SECONDARY", "PORTAL", "PREDICTED_DOSE"]
DRR = ["DERIVED", "SECONDARY", "DRR"]
SLICES = ("slice 1", "slice 2", "slice 3")
CONED = ("cone 1", "cone 2")

_NUMBERS: dict[str, int] = {}


def uid_of(name: str) -> str:
    """Return the UID that a name stands for; UIDs stand for themselves."""
    return name if name[:2] in {"1.", "2."} else f"2.25.{_NUMBERS.setdefault(name, len(_NUMBERS) + 1)}"


def uids_of(*names: str) -> frozenset[str]:
    """Return the UIDs that names stand for."""
    return frozenset(uid_of(name) for name in names)


def data_set(values: Mapping[str, Any]) -> Dataset:
    """Build a data set: mappings become items, names of objects UIDs."""
    made = Dataset()
    for keyword, value in values.items():
        tag, vr = tag_for_keyword(keyword), dictionary_VR(keyword)
        assert tag is not None, keyword
        if vr == "SQ":
            value = Sequence([data_set(item) for item in value])
        elif vr == "UI":
            value = uid_of(value)
        elif vr == "OB or OW":
            vr = "OW"
        made.add(DataElement(tag, vr, value, validation_mode=IGNORE if vr == "UI" else None))
    return made


def named(name: str, modality: str, **more: Any) -> dict[str, Any]:
    """Return an item that names an object."""
    return {"ReferencedSOPClassUID": CLASSES[modality], "ReferencedSOPInstanceUID": name, **more}


def thing(modality: str, name: str, *, series: str = "", **more: Any) -> dict[str, Any]:
    """Return the attributes of an object, in a series of its own unless told otherwise."""
    return {
        "SOPClassUID": CLASSES[modality],
        "SOPInstanceUID": name,
        "Modality": modality,
        "StudyInstanceUID": "study",
        "SeriesInstanceUID": series or f"series of {name}",
        **more,
    }


def plan(name: str, *, frame: str = "frame", beams: Iterable[int] = (1, 2), **more: Any) -> dict[str, Any]:
    return thing(
        "RTPLAN",
        name,
        FrameOfReferenceUID=frame,
        **{"BeamSequence": [{"BeamNumber": beam, "BeamName": f"beam {beam}"} for beam in beams], **more},
    )


def structure_set(name: str) -> dict[str, Any]:
    slices = [named(each, "CT") for each in SLICES]
    series = {"SeriesInstanceUID": "scan", "ContourImageSequence": slices}
    study = {"ReferencedSOPInstanceUID": "study", "RTReferencedSeriesSequence": [series]}
    frame = {"FrameOfReferenceUID": "frame", "RTReferencedStudySequence": [study]}
    return thing("RTSTRUCT", name, ReferencedFrameOfReferenceSequence=[frame])


def of_plan(modality: str, name: str, owner: str = "plan", **more: Any) -> dict[str, Any]:
    return thing(modality, name, ReferencedRTPlanSequence=[named(owner, "RTPLAN")], **more)


def dose(name: str, summation: str = "PLAN", *beams: int, owners: Iterable[str] = ("plan",)) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    if beams:
        items = [{"ReferencedBeamNumber": beam} for beam in beams]
        groups = {"ReferencedFractionGroupSequence": [{"ReferencedBeamSequence": items}]}
    plans = [named(owner, "RTPLAN", **groups) for owner in owners]
    return thing("RTDOSE", name, DoseSummationType=summation, ReferencedRTPlanSequence=plans)


def image(name: str, kind: list[str], owner: str | None = "plan", unit: str = "MU", **more: Any) -> dict[str, Any]:
    owned = {"ReferencedRTPlanSequence": [named(owner, "RTPLAN")]} if owner else {}
    said = {"ImageType": kind, "RadiationMachineName": "Linac1", "AcquisitionDate": "20260701"}
    return thing("RTIMAGE", name, **{**said, "PrimaryDosimeterUnit": unit, **owned, **more})


def record(name: str, day: str = "20260701", *machines: str) -> dict[str, Any]:
    where = [{"TreatmentMachineName": machine} for machine in machines or ("Linac1",)]
    beams = [{"ReferencedBeamNumber": 1}, {"ReferencedBeamNumber": 2}]
    return of_plan(
        "RTRECORD", name, TreatmentDate=day, TreatmentMachineSequence=where, TreatmentSessionBeamSequence=beams
    )


def cone(name: str, *, series: str = "cone", frame: str = "cone frame", owner: str | None = "plan") -> dict[str, Any]:
    owned = {"ReferencedInstanceSequence": [named(owner, "RTPLAN")]} if owner else {}
    return thing("CT", name, series=series, FrameOfReferenceUID=frame, **owned)


def registration(name: str, fixed: str = "frame", moving: str = "cone frame") -> dict[str, Any]:
    return thing(
        "REG",
        name,
        FrameOfReferenceUID=fixed,
        RegistrationSequence=[
            {"FrameOfReferenceUID": fixed, "ReferencedImageSequence": [named(each, "CT") for each in SLICES]},
            {"FrameOfReferenceUID": moving, "ReferencedImageSequence": [named(each, "CT") for each in CONED]},
        ],
    )


def patient() -> dict[str, dict[str, Any]]:
    """Return the objects of the patient, by name.

    ``plan`` has everything; ``other plan`` has the same structure set and nothing else; ``check`` verifies ``plan``;
    ``drawn later`` and ``stray`` belong to nobody.
    """
    beams = [
        {"BeamNumber": 1, "ReferencedReferenceImageSequence": [named("shown", "RTIMAGE")]},
        {"BeamNumber": 2},
    ]
    drawn = {"ReferencedStructureSetSequence": [named("drawn", "RTSTRUCT")]}
    verified = {"ReferencedRTPlanSequence": [named("plan", "RTPLAN", RTPlanRelationship="VERIFIED_PLAN")]}
    whole = {"ReferencedDoseSequence": [named("whole dose", "RTDOSE")]}
    objects = [
        plan("plan", **drawn, **whole, BeamSequence=beams),
        plan("other plan", **drawn),
        plan("check", frame="phantom", **verified),
        structure_set("drawn"),
        structure_set("drawn later"),
        *(thing("CT", each, series="scan", FrameOfReferenceUID="frame") for each in SLICES),
        dose("whole dose"),
        dose("dose of 1", "BEAM", 1),
        dose("dose of 2", "BEAM", 2),
        record("first fraction"),
        record("second fraction", "20260702"),
        *(cone(each) for each in CONED),
        registration("match"),
        image("shown", DRR, None, ReferencedBeamNumber=1),
        image("also shown", DRR, ReferencedBeamNumber=2),
        image("field 1", PORTAL, ReferencedBeamNumber=1),
        image("setup", PORTAL, unit="MINUTE"),
        image("measured", ACQUIRED, "check", ReferencedBeamNumber=1),
        image("predicted", PREDICTED, "check", ReferencedBeamNumber=1),
        image("stray", PORTAL, None),
    ]
    return {each["SOPInstanceUID"]: each for each in objects}


def save(made: Dataset, path: Path) -> None:
    """Write a file in implicit VR little endian and ISO_IR 192, as ARIA sends it, whatever its UIDs look like."""
    made.SpecificCharacterSet = "ISO_IR 192"
    meta = FileMetaDataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        tag = tag_for_keyword(f"MediaStorage{keyword}")
        assert tag is not None
        meta.add(DataElement(tag, "UI", made[keyword].value, validation_mode=IGNORE))
    meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    made.file_meta = meta
    settings = pydicom.config.settings
    before, settings.reading_validation_mode = settings.reading_validation_mode, IGNORE
    try:
        # It copies the head, which counts as reading.
        dcmwrite(path, made, enforce_file_format=True)
    finally:
        settings.reading_validation_mode = before


def save_all(objects: Iterable[Mapping[str, Any]], folder: Path) -> Path:
    """Write objects to a folder, a numbered file each."""
    for number, values in enumerate(objects):
        save(data_set(values), folder / f"{number:03d}.dcm")
    return folder
