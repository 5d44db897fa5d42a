"""The profiles: the DB Daemon of ARIA, and any other archive. Standard library only.

Each fact names where it comes from; numbers such as [1.3] are sections of the notes on the daemon
that the documentation's page on the DB Daemon repeats.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.query.profile import ExpectedFailure, Profile

ARIA: Final = Profile(
    name="aria",
    # Upper unique keys may be missing at every level, without negotiation [1.3].
    relational_queries=True,
    # Nobody has been seen to send a list of UIDs; asking one by one is always right.
    uid_lists=False,
    # Patient Root FIND came after version 8.1 and is in daily use [1.2].
    patient_level=True,
    # RTPlanLabel matches 12 characters at most; SeriesDate comes back empty [1.3]; a matching key
    # that the daemon may drop is compared here instead.
    unreliable_matching_keys=frozenset({"RTPlanLabel", "SeriesDate", "SeriesTime"}),
    # Set at each export, not at acquisition [1.4].
    volatile_attributes=frozenset({"InstanceCreationDate", "InstanceCreationTime"}),
    # A query that would list too much ends so, without a row [1.3].
    too_broad_statuses=frozenset({0xC001}),
    # "ARIA DICOM Services do not support C-MOVE with secure DICOM" [1.1].
    move_over_tls=False,
    # The daemon negotiates no user identity [1.1]; people would type their ARIA password.
    user_identity=False,
    # Three equal counts, half a second apart, while data is being written [1.4].
    stable_counts=3,
    stable_interval_seconds=0.5,
    # Files arrive up to 2.5 s after the final C-MOVE response [1.4].
    settle_seconds=3.0,
    expected_failures=(
        # "Cannot export RT Plan '...' with an empty Beam Sequence": listed, and never to be had [1.4].
        ExpectedFailure(
            name="plan without beams",
            reason="the plan has no beams, and the daemon cannot export a plan with an empty Beam Sequence",
            sop_class_uids=frozenset({uids.RT_PLAN, uids.RT_ION_PLAN, uids.VARIAN_HALCYON_RT_PLAN}),
            comment="empty Beam Sequence",
            answered=MappingProxyType({"NumberOfBeams": "0"}),
        ),
    ),
)

GENERIC: Final = Profile(name="generic")

PROFILES: Final = MappingProxyType({profile.name: profile for profile in (ARIA, GENERIC)})


def profile_for(peer: Peer) -> Profile:
    """Return the profile that a connection names, with its overrides.

    :param peer: the peer's settings.
    :raises ConfigurationError: for an unknown profile or override.
    """
    profile = PROFILES.get(peer.profile)
    if profile is None:
        raise ConfigurationError(
            f"there is no profile {peer.profile!r}", hint="The profiles are " + ", ".join(PROFILES)
        )
    return profile.overridden(peer.profile_overrides)
