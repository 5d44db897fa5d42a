"""What comes unasked: when it counts, whose it is, and how long it is told of."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pydicom
import pytest
from pynetdicom import evt
from support.archive import ROOT, Archive, rt_image, sendable
from support.ports import free_port

from airflow_provider_varian import uids
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.retrieval.conflicts import conflict_path
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.earlier import still_unexpected
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.transfer import Transfer

SERIES = f"{ROOT}.1.1"
UNASKED = f"{SERIES}.9"


@pytest.fixture
def clinic(clinic):
    """The same, after a run in which an object came that no list named."""
    run = clinic.run
    clinic.run = lambda request=None, **settings: run(request, **({"settle_seconds": 0.05} | settings))
    return clinic


def plan(label):
    made = {"RTPlanLabel": label, "RTPlanDate": f"2026010{label}", "RTPlanTime": "101500", "ApprovalStatus": "APPROVED"}
    return rt_image(9, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN", **made)


def one_comes_unasked(clinic, ds):
    """Run once; return where the object that came unasked is held."""
    clinic.archive.extra = [ds]
    result = clinic.run()
    clinic.archive.extra = []
    return clinic.root / result.manifest.ledger.unexpected[UNASKED].path


def list_late(clinic, ds):
    """Let the next run have something to ask for, and the peer list an object once it is asked."""
    fresh = rt_image(6)
    clinic.archive.instances[fresh.SOPInstanceUID] = fresh
    clinic.archive.on_move = lambda: clinic.archive.instances.setdefault(UNASKED, ds)


def test_what_came_unasked_in_an_earlier_run_and_is_gone_is_asked_for_when_it_is_listed(clinic):
    held = one_comes_unasked(clinic, rt_image(9))
    held.unlink()
    list_late(clinic, rt_image(9))
    result = clinic.run()
    assert (result.outcome, result.counts["found"]) == (Outcome.COMPLETE, 7)
    assert held.exists()


def test_what_came_unasked_in_an_earlier_run_and_changed_is_fetched_anew(clinic):
    held = one_comes_unasked(clinic, plan("1"))
    list_late(clinic, plan("2"))
    result = clinic.run()
    assert result.outcome is Outcome.COMPLETE
    assert pydicom.dcmread(held).RTPlanLabel == "2"


def test_what_is_listed_by_now_is_no_longer_unexpected(clinic):
    one_comes_unasked(clinic, rt_image(9))
    clinic.archive.instances[UNASKED] = rt_image(9)
    result = clinic.run()
    assert (result.counts["found"], result.counts["held"], result.counts["unexpected"]) == (6, 6, 0)


def test_what_came_unasked_is_told_of_again_while_it_is_there(clinic):
    held = one_comes_unasked(clinic, rt_image(9))
    assert list(clinic.run().manifest.ledger.unexpected) == [UNASKED]
    held.write_bytes(b"something else")
    assert clinic.run().counts["unexpected"] == 0


def test_only_what_is_still_true_is_told_of_again(tmp_path):
    destination, spool = Destination(tmp_path / "out"), Spool(tmp_path / "spool")
    path = PurePosixPath("1.2.dcm")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / path).write_bytes(b"12345")
    other = conflict_path(path, "ab" * 32)
    (spool.broken / "1.4.0123456789abcdef.dcm").write_bytes(b"")

    def told(**settings):
        entries = [
            Entry(
                sop_instance_uid="1.2",
                state=State.CONFLICT,
                path=str(path),
                bytes=5,
                conflicts=[str(other)],
                reason="same SOP Instance UID, other content",
                fetched=True,
            ),
            Entry(sop_instance_uid="1.3", state=State.RECEIVED),
            Entry(sop_instance_uid="1.4", state=State.FAILED),
            Entry(sop_instance_uid="1.5", state=State.VERIFIED, path="1.5.dcm", bytes=5),
        ]
        return still_unexpected(Ledger(unexpected=entries), destination=destination, **settings)

    kept = told(spool=spool)
    assert list(kept) == ["1.2", "1.4"]
    # The other content was removed by a person.
    assert kept["1.2"] == Entry(sop_instance_uid="1.2", state=State.VERIFIED, path=str(path), bytes=5)
    assert list(told(spool=None)) == ["1.2", "1.3", "1.4"]
    (tmp_path / "out" / other).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / other).write_bytes(b"1")
    assert told(spool=spool)["1.2"].state is State.CONFLICT


def test_what_a_receiver_gets_during_a_get_is_not_taken_for_ours(clinic, monkeypatch):
    """After a kill the receiver listens for stragglers while C-GET runs; the peer sends it another's object."""

    class KilledError(BaseException):
        pass

    def killed(*_, **__):
        raise KilledError

    stranger = rt_image(1, study=f"{ROOT}.77", series=f"{ROOT}.77.1", patient="OTHER")
    ours = rt_image(7, study=f"{ROOT}.78", series=f"{ROOT}.78.1")
    with Archive([rt_image(1), rt_image(2)], get=True) as archive:
        peer = archive.peer(receiver_port=free_port(), retrieve_method="auto")
        with monkeypatch.context() as patch:
            patch.setattr(Transfer, "run", killed)
            with pytest.raises(KilledError):
                clinic.run(peer=peer)

        def prepare(ds):
            archive.prepare = lambda ds: ds
            archive.store([stranger])
            return sendable(ours)

        archive.prepare = prepare
        result = clinic.run(peer=peer)
    assert archive.answers == [0x0000]
    unexpected = result.manifest.ledger.unexpected
    assert unexpected[stranger.SOPInstanceUID].state is State.RECEIVED
    assert {item.sop_instance_uid for item in Spool(clinic.spool).unclaimed()} == {stranger.SOPInstanceUID}
    # What comes over our own association is ours, asked for or not.
    assert unexpected[ours.SOPInstanceUID].state is State.VERIFIED


# Said


def leave_out(clinic, *numbers):
    """Let the peer's lists leave out instances that it sends all the same."""
    left_out = {f"{SERIES}.{number}" for number in numbers}
    find = clinic.archive._find

    def forgetful(event):
        return ((status, ds) for status, ds in find(event) if ds is None or ds.SOPInstanceUID not in left_out)

    clinic.archive._server.bind(evt.EVT_C_FIND, forgetful)


def test_that_the_list_leaves_out_what_came_is_said(clinic):
    leave_out(clinic, 4, 5)
    result = clinic.run()
    assert (result.outcome, result.counts["found"], result.counts["verified"]) == (Outcome.COMPLETE, 3, 3)
    assert [str(entry.state) for entry in result.manifest.ledger.unexpected.values()] == ["verified", "verified"]
    (warning,) = json.loads((clinic.root / ".dicom" / "r-1.json").read_text())["warnings"]
    assert warning.startswith("2 instances came that the peer does not list, so its list may leave out others")
    assert warning.endswith("say how many there should be (minimum)")


def test_a_stranger_says_nothing_about_the_list(clinic):
    clinic.archive.extra = [rt_image(1, study=f"{ROOT}.77", series=f"{ROOT}.77.1")]
    result = clinic.run()
    assert (result.counts["unexpected"], result.manifest.warnings) == (1, [])
