"""How far the receivers are that publish to a store, as they say there (``receiver/progress.py``)."""

from __future__ import annotations

import time

from airflow_provider_varian.receiver.progress import FOLDER, SUFFIX, Progress
from airflow_provider_varian.retrieval.destination import Destination


class StoreProgress:
    """What is said in one store.

    :param store: the store.
    :param skew_seconds: how far the receivers' clocks may be from ours.
    """

    def __init__(self, store: Destination, *, skew_seconds: float) -> None:
        self._store = store
        self._skew_seconds = skew_seconds
        self._said: list[Progress] = []

    def look(self) -> None:
        """Read it.

        :raises DestinationWriteError: when the store cannot be read.
        """
        paths = [path for path in self._store.names_beside(FOLDER / "-", "") if path.suffix == SUFFIX]
        texts = [self._store.read_text(path) for path in paths]
        self._said = [said for text in texts if text is not None and (said := Progress.parsed(text)) is not None]

    def valid(self) -> Progress | None:
        """Return what was said by the last look and still says something, of all receivers together."""
        now = time.time()
        valid = [said for said in self._said if said.is_valid(now, skew=self._skew_seconds)]
        return Progress.of_all(valid) if valid else None
