"""The account of one retrieval, instance by instance: what its outcome is derived from, alone.

Statuses and counters of a peer are reports (prior-art 2, 7 and 13); they are written down beside the
ledger and never change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.uids import is_uid

_NO_TEXT: Final = frozenset(
    {"bytes", "attempts", "held", "fetched", "duplicate", "found_by_pattern", "found_late", "conflicts"}
)


class NotAUidError(ValueError):
    """An instance is named by what is no UID."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """One instance.

    :param sop_instance_uid: which.
    :param sop_class_uid: empty when unknown.
    :param study_instance_uid: empty when unknown.
    :param series_instance_uid: empty when unknown.
    :param state: what became of it.
    :param bytes: size of its file.
    :param sha256: SHA-256 of its file.
    :param sha256_data_set: SHA-256 of the data set as it came on the wire.
    :param transfer_syntax_uid: how it is encoded.
    :param path: its final path below the root.
    :param attempts: how often a request asked for it.
    :param held: it was at its final path before this retrieval asked for anything.
    :param fetched: a try of this retrieval, since it last finished, brought it.
    :param duplicate: it came more than once, with the same content.
    :param found_by_pattern: the peer found it by a pattern, not by the exact ID.
    :param found_late: the peer listed it only when it was asked again after the transfer.
    :param conflicts: paths of the other contents under the same UID.
    :param superseded: path of the version that this retrieval replaced by a newer one; empty when it replaced none.
    :param older: path at which a version is held that may be older than the peer's; empty when none is.
    :param reason: why it is missing or failed, or what is in conflict, in words without identifiers.
    """

    sop_instance_uid: str
    sop_class_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    state: State = State.FOUND
    bytes: int | None = None
    sha256: str = ""
    sha256_data_set: str = ""
    transfer_syntax_uid: str = ""
    path: str = ""
    attempts: int = 0
    held: bool = False
    fetched: bool = False
    duplicate: bool = False
    found_by_pattern: bool = False
    found_late: bool = False
    conflicts: list[str] = field(default_factory=list)
    superseded: str = ""
    older: str = ""
    reason: str = ""

    @property
    def is_here(self) -> bool:
        """Whether the object is durable under its final name."""
        return self.state in (State.VERIFIED, State.CONFLICT)

    def anew(self) -> Entry:
        """Return the same instance as it was found, before anything came of it."""
        return Entry(
            sop_instance_uid=self.sop_instance_uid,
            sop_class_uid=self.sop_class_uid,
            study_instance_uid=self.study_instance_uid,
            series_instance_uid=self.series_instance_uid,
            found_by_pattern=self.found_by_pattern,
            found_late=self.found_late,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready mapping, without what is empty."""
        # Not asdict(), which looks into each value: thousands of these are written at each change.
        values = {name: getattr(self, name) for name in _NAMES}
        values["state"] = str(self.state)
        values["conflicts"] = list(self.conflicts)
        return {key: value for key, value in values.items() if value not in ("", None, False, [])}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Entry:
        """Read what :meth:`to_json` made; names of a later version are left out.

        :raises NotAUidError: when its SOP Instance UID is none: nothing can be asked for, or lie, under it.
        :raises ValueError: when a value is not what it should be; likewise TypeError and AttributeError.
        """
        known = {item.name for item in fields(cls)}
        entry = cls(**{key: value for key, value in values.items() if key in known})
        entry.state = State(entry.state)
        texts = [value for key, value in asdict(entry).items() if key not in _NO_TEXT]
        if not all(isinstance(value, str) for value in (*texts, *entry.conflicts)):
            raise ValueError("an instance has a value that should be a text")
        if not isinstance(entry.conflicts, list) or not all(
            isinstance(value, int)
            for value in (entry.bytes or 0, entry.attempts, entry.held, entry.fetched, entry.duplicate)
        ):
            raise ValueError("an instance has a value that should be a number or a list")
        if not is_uid(entry.sop_instance_uid):
            raise NotAUidError("an instance has a SOP Instance UID that is no UID")
        return entry


_NAMES: Final = tuple(item.name for item in fields(Entry))


class Ledger:
    """The instances that a retrieval is about, and those that came unasked."""

    def __init__(self, entries: Iterable[Entry] = (), unexpected: Iterable[Entry] = ()) -> None:
        self.entries = {entry.sop_instance_uid: entry for entry in entries}
        self.unexpected = {entry.sop_instance_uid: entry for entry in unexpected}
        #: What came and was published in this try, by SOP Instance UID; it is not written down.
        self.arrived: set[str] = set()

    def copy(self) -> Ledger:
        """Return an account of its own that says the same."""
        return Ledger(
            (replace(entry, conflicts=list(entry.conflicts)) for entry in self.entries.values()),
            (replace(entry, conflicts=list(entry.conflicts)) for entry in self.unexpected.values()),
        )

    def expect(self, entry: Entry) -> Entry:
        """Add an instance that should come, or return the one that is there already."""
        return self.entries.setdefault(entry.sop_instance_uid, entry)

    def entry_for(self, sop_instance_uid: str) -> Entry:
        """Return the entry of an object that came; one that nobody asked for is *unexpected*."""
        if sop_instance_uid in self.entries:
            return self.entries[sop_instance_uid]
        return self.unexpected.setdefault(sop_instance_uid, Entry(sop_instance_uid=sop_instance_uid))

    @property
    def outstanding(self) -> list[Entry]:
        """What is not here, in the order of the expectation."""
        return [entry for entry in self.entries.values() if not entry.is_here]

    def count(self, state: State) -> int:
        """Return how many expected instances are in a state."""
        return sum(1 for entry in self.entries.values() if entry.state is state)

    def counts(self) -> dict[str, int]:
        """Return the numbers that people ask for."""
        states = Counter(str(entry.state) for entry in self.entries.values())
        entries = self.entries.values()
        return {
            "found": len(self.entries),
            **{str(state): states[str(state)] for state in (State.VERIFIED, State.MISSING, State.FAILED)},
            "conflict": states[str(State.CONFLICT)],
            # Third-party moves alone have these.
            **{str(state): states[str(state)] for state in (State.REPORTED, State.LISTED) if states[str(state)]},
            "held": sum(entry.held for entry in entries),
            "duplicate": sum(entry.duplicate for entry in entries),
            "unexpected": len(self.unexpected),
            "bytes": sum(entry.bytes or 0 for entry in entries if entry.is_here),
        }
