"""What a fraction leaves behind: a record, a CBCT with its registration, portal images."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from airflow_provider_varian.simulator.clinic.case import (
    CaseBeam,
    ImageKind,
    ImageSeries,
    PlanReference,
    PortalImage,
    Record,
    Registration,
    Study,
)
from airflow_provider_varian.simulator.clinic.chart import Chart, Kind
from airflow_provider_varian.simulator.clinic.identity import UidRoot
from airflow_provider_varian.simulator.clinic.irregularities import Irregularity
from airflow_provider_varian.simulator.clinic.linacs import PORTAL, PORTAL_DOSE

_PREDICTED: Final = ("DERIVED", "SECONDARY", "PORTAL", "PREDICTED_DOSE")
_BEAM_SECONDS: Final = 35


def is_imaged(fraction: int) -> bool:
    """Say whether images are taken in a fraction: in the first three, and then once a week."""
    return fraction <= 3 or fraction % 5 == 1


def records(chart: Chart, plan_key: tuple[int, ...], treated: Sequence[datetime]) -> tuple[Record, ...]:
    """Return a record of each fraction; of one that was interrupted, two.

    :param plan_key: parts of the plan's UID that tell it from others.
    """
    found = []
    for fraction, moment in enumerate(treated, start=1):
        found.append(_record(chart, plan_key, fraction, 1, moment))
        if fraction == 2 and chart.has(Irregularity.SPLIT_FRACTION):
            found.append(_record(chart, plan_key, fraction, 2, moment + timedelta(minutes=9)))
    return tuple(found)


def _record(chart: Chart, plan_key: tuple[int, ...], fraction: int, part: int, moment: datetime) -> Record:
    return Record(
        series_uid=chart.series_uid(Kind.RECORD, *plan_key, fraction, part),
        sop_instance_uid=chart.uid(UidRoot.RECORD, *plan_key, fraction, part),
        treated=moment,
        fraction=fraction,
    )


def cone_beam_cts(
    chart: Chart,
    plan_key: tuple[int, ...],
    study: Study,
    plan: PlanReference,
    fixed: ImageSeries,
    treated: Sequence[datetime],
) -> tuple[tuple[ImageSeries, ...], tuple[Registration, ...]]:
    """Return the CBCTs of a plan's fractions and the registrations to its planning CT."""
    shared = chart.has(Irregularity.SHARED_REGISTRATION)
    images: list[ImageSeries] = []
    registrations: list[Registration] = []
    chance = chart.chance("cbct", *plan_key)
    slices = chance.randint(40, 60)
    for fraction, moment in enumerate(treated, start=1):
        shift = (round(chance.gauss(0, 2), 1), round(chance.gauss(0, 2), 1), round(chance.gauss(0, 2.5), 1))
        if not is_imaged(fraction):
            continue
        prefix = chart.uid(UidRoot.IMAGE, Kind.CBCT, *plan_key, fraction)
        frame = 0 if shared else fraction
        taken = ImageSeries(
            kind=ImageKind.CBCT,
            study=study,
            series_uid=chart.series_uid(Kind.CBCT, *plan_key, fraction),
            frame_of_reference_uid=chart.uid(UidRoot.FRAME_OF_REFERENCE, Kind.CBCT, *plan_key, frame),
            instance_uids=tuple([f"{prefix}.{number}" for number in range(1, slices + 1)]),
            slice_mm=3.0,
            acquired=moment - timedelta(minutes=5),
            description=f"kV_CBCT_{fraction:02d}",
            machine=chart.linac.name,
            plan=plan,
        )
        images.append(taken)
        if not shared or len(images) == 1:
            registrations.append(
                Registration(
                    study=study,
                    series_uid=chart.series_uid(Kind.REGISTRATION, *plan_key, fraction),
                    sop_instance_uid=chart.uid(UidRoot.REGISTRATION, *plan_key, fraction),
                    made=moment - timedelta(minutes=3),
                    fixed=fixed,
                    moving=taken,
                    shift_mm=shift,
                )
            )
    return tuple(images), tuple(registrations)


def portal_images(
    chart: Chart,
    plan_key: tuple[int, ...],
    study: Study,
    plan: PlanReference,
    beams: Sequence[CaseBeam],
    treated: Sequence[datetime],
) -> tuple[PortalImage, ...]:
    """Return portal images of each beam in the fractions that are imaged, a series each."""
    found: list[PortalImage] = []
    for fraction, moment in enumerate(treated, start=1):
        if is_imaged(fraction):
            found += exposures(
                chart, Kind.PORTAL, (*plan_key, fraction), study, plan, beams, moment, fraction, image_type=PORTAL
            )
    return tuple(found)


def verification_images(
    chart: Chart,
    plan_key: tuple[int, ...],
    study: Study,
    plan: PlanReference,
    beams: Sequence[CaseBeam],
    predicted: datetime,
    measured: datetime,
) -> tuple[PortalImage, ...]:
    """Return predicted and acquired portal dose of each beam, a series each (varian-daemon 1.6)."""
    return (
        *exposures(chart, Kind.PREDICTED, plan_key, study, plan, beams, predicted, 0, image_type=_PREDICTED),
        *exposures(chart, Kind.ACQUIRED, plan_key, study, plan, beams, measured, 1, image_type=PORTAL_DOSE),
    )


def exposures(
    chart: Chart,
    kind: Kind,
    parts: tuple[int, ...],
    study: Study,
    plan: PlanReference | None,
    beams: Sequence[CaseBeam | None],
    begin: datetime,
    fraction: int,
    *,
    image_type: tuple[str, ...],
) -> list[PortalImage]:
    """Return the images of one series, one of each beam.

    :param parts: of the series' UID.
    :param begin: of the first.
    """
    found = []
    for number, beam in enumerate(beams, start=1):
        millisecond = (chart.number * 37 + number * 211 + begin.second * 13) % 1000
        name = beam.name if beam else "summary"
        found.append(
            PortalImage(
                study=study,
                series_uid=chart.series_uid(kind, *parts),
                sop_instance_uid=chart.uid(UidRoot.IMAGE, kind, *parts, number),
                image_type=image_type,
                label=f"{number:02d}:{name}-{fraction}"[:16],
                acquired=begin + timedelta(seconds=20 + number * _BEAM_SECONDS, milliseconds=millisecond),
                beam=beam,
                plan=plan,
                fraction=fraction,
                machine=chart.linac.name,
            )
        )
    return found
