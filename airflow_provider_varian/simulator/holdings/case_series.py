"""The series of a case and their instances: who makes their attributes and pixels, and how they are exported.

Nothing is made here; each instance knows the builder of :mod:`..objects` that makes it when it is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from airflow_provider_varian import uids
from airflow_provider_varian.simulator.clinic.case import Case, Dose, ImageSeries, Plan, PortalImage, Record, Study
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.holdings.tree import Export, Spans
from airflow_provider_varian.simulator.objects.clinical_plan import plan_values
from airflow_provider_varian.simulator.objects.ct import ct_pixels, ct_values
from airflow_provider_varian.simulator.objects.deferred import Deferred
from airflow_provider_varian.simulator.objects.dose import dose_pixels, dose_values
from airflow_provider_varian.simulator.objects.drr import drr_pixels, drr_values
from airflow_provider_varian.simulator.objects.pixels import Panel
from airflow_provider_varian.simulator.objects.portal import portal_pixels, portal_values
from airflow_provider_varian.simulator.objects.record import record_values
from airflow_provider_varian.simulator.objects.registration import registration_values
from airflow_provider_varian.simulator.objects.structure_set import structure_set_values

#: What a modality's instances date their acquisition, content or treatment with; all others are without.
_DATES: Final = {
    "CT": ("AcquisitionDate", "ContentDate"),
    "RTIMAGE": ("AcquisitionDate", "ContentDate"),
    "RTRECORD": ("TreatmentDate",),
    "RTDOSE": ("ContentDate",),
    "REG": ("ContentDate",),
    "RTPLAN": (),
    "RTSTRUCT": (),
}
_NONE: Final[Spans] = dict.fromkeys(("AcquisitionDate", "ContentDate", "TreatmentDate"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance of a case.

    :param values: makes the SERIES- and IMAGE-level attributes, without pixels.
    :param pixels: makes the pixels, where there are any.
    :param flat: what the daemon is asked for flat at IMAGE level although it lies in a sequence of the object
        (varian-daemon 3); answered, not sent.
    """

    uid: str
    values: Callable[[], Mapping[str, Any]]
    pixels: Callable[[], bytes] | None = None
    flat: Mapping[str, Any] = field(default_factory=dict)
    export: Export = Export.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSeries:
    """A series of a case.

    :param dated: what all its instances are dated with; see :data:`_DATES`.
    :param instances: describes them, made at each call.
    :param own: the series' attributes when it has no instance to tell them.
    """

    study: Study
    uid: str
    modality: str
    sop_class_uid: str
    dated: datetime
    instances: Callable[[], Iterable[Instance]]
    export: Export = Export.NORMAL
    own: Mapping[str, Any] = field(default_factory=dict)

    def spans(self) -> Spans:
        """Return the days on which the instances are dated."""
        day = self.dated.date()
        return {**_NONE, **dict.fromkeys(_DATES[self.modality], (day, day))}


class CaseBuilder:
    """Describes the series of cases.

    :param identity: of the clinic, for the noise in pixels.
    :param panel: the imager; CT and dose have a share of its pixels.
    """

    def __init__(self, identity: Identity, panel: Panel) -> None:
        self.identity = identity
        self.panel = panel

    def series(self, case: Case) -> Iterator[CaseSeries]:
        """Yield the series of a case, planning CT first; all that is held, and nothing else."""
        for images in case.image_series:
            yield self._ct(case, images)
        for drawn in case.structure_sets:
            values = partial(structure_set_values, case, drawn)
            yield _single(
                drawn.study, drawn.series_uid, "RTSTRUCT", uids.RT_STRUCTURE_SET, drawn.drawn,
                Instance(uid=drawn.sop_instance_uid, values=values),
            )  # fmt: skip
        for plan in case.plans:
            yield from self._of_plan(case, plan)
        yield from self._portal(case, None, case.strays)
        for empty in case.empty_series:
            yield CaseSeries(
                study=empty.study,
                uid=empty.series_uid,
                modality=empty.modality,
                sop_class_uid="",
                dated=empty.made,
                instances=tuple,
                own={
                    "SeriesNumber": None,
                    "SeriesDescription": empty.description,
                    "SeriesDate": empty.made.strftime("%Y%m%d"),
                    "SeriesTime": empty.made.strftime("%H%M%S"),
                },
            )

    def _of_plan(self, case: Case, plan: Plan) -> Iterator[CaseSeries]:
        yield _single(
            plan.study, plan.series_uid, "RTPLAN", plan.sop_class_uid, plan.planned,
            Instance(
                uid=plan.sop_instance_uid,
                values=partial(plan_values, case, plan),
                flat={"NumberOfBeams": len(plan.beams)},
                # varian-daemon 1.4: such a plan cannot be exported.
                export=Export.NORMAL if plan.beams else Export.FAILS,
            ),
        )  # fmt: skip
        for series_uid, doses in _by_series(plan.doses):
            yield self._dose(case, plan, series_uid, doses)
        if plan.drr_series_uid:
            yield self._drrs(case, plan)
        for record in plan.records:
            values = partial(record_values, case, plan, record)
            yield _single(
                plan.study, record.series_uid, "RTRECORD", uids.RT_BEAMS_TREATMENT_RECORD, record.treated,
                Instance(uid=record.sop_instance_uid, values=values, flat=_session(record, values)),
            )  # fmt: skip
        for made in plan.registrations:
            values = partial(registration_values, case, made)
            yield _single(
                made.study, made.series_uid, "REG", uids.SPATIAL_REGISTRATION, made.made,
                Instance(uid=made.sop_instance_uid, values=values),
            )  # fmt: skip
        yield from self._portal(case, plan, plan.portal_images)

    def _ct(self, case: Case, images: ImageSeries) -> CaseSeries:
        matrix = self.panel.matrix

        def instances() -> Iterator[Instance]:
            for index, uid in enumerate(images.instance_uids):
                if index not in images.missing:
                    yield Instance(
                        uid=uid,
                        values=partial(ct_values, case, images, index, matrix),
                        pixels=partial(ct_pixels, self.identity, case, images, index, matrix),
                    )

        return CaseSeries(
            study=images.study,
            uid=images.series_uid,
            modality="CT",
            sop_class_uid=uids.CT_IMAGE,
            dated=images.acquired,
            instances=instances,
        )

    def _dose(self, case: Case, plan: Plan, series_uid: str, doses: list[Dose]) -> CaseSeries:
        matrix = self.panel.matrix

        def instances() -> Iterator[Instance]:
            for dose in doses:
                yield Instance(
                    uid=dose.sop_instance_uid,
                    values=partial(dose_values, case, plan, dose, matrix),
                    pixels=partial(dose_pixels, self.identity, case, plan, dose, matrix),
                )

        return CaseSeries(
            study=doses[0].study,
            uid=series_uid,
            modality="RTDOSE",
            sop_class_uid=uids.RT_DOSE,
            dated=doses[0].computed,
            instances=instances,
        )

    def _drrs(self, case: Case, plan: Plan) -> CaseSeries:
        def instances() -> Iterator[Instance]:
            for beam in plan.beams:
                if beam.drr_uid:
                    yield Instance(
                        uid=beam.drr_uid,
                        values=partial(drr_values, case, plan, beam, self.panel),
                        pixels=partial(drr_pixels, self.identity, case, plan, beam, self.panel),
                    )

        return CaseSeries(
            study=plan.study,
            uid=plan.drr_series_uid,
            modality="RTIMAGE",
            sop_class_uid=uids.RT_IMAGE,
            dated=plan.planned,
            instances=instances,
        )

    def _portal(self, case: Case, plan: Plan | None, images: Iterable[PortalImage]) -> Iterator[CaseSeries]:
        for series_uid, shown in _by_series(images):
            yield CaseSeries(
                study=shown[0].study,
                uid=series_uid,
                modality="RTIMAGE",
                sop_class_uid=uids.RT_IMAGE,
                dated=shown[0].acquired,
                instances=partial(self._portal_instances, case, plan, shown),
                export=Export.NOT_FOUND if series_uid in case.unmovable else Export.NORMAL,
            )

    def _portal_instances(self, case: Case, plan: Plan | None, shown: list[PortalImage]) -> Iterator[Instance]:
        for image in shown:
            yield Instance(
                uid=image.sop_instance_uid,
                values=partial(portal_values, case, plan, image, self.panel),
                pixels=partial(portal_pixels, self.identity, case, image, self.panel),
            )


def _single(
    study: Study, uid: str, modality: str, sop_class_uid: str, dated: datetime, instance: Instance
) -> CaseSeries:
    """Return a series of one object, as ARIA keeps plans, structure sets and records (varian-daemon 1.5)."""
    return CaseSeries(
        study=study,
        uid=uid,
        modality=modality,
        sop_class_uid=sop_class_uid,
        dated=dated,
        instances=lambda: (instance,),
    )


def _session(record: Record, values: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what a record's first beam says of the session."""

    def said(keyword: str) -> Any:
        return values()["TreatmentSessionBeamSequence"][0].get(keyword)

    waiting = {keyword: partial(said, keyword) for keyword in ("TreatmentDeliveryType", "TreatmentTerminationStatus")}
    return Deferred({"CurrentFractionNumber": record.fraction}, waiting)


_Member = TypeVar("_Member", Dose, PortalImage)


def _by_series(members: Iterable[_Member]) -> list[tuple[str, list[_Member]]]:
    found: dict[str, list[_Member]] = {}
    for member in members:
        found.setdefault(member.series_uid, []).append(member)
    return list(found.items())
