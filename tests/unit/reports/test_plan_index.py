"""The index of a run: one line per plan, for machines and for people, and nobody's name in it."""

from __future__ import annotations

import csv
import io
import json

import pytest

from airflow_provider_varian.aria.pseudonyms import patient_pseudonym
from airflow_provider_varian.reports.plan_index import COLUMNS, PlanIndex, index_line

PLAN = {
    "patient_id": "=HYPERLINK(1)",
    "plan_uid": "1.2.3",
    "plan_label": "-Smith",
    "course": "C1",
    "approval_status": "APPROVED",
    "days": ["2026-07-30", "2026-07-31"],
    "records": 3,
    "machines": ["TrueBeam1", "Halcyon2"],
}
RESULT = {
    "plan_uid": "1.2.3",
    "outcome": "incomplete",
    "message": "here: 1 plan, 2 images; missing: 1 structure set (it is named)",
    "approval_status": "",
    "counts": {"plan": {"held": 1}, "image": {"held": 2, "not_exportable": 3}, "structure_set": {"missing": 1}},
    "bytes": 2_500_000,
    "transferred": 3,
    "folder": "/plans/1.2.3",
    "manifest": None,
    "warnings": [],
}


def _line(**changes):
    identifying = changes.pop("identifying", False)
    return index_line(pseudonym="P-1", plan=PLAN, result=RESULT | changes, identifying=identifying)


def _index(*lines, **more) -> PlanIndex:
    return PlanIndex(**{"about": {}, "run_id": "run", "lines": lines} | more)


def test_a_line_has_each_column_and_tells_nobody():
    line = _line()
    assert tuple(line) == COLUMNS
    assert (line["images"], line["plans"], line["structure_sets"], line["all_records"]) == (2, 1, 0, 0)
    assert (line["missing"], line["not_exportable"], line["ambiguous"]) == (1, 3, 0)
    assert (line["days_treated"], line["records_in_window"], line["approval_status"]) == (2, 3, "APPROVED")
    assert "Smith" not in json.dumps(line)
    assert "2026" not in json.dumps(line)


def test_csv_has_a_heading_and_quotes_what_has_to_be():
    read = list(csv.DictReader(io.StringIO(_index(_line(message='a "b", c\nd')).to_csv())))
    assert [each["message"] for each in read] == ['a "b", c\nd']
    assert read[0]["machines"] == "TrueBeam1 Halcyon2"


@pytest.mark.parametrize("column", ["patient_id", "plan_label"])
def test_nothing_becomes_a_formula_in_a_spreadsheet(column):
    index = _index(_line(identifying=True), identifying=True)
    (line,) = csv.DictReader(io.StringIO(index.to_csv()))
    assert line[column] == f"'{PLAN[column]}"
    assert index.to_json()["plans"][0][column] == PLAN[column]


def test_the_summary_begins_with_the_numbers_and_names_what_is_not_well():
    lines = [_line(outcome="complete"), _line(), _line(outcome="failed", message="no association")]
    about = {"first_day": "2026-07-24", "last_day": "2026-07-31", "warnings": ["the list did not stand still"]}
    text = _index(*lines, about=about, warnings={"1.2.3": ["2 slices are left out"]}).to_text().splitlines()
    assert text[0] == "3 plans of 1 patients, 2026-07-24 to 2026-07-31: 1 complete, 1 failed, 1 incomplete"
    assert _index(*reversed(lines), about=about).to_text().splitlines()[0] == text[0]
    assert text[2].split() == ["patient", "plan", "outcome", "here", "lacking", "MB", "moved"]
    assert text[3].split() == ["P-1", "1.2.3", "complete", "3", "4", "2.5", "3"]
    assert "  P-1  1.2.3: failed. no association" in text
    assert text[-2:] == ["  the list did not stand still", "  1.2.3: 2 slices are left out"]


def test_a_run_without_plans_is_told_too():
    index = _index()
    assert index.to_text() == "0 plans of 0 patients"
    assert index.is_done


@pytest.mark.parametrize(("outcome", "done"), [("complete", True), ("reported", True), ("failed", False)])
def test_done_is_when_nothing_is_left_to_do(outcome, done):
    assert _index(_line(outcome="complete"), _line(outcome=outcome)).is_done is done


def test_a_pseudonym_says_who_belongs_together_at_one_site_and_needs_the_key():
    one = patient_pseudonym("key", "aria", "123")
    assert one == patient_pseudonym("key", "aria", "123 ")  # a padded value is the same
    others = {
        patient_pseudonym(*each) for each in (("key", "aria2", "123"), ("key", "aria", "124"), ("k", "aria", "123"))
    }
    assert len(others | {one}) == 4
    assert "123" not in one
