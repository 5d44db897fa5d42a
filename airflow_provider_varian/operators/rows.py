"""Rows on storage, named by opaque keys: how tasks map over patients or machines without naming them.

A query answer or a typed configuration holds identifiers. It is written to storage, and what goes through XCom
is its URI and one random key per row (semantics: privacy).

The file is JSON: ``{"schema_version": 1, "rows": [{"key": "9f3c51e0a2b4", "row": {...}}, ...]}``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError, NotFoundError
from airflow_provider_varian.hooks.settings import destination_path

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class RowsFile:
    """A written file of rows.

    :param uri: where it is, without credentials.
    :param keys: the rows' keys, in the rows' order.
    """

    uri: str
    keys: tuple[str, ...]


def write_rows(path: ObjectStoragePath, rows: Iterable[Mapping[str, Any]], **beside: Any) -> RowsFile:
    """Write rows under new keys, whole or not at all; a file of an earlier try is replaced.

    :param path: the file to write.
    :param rows: JSON-ready mappings.
    :param beside: JSON-ready values that stand in the file beside the rows and have no keys.
    :raises DestinationWriteError: when the storage refuses it.
    """
    # Random, not counted: after a new query the key of an old answer must not name another patient's row.
    # Not a hash either: an identifier can be guessed back from its hash.
    keyed = [{"key": secrets.token_hex(6), "row": dict(row)} for row in rows]
    content = json.dumps({"schema_version": SCHEMA_VERSION, "rows": keyed} | beside, ensure_ascii=False, indent=1)
    write_private(path, content.encode())
    return RowsFile(uri=str(path), keys=tuple(str(entry["key"]) for entry in keyed))


def read_rows(uri: str) -> dict[str, dict[str, Any]]:
    """Return all rows of a file by their keys, in order.

    :raises NotFoundError: when there is no such file.
    :raises ConfigurationError: when it is not a file of rows.
    """
    try:
        content = json.loads(destination_path(uri).read_bytes())
    except FileNotFoundError as error:
        raise NotFoundError(
            f"the rows file {uri} is not there", hint="Run the task that writes it again, and the tasks after it."
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the rows file {uri} cannot be read ({type(error).__name__})") from error
    try:
        if content["schema_version"] != SCHEMA_VERSION:
            raise ConfigurationError(
                f"the rows file {uri} has schema version {content['schema_version']}, not {SCHEMA_VERSION}"
            )
        return {str(entry["key"]): dict(entry["row"]) for entry in content["rows"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{uri} is not a rows file") from error


def read_row(uri: str, key: str) -> dict[str, Any]:
    """Return one row.

    :raises NotFoundError: when the file or the key is not there.
    """
    rows = read_rows(uri)
    if key not in rows:
        raise NotFoundError(
            f"the rows file {uri} has no row {key!r}",
            hint="The task that writes the file has run again since: clear the tasks after it too.",
        )
    return rows[key]


def pull_from_mapped(context: Context, task_id: str, key: str) -> list[Mapping[str, Any]]:
    """Return what the instances of a mapped task told under an XCom key so far, also those that failed.

    :param context: Airflow's context.
    :param task_id: the mapped task, with its group's prefix.
    :param key: the XCom key; each instance pushes a mapping.
    """
    pulled = context["ti"].xcom_pull(task_ids=task_id, key=key)
    if not pulled:
        return []
    # Airflow gives a lone value as itself, not as a list of one.
    return [pulled] if isinstance(pulled, Mapping) else [each for each in pulled if each]


def write_private(path: ObjectStoragePath, content: bytes) -> None:
    """Write a small file whole or not at all, on a local disk readable by its owner alone.

    :raises DestinationWriteError: when the storage refuses it.
    """
    try:
        if path.protocol in ("", "file"):
            _write_local(path.path, content)
        else:
            # An object store makes an object visible when it is whole, and never before.
            path.write_bytes(content)
    except OSError as error:
        raise DestinationWriteError(
            f"{path} could not be written ({error.strerror or type(error).__name__})",
            hint="Check the folder's owner and its free space.",
        ) from error


def _write_local(path: str, content: bytes) -> None:
    import os
    from pathlib import Path

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
