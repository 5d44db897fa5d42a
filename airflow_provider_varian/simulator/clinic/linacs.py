"""The clinic's linacs and what is done on them every morning: fixed facts, as data.

Examples, demo and tests name these machines, patients and plans. Nothing here depends on the
seed; what varies from day to day is in :mod:`.sessions`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, time
from enum import StrEnum
from typing import Final

#: ImageType of portal images, and of acquired portal dose (varian-daemon 1.6).
PORTAL: Final = ("ORIGINAL", "PRIMARY", "PORTAL")
PORTAL_DOSE: Final = (*PORTAL, "ACQUIRED_DOSE")


class Exercise(StrEnum):
    """The test that a plan's images serve.

    The last two are the tests of VMAT delivery in which the strips of one field get the same dose, each at
    another dose rate and gantry speed, or dose rate and leaf speed; an open field is the reference.
    """

    WINSTON_LUTZ = "winston-lutz"
    PICKET_FENCE = "picket-fence"
    OPEN_FIELD = "open-field"
    DOSE_RATE_GANTRY_SPEED = "dose-rate-gantry-speed"
    DOSE_RATE_LEAF_SPEED = "dose-rate-leaf-speed"


class Rhythm(StrEnum):
    """The days on which a plan's session is due."""

    DAILY = "daily"
    FIRST_WEDNESDAY = "first Wednesday of the month"

    def is_due(self, day: date) -> bool:
        """Say whether a session is due on a day."""
        return self is Rhythm.DAILY or (day.weekday() == 2 and day.day <= 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """A treatment beam of a QA plan.

    :param number: (300A,00C0) Beam Number.
    :param name: (300A,00C2) Beam Name.
    :param gantry: gantry angle, degrees IEC 61217.
    :param collimator: beam limiting device angle, degrees.
    :param couch: patient support angle, degrees.
    :param meterset: monitor units.
    :param turns: degrees that the gantry turns clockwise for each strip of a VMAT test, from the lowest x;
        empty = the gantry stands, and the field is open.
    """

    number: int
    name: str
    gantry: float = 0.0
    collimator: float = 0.0
    couch: float = 0.0
    meterset: float = 100.0
    turns: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QAPlan:
    """A plan of machine QA.

    :param label: RTPlanLabel (300A,0002), ARIA's plan ID.
    :param exercise: what its images show.
    :param energy: nominal beam energy in MV.
    :param flattened: whether the beam passes a flattening filter.
    :param beams: its beams; one MV image a day for each.
    :param kv_gantry: gantry angles at which a kV image follows, in the same series.
    :param field_mm: side of the square field in the isocentre plane, millimetres.
    :param starts: clinic-local time at which the session may begin.
    :param planned: RTPlanDate.
    :param image_type: ImageType (0008,0008) of its MV images: portal images, or acquired portal dose.
    :param rhythm: on which days its session is due.
    :param strips_mm: centres of a VMAT test's strips in the isocentre plane, millimetres, from the lowest x.
    """

    label: str
    exercise: Exercise
    energy: int
    flattened: bool
    beams: tuple[Beam, ...]
    kv_gantry: tuple[float, ...] = ()
    field_mm: float
    starts: time
    planned: date
    image_type: tuple[str, ...] = PORTAL
    rhythm: Rhythm = Rhythm.DAILY
    strips_mm: tuple[float, ...] = ()

    @property
    def strip_width_mm(self) -> float:
        """Width of a VMAT test's strips in the isocentre plane: 2 mm are left between neighbours."""
        return self.strips_mm[1] - self.strips_mm[0] - 2.0

    @property
    def energy_name(self) -> str:
        """Name of the beam quality as ARIA writes it, e.g. ``6X`` or ``6X-FFF``."""
        return f"{self.energy}X" if self.flattened else f"{self.energy}X-FFF"


@dataclass(frozen=True, slots=True, kw_only=True)
class QACourse:
    """A course of a QA patient; its objects share one study whose StudyID is the course ID.

    :param course_id: (0020,0010) StudyID.
    :param opened: StudyDate.
    :param plans: plans of the course.
    :param sessions: days with sessions; ``None`` = every day of the clinic's window that a plan's rhythm names.
    """

    course_id: str
    opened: date
    plans: tuple[QAPlan, ...]
    sessions: tuple[date, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Linac:
    """A treatment machine and its QA patient.

    :param name: RadiationMachineName (3002,0020).
    :param model: what the vendor calls it.
    :param serial: DeviceSerialNumber of the imager.
    :param ring: whether the gantry is a closed ring.
    """

    name: str
    model: str
    serial: str
    ring: bool
    patient_id: str
    patient_name: str
    courses: tuple[QACourse, ...]


def _winston_lutz_beams() -> tuple[Beam, ...]:
    angles = (
        (0, 0, 0), (90, 0, 0), (180, 0, 0), (270, 0, 0),
        (0, 90, 0), (0, 270, 0), (0, 0, 45), (0, 0, 315),
    )  # fmt: skip
    return tuple(
        Beam(number=number, name=f"G{gantry}C{collimator}T{couch}", gantry=gantry, collimator=collimator, couch=couch)
        for number, (gantry, collimator, couch) in enumerate(angles, start=1)
    )


def _picket_fence(label: str, energy: int, flattened: bool, starts: time, planned: date) -> QAPlan:
    beams = (Beam(number=1, name="PF G0", meterset=200.0),)
    return QAPlan(
        label=label,
        exercise=Exercise.PICKET_FENCE,
        energy=energy,
        flattened=flattened,
        beams=beams,
        field_mm=200.0,
        starts=starts,
        planned=planned,
    )


def _open_field(label: str, energy: int, flattened: bool, starts: time, planned: date) -> QAPlan:
    return QAPlan(
        label=label,
        exercise=Exercise.OPEN_FIELD,
        energy=energy,
        flattened=flattened,
        beams=(Beam(number=1, name="Open G0"),),
        field_mm=150.0,
        starts=starts,
        planned=planned,
    )


def _vmat(
    label: str, exercise: Exercise, strips_mm: tuple[float, ...], turns: tuple[float, ...], starts: time
) -> QAPlan:
    return QAPlan(
        label=label,
        exercise=exercise,
        energy=6,
        flattened=True,
        beams=(
            Beam(number=1, name="Open G0"),
            Beam(number=2, name="DMLC arc", gantry=181.0, meterset=400.0, turns=turns),
        ),
        field_mm=150.0,
        starts=starts,
        planned=date(2026, 1, 5),
        rhythm=Rhythm.FIRST_WEDNESDAY,
        strips_mm=strips_mm,
    )


_WL_10MV: Final = QAPlan(
    label="WL_10MV",
    exercise=Exercise.WINSTON_LUTZ,
    energy=10,
    flattened=True,
    beams=_winston_lutz_beams(),
    kv_gantry=(0.0, 90.0),
    field_mm=20.0,
    starts=time(6, 32),
    planned=date(2026, 1, 5),
)

TRUEBEAM1: Final = Linac(
    name="TrueBeam1",
    model="TrueBeam",
    serial="3340",
    ring=False,
    patient_id="QA_TB_WL",
    patient_name="QA^TrueBeam1",
    courses=(
        QACourse(
            course_id="QA",
            opened=date(2026, 1, 5),
            plans=(
                _WL_10MV,
                _picket_fence("PF_6MV", 6, True, time(6, 48), date(2026, 1, 5)),
                _open_field("OPEN_6MV", 6, True, time(6, 54), date(2026, 1, 5)),
                # The same dose to each strip: the slower the gantry, the lower the dose rate.
                _vmat(
                    "T2_DRGS",
                    Exercise.DOSE_RATE_GANTRY_SPEED,
                    (-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0),
                    (80.0, 65.0, 50.0, 40.0, 32.0, 26.0, 22.0),
                    time(7, 0),
                ),
                _vmat(
                    "T3_MLCS",
                    Exercise.DOSE_RATE_LEAF_SPEED,
                    (-45.0, -15.0, 15.0, 45.0),
                    (20.0, 40.0, 80.0, 160.0),
                    time(7, 6),
                ),
            ),
        ),
        # Labels are only unique inside a course (varian-daemon 1.3): the same label a year before.
        QACourse(
            course_id="QA_2025",
            opened=date(2025, 1, 7),
            plans=(_picket_fence("PF_6MV", 6, True, time(6, 48), date(2025, 1, 7)),),
            sessions=(date(2025, 11, 3), date(2025, 12, 1)),
        ),
    ),
)

HALCYON2: Final = Linac(
    name="Halcyon2",
    model="Halcyon",
    serial="1004",
    ring=True,
    patient_id="$QA Halcyon2_2026",
    patient_name="$QA^Halcyon2",
    courses=(
        QACourse(
            course_id="QA",
            opened=date(2026, 1, 6),
            plans=(
                _picket_fence("DailyQA_PF_6FFF", 6, False, time(6, 36), date(2026, 1, 6)),
                _open_field("OPEN_6FFF", 6, False, time(6, 44), date(2026, 1, 6)),
                # Last, since a plan's place in its course stands in UIDs.
                replace(
                    _open_field("PDOSE_6FFF", 6, False, time(6, 50), date(2026, 1, 6)),
                    image_type=PORTAL_DOSE,
                ),
            ),
        ),
    ),
)

#: Order counts: a linac's place is the number of its QA patient, which stands in UIDs.
LINACS: Final = (TRUEBEAM1, HALCYON2)
