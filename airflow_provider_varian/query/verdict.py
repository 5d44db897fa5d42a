"""What a comparison can say. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """Three answers, because an absent value is neither a match nor a miss (semantics 12)."""

    MATCH = "match"
    MISS = "miss"
    UNDECIDED = "undecided"


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Combine conditions that must all hold: one miss settles it, then one doubt."""
    doubt = False
    for verdict in verdicts:
        if verdict is Verdict.MISS:
            return Verdict.MISS
        doubt = doubt or verdict is Verdict.UNDECIDED
    return Verdict.UNDECIDED if doubt else Verdict.MATCH


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Combine alternatives of which one must hold: one match settles it, then one doubt."""
    doubt = False
    for verdict in verdicts:
        if verdict is Verdict.MATCH:
            return Verdict.MATCH
        doubt = doubt or verdict is Verdict.UNDECIDED
    return Verdict.UNDECIDED if doubt else Verdict.MISS
