"""The table of attacks on the receiver and of what must hold, made from the rows that the tests play."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from table_cells import escaped

if TYPE_CHECKING:
    from robustness.attack_stage import Attack

TOP = Path(__file__).parents[2]
HEADING = ("What is done", "What holds", "Tests")


def attack_lines() -> list[str]:
    """Return the table of each group of attacks under its name."""
    tests = str(TOP / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from robustness.attack_table import GROUPS

    lines: list[str] = []
    for group, attacks in GROUPS.items():
        lines += [f"**{group}**", "", f"| {' | '.join(HEADING)} |", "| " + " | ".join(["---"] * len(HEADING)) + " |"]
        lines += [_line(attack) for attack in attacks]
        lines.append("")
    return lines


def _line(attack: Attack) -> str:
    from robustness.attack_table import case

    tests = [f"`test_attack[{case(attack, way, over)}]`" for way in attack.ways for over in attack.over]
    return f"| {escaped(attack.what)} | {escaped(attack.holds)} | {'<br>'.join(tests)} |"
