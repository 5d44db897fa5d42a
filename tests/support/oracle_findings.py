"""What :mod:`support.oracle` answers. Sets hold SOP Instance UIDs unless they say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path

from support.oracle_files import Names

_Uids = frozenset[str]
_NONE: _Uids = frozenset()


class Kind(StrEnum):
    """What an RT Image is, by its whole ImageType (varian-daemon 1.6); a DRR by Value 3 (PS3.3 C.8.8.2.1)."""

    PORTAL = "portal image"
    ACQUIRED_DOSE = "acquired portal dose"
    PREDICTED_DOSE = "predicted portal dose"
    DRR = "DRR"
    OTHER = "other"


class Beam(StrEnum):
    """What made an RT Image, by PrimaryDosimeterUnit (varian-daemon 1.6)."""

    MV = "MV"
    KV = "kV"
    UNKNOWN = "unknown"


class Why(StrEnum):
    """Why it cannot be said to which plan an object belongs."""

    COPIES_DIFFER = "copies of it say different things"
    SEVERAL_PLANS = "it names several plans where one is allowed"
    FRAME_OF_SEVERAL_PLANS = "a registration joins it to a frame of reference of several plans, and it names none"
    CONTRADICTION = "it names another plan than the one that names it"
    NO_BEAM = "it is the dose of a beam and does not say of which"


@dataclass(frozen=True, slots=True, kw_only=True)
class RTImage:
    """An RT Image that is no DRR."""

    uid: str
    kind: Kind
    beam: Beam


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningSeries:
    """A series of images that a structure set was drawn on.

    :param named: slices that the structure set names; all that are held when it names the series and no slice.
    :param held: the named ones that are there.
    :param missing: the named ones that are not.
    :param unnamed: slices of the series that are there and that the structure set does not name.
    :param other_frame: named and held, in a Frame of Reference that is none of the structure set's.
    """

    uid: str
    named: _Uids
    held: _Uids
    missing: _Uids
    unnamed: _Uids
    other_frame: _Uids


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSet:
    """A plan that is there and the objects that are there and belong to it.

    :param plan: its SOP Instance UID.
    :param images: planning images, by Series Instance UID.
    :param plan_doses: of DoseSummationType PLAN.
    :param beam_doses: of DoseSummationType BEAM, by beam number.
    :param other_doses: of any other, e.g. MULTI_PLAN.
    :param registrations: that join the plan's Frame of Reference to that of one of its CBCTs or, without one, to any.
    :param cbcts: slices by Series Instance UID.
    :param rt_images: RT Images but DRRs.
    :param verifies: plans that this one verifies, held or not.
    :param verified_by: plans that verify this one; for each its portal doses, acquired and predicted.
    """

    plan: str
    structure_sets: _Uids = _NONE
    images: Mapping[str, PlanningSeries] = field(default_factory=dict)
    plan_doses: _Uids = _NONE
    beam_doses: Mapping[int, _Uids] = field(default_factory=dict)
    other_doses: _Uids = _NONE
    records: _Uids = _NONE
    registrations: _Uids = _NONE
    cbcts: Mapping[str, _Uids] = field(default_factory=dict)
    rt_images: frozenset[RTImage] = frozenset()
    drrs: _Uids = _NONE
    verifies: _Uids = _NONE
    verified_by: Mapping[str, _Uids] = field(default_factory=dict)

    def images_of(self, *kinds: Kind) -> _Uids:
        """Return the RT Images of some kinds."""
        return frozenset(each.uid for each in self.rt_images if each.kind in kinds)

    @property
    def members(self) -> _Uids:
        """The plan and all that belongs to it; verification plans are plans of their own."""
        return frozenset({self.plan}).union(
            self.structure_sets, self.plan_doses, self.other_doses, self.records, self.registrations, self.drrs,
            (each.uid for each in self.rt_images), *(each.held for each in self.images.values()),
            *self.beam_doses.values(), *self.cbcts.values(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineDay:
    """RT Images of a machine and an AcquisitionDate.

    :param mv: taken with the treatment beam.
    :param kv: taken with the imager's tube.
    :param computed: DRRs and predicted doses: they name a machine and were never taken on it.
    :param unknown: taken, and nothing says with what.
    """

    mv: _Uids = _NONE
    kv: _Uids = _NONE
    computed: _Uids = _NONE
    unknown: _Uids = _NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Dangling:
    """What is named and not there.

    :param uid: of an instance, or of a series or study of which nothing more is said.
    :param named_by: SOP Instance UIDs of the objects that name it.
    :param through: keywords of the sequences in which they do.
    """

    uid: str
    names: Names
    named_by: _Uids
    through: _Uids


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambiguous:
    """What is there, and of which it cannot be said to which plan it belongs; it is in no :class:`PlanSet`.

    :param candidates: SOP Instance UIDs of the plans.
    """

    uid: str
    why: Why
    candidates: _Uids


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownBeam:
    """A beam that an object names and that its plan has not."""

    uid: str
    plan: str
    beam: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongClass:
    """An object of another SOP class than the reference to it says."""

    uid: str
    named_by: str
    said: str
    held: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that is to be said of a folder.

    :param plans: by SOP Instance UID.
    :param of_other_plans: by SOP Instance UID of a plan that is missing or whose copies differ: what names it.
    :param machine_days: RT Images by machine and acquisition day.
    :param treatment_days: records by machine and treatment day.
    :param undated: RT Images and records that do not say one machine and a day.
    :param without_plan: RT Images that name no plan and that no plan names.
    :param unclaimed: what belongs to no plan, held or missing, and is not ambiguous; among it :attr:`without_plan`.
    :param duplicates: paths by SOP Instance UID, where several files have the same content.
    :param conflicts: paths by SOP Instance UID, where their contents differ.
    """

    plans: Mapping[str, PlanSet]
    of_other_plans: Mapping[str, _Uids]
    machine_days: Mapping[tuple[str, date], MachineDay]
    treatment_days: Mapping[tuple[str, date], _Uids]
    undated: _Uids
    without_plan: _Uids
    unclaimed: _Uids
    dangling: tuple[Dangling, ...]
    ambiguous: tuple[Ambiguous, ...]
    unknown_beams: frozenset[UnknownBeam]
    wrong_class: frozenset[WrongClass]
    duplicates: Mapping[str, tuple[Path, ...]]
    conflicts: Mapping[str, tuple[Path, ...]]
    unreadable: frozenset[Path]

    def dangling_of(self, plan: str) -> tuple[Dangling, ...]:
        """Return what a plan or something that belongs to it names, and is not there."""
        members = self.plans[plan].members
        return tuple(each for each in self.dangling if each.named_by & members)
