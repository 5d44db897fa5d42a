"""Dates for templates: the clinic's days of a run, whatever made it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_varian.plugins.macros import date_range, run_day

ZURICH, NEW_YORK = "Europe/Zurich", "America/New_York"


def test_the_days_that_a_run_covers_are_a_range_and_a_whole_day_is_itself(dag_run):
    morning = dag_run(start=datetime(2026, 11, 18, 6, 45, tzinfo=UTC), end=datetime(2026, 11, 19, 6, 45, tzinfo=UTC))
    assert date_range(morning, ZURICH) == "20261118-20261119"
    day = dag_run(start=datetime(2026, 11, 18, 23, tzinfo=UTC), end=datetime(2026, 11, 19, 23, tzinfo=UTC))
    assert date_range(day, ZURICH) == "20261119"


def test_days_are_the_clinics_where_those_of_utc_are_others(dag_run):
    late = dag_run(run_after=datetime(2026, 11, 20, 2, tzinfo=UTC))
    assert (run_day(late, ZURICH), run_day(late, NEW_YORK)) == ("2026-11-20", "2026-11-19")
    assert date_range(late, NEW_YORK) == "20261118-20261119"


def test_earlier_days_are_asked_for_too(dag_run):
    late = dag_run(run_after=datetime(2026, 3, 2, 9, tzinfo=UTC))
    assert date_range(late, ZURICH, lookback_days=3) == "20260226-20260302"


def test_a_template_that_cannot_be_right_fails_the_task_for_good(dag_run):
    with pytest.raises(AirflowFailException, match="no time zone"):
        date_range(dag_run(), None)
    with pytest.raises(AirflowFailException, match="no time zone 2"):
        date_range(dag_run(), 2)
    for days in ("3", -1, 3.0, True, 10_000_000):
        with pytest.raises(AirflowFailException, match="lookback_days"):
            date_range(dag_run(), ZURICH, lookback_days=days)
    instant = datetime(2026, 11, 19, tzinfo=UTC)
    with pytest.raises(AirflowFailException, match="window is empty"):
        run_day(dag_run(start=instant, end=instant), ZURICH)
