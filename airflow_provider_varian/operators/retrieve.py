"""Retrieving as operators: bring objects here by C-GET or C-MOVE, or have them sent to somebody else."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_varian.errors import ConfigurationError, DicomError, EmptyResultError, IncompleteRetrievalError
from airflow_provider_varian.hooks.settings import below, root_of
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.manifest_xcom import ManifestPusher
from airflow_provider_varian.operators.retrieving import OnEmpty, RetrievingOperator, check_choice, is_lasting

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_varian.retrieval.request import RetrievalRequest
    from airflow_provider_varian.retrieval.result import RetrievalResult
    from airflow_provider_varian.retrieval.third_party import ThirdPartyResult

log = logging.getLogger(__name__)


class DicomRetrieveOperator(RetrievingOperator):
    """Bring objects here and account for each of them.

    The task succeeds when every instance that the peer lists is verified on storage; a retry, and a cleared task,
    retrieves what is missing and nothing else. Returns ``{"outcome", "manifest", "counts"}``; the manifest's URI,
    outcome and counts are in XCom under ``dicom_manifest`` from the start of the retrieval.

    :param keys: DICOM keywords to values (templated). Unique keys go into the request; others select by C-FIND first.
    :param level: ``PATIENT``, ``STUDY``, ``SERIES`` or ``IMAGE`` (templated); None: that of the deepest unique key,
        else IMAGE.
    :param method: ``auto`` is C-GET where the peer accepts it, else C-MOVE; ``get``; ``move``; None: as the
        connection says.
    :param destination: absolute folder or object-storage URI (templated); the default is ``[varian] storage_root``.
    :param layout: where an object is filed below it (templated), e.g.
        ``{StudyInstanceUID}/{SeriesInstanceUID}/{Modality}.{SOPInstanceUID}.dcm``, which is the default.
    :param minimum: how many instances must exist at least; fewer, or none at all, make the outcome ``short``.
    :param limit: take so many instances at most; when there are more the outcome is ``limited``.
    :param on_partial: ``fail`` (and retry, unless what went wrong would meet a retry too) or ``accept`` the outcomes
        ``partial`` and ``short``.
    :param on_empty: ``skip``, ``fail`` (and retry) or ``accept`` when nothing is found and no ``minimum`` is set.
    :param port_wait_seconds: how long to wait for a receiver port that another task uses.
    :param verify: ``path``: what is at its final path is held; ``hash``: and has the manifest's SHA-256, or, where the
        manifest has none, is whole; None: ``hash`` in a retry of a try that did not finish, else ``path``.
    :param refresh: plans, structure sets and doses may change under their UID, so held ones are compared with what
        the peer answers: ``if_changed`` fetches those again that changed, or of which the peer does not say it;
        ``always`` all of them; ``never`` none. The older version is kept. Images are never fetched again.
    :param recheck_rounds: the list is asked for again after the transfer, and what is new is retrieved too, until
        nothing is new or so many times (None: 3; 0: not at all).
    :param stable_counts: equal lists in a row that make a list stable; None: as the connection's profile says, also
        for the next two.
    :param stable_interval_seconds: seconds between two of them.
    :param settle_seconds: seconds of quiet after which late objects are given up.
    :param dicom_conn_id: the connection (templated).
    :param deferrable: leave long waits to the triggerer, and hold no worker meanwhile; the default is
        ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("dicom_conn_id", "keys", "level", "destination", "layout")
    template_fields_renderers = {"keys": "json"}  # noqa: RUF012 - as BaseOperator declares it

    def __init__(
        self,
        *,
        keys: Mapping[str, Any],
        level: str | None = None,
        method: Literal["auto", "get", "move"] | None = None,
        layout: str | None = None,
        minimum: int | None = None,
        limit: int | None = None,
        on_empty: OnEmpty = "skip",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.keys = keys
        self.level = level
        self.method = method
        self.layout = layout
        self.minimum = minimum
        self.limit = limit
        self.on_empty = on_empty

    def run_dicom(self, context: Context) -> dict[str, Any]:
        """Select, retrieve, and decide by the outcome."""
        self.check_choices()
        check_choice("on_empty", self.on_empty, ("skip", "fail", "accept"))
        request = self.hook.select(
            self.level or None,
            self.keys,
            layout=self.layout,
            minimum=self.minimum,
            limit=self.limit,
            stable_counts=self.stable_counts,
            stable_interval_seconds=self.stable_interval_seconds,
            cancellation=self.cancellation,
        )
        return self._retrieve(context, request)

    def _retrieve(self, context: Context, request: RetrievalRequest) -> dict[str, Any]:
        root = root_of(self.destination)
        result = self.hook.retrieve(
            request,
            retrieval_id=retrieval_id(context),
            destination=root,
            layout=self.layout,
            method=self.method,
            on_change=ManifestPusher(context, root),
            cancellation=self.cancellation,
            **asdict(self.retrieving),
        )
        return self._judged(result, root)

    def _judged(self, result: RetrievalResult | ThirdPartyResult, root: ObjectStoragePath) -> dict[str, Any]:
        """Return what the task returns, or raise what the outcome asks for."""
        told: dict[str, Any] = {
            "outcome": str(result.outcome),
            "manifest": str(below(root, str(result.manifest.path))),
            "counts": dict(result.counts),
        }
        message = f"{result.manifest.message}; see {told['manifest']}"
        return self._decide(told["outcome"], message, told, result.error)

    def _decide(
        self, outcome: str, message: str, told: dict[str, Any], error: DicomError | None = None
    ) -> dict[str, Any]:
        """Return what the task returns, or raise what its outcome asks for."""
        if outcome == "empty" and self.on_empty != "accept":
            if self.on_empty == "skip":
                raise AirflowSkipException(message)
            raise EmptyResultError(message, peer=self.hook.peer.name, step="retrieve")
        if outcome in ("partial", "short") and self.on_partial == "fail":
            if outcome == "partial" and error is not None and is_lasting(error):
                # The message of the manifest holds the error's words, hint included.
                raise type(error)(f"partial: {message}", peer=error.peer, step="retrieve", status=error.status)
            raise IncompleteRetrievalError(f"{outcome}: {message}", peer=self.hook.peer.name, step="retrieve")
        if outcome == "complete":
            log.info("complete: %s", message)
        else:
            log.warning("%s: %s", outcome, message)
        return told


class DicomGetOperator(DicomRetrieveOperator):
    """:class:`DicomRetrieveOperator` by C-GET alone (PS3.4 C.4.3): objects come over the same association."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(method="get", **kwargs)


class DicomMoveOperator(DicomRetrieveOperator):
    """:class:`DicomRetrieveOperator` by C-MOVE alone (PS3.4 C.4.2), or, with a destination, to a third party.

    A third-party move has a manifest too, below ``destination``; nothing else is written there. What should go is
    listed at the peer first, and what did not arrive is asked for again. How that is known decides the outcome:

    - By nothing but the peer's reports: ``reported`` at best, and the task succeeds with a warning.
    - By ``verify_dicom_conn_id``: ``complete`` when the destination lists every instance.
    - By ``verify_path``: ``complete`` when every instance is there as a whole file, which is hashed.

    Otherwise the outcome is ``partial``, and the manifest names what is missing. What is there already is not moved
    again, but for plans, structure sets and doses that this task did not bring there itself: they may have changed.

    Nothing is received or filed here then, so ``layout``, ``verify``, ``refresh`` and ``port_wait_seconds`` do not
    apply: the task refuses them together with a ``move_destination``.

    :param move_destination: AE title of another trusted entity, to which the peer then sends (templated); None: to us.
    :param verify_dicom_conn_id: a connection to that entity, which is asked by C-FIND what it has (templated).
    :param verify_path: absolute folder, or object-storage URI, where that entity files what it gets, and which this
        worker can read (templated): a File Daemon's. Files are known by what is in them, whatever they are called.
    """

    template_fields: Sequence[str] = (
        *DicomRetrieveOperator.template_fields,
        "move_destination",
        "verify_dicom_conn_id",
        "verify_path",
    )

    def __init__(
        self,
        *,
        move_destination: str | None = None,
        verify_dicom_conn_id: str | None = None,
        verify_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(method="move", **kwargs)
        self.move_destination = move_destination
        self.verify_dicom_conn_id = verify_dicom_conn_id
        self.verify_path = verify_path

    def run_dicom(self, context: Context) -> dict[str, Any]:
        """Refuse what contradicts itself, before the peer is asked for anything; then as ever."""
        if self.move_destination:
            inapplicable = {
                "layout": bool(self.layout),
                "verify": self.verify is not None,
                "refresh": self.refresh != "if_changed",
                "port_wait_seconds": self.port_wait_seconds is not None,
            }
            if given := [name for name, is_set in inapplicable.items() if is_set]:
                raise ConfigurationError(
                    f"{', '.join(given)}: cannot apply to a move to {self.move_destination!r}: we receive nothing",
                    hint="Leave them out, or move_destination. verify_dicom_conn_id and verify_path prove such a move.",
                )
        elif self.verify_dicom_conn_id or self.verify_path:
            raise ConfigurationError(
                "verify_dicom_conn_id and verify_path say how a third party is looked at, and there is none",
                hint="Set move_destination, or leave them out.",
            )
        return super().run_dicom(context)

    def _retrieve(self, context: Context, request: RetrievalRequest) -> dict[str, Any]:
        if not self.move_destination:
            return super()._retrieve(context, request)
        root = root_of(self.destination)
        result = self.hook.move(
            request,
            move_destination=self.move_destination,
            retrieval_id=retrieval_id(context),
            destination=root,
            verify_dicom_conn_id=self.verify_dicom_conn_id or None,
            verify_path=self.verify_path or None,
            stable_counts=self.stable_counts,
            stable_interval_seconds=self.stable_interval_seconds,
            settle_seconds=self.settle_seconds,
            recheck_rounds=self.recheck_rounds,
            on_change=ManifestPusher(context, root),
            cancellation=self.cancellation,
        )
        return self._judged(result, root)
