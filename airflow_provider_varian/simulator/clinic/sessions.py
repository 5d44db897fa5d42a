"""One morning's session of a QA plan: whether there was one, which exposures were made when, and what they show.

The truth is small and comes from the seed: where the ball lay, how far the field was off, which
leaf lags. A session is anchored by its date alone. Sessions take place on each day on which they are
due and are in ARIA at once, unless :class:`Punctuality` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.clinic.linacs import Beam, Exercise, Linac, QAPlan

#: A kV source sits a quarter turn from the MV source (IEC 61217 gantry angle plus 90).
KV_SOURCE_OFFSET = 90.0
_LEAVES = 60
#: The least and the most by which a late session is late.
_LATE_HOURS = (2.0, 48.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What an analysis of the session's images should find.

    :param ball_mm: ball relative to the isocentre in IEC fixed coordinates (x right, y to the
        gantry, z up), millimetres.
    :param field_mm: offset of the field centre in the collimator's own axes at the isocentre
        plane, millimetres.
    :param sag_mm: droop of the beam axis to the gantry side at gantry 0, growing to twice that
        at 180, millimetres.
    :param leaf_error_mm: error of each leaf pair's gap centre, millimetres, 60 of them.
    :param output: output relative to reference, about 1.
    :param strip_deviation_percent: deviation of the dose to each strip of a VMAT test from their mean,
        relative to the open field, from the lowest x; empty for other tests.
    """

    ball_mm: tuple[float, float, float]
    field_mm: tuple[float, float]
    sag_mm: float
    leaf_error_mm: tuple[float, ...]
    output: float
    strip_deviation_percent: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One image of a session.

    :param number: place in the session, from 1.
    :param beam: the plan's beam; ``None`` for a kV image.
    :param gantry: gantry angle at which it was taken, degrees.
    :param source: angle of the source that made it, degrees; for kV a quarter turn further.
    :param acquired: clinic-local time, without a zone as in DICOM.
    """

    number: int
    beam: Beam | None
    gantry: float
    source: float
    acquired: datetime

    @property
    def is_kv(self) -> bool:
        """Whether the kV imager took it."""
        return self.beam is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The exposures of one plan on one day, in one series."""

    linac: Linac
    plan: QAPlan
    day: date
    exposures: tuple[Exposure, ...]


def session(identity: Identity, linac: Linac, plan: QAPlan, day: date) -> Session:
    """Describe a plan's session of a day; cheap, no pixels."""
    chance = identity.draw("session", linac.name, plan.label, day.isoformat())
    moment = datetime.combine(day, plan.starts) + timedelta(seconds=chance.randrange(120))
    exposures = []
    stops: list[tuple[Beam | None, float]] = [(beam, beam.gantry) for beam in plan.beams]
    stops += [(None, gantry) for gantry in plan.kv_gantry]
    for number, (beam, gantry) in enumerate(stops, start=1):
        source = gantry if beam else (gantry + KV_SOURCE_OFFSET) % 360.0
        acquired = moment + timedelta(milliseconds=chance.randrange(1000))
        exposures.append(Exposure(number=number, beam=beam, gantry=gantry, source=source, acquired=acquired))
        moment += timedelta(seconds=40 + chance.randrange(20))
    return Session(linac=linac, plan=plan, day=day, exposures=tuple(exposures))


def truth(identity: Identity, linac: Linac, plan: QAPlan, day: date) -> Truth:
    """Tell what a session's images show: a standing part per machine and a daily part."""
    standing = identity.draw("truth", linac.name)
    daily = identity.draw("truth", linac.name, plan.label, day.isoformat())

    def offset(fixed: float, varying: float) -> float:
        return standing.gauss(0.0, fixed) + daily.gauss(0.0, varying)

    spread = 1.0 if plan.exercise is Exercise.WINSTON_LUTZ else 0.5
    ball = (offset(0.2 * spread, 0.15), offset(0.2 * spread, 0.15), offset(0.2 * spread, 0.15))
    field = (offset(0.15, 0.05), offset(0.15, 0.05))
    sag = abs(offset(0.15, 0.02))
    leaves = [standing.gauss(0.0, 0.04) + daily.gauss(0.0, 0.02) for _ in range(_LEAVES)]
    leaves[standing.randrange(15, 45)] += 0.35
    return Truth(
        ball_mm=ball,
        field_mm=field,
        sag_mm=sag,
        leaf_error_mm=tuple(leaves),
        output=1.0 + offset(0.005, 0.003),
        strip_deviation_percent=_strip_deviations(identity, linac, plan, day),
    )


def _strip_deviations(identity: Identity, linac: Linac, plan: QAPlan, day: date) -> tuple[float, ...]:
    # Draws of their own, so that they change nothing else that is drawn.
    standing = identity.draw("strips", linac.name, plan.label)
    daily = identity.draw("strips", linac.name, plan.label, day.isoformat())
    drawn = [standing.gauss(0.0, 0.8) + daily.gauss(0.0, 0.2) for _ in plan.strips_mm]
    mean = sum(drawn) / max(len(drawn), 1)
    return tuple(each - mean for each in drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Punctuality:
    """How reliably the sessions take place and reach ARIA; the seed says which do not.

    :param missing: share of a machine's days without any session, because it was down; from 0 to 1.
    :param late: share of the sessions whose images reach ARIA 2 to 48 hours after the last of them was
        acquired, with any other session of the day there before or after; from 0 to 1.
    :raises ValueError: when a share is not from 0 to 1.
    """

    missing: float = 0.0
    late: float = 0.0

    def __post_init__(self) -> None:
        for name in ("missing", "late"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")


#: Each session takes place and is in ARIA at once.
PUNCTUAL = Punctuality()


def takes_place(identity: Identity, linac: Linac, plan: QAPlan, day: date, punctuality: Punctuality = PUNCTUAL) -> bool:
    """Say whether a plan's session is due on a day and the machine is up."""
    if not plan.rhythm.is_due(day):
        return False
    # Asked of each session at each search: no draw where there is nothing to draw.
    if not punctuality.missing:
        return True
    return identity.draw("down", linac.name, day.isoformat()).random() >= punctuality.missing


def delay(identity: Identity, linac: Linac, plan: QAPlan, day: date, punctuality: Punctuality = PUNCTUAL) -> timedelta:
    """Return by how much a session's images reach ARIA late; zero when they are there at once."""
    if not punctuality.late:
        return timedelta()
    chance = identity.draw("late", linac.name, plan.label, day.isoformat())
    if chance.random() >= punctuality.late:
        return timedelta()
    return timedelta(hours=round(chance.uniform(*_LATE_HOURS), 2))


def arrives(
    identity: Identity, linac: Linac, plan: QAPlan, day: date, punctuality: Punctuality = PUNCTUAL
) -> datetime | None:
    """Return when a session's images are in ARIA, all together: clinic-local, without a zone.

    :returns: ``None`` when there is no session on that day.
    """
    if not takes_place(identity, linac, plan, day, punctuality):
        return None
    acquired = session(identity, linac, plan, day).exposures[-1].acquired
    return acquired + delay(identity, linac, plan, day, punctuality)


def has_arrived(
    identity: Identity,
    linac: Linac,
    plan: QAPlan,
    day: date,
    now: datetime,
    punctuality: Punctuality = PUNCTUAL,
) -> bool:
    """Say whether ARIA lists a session's images.

    A session that is not late is listed from the first minute of its day: a clinic whose window moves on
    has its last day whole at any hour.

    :param now: clinic-local, without a zone.
    """
    if not takes_place(identity, linac, plan, day, punctuality):
        return False
    late = delay(identity, linac, plan, day, punctuality)
    return not late or session(identity, linac, plan, day).exposures[-1].acquired + late <= now
