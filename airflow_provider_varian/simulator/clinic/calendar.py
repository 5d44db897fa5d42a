"""The clinic's working days, and which patient was planned on which.

On each weekday since 1601 one new clinical patient is planned, so a patient's number and day follow from
each other and from nothing else: neither from the seed nor from how many patients a clinic has.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Final

#: Number of the first clinical patient; the machines' QA patients come before.
FIRST_CLINICAL: Final = 100

#: A Monday, and far enough back that there are always patients enough.
_EPOCH: Final = date(1601, 1, 1)
_WEEKDAYS: Final = 5
#: Month and day of the days on which nobody is planned or treated.
_HOLIDAYS: Final = frozenset({(1, 1), (5, 1), (12, 24), (12, 25), (12, 26), (12, 31)})
_DAY: Final = timedelta(days=1)


def is_working_day(day: date) -> bool:
    """Say whether patients are planned and treated on a day."""
    return day.weekday() < _WEEKDAYS and (day.month, day.day) not in _HOLIDAYS


def working_days_after(day: date) -> Iterator[date]:
    """Yield the working days after a day, without end."""
    while True:
        day += _DAY
        if is_working_day(day):
            yield day


def planning_day(number: int) -> date:
    """Return the day of a patient's first planning CT: the patient's weekday or, on a holiday, the next working day.

    :param number: of a clinical patient, from :data:`FIRST_CLINICAL`.
    """
    weeks, weekday = divmod(number - FIRST_CLINICAL, _WEEKDAYS)
    day = _EPOCH + timedelta(days=7 * weeks + weekday)
    while not is_working_day(day):
        day += _DAY
    return day


def newest_patient(until: date) -> int:
    """Return the number of the patient planned last, on or before a day; one less than the first when there is none."""
    weeks, weekday = divmod((until - _EPOCH).days, 7)
    number = FIRST_CLINICAL + weeks * _WEEKDAYS + min(weekday, _WEEKDAYS - 1)
    while number >= FIRST_CLINICAL and planning_day(number) > until:
        number -= 1
    return max(number, FIRST_CLINICAL - 1)
