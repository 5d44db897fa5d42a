"""What finding a plan set needs of whoever retrieves objects: the pool of a run, a folder of a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from airflow_provider_varian.retrieval.request import Expected


class Got(Protocol):
    """What became of one object that was asked for."""

    @property
    def is_here(self) -> bool:
        """Has it come, now or earlier?"""

    @property
    def reason(self) -> str:
        """Why it has not come, in words and without identifiers; empty when it is here."""


class Fetcher(Protocol):
    """Brings objects here and reads them."""

    def fetch(self, expected: Sequence[Expected], part: str) -> Mapping[str, Got]:
        """Bring objects here in one retrieval; those that are here already are not moved again.

        :param expected: the objects, as the peer listed them.
        :param part: a short word that tells the batches of one plan set apart, e.g. ``plans``.
        :return: by SOP Instance UID what became of each. What the peer refuses for good is no error here: a series
            may be listed and not be movable, a plan without beams cannot be exported (varian-daemon 1.4).
        :raises DicomError: when the retrieval as a whole failed and may be tried again.
        """

    def read(self, uid: str) -> Dataset:
        """Return an object that is here, all but its pixels.

        :param uid: its SOP Instance UID, one that :meth:`fetch` said is here.
        """
