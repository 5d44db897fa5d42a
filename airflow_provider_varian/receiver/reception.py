"""What one association brings, told to the receiver's observer with who brought it."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_varian.dimse import storage
from airflow_provider_varian.dimse.sink import StorageSink, StoreRequest
from airflow_provider_varian.receiver.connections import Connection
from airflow_provider_varian.receiver.head import Head
from airflow_provider_varian.receiver.observer import Ending, Observer, Refusal
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.receiver.spooled import SpooledObject


class Reception(storage.StoreObserver):
    """Adds the facts of an association to what the wire tells.

    :param connection: of the association.
    :param observer: whom to tell; it does not raise.
    :param on_activity: called when something came from the network.
    """

    def __init__(self, connection: Connection, observer: Observer, on_activity: Callable[[], None]) -> None:
        self._connection = connection
        self._observer = observer
        self._on_activity = on_activity
        self._study = ""

    def sink(self, sink: StorageSink) -> StorageSink:
        """Return a sink that also tells us to which study an object belongs, where it can."""
        return sink.also_telling(self._note_study) if isinstance(sink, SpoolSink) else sink

    def activity(self) -> None:
        """Something came."""
        self._on_activity()

    def stored(self, request: StoreRequest, size: int, seconds: float) -> None:
        """An object is durable."""
        if self._connection.facts is not None:
            self._observer.stored(self._connection.facts, request, size, seconds, self._study)
        self._study = ""

    def not_stored(self, request: StoreRequest, status: int | None, reason: str) -> None:
        """An object was not stored."""
        if self._connection.facts is not None:
            self._observer.not_stored(self._connection.facts, request, status, reason)
        self._study = ""

    def ended_by_us(self, how: str) -> None:
        """We end the connection, because the peer was silent for too long or broke the protocol."""
        timed_out = how == storage.TIMEOUT
        if self._connection.facts is not None:
            self._connection.ending = self._connection.ending or (Ending.TIMEOUT if timed_out else Ending.PROTOCOL)
        else:
            self._connection.refusal = self._connection.refusal or (Refusal.TIMEOUT if timed_out else Refusal.PROTOCOL)

    def quota_exceeded(self) -> None:
        """A quota is used up; said once for an association."""
        self._observer.refused(self._connection.source, Refusal.QUOTA)

    def _note_study(self, _item: SpooledObject, head: Head) -> None:
        self._study = head.study_instance_uid or ""
