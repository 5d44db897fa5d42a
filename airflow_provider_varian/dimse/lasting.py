"""An association for several requests, which is given back while the peer's quiet hours last (semantics 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from pynetdicom.presentation import PresentationContext

from airflow_provider_varian.dimse import quiet_hours
from airflow_provider_varian.dimse.association import PeerAssociation, associate
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.turn import TASK, Patience, pause_between


def may_go_on(association: PeerAssociation) -> bool:
    """Say whether another request may follow on an association, after the peer's pause.

    Not in quiet hours: it is to be released then, and the next one waits until they are over.

    :raises CancelledError: cancelled while pausing.
    """
    pause_between(association.peer, association.cancellation)
    return association.assoc.is_established and quiet_hours.quiet_until(association.peer) is None


class LastingAssociation:
    """An association that is asked for before each request; a context manager.

    :param peer: whom to call.
    :param contexts: presentation contexts to propose.
    :param step: what it is for: errors say it.
    :param cancellation: ends the association, and each wait, from outside.
    :param on_wait: called with the seconds that were waited before an association was opened.
    :param patience: how long to wait until the peer may be called.

    Entering, and :meth:`next`, raise what :func:`~airflow_provider_varian.dimse.association.associate` raises.
    """

    def __init__(
        self,
        peer: Peer,
        contexts: Sequence[PresentationContext],
        *,
        step: str,
        cancellation: Cancellation | None = None,
        on_wait: Callable[[float], None] | None = None,
        patience: Patience = TASK,
    ) -> None:
        self.peer = peer
        self.cancellation = cancellation or Cancellation()
        self._contexts = contexts
        self._step = step
        self._on_wait = on_wait
        self._patience = patience
        self._open: AbstractContextManager[PeerAssociation] | None = None
        self._current: PeerAssociation | None = None

    def __enter__(self) -> Self:
        """Open the association."""
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the association as :func:`~airflow_provider_varian.dimse.association.associate` does."""
        self._end(kind, error, trace)

    @property
    def current(self) -> PeerAssociation:
        """The association that is open."""
        if self._current is None:
            raise RuntimeError("the association is used outside of its with block")
        return self._current

    def next(self) -> PeerAssociation:
        """Return the association for the next request, after the peer's pause; nothing may run on it.

        In quiet hours it is released, and another one opened once they are over.

        :raises QuietHoursError: their end is not waited for.
        :raises CancelledError: cancelled while waiting.
        """
        pause_between(self.peer, self.cancellation)
        if quiet_hours.quiet_until(self.peer) is not None:
            self._end(None, None, None)
            self._begin()
        return self.current

    def _begin(self) -> None:
        opening = associate(
            self.peer,
            self._contexts,
            step=self._step,
            cancellation=self.cancellation,
            on_wait=self._on_wait,
            patience=self._patience,
        )
        self._current = opening.__enter__()
        self._open = opening

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        opened, self._open, self._current = self._open, None, None
        if opened is not None:
            opened.__exit__(kind, error, trace)
