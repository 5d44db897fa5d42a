"""Who the clinical patients are: Patient IDs and names as real ones are.

Their names must never show up in a log. Names come with accents, umlauts and in several scripts (PS3.5
6.2.1.1: alphabetic, ideographic and phonetic groups); IDs are six digits, and some are of the kinds that
:mod:`.irregularities` knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from airflow_provider_varian.simulator.clinic.calendar import FIRST_CLINICAL, planning_day
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.clinic.irregularities import (
    ALL,
    Irregularity,
    is_twin,
    patient_id_irregularities,
)

_FAMILY: Final = (
    ("Müller", ""), ("Yamada", "山田"), ("García", ""), ("Wang", "王"), ("Ångström", ""), ("Kim", "김"),
    ("Łukaszewicz", ""), ("Øverland", ""), ("Nguyễn", ""), ("Şahin", ""), ("O'Connor", ""), ("Schäfer", ""),
)  # fmt: skip
_GIVEN: Final = (
    ("Jürgen", "勇"), ("Tarō", "太郎"), ("José", "和"), ("Xiǎodōng", "晓东"), ("Åse", "明"), ("Ji-hoon", "지훈"),
    ("Zoë", "美"), ("Renée", "丽"), ("Björk", "光"), ("Gül", "花"), ("Mary Ann", "安"), ("Günther", "健"),
)  # fmt: skip
_FIRST_ID: Final = 100_000
#: 9967 is prime and shares no factor with the span, so numbers never repeat (an affine permutation).
_SPAN: Final = 900_000
_STEP: Final = 9967
_BACK: Final = pow(_STEP, -1, _SPAN)
_DIGITS: Final = re.compile(r"\d{6}")

#: How the digits are dressed.
_FORMS: Final = {
    Irregularity.PATIENT_ID_WITH_DOLLAR: "$T{digits}",
    Irregularity.PATIENT_ID_WITH_BLANK: "RT {digits}",
    Irregularity.PATIENT_ID_WITH_UNDERSCORE: "_{digits}",
    Irregularity.LONG_PATIENT_ID: "MULTICENTRE_{digits}_ARM_B",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What a clinical patient is called.

    :param name: (0010,0010), alphabetic and, for some, ideographic group.
    :param former_name: the same person under another family name.
    """

    name: str
    former_name: str
    birth_date: date
    sex: str


def patient_id(identity: Identity, number: int, wanted: frozenset[Irregularity] = ALL) -> str:
    """Return the ID of a clinical patient; no two are alike.

    :param number: of the patient, from :data:`.calendar.FIRST_CLINICAL`.
    :param wanted: irregularities that the clinic has.
    """
    for irregularity in patient_id_irregularities(number, wanted):
        if irregularity in _FORMS:
            return _FORMS[irregularity].format(digits=_digits(identity, number))
        if irregularity is Irregularity.PATIENT_ID_ONE_LONGER:
            return f"{_digits(identity, number - 1)}0"
        if irregularity is Irregularity.PATIENT_ID_IN_OTHER_CASE:
            twin = is_twin(number)
            return f"{'RT' if twin else 'Rt'}{_digits(identity, number - 1 if twin else number)}"
    return _digits(identity, number)


def patient_number(identity: Identity, wanted_id: str, wanted: frozenset[Irregularity] = ALL) -> int | None:
    """Return the number of the clinical patient of an ID; ``None`` when there is none."""
    found = _DIGITS.search(wanted_id)
    if found is None:
        return None
    place = (int(found[0]) - _FIRST_ID - _start(identity)) * _BACK % _SPAN
    # Some IDs are made of a neighbour's digits.
    for number in (FIRST_CLINICAL + place, FIRST_CLINICAL + place + 1):
        if patient_id(identity, number, wanted) == wanted_id:
            return number
    return None


def person(identity: Identity, number: int) -> Person:
    """Make up the person of a number."""
    chance = identity.draw("clinical", number)
    family, given = chance.choice(_FAMILY), chance.choice(_GIVEN)
    age = timedelta(days=chance.randrange(18 * 365, 90 * 365))
    sex = chance.choice("MF")
    other = chance.choice([each for each in _FAMILY if each != family])
    return Person(
        name=_name(family, given),
        former_name=_name(other, given),
        birth_date=planning_day(number) - age,
        sex=sex,
    )


def _name(family: tuple[str, str], given: tuple[str, str]) -> str:
    alphabetic = f"{family[0]}^{given[0]}"
    return f"{alphabetic}={family[1]}^{given[1]}" if family[1] else alphabetic


@lru_cache(maxsize=16)
def _start(identity: Identity) -> int:
    return identity.number("patient-ids") % _SPAN


def _digits(identity: Identity, number: int) -> str:
    return f"{_FIRST_ID + (_start(identity) + (number - FIRST_CLINICAL) * _STEP) % _SPAN:06d}"
