"""Other contents under the same UID: kept beside the object, and found there by every later retrieval (semantics 8)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from airflow_provider_varian.retrieval.destination import Destination

_DIGITS: Final = 12
_NAME: Final = re.compile(rf"(?P<stem>.+)\.conflict-[0-9a-f]{{{_DIGITS}}}(?P<suffix>\.[^.]*)?")


def conflict_path(path: PurePosixPath, sha256_data_set: str) -> PurePosixPath:
    """Return where another content is kept: ``{stem}.conflict-{start of its SHA-256}{suffix}`` beside the object.

    :param path: the final path of the object that was there first.
    :param sha256_data_set: SHA-256 of the other data set, in hexadecimal.
    """
    return path.with_name(f"{path.stem}.conflict-{sha256_data_set[:_DIGITS]}{path.suffix}")


class ConflictFiles:
    """Finds other contents beside objects, by one listing per folder: hundreds of images lie in one.

    A folder is listed once and remembered: what this retrieval adds itself it knows anyway.

    :param destination: where objects are filed.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._folders: dict[PurePosixPath, dict[str, list[PurePosixPath]]] = {}

    def beside(self, path: PurePosixPath) -> Sequence[PurePosixPath]:
        """Return the paths of the other contents of an object, sorted.

        :param path: its final path below the root.
        :raises DestinationWriteError: when the folder cannot be listed.
        """
        if path.parent not in self._folders:
            self._folders[path.parent] = self._listed(path)
        return self._folders[path.parent].get(path.name, ())

    def _listed(self, path: PurePosixPath) -> dict[str, list[PurePosixPath]]:
        found: dict[str, list[PurePosixPath]] = {}
        for other in self._destination.names_beside(path, ""):
            if match := _NAME.fullmatch(other.name):
                found.setdefault(match["stem"] + (match["suffix"] or ""), []).append(other)
        return found
