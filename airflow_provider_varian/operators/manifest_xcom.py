"""The manifest's place in XCom: what page and reports find a retrieval by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.hooks.settings import below

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_varian.retrieval.manifest import Manifest

#: ``{"uri", "outcome", "counts"}``, pushed with the first manifest (``pending``) and at each change of it.
MANIFEST_KEY: Final = "dicom_manifest"


def manifest_pusher(context: Context, root: ObjectStoragePath) -> Callable[[Manifest], None]:
    """Return what to give a retrieval as ``on_change``: it tells XCom where the manifest is and what it says.

    :param context: Airflow's context.
    :param root: the retrieval's destination.
    """
    pushed: dict[str, Any] = {}

    def push(manifest: Manifest) -> None:
        value = {
            "uri": str(below(root, str(manifest.path))),
            "outcome": str(manifest.outcome),
            "counts": manifest.ledger.counts(),
        }
        # A manifest is written more often than what is told here changes.
        if value != pushed:
            pushed.update(value)
            context["ti"].xcom_push(key=MANIFEST_KEY, value=value)

    return push
