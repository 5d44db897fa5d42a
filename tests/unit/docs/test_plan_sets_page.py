"""The words on the page about plan sets are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_provider_varian.aria.plan_set import ALL_ROLES, Completeness, Role, Standing
from airflow_provider_varian.aria.portal_dosimetry import BeamVerdict

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "plan-sets.md").read_text(encoding="utf-8")


def first_column(heading: str) -> set[str]:
    rows = PAGE.split(heading, 1)[1].split("\n\n", 1)[0].strip().splitlines()
    return {word for row in rows for word in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_each_role_is_told():
    assert first_column("| Role | It belongs to the plan when |") == ALL_ROLES - {Role.PLAN}


def test_each_standing_and_verdict_is_told():
    assert set(re.findall(r"^`(\w+)`\n: ", PAGE, re.M)) == set(Standing)
    assert {word for word in Completeness if f"`{word}`" in PAGE} == set(Completeness)


def test_each_verdict_of_a_beam_is_told():
    assert first_column("| Verdict | Meaning |") == set(BeamVerdict)
