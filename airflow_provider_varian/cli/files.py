"""Files that options of the command line name."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_varian.errors import ConfigurationError


def read_text(path: str, option: str) -> str:
    """Return the text of a file that an option names.

    :raises ConfigurationError: when it cannot be read.
    """
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file"
        raise ConfigurationError(
            f"{option}: {path} cannot be read ({reason})", hint="Name a file that this user may read."
        ) from None
