"""Late and missing QA sessions, as the clinic lists them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from support.simulated import UNTIL, identifier

from airflow_provider_varian.query.level import Level
from airflow_provider_varian.simulator.clinic.sessions import Punctuality
from airflow_provider_varian.simulator.facts import facts
from airflow_provider_varian.simulator.holdings.synthetic import Clinic
from airflow_provider_varian.simulator.holdings.tree import Search, walk


def clinic(until: date | None = UNTIL, **shares: float) -> Clinic:
    return Clinic(patients=0, days=10, until=until, matrix=32, punctuality=Punctuality(**shares))


def winston_lutz(clinic: Clinic):
    return next(fact for fact in facts(clinic) if fact.label == "WL_10MV")


def listed(clinic: Clinic) -> set[str]:
    """Return the days whose Winston-Lutz images a search of the patient lists."""
    fact = winston_lutz(clinic)
    keys = identifier("", PatientID=fact.patient_id, Modality="RTIMAGE")
    series = {chain[-2].uid for chain in walk(clinic, Search(Level.IMAGE, keys))}
    return {str(day) for day in clinic.days if fact.image_series_uid(day) in series}


def test_a_missing_session_is_not_listed_and_has_no_arrival():
    held = clinic(missing=0.4)
    fact = winston_lutz(held)
    without = [day for day in held.days if day not in fact.days]
    assert without
    assert fact.days
    assert listed(held) == set(map(str, fact.days))
    assert [fact.arrival(day) for day in without] == [None] * len(without)
    assert all(fact.images(day) == () for day in without)
    # The others are what they would have been.
    assert [fact.images(day) for day in fact.days] == [winston_lutz(clinic()).images(day) for day in fact.days]


def test_a_late_session_is_listed_from_its_arrival_on():
    whole = clinic(late=1.0)
    fact = winston_lutz(whole)
    not_yet = [day for day in whole.days if day not in fact.days]
    assert not_yet
    assert fact.days
    assert listed(whole) == set(map(str, fact.days))
    end = datetime(2026, 11, 21)
    assert whole.now == end
    assert all(fact.arrival(day) > end for day in not_yet)
    assert all(fact.arrival(day) <= end for day in fact.days)
    two_days_on = clinic(until=UNTIL + timedelta(days=2), late=1.0)
    assert set(map(str, not_yet)) <= listed(two_days_on)


def test_a_clinic_of_today_goes_by_the_clock_of_its_zone():
    def clock() -> datetime:
        return datetime.now(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)

    late = Punctuality(late=1.0)
    running = Clinic(patients=0, days=10, matrix=32, timezone=ZoneInfo("Asia/Tokyo"), punctuality=late)
    before = clock()
    now, fact = running.now, winston_lutz(running)
    after = clock()
    assert before <= now <= after
    arrivals = {day: fact.arrival(day) for day in running.days}
    assert {day for day, arrival in arrivals.items() if arrival <= before} <= set(fact.days)
    assert all(arrivals.get(day, before) <= after for day in fact.days)


def test_what_is_missing_may_change_while_the_clinic_is_open():
    held = clinic()
    assert len(listed(held)) == 10
    held.punctuality = Punctuality(missing=1.0)
    assert listed(held) == set()


def test_the_monthly_tests_have_images_on_their_day_only():
    held = Clinic(patients=0, days=60, until=UNTIL, matrix=32)
    monthly = {fact.label: fact for fact in facts(held) if fact.label in ("T2_DRGS", "T3_MLCS")}
    assert {label: fact.days for label, fact in monthly.items()} == dict.fromkeys(
        ("T2_DRGS", "T3_MLCS"), (date(2026, 10, 7), date(2026, 11, 4))
    )
    for fact in monthly.values():
        keys = identifier("", PatientID=fact.patient_id, SeriesInstanceUID=fact.image_series_uid(date(2026, 11, 5)))
        assert list(walk(held, Search(Level.IMAGE, keys))) == []
