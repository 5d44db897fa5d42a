"""What the command line says: tables for people, JSON for machines, notes and progress on standard error.

What a peer sent is not to be trusted with a terminal: control characters are shown, never obeyed,
and nothing is read as markup.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

# A table that goes to a file or a pipe is never folded: a UID must stay on one line.
_UNFOLDED_COLUMNS = 100_000


class Output:
    """Where a verb's results go.

    :param as_json: write JSON to standard output instead of tables.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def result(self, value: Any, show: Callable[[], None]) -> None:
        """Give the verb's result once: as JSON when asked for, else by calling ``show``.

        :param value: the JSON-ready result.
        :param show: prints the same for people.
        """
        if self.as_json:
            # stdout may be a pipe in another encoding: ASCII survives every one of them.
            print(json.dumps(value, indent=2, ensure_ascii=not _speaks_unicode()))
        else:
            show()
        sys.stdout.flush()

    def line(self, text: str) -> None:
        """Print one line to standard output, at once."""
        print(printable(text), flush=True)

    def note(self, text: str) -> None:
        """Say something to the person at the terminal, on standard error."""
        print(printable(text), file=sys.stderr, flush=True)

    def pairs(self, pairs: Mapping[str, Any]) -> None:
        """Print names and values, one below the other."""
        width = max((len(name) for name in pairs), default=0)
        for name, value in pairs.items():
            print(f"{name:<{width}}  {cell(value)}")

    def table(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Print rows under the named columns; on a terminal folded to its width."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in columns:
            table.add_column(_text(column), overflow="fold")
        for row in rows:
            table.add_row(*(_text(cell(row.get(column, ""))) for column in columns))
        _console(sys.stdout).print(table)

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int | None, str], None]]:
        """Show a running count on a terminal; elsewhere nothing.

        :param label: what is being done.
        :returns: a context manager that yields ``advance(done, total, remark)``.
        """
        if not sys.stderr.isatty():
            yield lambda done, total, remark: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remark]}", markup=False),
        )
        with Progress(*columns, console=_console(sys.stderr), transient=True) as progress:
            task = progress.add_task(printable(label), total=None, remark="")

            def advance(done: int, total: int | None, remark: str) -> None:
                progress.update(task, completed=done, total=total, remark=printable(remark))

            yield advance


def cell(value: Any) -> str:
    """Return one value of an answer as the text of one table cell.

    :param value: a value of a JSON-ready answer: text, number, list of values, sequence item or ``None``.
    """
    if value is None:
        return ""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={cell(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        joint = ", " if any(isinstance(item, dict) for item in value) else "\\"
        return joint.join(cell(item) for item in value)
    return printable(str(value))


def printable(text: str) -> str:
    """Return the text with its control characters made visible, so that a terminal obeys none of them."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _text(text: str) -> Text:
    from rich.text import Text

    return Text(text)


def _console(stream: Any) -> Console:
    from rich.console import Console

    width = None if stream.isatty() else _UNFOLDED_COLUMNS
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
