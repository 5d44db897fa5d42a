"""Objects are filed while the peer is still sending; what goes wrong then ends the request, and nothing is lost."""

from __future__ import annotations

import json
import threading

import pytest
from support.archive import ROOT, Archive
from support.ports import wait_until

from airflow_provider_varian.dimse.association import PeerAssociation
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError, DestinationWriteError
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval import intake, letting_go
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.manifest import Manifest
from airflow_provider_varian.retrieval.outcome import Outcome

SERIES = f"{ROOT}.1.1"


def uid(number):
    return f"{SERIES}.{number}"


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it, and nothing is written after it."""


@pytest.fixture(params=["C-MOVE", "C-MOVE without pending responses", "C-GET"])
def sending(request, clinic, images):
    """Return the clinic with an archive that waits, before it sends the last object, until ``until()`` is true."""
    with Archive(images, get=True) as running:
        clinic.archive = running
        clinic.until = lambda: True
        clinic.waits = []
        running.pending = request.param == "C-MOVE"
        clinic.peer = running.peer(
            receiver_port=clinic.port, retrieve_method="get" if request.param == "C-GET" else "move"
        )

        def wait_at_the_last(ds):
            if ds.SOPInstanceUID == uid(5):
                clinic.waits.append("begun")
                wait_until(clinic.until, seconds=20, what="what is awaited before the last object")
                clinic.waits.append("over")
            return ds

        running.prepare = wait_at_the_last
        yield clinic


def filed(clinic):
    return sorted(path.stem.removeprefix("RTIMAGE.") for path in clinic.root.glob("*/*/*.dcm"))


def in_the_spool(clinic):
    return {path.name.rpartition(".dcm")[0].rpartition(".")[0] for path in clinic.spool.rglob("*.dcm")}


def cancels_seen(monkeypatch):
    """Note each C-CANCEL that is sent."""
    seen, cancel_request = threading.Event(), PeerAssociation.cancel_request

    def cancelling(association):
        seen.set()
        cancel_request(association)

    monkeypatch.setattr(PeerAssociation, "cancel_request", cancelling)
    return seen


def test_what_came_is_filed_while_the_peer_still_sends(sending):
    sending.until = lambda: filed(sending) == [uid(number) for number in range(1, 5)]
    result = sending.run()
    assert (result.outcome, result.counts["verified"], len(filed(sending))) == (Outcome.COMPLETE, 5, 5)
    assert sending.waits == ["begun", "over"], "four were filed before the fifth was sent"
    assert not in_the_spool(sending)


def test_an_error_ends_the_request_and_the_retry_asks_for_what_did_not_come(sending, monkeypatch):
    publish, failed = Destination.publish, threading.Event()

    def failing(destination, source, relative, **more):
        if uid(3) in relative.name:
            failed.set()
            raise DestinationWriteError("the destination is full")
        return publish(destination, source, relative, **more)

    cancelled = cancels_seen(monkeypatch)
    sending.until = cancelled.is_set
    with monkeypatch.context() as patch:
        patch.setattr(Destination, "publish", failing)
        with pytest.raises(DestinationWriteError, match="is full"):
            sending.run()
    assert failed.is_set()
    assert cancelled.is_set(), "the peer was told"
    manifest = json.loads((sending.root / ".dicom" / "r-1.json").read_text())
    assert (manifest["outcome"], manifest["requests"][0]["problem"]) == ("pending", "")
    assert "is full" in manifest["message"]
    here = {*filed(sending), *in_the_spool(sending)}
    assert {uid(1), uid(2), uid(3), uid(4)} <= here
    claimed = {item.sop_instance_uid for item in Spool(sending.spool).claimed("r-1")}
    assert uid(3) in claimed
    sending.archive.sent.clear()
    sending.until = lambda: True
    result = sending.run()
    assert (result.outcome, result.counts["duplicate"]) == (Outcome.COMPLETE, 0)
    assert not set(sending.archive.sent) & here, "what is here is not asked for again"
    assert not in_the_spool(sending)


def test_a_cancellation_files_nothing_more_and_keeps_what_came(sending, monkeypatch):
    cancellation, taken = Cancellation(), []
    take = intake.Intake._take

    def taking(self, item, **more):
        take(self, item, **more)
        taken.append(item.sop_instance_uid)
        if len(taken) == 2:
            cancellation.cancel()

    cancelled = cancels_seen(monkeypatch)
    sending.until = cancelled.is_set
    with monkeypatch.context() as patch:
        patch.setattr(intake.Intake, "_take", taking)
        with pytest.raises(CancelledError):
            sending.run(cancellation=cancellation)
    assert (filed(sending), len(taken)) == (sorted(taken), 2)
    here = {*taken, *in_the_spool(sending)}
    sending.archive.sent.clear()
    sending.until = lambda: True
    assert sending.run().outcome is Outcome.COMPLETE
    assert not set(sending.archive.sent) & set(taken)
    assert here <= set(filed(sending))


def test_a_kill_between_the_new_name_and_the_end_of_the_old_one_leaves_one_object(sending, monkeypatch):
    def dying(spool, item):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "let_go", dying)
        with pytest.raises(Killed):
            sending.run()
    finals = list(sending.root.glob("*/*/*.dcm"))
    names = list((sending.spool / "claimed").glob("*/*.dcm"))
    assert len(finals) == len(names) > 0
    assert {path.stat().st_ino for path in finals} == {path.stat().st_ino for path in names}, "each has two names"
    here = set(filed(sending))
    sending.archive.sent.clear()
    result = sending.run()
    assert (result.outcome, result.counts["duplicate"], result.counts["verified"]) == (Outcome.COMPLETE, 0, 5)
    assert not here & set(sending.archive.sent)
    assert {path.stat().st_nlink for path in sending.root.glob("*/*/*.dcm")} == {1}
    assert not in_the_spool(sending)


def test_the_manifest_is_not_written_more_often_for_a_slow_peer(sending, monkeypatch):
    written, write = [], Manifest.write

    def counting(manifest, destination):
        written.append(manifest)
        write(manifest, destination)

    monkeypatch.setattr(letting_go, "_TOGETHER_SECONDS", 0.0)
    monkeypatch.setattr(intake.Intake, "_is_told_by_the_ledger_alone", lambda *_: True)
    monkeypatch.setattr(Manifest, "write", counting)
    at_last = []

    def four_are_filed():
        at_last[:] = [len(written)]
        return len(filed(sending)) == 4

    sending.until = four_are_filed
    assert sending.run().outcome is Outcome.COMPLETE
    assert at_last == [2], "at the start, and before the transfer"
