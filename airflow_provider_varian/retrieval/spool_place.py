"""The spool of a standing receiver on this host: copies are found in its folders, and claimed by a rename."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.errors import ConfigurationError, ReceiverUnavailableError
from airflow_provider_varian.receiver.file_meta import read_front
from airflow_provider_varian.receiver.head import DataSetError, Head
from airflow_provider_varian.receiver.listed import ListedFolders
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spooled import SpooledObject
from airflow_provider_varian.retrieval.addressee import was_sent_to
from airflow_provider_varian.retrieval.standing_place import Copy
from airflow_provider_varian.uids import CHANGING_STORAGE

#: How long a receiver that is not there is waited for: it may be starting again.
_START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05


class SpoolPlace:
    """A standing receiver's spool.

    :param spool: the spool, which is the retrieval's own too.
    :param name: what the receiver is called.
    :param peer: who sends, and to which AE title: what was sent to another is not seen.
    :param retrieval_id: who claims.
    :param owner: the name of the retrieval's own writer, whose objects come another way.
    :param wait_seconds: how long to wait for a receiver that is not running, at most.
    :param cancellation: ends the wait.
    """

    look_seconds = _LOOK_SECONDS
    lag_seconds = 0.0
    unseen_seconds = 0.0
    skew_seconds = 0.0
    #: What was received is to be seen at once.
    progress = None

    def __init__(
        self,
        spool: Spool,
        *,
        name: str,
        peer: Peer,
        retrieval_id: str,
        owner: str,
        wait_seconds: float,
        cancellation: Cancellation,
    ) -> None:
        self._spool = spool
        self._name = name
        self._peer = peer
        self._id = retrieval_id
        self._owner = owner
        self._wait_seconds = min(wait_seconds, _START_SECONDS)
        self._cancellation = cancellation
        self._listed = ListedFolders(spool)
        #: What each object says that it is, as far as it was sent to us.
        self._heads: dict[str, Head | None] = {}

    @property
    def where(self) -> str:
        """What it is called in messages."""
        return f"the standing receiver {self._name!r}"

    def open(self) -> None:
        """See that a receiver is running; see :class:`.standing_arrivals.Place`."""
        end = time.monotonic() + self._wait_seconds
        while not self._spool.has_standing():
            if time.monotonic() >= end:
                raise ReceiverUnavailableError(
                    f"no receiver is running on {self._spool.root}, the spool of {self.where}",
                    step="receiver",
                    hint=f"Start it here (varian-dicom receive --spool {self._spool.root}), or look into its log",
                )
            self.pause(0.25)
        if self._peer.tls is not None and self._spool.has_standing_in_clear():
            raise ConfigurationError(
                f"TLS is on, and {self.where} takes what comes in clear text too",
                peer=self._peer.name,
                step="receiver",
                hint="Start it with --tls-certificate and --tls-private-key. One that takes clear text, for another "
                "peer, needs a spool of its own",
            )

    def copies(self, uids: Collection[str], whole: Collection[str]) -> Iterable[Copy]:
        """Look; of series and studies that are asked for as a whole what nobody listed is found too."""
        shards = self._spool.new.iterdir() if whole else {self._spool.shard(uid) for uid in uids}
        free: dict[str, bool] = {}
        for item in [item for shard in shards for item in self._listed.objects_in(shard)]:
            is_expected = item.sop_instance_uid in uids
            if item.owner == self._owner or not (is_expected or whole):
                continue
            if item.owner not in free:
                free[item.owner] = self._spool.may_claim(item)
            if free[item.owner] and (copy := self._copy(item)) is not None:
                if is_expected:
                    yield replace(copy, parents=frozenset())
                elif not copy.parents.isdisjoint(whole):
                    yield copy

    def arriving(self) -> Iterable[str]:
        """Return what is being received; see :class:`.standing_arrivals.Place`."""
        return [receipt.sop_instance_uid for receipt in self._spool.arriving() if was_sent_to(self._peer, receipt)]

    def pause(self, seconds: float) -> None:
        """Wait; see :class:`.standing_arrivals.Place`."""
        self._cancellation.pause(seconds)

    def bring(self, copy: Copy) -> SpooledObject | None:
        """Claim a copy by a rename; see :class:`.standing_arrivals.Place`."""
        folder = self._spool.shard(copy.sop_instance_uid)
        item = SpooledObject(place=str(folder / copy.name), sop_instance_uid=copy.sop_instance_uid)
        return self._spool.take(self._id, item, durably=True)

    def resume(self) -> None:
        """Nothing is left to do: a claim is one rename."""

    def _copy(self, item: SpooledObject) -> Copy | None:
        name = item.path.name
        if name not in self._heads:
            self._heads[name] = self._head(item.path)
        head = self._heads[name]
        if head is None or item.begun is None:
            return None
        return Copy(
            name=name,
            sop_instance_uid=item.sop_instance_uid,
            begun=item.begun,
            may_change=head.sop_class_uid in CHANGING_STORAGE,
            parents=frozenset(uid for uid in (head.study_instance_uid, head.series_instance_uid) if uid),
        )

    def _head(self, path: Path) -> Head | None:
        """Read what an object says that it is; ``None`` when it does not, was not sent to us, or is gone."""
        try:
            with path.open("rb") as file:
                meta, head = read_front(file)
        except (DataSetError, OSError):
            return None
        return head if was_sent_to(self._peer, meta) else None
