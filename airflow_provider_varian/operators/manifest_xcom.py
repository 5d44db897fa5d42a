"""The manifest's place in XCom: what page and reports find a retrieval by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.hooks.settings import below

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_varian.retrieval.manifest import Manifest

#: ``{"uri", "outcome", "counts"}``, pushed with the first manifest (``pending``) and at each change of it.
MANIFEST_KEY: Final = "dicom_manifest"


class ManifestPusher:
    """What to give a retrieval as ``on_change``: it tells XCom where the manifest is and what it says.

    :param context: Airflow's context.
    :param root: the retrieval's destination.
    """

    def __init__(self, context: Context, root: ObjectStoragePath) -> None:
        self._context = context
        self._root = root
        self._pushed: dict[str, Any] = {}

    @property
    def uri(self) -> str | None:
        """Where the manifest is, as pushed last; None before there is one."""
        return self._pushed.get("uri")

    def __call__(self, manifest: Manifest) -> None:
        """Push what is to be told of a manifest that was written."""
        value = {
            "uri": str(below(self._root, str(manifest.path))),
            "outcome": str(manifest.outcome),
            "counts": manifest.ledger.counts(),
        }
        # A manifest is written more often than what is told here changes.
        if value != self._pushed:
            self._pushed = value
            self._context["ti"].xcom_push(key=MANIFEST_KEY, value=value)
