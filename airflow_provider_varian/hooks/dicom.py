"""The hook: an Airflow connection of type ``dicom`` turned into a peer, and one method per verb.

Each verb is implemented once, in ``dimse``, ``query`` or ``retrieval``; the hook looks the connection up and calls
it. Nothing heavy is imported before a verb is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_varian import connection_fields
from airflow_provider_varian.errors import ConfigurationError, DicomError

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.providers.common.compat.sdk import Connection, ObjectStoragePath

    from airflow_provider_varian.dimse.association import PeerAssociation
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.dimse.echo import EchoResult
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.query.find import FindResult, FindSession, OnUndecided
    from airflow_provider_varian.query.level import Level
    from airflow_provider_varian.query.profile import Profile
    from airflow_provider_varian.query.query import Query
    from airflow_provider_varian.retrieval.held import Verify
    from airflow_provider_varian.retrieval.method import Method
    from airflow_provider_varian.retrieval.request import RetrievalRequest
    from airflow_provider_varian.retrieval.retrieve import OnChange, RetrievalResult
    from airflow_provider_varian.retrieval.store import OnChange as OnSentChange
    from airflow_provider_varian.retrieval.store import StoreResult
    from airflow_provider_varian.retrieval.third_party import ThirdPartyResult
    from airflow_provider_varian.retrieval.versions import Refresh

_Result = TypeVar("_Result")


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
        stable_counts: int | None = None,
        stable_interval_seconds: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> RetrievalRequest:
        """Return what :meth:`retrieve` and :meth:`move` take; nothing is ``expected`` when nothing at the peer fits.

        :param level: the query/retrieve level; None: that of the deepest unique key, else IMAGE.
        :param keys: DICOM keywords to values; others than unique keys are asked by C-FIND first.
        :param layout: where objects will be filed: its keywords are asked for too.
        :param minimum: how many instances must exist at least; fewer make the outcome ``short``.
        :param limit: take so many instances at most; more make the outcome ``limited``.
        :param stable_counts: equal lists in a row that make a list stable; None: as the profile says.
        :param stable_interval_seconds: seconds between two of them; None: as the profile says.
        """
        from airflow_provider_varian.retrieval.layout import Layout
        from airflow_provider_varian.retrieval.patience import patient_profile
        from airflow_provider_varian.retrieval.selection import select

        return select(
            self.peer,
            level,
            keys,
            profile=patient_profile(
                self.profile, stable_counts=stable_counts, stable_interval_seconds=stable_interval_seconds
            ),
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
        verify: Verify | None = None,
        refresh: Refresh = "if_changed",
        recheck_rounds: int | None = None,
        stable_counts: int | None = None,
        stable_interval_seconds: float | None = None,
        settle_seconds: float | None = None,
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
        :param verify: is an object held when it is at its final ``path``, or when its ``hash`` agrees as well? None:
            ``hash`` after a try that did not finish, else ``path``.
        :param refresh: fetch plans, structure sets and doses that are held again ``if_changed``, ``never`` or
            ``always``; see :mod:`airflow_provider_varian.retrieval.versions`. Images are never fetched again.
        :param recheck_rounds: how often the list is asked for again after the transfer, at most; None: 3, 0: never.
        :param stable_counts: equal lists in a row that make a list stable; None: as the profile says.
        :param stable_interval_seconds: seconds between two of them; None: as the profile says.
        :param settle_seconds: seconds of quiet after which late objects are given up; None: as the profile says.
        :param on_change: called with the manifest each time that it was written.
        :raises ConfigurationError: for a connection that names a standing receiver, which retrieving in a task
            does not use.
        """
        from airflow_provider_varian.hooks import settings
        from airflow_provider_varian.retrieval.recheck import RECHECK_ROUNDS
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
            refresh=refresh,
            recheck_rounds=RECHECK_ROUNDS if recheck_rounds is None else recheck_rounds,
            stable_counts=stable_counts,
            stable_interval_seconds=stable_interval_seconds,
            settle_seconds=settle_seconds,
            on_change=on_change,
            cancellation=cancellation,
        )

    def move(
        self,
        request: RetrievalRequest,
        *,
        move_destination: str,
        retrieval_id: str | None = None,
        destination: str | ObjectStoragePath | None = None,
        verify_dicom_conn_id: str | None = None,
        verify_path: str | ObjectStoragePath | None = None,
        stable_counts: int | None = None,
        stable_interval_seconds: float | None = None,
        settle_seconds: float | None = None,
        recheck_rounds: int | None = None,
        on_change: OnChange | None = None,
        cancellation: Cancellation | None = None,
    ) -> ThirdPartyResult:
        """Have the peer send objects to somebody else (C-MOVE, PS3.4 C.4.2), and account for each.

        With neither ``verify_dicom_conn_id`` nor ``verify_path`` the peer's reports are all that is known.

        :param request: see :meth:`select`.
        :param move_destination: AE title of a trusted entity of the peer.
        :param retrieval_id: identity of the work: with the same one a retry asks for the missing alone; None: no
            manifest is kept.
        :param destination: absolute folder or object-storage URI below which the manifest is kept; the default is
            ``[varian] storage_root``.
        :param verify_dicom_conn_id: a connection to the destination, which is asked by C-FIND what it has.
        :param verify_path: absolute folder or URI where the destination files what it gets, readable by us.
        :param stable_counts: equal lists in a row that make the source's list stable; None: as the profile says,
            also for the next two.
        :param stable_interval_seconds: seconds between two of them.
        :param settle_seconds: how long nothing may change at the destination before what is missing is given up.
        :param recheck_rounds: how often the source's list is asked for again afterwards, at most; None: 3.
        :param on_change: called with the manifest each time that it was written.
        """
        from airflow_provider_varian.hooks import settings
        from airflow_provider_varian.retrieval.recheck import RECHECK_ROUNDS
        from airflow_provider_varian.retrieval.third_party import move_to_third_party

        verifying = DicomHook(verify_dicom_conn_id) if verify_dicom_conn_id else None
        root = None
        if retrieval_id:
            root = settings.destination_path(destination) if destination else settings.storage_root()
        return move_to_third_party(
            self.peer,
            request,
            destination=move_destination,
            profile=self.profile,
            manifest_root=root,
            retrieval_id=retrieval_id or "",
            verify_peer=verifying.peer if verifying else None,
            verify_profile=verifying.profile if verifying else None,
            verify_path=settings.destination_path(verify_path) if verify_path else None,
            stable_counts=stable_counts,
            stable_interval_seconds=stable_interval_seconds,
            settle_seconds=settle_seconds,
            recheck_rounds=RECHECK_ROUNDS if recheck_rounds is None else recheck_rounds,
            on_change=on_change,
            cancellation=cancellation,
        )

    def store(
        self,
        files: str | Path | ObjectStoragePath | Sequence[str | Path | ObjectStoragePath],
        *,
        store_id: str,
        destination: str | ObjectStoragePath | None = None,
        recursive: bool = False,
        on_change: OnSentChange | None = None,
        cancellation: Cancellation | None = None,
    ) -> StoreResult:
        """Send DICOM files to the peer (C-STORE, PS3.4 Annex B), and account for each.

        The daemon *imports* what it gets, often creating patients: refused unless the connection has ``allow_store``.

        :param files: an absolute path or object-storage URI of a file or folder, or several of them.
        :param store_id: identity of the work: with the same one a retry sends what was not accepted.
        :param destination: where the account goes; the default is ``[varian] storage_root``.
        :param recursive: whether folders inside folders are looked into.
        :param on_change: called with the account each time that it changed.
        :raises ConfigurationError: before any network: storing is not allowed, or a file is not there.
        """
        from airflow_provider_varian.dimse.store import check_allowed
        from airflow_provider_varian.hooks import settings
        from airflow_provider_varian.retrieval.destination import Destination
        from airflow_provider_varian.retrieval.store import store_files

        check_allowed(self.peer)
        named = files if isinstance(files, Sequence) and not isinstance(files, str) else [files]
        root = settings.destination_path(destination) if destination else settings.storage_root()
        return store_files(
            self.peer,
            [settings.source_path(path, place) for place, path in enumerate(named, start=1)],
            store_id=store_id,
            destination=Destination(root),
            recursive=recursive,
            on_change=on_change,
            cancellation=cancellation,
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
        from airflow_provider_varian.hooks.worker_threads import in_thread

        if "peer" not in self.__dict__:
            # A synchronous look-up would block the triggerer's loop.
            try:
                connection = await self.aget_connection(self.dicom_conn_id)
            except AirflowNotFoundException as error:
                raise self._no_connection() from error
            self.__dict__["peer"] = self._peer_of(connection)
        return await in_thread(self.peer, verb)

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
