"""A clinic with few slices and few fractions, so that all of it is written, or retrieved, in seconds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from airflow_provider_varian.simulator.clinic.case import Case, ImageKind, ImageSeries, Plan
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

SLICES = 4
FRACTIONS = 2


@cache
def shortened(images: ImageSeries) -> ImageSeries:
    """Leave a few slices, in their order; one that is missing stays among them."""
    count = len(images.instance_uids)
    kept = sorted({*range(SLICES - 1), count - 1, *images.missing})
    return replace(
        images,
        instance_uids=tuple(images.instance_uids[index] for index in kept),
        missing=frozenset(place for place, index in enumerate(kept) if index in images.missing),
    )


class ShortClinic(Clinic):
    """A clinic with few slices and few fractions, so that all of it is written in seconds."""

    def case(self, number: int) -> Case:
        case = super().case(number)
        taken = {each.series_uid for plan in case.plans for each in first_cone_beam_cts(case, plan)}
        return replace(
            case,
            image_series=tuple(
                shortened(each)
                for each in case.image_series
                if each.kind is not ImageKind.CBCT or each.series_uid in taken
            ),
            structure_sets=tuple(replace(each, images=shortened(each.images)) for each in case.structure_sets),
            plans=tuple(self._shortened(plan, taken) for plan in case.plans),
        )

    def _shortened(self, plan: Plan, taken: set[str]) -> Plan:
        drawn = plan.structure_set
        return replace(
            plan,
            structure_set=replace(drawn, images=shortened(drawn.images)) if drawn else None,
            records=tuple(each for each in plan.records if each.fraction <= FRACTIONS),
            portal_images=tuple(each for each in plan.portal_images if each.fraction <= FRACTIONS),
            registrations=tuple(
                replace(each, fixed=shortened(each.fixed), moving=shortened(each.moving))
                for each in plan.registrations
                if each.moving.series_uid in taken
            ),
        )


def first_cone_beam_cts(case: Case, plan: Plan) -> list[ImageSeries]:
    return [each for each in case.image_series if each.plan == plan.reference][:FRACTIONS]
