"""Patients who are not machines: decoys with names and IDs as real ones have them.

They must never come out of a machine-QA job, and their names must never show up in a log. Names
come with accents, umlauts and in several scripts (PS3.5 6.2.1.1: alphabetic, ideographic and
phonetic groups).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from airflow_provider_varian.simulator.clinic.identity import Identity

_FAMILY: Final = (
    ("Müller", ""), ("Yamada", "山田"), ("García", ""), ("Wang", "王"), ("Ångström", ""), ("Kim", "김"),
    ("Łukaszewicz", ""), ("Øverland", ""), ("Nguyễn", ""), ("Şahin", ""), ("O'Connor", ""), ("Schäfer", ""),
)  # fmt: skip
_GIVEN: Final = (
    ("Jürgen", "勇"), ("Tarō", "太郎"), ("José", "和"), ("Xiǎodōng", "晓东"), ("Åse", "明"), ("Ji-hoon", "지훈"),
    ("Zoë", "美"), ("Renée", "丽"), ("Björk", "光"), ("Gül", "花"), ("Mary Ann", "安"), ("Günther", "健"),
)  # fmt: skip
_LABELS: Final = ("PROST_78Gy", "LungL_SBRT", "HN_70Gy", "BreastR_40Gy", "Brain_mets", "PF_6MV")
#: 9967 is prime and shares no factor with the span, so numbers never repeat (an affine permutation).
_SPAN: Final = 900_000
_STEP: Final = 9967


@dataclass(frozen=True, slots=True, kw_only=True)
class ClinicalPatient:
    """A patient under treatment, as far as the first form of the simulator knows one.

    :param patient_id: (0010,0020).
    :param name: (0010,0010), alphabetic and, for some, ideographic group.
    :param plan_label: label of the one plan.
    :param planned: RTPlanDate.
    :param approved: whether the plan is approved.
    :param machine: TreatmentMachineName.
    """

    patient_id: str
    name: str
    birth_date: date
    sex: str
    course_id: str
    plan_label: str
    planned: date
    approved: bool
    machine: str
    energy: int
    gantry_angles: tuple[float, ...]


def clinical_patient_id(identity: Identity, number: int) -> str:
    """Return the ID of the clinical patient of a number, from 0; no two are alike."""
    start = identity.number("patient-ids") % _SPAN
    return f"{100_000 + (start + number * _STEP) % _SPAN:06d}"


def clinical_patient(identity: Identity, number: int) -> ClinicalPatient:
    """Make up the clinical patient of a number, from 0."""
    chance = identity.draw("clinical", number)
    family, given = chance.choice(_FAMILY), chance.choice(_GIVEN)
    alphabetic = f"{family[0]}^{given[0]}"
    name = f"{alphabetic}={family[1]}^{given[1]}" if family[1] else alphabetic
    return ClinicalPatient(
        patient_id=clinical_patient_id(identity, number),
        name=name,
        birth_date=date(1935, 1, 1) + timedelta(days=chance.randrange(25_000)),
        sex=chance.choice("MF"),
        course_id="C1",
        plan_label=chance.choice(_LABELS),
        planned=date(2026, 1, 7) + timedelta(days=chance.randrange(300)),
        approved=chance.random() < 0.8,
        machine=chance.choice(("TrueBeam1", "Halcyon2")),
        energy=6,
        gantry_angles=tuple(sorted(float(angle) for angle in chance.sample(range(0, 360, 5), chance.randint(2, 5)))),
    )
