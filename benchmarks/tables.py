"""Results as tables: Markdown for the page, and the same with columns in line for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.results import Measure, Report, Row, Spread, Table

Cells = Sequence[str]

_WHAT: dict[Measure, str] = {
    "ratio": "time over that of {reference}",
    "growth_mb": "growth of memory",
    "slowest_ms": "slowest answer",
}
_UNITS: dict[Measure, str] = {"ratio": "", "growth_mb": " MB", "slowest_ms": " ms"}


def markdown(report: Report) -> str:
    """Return a run as a part of a page: the machine, goals beside what was measured, and everything."""
    parts = [
        _table(["The run", ""], [*report.machine.items(), *report.settings.items()]),
        "### Goals",
        _goals(report),
    ]
    if failed := _failures(report):
        parts += ["### What failed", "\n".join(f"- {line}" for line in failed)]
    parts.append("### All of it")
    for table in report.tables:
        parts += [f"**{table.title}**; ratios are over `{table.reference}`", _table(*_columns(table))]
        parts += [f"Parts of it: {noted}."] if (noted := _notes(table)) else []
    return "\n\n".join(parts) + "\n"


def terminal(table: Table) -> str:
    """Return a contest for a terminal."""
    head, rows = _columns(table)
    cells = [head, *rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def goals_for_terminal(report: Report) -> str:
    """Return the goals, each in a line, with what was measured."""
    return "\n".join(
        f"{_verdict(row):<13} {_measured(row):>9}  goal {row.goal.text():<9} {table.title}: {row.name}"
        for table, row in _with_goals(report)
        if row.goal is not None
    )


def _goals(report: Report) -> str:
    rows = [
        [
            table.title,
            f"`{row.name}`",
            _WHAT[row.goal.measure].format(reference=f"`{table.reference}`"),
            row.goal.text(),
            _measured(row),
            f"**{_verdict(row)}**" if _verdict(row) != "met" else "met",
        ]
        for table, row in _with_goals(report)
        if row.goal is not None
    ]
    return _table(["Work", "Who", "What", "Goal", "Measured", ""], rows)


def _with_goals(report: Report) -> Iterator[tuple[Table, Row]]:
    for table in report.tables:
        yield from ((table, row) for row in table.rows if row.goal is not None)


def _verdict(row: Row) -> str:
    if row.reached is None:
        return "not measured"
    return "met" if row.met else "not met"


def _measured(row: Row) -> str:
    if row.goal is None or row.reached is None:
        return "-"
    digits = 2 if row.goal.measure == "ratio" else 1
    return f"{row.reached:.{digits}f}{_UNITS[row.goal.measure]}"


def _failures(report: Report) -> list[str]:
    rows = [
        f"{table.title}: `{row.name}`: {row.failure}" for table in report.tables for row in table.rows if row.failure
    ]
    return [*report.failures, *rows]


def _notes(table: Table) -> str:
    """Return what else was measured, e.g. where the time of a retrieval goes."""
    rows = [(row.name, ", ".join(f"{name} {value:.2f} s" for name, value in row.notes.items())) for row in table.rows]
    return "; ".join(f"`{name}` {notes}" for name, notes in rows if notes)


def _columns(table: Table) -> tuple[Cells, list[Cells]]:
    """Return the head of a table, and its rows; columns that say nothing are left out."""
    sized = any(row.megabytes_per_second for row in table.rows)
    timed = any(row.slowest_ms for row in table.rows)
    head = ["Who", "ratio (least - most)", "goal", f"ms each {table.unit}"]
    head += ["p99 ms", "slowest ms"] if timed else []
    head += ["MB/s", "CPU s/GB"] if sized else ["CPU ms each"]
    return [*head, "peak MB", "growth MB", "threads"], [_cells(row, sized=sized, timed=timed) for row in table.rows]


def _cells(row: Row, *, sized: bool, timed: bool) -> Cells:
    goal = f"{row.goal.text()}: {_verdict(row)}" if row.goal else ""
    if row.failure or not row.rounds:
        return [row.name, "failed", goal, *["-"] * (1 + 2 * timed + (2 if sized else 1) + 3)]
    cells = [row.name, _ratio(row.ratio), goal, f"{row.milliseconds:.3f}"]
    if timed:
        cells += [f"{row.p99_ms:.2f}", f"{row.slowest_ms:.2f}"] if row.slowest_ms else ["-", "-"]
    if sized:
        cells += [f"{row.megabytes_per_second:.0f}", f"{row.cpu_seconds_per_gb:.2f}"]
    else:
        cells.append(f"{row.cpu_milliseconds:.3f}")
    return [*cells, f"{row.peak_mb:.0f}", f"{row.growth_mb:.1f}", str(row.threads)]


def _ratio(ratio: Spread | None) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f} - {ratio.most:.2f})" if ratio else "1"


def _table(head: Cells, rows: Sequence[Cells]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
