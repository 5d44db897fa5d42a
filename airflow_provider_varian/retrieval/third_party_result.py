"""What a third-party move returns, and the words about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_varian.dimse.suboperations import SubOperations
from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.third_party_proof import Proof

_NAMED_AT_MOST: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ThirdPartyResult:
    """What became of a third-party move.

    :param outcome: with proof ``complete`` or ``partial``, without ``reported`` or ``partial``; ``empty``, ``short``
        and ``limited`` as for retrievals.
    :param manifest: the account.
    :param manifest_path: its path or URI; empty when it was not written.
    :param counts: numbers by word: found, verified, listed, reported, missing, held and others.
    :param completed: sub-operations reported as completed in this try; ``None`` when the peer gave no counts.
    :param failed: sub-operations reported as failed.
    :param warning: sub-operations reported with a warning: sent, with a remark.
    :param requests: the final report of each request of this try.
    :param error: what went wrong on the way, if anything did.
    """

    outcome: Outcome
    manifest: Manifest = field(repr=False)
    manifest_path: str
    counts: Mapping[str, int]
    completed: int | None
    failed: int | None
    warning: int | None
    requests: tuple[SubOperations, ...]
    error: DicomError | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """SOP Instance UIDs of what is not accounted for."""
        return tuple(uid for uid, entry in self.manifest.ledger.entries.items() if entry.state is State.MISSING)

    def to_json(self) -> Mapping[str, Any]:
        """Return outcome, counts and what is missing as JSON-ready mapping."""
        return {
            "outcome": str(self.outcome),
            "message": self.manifest.message,
            "manifest": self.manifest_path or None,
            "counts": dict(self.counts),
            "completed": self.completed,
            "failed": self.failed,
            "warning": self.warning,
            "missing_sop_instance_uids": list(self.missing),
        }


def why_missing(entry: Entry, *, proof: Proof | None, error: DicomError | None) -> str:
    """Say what is known of an instance that is missing.

    :param entry: the instance, with what the peer said of it as its reason.
    :param proof: where it was looked for.
    :param error: what went wrong last.
    """
    if not entry.attempts:
        said = f"never asked for: {error.what}" if error is not None else "never asked for"
    else:
        said = f"asked for {entry.attempts} times, " if entry.attempts > 1 else "asked for once, "
        unsaid = "the peer reports it as sent" if entry.state is State.REPORTED else "the peer says nothing of it"
        said += entry.reason or unsaid
    found = proof.problem_of(entry) if proof is not None else ""
    return f"{said}; {found}" if found else said


def message_of(
    manifest: Manifest, *, done: int, destination: str, proof: Proof | None, error: DicomError | None
) -> str:
    """Say in one sentence what became of a judged move.

    :param manifest: what it says.
    :param done: how many instances are accounted for.
    :param destination: AE title of the move destination.
    :param proof: where they were looked for.
    :param error: what went wrong on the way; told where something is missing.
    """
    entries = manifest.ledger.entries
    if not entries:
        words = ["nothing was found"]
    elif proof is None:
        words = [f"{done} of {len(entries)} instances reported as sent to {destination}"]
    else:
        what = "listed at" if proof.state is State.LISTED else "verified in"
        words = [f"{done} of {len(entries)} instances sent to {destination} are {what} {proof.where}"]
    missing = [uid for uid, entry in entries.items() if entry.state is State.MISSING]
    if missing:
        words.append(f"missing: {_some(missing)}")
    if manifest.outcome is Outcome.SHORT:
        words.append(f"at least {manifest.request['minimum']} are expected")
    if manifest.outcome is Outcome.LIMITED:
        words.append("there may be more: a limit was hit")
    if error is not None and done < len(entries):
        words.append(str(error))
    return "; ".join(words)


def _some(uids: Sequence[str]) -> str:
    more = len(uids) - _NAMED_AT_MOST
    return ", ".join(uids[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def sum_of(reports: Sequence[SubOperations], name: str) -> int | None:
    """Add up a counter; ``None`` when the peer gave it nowhere."""
    given = [value for report in reports if (value := getattr(report, name)) is not None]
    return sum(given) if given else None
