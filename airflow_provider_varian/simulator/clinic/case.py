"""What one clinical patient of the synthetic clinic has: courses, plans, and all that belongs to them.

Plain facts, complete with UIDs and times, and no DICOM yet: :mod:`..objects` turns them into attributes
and pixels, :mod:`..holdings.synthetic` into the tree that a daemon serves. How the parts hang together is
varian-daemon 1.5; which of its irregularities a patient has stands in :attr:`Case.irregularities`.
All times are clinic-local, without a zone, as in DICOM. Lengths are millimetres, angles degrees IEC 61217.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from airflow_provider_varian import uids


class Approval(StrEnum):
    """Approval Status (300E,0002)."""

    APPROVED = "APPROVED"
    UNAPPROVED = "UNAPPROVED"
    REJECTED = "REJECTED"


class ImageKind(StrEnum):
    """What a series of CT images is."""

    PLANNING_CT = "planning CT"
    CBCT = "CBCT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study: a course of ARIA's own, or one that a scanner made.

    :param study_id: (0020,0010): the course ID for ARIA's own, the scanner's number else.
    :param description: (0008,1030): ``ARIA RadOnc Study`` for ARIA's own.
    """

    uid: str
    study_id: str
    opened: datetime
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReference:
    """A plan as other objects name it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A region of interest of a structure set: an ellipsoid around a point of the patient.

    :param interpreted_type: (3006,00A4), e.g. ``EXTERNAL``, ``PTV``, ``ORGAN``.
    :param centre_mm: relative to the isocentre, patient axes (x left, y posterior, z head).
    :param radii_mm: half axes.
    """

    number: int
    name: str
    interpreted_type: str
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    colour: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSeries:
    """A series of CT images: the planning CT, or a CBCT of a fraction.

    :param instance_uids: one SOP Instance UID a slice, from feet to head.
    :param slice_mm: distance of the slices.
    :param machine: StationName; a linac for CBCT.
    :param plan: UID and class of the plan that a CBCT was made for (ReferencedInstanceSequence); ``None`` for CT.
    :param missing: indexes of the slices that ARIA does not hold; structure sets name them all the same.
    """

    kind: ImageKind
    study: Study
    series_uid: str
    frame_of_reference_uid: str
    instance_uids: tuple[str, ...]
    slice_mm: float
    acquired: datetime
    description: str
    machine: str
    plan: PlanReference | None = None
    missing: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptySeries:
    """A series that is listed and has no instance (varian-daemon 1.4)."""

    study: Study
    series_uid: str
    modality: str
    description: str
    made: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureSet:
    """A structure set and the series that it was drawn on."""

    study: Study
    series_uid: str
    sop_instance_uid: str
    label: str
    drawn: datetime
    approval: Approval
    images: ImageSeries
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseBeam:
    """A beam of a clinical plan, and its digitally reconstructed radiograph.

    :param drr_uid: SOP Instance UID of the DRR; empty when there is none.
    """

    number: int
    name: str
    gantry: float
    collimator: float
    couch: float
    meterset: float
    width_mm: float
    length_mm: float
    drr_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dose:
    """An RT Dose: of the whole plan, or of one beam.

    :param beam: ReferencedBeamNumber for ``DoseSummationType`` BEAM; ``None`` for PLAN.
    """

    study: Study
    series_uid: str
    sop_instance_uid: str
    computed: datetime
    beam: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An RT Beams Treatment Record: one fraction of a plan."""

    series_uid: str
    sop_instance_uid: str
    treated: datetime
    fraction: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalImage:
    r"""An RT Image of a patient: acquired on the machine, or predicted by the planning system.

    :param image_type: (0008,0008), e.g. ``ORIGINAL\PRIMARY\PORTAL\ACQUIRED_DOSE`` or
        ``DERIVED\SECONDARY\PORTAL\PREDICTED_DOSE``.
    :param beam: ReferencedBeamNumber; ``None`` when nothing says it.
    :param plan: ``None`` for images without any plan reference (varian-daemon 1.5).
    :param fraction: FractionNumber; 0 for predicted ones.
    """

    study: Study
    series_uid: str
    sop_instance_uid: str
    image_type: tuple[str, ...]
    label: str
    acquired: datetime
    beam: CaseBeam | None
    plan: PlanReference | None
    fraction: int
    machine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A spatial registration: it joins the frames of reference of a CBCT and of the planning CT.

    :param shift_mm: couch correction that was found, patient axes.
    """

    study: Study
    series_uid: str
    sop_instance_uid: str
    made: datetime
    fixed: ImageSeries
    moving: ImageSeries
    shift_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan of a course and what was made for it.

    :param study: of the plan, its DRRs, portal images and records (varian-daemon 1.5).
    :param label: RTPlanLabel; unique in its course at most.
    :param sop_class_uid: RT Plan, or Varian's private plan class for a ring machine.
    :param reviewed: ReviewDate and ReviewTime; ``None`` unless approved or rejected.
    :param intent: PlanIntent (300A,000A): ``CURATIVE``, ``PALLIATIVE``, ``VERIFICATION``.
    :param beams: empty for a plan that cannot be exported (varian-daemon 1.4).
    :param structure_set: ``None`` for plans without (e.g. verification plans on a phantom); ARIA may not hold it
        any more, and then it is not among the case's.
    :param verifies: for a verification plan, the plan that it verifies.
    :param drr_series_uid: of the DRRs, in the plan's study.
    """

    study: Study
    series_uid: str
    sop_instance_uid: str
    label: str
    planned: datetime
    approval: Approval
    reviewed: datetime | None
    intent: str
    machine: str
    energy: int
    flattened: bool
    fractions: int
    frame_of_reference_uid: str
    beams: tuple[CaseBeam, ...]
    structure_set: StructureSet | None
    drr_series_uid: str = ""
    sop_class_uid: str = uids.RT_PLAN
    verifies: PlanReference | None = None
    doses: tuple[Dose, ...] = ()
    records: tuple[Record, ...] = ()
    portal_images: tuple[PortalImage, ...] = ()
    registrations: tuple[Registration, ...] = ()

    @property
    def reference(self) -> PlanReference:
        """The plan as other objects name it."""
        return PlanReference(sop_class_uid=self.sop_class_uid, sop_instance_uid=self.sop_instance_uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A clinical patient.

    :param number: in the clinic; stands in each of the patient's UIDs.
    :param patient_id: (0010,0020).
    :param name: (0010,0010), alphabetic and, for some, ideographic group.
    :param image_series: planning CTs and CBCTs, all of them.
    :param structure_sets: all of them, also those that no plan names.
    :param plans: by course, in the order in which they were made.
    :param strays: RT Images that no plan names and that name none.
    :param irregularities: names of what is unusual about this patient; see :mod:`.irregularities`.
    :param former_name: what the objects of the scanner's studies call the patient; empty when it is the name.
    :param empty_series: series without instances.
    :param unmovable: Series Instance UIDs of series that are listed and cannot be retrieved.
    """

    number: int
    patient_id: str
    name: str
    birth_date: date
    sex: str
    image_series: tuple[ImageSeries, ...]
    structure_sets: tuple[StructureSet, ...]
    plans: tuple[Plan, ...]
    strays: tuple[PortalImage, ...] = ()
    irregularities: frozenset[str] = field(default_factory=frozenset)
    former_name: str = ""
    empty_series: tuple[EmptySeries, ...] = ()
    unmovable: frozenset[str] = field(default_factory=frozenset)
