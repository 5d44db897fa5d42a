from __future__ import annotations

import pytest

from airflow_provider_varian.simulator.clinic.calendar import planning_day
from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.clinic.irregularities import ALL, Irregularity, irregularities_of
from airflow_provider_varian.simulator.clinic.patients import patient_id, patient_number, person

IDENTITY = Identity(7)
NUMBERS = range(111_000, 111_400)


def ids_with(irregularity):
    return {
        number: patient_id(IDENTITY, number)
        for number in NUMBERS
        if irregularity in irregularities_of(IDENTITY, number)
    }


@pytest.mark.parametrize(
    "wanted", [ALL, frozenset(), ALL - {Irregularity.LONG_PATIENT_ID}], ids=["all", "none", "some"]
)
def test_every_patient_has_an_id_of_his_own_by_which_he_is_found(wanted):
    ids = [patient_id(IDENTITY, number, wanted) for number in NUMBERS]
    assert len(set(ids)) == len(ids)
    assert [patient_number(IDENTITY, each, wanted) for each in ids] == list(NUMBERS)


def test_an_id_that_nobody_has_finds_nobody():
    plain = next(patient_id(IDENTITY, number) for number in NUMBERS if not irregularities_of(IDENTITY, number))
    for near in (f"x{plain}", f"{plain}99", plain[:5], f"${plain}", "", "QA_TB_WL"):
        assert patient_number(IDENTITY, near) is None


def test_ids_of_a_clinic_without_irregularities_are_six_digits():
    assert all(patient_id(IDENTITY, number, frozenset()).isdecimal() for number in NUMBERS)
    assert {len(patient_id(IDENTITY, number, frozenset())) for number in NUMBERS} == {6}


@pytest.mark.parametrize(
    ("irregularity", "odd"),
    [
        (Irregularity.PATIENT_ID_WITH_DOLLAR, lambda text: text.startswith("$")),
        (Irregularity.PATIENT_ID_WITH_BLANK, lambda text: " " in text.strip()),
        (Irregularity.PATIENT_ID_WITH_UNDERSCORE, lambda text: text.startswith("_")),
        (Irregularity.LONG_PATIENT_ID, lambda text: 16 < len(text) <= 64),
        (Irregularity.PATIENT_ID_ONE_LONGER, lambda text: text.isdecimal() and len(text) == 7),
    ],
)
def test_an_irregular_id_is_what_it_is_called_and_no_other_is(irregularity, odd):
    listed = ids_with(irregularity)
    assert listed
    assert {number for number in NUMBERS if odd(patient_id(IDENTITY, number))} == set(listed)


def test_an_id_that_is_one_longer_begins_with_another_patients():
    everyone = {patient_id(IDENTITY, number) for number in range(110_999, 111_400)}
    assert all(each[:-1] in everyone for each in ids_with(Irregularity.PATIENT_ID_ONE_LONGER).values())


def test_ids_that_differ_in_case_come_in_twos():
    listed = list(ids_with(Irregularity.PATIENT_ID_IN_OTHER_CASE).values())
    assert len(listed) >= 4
    for one, other in zip(listed[::2], listed[1::2], strict=True):
        assert one != other
        assert one.lower() == other.lower()


def test_names_bite_and_people_are_grown_up():
    people = [person(IDENTITY, number) for number in NUMBERS]
    names = " ".join(each.name for each in people)
    assert all(letter in names for letter in "ü山Ł")
    assert all(each.name != each.former_name for each in people)
    ages = [
        (planning_day(number) - each.birth_date).days / 365.25 for number, each in zip(NUMBERS, people, strict=True)
    ]
    assert 17.9 < min(ages) < 40 < max(ages) < 90
    assert {each.sex for each in people} == {"M", "F"}


def test_another_seed_gives_other_patients():
    other = Identity(8)
    assert patient_id(other, NUMBERS[1], frozenset()) != patient_id(IDENTITY, NUMBERS[1], frozenset())
    assert [person(other, number) for number in NUMBERS[:9]] != [person(IDENTITY, number) for number in NUMBERS[:9]]
