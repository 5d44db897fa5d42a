"""Waits that are left to somebody else: what is waited for, as whoever does not wait himself tells it.

A worker of Airflow is not to be held while nothing is done but wait. So a caller who can wait elsewhere names the peer
(:attr:`~airflow_provider_varian.dimse.peer.Peer.deferred_as`), and work that comes to a long wait then ends with
:class:`Waiting`, after it has written down how far it came. It is run again when the wait is over, and goes on from
there. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Waits that are shorter stay where they are: to hand one over, and to begin again, takes some seconds too.
WORTH_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietHours:
    """The end of a peer's quiet hours (semantics 4).

    :param deferred_as: whose: :attr:`~airflow_provider_varian.dimse.peer.Peer.deferred_as`.
    """

    deferred_as: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LateObjects:
    """Objects that the peer may still send to a standing receiver (semantics 11).

    :param deferred_as: by whom, likewise.
    :param retrieval_id: of which retrieval they are.
    :param keys: what they are, as keywords to UIDs; bounded in number.
    :param at_least: so many that nobody has claimed are all that are outstanding.
    :param quiet_seconds: how long nothing may come before they are given up.
    :param most_seconds: how long they are waited for at most, whatever comes.
    """

    deferred_as: str
    retrieval_id: str
    keys: dict[str, list[str]]
    at_least: int
    quiet_seconds: float
    most_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSeries:
    """A series at the destination of a third-party move.

    :param keys: its unique keys, PatientID among them where the destination needs it.
    :param at_least: how many instances it lists when all of them are there.
    """

    keys: dict[str, str] = field(repr=False)
    at_least: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A destination's C-FIND that lists what was sent to it (semantics 10).

    :param deferred_as: the destination, likewise.
    :param retrieval_id: of which move.
    :param series: what it should list; bounded in number.
    :param quiet_seconds: how long nothing may change before what is missing is given up.
    :param most_seconds: how long it is waited for at most, whatever comes.
    """

    deferred_as: str
    retrieval_id: str
    series: tuple[ListedSeries, ...]
    quiet_seconds: float
    most_seconds: float


class Waiting(Exception):  # noqa: N818 - nothing has failed
    """Work has come to a wait that somebody else is to do. No error: nothing between the two catches it as one.

    :param awaited: what is waited for.
    :param words: the same in words without identifiers.
    """

    def __init__(self, awaited: QuietHours | LateObjects | Listed, words: str) -> None:
        super().__init__(words)
        self.awaited = awaited
        self.words = words


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """A try of a task, which is run in pieces where somebody else waits in between.

    :param id: the same for all pieces, and for no other try: what another one left is not gone on with.
    :param waited_out: ID of the retrieval, or move, of which it was waited until nothing came any more; empty: of none.
    """

    id: str
    waited_out: str = ""
