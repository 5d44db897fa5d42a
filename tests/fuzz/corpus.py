"""Inputs that are kept: those that lead somewhere new, and those that once showed a defect, a line of hex digits each.

python -m fuzz.corpus TARGET FOLDER     keep what a run of the fuzzer found in FOLDER and leads somewhere new
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

HERE = Path(__file__).parent


def kept(target: str) -> list[bytes]:
    """Return the inputs of a target: its seeds, what was found from there, and what once showed a defect."""
    return [*SEEDS[target], *_read(_found(target)), *_read(HERE / "corpus" / f"{target}.defects.txt")]


def _found(target: str) -> Path:
    return HERE / "corpus" / f"{target}.txt"


def _read(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="ascii").splitlines()
    return [bytes.fromhex(line) for line in lines if line and not line.startswith("#")]


def write_out(target: str, folder: Path) -> None:
    """Write the inputs of a target as files, for the fuzzer to begin with."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(kept(target)):
        (folder / f"kept-{number:04d}").write_bytes(data)


def _keep(target: str, found: Path) -> None:
    seen = {step for data in SEEDS[target] for step in _steps(target, data)}
    lines = []
    for data in sorted((path.read_bytes() for path in found.iterdir()), key=lambda each: (len(each), each)):
        if (steps := _steps(target, data)) - seen:
            seen |= steps
            lines.append(f"{data.hex()}\n")
    _found(target).parent.mkdir(exist_ok=True)
    _found(target).write_text("".join(lines), encoding="ascii")


def _steps(target: str, data: bytes) -> set[tuple[str, int, int]]:
    """Return which line of the parsers followed on which while an input was tried."""
    modules = tuple(f"{name.replace('.', '/')}.py" for name in TARGETS[target].modules)
    steps: set[tuple[str, int, int]] = set()

    def trace(frame: FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.endswith(modules):
            return None
        name, last = frame.f_code.co_qualname, 0

        def step(frame: FrameType, _event: str, _argument: object) -> Callable[..., Any]:
            nonlocal last
            steps.add((name, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    sys.settrace(trace)
    try:
        TARGETS[target].test(data)
    finally:
        sys.settrace(None)
    return steps


if __name__ == "__main__":
    _keep(sys.argv[1], Path(sys.argv[2]))
