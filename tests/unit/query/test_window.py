from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_varian.errors import ConfigurationError, QueryError
from airflow_provider_varian.query.verdict import Verdict
from airflow_provider_varian.query.window import Window, clinic_zone, date_range_key, day_window, run_day, run_window

ZURICH, NEW_YORK = ZoneInfo("Europe/Zurich"), ZoneInfo("America/New_York")
MATCH, MISS, UNDECIDED = Verdict.MATCH, Verdict.MISS, Verdict.UNDECIDED


def at(zone, *parts, fold=0):
    return datetime(*parts, tzinfo=zone, fold=fold)


def test_a_window_of_whole_days_in_the_clinics_zone():
    window = day_window(date(2026, 1, 2), date(2026, 1, 3), ZURICH)
    assert window.start == datetime(2026, 1, 1, 23, tzinfo=UTC)
    assert window.end == datetime(2026, 1, 3, 23, tzinfo=UTC)
    assert window.days(ZURICH) == (date(2026, 1, 2), date(2026, 1, 3))
    assert date_range_key(window, ZURICH) == "20260102-20260103"


def test_one_day_is_asked_for_by_one_date():
    assert date_range_key(day_window(date(2026, 1, 2), date(2026, 1, 2), ZURICH), ZURICH) == "20260102"


def test_utc_instants_are_asked_for_by_the_clinics_days():
    # 23:30 UTC on the 1st is the 2nd in Zurich and still the 1st in New York.
    window = Window(datetime(2026, 1, 1, 23, 30, tzinfo=UTC), datetime(2026, 1, 2, 6, 45, tzinfo=UTC))
    assert date_range_key(window, ZURICH) == "20260102"
    assert date_range_key(window, NEW_YORK) == "20260101-20260102"


def test_date_and_time_are_compared_to_the_microsecond():
    window = Window(at(ZURICH, 2026, 1, 1, 7, 45), at(ZURICH, 2026, 1, 2, 7, 45))
    cases = {
        ("20260101", "074459.999999"): MISS,
        ("20260101", "074500"): MATCH,
        ("20260102", "074459.999999"): MATCH,
        ("20260102", "074500.000000"): MISS,
        ("20260102", "0744"): MATCH,
        ("20260102", "07"): UNDECIDED,
        ("20260102", None): UNDECIDED,
        ("20251231", None): MISS,
        (None, "074459"): UNDECIDED,
        ("", ""): UNDECIDED,
        ("soon", "0744"): UNDECIDED,
        ("20260102", "soon"): UNDECIDED,
    }
    assert {case: window.contains(*case, ZURICH) for case in cases} == cases


def test_a_date_without_time_counts_for_its_whole_day():
    window = day_window(date(2026, 3, 29), date(2026, 3, 29), ZURICH)
    assert window.contains("20260329", None, ZURICH) is MATCH
    assert window.contains("20260328", None, ZURICH) is MISS
    assert window.contains("20260330", None, ZURICH) is MISS


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (ZURICH, date(2026, 3, 29), 23),
        (ZURICH, date(2026, 10, 25), 25),
        (NEW_YORK, date(2026, 3, 8), 23),
        (NEW_YORK, date(2026, 11, 1), 25),
        (ZURICH, date(2026, 6, 1), 24),
        (ZoneInfo("America/Santiago"), date(2026, 9, 6), 23),
    ],
)
def test_a_day_with_a_change_of_the_clock_is_whole(zone, day, hours):
    window = day_window(day, day, zone)
    assert window.end - window.start == timedelta(hours=hours)
    assert window.days(zone) == (day,)
    text = f"{day:%Y%m%d}"
    assert window.contains(text, None, zone) is MATCH
    assert window.contains(text, "120000", zone) is MATCH
    assert window.contains(text, "235959", zone) is MATCH
    assert window.contains(f"{day - timedelta(days=1):%Y%m%d}", "235959", zone) is MISS


@pytest.mark.parametrize(("zone", "day", "hour"), [(ZURICH, (2026, 3, 29), 2), (NEW_YORK, (2026, 3, 8), 2)])
def test_a_time_that_no_clock_showed_is_inside_where_both_readings_are(zone, day, hour):
    text = "{:04d}{:02d}{:02d}".format(*day)
    whole = day_window(date(*day), date(*day), zone)
    assert whole.contains(text, f"{hour:02d}3000", zone) is MATCH
    # The window begins at the jump: one reading lies before it.
    jump = Window(at(zone, *day, hour + 1), at(zone, *day, 12))
    assert jump.contains(text, f"{hour:02d}3000", zone) is UNDECIDED
    assert jump.contains(text, f"{hour + 1:02d}0000", zone) is MATCH
    assert jump.contains(text, f"{hour - 1:02d}5959", zone) is MISS


@pytest.mark.parametrize(("zone", "day", "hour"), [(ZURICH, (2026, 10, 25), 2), (NEW_YORK, (2026, 11, 1), 1)])
def test_a_time_that_comes_twice_is_decided_only_where_both_agree(zone, day, hour):
    text, clock = "{:04d}{:02d}{:02d}".format(*day), f"{hour:02d}3000"
    whole = day_window(date(*day), date(*day), zone)
    assert whole.contains(text, clock, zone) is MATCH
    until_first_pass_ends = Window(at(zone, *day, 0), at(zone, *day, hour, 0, fold=1))
    assert until_first_pass_ends.end - until_first_pass_ends.start == timedelta(hours=hour + 1)
    assert until_first_pass_ends.contains(text, clock, zone) is UNDECIDED
    assert Window(at(zone, *day, hour + 1), at(zone, *day, 12)).contains(text, clock, zone) is MISS


def test_an_hour_within_the_repeated_hour_is_a_real_window():
    window = Window(at(ZURICH, 2026, 10, 25, 2, 30), at(ZURICH, 2026, 10, 25, 2, 30, fold=1))
    assert window.end - window.start == timedelta(hours=1)


@pytest.mark.parametrize("offset", [timedelta(0), timedelta(seconds=-1)])
def test_an_interval_without_width_is_refused_with_the_timetable_to_use(offset):
    end = datetime(2026, 1, 2, tzinfo=UTC)
    with pytest.raises(QueryError, match="CronDataIntervalTimetable"):
        Window(end, end + offset)


def test_instants_without_a_zone_are_refused():
    with pytest.raises(QueryError, match="no time zone"):
        Window(datetime(2026, 1, 1), datetime(2026, 1, 2, tzinfo=UTC))


def test_days_in_the_wrong_order_are_refused():
    with pytest.raises(QueryError, match="before the first"):
        day_window(date(2026, 1, 2), date(2026, 1, 1), ZURICH)


@pytest.mark.parametrize(
    ("end", "day"),
    [
        (datetime(2026, 1, 2, 6, 45, tzinfo=UTC), date(2026, 1, 2)),
        (datetime(2026, 1, 1, 23, 30, tzinfo=UTC), date(2026, 1, 2)),
        # An end at midnight closes the day before.
        (datetime(2026, 1, 1, 23, 0, tzinfo=UTC), date(2026, 1, 1)),
        (pendulum.datetime(2026, 1, 2, 7, 45, tz="Europe/Zurich"), date(2026, 1, 2)),
    ],
)
def test_a_run_judges_the_day_on_which_its_interval_ends(end, day):
    assert run_day(end, ZURICH) == day


def test_a_scheduled_run_lists_its_interval_and_the_look_back_before_it():
    run = run_window(
        ZURICH,
        data_interval_start=pendulum.datetime(2026, 1, 5, 7, 45, tz="Europe/Zurich"),
        data_interval_end=pendulum.datetime(2026, 1, 6, 7, 45, tz="Europe/Zurich"),
    )
    assert run.run_day == date(2026, 1, 6)
    assert run.days == tuple(date(2026, 1, day) for day in (2, 3, 4, 5, 6))
    assert run.window.start == at(ZURICH, 2026, 1, 2)
    assert run.window.end == at(ZURICH, 2026, 1, 6, 7, 45)
    assert run.window.contains("20260106", "074500", ZURICH) is MISS
    assert run.window.contains("20260102", None, ZURICH) is MATCH


def test_look_back_crosses_a_change_of_the_clock_by_whole_days():
    run = run_window(
        ZURICH,
        data_interval_start=datetime(2026, 3, 30, 5, 45, tzinfo=UTC),
        data_interval_end=datetime(2026, 3, 31, 5, 45, tzinfo=UTC),
        lookback_days=3,
    )
    assert run.window.start == at(ZURICH, 2026, 3, 27)
    assert run.days[0] == date(2026, 3, 27)


def test_the_forms_dates_come_before_the_interval():
    run = run_window(
        NEW_YORK,
        data_interval_start=datetime(2026, 1, 5, tzinfo=UTC),
        data_interval_end=datetime(2026, 1, 6, tzinfo=UTC),
        first_day=date(2025, 12, 1),
        last_day=date(2025, 12, 3),
        lookback_days=0,
    )
    assert run.days == tuple(date(2025, 12, day) for day in (1, 2, 3))
    assert run.run_day == date(2025, 12, 3)
    for one in ({"first_day": date(2025, 12, 1)}, {"last_day": date(2025, 12, 1)}):
        assert run_window(NEW_YORK, **one, lookback_days=0).days == (date(2025, 12, 1),)


def test_a_run_without_dates_judges_the_24_hours_before_it_was_due():
    run = run_window(ZURICH, run_after=datetime(2026, 1, 2, 9, 0, tzinfo=UTC), lookback_days=0)
    assert run.days == (date(2026, 1, 1), date(2026, 1, 2))
    assert run.run_day == date(2026, 1, 2)
    assert run.window.end == datetime(2026, 1, 2, 9, 0, tzinfo=UTC)


def test_the_24_hours_before_a_run_are_not_more():
    half_past_midnight = datetime(2026, 1, 1, 23, 30, tzinfo=UTC)
    run = run_window(ZURICH, run_after=half_past_midnight, lookback_days=0)
    assert run.days == (date(2026, 1, 1), date(2026, 1, 2))


def test_nothing_to_judge_is_refused():
    with pytest.raises(QueryError, match="form's dates"):
        run_window(ZURICH)
    with pytest.raises(QueryError, match="lookback_days"):
        run_window(ZURICH, run_after=datetime(2026, 1, 2, tzinfo=UTC), lookback_days=-1)


def test_an_interval_without_width_never_becomes_a_day():
    end = datetime(2026, 1, 2, tzinfo=UTC)
    with pytest.raises(QueryError, match="timetable"):
        run_window(ZURICH, data_interval_start=end, data_interval_end=end)


@pytest.mark.parametrize("name", ["Europe/Zurch", "../etc/passwd", "/etc/passwd"])
def test_an_unknown_zone_is_refused_by_name(name):
    with pytest.raises(ConfigurationError, match="no time zone"):
        clinic_zone(name)


def test_a_missing_zone_says_what_to_set():
    with pytest.raises(ConfigurationError, match=r"timezone.*Europe/Zurich"):
        clinic_zone(None)


ZONES = st.sampled_from(
    [ZURICH, NEW_YORK, ZoneInfo("UTC"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/Santiago")]
)
INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))


@given(ZONES, INSTANTS, INSTANTS, INSTANTS)
def test_what_happened_inside_is_never_a_miss_and_what_happened_outside_never_a_match(zone, first, second, moment):
    if first == second:
        return
    window = Window(min(first, second), max(first, second))
    local = moment.astimezone(zone)
    verdict = window.contains(f"{local:%Y%m%d}", f"{local:%H%M%S.%f}", zone)
    if window.start <= moment < window.end:
        assert verdict is not MISS
        assert local.date() in window.days(zone)
    else:
        assert verdict is not MATCH


@given(ZONES, INSTANTS, st.integers(1, 100))
def test_neighbouring_intervals_share_no_run_day_and_leave_none_out(zone, start, hours):
    days = [run_day(start + timedelta(hours=24 * n), zone) for n in range(1, 5)]
    assert days == sorted(days)
    window = Window(start, start + timedelta(hours=hours))
    assert window.days(zone)[-1] == run_day(window.end, zone)
