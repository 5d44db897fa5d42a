"""What DICOM files say of themselves and of each other: the reading half of :mod:`support.oracle`.

Nothing but pydicom is behind it, and nothing is concluded here: each file becomes a :class:`Held`, each place in it
that names another object, at any depth, a :class:`Reference`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

#: Sequences that name what no file holds: retired management classes, visits, procedure steps (PS3.3 C.7.2, C.7.3).
_MANAGEMENT = frozenset(
    {
        "ReferencedPatientSequence",
        "ReferencedPerformedProcedureStepSequence",
        "ReferencedStudySequence",
        "ReferencedVisitSequence",
    }
)
#: What ARIA rewrites at each export (semantics 8): two exports that differ in these alone are one content.
_VOLATILE = ("InstanceCreationDate", "InstanceCreationTime")


class Names(StrEnum):
    """What a reference names: one object, or a series or study of which it says no more."""

    INSTANCE = "instance"
    SERIES = "series"
    STUDY = "study"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A place in an object that names another.

    :param path: keywords of the sequences that it lies in, outermost first.
    :param uid: of what is named.
    :param sop_class_uid: ReferencedSOPClassUID; empty for a series.
    :param series_uid: of the item around it, where one says the series; else empty.
    :param beam: BeamNumber or ReferencedBeamNumber of the nearest item around it.
    :param relationship: RTPlanRelationship (300A,0055) of a plan that names a plan.
    """

    path: tuple[str, ...]
    uid: str
    names: Names = Names.INSTANCE
    sop_class_uid: str = ""
    series_uid: str = ""
    beam: int | None = None
    relationship: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An object that is there. Texts are empty and days ``None`` where the object does not say.

    :param frame_uids: Frames of Reference: its own, those of a structure set's items, those that a registration joins.
    :param image_type: (0008,0008), whole.
    :param machines: RadiationMachineName of an RT Image, names in the TreatmentMachineSequence of a record.
    :param day: AcquisitionDate of an image, TreatmentDate of a record.
    :param dosimeter_unit: PrimaryDosimeterUnit (300A,00B3).
    :param summation: DoseSummationType (3004,000A).
    :param beams: of a plan, its BeamNumbers.
    :param named_beams: plan and beam that a dose, RT Image or record names.
    :param references: each once.
    """

    uid: str
    sop_class_uid: str
    modality: str
    study_uid: str
    series_uid: str
    frame_uids: frozenset[str]
    image_type: tuple[str, ...]
    machines: frozenset[str]
    day: date | None
    dosimeter_unit: str
    summation: str
    beams: frozenset[int]
    named_beams: frozenset[tuple[str, int]]
    references: frozenset[Reference]

    def named(self, *path: str) -> frozenset[str]:
        """Return the UIDs of the objects that are named under exactly this path."""
        return frozenset(each.uid for each in self.references if each.path == path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A folder of DICOM files.

    :param objects: by SOP Instance UID; of :attr:`disputed` ones the copy whose path comes first.
    :param duplicates: paths of files of one SOP Instance UID and one content.
    :param conflicts: paths of files of one SOP Instance UID whose contents differ.
    :param disputed: the conflicts whose copies differ in what a :class:`Held` says.
    :param unreadable: files that are no DICOM objects.
    """

    objects: Mapping[str, Held]
    duplicates: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    conflicts: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    disputed: frozenset[str] = frozenset()
    unreadable: frozenset[Path] = frozenset()


def read_files(folder: Path) -> Files:
    """Read all files below a folder; pixels only where two files have the same SOP Instance UID."""
    objects: dict[str, Held] = {}
    paths: dict[str, list[Path]] = {}
    unreadable: set[Path] = set()
    disputed: set[str] = set()
    with _lenient():
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            read = _read(path)
            if read is None:
                unreadable.add(path)
                continue
            found = _held(read)
            if objects.setdefault(found.uid, found) != found:
                disputed.add(found.uid)
            paths.setdefault(found.uid, []).append(path)
        several = {uid: tuple(each) for uid, each in paths.items() if len(each) > 1}
        conflicts = {uid: each for uid, each in several.items() if not _same_content(each)}
    return Files(
        objects=objects,
        duplicates={uid: each for uid, each in several.items() if uid not in conflicts},
        conflicts=conflicts,
        disputed=frozenset(disputed),
        unreadable=frozenset(unreadable),
    )


@contextmanager
def _lenient() -> Iterator[None]:
    """Take UIDs as they are: a component with a leading zero is in the field (varian-daemon 1.5)."""
    settings = pydicom.config.settings
    before = settings.reading_validation_mode
    settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        yield
    finally:
        settings.reading_validation_mode = before


def _read(path: Path, whole: bool = False) -> Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=not whole)
    except InvalidDicomError:
        pass
    # A data set without a head is an object too, when it has a name.
    try:
        read = pydicom.dcmread(path, stop_before_pixels=not whole, force=True)
        return read if read.get("SOPInstanceUID") else None
    except Exception:
        return None


def _same_content(paths: tuple[Path, ...]) -> bool:
    first, *others = (_content(path) for path in paths)
    return all(each == first for each in others)


def _content(path: Path) -> Dataset:
    read = _read(path, whole=True)
    assert read is not None
    for element in [each for each in read if each.tag.element == 0]:
        del read[element.tag]
    for keyword in _VOLATILE:
        if keyword in read:
            delattr(read, keyword)
    return read


def _held(ds: Dataset) -> Held:
    modality = _text(ds, "Modality")
    return Held(
        uid=_text(ds, "SOPInstanceUID"),
        sop_class_uid=_text(ds, "SOPClassUID"),
        modality=modality,
        study_uid=_text(ds, "StudyInstanceUID"),
        series_uid=_text(ds, "SeriesInstanceUID"),
        frame_uids=frozenset(_frames(ds)),
        image_type=tuple(str(value).strip() for value in _values(ds, "ImageType")),
        machines=frozenset(_machines(ds)),
        day=_day(ds, "TreatmentDate" if modality == "RTRECORD" else "AcquisitionDate"),
        dosimeter_unit=_text(ds, "PrimaryDosimeterUnit"),
        summation=_text(ds, "DoseSummationType"),
        beams=frozenset(
            int(beam.BeamNumber)
            for keyword in ("BeamSequence", "IonBeamSequence")
            for beam in _items(ds, keyword)
            if beam.get("BeamNumber") is not None
        ),
        named_beams=frozenset(_named_beams(ds)),
        references=frozenset(_references(ds, Reference(path=(), uid=""))),
    )


def _frames(ds: Dataset) -> Iterator[str]:
    items = (*_items(ds, "ReferencedFrameOfReferenceSequence"), *_items(ds, "RegistrationSequence"))
    return (uid for each in (ds, *items) if (uid := _text(each, "FrameOfReferenceUID")))


def _machines(ds: Dataset) -> Iterator[str]:
    names = (_text(ds, "RadiationMachineName"),)
    treated = (_text(item, "TreatmentMachineName") for item in _items(ds, "TreatmentMachineSequence"))
    return (name for name in (*names, *treated) if name)


def _named_beams(ds: Dataset) -> Iterator[tuple[str, int]]:
    if _text(ds, "Modality") == "RTPLAN":
        return
    for plan in _items(ds, "ReferencedRTPlanSequence"):
        carriers = [ds, *_items(ds, "TreatmentSessionBeamSequence"), *_items(ds, "TreatmentSessionIonBeamSequence")]
        for group in _items(plan, "ReferencedFractionGroupSequence"):
            carriers += _items(group, "ReferencedBeamSequence")
        for carrier in carriers:
            if carrier.get("ReferencedBeamNumber") is not None:
                yield _text(plan, "ReferencedSOPInstanceUID"), int(carrier.ReferencedBeamNumber)


def _references(ds: Dataset, around: Reference) -> Iterator[Reference]:
    """Yield all references below an item.

    :param around: where the item lies, and what the items around it say.
    """
    for element in _sequences(ds):
        if element.keyword in _MANAGEMENT:
            continue
        for item in element.value:
            here = _said(item, replace(around, path=(*around.path, element.keyword)))
            inside = list(_references(item, here))
            yield from inside
            if found := _named(item, here, more=bool(inside)):
                yield found


def _said(item: Dataset, around: Reference) -> Reference:
    beam = item.get("BeamNumber", item.get("ReferencedBeamNumber"))
    return replace(
        around,
        beam=around.beam if beam is None else int(beam),
        series_uid=_text(item, "SeriesInstanceUID") or around.series_uid,
    )


def _named(item: Dataset, here: Reference, *, more: bool) -> Reference | None:
    """Return what an item names itself; a series or study only when nothing inside says more."""
    uid, series = _text(item, "ReferencedSOPInstanceUID"), _text(item, "SeriesInstanceUID")
    if here.path[-1] == "RTReferencedStudySequence":
        # PS3.3 C.8.8.5: the UID of the study stands in the place of an instance's.
        return None if more or not uid else replace(here, uid=uid, names=Names.STUDY)
    if uid:
        relationship, sop_class = _text(item, "RTPlanRelationship"), _text(item, "ReferencedSOPClassUID")
        return replace(here, uid=uid, sop_class_uid=sop_class, relationship=relationship)
    return replace(here, uid=series, names=Names.SERIES) if series and not more else None


def _sequences(ds: Dataset) -> Iterator[DataElement]:
    """Yield the sequences, and leave all other elements unconverted: contours have thousands of numbers."""
    tags = ds.keys()
    for tag in tags:
        vr = ds.get_item(tag).VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "")
        if vr == "SQ":
            yield ds[tag]


def _text(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    return "" if value is None else str(value).strip()


def _values(ds: Dataset, keyword: str) -> list[Any]:
    value = ds.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    return list(ds.get(keyword) or ())


def _day(ds: Dataset, keyword: str) -> date | None:
    try:
        return datetime.strptime(_text(ds, keyword), "%Y%m%d").date()
    except ValueError:
        return None
