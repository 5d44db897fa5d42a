"""The ledger on storage: one JSON document per retrieval, ``{root}/.dicom/{retrieval ID}.json``.

It is what a retry starts from, and what page and reports read. It names instances by UID and the
request by its level and UIDs; no PatientID, no name, no label, and no hash of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_varian.dimse.association import Negotiated
from airflow_provider_varian.dimse.suboperations import SubOperations
from airflow_provider_varian.errors import CancelledError, DestinationWriteError, DicomError
from airflow_provider_varian.retrieval.destination import OWN_FOLDER, Destination
from airflow_provider_varian.retrieval.ledger import Entry, Ledger, NotAUidError
from airflow_provider_varian.retrieval.outcome import Outcome
from airflow_provider_varian.retrieval.schema import check_schema_version

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1


@dataclass(slots=True, kw_only=True)
class RequestReport:
    """One C-GET or C-MOVE: what was asked and what the peer reported. Reports change no state.

    :param attempt: in which try of the retrieval.
    :param method: ``C-GET`` or ``C-MOVE``.
    :param level: its query/retrieve level.
    :param asked: how many instances it was to bring; ``None`` when that is not known.
    :param received: how many of them it brought.
    :param status: final DIMSE status; ``None`` when there was none.
    :param completed: Number of Completed Sub-operations as reported, likewise the next three.
    :param problem: what went wrong, in words without identifiers.
    :param failed_sop_instance_uids: Failed SOP Instance UID List (0008,0058) as reported.
    :param seconds: how long it took, settling included.
    """

    attempt: int
    method: str
    level: str
    asked: int | None
    received: int = 0
    status: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    remaining: int | None = None
    problem: str = ""
    failed_sop_instance_uids: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, done: SubOperations) -> None:
        """Write down what the peer reports at the end."""
        self.status, self.remaining = done.status, done.remaining
        self.completed, self.failed, self.warning = done.completed, done.failed, done.warning
        self.failed_sop_instance_uids = list(done.failed_sop_instance_uids)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready mapping; a count that was not reported is null."""
        values = asdict(self)
        values["status"] = None if self.status is None else f"0x{self.status:04X}"
        values["seconds"] = round(self.seconds, 3)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RequestReport:
        """Read what :meth:`to_json` made; names of a later version are left out.

        :raises ValueError: when a value is not what it should be; likewise TypeError and AttributeError.
        """
        status = values.get("status")
        known = {item.name for item in fields(cls)}
        report = cls(**{key: value for key, value in values.items() if key in known})
        report.status = None if status is None else int(str(status), 16)
        failed: Any = report.failed_sop_instance_uids
        if not isinstance(failed, list) or not all(isinstance(uid, str) for uid in failed):
            raise ValueError("a request has a list of failed instances that is none")
        return report


@dataclass(slots=True, kw_only=True)
class Manifest:
    """A retrieval as it is written down.

    :param id: the retrieval ID.
    :param request: level, UIDs by keyword, names of the keys that are left out.
    :param peer: AE title, implementation UID and version, accepted contexts.
    :param ledger: the instances.
    :param outcome: what became of it.
    :param message: the outcome in one sentence.
    :param attempts: how many times it was tried.
    :param layout: the template that paths were made with.
    :param requests: what was asked of the peer, in order, all tries.
    :param fallbacks: why another method or level was used, in order.
    :param warnings: what else to know.
    :param timings: ``started`` and ``finished`` (ISO 8601, UTC) and seconds by step.
    :param waiting: while somebody else waits for it: for what, and what to know to go on (:mod:`.asked`).
    :param judged_in: in which try of a task, where one may be run in pieces.
    """

    id: str
    request: dict[str, Any] = field(default_factory=dict)
    peer: dict[str, Any] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    outcome: Outcome = Outcome.PENDING
    message: str = ""
    attempts: int = 0
    layout: str = ""
    requests: list[RequestReport] = field(default_factory=list)
    fallbacks: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, Any] = field(default_factory=dict)
    waiting: dict[str, Any] | None = None
    judged_in: str = ""

    @property
    def path(self) -> PurePosixPath:
        """Where it lies below the root."""
        return manifest_path(self.id)

    def note_peer(self, negotiated: Negotiated, *, anew: bool) -> None:
        """Write down who answered and what it accepts now.

        :param negotiated: what an association brought.
        :param anew: it is the first one of this try; an earlier try may have met another version of the peer.
        """
        if anew:
            self.peer["accepted_contexts"] = []
        self.peer.update(
            implementation_class_uid=negotiated.implementation_class_uid,
            implementation_version_name=negotiated.implementation_version_name,
        )
        accepted = self.peer.setdefault("accepted_contexts", [])
        accepted += [list(pair) for pair in negotiated.accepted if list(pair) not in accepted]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready mapping."""
        told = {
            "schema_version": SCHEMA_VERSION,
            "id": self.id,
            "outcome": str(self.outcome),
            "message": self.message,
            "counts": self.ledger.counts(),
            "attempts": self.attempts,
            "request": self.request,
            "layout": self.layout,
            "peer": self.peer,
            "instances": [entry.to_json() for entry in self.ledger.entries.values()],
            "unexpected": [entry.to_json() for entry in self.ledger.unexpected.values()],
            "requests": [report.to_json() for report in self.requests],
            "fallbacks": self.fallbacks,
            "warnings": self.warnings,
            "timings": self.timings,
        }
        if self.waiting is not None:
            told["waiting"] = self.waiting
        if self.judged_in:
            told["judged_in"] = self.judged_in
        return told

    @classmethod
    def from_json(cls, values: Any) -> Manifest:
        """Read what :meth:`to_json` made.

        :raises ConfigurationError: when a later version of this package wrote it.
        :raises ValueError: when it is nothing of the kind; likewise KeyError, TypeError and AttributeError.
        """
        if not isinstance(values, Mapping):
            raise ValueError("it is no JSON object")
        check_schema_version(values, SCHEMA_VERSION, what="the manifest", step="manifest")
        manifest = cls(
            id=values["id"],
            request=dict(values["request"]),
            peer=dict(values["peer"]),
            ledger=Ledger(
                _entries(values["id"], values["instances"]),
                _entries(values["id"], values["unexpected"]),
            ),
            outcome=Outcome(values["outcome"]),
            message=values["message"],
            attempts=values["attempts"],
            layout=values["layout"],
            requests=[RequestReport.from_json(report) for report in values["requests"]],
            fallbacks=list(values["fallbacks"]),
            warnings=list(values["warnings"]),
            timings=dict(values["timings"]),
            waiting=None if values.get("waiting") is None else dict(values["waiting"]),
            judged_in=str(values.get("judged_in", "")),
        )
        uids = manifest.request.get("uids", {})
        if type(manifest.attempts) is not int or not all(isinstance(value, list) for value in dict(uids).values()):
            raise ValueError("attempts or UIDs are not what they should be")
        # A retry writes all of it down again: what cannot be written is found out now.
        manifest.to_json()
        return manifest

    def warn(self, words: str) -> None:
        """Add what else to know, once, and log it."""
        if words not in self.warnings:
            logger.warning("Retrieval %s: %s", self.id, words)
            self.warnings.append(words)

    def write(self, destination: Destination) -> None:
        """Write it, whole or not at all.

        :raises DestinationWriteError: when it cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=True)
        destination.write_text(self.path, text + "\n")


def leave_pending(manifest: Manifest, problem: DicomError, write: Callable[[], None]) -> None:
    """Write down why it was not judged, as far as that can be written.

    :param manifest: what is left.
    :param problem: what ended the work on it.
    :param write: writes the manifest, and tells whoever follows it.
    """
    manifest.message = "cancelled" if isinstance(problem, CancelledError) else str(problem)
    try:
        write()
    except DestinationWriteError as error:
        logger.warning("The manifest could not be written: %s", error)


def _entries(retrieval_id: str, values: Iterable[Any]) -> Iterator[Entry]:
    """Read instances, without those that have no UID: they were an answer of the peer's that named nothing."""
    for each in values:
        try:
            yield Entry.from_json(each)
        except NotAUidError as error:
            logger.warning("The manifest of retrieval %s: %s; it is left out", retrieval_id, error)


def manifest_path(retrieval_id: str) -> PurePosixPath:
    """Return where the manifest of a retrieval lies below the root."""
    return OWN_FOLDER / f"{retrieval_id}.json"


def load_manifest(destination: Destination, retrieval_id: str) -> Manifest | None:
    """Read the manifest of a retrieval; ``None`` when there is none.

    :raises ConfigurationError: when a later version of this package wrote it.
    """
    try:
        text = destination.read_text(manifest_path(retrieval_id))
        return None if text is None else Manifest.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # What it said can be found out again: by looking at the final paths, and by asking the peer.
        logger.warning("The manifest of retrieval %s is not readable (%s); starting anew", retrieval_id, error)
        return None
