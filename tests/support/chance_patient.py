"""Patients put together by chance, whose objects name each other in every right and wrong way: nobody tells the truth
of them but the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from support import oracle_data as data
from support.oracle_data import DRR, PORTAL, PREDICTED, named

PATIENT_ID = "by chance"
_PLANS = ("plan a", "plan b", "plan c", "plan d")
_FRAMES = ("frame 1", "frame 2", "frame 3")
_CONE_FRAMES = ("cone frame 1", "cone frame 2", "frame 1")
_DRAWN = ("drawn 1", "drawn 2", "drawn 3")
_DOSES = tuple(f"dose {number}" for number in range(6))
_IMAGES = tuple(f"image {number}" for number in range(6))
_SCANS = ("scan 1", "scan 2", "scan 3")


def objects(seed: int) -> list[dict[str, Any]]:
    """Return the objects of a patient."""
    return [{**each, "PatientID": PATIENT_ID} for each in _objects(Random(seed))]


def _some(chance: Random, names: tuple[str, ...], most: int, likely: float) -> list[str]:
    """Choose none, one or, seldom, several."""
    count = 0 if chance.random() > likely else 1 if chance.random() < 0.75 else most
    return chance.sample(names, count)


def _objects(chance: Random) -> Iterator[dict[str, Any]]:
    yield from (_plan(chance, name) for name in _PLANS[: chance.randint(1, 3)])
    yield from _drawn(chance)
    yield from _computed_and_recorded(chance)
    yield from _images(chance)
    yield from _joined(chance)


def _drawn(chance: Random) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(_DRAWN[: chance.randint(0, 3)]):
        yield _structure_set(chance, name, _SCANS[number % 2])
    for number, scan in enumerate(_SCANS[:2]):
        for index in range(4):
            if chance.random() < 0.85:
                frame = _FRAMES[number] if chance.random() < 0.95 else _FRAMES[2]
                yield data.thing("CT", f"{scan} slice {index}", series=scan, FrameOfReferenceUID=frame)


def _computed_and_recorded(chance: Random) -> Iterator[dict[str, Any]]:
    for name in _DOSES[: chance.randint(0, 6)]:
        summation = chance.choice(("PLAN", "BEAM", "BEAM", "MULTI_PLAN"))
        beams = (chance.randint(1, 3),) if chance.random() < 0.6 else ()
        yield data.dose(name, summation, *beams, owners=_some(chance, _PLANS, 2, 0.8))
    for number in range(chance.randint(0, 4)):
        yield data.thing("RTRECORD", f"record {number}", **_of_plans(chance, 0.9), TreatmentDate="20260701")


def _images(chance: Random) -> Iterator[dict[str, Any]]:
    for name in _IMAGES[: chance.randint(0, 6)]:
        kind = chance.choice((PORTAL, PORTAL, PREDICTED, DRR))
        beam = {"ReferencedBeamNumber": chance.randint(1, 3)} if chance.random() < 0.6 else {}
        yield data.thing("RTIMAGE", name, ImageType=kind, **_of_plans(chance, 0.7), **beam)


def _joined(chance: Random) -> Iterator[dict[str, Any]]:
    for number in range(chance.randint(0, 3)):
        frame = chance.choice(_CONE_FRAMES)
        for index in range(2):
            owner = chance.choice(_PLANS) if chance.random() < 0.4 else None
            yield data.cone(f"cone {number} {index}", series=f"cone {number}", frame=frame, owner=owner)
    for number in range(chance.randint(0, 3)):
        yield data.registration(f"match {number}", chance.choice(_FRAMES), chance.choice(_CONE_FRAMES))


def _of_plans(chance: Random, likely: float) -> dict[str, Any]:
    owners = _some(chance, _PLANS, 2, likely)
    return {"ReferencedRTPlanSequence": [named(owner, "RTPLAN") for owner in owners]} if owners else {}


def _plan(chance: Random, name: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    if drawn := _some(chance, _DRAWN, 2, 0.8):
        names["ReferencedStructureSetSequence"] = [named(each, "RTSTRUCT") for each in drawn]
    if doses := _some(chance, _DOSES, 2, 0.5):
        names["ReferencedDoseSequence"] = [named(each, "RTDOSE") for each in doses]
    if chance.random() < 0.3:
        names["ReferencedRTPlanSequence"] = [
            named(chance.choice(_PLANS), "RTPLAN", RTPlanRelationship=chance.choice(("VERIFIED_PLAN", "PREDECESSOR")))
        ]
    beams = []
    for number in (1, 2):
        beam: dict[str, Any] = {"BeamNumber": number}
        if shown := _some(chance, _IMAGES, 1, 0.4):
            beam["ReferencedReferenceImageSequence"] = [named(each, "RTIMAGE") for each in shown]
        beams.append(beam)
    groups = []
    if single := _some(chance, _DOSES, 2, 0.4):
        groups = [
            {
                "ReferencedBeamNumber": chance.randint(1, 2),
                "ReferencedDoseSequence": [named(each, "RTDOSE") for each in single],
            }
        ]
    names["FractionGroupSequence"] = [{"FractionGroupNumber": 1, "ReferencedBeamSequence": groups}]
    return data.plan(name, frame=chance.choice(_FRAMES), **names, BeamSequence=beams)


def _structure_set(chance: Random, name: str, scan: str) -> dict[str, Any]:
    slices = [named(f"{scan} slice {index}", "CT") for index in range(4) if chance.random() < 0.9]
    frame = _FRAMES[_SCANS.index(scan)]
    form = chance.random()
    if form < 0.2:
        # A series and no slice of it.
        slices = []
    contours = [{"ContourSequence": [{"ContourImageSequence": [each]} for each in slices]}]
    series = {"SeriesInstanceUID": scan, **({"ContourImageSequence": slices} if slices else {})}
    study = {"ReferencedSOPInstanceUID": "study", "RTReferencedSeriesSequence": [series]}
    inner = {"RTReferencedStudySequence": [study]} if form < 0.8 else {}
    return data.thing(
        "RTSTRUCT",
        name,
        ReferencedFrameOfReferenceSequence=[{"FrameOfReferenceUID": frame, **inner}],
        ROIContourSequence=contours,
    )
