"""What is wrong with references, whoever belongs to whom: a part of :mod:`support.oracle`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from support.oracle_files import Held, Names
from support.oracle_findings import Dangling, UnknownBeam, WrongClass


def dangling(objects: Mapping[str, Held]) -> tuple[Dangling, ...]:
    """Return what some object names and that is not there, by UID."""
    held = {
        Names.INSTANCE: objects.keys(),
        Names.SERIES: {each.series_uid for each in objects.values()},
        Names.STUDY: {each.study_uid for each in objects.values()},
    }
    found: dict[tuple[str, Names], set[tuple[str, str]]] = defaultdict(set)
    for each in objects.values():
        for reference in each.references:
            if reference.uid not in held[reference.names]:
                found[reference.uid, reference.names].add((each.uid, reference.path[-1]))
    return tuple(
        Dangling(
            uid=uid,
            names=names,
            named_by=frozenset(by for by, _ in places),
            through=frozenset(sequence for _, sequence in places),
        )
        for (uid, names), places in sorted(found.items())
    )


def unknown_beams(objects: Mapping[str, Held], plans: Mapping[str, Held]) -> frozenset[UnknownBeam]:
    """Return the beams that doses, RT Images and records name and that their plans have not."""
    return frozenset(
        UnknownBeam(uid=each.uid, plan=plan, beam=beam)
        for each in objects.values()
        for plan, beam in each.named_beams
        if plan in plans and beam not in plans[plan].beams
    )


def wrong_class(objects: Mapping[str, Held]) -> frozenset[WrongClass]:
    """Return the references that say another SOP class than the object's own."""
    return frozenset(
        WrongClass(uid=named.uid, named_by=each.uid, said=reference.sop_class_uid, held=named.sop_class_uid)
        for each in objects.values()
        for reference in each.references
        if reference.names is Names.INSTANCE
        and (named := objects.get(reference.uid))
        and named.sop_class_uid != reference.sop_class_uid
    )
