"""What a transfer works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.suboperations import SubOperations
from airflow_provider_varian.query.find import OnQuery
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.receiver.observer import Observer
from airflow_provider_varian.retrieval.method import Method, can_move
from airflow_provider_varian.retrieval.receivers import NamedReceiver

Progress = Callable[[SubOperations], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a transfer works with.

    :param peer: whom to ask.
    :param profile: its habits.
    :param method: ``auto`` is C-GET where it is accepted, else C-MOVE.
    :param cancellation: stops it from outside.
    :param port_wait_seconds: how long to wait for a receiver's port that is taken.
    :param settle_seconds: seconds of quiet after which late objects are given up.
    :param on_progress: called with each pending response.
    :param receiver: the standing receiver that C-MOVE sends to; ``None``: one inside the task.
    :param on_query: is told of each query.
    :param observer: is told what a receiver inside the task does.
    """

    peer: Peer
    profile: Profile
    method: Method
    cancellation: Cancellation
    port_wait_seconds: float
    settle_seconds: float
    on_progress: Progress | None = None
    receiver: NamedReceiver | None = None
    on_query: OnQuery | None = None
    observer: Observer | None = None

    @property
    def can_move(self) -> bool:
        """Whether C-MOVE is possible."""
        return can_move(self.peer, self.profile, self.method, standing=self.receiver is not None)
