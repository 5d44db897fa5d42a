"""Every switch, quirk and fault has a test on the wire, and stands in the one table of the pages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_provider_varian.simulator.daemon.behaviour import habits
from airflow_provider_varian.simulator.daemon.faults import FAULT_KINDS, Kind, Step

TOP = Path(__file__).parents[4]
sys.path.insert(0, str(TOP / "docs" / "_ext"))
from marked_tests import marked_tests  # noqa: E402 - the path is set just above
from simulator_table import simulator_rows  # noqa: E402

QUIRKS = marked_tests(TOP, frozenset({"quirk"}))
FAULTS = marked_tests(TOP, frozenset({"fault"}))
#: What has a daemon behind it that listens on a port.
ON_THE_WIRE = {"client", "daemon", "ask", "heard"}


@pytest.mark.parametrize("number", range(1, 25))
def test_every_quirk_has_a_test(number):
    assert [test for test in QUIRKS if test.arguments[0] == number]


@pytest.mark.parametrize("habit", habits(), ids=lambda habit: habit.name)
def test_every_switch_has_a_test_under_each_of_its_numbers(habit):
    for number in habit.quirks or (None,):
        assert [test for test in QUIRKS if test.arguments[0] == number and habit.name in test.arguments], number


@pytest.mark.parametrize("kind", Kind)
def test_every_fault_has_a_test(kind):
    assert [test for test in FAULTS if test.arguments == (str(kind),)]


def test_the_marks_name_quirks_and_switches_that_there_are():
    by_name = {habit.name: habit.quirks for habit in habits()}
    for test in QUIRKS:
        number, *names = test.arguments
        assert number is None or number in range(1, 25), test
        assert set(names) <= set(by_name), test
        # A patient of the clinic may show a quirk whose switch is another.
        assert all(number in (by_name[name] or (None,)) or name == "irregularities" for name in names), test
    assert {test.arguments[0] for test in FAULTS} <= set(Kind)


@pytest.mark.parametrize("test", [*QUIRKS, *FAULTS], ids=lambda test: f"{test.marker}-{test.name}")
def test_what_bears_a_mark_has_a_daemon_on_a_port(test):
    source = (TOP / test.path).read_text(encoding="utf-8").split(f"def {test.name}(")[1].split("\ndef test_")[0]
    assert ON_THE_WIRE & set(test.fixtures) or "with SimulatedDaemon(" in source or "daemon.start()" in source


def test_every_kind_of_fault_is_in_the_list_once():
    assert [each.kind for each in FAULT_KINDS] == list(Kind)


def test_the_page_explains_every_step_and_setting():
    page = (TOP / "docs" / "simulator.md").read_text(encoding="utf-8")
    settings = {name for kind in FAULT_KINDS for name in kind.settings} | {"at", "times", "service"}
    for name in [*Step, *settings]:
        assert f"`{name}`" in page, name


def test_the_table_has_every_switch_and_fault_with_its_test():
    rows = simulator_rows()
    assert len(rows) == sum(len(habit.quirks) or 1 for habit in habits()) + len(FAULT_KINDS)
    assert all("::test_" in row and row.count(" | ") == 4 for row in rows)
    (row,) = [row for row in rows if "`row_limit`" in row]
    assert row.startswith("| 5 | `row_limit` | `2000` | a query with more rows")
    assert "`test_find.py::test_too_many_rows_end_in_c001_without_any`" in row
