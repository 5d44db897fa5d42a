"""A patient's chart: all that is decided before the parts of a case are drawn up, and their UIDs.

Each part draws its chance by its own name, so an irregularity that comes or goes changes nothing but itself.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from enum import IntEnum
from itertools import islice
from typing import Final

from airflow_provider_varian.simulator.clinic.calendar import planning_day, working_days_after
from airflow_provider_varian.simulator.clinic.case import Region, Study
from airflow_provider_varian.simulator.clinic.identity import Identity, UidRoot
from airflow_provider_varian.simulator.clinic.irregularities import Irregularity
from airflow_provider_varian.simulator.clinic.linacs import LINACS, Linac
from airflow_provider_varian.simulator.clinic.treatments import DECOY_LABEL, TREATMENTS, Treatment

#: varian-daemon 1.5: the study description of studies that ARIA makes itself.
ARIA_STUDY: Final = "ARIA RadOnc Study"
#: From the first planning CT to whatever is last; tests hold the calendar to it.
LONGEST: Final = timedelta(days=120)

_FIRST_MINUTE: Final = 8 * 60
_LAST_MINUTE: Final = 16 * 60 + 30
_MISSED: Final = 0.03


class Kind(IntEnum):
    """What a UID's object is, where the root alone does not tell it."""

    PLANNING_CT = 1
    CBCT = 2
    DRR = 3
    PORTAL = 4
    STRAY = 5
    ACQUIRED = 6
    PREDICTED = 7
    EMPTY = 8
    UNMOVABLE = 9
    STRUCTURE_SET = 101
    DOSE = 102
    BEAM_DOSE = 103
    RECORD = 104
    REGISTRATION = 105


class StudyNumber(IntEnum):
    """The studies that a patient can have."""

    COURSE = 1
    SECOND_COURSE = 2
    SCANNER = 11
    SCANNER_AGAIN = 12
    CONTOURS = 21
    DOSES = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When things happen.

    :param scanned: of the first planning CT.
    :param planned: when the first plan was made, on the same day.
    :param reviewed: when it was approved.
    :param treated: begin of each fraction.
    """

    scanned: datetime
    planned: datetime
    reviewed: datetime
    treated: tuple[datetime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Who is treated for what, where and when.

    :param number: of the patient in the clinic.
    :param label: of the plan that is treated.
    :param regions: of the patient.
    """

    identity: Identity
    number: int
    irregularities: frozenset[Irregularity]
    treatment: Treatment
    label: str
    linac: Linac
    schedule: Schedule
    regions: tuple[Region, ...]

    def has(self, irregularity: Irregularity) -> bool:
        """Say whether the patient has an irregularity."""
        return irregularity in self.irregularities

    def uid(self, root: UidRoot, *parts: int) -> str:
        """Build the UID of an object of the patient."""
        return self.identity.uid(root, self.number, *parts)

    def series_uid(self, kind: Kind, *parts: int) -> str:
        """Build the UID of a series of other objects than plans."""
        root = UidRoot.PLAN_SERIES if kind >= Kind.STRUCTURE_SET else UidRoot.IMAGE_SERIES
        return self.uid(root, kind, *parts)

    def chance(self, *aspect: object) -> random.Random:
        """Return the source of chance for one aspect of the case."""
        return self.identity.draw("case", self.number, *aspect)

    def course(self, number: StudyNumber, opened: datetime) -> Study:
        """Return the study of a course: StudyID is the course ID (varian-daemon 1.3)."""
        return Study(
            uid=self.uid(UidRoot.STUDY, number), study_id=f"C{number.value}", opened=opened, description=ARIA_STUDY
        )


def chart_of(identity: Identity, number: int, irregularities: frozenset[Irregularity]) -> Chart:
    """Draw up the chart of a patient.

    :param number: of a clinical patient.
    :param irregularities: what is unusual about the patient.
    """
    chance = identity.draw("case", number)
    treatment = chance.choice(TREATMENTS)
    linac = chance.choice(LINACS)
    decoy = chance.random() < 0.1
    size = chance.uniform(0.92, 1.08)
    schedule = _schedule(chance, planning_day(number), treatment.fractions)
    rings = [each for each in LINACS if each.ring]
    if Irregularity.HALCYON_PLAN_CLASS in irregularities:
        linac = rings[0]
    if linac.ring:
        # A ring has one energy, without a flattening filter.
        treatment = replace(treatment, energy=6, flattened=False)
    label = DECOY_LABEL if decoy else treatment.label
    if Irregularity.LONG_PLAN_LABEL in irregularities:
        label = f"{label}_adaptive"[:16]
    return Chart(
        identity=identity,
        number=number,
        irregularities=irregularities,
        treatment=treatment,
        label=label,
        linac=linac,
        schedule=schedule,
        regions=tuple(_scaled(region, size) for region in treatment.regions),
    )


def shown_on(day: date, moment: datetime) -> bool:
    """Say whether what was made at a moment is there on a day: days count as a whole."""
    return moment.date() <= day


def _schedule(chance: random.Random, planned: date, fractions: int) -> Schedule:
    scanned = datetime.combine(planned, time(8)) + timedelta(minutes=chance.randrange(270))
    drawn = datetime.combine(planned, time(14, 30)) + timedelta(minutes=chance.randrange(150))
    ahead = working_days_after(planned)
    *_, approval_day = islice(ahead, chance.randint(1, 3))
    reviewed = datetime.combine(approval_day, time(9)) + timedelta(minutes=chance.randrange(400))
    for _ in range(chance.randint(0, 2)):
        next(ahead)
    slot = chance.randrange(_FIRST_MINUTE, _LAST_MINUTE)
    treated: list[datetime] = []
    while len(treated) < fractions:
        day = next(ahead)
        minute = slot + chance.randint(-12, 12)
        # The first fraction is never missed, and a later one sometimes is: a machine is down, a patient is ill.
        if not treated or chance.random() >= _MISSED:
            begin = time(minute // 60, minute % 60, chance.randrange(60))
            treated.append(datetime.combine(day, begin))
    return Schedule(scanned=scanned, planned=drawn, reviewed=reviewed, treated=tuple(treated))


def _scaled(region: Region, size: float) -> Region:
    x, y, z = region.centre_mm
    across, deep, long = region.radii_mm
    return Region(
        number=region.number,
        name=region.name,
        interpreted_type=region.interpreted_type,
        centre_mm=(round(x * size, 1), round(y * size, 1), round(z * size, 1)),
        radii_mm=(round(across * size, 1), round(deep * size, 1), round(long * size, 1)),
        colour=region.colour,
    )
