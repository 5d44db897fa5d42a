"""What arrives at a shared spool, and is not this retrieval's."""

from __future__ import annotations

from support.archive import rt_image
from support.spooled import receive

from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.query.profile import Profile
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.held import Held
from airflow_provider_varian.retrieval.intake import Intake
from airflow_provider_varian.retrieval.layout import Layout
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.outcome import State
from airflow_provider_varian.retrieval.versions import Versions


def intake_of(ledger, tmp_path):
    destination, layout = Destination(tmp_path / "out"), Layout()
    versions, cancellation = Versions(destination, "if_changed"), Cancellation()
    return Intake(
        Spool(tmp_path / "spool"),
        retrieval_id="r-1",
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
        earlier=None,
        versions=versions,
        on_fetched=lambda: None,
        cancellation=cancellation,
    )


def test_what_nobody_asked_for_is_named_unless_an_earlier_try_filed_it(tmp_path):
    filed, other = rt_image(1), rt_image(2)
    here = Entry(sop_instance_uid=filed.SOPInstanceUID, state=State.VERIFIED, path="a/1.dcm", bytes=10)
    ledger = Ledger([], [here])
    intake = intake_of(ledger, tmp_path)
    try:
        for ds in (filed, other):
            receive(intake.sink, ds)
        intake.take_arrived()
    finally:
        intake.close()
    assert (here.state, here.path, here.reason) == (State.VERIFIED, "a/1.dcm", "")
    left = ledger.unexpected[other.SOPInstanceUID]
    assert (left.state, left.reason) == (State.RECEIVED, "not asked for by this retrieval: left unclaimed in the spool")
    assert len(list(Spool(tmp_path / "spool").unclaimed())) == 2
