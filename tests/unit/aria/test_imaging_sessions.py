from __future__ import annotations

from datetime import date, datetime

import pytest

from airflow_provider_varian.aria.imaging_sessions import newest_session, sessions_of, sessions_on
from airflow_provider_varian.aria.rt_images import RTImage
from airflow_provider_varian.errors import ConfigurationError


def image(number, day="20260102", clock="063000", *, series="1.3", machine="TB1", patient="PAT-1"):
    return RTImage(
        sop_instance_uid=f"1.5.{number}",
        sop_class_uid="",
        series_instance_uid=series,
        study_instance_uid="1.4",
        acquisition_date=day,
        acquisition_time=clock,
        image_type=None,
        beam_number=None,
        kv=None,
        machine=machine,
        patient_id=patient,
    )


def numbers(sessions):
    return [[int(one.sop_instance_uid.rsplit(".", 1)[1]) for one in session.images] for session in sessions]


MORNING = [image(1, clock="063000"), image(2, clock="063510", series="1.33"), image(3, clock="072000.5")]
NOON = [image(4, clock="120000"), image(5, clock="1201")]
NEXT_DAY = [image(6, day="20260103", clock="063000")]


def test_images_one_soon_after_the_other_are_a_session_whatever_their_series():
    found, undated = sessions_of([*NEXT_DAY, *NOON, *MORNING])
    assert numbers(found) == [[1, 2, 3], [4, 5], [6]]
    assert undated == []
    first = found[0]
    assert (first.day, first.machine) == (date(2026, 1, 2), "TB1")
    assert first.series_instance_uids == ("1.3", "1.33")
    assert (first.begin, first.end) == (datetime(2026, 1, 2, 6, 30), datetime(2026, 1, 2, 7, 20, 0, 500000))


def test_the_newest_session_is_not_the_newest_series():
    assert numbers([newest_session([*MORNING, *NOON])]) == [[4, 5]]
    assert numbers([newest_session([image(1, clock="0630"), image(2, clock="0635", series="1.33")])]) == [[1, 2]]
    assert newest_session([]) is None


def test_a_given_date():
    images = [*MORNING, *NOON, *NEXT_DAY]
    assert numbers(sessions_on(images, date(2026, 1, 2))) == [[1, 2, 3], [4, 5]]
    assert numbers(sessions_on(images, date(2026, 1, 3))) == [[6]]
    assert sessions_on(images, date(2026, 1, 4)) == []


def test_the_gap_is_from_image_to_image_and_can_be_set():
    images = [image(1, clock="0600"), image(2, clock="0650"), image(3, clock="0740"), image(4, clock="0841")]
    assert numbers(sessions_of(images)[0]) == [[1, 2, 3], [4]]
    assert numbers(sessions_of(images, gap_minutes=61)[0]) == [[1, 2, 3, 4]]
    assert numbers(sessions_of(images, gap_minutes=30)[0]) == [[1], [2], [3], [4]]


def test_what_two_machines_or_patients_do_at_the_same_time_is_not_mixed():
    images = [image(1), image(2, machine="TB2"), image(3, patient="PAT-2"), image(4, clock="0631")]
    assert numbers(sessions_of(images)[0]) == [[1, 4], [2], [3]]


def test_a_session_over_midnight_is_of_the_day_on_which_it_began():
    images = [image(1, clock="2358"), image(2, day="20260103", clock="0005")]
    (only,) = sessions_of(images)[0]
    assert (only.day, len(only.images)) == (date(2026, 1, 2), 2)
    assert sessions_on(images, date(2026, 1, 3)) == []


def test_an_image_that_is_there_twice_is_one():
    assert numbers(sessions_of([image(1), image(1)])[0]) == [[1]]


def test_images_without_time_are_a_session_of_their_day_and_those_without_date_of_none():
    images = [*NOON, image(7, clock=None), image(8, clock=""), image(9, day=None), image(10, day="2026")]
    found, undated = sessions_of(images)
    assert numbers(found) == [[4, 5], [7, 8]]
    assert (found[1].begin, found[1].end) == (None, None)
    assert [one.sop_instance_uid for one in undated] == ["1.5.10", "1.5.9"]


@pytest.mark.parametrize("gap", [0, -1, float("inf"), float("nan"), True])
def test_a_gap_that_is_none_is_refused(gap):
    with pytest.raises(ConfigurationError, match="gap_minutes"):
        sessions_of([image(1)], gap_minutes=gap)


def test_what_is_shown_has_no_patient():
    assert "PAT" not in repr(newest_session(MORNING))
