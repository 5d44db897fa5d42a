"""The table has all that can touch a retrieval, and the page shows what the tests run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from robustness.table import FAULT_ROWS, METHODS, QUIRK_ROWS, ROWS

from airflow_provider_varian.simulator.daemon.faults import FAULT_KINDS, Step

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "docs" / "_ext"))
from reliability_table import HEADING, reliability_rows  # noqa: E402 - the path is set just above

STRUCK = [(fault.kind, fault.step, fault.service) for row in FAULT_ROWS for fault in row.faults_of("C-MOVE")]


@pytest.mark.parametrize("number", [5, *range(10, 21), 22, 24])
def test_every_quirk_that_touches_a_retrieval_has_a_row(number):
    assert [row for row in QUIRK_ROWS if row.quirk == number]


@pytest.mark.parametrize("kind", FAULT_KINDS, ids=lambda each: str(each.kind))
def test_every_fault_has_a_row_at_each_step_of_list_and_transfer(kind):
    for step in kind.steps:
        here = {service for struck, where, service in STRUCK if (struck, where) == (kind.kind, step)}
        assert here, step
        if step in (Step.REQUEST, Step.FINAL):
            # The final response of a C-FIND has no counters that could be left out.
            wanted = {"C-MOVE"} if kind.kind == "no-counters" else {"C-FIND", "C-MOVE"}
            assert wanted <= here, step


def test_rows_have_names_of_their_own_and_methods_that_there_are():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(row.runs and set(row.runs) <= set(METHODS) for row in ROWS)


def test_every_row_ends_complete_or_names_what_is_missing():
    for row in ROWS:
        for first, retry in row.runs.values():
            assert retry.outcome == "complete" or (row.after == "stays" and retry.missing), row.name
            assert first.outcome == "complete" or first.missing or (first.outcome == "pending" and first.errors)


def test_each_row_and_each_method_at_each_kind_and_step_is_run_with_each_change():
    assert all(set(row.seldom) < set(row.runs) for row in ROWS)
    assert not any(row.seldom for row in QUIRK_ROWS)
    all_of_them, with_each_change = set(), set()
    for row in FAULT_ROWS:
        for fault in row.faults_of("C-MOVE"):
            for method in row.runs:
                what = {(fault.kind, method), (fault.step, method)}
                all_of_them |= what
                with_each_change |= what if method not in row.seldom else set()
    assert with_each_change == all_of_them


@pytest.mark.parametrize(("kind", "rows"), [("quirks", QUIRK_ROWS), ("faults", FAULT_ROWS)])
def test_the_page_has_each_row_with_its_test(kind, rows):
    lines = reliability_rows(kind)
    assert all(line.count(" | ") == len(HEADING) - 1 for line in lines)
    text = "\n".join(lines)
    for row in rows:
        for method in row.runs:
            assert f"[{row.name}-{method}]`" in text
            assert (f"[{row.name}-{method}]` (slow)" in text) == (method in row.seldom)
    page = (TOP / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"{{reliability}} {kind}" in page
