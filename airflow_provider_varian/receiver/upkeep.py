"""Who is told what happens to a spool by itself, when no peer is there: what is swept, and what is published."""

from __future__ import annotations

import logging
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """An object that was removed because nobody had claimed it for the whole retention.

    :param sop_instance_uid: which it was.
    :param sop_class_uid: its class; empty when the file did not say it.
    :param study_instance_uid: its study; empty when the file did not say it.
    :param size: bytes of the file.
    :param age_seconds: since its last byte was written.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    size: int
    age_seconds: float


class UpkeepObserver:
    """Is told of it, in the threads that do it; each method does nothing until it is overridden."""

    def removed(self, item: Removed) -> None:
        """An object that nobody claimed is gone."""

    def published(self, name: str, size: int, seconds: float) -> None:
        """An object is in the store, whole.

        :param name: its file name, ``{UID}.{unique}.dcm``.
        :param size: bytes of the file.
        :param seconds: from its last byte written here to its being there.
        """

    def publish_failed(self, reason: str) -> None:
        """An object could not be brought to the store; it is tried again.

        :param reason: ``store`` or ``spool``: which of the two did not do what it should.
        """


class upkeep_observers(UpkeepObserver):  # noqa: N801 - reads as the function that it stands for
    """Several observers as one. What one of them raises is logged, and harms nobody.

    :param many: are told in this order.
    """

    def __init__(self, *many: UpkeepObserver) -> None:
        self._many = many

    def removed(self, item: Removed) -> None:
        """Tell all."""
        self._tell("removed", item)

    def published(self, name: str, size: int, seconds: float) -> None:
        """Tell all."""
        self._tell("published", name, size, seconds)

    def publish_failed(self, reason: str) -> None:
        """Tell all."""
        self._tell("publish_failed", reason)

    def _tell(self, what: str, *arguments: object) -> None:
        for observer in self._many:
            try:
                getattr(observer, what)(*arguments)
            except Exception as error:  # noqa: BLE001 - whatever it is, upkeep goes on
                logger.error("%s failed to note '%s': %s", type(observer).__name__, what, type(error).__name__)
