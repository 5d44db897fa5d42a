"""Folders of a spool, listed again only when they have changed: unclaimed objects lie there for days."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spooled import SpooledObject

#: A folder whose time is older than this, at the time of a look, changes it with its next change.
_TICK_SECONDS: Final = 1.0


class ListedFolders:
    """What the folders of a spool held when they were last listed. For one thread at a time.

    :param spool: the spool.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        #: What each folder held, and at which of its times that is certain.
        self._listed: dict[Path, tuple[int, list[SpooledObject]]] = {}

    def objects_in(self, folder: Path) -> list[SpooledObject]:
        """List a folder, unless it is certain that it has not changed.

        :raises ReceiverUnavailableError: when it cannot be read.
        """
        with self._spool.usable():
            now = time.time_ns()
            changed = os.stat(folder).st_mtime_ns
            if (before := self._listed.get(folder)) is not None and before[0] == changed:
                return before[1]
            items = list(self._spool.objects_in(folder))
        # Two changes within one tick of the clock leave one time.
        if changed + _TICK_SECONDS * 1e9 < now:
            self._listed[folder] = changed, items
        else:
            self._listed.pop(folder, None)
        return items
