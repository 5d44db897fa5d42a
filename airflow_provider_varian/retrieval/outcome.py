"""The words for what became of an instance, and of a retrieval (semantics 6). Standard library only."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What became of one instance."""

    FOUND = "found"
    """The peer lists it; it is not here yet."""
    RECEIVED = "received"
    """Durable in the spool, not looked at yet."""
    VERIFIED = "verified"
    """Durable under its final name, whole, and what it says it is."""
    MISSING = "missing"
    """Found, asked for, and not received."""
    FAILED = "failed"
    """Received, but not well formed or not to be published; the reason says why."""
    CONFLICT = "conflict"
    """Received with other content than an object of the same SOP Instance UID; both are kept."""
    REPORTED = "reported"
    """Third-party move: the peer says that it sent it."""
    LISTED = "listed"
    """Third-party move: the destination lists it."""


class Outcome(StrEnum):
    """What became of a retrieval."""

    PENDING = "pending"
    """Not judged yet; also what a killed task leaves behind."""
    COMPLETE = "complete"
    """Each instance found is verified, and as many exist as expected."""
    PARTIAL = "partial"
    """Found, but not all verified."""
    SHORT = "short"
    """All that was found is verified, but less was found than is expected to exist; also nothing."""
    LIMITED = "limited"
    """A limit that the user set was hit: there may be more."""
    REPORTED = "reported"
    """Sent to a third party, as far as the peer's counters say."""
    EMPTY = "empty"
    """Nothing was found, and nothing had to be there."""


def outcome_of(*, found: int, verified: int, minimum: int | None = None, limited: bool = False) -> Outcome:
    """Judge a finished retrieval by its ledger.

    :param found: how many instances the peer lists, or are expected by name.
    :param verified: how many of them are verified.
    :param minimum: how many must exist at least; ``None`` when nothing is expected.
    :param limited: whether a limit that the user set was hit.
    """
    if verified < found:
        return Outcome.PARTIAL
    if limited:
        return Outcome.LIMITED
    if minimum is not None and found < minimum:
        return Outcome.SHORT
    return Outcome.COMPLETE if found else Outcome.EMPTY
