from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from airflow_provider_varian.simulator.clinic.identity import Identity
from airflow_provider_varian.simulator.clinic.linacs import HALCYON2, LINACS, TRUEBEAM1, Rhythm
from airflow_provider_varian.simulator.clinic.sessions import (
    PUNCTUAL,
    Punctuality,
    arrives,
    delay,
    has_arrived,
    session,
    takes_place,
    truth,
)

IDENTITY = Identity(1)
PLAN = TRUEBEAM1.courses[0].plans[0]
DAYS = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
VMAT = [plan for plan in TRUEBEAM1.courses[0].plans if plan.strips_mm]


def test_a_daily_session_is_due_each_day_and_a_monthly_one_on_the_first_wednesday():
    assert all(Rhythm.DAILY.is_due(day) for day in DAYS)
    due = [day for day in DAYS if Rhythm.FIRST_WEDNESDAY.is_due(day)]
    assert [day.month for day in due] == list(range(1, 13))
    assert date(2026, 11, 4) in due
    assert {day.weekday() for day in due} == {2}


def test_without_a_word_each_session_takes_place_and_is_there_when_it_ends():
    for linac in LINACS:
        for plan in linac.courses[0].plans:
            day = date(2026, 11, 4)
            last = session(IDENTITY, linac, plan, day).exposures[-1].acquired
            assert arrives(IDENTITY, linac, plan, day) == last
            assert has_arrived(IDENTITY, linac, plan, day, datetime(2026, 11, 4)), "a day is whole at any hour"
    assert [len(VMAT), arrives(IDENTITY, TRUEBEAM1, VMAT[0], date(2026, 11, 5))] == [2, None]


def test_a_machine_that_is_down_has_no_session_at_all_that_day():
    often = Punctuality(missing=0.2)
    missing = [day for day in DAYS if not takes_place(IDENTITY, TRUEBEAM1, PLAN, day, often)]
    assert 40 < len(missing) < 110
    for day in missing:
        plans = [plan for plan in TRUEBEAM1.courses[0].plans if plan.rhythm.is_due(day)]
        assert [arrives(IDENTITY, TRUEBEAM1, plan, day, often) for plan in plans] == [None] * len(plans)
        assert not any(has_arrived(IDENTITY, TRUEBEAM1, plan, day, datetime.max, often) for plan in plans)
    other = HALCYON2.courses[0].plans[0]
    assert any(takes_place(IDENTITY, HALCYON2, other, day, often) for day in missing), "machines fail by themselves"


def test_a_late_session_is_not_there_until_it_arrives():
    often = Punctuality(late=0.2)
    late = [day for day in DAYS if delay(IDENTITY, TRUEBEAM1, PLAN, day, often)]
    assert 40 < len(late) < 110
    for day in late:
        acquired = session(IDENTITY, TRUEBEAM1, PLAN, day).exposures[-1].acquired
        arrival = arrives(IDENTITY, TRUEBEAM1, PLAN, day, often)
        assert timedelta(hours=2) <= arrival - acquired <= timedelta(hours=48)
        assert not has_arrived(IDENTITY, TRUEBEAM1, PLAN, day, arrival - timedelta(seconds=1), often)
        assert has_arrived(IDENTITY, TRUEBEAM1, PLAN, day, arrival, often)
    another = TRUEBEAM1.courses[0].plans[1]
    assert not all(delay(IDENTITY, TRUEBEAM1, another, day, often) for day in late), "each session by itself"


def test_what_is_late_or_missing_depends_on_the_seed_alone_and_grows_with_the_share():
    def missing(share: float, seed: int = 1) -> set[date]:
        often = Punctuality(missing=share)
        return {day for day in DAYS if not takes_place(Identity(seed), TRUEBEAM1, PLAN, day, often)}

    assert missing(0.0) == set()
    assert missing(0.1) < missing(0.3) < missing(1.0) == set(DAYS)
    assert missing(0.3) != missing(0.3, seed=2)
    assert all(delay(IDENTITY, TRUEBEAM1, PLAN, day, Punctuality(late=1.0)) for day in DAYS)


@pytest.mark.parametrize("share", [-0.1, 1.1])
@pytest.mark.parametrize("name", ["missing", "late"])
def test_a_share_is_from_nothing_to_all(name, share):
    with pytest.raises(ValueError, match=f"{name} is a share from 0 to 1, not {share}"):
        Punctuality(**{name: share})
    assert getattr(PUNCTUAL, name) == 0.0


def test_the_strips_of_a_vmat_test_deviate_from_their_mean_and_other_plans_have_none():
    one, other = date(2026, 11, 4), date(2026, 12, 2)
    for plan in VMAT:
        drawn = [truth(IDENTITY, TRUEBEAM1, plan, day).strip_deviation_percent for day in (one, other)]
        assert [len(each) for each in drawn] == [len(plan.strips_mm)] * 2
        assert [sum(each) for each in drawn] == pytest.approx([0.0, 0.0], abs=1e-9)
        assert drawn[0] != drawn[1]
        assert drawn[0] == pytest.approx(drawn[1], abs=2.0), "most of it stands"
    assert truth(IDENTITY, TRUEBEAM1, PLAN, one).strip_deviation_percent == ()
