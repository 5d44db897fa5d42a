"""`make bench` from end to end, with little to do: that it runs, and what it writes, whatever it measures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import __main__ as driver
from benchmarks.__main__ import main
from benchmarks.results import Report
from benchmarks.sections import SECTIONS

pytestmark = pytest.mark.peers


@pytest.fixture
def run(program, tmp_path, monkeypatch):
    """Return a function that measures some parts and returns the report of it."""
    # A run of this size is not for the documentation; if it were written there, this would not be found.
    monkeypatch.setattr(driver, "_PAGE", tmp_path / "none" / "benchmarks.md")
    for name in ("dcmqrscp", "storescp", "storescu", "movescu", "getscu", "findscu"):
        program(name)

    def measured(*parts, rounds=1):
        out = tmp_path / "out"
        options = ["--only", ",".join(parts), "--rounds", str(rounds), "--scale", "0.01", "--out", str(out), "--docs"]
        assert main(options) == 0
        return Report.read(out / "benchmarks.json")

    return measured


def check(report, parts):
    assert report.failures == ()
    assert [(table.title, row.name, row.failure) for table in report.tables for row in table.rows if row.failure] == []
    assert {table.section for table in report.tables} == set(parts)
    for table in report.tables:
        reference, *others = table.rows
        assert (reference.name, reference.ratio) == (table.reference, None)
        assert others
        assert all(row.ratio is not None and row.milliseconds > 0 for row in others)
    assert not report.whole


def test_a_run_of_some_parts(run, tmp_path, capsys):
    parts = ("find", "send")
    report = run(*parts)
    check(report, parts)
    assert {"Processor", "DCMTK", "Disk", "Load at the start"} <= set(report.machine)
    told = capsys.readouterr().out
    for table in report.tables:
        assert table.title in told
    assert "goal ≤ 0.2" in told
    assert "docs/benchmarks.md stays as it is" in told
    assert "### Goals" in (tmp_path / "out" / "benchmarks.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_of_all_parts(run):
    check(run(*SECTIONS, rounds=2), SECTIONS)


@pytest.mark.parametrize(
    "options", [["--only", "recieve"], ["--rounds", "0"], ["--scale", "0"], ["--disk", "/none"]], ids=" ".join
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(SystemExit) as refused:
        main(options)
    assert refused.value.code == 2


@pytest.mark.slow
def test_a_run_of_the_waiting(tmp_path):
    """Few triggers in Airflow's runner, for a moment: that it runs, and what it counts."""
    options = ["--triggers", "5", "--interval", "2", "--intervals", "2", "--only", "nothing,finds"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.waiting", *options], capture_output=True, text=True, timeout=300, check=True
    )
    nothing, finds = ([cell.strip() for cell in row.split("|")[2:-1]] for row in done.stdout.splitlines()[-2:])
    assert nothing[3:] == ["0", "0", "0"]
    queries, associations, at_once = map(int, finds[3:])
    assert (queries, at_once) == (5 * associations, 1)
    assert associations >= 2
