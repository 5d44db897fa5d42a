"""All attacks, in groups: one table for the test that plays them and for the page that tells of them."""

from __future__ import annotations

from typing import Final

from robustness import (
    attack_cuts,
    attack_disk,
    attack_garbage,
    attack_lies,
    attack_names,
    attack_order,
    attack_silence,
    attack_size,
)
from robustness.attack_receivers import TLS, Small
from robustness.attack_stage import HASTY, Attack

#: Groups of attacks by their headings on the page, in its order.
GROUPS: Final[dict[str, tuple[Attack, ...]]] = {
    "Peers that say nothing, too little, or too slowly": attack_silence.ROWS,
    "Too much": attack_size.ROWS,
    "Lengths that lie": attack_lies.ROWS,
    "Right things at the wrong time": attack_order.ROWS,
    "Garbage": attack_garbage.ROWS,
    "Transfers that end anywhere": attack_cuts.ROWS,
    "Names and contradictions": attack_names.ROWS,
    "A disk that is full": attack_disk.ROWS,
}
ATTACKS: Final = tuple(attack for attacks in GROUPS.values() for attack in attacks)


def case(attack: Attack, way: str, over: str) -> str:
    """Return the parameter of the test that plays an attack on a receiver run in one way."""
    return f"{attack.name}-{way}-tls" if over == TLS else f"{attack.name}-{way}"


def limits_of(attack: Attack, over: str) -> Small:
    """Return the limits of the receiver that is attacked; the one over TLS has those that are waited for."""
    return HASTY if over == TLS else attack.limits


#: Each attack on each receiver that it is meant for, sorted so that those on one receiver come one after the other.
CASES: Final = sorted(
    ((attack, way, over) for attack in ATTACKS for way in attack.ways for over in attack.over),
    key=lambda one: (one[1], one[2], repr(limits_of(one[0], one[2])), ATTACKS.index(one[0])),
)
