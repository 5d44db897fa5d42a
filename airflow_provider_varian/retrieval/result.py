"""What a retrieval returns, and the sentence about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalResult:
    """What became of a retrieval.

    :param outcome: judged by the ledger alone.
    :param manifest_path: path or URI of the manifest; empty after a dry run.
    :param manifest: what it says.
    :param counts: numbers by word: found, verified, missing, failed, conflict, held, duplicate,
        unexpected, and bytes.
    :param error: what went wrong on the way, if anything did; the outcome may be complete all the same.
    """

    outcome: Outcome
    manifest_path: str
    manifest: Manifest = field(repr=False)
    counts: dict[str, int]
    error: DicomError | None = None


def message_of(manifest: Manifest, error: DicomError | None) -> str:
    """Say in one sentence what became of a judged retrieval.

    :param manifest: what it says.
    :param error: what went wrong on the way; told where something is missing.
    """
    counts: dict[str, Any] = manifest.ledger.counts()
    if counts["found"]:
        words = [f"{counts['verified']} of {counts['found']} instances verified"]
    else:
        words = ["nothing was found"]
    words += [f"{counts[word]} {word}" for word in ("missing", "failed", "conflict", "unexpected") if counts[word]]
    if manifest.outcome is Outcome.SHORT:
        words.append(f"at least {manifest.request['minimum']} are expected")
    if manifest.outcome is Outcome.LIMITED:
        words.append("there may be more: a limit was hit")
    if error is not None and counts["verified"] < counts["found"]:
        words.append(str(error))
    return "; ".join(words)
