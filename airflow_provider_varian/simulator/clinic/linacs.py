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
    """The test that a plan's images serve."""

    WINSTON_LUTZ = "winston-lutz"
    PICKET_FENCE = "picket-fence"
    OPEN_FIELD = "open-field"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """A treatment beam of a QA plan.

    :param number: (300A,00C0) Beam Number.
    :param name: (300A,00C2) Beam Name.
    :param gantry: gantry angle, degrees IEC 61217.
    :param collimator: beam limiting device angle, degrees.
    :param couch: patient support angle, degrees.
    :param meterset: monitor units.
    """

    number: int
    name: str
    gantry: float = 0.0
    collimator: float = 0.0
    couch: float = 0.0
    meterset: float = 100.0


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
    :param sessions: days with images; ``None`` = every day of the clinic's window.
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
