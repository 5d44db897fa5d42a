"""What a sensor in mode ``reschedule`` remembers from one poke to the next, each of which is a process of its own.

A small private file below ``[varian] storage_root``, where answers lie too: what was answered last is in it as a
digest, which is nothing for Airflow's database.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from airflow_provider_varian.hooks.settings import below, storage_root
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.rows import write_private

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath


def kept(context: Context) -> dict[str, Any] | None:
    """Return what this try of the task instance has kept; ``None`` when it has kept nothing."""
    try:
        found = json.loads(_path(context).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("try_number") != _try(context):
        return None
    memory: dict[str, Any] = found["memory"]
    return memory


def keep(context: Context, memory: dict[str, Any]) -> None:
    """Keep JSON for the next poke.

    :raises DestinationWriteError: when the storage refuses it.
    """
    content = {"schema_version": 1, "try_number": _try(context), "memory": memory}
    write_private(_path(context), json.dumps(content).encode())


def forget(context: Context) -> None:
    """Remove what was kept."""
    with contextlib.suppress(OSError):
        _path(context).unlink()


def _path(context: Context) -> ObjectStoragePath:
    return below(storage_root(), ".dicom", "waiting", f"{retrieval_id(context)}.json")


def _try(context: Context) -> int:
    return int(getattr(context["ti"], "try_number", 0) or 0)
