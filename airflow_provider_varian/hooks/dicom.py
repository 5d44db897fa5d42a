"""The hook: an Airflow connection of type ``dicom`` turned into a peer, and one method per verb.

Each verb is implemented once, in ``dimse``, ``query`` or ``retrieval``; the hook looks the connection up and calls
it. Nothing heavy is imported before a verb is used.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_varian import connection_fields
from airflow_provider_varian.errors import ConfigurationError, DicomError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection, ObjectStoragePath

    from airflow_provider_varian.dimse.association import PeerAssociation
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.dimse.echo import EchoResult
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.query.find import FindResult, FindSession, OnUndecided
    from airflow_provider_varian.query.level import Level
    from airflow_provider_varian.query.profile import Profile
    from airflow_provider_varian.query.query import Query
    from airflow_provider_varian.retrieval.intake import Verify
    from airflow_provider_varian.retrieval.request import RetrievalRequest
    from airflow_provider_varian.retrieval.retrieve import OnChange, RetrievalResult
    from airflow_provider_varian.retrieval.third_party import ThirdPartyResult
    from airflow_provider_varian.retrieval.transfer import Method

_Result = TypeVar("_Result")

#: How many peers a process waits for at a time in the asynchronous verbs.
ASYNC_WORKERS: Final = 8


class DicomHook(BaseHook):
    """Talk to a DICOM peer that an Airflow connection describes.

    No network and no look-up happens before a verb, or :attr:`peer`, is used.

    :param dicom_conn_id: the connection, of type ``dicom``.
    """

    conn_name_attr = "dicom_conn_id"
    default_conn_name = connection_fields.DEFAULT_CONNECTION_ID
    conn_type = connection_fields.CONNECTION_TYPE
    hook_name = connection_fields.HOOK_NAME

    def __init__(self, dicom_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dicom_conn_id = dicom_conn_id

    @cached_property
    def peer(self) -> Peer:
        """The peer, looked up at first use.

        :raises ConfigurationError: when there is no such connection, or a field of it is wrong.
        """
        try:
            connection = self.get_connection(self.dicom_conn_id)
        except AirflowNotFoundException as error:
            raise self._no_connection() from error
        return self._peer_of(connection)

    @cached_property
    def profile(self) -> Profile:
        """Which habits of the peer to allow for."""
        from airflow_provider_varian.aria.profile import profile_for

        return profile_for(self.peer)

    @contextmanager
    def associate(
        self,
        contexts: Any = None,
        *,
        step: str = "association",
        cancellation: Cancellation | None = None,
    ) -> Iterator[PeerAssociation]:
        """Open an association that is released, or else aborted, at the end of the block.

        :param contexts: presentation contexts of :mod:`airflow_provider_varian.dimse.contexts`; Verification alone
            when not given.
        :param step: what error messages call it.
        :param cancellation: ends the association from another thread.
        :raises DicomError: when the peer cannot be reached, or rejects the association or all of its contexts.
        """
        from airflow_provider_varian.dimse import contexts as dimse_contexts
        from airflow_provider_varian.dimse.association import associate

        offered = dimse_contexts.verification() if contexts is None else contexts
        with associate(self.peer, offered, step=step, cancellation=cancellation) as association:
            yield association

    def echo(self, *, cancellation: Cancellation | None = None) -> EchoResult:
        """Verify that the peer answers (C-ECHO, PS3.7 9.1.5).

        An ARIA daemon may answer while its database is down: see :meth:`ensure_available`.
        """
        from airflow_provider_varian.dimse.echo import echo_peer

        return echo_peer(self.peer, cancellation=cancellation)

    def ensure_available(self, *, cancellation: Cancellation | None = None) -> EchoResult:
        """Verify that the peer answers queries: C-ECHO, then a bounded, empty C-FIND.

        :raises DicomError: when it does not; a transient one when waiting may help.
        """
        from airflow_provider_varian.dimse.available import ensure_available

        return ensure_available(self.peer, cancellation=cancellation)

    def find(
        self,
        level: Level | str,
        keys: Mapping[str, Any],
        *,
        limit: int | None = None,
        undecided: OnUndecided = "error",
        cancellation: Cancellation | None = None,
    ) -> FindResult:
        """Query the peer (C-FIND, PS3.4 C.4.1); its answers are held against the query again here.

        :param level: ``PATIENT``, ``STUDY``, ``SERIES`` or ``IMAGE``.
        :param keys: DICOM keywords to values; see :meth:`airflow_provider_varian.query.query.Query.build`.
        :param limit: stop after so many matches.
        :param undecided: what to do with answers that lack a value that was matched on: ``error`` or ``keep``.
        :raises QueryError: before any network, when level or keys are wrong.
        :raises CroppedAnswerError: when the peer holds more than it lists.
        """
        from airflow_provider_varian.query.find import find

        query = self._query(level, keys)
        return find(self.peer, query, profile=self.profile, limit=limit, undecided=undecided, cancellation=cancellation)

    def iter_find(
        self, level: Level | str, keys: Mapping[str, Any], *, cancellation: Cancellation | None = None
    ) -> Iterator[dict[str, Any]]:
        """:meth:`find`, answer by answer while they come; use nothing of it before it is exhausted."""
        from airflow_provider_varian.query.find import iter_find

        return iter_find(self.peer, self._query(level, keys), profile=self.profile, cancellation=cancellation)

    def find_session(self, *, cancellation: Cancellation | None = None) -> FindSession:
        """Return a context manager for several queries over one association."""
        from airflow_provider_varian.query.find import FindSession

        return FindSession(self.peer, profile=self.profile, cancellation=cancellation)

    def select(
        self,
        level: Level | str | None,
        keys: Mapping[str, Any],
        *,
        layout: str | None = None,
        minimum: int | None = None,
        limit: int | None = None,
        cancellation: Cancellation | None = None,
    ) -> RetrievalRequest:
        """Return what :meth:`retrieve` and :meth:`move` take; nothing is ``expected`` when nothing at the peer fits.

        :param level: the query/retrieve level; None: that of the deepest unique key, else IMAGE.
        :param keys: DICOM keywords to values; others than unique keys are asked by C-FIND first.
        :param layout: where objects will be filed: its keywords are asked for too.
        :param minimum: how many instances must exist at least; fewer make the outcome ``short``.
        :param limit: take so many instances at most; more make the outcome ``limited``.
        """
        from airflow_provider_varian.retrieval.layout import Layout
        from airflow_provider_varian.retrieval.selection import select

        return select(
            self.peer,
            level,
            keys,
            profile=self.profile,
            layout=Layout(layout) if layout else None,
            minimum=minimum,
            limit=limit,
            cancellation=cancellation,
        )

    def retrieve(
        self,
        request: RetrievalRequest,
        *,
        retrieval_id: str,
        destination: str | ObjectStoragePath | None = None,
        layout: str | None = None,
        method: Method | None = None,
        port_wait_seconds: float | None = None,
        verify: Verify = "path",
        on_change: OnChange | None = None,
        cancellation: Cancellation | None = None,
    ) -> RetrievalResult:
        """Bring objects here, by C-GET or by C-MOVE to a receiver in this process, and account for each.

        :param request: what to retrieve: see :meth:`select`, or make one with the expected instances.
        :param retrieval_id: identity of the work: with the same one a retry asks for the missing alone.
        :param destination: absolute folder or object-storage URI; the default is ``[varian] storage_root``.
        :param layout: where an object is filed below it.
        :param method: ``auto``, ``get`` or ``move``; None: the connection's ``retrieve_method``.
        :param port_wait_seconds: how long to wait for a receiver port that another task uses.
        :param verify: is an object held when it is at its final ``path``, or when its ``hash`` agrees as well?
        :param on_change: called with the manifest each time that it was written.
        :raises ConfigurationError: for a connection that names a standing receiver, which retrieving in a task
            does not use.
        """
        from airflow_provider_varian.hooks import settings
        from airflow_provider_varian.retrieval.retrieve import PORT_WAIT_SECONDS, retrieve

        if self.peer.receiver:
            raise ConfigurationError(
                f"connection {self.dicom_conn_id!r} names the standing receiver {self.peer.receiver!r}, which cannot "
                "be used in this version",
                hint="Leave 'receiver' empty and set receiver_port: the task then receives by itself.",
            )
        return retrieve(
            self.peer,
            request,
            profile=self.profile,
            destination=settings.destination_path(destination) if destination else settings.storage_root(),
            spool_root=settings.spool_root(),
            retrieval_id=retrieval_id,
            layout=layout,
            method=method,
            port_wait_seconds=PORT_WAIT_SECONDS if port_wait_seconds is None else port_wait_seconds,
            verify=verify,
            on_change=on_change,
            cancellation=cancellation,
        )

    def move(
        self, request: RetrievalRequest, *, move_destination: str, cancellation: Cancellation | None = None
    ) -> ThirdPartyResult:
        """Have the peer send objects to somebody else (C-MOVE, PS3.4 C.4.2); what it reports is all that is known.

        :param request: see :meth:`select`.
        :param move_destination: AE title of a trusted entity of the peer.
        """
        from airflow_provider_varian.retrieval.third_party import move_to_third_party

        return move_to_third_party(
            self.peer, request, destination=move_destination, profile=self.profile, cancellation=cancellation
        )

    def test_connection(self) -> tuple[bool, str]:
        """Run the quick checks behind the Test button: TCP, TLS, association, contexts, C-ECHO, empty C-FIND.

        :return: whether all passed, and which step failed with what to change.
        """
        from airflow_provider_varian.dimse.check import check

        try:
            report = check(self.peer)
        except DicomError as error:
            return False, str(error)
        return report.ok, report.summary

    async def aecho(self) -> EchoResult:
        """:meth:`echo`, for triggers and asynchronous tasks."""
        return await self._in_thread(self.echo)

    async def afind(
        self,
        level: Level | str,
        keys: Mapping[str, Any],
        *,
        limit: int | None = None,
        undecided: OnUndecided = "error",
    ) -> FindResult:
        """:meth:`find`, for triggers and asynchronous tasks."""
        return await self._in_thread(partial(self.find, level, keys, limit=limit, undecided=undecided))

    async def _in_thread(self, verb: Callable[..., _Result]) -> _Result:
        """Run a synchronous verb in the bounded pool; cancelling the coroutine cancels the verb.

        pynetdicom is threads, not asyncio; a second DIMSE client would be a second set of faults.
        """
        from airflow_provider_varian.dimse.cancellation import Cancellation

        if "peer" not in self.__dict__:
            # A synchronous look-up would block the triggerer's loop.
            try:
                connection = await self.aget_connection(self.dicom_conn_id)
            except AirflowNotFoundException as error:
                raise self._no_connection() from error
            self.__dict__["peer"] = self._peer_of(connection)
        cancellation = Cancellation()
        call = partial(verb, cancellation=cancellation)
        try:
            return await asyncio.get_running_loop().run_in_executor(_async_pool(), call)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    def _query(self, level: Level | str, keys: Mapping[str, Any]) -> Query:
        from airflow_provider_varian.query.query import Query

        return Query.build(level, keys, timezone=self.peer.timezone)

    def _no_connection(self) -> ConfigurationError:
        return ConfigurationError(
            f"Airflow has no connection {self.dicom_conn_id!r}",
            hint=f"Make one of type {self.hook_name} under Admin, Connections.",
        )

    def _peer_of(self, connection: Connection) -> Peer:
        from airflow_provider_varian.dimse.peer import connection_parts, peer_from_connection

        return peer_from_connection(**connection_parts(self.dicom_conn_id, connection))

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's fields for Airflow 3.1, which knows texts, whole numbers, switches and choices.

        Later versions read the provider's metadata, made from the same table.
        """
        from airflow_provider_varian.hooks.form import connection_form_widgets

        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form of Airflow 3.1 names the standard fields."""
        from airflow_provider_varian.hooks.form import ui_field_behaviour

        return ui_field_behaviour()


_pool: ThreadPoolExecutor | None = None
_pool_lock: Final = threading.Lock()


def _async_pool() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=ASYNC_WORKERS, thread_name_prefix="dicom-async")
        return _pool
