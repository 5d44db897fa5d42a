"""Rounds, ratios and failures, with contestants that only say that they worked."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.contest import Contest, Contestant, Sample, play
from benchmarks.proc import Usage
from benchmarks.processes import ContestantError
from benchmarks.results import Goal


class Played:
    """Contestants that write down their turns; each takes its seconds one after the other."""

    def __init__(self):
        self.turns = []

    def contestant(self, name, *seconds, objects=1, sample=None, **more):
        left = list(seconds)

        def run():
            self.turns.append(name)
            return Sample(seconds=left.pop(0), objects=objects, size=1000 * objects, **(sample or {}))

        return Contestant(name=name, run=run, **more)


@pytest.fixture
def played():
    return Played()


def contest(*contestants, **more):
    return Contest(section="receive", title="some work", short="work", contestants=contestants, **more)


def test_contestants_take_turns_and_the_first_round_is_not_counted(played):
    table = play(contest(played.contestant("a", 9, 1, 2, 4), played.contestant("b", 1, 3, 3, 2)), 3)
    assert played.turns == ["a", "b"] * 4
    a, b = table.rows
    assert (a.rounds, a.ratio) == (3, None)
    # Round by round: 3/1, 3/2, 2/4.
    assert (b.ratio.median, b.ratio.least, b.ratio.most) == (1.5, 0.5, 3.0)
    assert (a.milliseconds, b.milliseconds) == (2000, 3000)


def test_ratios_are_for_one_object_each(played):
    table = play(contest(played.contestant("a", 1, 10, objects=10), played.contestant("b", 1, 4, objects=2)), 1)
    assert table.rows[1].ratio.median == 2.0


def test_what_a_process_used_is_for_what_was_moved(played):
    usage = Usage(cpu_seconds=0.5, peak_mb=20, growth_mb=3, threads=4)
    row = play(contest(played.contestant("a", 1, 1, objects=5, sample={"usage": usage})), 1).rows[0]
    assert row.cpu_seconds_per_gb == 0.5 / 5e-6
    assert (row.cpu_milliseconds, row.peak_mb, row.growth_mb, row.threads) == (100, 20, 3, 4)
    assert row.megabytes_per_second == pytest.approx(0.005)


def test_the_slowest_answer_is_told(played):
    latencies = [0.001] * 199 + [0.05]
    row = play(contest(played.contestant("a", 1, 1, sample={"latencies": latencies})), 1).rows[0]
    assert (row.p99_ms, row.slowest_ms) == (pytest.approx(1), pytest.approx(50))


def test_who_fails_is_out_and_the_others_go_on(played):
    def fail():
        raise ContestantError("a long story\nthe disk is full")

    said = []
    failing = Contestant(name="b", run=fail, goal=Goal(1.0))
    table = play(contest(played.contestant("a", 1, 1, 1), failing, played.contestant("c", 1, 2, 2)), 2, said.append)
    assert [row.failure for row in table.rows] == ["", "the disk is full", ""]
    assert len(said) == 1
    assert table.rows[2].ratio.median == 2.0
    assert not table.rows[1].met
    assert table.rows[1].reached is None


def test_without_a_reference_there_are_no_ratios_but_the_rest(played):
    table = play(contest(Contestant(name="a", run=_refused), played.contestant("b", 1, 2)), 1)
    assert table.rows[0].failure == "refused"
    assert table.rows[1].ratio is None
    assert table.rows[1].milliseconds == 2000


def _refused():
    raise ConnectionRefusedError("refused")


def test_what_arrives_is_compared_in_the_round_that_is_not_counted(played):
    sent = Counter({"x": 1, "y": 1})
    right = played.contestant("a", 1, 1, arrived=lambda: sent)
    wrong = played.contestant("b", 1, 1, arrived=lambda: Counter({"x": 2}))
    table = play(contest(right, wrong, expected=sent), 1)
    assert table.rows[0].failure == ""
    assert table.rows[1].failure.startswith("1 of 2 data sets did not arrive")
    assert played.turns == ["a", "b", "a"]


def test_without_an_expectation_the_reference_is_believed(played):
    right = played.contestant("a", 1, 1, arrived=lambda: Counter("xy"))
    wrong = played.contestant("b", 1, 1, arrived=lambda: Counter("x"))
    assert [bool(row.failure) for row in play(contest(right, wrong), 1).rows] == [False, True]


def test_after_a_small_warm_up_the_work_itself_is_compared(played):
    looked = []

    def arrived():
        looked.append(list(played.turns))
        return Counter("x")

    warmed = []
    one = played.contestant("a", 1, 1, arrived=arrived, warm_up=lambda: warmed.append(1))
    play(contest(one, expected=Counter("x")), 2)
    assert warmed == [1]
    assert looked == [["a"]]


def test_each_turn_begins_with_an_empty_place(played):
    done = []
    one = played.contestant("a", 1, 1, clear=lambda: done.append("clear"))
    play(contest(one, settle=lambda: done.append("settle")), 1)
    assert done == ["clear", "settle"] * 2


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal(1.5), True),
        (Goal(1.4), False),
        (Goal(16, "growth_mb"), True),
        (Goal(2, "growth_mb"), False),
        (Goal(5, "slowest_ms"), False),
        (Goal(10, "slowest_ms"), True),
    ],
)
def test_a_goal_is_held_against_its_measure(played, goal, met):
    sample = {"usage": Usage(growth_mb=3), "latencies": [0.001, 0.008]}
    ours = played.contestant("b", 1, 3, goal=goal, sample=sample)
    assert play(contest(played.contestant("a", 1, 2), ours), 1).rows[1].met is met
