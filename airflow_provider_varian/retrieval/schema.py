"""Which documents of ours can be read: those of the schema version that is written, and of no later one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_varian.errors import ConfigurationError


def check_schema_version(
    values: Mapping[str, Any], known: int, *, what: str, step: str = "", instead: str = "a destination of its own"
) -> None:
    """Refuse a document of another version.

    :param values: the document.
    :param known: the version that is written.
    :param what: what the document is, for the error.
    :param step: in which step it is read.
    :param instead: what may be used in its place.
    :raises ConfigurationError: when a later version of this package wrote it: it may say what is not known here.
    :raises ValueError: when it has no version that ever was; KeyError when it has none.
    """
    version = values["schema_version"]
    if isinstance(version, int) and version > known:
        raise ConfigurationError(
            f"{what} has schema version {version}, and {known} is what is read here",
            step=step,
            hint=f"Update airflow-provider-varian, or use {instead}",
        )
    if version != known:
        raise ValueError("it has no schema version that ever was")
