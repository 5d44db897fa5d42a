"""What went wrong on the way of a transfer that goes on: noted, explained, and said once."""

from __future__ import annotations

import logging

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.retrieval.manifest import Manifest

logger = logging.getLogger(__name__)


class Troubles:
    """The words about what went wrong, for the log and for the manifest.

    :param peer: who is asked.
    :param manifest: where warnings and fallbacks are written down.
    """

    def __init__(self, peer: Peer, manifest: Manifest) -> None:
        self._peer = peer
        self._manifest = manifest
        self._said = ""
        #: What went wrong last, although the transfer went on.
        self.error: DicomError | None = None

    def note(self, error: DicomError) -> None:
        """Remember what went wrong; an earlier trouble of another kind was got over, and is logged."""
        if str(error) != str(self.error):
            # The transfer went on after the earlier one, and met another.
            self.say()
        self.error = error

    def get_over(self) -> None:
        """Forget what went wrong, since another way to ask is taken now; it stays in the log."""
        self.say()
        self.error = None

    def say(self) -> None:
        """Log what went wrong last, once.

        Not done for what ends a retrieval that brought nothing: that is raised, and said by who catches it.
        """
        if self.error is not None and str(self.error) != self._said:
            self._said = str(self.error)
            logger.warning("%s", self.error)

    def warn(self, words: str) -> None:
        """Log a warning and write it into the manifest, once."""
        if words not in self._manifest.warnings:
            logger.warning("%s: %s", self._peer.name, words)
            self._manifest.warnings.append(words)

    def note_fallback(self, before: str, after: str, reason: str) -> None:
        """Write down that one way to ask is given up for another, and why."""
        logger.info("Falling back from %s to %s: %s", before, after, reason)
        self._manifest.fallbacks.append({"from": before, "to": after, "reason": reason})
