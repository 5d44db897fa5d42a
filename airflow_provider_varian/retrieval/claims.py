"""Which objects of a spool a retrieval may take (semantics 9 and 11).

A spool is shared: beside what the peer sends us now there may lie what earlier runs left, and what others
sent. An old version of a plan must not be taken for today's. So a retrieval takes what it claimed before,
what arrives at its own receiver, and, of what lies there unclaimed, only what an earlier try of the same
retrieval has asked for in vain, unless another one waits for it. Everything else stays where it is. What
arrives at a standing receiver is given out by :mod:`.standing_arrivals`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.receiver.head import DataSetError
from airflow_provider_varian.receiver.spool import Owner, Spool
from airflow_provider_varian.receiver.spooled import SpooledObject
from airflow_provider_varian.retrieval.addressee import was_sent_to
from airflow_provider_varian.retrieval.ledger import Ledger
from airflow_provider_varian.retrieval.wanted import SpoolDocuments, Wanted
from airflow_provider_varian.uids import CHANGING_STORAGE


class Claims:
    """What one retrieval takes from a spool.

    :param spool: the spool.
    :param retrieval_id: who claims.
    :param owner: the writer of the retrieval's own receiver.
    :param peer: who sends, and to which AE title.
    :param earlier: the account of an earlier try of the same retrieval; ``None`` when this is the first.
    """

    def __init__(self, spool: Spool, *, retrieval_id: str, owner: Owner, peer: Peer, earlier: Ledger | None) -> None:
        self._spool = spool
        self._id = retrieval_id
        self._owner = owner
        self._peer = peer
        self._asked_before = {entry.sop_instance_uid for entry in earlier.outstanding} if earlier else set()

    def arrived(self, items: Collection[SpooledObject]) -> list[SpooledObject]:
        """Claim objects that the retrieval's own receiver wrote, and no others of the same UIDs."""
        taken = (self._spool.take(self._id, item) for item in items)
        return [item for item in taken if item is not None]

    def claimed(self) -> list[SpooledObject]:
        """Return what an earlier try claimed and did not come to publish."""
        return self._spool.claimed(self._id)

    def asked_before(self, wanted: Collection[str]) -> set[str]:
        """Return which of these an earlier try has asked for in vain.

        :param wanted: SOP Instance UIDs of what is outstanding now.
        """
        return self._asked_before.intersection(wanted)

    def unclaimed(self, uids: Collection[str]) -> list[SpooledObject]:
        """Claim what came too late for an earlier try.

        Objects of a class that may change under its UID are not among them: nobody can tell how old they are, so the
        peer is asked again. Nor is what was sent to another AE title.

        :param uids: SOP Instance UIDs: :meth:`asked_before`.
        """
        wanted = Wanted(SpoolDocuments(self._spool), self._id, ae_title=self._peer.move_destination)
        others = wanted.others() if uids else []

        def fits(item: SpooledObject) -> bool:
            return not any(want.waits_for(item.sop_instance_uid) for want in others) and self._may_be(item)

        return self._claim(uids, fits)

    def close(self) -> None:
        """End: nothing more is claimed."""
        self._spool.close_claim(self._id)

    def _may_be(self, item: SpooledObject) -> bool:
        """Say whether an object was sent to us, and cannot have changed since."""
        try:
            receipt = item.receipt()
        except (DataSetError, OSError):
            return False  # it does not say what it is, or somebody else was faster
        return was_sent_to(self._peer, receipt) and receipt.sop_class_uid not in CHANGING_STORAGE

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
