"""Waiting in the triggerer: what waits for an operator there, and what the event that ends it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_varian.errors import PermanentDicomError, TransientDicomError
from airflow_provider_varian.waiting import Listed, QuietHours, Waiting

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger


def trigger_of(waiting: Waiting) -> BaseTrigger:
    """Return what waits in the triggerer for what work has come to.

    :raises ConfigurationError: when what it has to know cannot be kept in Airflow's database.
    """
    from airflow_provider_varian.triggers.operators import DicomLateTrigger, DicomListedTrigger, DicomQuietHoursTrigger

    awaited = waiting.awaited
    if isinstance(awaited, QuietHours):
        return DicomQuietHoursTrigger(dicom_conn_id=awaited.deferred_as)
    trigger = DicomListedTrigger.of(awaited) if isinstance(awaited, Listed) else DicomLateTrigger.of(awaited)
    trigger.serialize()  # what cannot be kept is told here, and not where Airflow keeps it
    return trigger


def facts_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that a trigger's event tells.

    :raises DicomError: it tells an error; transient when a retry may help.
    """
    if event["status"] == "success":
        return dict(event["facts"])
    raise (TransientDicomError if event["transient"] else PermanentDicomError)(event["message"])
