"""Which object belongs to which plan, by what the objects of one patient say of each other (varian-daemon 1.5, 3).

Study, label, time and place of an object say nothing. What could belong to more than one plan is unclear and is given
to none. No network and no file: :mod:`.plan_set_resolver` brings the objects together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from airflow_provider_varian import uids
from airflow_provider_varian.aria.references import (
    CONTOUR_IMAGE,
    DOSE,
    INSTANCE,
    REFERENCE_IMAGE,
    STRUCTURE_SET,
    References,
)

_NOBODY: Final = frozenset[str]()
_PLAN_CLASSES: Final = frozenset(uids.STORAGE_BY_MODALITY["RTPLAN"])

SEVERAL_PLANS: Final = "it names several plans where one is allowed"
CONTRADICTION: Final = "it names another plan than the one that names it"
NO_BEAM: Final = "it is the dose of a beam and does not say of which"
FRAME_OF_SEVERAL_PLANS: Final = "a registration joins it to a frame of reference of several plans, and it names none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """Why it cannot be said to which plan an object belongs.

    :param reason: in words.
    :param candidates: SOP Instance UIDs of the plans.
    """

    reason: str
    candidates: frozenset[str]


def slices_named(structure_set: References, objects: Mapping[str, References]) -> dict[str, frozenset[str]]:
    """Return the slices that a structure set was drawn on, by Series Instance UID.

    A contour names its slice without the series: then only the slice itself can tell. Of a series that is named
    alone, all that is held counts.

    :param structure_set: the structure set.
    :param objects: what is held, by SOP Instance UID.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for link in structure_set.links:
        if link.names == "series":
            held = (uid for uid, each in objects.items() if each.series_instance_uid == link.uid)
            found[link.uid].update(held)
        elif link.through == CONTOUR_IMAGE and link.names == "instance":
            series = link.series_uid
            if not series and link.uid in objects:
                series = objects[link.uid].series_instance_uid
            if series:
                found[series].add(link.uid)
    return {series: frozenset(named) for series, named in found.items()}


def plans_of_image(image: References) -> frozenset[str]:
    """Return the plans that a slice of CT says it was made for: a CBCT names its plan (varian-daemon 1.5)."""
    return frozenset(
        link.uid for link in image.links if link.path == (INSTANCE,) and link.sop_class_uid in _PLAN_CLASSES
    )


class Belongings:
    """The objects of a patient, given to their plans.

    :param objects: what is held, by SOP Instance UID. A plan counts as a plan when it is among them; what names
        another is that one's all the same.
    :ivar owners: SOP Instance UIDs of plans, held or not, by what belongs to them.
    :ivar unclear: what may belong to several, by SOP Instance UID.
    """

    def __init__(self, objects: Mapping[str, References]) -> None:
        self.objects = objects
        self.owners: dict[str, frozenset[str]] = {}
        self.unclear: dict[str, Unclear] = {}
        for plan in self.plans.values():
            for uid in self.structure_sets_of(plan):
                self._give(uid, {plan.sop_instance_uid})
        for dose in self._of("RTDOSE"):
            self._judge_dose(dose)
        for record in self._of("RTRECORD"):
            self._judge_record(record)
        for image in self._of("RTIMAGE"):
            self._judge_rt_image(image)
        for series in self._ct_series.values():
            self._judge_ct(series)
        # They follow the CBCTs that they carry.
        for registration in self._of("REG"):
            self._judge_registration(registration)

    # What is there ------------------------------------------------------------------------------

    @cached_property
    def plans(self) -> dict[str, References]:
        """The plans that are held, by SOP Instance UID."""
        return {each.sop_instance_uid: each for each in self._of("RTPLAN")}

    def structure_sets_of(self, plan: References) -> frozenset[str]:
        """Return the structure sets that a plan names and that are held."""
        named = plan.named(STRUCTURE_SET)
        return frozenset(uid for uid in named if uid in self.objects and self.objects[uid].modality == "RTSTRUCT")

    def belonging_to(self, plan_uid: str) -> list[References]:
        """Return what belongs to a plan."""
        return [self.objects[uid] for uid, owners in self.owners.items() if plan_uid in owners]

    def unclear_for(self, plan_uid: str) -> dict[str, Unclear]:
        """Return what may belong to a plan or to another one."""
        return {uid: each for uid, each in self.unclear.items() if plan_uid in each.candidates}

    def beams_of(self, uid: str, plan_uid: str) -> frozenset[int]:
        """Return the beams of a plan that a dose or image is of, as either says."""
        said = {beam for named, beam in self.objects[uid].beams if named == plan_uid}
        plan = self.plans.get(plan_uid)
        links = plan.links if plan is not None else frozenset()
        return frozenset(said.union(link.beam for link in links if link.uid == uid and link.beam is not None))

    @cached_property
    def drawn_on(self) -> frozenset[str]:
        """Series that some structure set was drawn on."""
        return frozenset(series for each in self._of("RTSTRUCT") for series in slices_named(each, self.objects))

    @cached_property
    def loose_series(self) -> frozenset[str]:
        """Series of CT that name no plan, that no structure set was drawn on, and that a registration joins to others.

        To whom they belong follows from frames of reference alone.
        """
        joined = _union(each.frames for each in self._of("REG"))
        return frozenset(
            uid
            for uid, series in self._ct_series.items()
            if uid not in self.drawn_on
            and not any(plans_of_image(each) for each in series)
            and any(each.frames & joined for each in series)
        )

    @cached_property
    def _by_modality(self) -> dict[str, list[References]]:
        return _grouped(self.objects.values(), lambda each: each.modality)

    @cached_property
    def _ct_series(self) -> dict[str, list[References]]:
        return _grouped(self._of("CT"), lambda each: each.series_instance_uid)

    @cached_property
    def _frames_of_plans(self) -> dict[str, frozenset[str]]:
        """Frames of Reference of each plan: its own and those of its structure sets."""
        return {
            uid: plan.frames.union(*(self.objects[each].frames for each in self.structure_sets_of(plan)))
            for uid, plan in self.plans.items()
        }

    @cached_property
    def _naming(self) -> dict[str, set[tuple[str, str]]]:
        """What plans name: by its UID the plan, and the sequence in which it does."""
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for plan in self.plans.values():
            for link in plan.links:
                found[link.uid].add((plan.sop_instance_uid, link.through))
        return found

    @cached_property
    def _cbct_series(self) -> frozenset[str]:
        """Series of CT that are some plan's, or of which that is unclear."""
        return frozenset(
            uid
            for uid, series in self._ct_series.items()
            if any(self.owners.get(each.sop_instance_uid) or each.sop_instance_uid in self.unclear for each in series)
        )

    def _of(self, modality: str) -> list[References]:
        return self._by_modality.get(modality, [])

    def _naming_through(self, uid: str, sequence: str) -> frozenset[str]:
        return frozenset(plan for plan, through in self._naming.get(uid, ()) if through == sequence)

    # Class by class -----------------------------------------------------------------------------

    def _give(self, uid: str, plans: Collection[str]) -> None:
        if plans:
            self.owners[uid] = self.owners.get(uid, _NOBODY).union(plans)

    def _doubt(self, uid: str, reason: str, candidates: Collection[str]) -> None:
        self.unclear[uid] = Unclear(reason=reason, candidates=frozenset(candidates))

    def _judge_dose(self, dose: References) -> None:
        uid, own = dose.sop_instance_uid, dose.plans
        naming = self._naming_through(uid, DOSE)
        if own and naming - own:
            self._doubt(uid, CONTRADICTION, own | naming)
        elif dose.summation == "BEAM" and not all(self.beams_of(uid, plan) for plan in own | naming):
            self._doubt(uid, NO_BEAM, own | naming)
        else:
            self._give(uid, own | naming)

    def _judge_record(self, record: References) -> None:
        if len(record.plans) > 1:
            self._doubt(record.sop_instance_uid, SEVERAL_PLANS, record.plans)
        else:
            self._give(record.sop_instance_uid, record.plans)

    def _judge_rt_image(self, image: References) -> None:
        uid, own = image.sop_instance_uid, image.plans
        showing = self._naming_through(uid, REFERENCE_IMAGE)
        if len(own) > 1:
            self._doubt(uid, SEVERAL_PLANS, own)
        elif own and showing - own and not image.is_drr:
            self._doubt(uid, CONTRADICTION, own | showing)
        else:
            # A DRR of a beam that was copied serves both plans.
            self._give(uid, own | showing)

    def _judge_ct(self, series: list[References]) -> None:
        """Judge a series as a whole: by the plan that it names, else by the registrations of its frame."""
        plans, reason = _union(map(plans_of_image, series)), SEVERAL_PLANS
        if not plans and series[0].series_instance_uid not in self.drawn_on:
            own = _union(each.frames for each in series)
            plans, reason = self._joined_to(own), FRAME_OF_SEVERAL_PLANS
        for each in series:
            if len(plans) > 1:
                self._doubt(each.sop_instance_uid, reason, plans)
            else:
                self._give(each.sop_instance_uid, plans)

    def _joined_to(self, frames: frozenset[str]) -> frozenset[str]:
        """Return the plans to whose frame a registration joins others, and that do not lie in these themselves."""
        joined = _union(each.frames for each in self._of("REG") if each.frames & frames)
        return frozenset(uid for uid, own in self._frames_of_plans.items() if own & joined and not own & frames)

    def _judge_registration(self, registration: References) -> None:
        """Give it to the plans of the CBCTs that it carries or, when it carries none, to all whose frame it joins."""
        uid, frames = registration.sop_instance_uid, registration.frames
        joined = frozenset(plan for plan, own in self._frames_of_plans.items() if own & frames)
        carried = [
            each.sop_instance_uid
            for each in self._of("CT")
            if each.frames & frames and each.series_instance_uid in self._cbct_series
        ]
        owners = _union(self.owners.get(each, _NOBODY) for each in carried)
        # Of a plan that is not held nobody knows the frame.
        certain = (owners & joined) | (owners - self.plans.keys())
        doubtful = _union(self.unclear[each].candidates for each in carried if each in self.unclear)
        if certain:
            self._give(uid, certain)
        elif doubtful:
            self._doubt(uid, FRAME_OF_SEVERAL_PLANS, doubtful)
        elif owners and joined:
            self._doubt(uid, CONTRADICTION, owners | joined)
        elif not owners:
            self._give(uid, joined)


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return _NOBODY.union(*sets)


def _grouped(objects: Iterable[References], key: Callable[[References], str]) -> dict[str, list[References]]:
    found: dict[str, list[References]] = defaultdict(list)
    for each in objects:
        found[key(each)].append(each)
    return dict(found)
