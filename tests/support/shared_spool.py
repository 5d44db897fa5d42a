"""A standing writer's spool, and retrievals that share it: objects are put in, and given out, without a network."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from support.spooled import receive

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.receiver.claim_lock import only_try
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.standing_arrivals import StandingArrivals

PEER = Peer(host="127.0.0.1", port=104, called_ae_title="VMSDBD")


@dataclass
class Sharer:
    """One retrieval: its arrivals, its account, and its life."""

    name: str
    arrivals: StandingArrivals
    ledger: Ledger
    life: ExitStack

    def ask(self, *datasets, whole=()):
        """Ask for instances, as a round of one request does."""
        names = [str(ds.SOPInstanceUID) for ds in datasets]
        self.arrivals.announce(names, whole)
        self.arrivals.asking(names)
        return self

    def look(self):
        """Take what has come; return the UIDs, and account for them as a transfer does."""
        self.arrivals._look_ended = float("-inf")  # the next look is due
        taken = [item.sop_instance_uid for item in self.arrivals.take()]
        for uid in taken:
            self.ledger.entry_for(uid).state = State.VERIFIED
        if taken:
            self.arrivals._tell()
        return taken

    def die(self):
        """Be killed: nothing is said any more, and the lock is free."""
        self.life.close()

    def end(self):
        """Come to an end."""
        self.arrivals.stop()
        self.life.close()


class Shared:
    """The spool; ``place_of(name, ledger)`` makes the place that a retrieval looks at."""

    def __init__(self, root, place_of, wanted_of):
        self.spool = Spool(root)
        self.sink = SpoolSink(self.spool, standing=True)
        self._place_of = place_of
        self._wanted_of = wanted_of
        self._lives = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for life in self._lives:
            life.close()
        self.sink.close()

    def send(self, *datasets, **hints):
        for ds in datasets:
            receive(self.sink, ds, **hints)

    def sharer(self, name, *datasets):
        """Let a retrieval begin that expects these."""
        ledger = Ledger(
            Entry(sop_instance_uid=str(ds.SOPInstanceUID), sop_class_uid=str(ds.SOPClassUID)) for ds in datasets
        )
        life = ExitStack()
        life.enter_context(only_try(self.spool, name, cancellation=Cancellation(), wait_seconds=0.0))
        self._lives.append(life)
        arrivals = StandingArrivals(
            self._place_of(self, name, ledger), self._wanted_of(self, name), ledger=ledger, peer=PEER
        )
        return Sharer(name, arrivals, ledger, life)

    def unclaimed(self):
        return [item.sop_instance_uid for item in self.spool.unclaimed()]
