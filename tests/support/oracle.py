"""An oracle for tests: from a folder of DICOM files, what belongs to which plan, machine and day (semantics 32).

It goes by references inside the objects alone (varian-daemon 1.5, and 3, "How plan sets are put together"); study,
label, time and place of a file say nothing. Nothing of the package or of the simulator is imported, so it can be
held against both. An object that could belong to more than one plan is called ambiguous and given to none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from support.oracle_defects import dangling, unknown_beams, wrong_class
from support.oracle_files import Files, Held, Names, read_files
from support.oracle_findings import (
    Ambiguous,
    Beam,
    Findings,
    Kind,
    MachineDay,
    PlanningSeries,
    PlanSet,
    RTImage,
    Why,
)

_Uids = frozenset[str]
_NOBODY: _Uids = frozenset()
_Key = TypeVar("_Key")

#: Whole tuples: ``ORIGINAL\PRIMARY\PORTAL`` is no ``ORIGINAL\PRIMARY\PORTAL\ACQUIRED_DOSE`` (semantics 12).
_KINDS: Mapping[tuple[str, ...], Kind] = MappingProxyType(
    {
        ("ORIGINAL", "PRIMARY", "PORTAL"): Kind.PORTAL,
        ("ORIGINAL", "PRIMARY", "PORTAL", "ACQUIRED_DOSE"): Kind.ACQUIRED_DOSE,
        ("DERIVED", "SECONDARY", "PORTAL", "PREDICTED_DOSE"): Kind.PREDICTED_DOSE,
    }
)
_COMPUTED = (Kind.DRR, Kind.PREDICTED_DOSE)
_PORTAL_DOSES = (Kind.ACQUIRED_DOSE, Kind.PREDICTED_DOSE)
#: RT Plan, RT Ion Plan, Varian's Halcyon RT Plan: tells a plan by a reference when the plan itself is not there.
_PLAN_CLASSES = frozenset(
    {"1.2.840.10008.5.1.4.1.1.481.5", "1.2.840.10008.5.1.4.1.1.481.8", "1.2.246.352.70.1.70"}
)  # fmt: skip
_PLAN = "ReferencedRTPlanSequence"
_DOSE = "ReferencedDoseSequence"
_REFERENCE_IMAGE = "ReferencedReferenceImageSequence"


def judge(folder: Path) -> Findings:
    """Read all files below a folder and say what belongs together, and what is missing or unclear."""
    return judge_files(read_files(folder))


def judge_files(files: Files) -> Findings:
    """Say it of files that are read already."""
    return _Judge(files).findings()


def kind_of(image: Held) -> Kind:
    """Return what an RT Image is."""
    if image.image_type[2:3] == ("DRR",):
        return Kind.DRR
    return _KINDS.get(image.image_type, Kind.OTHER)


def beam_of(image: Held) -> Beam:
    """Return what an RT Image was made with."""
    return {"MU": Beam.MV, "MINUTE": Beam.KV}.get(image.dosimeter_unit, Beam.UNKNOWN)


class _Judge:
    """Goes through the objects class by class and writes down to which plans each belongs.

    :ivar owners: plans, held or missing, by what belongs to them.
    :ivar ambiguous: why something belongs to none.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        self.objects = files.objects
        self.owners: dict[str, set[str]] = defaultdict(set)
        self.ambiguous: dict[str, Ambiguous] = {}

    def findings(self) -> Findings:
        """Apply all rules."""
        self._judge_all()
        sets = {uid: self._plan_set(plan) for uid, plan in self.plans.items()}
        others: dict[str, set[str]] = defaultdict(set)
        for uid, owners in self.owners.items():
            for owner in owners - self.plans.keys():
                others[owner].add(uid)
        claimed = _NOBODY.union(self.ambiguous, *others.values(), *(each.members for each in sets.values()))
        dated = [(each, _moment(each)) for modality in ("RTIMAGE", "RTRECORD") for each in self._all(modality)]
        return Findings(
            plans=sets,
            of_other_plans={uid: frozenset(each) for uid, each in others.items()},
            machine_days=_machine_days((each, when) for each, when in dated if each.modality == "RTIMAGE"),
            treatment_days=_days((each, when) for each, when in dated if each.modality == "RTRECORD"),
            undated=frozenset(each.uid for each, when in dated if when is None),
            without_plan=frozenset(
                each.uid for each in self._all("RTIMAGE") if not self._named_plans(each) | self._plans_that_show(each)
            ),
            unclaimed=frozenset(self.objects) - claimed,
            dangling=dangling(self.objects),
            ambiguous=tuple(self.ambiguous[uid] for uid in sorted(self.ambiguous)),
            unknown_beams=unknown_beams(self.objects, self.plans),
            wrong_class=wrong_class(self.objects),
            duplicates=self.files.duplicates,
            conflicts=self.files.conflicts,
            unreadable=self.files.unreadable,
        )

    # What is there ------------------------------------------------------------------------------

    def _all(self, modality: str) -> list[Held]:
        return self._by_modality.get(modality, [])

    @cached_property
    def _by_modality(self) -> dict[str, list[Held]]:
        found: dict[str, list[Held]] = defaultdict(list)
        for each in self.objects.values():
            if each.uid not in self.files.disputed:
                found[each.modality].append(each)
        return dict(found)

    @cached_property
    def plans(self) -> dict[str, Held]:
        return {each.uid: each for each in self._all("RTPLAN")}

    @cached_property
    def _by_series(self) -> dict[str, list[Held]]:
        found: dict[str, list[Held]] = defaultdict(list)
        for each in self.objects.values():
            found[each.series_uid].append(each)
        return dict(found)

    @cached_property
    def _ct_series(self) -> dict[str, list[Held]]:
        found: dict[str, list[Held]] = defaultdict(list)
        for each in self._all("CT"):
            found[each.series_uid].append(each)
        return dict(found)

    @cached_property
    def _drawn_on(self) -> _Uids:
        """Series that some structure set was drawn on."""
        return frozenset(uid for each in self._all("RTSTRUCT") for uid in self._series_named(each))

    @cached_property
    def _frames(self) -> dict[str, _Uids]:
        """Frames of Reference of each plan: its own and those of its structure sets."""
        return {
            uid: plan.frame_uids.union(*(self.objects[each].frame_uids for each in self._structure_sets(plan)))
            for uid, plan in self.plans.items()
        }

    # What names what ----------------------------------------------------------------------------

    def _structure_sets(self, plan: Held) -> _Uids:
        held = {each.uid for each in self._all("RTSTRUCT")}
        return plan.named("ReferencedStructureSetSequence") & held

    def _named_plans(self, held: Held) -> _Uids:
        if held.modality == "CT":
            return frozenset(
                each.uid
                for each in held.references
                if each.path == ("ReferencedInstanceSequence",)
                and (each.uid in self.plans or each.sop_class_uid in _PLAN_CLASSES)
            )
        return held.named(_PLAN)

    def _plans_that_name(self, uid: str, through: str = "") -> _Uids:
        return frozenset(plan for plan, sequence in self._naming.get(uid, ()) if through in {"", sequence})

    @cached_property
    def _naming(self) -> dict[str, set[tuple[str, str]]]:
        """What plans name: by its UID, the plan and the sequence."""
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for plan in self.plans.values():
            for each in plan.references:
                found[each.uid].add((plan.uid, each.path[-1]))
        return dict(found)

    def _plans_that_show(self, image: Held) -> _Uids:
        """Plans of which a beam names an image."""
        return self._plans_that_name(image.uid, _REFERENCE_IMAGE)

    def _series_named(self, structure_set: Held) -> dict[str, _Uids]:
        """Slices that a structure set names, by series; of a series that is named alone, all that are held."""
        found: dict[str, set[str]] = defaultdict(set)
        for each in structure_set.references:
            if each.names is Names.SERIES:
                found[each.uid].update(held.uid for held in self._by_series.get(each.uid, ()))
            elif each.path[-1] == "ContourImageSequence":
                series = each.series_uid
                # A contour names its slice without the series: only the slice itself can tell.
                if not series and each.uid in self.objects:
                    series = self.objects[each.uid].series_uid
                if series:
                    found[series].add(each.uid)
        return {uid: frozenset(each) for uid, each in found.items()}

    # What belongs to which plan -----------------------------------------------------------------

    def _judge_all(self) -> None:
        """Judge class by class; registrations come last, for they follow the CBCTs."""
        for uid in self.files.disputed:
            self._unclear(uid, Why.COPIES_DIFFER, self._named_plans(self.objects[uid]) | self._plans_that_name(uid))
        for plan in self.plans.values():
            for structure_set in self._structure_sets(plan):
                self.owners[structure_set].add(plan.uid)
        for dose in self._all("RTDOSE"):
            self._judge_dose(dose)
        for record in self._all("RTRECORD"):
            self._judge_record(record)
        for image in self._all("RTIMAGE"):
            self._judge_rt_image(image)
        for series in self._ct_series.values():
            self._judge_cbct(series)
        for registration in self._all("REG"):
            self._judge_registration(registration)

    def _unclear(self, uid: str, why: Why, candidates: Iterable[str]) -> None:
        self.ambiguous[uid] = Ambiguous(uid=uid, why=why, candidates=frozenset(candidates))

    def _judge_record(self, record: Held) -> None:
        plans = self._named_plans(record)
        if len(plans) > 1:
            self._unclear(record.uid, Why.SEVERAL_PLANS, plans)
        else:
            self.owners[record.uid].update(plans)

    def _judge_dose(self, dose: Held) -> None:
        own, naming = self._named_plans(dose), self._plans_that_name(dose.uid, _DOSE)
        if own and naming - own:
            self._unclear(dose.uid, Why.CONTRADICTION, own | naming)
        elif dose.summation == "BEAM" and not all(self._beams_of(dose, plan) for plan in own | naming):
            self._unclear(dose.uid, Why.NO_BEAM, own | naming)
        else:
            self.owners[dose.uid].update(own | naming)

    def _beams_of(self, dose: Held, plan: str) -> frozenset[int]:
        said = {beam for named, beam in dose.named_beams if named == plan}
        references = self.plans[plan].references if plan in self.plans else ()
        return frozenset(said.union(each.beam for each in references if each.uid == dose.uid and each.beam is not None))

    def _judge_rt_image(self, image: Held) -> None:
        own, showing = self._named_plans(image), self._plans_that_show(image)
        if len(own) > 1:
            self._unclear(image.uid, Why.SEVERAL_PLANS, own)
        elif own and showing - own and kind_of(image) is not Kind.DRR:
            self._unclear(image.uid, Why.CONTRADICTION, own | showing)
        else:
            # A DRR of a copied beam serves both plans.
            self.owners[image.uid].update(own | showing)

    def _judge_cbct(self, series: list[Held]) -> None:
        """Judge a series of CT as a whole: by the plan that it names, else by the registrations of its frame."""
        plans = _NOBODY.union(*(self._named_plans(each) for each in series))
        why = Why.SEVERAL_PLANS
        if not plans and series[0].series_uid not in self._drawn_on:
            frames = _NOBODY.union(*(each.frame_uids for each in series))
            joined = _NOBODY.union(*(each.frame_uids for each in self._all("REG") if each.frame_uids & frames))
            plans = frozenset(uid for uid, own in self._frames.items() if own & joined and not own & frames)
            why = Why.FRAME_OF_SEVERAL_PLANS
        for each in series:
            if len(plans) > 1:
                self._unclear(each.uid, why, plans)
            else:
                self.owners[each.uid].update(plans)

    def _judge_registration(self, registration: Held) -> None:
        """Give a registration to the plans of its CBCTs or, without one, to all plans of the frames that it joins."""
        frames = registration.frame_uids
        joined = frozenset(uid for uid, own in self._frames.items() if own & frames)
        carried = [each for each in self._all("CT") if each.frame_uids & frames and each.series_uid in self._cbcts]
        unclear = [self.ambiguous[each.uid].candidates for each in carried if each.uid in self.ambiguous]
        owners = _NOBODY.union(*(self.owners[each.uid] for each in carried))
        # Of a plan that is missing nobody knows the frame.
        mine = owners & joined | owners - self.plans.keys()
        if mine:
            self.owners[registration.uid].update(mine)
        elif unclear:
            self._unclear(registration.uid, Why.FRAME_OF_SEVERAL_PLANS, _NOBODY.union(*unclear))
        elif owners and joined:
            self._unclear(registration.uid, Why.CONTRADICTION, owners | joined)
        elif not owners:
            self.owners[registration.uid].update(joined)

    @cached_property
    def _cbcts(self) -> _Uids:
        """Series of CT that were found to be CBCTs, of one plan or of nobody knows which."""
        return frozenset(
            uid
            for uid, series in self._ct_series.items()
            if any(self.owners.get(each.uid) or each.uid in self.ambiguous for each in series)
        )

    def _plan_set(self, plan: Held) -> PlanSet:
        mine = [self.objects[uid] for uid, owners in self.owners.items() if plan.uid in owners]
        doses = [each for each in mine if each.modality == "RTDOSE"]
        images = [each for each in mine if each.modality == "RTIMAGE"]
        structure_sets = [each for each in mine if each.modality == "RTSTRUCT"]
        return PlanSet(
            plan=plan.uid,
            structure_sets=_uids(structure_sets),
            images=self._planning_images(structure_sets),
            plan_doses=_uids(each for each in doses if each.summation == "PLAN"),
            beam_doses=self._beam_doses(plan, [each for each in doses if each.summation == "BEAM"]),
            other_doses=_uids(each for each in doses if each.summation not in {"PLAN", "BEAM"}),
            records=_uids(each for each in mine if each.modality == "RTRECORD"),
            registrations=_uids(each for each in mine if each.modality == "REG"),
            cbcts=_grouped((each.series_uid, each.uid) for each in mine if each.modality == "CT"),
            rt_images=frozenset(
                RTImage(uid=each.uid, kind=kind_of(each), beam=beam_of(each))
                for each in images
                if kind_of(each) is not Kind.DRR
            ),
            drrs=_uids(each for each in images if kind_of(each) is Kind.DRR),
            verifies=_verified(plan),
            verified_by={
                other.uid: self._portal_doses(other) for other in self.plans.values() if plan.uid in _verified(other)
            },
        )

    def _portal_doses(self, plan: Held) -> _Uids:
        mine = (each for each in self._all("RTIMAGE") if plan.uid in self.owners.get(each.uid, ()))
        return _uids(each for each in mine if kind_of(each) in _PORTAL_DOSES)

    def _beam_doses(self, plan: Held, doses: list[Held]) -> Mapping[int, _Uids]:
        return _grouped((beam, each.uid) for each in doses for beam in self._beams_of(each, plan.uid))

    def _planning_images(self, structure_sets: list[Held]) -> Mapping[str, PlanningSeries]:
        frames = _NOBODY.union(*(each.frame_uids for each in structure_sets))
        named: dict[str, set[str]] = defaultdict(set)
        for each in structure_sets:
            for uid, slices in self._series_named(each).items():
                named[uid].update(slices)
        return {uid: self._planning_series(uid, frozenset(slices), frames) for uid, slices in named.items()}

    def _planning_series(self, uid: str, named: _Uids, frames: _Uids) -> PlanningSeries:
        held = named & self.objects.keys()
        return PlanningSeries(
            uid=uid,
            named=named,
            held=held,
            missing=named - held,
            unnamed=_uids(self._by_series.get(uid, ())) - named,
            other_frame=frozenset(each for each in held if not self.objects[each].frame_uids & frames),
        )


def _verified(plan: Held) -> _Uids:
    return frozenset(
        each.uid for each in plan.references if each.path == (_PLAN,) and each.relationship == "VERIFIED_PLAN"
    )


def _moment(held: Held) -> tuple[str, date] | None:
    if len(held.machines) != 1 or held.day is None:
        return None
    (machine,) = held.machines
    return machine, held.day


def _machine_days(
    images: Iterable[tuple[Held, tuple[str, date] | None]],
) -> Mapping[tuple[str, date], MachineDay]:
    parts: dict[tuple[str, date], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for image, when in images:
        if when is not None:
            part = "computed" if kind_of(image) in _COMPUTED else beam_of(image).value.lower()
            parts[when][part].add(image.uid)
    return {
        when: MachineDay(**{part: frozenset(uids) for part, uids in found.items()}) for when, found in parts.items()
    }


def _days(records: Iterable[tuple[Held, tuple[str, date] | None]]) -> Mapping[tuple[str, date], _Uids]:
    return _grouped((when, each.uid) for each, when in records if when is not None)


def _grouped(pairs: Iterable[tuple[_Key, str]]) -> dict[_Key, _Uids]:
    found: dict[_Key, set[str]] = defaultdict(set)
    for key, uid in pairs:
        found[key].add(uid)
    return {key: frozenset(uids) for key, uids in found.items()}


def _uids(objects: Iterable[Held]) -> _Uids:
    return frozenset(each.uid for each in objects)
