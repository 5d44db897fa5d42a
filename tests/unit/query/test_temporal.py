from __future__ import annotations

import pytest

from airflow_provider_varian.query.temporal import MICROSECONDS_PER_DAY, Span, key_span, time_span, value_span

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("00", 0, 3600 * SECOND - 1),
        ("0630", 6.5 * 3600 * SECOND, 6.5 * 3600 * SECOND + 60 * SECOND - 1),
        ("063001", (6.5 * 3600 + 1) * SECOND, (6.5 * 3600 + 2) * SECOND - 1),
        ("000000.5", SECOND // 2, SECOND // 2 + 99_999),
        ("000000.000001", 1, 1),
        ("235960", MICROSECONDS_PER_DAY - 1, MICROSECONDS_PER_DAY - 1),
    ],
)
def test_a_time_is_the_span_it_leaves_open(text, low, high):
    assert time_span(text) == Span(low, high)


@pytest.mark.parametrize("text", ["", "6", "063", "2400", "0660", "063061", "06:3000:1", "063000.", "063000.1234567"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="not a time"):
        time_span(text)


@pytest.mark.parametrize("text", ["-", "20260101-20260102-20260103", "20260101--20260102"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ValueError, match=r"range|date"):
        key_span("DA", text)


def test_a_coarse_moment_covers_its_month_or_year():
    february, year = value_span("DT", "202402"), value_span("DT", "2024")
    assert february.high - february.low + 1 == 29 * MICROSECONDS_PER_DAY
    assert year.high - year.low + 1 == 366 * MICROSECONDS_PER_DAY


def test_an_offset_is_told_from_the_second_half_of_a_range():
    assert value_span("DT", "20260101-0500").aware
    years = key_span("DT", "2024-2026")
    assert not years.aware
    assert (years.low, years.high) == (value_span("DT", "2024").low, value_span("DT", "2026").high)


def test_one_sided_offsets_in_a_range_are_refused():
    with pytest.raises(ValueError, match="offset"):
        key_span("DT", "20260101000000+0100-20260102000000")


def test_a_time_beyond_its_bounds_names_no_value():
    for vr, text in (("DA", "99999999"), ("DT", "20261301"), ("TM", "9999")):
        with pytest.raises(ValueError, match="not a") as caught:
            value_span(vr, text)
        assert text not in str(caught.value)
