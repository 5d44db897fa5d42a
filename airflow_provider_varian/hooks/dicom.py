"""The hook: an Airflow connection of type ``dicom`` turned into a peer, and one method per verb.

Each verb is implemented once, in ``dimse``, ``query`` or ``retrieval``; the hook looks the connection up and calls
it. Nothing heavy is imported before a verb is used. The verbs that bring and send objects: :mod:`.transfers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_varian import connection_fields
from airflow_provider_varian.errors import ConfigurationError, DicomError
from airflow_provider_varian.hooks.transfers import TransferVerbs

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_varian.dimse.association import PeerAssociation
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.dimse.echo import EchoResult
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.query.find import FindResult, FindSession, OnUndecided
    from airflow_provider_varian.query.level import Level
    from airflow_provider_varian.query.profile import Profile
    from airflow_provider_varian.query.query import Query
    from airflow_provider_varian.waiting import Try

_Result = TypeVar("_Result")


class DicomHook(TransferVerbs, BaseHook):
    """Talk to a DICOM peer that an Airflow connection describes.

    No network and no look-up happens before a verb, or :attr:`peer`, is used.

    :param dicom_conn_id: the connection, of type ``dicom``.
    :param deferring: work that comes to a long wait ends with :class:`~airflow_provider_varian.waiting.Waiting`, for an
        operator that has the triggerer wait.
    :param task_try: of which try, for who goes on after such a wait.
    """

    conn_name_attr = "dicom_conn_id"
    default_conn_name = connection_fields.DEFAULT_CONNECTION_ID
    conn_type = connection_fields.CONNECTION_TYPE
    hook_name = connection_fields.HOOK_NAME

    def __init__(
        self,
        dicom_conn_id: str = default_conn_name,
        *,
        deferring: bool = False,
        task_try: Try | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dicom_conn_id = dicom_conn_id
        self.deferring = deferring
        self.task_try = task_try

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
        from airflow_provider_varian.hooks import audit
        from airflow_provider_varian.query.find import find

        query = self._query(level, keys)
        return find(
            self.peer,
            query,
            profile=self.profile,
            limit=limit,
            undecided=undecided,
            cancellation=cancellation,
            on_query=audit.asking(self.peer),
        )

    def iter_find(
        self, level: Level | str, keys: Mapping[str, Any], *, cancellation: Cancellation | None = None
    ) -> Iterator[dict[str, Any]]:
        """:meth:`find`, answer by answer while they come; use nothing of it before it is exhausted."""
        from airflow_provider_varian.hooks import audit
        from airflow_provider_varian.query.find import iter_find

        query = self._query(level, keys)
        return iter_find(
            self.peer, query, profile=self.profile, cancellation=cancellation, on_query=audit.asking(self.peer)
        )

    def find_session(self, *, cancellation: Cancellation | None = None) -> FindSession:
        """Return a context manager for several queries over one association."""
        from airflow_provider_varian.hooks import audit
        from airflow_provider_varian.query.find import FindSession

        return FindSession(self.peer, profile=self.profile, cancellation=cancellation, on_query=audit.asking(self.peer))

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

    async def apeer(self) -> Peer:
        """:attr:`peer`, for triggers: a synchronous look-up would block the triggerer's loop.

        :raises ConfigurationError: when there is no such connection, or a field of it is wrong.
        """
        if "peer" not in self.__dict__:
            try:
                connection = await self.aget_connection(self.dicom_conn_id)
            except AirflowNotFoundException as error:
                raise self._no_connection() from error
            self.__dict__["peer"] = self._peer_of(connection)
        return self.peer

    async def _in_thread(self, verb: Callable[..., _Result]) -> _Result:
        from airflow_provider_varian.hooks.worker_threads import in_thread

        return await in_thread(await self.apeer(), verb)

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

        peer = peer_from_connection(**connection_parts(self.dicom_conn_id, connection))
        return replace(peer, deferred_as=self.dicom_conn_id) if self.deferring else peer

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
