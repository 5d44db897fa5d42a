"""Which irregular patients the clinic behind the daemon has (quirks 6, 7, 8, 12, 19, 21, 22, 24)."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Final

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.simulator.clinic.irregularities import ALL, Irregularity
from airflow_provider_varian.simulator.daemon.behaviour import AS_HELD, LISTING
from airflow_provider_varian.simulator.holdings.tree import Holdings

_WHOLE: Final = {"all": ALL, "none": frozenset[Irregularity]()}


def read_irregularities(names: tuple[str, ...]) -> frozenset[Irregularity]:
    """Return irregularities by their names; ``all`` and ``none`` stand for themselves.

    :raises ConfigurationError: for an unknown name, with the nearest, and with how to see all of them.
    """
    if len(names) <= 1 and (names or ("none",))[0] in _WHOLE:
        return _WHOLE[(names or ("none",))[0]]
    for name in names:
        if name not in list(Irregularity):
            near = get_close_matches(name, list(Irregularity), n=1)
            raise ConfigurationError(
                f"{name!r} is not an irregularity of the synthetic clinic",
                hint=f"{f'Did you mean {near[0]}? ' if near else ''}All {len(Irregularity)} are listed by: {LISTING}; "
                "all and none stand for themselves",
            )
    return frozenset(each for each in Irregularity if each in names)


def set_irregularities(holdings: Holdings, names: tuple[str, ...]) -> None:
    """Let a clinic have the irregular patients that a switch names; ``as held`` changes nothing.

    :raises ConfigurationError: for an unknown name, or holdings that are not a clinic.
    """
    if names == (AS_HELD,):
        return
    wanted = read_irregularities(names)
    clinic: Any = holdings
    if not hasattr(clinic, "irregularities"):
        raise ConfigurationError(
            "these holdings have no irregular patients to choose from",
            hint="irregularities is for the synthetic clinic; leave it out with --data",
        )
    clinic.irregularities = wanted
