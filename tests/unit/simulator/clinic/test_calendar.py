from __future__ import annotations

from datetime import date, timedelta
from itertools import islice

from airflow_provider_varian.simulator.clinic.calendar import (
    FIRST_CLINICAL,
    is_working_day,
    newest_patient,
    planning_day,
    working_days_after,
)

START = date(2024, 2, 1)
YEARS = [START + timedelta(days=days) for days in range(3 * 366)]


def test_one_patient_is_planned_on_each_weekday():
    first = newest_patient(date(2026, 11, 15))  # a Sunday
    assert [planning_day(first + number) for number in range(-4, 7)] == [
        date(2026, 11, day) for day in (9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 23)
    ]


def test_the_newest_patient_of_a_day_was_planned_by_then_and_the_next_later():
    for day in YEARS:
        newest = newest_patient(day)
        assert planning_day(newest) <= day < planning_day(newest + 1)


def test_nobody_is_planned_on_a_holiday_and_nobody_is_lost():
    newest = newest_patient(date(2026, 12, 31))
    days = [planning_day(newest + number) for number in range(-400, 400)]
    assert all(is_working_day(day) for day in days)
    assert days == sorted(days)
    assert days.count(date(2026, 12, 28)) == 3, "its own patient, and those of Christmas Eve and Christmas Day"


def test_before_the_first_patient_there_is_none():
    assert newest_patient(date(1601, 1, 1)) == FIRST_CLINICAL - 1, "New Year's Day"
    assert newest_patient(date(1601, 1, 2)) == FIRST_CLINICAL + 1, "the patient of the holiday, and the day's own"


def test_the_clinic_works_on_weekdays_that_are_no_holidays():
    days = list(islice(working_days_after(date(2026, 12, 22)), 6))
    assert days == [date(2026, 12, 23), date(2026, 12, 28), date(2026, 12, 29), date(2026, 12, 30),
                    date(2027, 1, 4), date(2027, 1, 5)]  # fmt: skip
