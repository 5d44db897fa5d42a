"""A manifest held against what is there: size and SHA-256 of each object that it calls verified.

What a retrieval filed is at its final path, or, where a newer version took its place since, among the older versions.
What was moved to a third party is looked for by its UID where that files it: names there may be made of a patient's,
so a manifest does not hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.third_party_folder import WatchedFolder
from airflow_provider_varian.retrieval.verify import sha256_of
from airflow_provider_varian.retrieval.versions import version_path
from airflow_provider_varian.uids import CHANGING_STORAGE


@dataclass(slots=True, kw_only=True)
class Audit:
    """What came of it.

    :param checked: how many objects the manifest says are there.
    :param hashed: of how many of them it knows the SHA-256; of the others only the size can be compared, since they
        were there before and nobody had hashed them.
    :param differences: what is not as it says, by SOP Instance UID.
    :param replaced: objects in whose place a newer version is by now, with the path at which the one of this manifest
        is kept, unchanged. That is no difference: nothing is lost.
    """

    checked: int = 0
    hashed: int = 0
    differences: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)


def audit(manifest: Manifest, place: Destination) -> Audit:
    """Compare what a retrieval's manifest says is here with what is at its destination.

    :param manifest: of a retrieval.
    :param place: its destination.
    :raises DestinationWriteError: when the destination cannot be read.
    """
    found = _begun(manifest)
    for entry in _here(manifest):
        uid, path = entry.sop_instance_uid, PurePosixPath(entry.path)
        reason = _difference(path, entry, place)
        if not reason:
            if entry.superseded and not _is_version(PurePosixPath(entry.superseded), place):
                found.differences[uid] = "its older version is not where it was kept"
        elif (kept := _kept(entry, place)) is None:
            found.differences[uid] = reason
        elif place.size(path) is None:
            # That it is kept is enough for a version that a newer one took the place of; for nothing else.
            found.differences[uid] = f"not at its final path; a copy is {kept}"
        else:
            found.replaced[uid] = str(kept)
    return found


def audit_move(manifest: Manifest, folder: WatchedFolder) -> Audit:
    """Compare what a third-party move's manifest says is verified with the files of the destination.

    :param manifest: of a move.
    :param folder: where the destination files what it gets.
    :raises DestinationWriteError: when the folder cannot be listed.
    """
    found = _begun(manifest)
    folder.refresh((entry.sop_instance_uid for entry in _here(manifest)), now=0.0)
    for entry in _here(manifest):
        uid = entry.sop_instance_uid
        hashes = folder.hashes(uid)
        if not hashes:
            found.differences[uid] = folder.problem_of(uid) or "no file of it is there"
        elif entry.sha256 not in hashes:
            found.differences[uid] = "has another SHA-256"
    return found


def _begun(manifest: Manifest) -> Audit:
    here = list(_here(manifest))
    return Audit(checked=len(here), hashed=sum(bool(entry.sha256) for entry in here))


def _here(manifest: Manifest) -> Iterator[Entry]:
    ledger = manifest.ledger
    return (entry for entry in (*ledger.entries.values(), *ledger.unexpected.values()) if entry.is_here)


def _kept(entry: Entry, place: Destination) -> PurePosixPath | None:
    """Return where this version is kept unchanged, if it is: a newer one may be at its final path."""
    if not entry.sha256 or (entry.sop_class_uid and entry.sop_class_uid not in CHANGING_STORAGE):
        return None
    kept = version_path(entry.sop_instance_uid, entry.sha256)
    return None if _difference(kept, entry, place) else kept


def _is_version(path: PurePosixPath, place: Destination) -> bool:
    """Say whether a version is kept at a path, with the start of the SHA-256 that its name tells."""
    if place.size(path) is None:
        return False
    with place.local_copy(path) as local:
        return sha256_of(local).startswith(path.stem)


def _difference(path: PurePosixPath, entry: Entry, place: Destination) -> str:
    size = place.size(path)
    if size is None:
        return "not at its final path"
    if entry.bytes is not None and size != entry.bytes:
        return f"has {size} bytes instead of {entry.bytes}"
    with place.local_copy(path) as local:
        if entry.sha256 and sha256_of(local) != entry.sha256:
            return "has another SHA-256"
    return ""
