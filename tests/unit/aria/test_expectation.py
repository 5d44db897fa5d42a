from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date

import pytest

from airflow_provider_varian.aria.expectation import DayState, Expectation, judge
from airflow_provider_varian.errors import ConfigurationError

FRIDAY, SATURDAY = date(2026, 1, 2), date(2026, 1, 3)


@dataclass(frozen=True)
class Image:
    sop_instance_uid: str
    beam_number: int | None = None


def images(*beams):
    return [Image(f"1.{place}", beam) for place, beam in enumerate(beams)]


EIGHT = Expectation(minimum=8)
BEAMS = Expectation(minimum=None, each_beam_once=True)


def test_enough_images_are_complete():
    said = judge("TB1", FRIDAY, images(*range(8)), EIGHT)
    assert said.state is DayState.COMPLETE
    assert said.message == "TB1, 2026-01-02: complete: 8 found, at least 8 expected"


def test_nothing_on_a_working_day_is_empty_by_name():
    said = judge("TB1", FRIDAY, [], EIGHT)
    assert said.state is DayState.EMPTY
    assert said.message == "TB1, 2026-01-02: no image found, at least 8 expected"


@pytest.mark.parametrize("expected", [EIGHT, Expectation(minimum=8, working_days=("sat",), holidays=(SATURDAY,))])
def test_nothing_on_another_day_is_not_expected(expected):
    said = judge("TB1", SATURDAY, [], expected)
    assert said.state is DayState.NOT_EXPECTED
    assert "none expected" in said.message


def test_images_on_another_day_are_welcome():
    said = judge("TB1", SATURDAY, images(1), EIGHT)
    assert said.state is DayState.COMPLETE
    assert said.wanted == 0
    assert "none expected on this day" in said.message


def test_less_than_expected_is_short():
    said = judge("TB1", FRIDAY, images(*range(7)), EIGHT)
    assert said.state is DayState.SHORT
    assert "7 found, at least 8 expected" in said.message


def test_found_and_not_received_is_partial():
    said = judge("TB1", FRIDAY, images(*range(8)), EIGHT, received={"1.0", "1.1", "9.9"})
    assert said.state is DayState.PARTIAL
    assert (said.found, said.received) == (8, 2)
    assert "8 found" in said.message
    assert "only 2 of them received" in said.message


def test_the_words_are_all_different():
    assert len(set(DayState)) == 5


def test_an_image_that_is_listed_twice_counts_once():
    assert judge("TB1", FRIDAY, [*images(1), *images(1)], Expectation(minimum=2)).state is DayState.SHORT


def test_each_beam_once():
    assert judge("TB1", FRIDAY, images(1, 2, 3), BEAMS, plan_beams=(1, 2, 3)).state is DayState.COMPLETE
    said = judge("TB1", FRIDAY, images(1, 1, 7, None), BEAMS, plan_beams=(1, 2, 3))
    assert said.state is DayState.SHORT
    assert said.missing_beams == (2, 3)
    assert "no image of beam 2, 3" in said.message
    assert "several images of beam 1" in said.message


def test_each_beam_once_counts_beams_not_images():
    assert judge("TB1", FRIDAY, images(1, 1, 1), BEAMS, plan_beams=(1, 2)).state is DayState.SHORT


@pytest.mark.parametrize("beams", [None, ()])
def test_each_beam_once_needs_the_plans_beams(beams):
    with pytest.raises(ConfigurationError, match="beam numbers of the plan"):
        judge("TB1", FRIDAY, images(1), BEAMS, plan_beams=beams)
    assert judge("TB1", SATURDAY, [], BEAMS, plan_beams=beams).state is DayState.NOT_EXPECTED


def test_a_judgement_is_json_ready():
    said = judge("TB1", FRIDAY, images(1), BEAMS, plan_beams=(1, 2)).to_json()
    assert json.loads(json.dumps(said)) == said
    assert said["state"] == "short"
    assert said["day"] == "2026-01-02"


@pytest.mark.parametrize("day", [FRIDAY, SATURDAY])
@pytest.mark.parametrize("count", [0, 8])
def test_what_an_earlier_try_found_and_did_not_come_is_partial(day, count):
    said = judge("TB1", day, images(*range(count)), EIGHT, owed=2)
    assert said.state == "partial"
    assert "partial: " in said.message
    assert said.message.endswith("2 that an earlier try found did not come")
