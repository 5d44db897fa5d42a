"""The table of a profile's habits, made from its fields and from the profiles that there are."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any

from table_cells import escaped

HEADING = ("Name", "Meaning", "`aria`", "`generic`")


def profile_rows() -> list[str]:
    """Return a row for each habit that can be overridden."""
    from airflow_provider_varian.aria.profile import ARIA, GENERIC
    from airflow_provider_varian.query.profile import Profile

    meanings = _meanings(Profile)
    return [
        f"| `{each.name}` | {escaped(meanings[each.name])} | "
        + " | ".join(escaped(_shown(each.name, getattr(profile, each.name))) for profile in (ARIA, GENERIC))
        + " |"
        for each in fields(Profile)
        if each.name != "name"
    ]


def _meanings(documented: type) -> dict[str, str]:
    """Return what a docstring says of each parameter."""
    text = inspect.getdoc(documented) or ""
    found = re.findall(r"^:param (\w+): (.*?)(?=^:param |\Z)", text, re.M | re.S)
    # The numbered rules are the developers'; readers of the pages do not have them.
    return {name: re.sub(r"\s+", " ", re.sub(r"\s\(semantics \d+\)", "", words)).strip() for name, words in found}


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:g}"
    if name == "expected_failures":
        return "; ".join(f"{each.name}: {each.reason}" for each in value) or "none"
    if name.endswith("statuses"):
        return ", ".join(f"`0x{status:04X}`" for status in sorted(value)) or "none"
    return ", ".join(f"`{each}`" for each in sorted(value)) or "none"
