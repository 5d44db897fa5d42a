"""The table of what can go wrong and what becomes of it, made from the rows that the tests run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from table_cells import escaped

if TYPE_CHECKING:
    from robustness.table import Row

TOP = Path(__file__).parents[2]
HEADING = ("What goes wrong", "In the simulator", "Method", "The manifest after one run", "After a retry", "Test")
_TESTS = {True: "test_reliability_of_faults.py", False: "test_reliability_of_quirks.py"}


def reliability_rows(kind: str) -> list[str]:
    """Return the rows of the table of ``quirks``, or of ``faults``."""
    tests = str(TOP / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from robustness.table import FAULT_ROWS, QUIRK_ROWS

    rows = {"quirks": QUIRK_ROWS, "faults": FAULT_ROWS}[kind]
    return [line for row in rows for line in _lines(row, kind == "faults")]


def _lines(row: Row, is_fault: bool) -> list[str]:
    by_runs: dict[tuple[str, str], list[str]] = {}
    for method, (first, retry) in row.runs.items():
        # The manifest of a retry tells of the first run too; what counts is what became of it.
        by_runs.setdefault((str(first), retry.brief), []).append(method)
    return [
        "| "
        + " | ".join(
            (
                _what(row),
                _settings(row),
                _methods(row, methods),
                escaped(first),
                escaped(f"{retry} ({row.after})" if row.after != "stays" else retry),
                "<br>".join(_test(row, method, _TESTS[is_fault]) for method in methods),
            )
        )
        + " |"
        for (first, retry), methods in by_runs.items()
    ]


def _test(row: Row, method: str, file: str) -> str:
    return f"`{file}[{row.name}-{method}]`" + (" (slow)" if method in row.seldom else "")


def _what(row: Row) -> str:
    return escaped(row.what) + (f" (quirk {row.quirk})" if row.quirk else "")


def _methods(row: Row, methods: list[str]) -> str:
    # What strikes the list strikes before the method matters, and is tried with one of them.
    return "either" if "list-" in row.name and row.quirk is None else ", ".join(methods)


def _settings(row: Row) -> str:
    texts = [f"--quirk {switch}" for switch in row.switches]
    texts += [
        f"--fault {fault.replace('SERVICE', 'C-MOVE' if 'C-MOVE' in row.runs else 'C-GET')}" for fault in row.faults
    ]
    texts += [f"--trust {row.trust}"] if row.trust else []
    texts += [f"{name}={value}" for name, value in {**row.connection, **row.waiting}.items()]
    cell = "<br>".join(f"`{text}`" for text in texts)
    return f"{cell}<br>a second passes with each list" if row.ticks else cell
