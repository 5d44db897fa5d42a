"""The one table of the simulator's switches and faults, each with the tests that show it."""

from __future__ import annotations

from pathlib import Path

from marked_tests import MarkedTest, marked_tests
from table_cells import escaped

TOP = Path(__file__).parents[2]


def simulator_rows() -> list[str]:
    """Return the rows of that table: quirks by number, switches without one, faults."""
    from airflow_provider_varian.simulator.daemon.behaviour import habits
    from airflow_provider_varian.simulator.daemon.faults import FAULT_KINDS

    marked = marked_tests(TOP, frozenset({"quirk", "fault"}))
    quirks = [test for test in marked if test.marker == "quirk"]
    rows = []
    numbers = sorted({number for habit in habits() for number in habit.quirks})
    for number in [*numbers, None]:
        for habit in habits():
            if number in habit.quirks or (number is None and not habit.quirks):
                of_number = [test for test in quirks if test.arguments[0] == number]
                fitting = [test for test in of_number if habit.name in test.arguments[1:]]
                meaning = habit.meaning + _patients_of(habit.name, number)
                default = _default_of_switch(habit.default)
                rows.append(_row("" if number is None else number, habit.name, default, meaning, fitting))
    for kind in FAULT_KINDS:
        fitting = [test for test in marked if test.marker == "fault" and test.arguments[0] == kind.kind]
        where = ", ".join(f"`{step}`" for step in kind.steps)
        rows.append(_row("fault", f"{kind.kind}", "off", f"{kind.meaning}. At {where}", fitting))
    return rows


def _patients_of(switch: str, number: int | None) -> str:
    """Return the names of the irregularities that show a quirk."""
    from airflow_provider_varian.simulator.clinic.irregularities import Irregularity

    if switch != "irregularities":
        return ""
    return ". Here: " + ", ".join(f"`{each}`" for each in Irregularity if each.quirk == number)


def _row(number: object, name: str, default: str, meaning: str, tests: list[MarkedTest]) -> str:
    named = "<br>".join(f"`{Path(test.path).name}::{test.name}`" for test in _once(tests))
    return f"| {number} | `{name}` | {default} | {escaped(meaning)} | {named} |"


def _once(tests: list[MarkedTest]) -> list[MarkedTest]:
    return list({(test.path, test.name): test for test in tests}.values())


def _default_of_switch(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        value = ",".join(value)
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, int) and value > 0x8000 and value != 64234:
        return f"`0x{value:04X}`"
    return f"`{value}`" if value != "" else "none"
