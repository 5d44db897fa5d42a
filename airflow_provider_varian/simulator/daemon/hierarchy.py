"""Queries that leave out unique keys of upper levels: relational ones (PS3.4 C.4.1.2.2.1, C.4.1.3.2.1; quirk 4)."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from airflow_provider_varian import uids
from airflow_provider_varian.query.level import LEVELS, Level
from airflow_provider_varian.simulator.holdings.tree import unique_values

#: PS3.4 C.4.1.1: the retired model has no series and no instances. Nobody but a simulator names it.
PATIENT_STUDY_ONLY: Final = ("1.2.840.10008.5.1.4.1.2.3.1", "1.2.840.10008.5.1.4.1.2.3.2")
_STUDY_ROOT: Final = frozenset({uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE, uids.STUDY_ROOT_GET})

#: PS3.4 C.5.1.1: relational queries or retrieval supported.
RELATIONAL: Final = b"\x01"


def levels_of(model_uid: str) -> tuple[Level, ...]:
    """Return the levels of an information model, from the top."""
    if model_uid in PATIENT_STUDY_ONLY:
        return (Level.PATIENT, Level.STUDY)
    return tuple(LEVELS[1:]) if model_uid in _STUDY_ROOT else tuple(LEVELS)


def lacks_upper_keys(level: Level, keys: Dataset, model_uid: str) -> bool:
    """Say whether a unique key above the level is missing or has not exactly one value."""
    above = [each for each in levels_of(model_uid) if each.depth < level.depth]
    return any(len(unique_values(keys, each)) != 1 for each in above)


def answer_to(asked: dict[str, bytes], wanted: bool) -> dict[str, bytes]:
    """Return what an acceptor says to SOP Class Extended Negotiation: yes to relational queries, or nothing."""
    return {uid: RELATIONAL for uid, said in asked.items() if said[:1] == RELATIONAL} if wanted else {}


def is_negotiated(assoc: Association, model_uid: str) -> bool:
    """Say whether relational queries were asked for and granted on an association."""
    granted = {str(uid): said for uid, said in assoc.acceptor.sop_class_extended.items()}
    return granted.get(model_uid, b"")[:1] == RELATIONAL
