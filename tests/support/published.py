"""A standing receiver's spool on "another host", the store to which it publishes, and retrievals that read that."""

from __future__ import annotations

import shutil

from support.shared_spool import PEER, Shared

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.read_store import ReadStore
from airflow_provider_varian.retrieval.store_place import StorePlace
from airflow_provider_varian.retrieval.wanted import StoreDocuments, Wanted


class Published(Shared):
    """A receiver's spool on "another host", its store, and the local spool of the retrievals."""

    def __init__(self, folder):
        super().__init__(folder / "local", self._place, self._wanted)
        self.store = folder / "store"
        self.elsewhere = Spool(folder / "elsewhere")
        self.receiving = SpoolSink(self.elsewhere, standing=True)
        self.own = SpoolSink(self.spool)
        self.cancellation = Cancellation()

    def _place(self, _, name, ledger):
        return StorePlace(
            ReadStore(str(self.store)),
            name="night",
            peer=PEER,
            spool=self.spool,
            owner=self.own.owner,
            retrieval_id=name,
            ledger=ledger,
            cancellation=self.cancellation,
        )

    def _wanted(self, _, name):
        return Wanted(StoreDocuments(Destination(str(self.store))), name, ae_title="AIRFLOW")

    def publish(self, *datasets):
        """Receive objects elsewhere and publish them; return their names."""
        sink, self.sink = self.sink, self.receiving
        self.send(*datasets)
        self.sink = sink
        return publish(self.elsewhere, self.store)

    def claims(self):
        return sorted("/".join(path.parts[-2:]) for path in (self.store / "claims").rglob("*") if path.is_file())


def publish(spool, store):
    """Do what the receiver's publisher does: each object once, under the same name."""
    names = []
    for item in list(spool.unclaimed()):
        target = store / "objects" / item.path.parent.name / item.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".part")
        shutil.copyfile(item.path, partial)
        partial.rename(target)
        item.path.unlink()
        names.append(item.path.name)
    return names
