"""Side by side with DCMTK: receiving, getting, retrieving, finding, sending, on this machine, in one run.

python -m benchmarks [--only receive,get] [--rounds 7] [--scale 1] [--out FOLDER] [--disk FOLDER] [--docs]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import disk, machine, page, picture, processes, tables
from benchmarks.data import Sizes
from benchmarks.processes import ContestantError
from benchmarks.results import Report, Table
from benchmarks.sections import SECTIONS
from benchmarks.stage import Stage

_TOP: Final = Path(__file__).parents[1]
_PAGE: Final = _TOP / "docs" / "benchmarks.md"
_STATIC: Final = _TOP / "docs" / "_static"
_NAME: Final = "benchmarks"
#: As the page names the other two files.
_PICTURE: Final = f"![Our time over the reference's, as bars beside 1, with the goals](_static/{_NAME}.png)"
_NUMBERS: Final = f"{{download}}`The same as JSON <_static/{_NAME}.json>`"
#: Fewer do not make a median.
_ROUNDS_FOR_DOCS: Final = 5
_PROGRAMS: Final = ("dcmqrscp", "storescp", "storescu", "movescu", "getscu", "findscu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and tell; see the options."""
    options = _options(arguments)
    processes.needed(*_PROGRAMS)
    try:
        with ExitStack() as stack:
            report = _measured(options, stack)
    except ContestantError as error:
        sys.exit(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    _write(report, options.out)
    print(f"\n{tables.goals_for_terminal(report)}\n\n{options.out / _NAME}.json, .md and .png")
    if options.docs:
        _write_docs(report, options)
    return 1 if report.failures else 0


def _measured(options: argparse.Namespace, stack: ExitStack) -> Report:
    on_disk = _folder(stack, options.disk)
    disk.check_durable(on_disk)
    in_memory = disk.memory_folder()
    in_memory = _folder(stack, in_memory) if in_memory else on_disk / "memory"
    in_memory.mkdir(exist_ok=True)
    described = machine.described(on_disk, in_memory)
    for name, value in described.items():
        print(f"{name}: {value}")
    stage = Stage(in_memory, on_disk, Sizes().scaled(options.scale), options.rounds, _say)
    start = time.monotonic()
    done, failures = _all_tables(stage, options.only)
    settings = {
        "Rounds": f"{options.rounds} counted, and one before them; contestants in turn, in the order of the rows",
        "Time taken": f"{(time.monotonic() - start) / 60:.0f} minutes",
    }
    if options.scale != 1:
        settings["Scale"] = f"{options.scale:g} of the full size"
    whole = set(options.only) == set(SECTIONS) and options.scale == 1
    return Report(machine=described, settings=settings, whole=whole, tables=tuple(done), failures=tuple(failures))


def _all_tables(stage: Stage, only: Sequence[str]) -> tuple[list[Table], list[str]]:
    """Go through the parts; one that cannot be done does not keep the others from it."""
    done: list[Table] = []
    failures: list[str] = []
    for name in (name for name in SECTIONS if name in only):
        try:
            for table in SECTIONS[name](stage):
                done.append(table)
                print(f"\n{table.title} (ratios over {table.reference})\n{tables.terminal(table)}", flush=True)
        except (ContestantError, OSError) as error:
            failures.append(f"{name}: {error}")
            _say(failures[-1])
    return done, failures


def _write(report: Report, folder: Path) -> None:
    (folder / f"{_NAME}.json").write_text(report.to_json(), encoding="utf-8")
    (folder / f"{_NAME}.md").write_text(tables.markdown(report), encoding="utf-8")
    picture.draw(report, folder / f"{_NAME}.png")


def _write_docs(report: Report, options: argparse.Namespace) -> None:
    """Put a run into the documentation, if it is one that others should read."""
    if not report.whole or options.rounds < _ROUNDS_FOR_DOCS:
        print(f"docs/{_PAGE.name} stays as it is: this was not all of it, at full size, {_ROUNDS_FOR_DOCS} times")
        return
    for suffix in ("json", "png"):
        (_STATIC / f"{_NAME}.{suffix}").write_bytes((options.out / f"{_NAME}.{suffix}").read_bytes())
    page.rewrite(_PAGE, f"{_PICTURE}\n\n{tables.markdown(report)}\n{_NUMBERS}")
    print(f"docs/{_PAGE.name} is written anew")


def _folder(stack: ExitStack, top: Path) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=top)))


def _say(line: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--only", type=_sections, default=list(SECTIONS), help=f"parts, with commas: {', '.join(SECTIONS)}")
    add("--rounds", type=_positive, default=7, help="how many are counted; default: %(default)s")
    add("--scale", type=_scale, default=1.0, help="more or fewer objects: 0.1 takes a minute; default: %(default)g")
    add("--out", type=Path, default=_TOP / ".bench", help="where results go; default: .bench in the checkout")
    add("--disk", type=_writable, default=Path("/var/tmp"), help="a folder on a real disk; default: %(default)s")
    add("--docs", action="store_true", help="write the results of a whole run into docs/benchmarks.md")
    return parser.parse_args(arguments)


def _sections(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := set(names) - set(SECTIONS):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return names


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _scale(text: str) -> float:
    if not 0 < (number := float(text)) <= 100:
        raise argparse.ArgumentTypeError("more than 0, at most 100")
    return number


def _writable(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError("no folder that can be written to")
    return folder


if __name__ == "__main__":
    # So that what was started is ended, and what was written removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    sys.exit(main())
