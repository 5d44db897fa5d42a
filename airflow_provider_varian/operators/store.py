"""C-STORE as an operator: files to a peer that its connection allows to be written to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_varian.errors import DicomError, EmptyResultError, TransientDicomError
from airflow_provider_varian.hooks.settings import below, root_of
from airflow_provider_varian.operators.base import DicomOperator
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.retrieving import OnEmpty, OnPartial, check_choice

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_varian.retrieval.sent import SentDocument
    from airflow_provider_varian.retrieval.store import StoreResult

log = logging.getLogger(__name__)

#: XCom key: ``{"uri", "outcome", "counts"}`` of the account, pushed from the start (``pending``) and at the end.
SENT_KEY: Final = "dicom_sent"


class DicomStoreOperator(DicomOperator):
    """Send DICOM files to a peer (C-STORE, PS3.4 Annex B), and account for each of them.

    The DB Daemon *imports* what it gets, often with Automatic Patient Creation: one wrong connection makes patients in
    the clinical record. So the task fails, before it reads a file or uses the network, unless the connection has
    ``allow_store``.

    The task succeeds when the peer accepted each file's object, with a remark (0xB000, 0xB006, 0xB007) or without. A
    retry, and a cleared task, sends what was not accepted and nothing else. Returns ``{"outcome", "document",
    "counts"}``; XCom has ``{"uri", "outcome", "counts"}`` under ``dicom_sent`` from the start. The document names
    objects by their place among the files and by UID, never by file name.

    :param files: an absolute path or object-storage URI of a file or folder, or a list of them (templated). A
        folder's files are taken in the order of their paths, but for those that begin with a dot.
    :param recursive: look into folders inside folders too.
    :param destination: where the document goes (templated), as ``.dicom/sent-{ID}.json``; the default is
        ``[varian] storage_root``.
    :param on_partial: ``fail`` (and retry, if a retry can get over what kept an object away) or ``accept`` that the
        peer accepted some objects only. When it accepted none the task fails.
    :param on_empty: ``skip``, ``fail`` (and retry) or ``accept`` when there is no file.
    :param dicom_conn_id: the connection (templated).
    :param deferrable: leave long waits to the triggerer, and hold no worker meanwhile; the default is
        ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("dicom_conn_id", "files", "destination")

    def __init__(
        self,
        *,
        files: str | Sequence[str],
        recursive: bool = False,
        destination: str | None = None,
        on_partial: OnPartial = "fail",
        on_empty: OnEmpty = "skip",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.files = files
        self.recursive = recursive
        self.destination = destination
        self.on_partial = on_partial
        self.on_empty = on_empty

    def run_dicom(self, context: Context) -> dict[str, Any]:
        """Send, and decide by the outcome."""
        check_choice("on_partial", self.on_partial, ("fail", "accept"))
        check_choice("on_empty", self.on_empty, ("skip", "fail", "accept"))
        root = root_of(self.destination)
        result = self.hook.store(
            self.files,
            store_id=retrieval_id(context),
            destination=root,
            recursive=self.recursive,
            on_change=_Pusher(context, root),
            cancellation=self.cancellation,
        )
        told = {"outcome": str(result.outcome), "document": _uri(root, result.document), "counts": result.counts}
        return self._decide(result, told)

    def _decide(self, result: StoreResult, told: dict[str, Any]) -> dict[str, Any]:
        outcome = told["outcome"]
        left = result.document.not_accepted()
        named = f"; not accepted: {left}" if left else ""
        message = f"{outcome}: {result.document.message}{named}; see {told['document']}"
        if outcome == "empty" and self.on_empty != "accept":
            if self.on_empty == "skip":
                raise AirflowSkipException(message)
            raise EmptyResultError(message, step="C-STORE")
        if outcome == "nothing" or (outcome == "partial" and self.on_partial == "fail"):
            raise self._error(result.error, message)
        if outcome == "complete" and not result.counts["warning"]:
            log.info("%s", message)
        else:
            log.warning("%s", message)
        return told

    def _error(self, error: DicomError | None, message: str) -> DicomError:
        """Return an error of the same kind as what stood in the way, which knows whether a retry is worth it."""
        peer = self.hook.peer.name
        if error is None:  # the account says that something is left, and knows no reason
            return TransientDicomError(message, peer=peer, step="C-STORE")
        return type(error)(message, peer=peer, step="C-STORE", status=error.status, hint=error.hint)


class _Pusher:
    """Tells XCom where the account is and what it says."""

    def __init__(self, context: Context, root: ObjectStoragePath) -> None:
        self._context = context
        self._root = root
        self._outcome = ""

    def __call__(self, document: SentDocument) -> None:
        """Push when the outcome changed: counts alone would be a write to Airflow's database for each object."""
        if str(document.outcome) != self._outcome:
            self._outcome = str(document.outcome)
            value = {"uri": _uri(self._root, document), "outcome": self._outcome, "counts": document.counts()}
            self._context["ti"].xcom_push(key=SENT_KEY, value=value)


def _uri(root: ObjectStoragePath, document: SentDocument) -> str:
    return str(below(root, str(document.path)))
