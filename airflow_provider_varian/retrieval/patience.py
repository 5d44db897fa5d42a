"""How long to wait for a peer that is not done yet: the profile's habits, as a caller may set them (semantics 11)."""

from __future__ import annotations

import math
from dataclasses import replace

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.profile import Profile


def patient_profile(
    profile: Profile,
    *,
    stable_counts: int | None = None,
    stable_interval_seconds: float | None = None,
    settle_seconds: float | None = None,
) -> Profile:
    """Return the profile with what was set; ``None`` leaves what the profile says.

    :param profile: the peer's habits.
    :param stable_counts: equal lists in a row that make a list stable.
    :param stable_interval_seconds: seconds between two of them.
    :param settle_seconds: seconds of quiet after which late objects are given up.
    :raises ConfigurationError: names the argument that is out of range.
    """
    if stable_counts is not None and (isinstance(stable_counts, bool) or stable_counts < 1):
        raise ConfigurationError(f"stable_counts is {stable_counts!r}", hint="Give a whole number from 1")
    for name, value in (("stable_interval_seconds", stable_interval_seconds), ("settle_seconds", settle_seconds)):
        if value is not None and not 0 <= value < math.inf:
            raise ConfigurationError(f"{name} is {value!r}", hint="Give a number of seconds from 0")
    return replace(
        profile,
        stable_counts=profile.stable_counts if stable_counts is None else stable_counts,
        stable_interval_seconds=(
            profile.stable_interval_seconds if stable_interval_seconds is None else stable_interval_seconds
        ),
        settle_seconds=profile.settle_seconds if settle_seconds is None else settle_seconds,
    )
