"""Manifests with a bit of everything, written where a retrieval, a move or a store would write them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from airflow_provider_varian.dimse.store import StoreState
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest, RequestReport
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.sent import SentDocument, SentObject

PEER = {"ae_title": "VMSDBD", "implementation_class_uid": "1.2.246.9", "implementation_version_name": "DB Svc 16.1"}


def moments(second: int = 0, *, finished: bool = True) -> dict:
    began = {"started": f"2026-01-05T07:45:{second:02d}.000+00:00"}
    if not finished:
        return began
    return began | {
        "finished": f"2026-01-05T07:46:{second:02d}.500+00:00",
        "seconds": 60.5,
        "list_seconds": 0.25,
        "transfer_seconds": 58.0,
    }


def held(root: Path, uid: str, content: bytes = b"object", **values) -> Entry:
    """An object at its final path, and what a ledger says of it."""
    relative = f"study/{uid}.dcm"
    (root / "study").mkdir(parents=True, exist_ok=True)
    (root / relative).write_bytes(content)
    known = {
        "state": State.VERIFIED,
        "path": relative,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return Entry(sop_instance_uid=uid, **(known | values))


def missing(uid: str, reason: str = "asked for twice, never came", **values) -> Entry:
    return Entry(sop_instance_uid=uid, state=State.MISSING, reason=reason, attempts=2, **values)


def moved(uid: str, status: int | None = 0, **values) -> RequestReport:
    return RequestReport(attempt=1, method="C-MOVE", level=uid, asked=1, received=1, status=status, **values)


def complete(identity: str = "whole", *entries: Entry, **values) -> Manifest:
    count = len(entries)
    known = {
        "outcome": Outcome.COMPLETE,
        "message": f"{count} of {count} instances verified",
        "request": {"level": "SERIES", "uids": {"SeriesInstanceUID": ["1.2.3"]}, "method": "auto"},
        "peer": dict(PEER),
        "attempts": 1,
        "timings": moments(),
    }
    return Manifest(id=identity, ledger=Ledger(entries), **(known | values))


def sent(identity: str, *objects: SentObject, **values) -> SentDocument:
    document = SentDocument(
        id=identity, objects=list(objects), peer=dict(PEER), attempts=1, timings=moments(), **values
    )
    document.judge()
    return document


def file(position: int, state: StoreState = StoreState.STORED, **values) -> SentObject:
    return SentObject(position=position, sop_instance_uid=f"1.{position}", state=state, **values)


def write(root: Path, *documents: Manifest | SentDocument) -> list[Path]:
    for document in documents:
        document.write(Destination(root))
    return [root / document.path for document in documents]
