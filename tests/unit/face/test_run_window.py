"""Which days a run judges: form, data interval, or the last 24 hours; in the clinic's time."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_varian.errors import ConfigurationError, QueryError
from airflow_provider_varian.operators.run_window import run_window_of

ZONE = ZoneInfo("Europe/Zurich")


def test_a_scheduled_run_judges_the_clinics_day_on_which_its_interval_ends(dag_run):
    run = run_window_of(
        dag_run(start=datetime(2026, 11, 18, 6, 45, tzinfo=UTC), end=datetime(2026, 11, 19, 6, 45, tzinfo=UTC)),
        ZONE,
        lookback_days=3,
    )
    assert run.run_day == date(2026, 11, 19)
    assert run.days[0] == date(2026, 11, 15)
    assert run.window.end == datetime(2026, 11, 19, 6, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    ("end", "hours"),
    [(datetime(2026, 3, 29, 7, 45, tzinfo=ZONE), 23), (datetime(2026, 10, 25, 7, 45, tzinfo=ZONE), 25)],
)
def test_a_day_with_a_change_of_the_clock_is_listed_whole(dag_run, end, hours):
    start = end.replace(day=end.day - 1)
    assert (end.astimezone(UTC) - start.astimezone(UTC)).total_seconds() == hours * 3600
    run = run_window_of(dag_run(start=start, end=end), ZONE, lookback_days=0)
    assert run.run_day == end.date()
    assert run.window.start == datetime(start.year, start.month, start.day, tzinfo=ZONE)
    assert run.window.end == end


def test_a_run_without_a_logical_date_judges_the_last_24_hours(dag_run):
    run = run_window_of(dag_run(run_after=datetime(2026, 11, 20, 9, tzinfo=UTC)), ZONE, lookback_days=0)
    assert run.run_day == date(2026, 11, 20)
    assert run.days == (date(2026, 11, 19), date(2026, 11, 20))


@pytest.mark.parametrize("last", [None, "", "None"])
def test_one_day_of_the_form_is_judged_whole_whatever_the_interval_says(dag_run, last):
    run = run_window_of(
        dag_run(start=datetime(2026, 11, 18, tzinfo=UTC), end=datetime(2026, 11, 19, tzinfo=UTC)),
        ZONE,
        first_day="2026-10-25",
        last_day=last,
        lookback_days=0,
    )
    assert run.days == (date(2026, 10, 25),)
    assert (run.window.end - run.window.start).total_seconds() == 25 * 3600


def test_a_range_of_the_form_is_judged_by_its_last_day(dag_run):
    run = run_window_of(dag_run(), ZONE, first_day="2026-11-02", last_day="2026-11-04", lookback_days=0)
    assert run.run_day == date(2026, 11, 4)
    assert len(run.days) == 3


def test_an_interval_without_width_is_refused_with_the_remedy(dag_run):
    instant = datetime(2026, 11, 19, 6, 45, tzinfo=UTC)
    with pytest.raises(QueryError, match="CronDataIntervalTimetable"):
        run_window_of(dag_run(start=instant, end=instant), ZONE, lookback_days=3)


def test_a_day_that_is_none_is_named(dag_run):
    with pytest.raises(ConfigurationError, match=r"first_day is .19\.11\.2026."):
        run_window_of(dag_run(), ZONE, first_day="19.11.2026", lookback_days=3)
