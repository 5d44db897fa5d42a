"""Retrieval IDs: the same work has the same ID, so that a retry finds what was done (design 6)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

_NAMESPACE: Final = uuid.UUID("2b0d1f6e-54c9-5b1c-9d0f-6e6f3a6d6b64")


def retrieval_id_of_task(*, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Return the ID of a task instance's retrieval, the same for each of its tries."""
    return _uuid(["task", dag_id, run_id, task_id, map_index])


def retrieval_id_of_command(
    *,
    peer: str,
    destination: str,
    request: Mapping[str, Any],
    destination_id: str,
    minimum: int | None = None,
    limit: int | None = None,
) -> str:
    """Return the ID of a retrieval from the command line.

    :param peer: the peer as ``AET@host:port``.
    :param destination: where objects go.
    :param request: level and keys; their order does not matter.
    :param destination_id: the random ID kept in the destination
        (:meth:`~airflow_provider_varian.retrieval.destination.Destination.random_id`). Without it the ID
        would be a hash of a PatientID, which can be guessed back.
    :param minimum: how many instances must exist at least; with the next one, part of what is asked for. Otherwise the
        account of a part would take the place of the account of the whole.
    :param limit: how many instances are taken at most.
    """
    # Named only where they are set: a command without them has the ID that it always had.
    bounds = {name: number for name, number in (("minimum", minimum), ("limit", limit)) if number is not None}
    return _uuid(["command", peer, destination, {**request, **bounds}, destination_id])


def _uuid(parts: list[Any]) -> str:
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return str(uuid.uuid5(_NAMESPACE, canonical))
