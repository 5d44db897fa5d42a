"""A run as JSON, as tables, as a picture, and in its place on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks import page, picture, tables
from benchmarks.results import Goal, Report, Row, Spread, Table

TOP = Path(__file__).parents[3]

REFERENCE = Row(name="storescp +B", rounds=3, milliseconds=0.5, megabytes_per_second=40, peak_mb=15, threads=1)
MET = Row(
    name="varian-dicom receive", ours=True, goal=Goal(1.0), rounds=3, ratio=Spread(0.9, 0.8, 1.1), milliseconds=0.4
)
MISSED = Row(name="in-task receiver", ours=True, goal=Goal(1.0), rounds=3, ratio=Spread(1.26, 1.1, 1.3))
FAILED = Row(name="other receiver", ours=True, goal=Goal(16, "growth_mb"), failure="it | fell")


@pytest.fixture
def report():
    table = Table(
        section="receive",
        title="C-STORE of 3 RT Plans",
        short="3 RT Plans",
        reference="storescp +B",
        unit="object",
        rows=(REFERENCE, MET, MISSED, FAILED),
    )
    return Report(
        machine={"Processor": "2 cores"}, settings={"Rounds": "3"}, whole=True, tables=(table,), failures=("find: no",)
    )


def test_a_run_can_be_read_back(report):
    assert Report.from_json(report.to_json()) == report


def test_goals_stand_beside_what_was_measured(report):
    text = tables.markdown(report)
    goals = text.split("### Goals")[1].split("###")[0]
    assert "| `varian-dicom receive` | time over that of `storescp +B` | ≤ 1 | 0.90 | met |" in goals
    assert "| `in-task receiver` | time over that of `storescp +B` | ≤ 1 | 1.26 | **not met** |" in goals
    assert "| `other receiver` | growth of memory | ≤ 16 MB | - | **not measured** |" in goals


def test_what_failed_is_said(report):
    text = tables.markdown(report)
    failed = text.split("### What failed")[1].split("###")[0]
    assert "- find: no" in failed
    assert "- C-STORE of 3 RT Plans: `other receiver`: it | fell" in failed
    assert "2 cores" in text


def test_every_line_of_a_table_has_as_many_cells(report):
    for line in tables.markdown(report).splitlines():
        if line.startswith(("| storescp", "| other")):
            assert line.count(" | ") == line.count("|") - 2 == 8


def test_a_terminal_has_columns_in_line(report):
    lines = tables.terminal(report.tables[0]).splitlines()
    at = lines[0].index("ratio")
    assert [line[at - 1] for line in lines] == [" "] * len(lines)
    assert lines[3][at:].startswith("0.90 (0.80 - 1.10)")
    assert "not met" in tables.goals_for_terminal(report)


def test_the_picture_has_a_line_for_each_goal_in_time(report, tmp_path):
    picture.draw(report, tmp_path / "one.png")
    fewer = Table(**{**vars_of(report.tables[0]), "rows": (REFERENCE, MET)})
    picture.draw(Report(**{**vars_of(report), "tables": (fewer,)}), tmp_path / "two.png")
    (width, height), colours = seen(tmp_path / "one.png")
    assert {picture._MET, picture._NOT_MET} <= colours
    size, colours = seen(tmp_path / "two.png")
    assert size == (width, height - picture._LINE)
    assert picture._NOT_MET not in colours


def test_a_run_without_a_goal_in_time_has_a_picture_too(report, tmp_path):
    picture.draw(Report(**{**vars_of(report), "tables": ()}), tmp_path / "none.png")
    size, colours = seen(tmp_path / "none.png")
    assert size[0] > 100
    assert picture._MET not in colours


def test_only_what_is_between_the_markers_is_written_anew(tmp_path):
    target = tmp_path / "page.md"
    target.write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n")
    page.rewrite(target, "new | table\n")
    page.rewrite(target, "newer | table\n")
    assert target.read_text() == f"before\n\n{page.BEGIN}\n\nnewer | table\n\n{page.END}\n\nafter\n"


@pytest.mark.parametrize("text", ["none", f"{page.END} {page.BEGIN}", f"{page.BEGIN} {page.BEGIN} {page.END}"])
def test_a_page_without_its_markers_stays_as_it_is(tmp_path, text):
    target = tmp_path / "page.md"
    target.write_text(text)
    with pytest.raises(ValueError, match="markers"):
        page.rewrite(target, "new")
    assert target.read_text() == text


def test_the_page_of_the_documentation_has_its_markers(tmp_path):
    copy = tmp_path / "benchmarks.md"
    copy.write_text((TOP / "docs" / "benchmarks.md").read_text(encoding="utf-8"), encoding="utf-8")
    page.rewrite(copy, "measured")
    assert "measured" in copy.read_text(encoding="utf-8")


def seen(path):
    """Return size and colours of a picture; those of the legend are in each."""
    with Image.open(path) as image:
        bars = image.convert("RGB").crop((0, picture._MARGIN + 2 * picture._LINE, *image.size))
        return image.size, {colour for _, colour in bars.getcolors(1 << 24)}


def vars_of(thing):
    return {name: getattr(thing, name) for name in thing.__slots__}
