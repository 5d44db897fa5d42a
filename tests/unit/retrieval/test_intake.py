"""What arrives at a shared spool, and is not this retrieval's."""

from __future__ import annotations

from support.archive import rt_image
from support.spooled import receive

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.dimse.peer import Peer
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval.arrivals import InTaskArrivals
from airflow_provider_varian.retrieval.claims import Claims
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.held import Held
from airflow_provider_varian.retrieval.intake import Intake
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.reception import Reception
from airflow_provider_varian.retrieval.versions import Versions


def intake_of(ledger, tmp_path):
    destination, layout = Destination(tmp_path / "out"), Layout()
    versions, cancellation = Versions(destination, "if_changed"), Cancellation()
    reception = Reception(Spool(tmp_path / "spool"))
    peer = Peer(host="127.0.0.1", port=104, called_ae_title="VMSDBD")
    claims = Claims(reception.spool, retrieval_id="r-1", owner=reception.owner, peer=peer, earlier=None)
    intake = Intake(
        reception,
        claims=claims,
        arrivals=InTaskArrivals(peer, reception, claims, wait_seconds=0.0, cancellation=cancellation),
        ledger=ledger,
        destination=destination,
        layout=layout,
        profile=Profile(name="plain"),
        held=Held(
            ledger=ledger,
            destination=destination,
            layout=layout,
            known={},
            earlier=None,
            versions=versions,
            cancellation=cancellation,
        ),
        versions=versions,
        on_fetched=lambda: None,
        cancellation=cancellation,
    )
    return reception, intake


def test_what_nobody_asked_for_is_named_unless_an_earlier_try_filed_it(tmp_path):
    filed, other = rt_image(1), rt_image(2)
    here = Entry(sop_instance_uid=filed.SOPInstanceUID, state=State.VERIFIED, path="a/1.dcm", bytes=10)
    ledger = Ledger([], [here])
    reception, intake = intake_of(ledger, tmp_path)
    try:
        for ds in (filed, other):
            receive(reception.sink, ds)
        intake.take_arrived()
    finally:
        intake.close()
    assert (here.state, here.path, here.reason) == (State.VERIFIED, "a/1.dcm", "")
    left = ledger.unexpected[other.SOPInstanceUID]
    assert (left.state, left.reason) == (State.RECEIVED, "not asked for by this retrieval: left unclaimed in the spool")
    assert len(list(Spool(tmp_path / "spool").unclaimed())) == 2
