"""What was sent, on storage: one JSON document per run of storing, ``{root}/.dicom/sent-{ID}.json``.

It is what a retry starts from. It names objects by their place among the files and by UID; no file name, since that
may hold a patient's, no PatientID, and no hash of either.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_varian.dimse.store import StoreState
from airflow_provider_varian.retrieval.destination import OWN_FOLDER, Destination
from airflow_provider_varian.retrieval.schema import check_schema_version

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
_NAMED_AT_MOST: Final = 5
KIND: Final = "sent"


class SentOutcome(StrEnum):
    """What became of a run of storing."""

    PENDING = "pending"
    """Not judged yet; also what a killed task leaves behind."""
    COMPLETE = "complete"
    """The peer accepted each file's object."""
    PARTIAL = "partial"
    """It accepted some of them."""
    NOTHING = "nothing"
    """It accepted none."""
    EMPTY = "empty"
    """There was no file."""


@dataclass(slots=True, kw_only=True)
class SentObject:
    """One file and its object.

    :param position: its place among the files, from 1; ``None``: sent by an earlier try, and its file is not among
        them any more.
    :param sop_instance_uid: which object; empty when the file holds none.
    :param sop_class_uid: likewise.
    :param study_instance_uid: its study; empty when the file does not tell.
    :param transfer_syntax_uid: of the file.
    :param sent_transfer_syntax_uid: in which it went.
    :param state: what became of it.
    :param status: Status (0000,0900) as answered last; ``None`` when no answer came.
    :param reason: why it is not stored, or the peer's remark, in words without identifiers.
    :param bytes: size of the file.
    :param sha256: SHA-256 of the file, in hexadecimal.
    :param attempts: how often it was put on the wire, in all tries; more than once when an answer did not come.
    :param earlier: an earlier try sent it, and this one did not.
    :param duplicate: another file holds the same object with the same content, and stands for both.
    """

    position: int | None
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    study_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    sent_transfer_syntax_uid: str = ""
    state: StoreState = StoreState.UNSENT
    status: int | None = None
    reason: str = ""
    bytes: int | None = None
    sha256: str = ""
    attempts: int = 0
    earlier: bool = False
    duplicate: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready mapping, without what is empty."""
        values = asdict(self)
        values["state"] = str(self.state)
        values["status"] = None if self.status is None else f"0x{self.status:04X}"
        return {key: value for key, value in values.items() if value not in ("", None, False)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SentObject:
        """Read what :meth:`to_json` made; names of a later version are left out.

        :raises ValueError: when a value is not what it should be; likewise TypeError and AttributeError.
        """
        known = {item.name for item in fields(cls)}
        read: dict[str, Any] = {"position": None} | {key: value for key, value in values.items() if key in known}
        read["state"] = StoreState(read["state"])
        if "status" in read:
            read["status"] = int(read["status"], 16)
        found = cls(**read)
        texts = (
            *(found.sop_instance_uid, found.sop_class_uid, found.study_instance_uid, found.transfer_syntax_uid),
            *(found.reason, found.sha256),
        )
        numbers = (found.attempts, found.bytes or 0)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(each, int) for each in numbers):
            raise ValueError("an object has a value of the wrong type")
        return found


@dataclass(slots=True, kw_only=True)
class SentDocument:
    """A run of storing as it is written down.

    :param id: the same for each try.
    :param peer: name, AE title, implementation UID and version, accepted contexts.
    :param objects: the files, in order, and behind them what only an earlier try knew.
    :param outcome: what became of it.
    :param message: the outcome in one sentence.
    :param attempts: how many times it was tried.
    :param warnings: what else to know.
    :param timings: ``started`` and ``finished`` (ISO 8601, UTC).
    """

    id: str
    peer: dict[str, Any] = field(default_factory=dict)
    objects: list[SentObject] = field(default_factory=list)
    outcome: SentOutcome = SentOutcome.PENDING
    message: str = ""
    attempts: int = 0
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> PurePosixPath:
        """Where it lies below the root."""
        return document_path(self.id)

    @property
    def files(self) -> list[SentObject]:
        """The objects of this try's files."""
        return [each for each in self.objects if each.position is not None]

    def counts(self) -> dict[str, int]:
        """Return the numbers that people ask for; a duplicate counts among the files, and in its state."""
        states = Counter(each.state for each in self.files)
        return {
            "files": len(self.files),
            **{str(state): states[state] for state in StoreState},
            "earlier": sum(each.earlier for each in self.files),
            "duplicate": sum(each.duplicate for each in self.files),
            "bytes": sum(each.bytes or 0 for each in self.files if each.state.is_accepted and not each.duplicate),
        }

    def not_accepted(self) -> str:
        """Name the first files that the peer has not accepted, by place and UID, and why; empty when there are none."""
        left = [each for each in self.files if not each.state.is_accepted]
        more = len(left) - _NAMED_AT_MOST
        return ", ".join(map(_named, left[:_NAMED_AT_MOST])) + (f" and {more} more" if more > 0 else "")

    def judge(self) -> None:
        """Set outcome and message by what became of each file."""
        files = self.files
        accepted = sum(each.state.is_accepted for each in files)
        if not files:
            self.outcome = SentOutcome.EMPTY
        elif accepted == len(files):
            self.outcome = SentOutcome.COMPLETE
        else:
            self.outcome = SentOutcome.PARTIAL if accepted else SentOutcome.NOTHING
        self.message = _in_words(self.outcome, accepted, files)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready mapping."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "id": self.id,
            "outcome": str(self.outcome),
            "message": self.message,
            "counts": self.counts(),
            "attempts": self.attempts,
            "peer": self.peer,
            "objects": [each.to_json() for each in self.objects],
            "warnings": self.warnings,
            "timings": self.timings,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SentDocument:
        """Read what :meth:`to_json` made.

        :raises ConfigurationError: when a later version of this package wrote it.
        :raises ValueError: when it is nothing of the kind; likewise KeyError, TypeError and AttributeError.
        """
        check_schema_version(values, SCHEMA_VERSION, what="the account of what was sent", step="C-STORE")
        if values["kind"] != KIND or type(values["attempts"]) is not int:
            raise ValueError("it is no account of what was sent")
        return cls(
            id=values["id"],
            peer=dict(values["peer"]),
            objects=[SentObject.from_json(each) for each in values["objects"]],
            outcome=SentOutcome(values["outcome"]),
            message=values["message"],
            attempts=values["attempts"],
            warnings=list(values["warnings"]),
            timings=dict(values["timings"]),
        )

    def write(self, destination: Destination) -> None:
        """Write it, whole or not at all.

        :raises DestinationWriteError: when it cannot be written.
        """
        destination.write_text(self.path, json.dumps(self.to_json(), indent=1, ensure_ascii=True) + "\n")


def document_path(store_id: str) -> PurePosixPath:
    """Return where the account of a run of storing lies below the root."""
    return OWN_FOLDER / f"{KIND}-{store_id}.json"


def load_document(destination: Destination, store_id: str) -> SentDocument | None:
    """Read the account of earlier tries; ``None`` when there is none.

    :raises ConfigurationError: when a later version of this package wrote it.
    """
    try:
        text = destination.read_text(document_path(store_id))
        return None if text is None else SentDocument.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # What it said is lost: everything is sent again, which is harmless, since it has the same UIDs.
        log.warning("The account of what was sent as %s is not readable (%s)", store_id, type(error).__name__)
        return None


def _named(each: SentObject) -> str:
    who = f"number {each.position}" + (f" ({each.sop_instance_uid})" if each.sop_instance_uid else "")
    return f"{who}: {each.reason}" if each.reason else who


def _in_words(outcome: SentOutcome, accepted: int, files: list[SentObject]) -> str:
    if outcome is SentOutcome.EMPTY:
        return "there is no file to send"
    words = f"{accepted} of {len(files)} files accepted by the peer"
    states = Counter(each.state for each in files)
    rest = [f"{count} {state}" for state, count in sorted(states.items()) if state is not StoreState.STORED]
    return f"{words}; {', '.join(rest)}" if rest else words
