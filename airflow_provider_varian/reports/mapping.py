"""Manifests as a program wants them: one mapping each, whose names stay as they are.

They are chosen one by one. What else a document holds, of a later version or by somebody's hand, is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_varian.reports.account import Account, missing_of, moment
from airflow_provider_varian.reports.check import Check
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.sent import SentDocument, SentObject

_PEER: Final = ("ae_title", "implementation_class_uid", "implementation_version_name")
_REQUEST: Final = (
    "level",
    "uids",
    "keys_left_out",
    "minimum",
    "limit",
    "limited",
    "method",
    "move_destination",
    "verify_path",
    "verify_peer",
)
_FALLBACK: Final = ("from", "to", "reason")


def account_mapping(account: Account, check: Check | None = None) -> dict[str, Any]:
    """Return one manifest as JSON-ready mapping. Every name is there for every kind of it.

    :param account: what was read.
    :param check: what came of holding it against what is there; ``None`` when that was not done, or cannot be.
    """
    document = account.document
    timings = document.timings if document is not None else {}
    values: dict[str, Any] = {
        "path": account.path,
        "kind": account.kind or None,
        "id": document.id if document is not None else None,
        "outcome": account.outcome or None,
        "message": document.message if document is not None else None,
        "problem": account.problem or None,
        "counts": document.counts() if isinstance(document, SentDocument) else {},
        "attempts": document.attempts if document is not None else None,
        "started": _instant(timings.get("started")),
        "finished": _instant(timings.get("finished")),
        "peer": _chosen(document.peer, _PEER) if document is not None else {},
        "request": {},
        "missing": [],
        "conflicts": [],
        "unexpected": [],
        "superseded": [],
        "found_late": [],
        "requests": [],
        "fallbacks": [],
        "warnings": [str(words) for words in document.warnings] if document is not None else [],
        "verification": check.to_json() if check is not None else None,
    }
    if account.manifest is not None:
        values |= _of_manifest(account.manifest)
    elif isinstance(document, SentDocument):
        values["missing"] = [_unaccepted(each) for each in document.files if not each.state.is_accepted]
    return values


def missing_mappings(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the expected instances that are not where they should be, as ``missing`` tells them.

    :param manifest: what it says.
    """
    return [_instance(entry) | {"attempts": entry.attempts} for entry in missing_of(manifest)]


def _of_manifest(manifest: Manifest) -> dict[str, Any]:
    entries = manifest.ledger.entries.values()
    everything = (*entries, *manifest.ledger.unexpected.values())
    return {
        "counts": manifest.ledger.counts(),
        "request": _chosen(manifest.request, _REQUEST),
        "missing": missing_mappings(manifest),
        "conflicts": [
            _instance(entry) | {"path": entry.path, "others": entry.conflicts}
            for entry in everything
            if entry.state is State.CONFLICT
        ],
        "unexpected": [_instance(entry) for entry in manifest.ledger.unexpected.values()],
        "superseded": [
            _instance(entry) | {"path": entry.path, "older": entry.superseded}
            for entry in everything
            if entry.superseded
        ],
        "found_late": [entry.sop_instance_uid for entry in entries if entry.found_late],
        "requests": [report.to_json() for report in manifest.requests],
        "fallbacks": [_chosen(each, _FALLBACK) for each in manifest.fallbacks],
    }


def _instance(entry: Entry) -> dict[str, Any]:
    return {
        "sop_instance_uid": entry.sop_instance_uid,
        "sop_class_uid": entry.sop_class_uid or None,
        "series_instance_uid": entry.series_instance_uid or None,
        "study_instance_uid": entry.study_instance_uid or None,
        "state": str(entry.state),
        "reason": entry.reason or None,
    }


def _unaccepted(each: SentObject) -> dict[str, Any]:
    return {
        "sop_instance_uid": each.sop_instance_uid or None,
        "sop_class_uid": each.sop_class_uid or None,
        "series_instance_uid": None,
        "study_instance_uid": None,
        "state": str(each.state),
        "reason": each.reason or None,
        "attempts": each.attempts,
        "position": each.position,
    }


def _chosen(values: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values} if isinstance(values, Mapping) else {}


def _instant(value: Any) -> str | None:
    found = moment(value)
    return None if found is None else found.isoformat(timespec="milliseconds")
