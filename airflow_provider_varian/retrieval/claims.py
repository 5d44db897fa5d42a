"""Which objects of a spool a retrieval may take (semantics 9 and 11).

A spool is shared: beside what the peer sends us now there may lie what earlier runs left, and what others
sent. An old version of a plan must not be taken for today's. So a retrieval takes what it claimed before,
what arrives at its own receiver, and, of what lies there unclaimed, only what an earlier try of the same
retrieval has asked for in vain. Everything else stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from airflow_provider_varian.receiver.head import DataSetError
from airflow_provider_varian.receiver.spool import Owner, Spool, SpooledObject
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.uids import CHANGING_STORAGE


class Claims:
    """What one retrieval takes from a spool.

    :param spool: the spool.
    :param retrieval_id: who claims.
    :param owner: the writer of the retrieval's own receiver.
    :param earlier: the account of an earlier try of the same retrieval; ``None`` when this is the first.
    """

    def __init__(self, spool: Spool, *, retrieval_id: str, owner: Owner, earlier: Ledger | None) -> None:
        self._spool = spool
        self._id = retrieval_id
        self._owner = owner
        self._asked_before = {entry.sop_instance_uid for entry in earlier.outstanding} if earlier else set()

    def arrived(self, items: Collection[SpooledObject]) -> list[SpooledObject]:
        """Claim objects that the retrieval's own receiver wrote, and no others of the same UIDs."""
        paths = {item.path for item in items}
        return self._claim({item.sop_instance_uid for item in items}, lambda item: item.path in paths)

    def leftovers(self, wanted: Collection[str]) -> list[SpooledObject]:
        """Return what an earlier try claimed, and claim what came too late for it.

        What came too late are unclaimed objects that the earlier try left outstanding. Objects of a class that
        may change under its UID are not among them: nobody can tell how old they are, so the peer is asked again.

        :param wanted: SOP Instance UIDs of what is outstanding now.
        """
        return self._spool.claimed(self._id) + self._claim(self._asked_before.intersection(wanted), _cannot_change)

    def close(self) -> None:
        """End: nothing more is claimed."""
        self._spool.close_claim(self._id)

    def _claim(self, uids: Collection[str], fits: Callable[[SpooledObject], bool]) -> list[SpooledObject]:
        return _Part(self._spool, fits).claim(self._id, uids, owner=self._owner.name) if uids else []


class _Part(Spool):
    """A spool of which some unclaimed objects are seen, and claimed, alone."""

    def __init__(self, spool: Spool, fits: Callable[[SpooledObject], bool]) -> None:
        super().__init__(spool.root)
        self._fits = fits

    def unclaimed(self, uids: Collection[str] | None = None) -> Iterator[SpooledObject]:
        """Iterate over the objects that nobody has claimed and that fit."""
        return (item for item in super().unclaimed(uids) if self._fits(item))


def _cannot_change(item: SpooledObject) -> bool:
    try:
        return item.receipt().sop_class_uid not in CHANGING_STORAGE
    except (DataSetError, OSError):
        return False  # it does not say what it is, or somebody else was faster
