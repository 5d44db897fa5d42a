"""The members of a plan set, from what belongs to the plan and what these objects name: pure, no network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from airflow_provider_varian import uids
from airflow_provider_varian.aria.plan_set import Member, Role, Standing
from airflow_provider_varian.aria.plan_set_rules import Belongings, plans_of_image, slices_named
from airflow_provider_varian.aria.references import (
    CONTOUR_IMAGE,
    DOSE,
    INSTANCE,
    PLAN,
    REFERENCE_IMAGE,
    STRUCTURE_SET,
    Reference,
    References,
)
from airflow_provider_varian.aria.rt_images import IMAGE_TYPES

_SUMMATIONS: Final = {"PLAN": Role.PLAN_DOSE, "BEAM": Role.BEAM_DOSE}
_ROLES: Final = {
    "RTPLAN": Role.PLAN,
    "RTSTRUCT": Role.STRUCTURE_SET,
    "RTDOSE": Role.PLAN_DOSE,
    "RTRECORD": Role.RECORD,
    "RTIMAGE": Role.RT_IMAGE,
    "REG": Role.REGISTRATION,
}
_ROLE_OF_CLASS: Final = {
    sop_class: _ROLES[modality]
    for modality, classes in uids.STORAGE_BY_MODALITY.items()
    if modality in _ROLES
    for sop_class in classes
}
_ROLE_THROUGH: Final = {
    PLAN: Role.PLAN,
    STRUCTURE_SET: Role.STRUCTURE_SET,
    REFERENCE_IMAGE: Role.DRR,
    CONTOUR_IMAGE: Role.IMAGE,
}
#: Who names slices beside a structure set: registrations, of planning images and CBCTs.
_SLICES: Final = frozenset({Role.IMAGE, Role.CBCT, Role.REGISTRATION})
_BY_FRAME: Final = ("FrameOfReferenceUID",)
NO_SUCH_OBJECT: Final = "it is named, and the peer has no such object of the patient"


def role_of(held: References) -> Role:
    """Return what an object is to the plan that it belongs to."""
    if held.modality == "RTDOSE":
        return _SUMMATIONS.get(held.summation, Role.OTHER_DOSE)
    if held.modality == "RTIMAGE":
        return Role.DRR if held.is_drr else Role.RT_IMAGE
    return Role.CBCT if held.modality == "CT" else _ROLES[held.modality]


def role_named(link: Reference) -> Role:
    """Return what something would be that is named and not there."""
    if link.through == DOSE:
        return Role.PLAN_DOSE if link.beam is None else Role.BEAM_DOSE
    return _ROLE_THROUGH.get(link.through) or _ROLE_OF_CLASS.get(link.sop_class_uid, Role.IMAGE)


def is_looked_for(link: Reference, wanted: Collection[Role]) -> bool:
    """Say whether a reference that leads nowhere is a gap in the set: whether what it names was wanted."""
    role = role_named(link)
    if role is Role.STRUCTURE_SET:
        # Without it the images are not known.
        return role in wanted or Role.IMAGE in wanted
    if role is Role.IMAGE and link.names == "instance" and link.through != CONTOUR_IMAGE:
        return not _SLICES.isdisjoint(wanted)
    return role in wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningImages:
    """The slices that a plan's structure sets were drawn on.

    :param named: by slice the structure sets that name it.
    :param unnamed: by series what is held and not named.
    :param elsewhere: named and held, in a Frame of Reference that is none of the structure sets'.
    """

    named: Mapping[str, frozenset[str]]
    unnamed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()

    @classmethod
    def of(cls, structure_sets: Iterable[References], objects: Mapping[str, References]) -> PlanningImages:
        """Read what structure sets name.

        :param structure_sets: of one plan.
        :param objects: what is held of the patient, the slices among it.
        """
        named: dict[str, set[str]] = defaultdict(set)
        series: set[str] = set()
        frames: set[str] = set()
        for each in structure_sets:
            frames |= each.frames
            for uid, slices in slices_named(each, objects).items():
                series.add(uid)
                for slice_uid in slices:
                    named[slice_uid].add(each.sop_instance_uid)
        unnamed: dict[str, list[str]] = defaultdict(list)
        for uid, held in objects.items():
            if held.series_instance_uid in series and uid not in named:
                unnamed[held.series_instance_uid].append(uid)
        return cls(
            named={uid: frozenset(by) for uid, by in named.items()},
            unnamed={uid: tuple(sorted(left)) for uid, left in sorted(unnamed.items())},
            elsewhere=frozenset(
                uid for uid in named if uid in objects and objects[uid].frames and not objects[uid].frames & frames
            ),
        )

    def members(self, objects: Mapping[str, References]) -> Iterator[Member]:
        """Yield the named slices that are held."""
        for uid, by in self.named.items():
            if uid in objects:
                yield _member(objects[uid], Role.IMAGE, named_by=by, through={CONTOUR_IMAGE})


def held_members(plan: References, belongings: Belongings) -> Iterator[Member]:
    """Yield the plan, what belongs to it, and what may belong to it; without its planning images."""
    uid = plan.sop_instance_uid
    naming: dict[str, set[str]] = defaultdict(set)
    for link in plan.links:
        naming[link.uid].add(link.through)
    yield _member(plan, Role.PLAN)
    for held in belongings.belonging_to(uid):
        through = naming.get(held.sop_instance_uid)
        beams = belongings.beams_of(held.sop_instance_uid, uid) if held.modality in ("RTDOSE", "RTIMAGE") else ()
        if through:
            yield _member(held, role_of(held), named_by={uid}, through=through, beams=beams)
        else:
            yield _member(held, role_of(held), through=_own_way(held, uid), beams=beams)
    for each, unclear in belongings.unclear_for(uid).items():
        held = belongings.objects[each]
        yield _member(
            held,
            role_of(held),
            standing=Standing.AMBIGUOUS,
            named_by={uid} if each in naming else (),
            through=naming.get(each) or _own_way(held, uid),
            reason=unclear.reason,
        )


def missing_members(namers: Iterable[References], missing: Collection[str]) -> Iterator[Member]:
    """Yield what members name and is not there, each once.

    :param namers: members, as they were read.
    :param missing: UIDs of instances, series and studies that the patient has not.
    """
    found: dict[str, list[tuple[str, Reference]]] = defaultdict(list)
    for namer in namers:
        for link in namer.links:
            if link.uid in missing:
                found[link.uid].append((namer.sop_instance_uid, link))
    for uid, places in found.items():
        links = [link for _, link in places]
        # A sequence that tells what it is goes before one that lists all that is named, as of a registration.
        telling = min(links, key=lambda link: (link.through not in _ROLE_THROUGH, link.through != DOSE, link.path))
        yield Member(
            sop_instance_uid=uid,
            role=role_named(telling),
            standing=Standing.MISSING,
            sop_class_uid=telling.sop_class_uid,
            series_instance_uid=next((link.series_uid for link in links if link.series_uid), ""),
            named_by=tuple(sorted({by for by, _ in places})),
            through=tuple(sorted({link.through for link in links})),
            beams=tuple(sorted({link.beam for link in links if link.beam is not None})),
            reason=NO_SUCH_OBJECT,
            names=telling.names,
        )


def _own_way(held: References, plan_uid: str) -> tuple[str, ...]:
    """Return through what an object that no plan names is a plan's."""
    if plan_uid in held.plans:
        return (PLAN,)
    return (INSTANCE,) if plan_uid in plans_of_image(held) else _BY_FRAME


def _member(
    held: References,
    role: Role,
    *,
    standing: Standing = Standing.HELD,
    named_by: Collection[str] = (),
    through: Collection[str] = (),
    beams: Collection[int] = (),
    reason: str = "",
) -> Member:
    return Member(
        sop_instance_uid=held.sop_instance_uid,
        role=role,
        standing=standing,
        how="reference" if named_by or role is Role.PLAN else "query",
        sop_class_uid=held.sop_class_uid,
        study_instance_uid=held.study_instance_uid,
        series_instance_uid=held.series_instance_uid,
        named_by=tuple(sorted(named_by)),
        through=tuple(sorted(through)),
        beams=tuple(sorted(beams)),
        reason=reason,
        kind=_kind(held) if held.modality == "RTIMAGE" else "",
    )


def _kind(image: References) -> str:
    """Return what an RT Image is, by its whole Image Type."""
    if not image.image_type:
        return ""
    return next((kind for kind, types in IMAGE_TYPES.items() if image.image_type in types), "other")
