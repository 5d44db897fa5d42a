"""The page shows the attacks that the tests play, and names the test of each."""

from __future__ import annotations

import sys
from pathlib import Path

from robustness.attack_receivers import IN_TASK, STANDING
from robustness.attack_table import ATTACKS, CASES, case

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "docs" / "_ext"))
from attack_table import attack_lines  # noqa: E402 - the path is set just above


def test_attacks_have_names_of_their_own():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_every_attack_is_played_on_both_ways_but_for_limits_that_one_has_not():
    alone = {attack.name: attack.ways for attack in ATTACKS if attack.ways != (IN_TASK, STANDING)}
    assert alone == {"too-large-an-object": (STANDING,), "little-free-space": (STANDING,)}


def test_the_page_has_each_attack_with_its_tests():
    lines = attack_lines()
    rows = [line for line in lines if line.startswith("| ") and "---" not in line and "What is done" not in line]
    assert len(rows) == len(ATTACKS)
    assert all(row.count(" | ") == 2 for row in rows)
    text = "\n".join(rows)
    assert all(f"`test_attack[{case(*each)}]`" in text for each in CASES)
    assert "```{attacks}" in (TOP / "docs" / "security.md").read_text(encoding="utf-8")
