"""The hook's verbs that bring and send objects: defaults of Airflow's configuration, then the one implementation.

What they work on, the peer of a connection, is :class:`.dicom.DicomHook`'s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.dimse.peer import Peer
    from airflow_provider_varian.query.level import Level
    from airflow_provider_varian.query.profile import Profile
    from airflow_provider_varian.retrieval.held import Verify
    from airflow_provider_varian.retrieval.method import Method
    from airflow_provider_varian.retrieval.request import RetrievalRequest
    from airflow_provider_varian.retrieval.retrieve import OnChange, RetrievalResult
    from airflow_provider_varian.retrieval.store import OnChange as OnSentChange
    from airflow_provider_varian.retrieval.store import StoreResult
    from airflow_provider_varian.retrieval.third_party import ThirdPartyResult
    from airflow_provider_varian.retrieval.versions import Refresh
    from airflow_provider_varian.waiting import Try


class TransferVerbs(ABC):
    """Select, retrieve, move and store, with the peer of a connection."""

    #: See :class:`.dicom.DicomHook`.
    deferring: bool
    task_try: Try | None

    @property
    @abstractmethod
    def peer(self) -> Peer:
        """The peer of the connection."""

    @property
    @abstractmethod
    def profile(self) -> Profile:
        """Which habits of the peer to allow for."""

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
        from airflow_provider_varian.hooks import audit
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
            on_query=audit.asking(self.peer),
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
        """Bring objects here, by C-GET or by C-MOVE, and account for each.

        C-MOVE sends to the connection's standing receiver, if it names one, else to a receiver in this process.

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
        :raises ConfigurationError: among others for a connection that names a standing receiver which
            ``[varian] receivers`` does not know.
        """
        from airflow_provider_varian.hooks import audit, settings
        from airflow_provider_varian.retrieval.recheck import RECHECK_ROUNDS
        from airflow_provider_varian.retrieval.retrieve import PORT_WAIT_SECONDS, retrieve
        from airflow_provider_varian.retrieval.trail import Retrieving

        name = self.peer.receiver
        with audit.work_trail(self.peer) as trail, Retrieving(trail, self.peer, on_change=on_change) as told:
            return retrieve(
                self.peer,
                request,
                profile=self.profile,
                destination=settings.root_of(destination),
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
                on_change=told.changed,
                cancellation=cancellation,
                receiver=settings.named_receiver(name) if name else None,
                spool_retention_seconds=settings.spool_retention_seconds(),
                on_query=audit.asking(self.peer),
                observer=told,
                task_try=self.task_try,
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
        from airflow_provider_varian.hooks import audit, settings
        from airflow_provider_varian.hooks.dicom import DicomHook
        from airflow_provider_varian.retrieval.recheck import RECHECK_ROUNDS
        from airflow_provider_varian.retrieval.third_party import move_to_third_party
        from airflow_provider_varian.retrieval.trail_exports import Moving

        verifying = DicomHook(verify_dicom_conn_id, deferring=self.deferring) if verify_dicom_conn_id else None
        with audit.work_trail(self.peer) as trail, Moving(trail, self.peer, move_destination) as told:
            return move_to_third_party(
                self.peer,
                request,
                destination=move_destination,
                profile=self.profile,
                manifest_root=settings.root_of(destination) if retrieval_id else None,
                retrieval_id=retrieval_id or "",
                verify_peer=verifying.peer if verifying else None,
                verify_profile=verifying.profile if verifying else None,
                verify_path=settings.destination_path(verify_path) if verify_path else None,
                stable_counts=stable_counts,
                stable_interval_seconds=stable_interval_seconds,
                settle_seconds=settle_seconds,
                recheck_rounds=RECHECK_ROUNDS if recheck_rounds is None else recheck_rounds,
                on_change=on_change,
                on_account=told.changed,
                on_query=audit.asking(self.peer),
                cancellation=cancellation,
                task_try=self.task_try,
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
        from airflow_provider_varian.hooks import audit, settings
        from airflow_provider_varian.retrieval.destination import Destination
        from airflow_provider_varian.retrieval.store import store_files
        from airflow_provider_varian.retrieval.trail_exports import Storing

        check_allowed(self.peer)
        named = files if isinstance(files, Sequence) and not isinstance(files, str) else [files]
        with audit.work_trail(self.peer) as trail, Storing(trail, self.peer, on_change=on_change) as told:
            return store_files(
                self.peer,
                [settings.source_path(path, place) for place, path in enumerate(named, start=1)],
                store_id=store_id,
                destination=Destination(settings.root_of(destination)),
                recursive=recursive,
                on_change=told.changed,
                cancellation=cancellation,
            )
