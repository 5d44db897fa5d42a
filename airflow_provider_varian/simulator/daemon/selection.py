"""What a C-MOVE or C-GET is about to send: what was asked for, and what becomes of that (varian-daemon 1.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset

from airflow_provider_varian.query.level import UNIQUE_KEYS, Level
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.simulator.daemon.find_service import (
    IDENTIFIER_MISMATCH,
    BadIdentifierError,
    build_search,
    never_matches,
    read_identifier,
)
from airflow_provider_varian.simulator.daemon.turn import Turn
from airflow_provider_varian.simulator.holdings.attributes import element_of, tag_of
from airflow_provider_varian.simulator.holdings.tree import (
    Chain,
    Export,
    Holdings,
    Node,
    Search,
    instances_below,
    unique_values,
    walk,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The instances of a retrieve.

    :param asked: how many were asked for.
    :param sent: those that the daemon sends, or tries to.
    :param too_many_plans: the patient has more plans than the daemon stands (quirk 19).
    """

    level: Level
    keywords: tuple[str, ...]
    asked: int
    sent: list[Node]
    too_many_plans: bool = False


def select(turn: Turn, holdings: Holdings, *, moving: bool) -> Selection:
    """Read a retrieve's identifier and find what it means.

    :param moving: C-MOVE, not C-GET.
    :raises BadIdentifierError: when it cannot be read or names nothing.
    """
    behaviour = turn.behaviour
    level, search = _read(turn)
    chains = _chains(search, holdings, behaviour)
    instances = [chain[-1] for chain in chains]
    sent = instances
    if moving and instances:
        sent = _as_moved(turn, chains)
    return Selection(
        level=level,
        keywords=search.keywords(),
        asked=len(instances),
        sent=sent,
        too_many_plans=moving and level is Level.STUDY and _too_many_plans(chains, behaviour),
    )


def _read(turn: Turn) -> tuple[Level, Search]:
    """Read the identifier; only unique keys count, unless a switch says otherwise (quirk 15)."""
    level, keys = read_identifier(turn.exchange, turn.behaviour)
    present = [each for each in UNIQUE_KEYS if unique_values(keys, each)]
    if not present:
        raise BadIdentifierError(IDENTIFIER_MISMATCH, "No unique key with a value")
    if turn.behaviour.move_unique_keys_only:
        unique = Dataset()
        for each in present:
            unique.add(keys[UNIQUE_KEYS[each]])
        keys = unique
    # A unique key below the level asked for would be ignored, and far too much be sent.
    deepest = max(level.depth, *(each.depth for each in present))
    return level, build_search(list(UNIQUE_KEYS)[deepest], keys)


def _chains(search: Search, holdings: Holdings, behaviour: Behaviour) -> list[Chain]:
    """Return the instances with what stands above them; series that cannot be moved left out (quirk 12)."""
    if never_matches(search, behaviour):
        return []
    found: list[Chain] = []
    for chain in walk(holdings, search):
        for below in instances_below(chain):
            series = below[Level.SERIES.depth]
            if series.export is not Export.NOT_FOUND:
                found.append(below)
            elif series.uid in search.uids(Level.SERIES):
                return []
    return found


def _as_moved(turn: Turn, chains: list[Chain]) -> list[Node]:
    """Return what a C-MOVE sends of them: all, or not (quirk 11)."""
    behaviour = turn.behaviour
    instances = [chain[-1] for chain in chains]
    if turn.happens("empty move", behaviour.empty_move_probability):
        return []
    if len(instances) > 1 and turn.happens("partial move", behaviour.partial_move_probability):
        chance = turn.random("which part")
        kept = sorted(chance.sample(range(len(instances)), chance.randint(1, len(instances) - 1)))
        instances = [instances[each] for each in kept]
    if turn.happens("extra move", behaviour.extra_move_probability):
        instances += _neighbour(chains)
    return instances


def _neighbour(chains: list[Chain]) -> list[Node]:
    """Return an instance that nobody asked for: of the same series, else study, else patient."""
    asked = {chain[-1].uid for chain in chains}
    first = chains[0]
    for level in (Level.SERIES, Level.STUDY, Level.PATIENT):
        for below in instances_below(first[: level.depth + 1]):
            if below[-1].uid not in asked:
                return [below[-1]]
    return []


def _too_many_plans(chains: Iterable[Chain], behaviour: Behaviour) -> bool:
    limit = behaviour.move_exception_plan_series
    patients = {chain[0].uid: chain[0] for chain in chains} if limit else {}
    return any(_plan_series(patient) > limit for patient in patients.values())


def _plan_series(patient: Node) -> int:
    series = (each for study in patient.children() for each in study.children())
    modalities = (element_of(each.values(), tag_of("Modality")) for each in series)
    return sum(1 for modality in modalities if modality is not None and modality.value == "RTPLAN")
