"""Machines of the daily QA on storage: tasks map over opaque keys, not over patients' or phantoms' IDs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.hooks.settings import below, destination_path, storage_root
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.rows import read_row, read_rows, write_rows

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_varian.aria.machines import Machine
    from airflow_provider_varian.operators.rows import RowsFile


def write_machines(context: Context, configuration: object, *, stored: str | None = None) -> RowsFile:
    """Check a list of machines and write it to storage, each under an opaque key.

    :param context: Airflow's context; the file is named after the task instance.
    :param configuration: the list; see :func:`airflow_provider_varian.aria.machines.parse_machines`.
    :param stored: path or object-storage URI of a JSON file with such a list, used instead.
    :raises ConfigurationError: names the machine, the key and what to type.
    """
    from airflow_provider_varian.aria.machines import parse_machines

    machines = parse_machines(_stored(stored) if stored else configuration)
    path = below(storage_root(), ".dicom", "rows", f"{retrieval_id(context)}.json")
    return write_rows(path, [machine.to_json() for machine in machines])


def read_machine(uri: str, key: str) -> Machine:
    """Return one machine of a file that :func:`write_machines` wrote."""
    from airflow_provider_varian.aria.machines import parse_machine

    return parse_machine(read_row(uri, key))


def read_machines(uri: str) -> dict[str, Machine]:
    """Return all machines of such a file by their keys."""
    from airflow_provider_varian.aria.machines import parse_machine

    return {key: parse_machine(row) for key, row in read_rows(uri).items()}


def _stored(uri: str) -> object:
    try:
        return json.loads(destination_path(uri).read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(f"the stored list of machines {uri} is not there") from error
    except ValueError as error:
        raise ConfigurationError(f"the stored list of machines {uri} is not JSON: {error}") from error
