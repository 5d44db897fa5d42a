"""What a DICOM object says of itself and which others it names: the edges of a plan set (PS3.3 C.8.8, C.12, C.20.2).

Read from the head of a file, or from an answer of a C-FIND, which can carry ``ReferencedRTPlanSequence``
(varian-daemon 1.3). Nothing is concluded here, and no pixel is read: who belongs to whom is the business of
:mod:`.plan_set_rules`. UIDs are taken as they stand, with leading zeros too (varian-daemon 1.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from airflow_provider_varian.aria.plan_set import Names
from airflow_provider_varian.query.values import read, vr_of

PLAN: Final = "ReferencedRTPlanSequence"
STRUCTURE_SET: Final = "ReferencedStructureSetSequence"
DOSE: Final = "ReferencedDoseSequence"
REFERENCE_IMAGE: Final = "ReferencedReferenceImageSequence"
CONTOUR_IMAGE: Final = "ContourImageSequence"
#: Where a CBCT names the plan that it was made for (varian-daemon 1.5).
INSTANCE: Final = "ReferencedInstanceSequence"
VERIFIED_PLAN: Final = "VERIFIED_PLAN"

#: What stands for no stored object: patients, visits, procedure steps, retired study management (PS3.3 C.7.2, C.7.3).
_NO_OBJECTS: Final = frozenset(
    {
        "ReferencedPatientSequence",
        "ReferencedPerformedProcedureStepSequence",
        "ReferencedStudySequence",
        "ReferencedVisitSequence",
    }
)
#: Items that carry a Frame of Reference beside the object's own.
_FRAME_SEQUENCES: Final = ("ReferencedFrameOfReferenceSequence", "RegistrationSequence")
#: Items of a record that name a beam of its plan.
_SESSION_BEAMS: Final = ("TreatmentSessionBeamSequence", "TreatmentSessionIonBeamSequence")

#: A data set or the mapping that an answer is read into; an item of one of their sequences.
Item = Dataset | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A place in an object that names another one.

    :param uid: of what is named.
    :param path: keywords of the sequences around it, outermost first.
    :param names: an instance; or a series or study, when nothing more is said of it.
    :param sop_class_uid: ReferencedSOPClassUID; empty where none is said.
    :param series_uid: Series Instance UID of the nearest item around it that has one; empty when none has.
    :param beam: Beam Number or Referenced Beam Number of the nearest item around it.
    :param relationship: RT Plan Relationship (300A,0055), of a plan that names a plan.
    """

    uid: str
    path: tuple[str, ...]
    names: Names = "instance"
    sop_class_uid: str = ""
    series_uid: str = ""
    beam: int | None = None
    relationship: str = ""

    @property
    def through(self) -> str:
        """Keyword of the sequence that it lies in."""
        return self.path[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """An object with what it names. Texts are empty where it does not say.

    :param sop_instance_uid: names it.
    :param sop_class_uid: its class.
    :param modality: (0008,0060).
    :param study_instance_uid: its study.
    :param series_instance_uid: its series.
    :param frames: Frames of Reference: its own, those of a structure set's items, those that a registration joins.
    :param image_type: (0008,0008), whole.
    :param summation: Dose Summation Type (3004,000A).
    :param beams: by plan the beams that a dose, RT Image or record says it is of.
    :param links: the references, each once.
    """

    sop_instance_uid: str
    sop_class_uid: str = ""
    modality: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    frames: frozenset[str] = frozenset()
    image_type: tuple[str, ...] = ()
    summation: str = ""
    beams: frozenset[tuple[str, int]] = frozenset()
    links: frozenset[Reference] = field(default=frozenset(), repr=False)

    def named(self, *path: str) -> frozenset[str]:
        """Return the UIDs that are named at exactly this path."""
        return frozenset(link.uid for link in self.links if link.path == path)

    @property
    def plans(self) -> frozenset[str]:
        """Plans that it names as its own: that a record, dose or image is of."""
        return self.named(PLAN)

    @property
    def verifies(self) -> frozenset[str]:
        """Plans that this plan verifies."""
        return frozenset(link.uid for link in self.links if link.path == (PLAN,) and link.relationship == VERIFIED_PLAN)

    @property
    def is_drr(self) -> bool:
        """Is it a DRR, by Value 3 of its Image Type (PS3.3 C.8.8.2.1)?"""
        return self.image_type[2:3] == ("DRR",)


def references_of(item: Item) -> References:
    """Return what an object, or an answer that describes it, says.

    :param item: the data set, pixels or not; or a mapping by keyword as
        :func:`~airflow_provider_varian.query.answers.to_answer` makes it.
    """
    return References(
        sop_instance_uid=_text(item, "SOPInstanceUID"),
        sop_class_uid=_text(item, "SOPClassUID"),
        modality=_text(item, "Modality"),
        study_instance_uid=_text(item, "StudyInstanceUID"),
        series_instance_uid=_text(item, "SeriesInstanceUID"),
        frames=frozenset(_frames(item)),
        image_type=_values(item, "ImageType"),
        summation=_text(item, "DoseSummationType"),
        beams=frozenset(_beams(item)),
        links=frozenset(_links(item, (), "", None)),
    )


def _frames(item: Item) -> Iterator[str]:
    inner = (each for keyword in _FRAME_SEQUENCES for each in _items(item, keyword))
    return (uid for each in (item, *inner) if (uid := _text(each, "FrameOfReferenceUID")))


def _beams(item: Item) -> Iterator[tuple[str, int]]:
    """Yield plan and beam where a dose, image or record says of which it is (PS3.3 C.8.8.3, C.8.8.2, C.8.8.21)."""
    if _text(item, "Modality") == "RTPLAN":
        return
    own = [item, *(each for keyword in _SESSION_BEAMS for each in _items(item, keyword))]
    for plan in _items(item, PLAN):
        groups = _items(plan, "ReferencedFractionGroupSequence")
        places = [*own, *(each for group in groups for each in _items(group, "ReferencedBeamSequence"))]
        for number in (_number(place, "ReferencedBeamNumber") for place in places):
            if number is not None:
                yield _text(plan, "ReferencedSOPInstanceUID"), number


def _links(item: Item, path: tuple[str, ...], series: str, beam: int | None) -> Iterator[Reference]:
    for keyword, items in _sequences(item):
        if keyword in _NO_OBJECTS:
            continue
        here = (*path, keyword)
        for each in items:
            number = _number(each, "BeamNumber")
            number = _number(each, "ReferencedBeamNumber") if number is None else number
            number = beam if number is None else number
            own_series = _text(each, "SeriesInstanceUID")
            inside = list(_links(each, here, own_series or series, number))
            yield from inside
            uid = _text(each, "ReferencedSOPInstanceUID")
            if keyword == "RTReferencedStudySequence":
                # PS3.3 C.8.8.5: the UID of a study stands where an instance's would.
                if uid and not inside:
                    yield Reference(uid=uid, path=here, names="study")
            elif uid:
                yield Reference(
                    uid=uid,
                    path=here,
                    sop_class_uid=_text(each, "ReferencedSOPClassUID"),
                    series_uid=own_series or series,
                    beam=number,
                    relationship=_text(each, "RTPlanRelationship"),
                )
            elif own_series and not inside:
                yield Reference(uid=own_series, path=here, names="series", series_uid=own_series)


def _sequences(item: Item) -> Iterator[tuple[str, Sequence[Item]]]:
    """Yield the sequences; contours have thousands of numbers, which stay the bytes that they are."""
    if isinstance(item, Dataset):
        for tag in item.keys():  # noqa: SIM118 - iterating over a data set would convert each element
            if vr_of(item, tag) == "SQ":
                keyword = keyword_for_tag(tag)
                yield keyword or f"{int(tag):08X}", _items(item, tag)
        return
    for keyword, value in item.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield keyword, value


def _items(item: Item, what: str | int) -> list[Item]:
    if isinstance(item, Dataset):
        tag = tag_for_keyword(what) if isinstance(what, str) else what
        return [each for each in read(item, tag or 0) or () if isinstance(each, Dataset)]
    value = item.get(str(what))
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _values(item: Item, keyword: str) -> tuple[str, ...]:
    if isinstance(item, Dataset):
        found: Sequence[Any] = read(item, tag_for_keyword(keyword) or 0) or ()
    else:
        value = item.get(keyword)
        found = value if isinstance(value, list) else () if value is None else (value,)
    texts = tuple(str(each).strip() for each in found if not isinstance(each, (Dataset, Mapping)))
    return texts if any(texts) else ()


def _text(item: Item, keyword: str) -> str:
    return next(iter(_values(item, keyword)), "")


def _number(item: Item, keyword: str) -> int | None:
    try:
        return int(_text(item, keyword))
    except ValueError:
        return None
