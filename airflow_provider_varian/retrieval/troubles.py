"""What went wrong on the way of a transfer that goes on: noted, explained, and said once."""

from __future__ import annotations

import logging

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.dimse.suboperations import SubOperations
from airflow_provider_varian.errors import DicomError
from airflow_provider_varian.receiver.in_task import InTaskReceiver
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

    def judge_silence(self, receiver: InTaskReceiver, done: SubOperations, error: DicomError | None) -> None:
        """Find words for a C-MOVE after which nobody sent us anything (semantics 24).

        :param receiver: to whom nobody sent.
        :param done: what the peer reports.
        :param error: what its final status stands for; gets a better hint where there is one.
        """
        where = f"{self._peer.move_destination} on port {receiver.address[1]}"
        if error is not None and done.status == 0xA702:
            if receiver.refused:
                error.hint = f"Our receiver refused {', '.join(receiver.refused)}; its log says what to change"
            elif not receiver.saw_inbound:
                error.hint = (
                    f"The daemon never reached {where}: check the trusted entity's address and port, and the firewall"
                )
        elif done.completed and not receiver.refused and not receiver.saw_inbound:
            self.warn(
                f"the peer reports instances as sent, but never reached {where}: the trusted entity may point to "
                "another machine"
            )
