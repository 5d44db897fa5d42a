"""What a retry keeps of the earlier try, takes from the spool, and leaves there."""

from __future__ import annotations

import json

import pydicom
import pytest
from pynetdicom import evt
from support.archive import ROOT, Archive, rt_image
from support.spooled import receive

from airflow_provider_varian import uids
from airflow_provider_varian.dimse.cancellation import Cancellation
from airflow_provider_varian.errors import CancelledError
from airflow_provider_varian.query.level import Level
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval import held, intake
from airflow_provider_varian.retrieval.claims import Claims
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.ledger import Entry, Ledger
from airflow_provider_varian.retrieval.manifest import Manifest, load_manifest
from airflow_provider_varian.retrieval.outcome import Outcome, State
from airflow_provider_varian.retrieval.request import RetrievalRequest
from airflow_provider_varian.retrieval.selection import select

SERIES = f"{ROOT}.1.1"


@pytest.fixture
def clinic(clinic):
    """The same, with little patience for what never comes."""
    run = clinic.run
    clinic.run = lambda request=None, **settings: run(request, **({"settle_seconds": 0.05} | settings))
    return clinic


def uid(number):
    return f"{SERIES}.{number}"


def filed(clinic):
    return sorted(path for path in clinic.root.rglob("*.dcm") if ".dicom" not in path.parts)


def manifest_of(clinic):
    return json.loads((clinic.root / ".dicom" / "r-1.json").read_text())


def states(result):
    return {entry.sop_instance_uid: str(entry.state) for entry in result.manifest.ledger.entries.values()}


def list_nothing(clinic):
    """The peer's lists are empty from now on; what is asked for by name comes all the same."""

    def find(event):
        yield 0x0000, None

    clinic.archive._server.bind(evt.EVT_C_FIND, find)


# What an earlier try found


def test_a_selection_that_shrinks_does_not_forget_what_did_not_come(clinic):
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(3)
    clinic.run(clinic.images(1, 2, 3))
    result = clinic.run(clinic.images(1, 2))
    assert result.outcome is Outcome.PARTIAL
    assert states(result) == {uid(1): "verified", uid(2): "verified", uid(3): "missing"}
    clinic.archive.delivers = lambda level, uid_: True
    clinic.archive.sent.clear()
    result = clinic.run(clinic.images(1, 2))
    assert (result.outcome, clinic.archive.sent) == (Outcome.COMPLETE, [uid(3)])


def selected(clinic, level):
    keys = {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"}
    return select(clinic.peer, level, keys, profile=clinic.profile)


@pytest.mark.parametrize("level", ["IMAGE", "SERIES", "STUDY"])
def test_a_selection_that_finds_nothing_any_more_is_not_empty_while_something_is_outstanding(clinic, level):
    clinic.archive.delivers = lambda _, uid_: uid_ != uid(3)
    assert clinic.run(selected(clinic, level)).outcome is Outcome.PARTIAL
    list_nothing(clinic)
    request = selected(clinic, level)
    assert request.expected == ()
    result = clinic.run(request)
    assert result.outcome is Outcome.PARTIAL
    assert result.counts | {"found": 5, "verified": 4, "held": 4, "missing": 1} == result.counts
    clinic.archive.delivers = lambda _, uid_: True
    assert clinic.run(selected(clinic, level)).outcome is Outcome.COMPLETE
    assert clinic.run(selected(clinic, level)).outcome is Outcome.EMPTY


@pytest.mark.parametrize("level", ["IMAGE", "SERIES", "STUDY"])
def test_what_was_found_once_and_is_not_listed_any_more_is_asked_for_by_name(clinic, level):
    clinic.archive.delivers = lambda _, uid_: False
    assert clinic.run(selected(clinic, level)).counts["missing"] == 5
    list_nothing(clinic)
    clinic.archive.delivers = lambda _, uid_: True
    assert clinic.run(selected(clinic, level)).outcome is Outcome.COMPLETE
    assert manifest_of(clinic)["request"]["level"] == level


def test_a_killed_try_is_not_forgotten_by_an_empty_list(clinic):
    cancellation = Cancellation()
    clinic.archive.on_move = cancellation.cancel
    clinic.archive.delivers = lambda level, uid_: False
    with pytest.raises(CancelledError):
        clinic.run(clinic.images(1, 2), cancellation=cancellation)
    result = clinic.run(clinic.images())
    assert result.outcome is Outcome.PARTIAL
    assert set(states(result)) == {uid(1), uid(2)}


def test_what_is_kept_is_said_with_how_to_end_it(clinic):
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(3)
    clinic.run(clinic.images(1, 2, 3))
    result = clinic.run(clinic.images(1, 2))
    manifest = clinic.root / ".dicom" / "r-1.json"
    (warning,) = result.manifest.warnings
    assert warning.startswith("1 instances that an earlier try found are not listed by the peer any more")
    assert f"remove {manifest}" in warning
    manifest.unlink()
    result = clinic.run(clinic.images(1, 2))
    assert (result.outcome, result.counts["held"]) == (Outcome.COMPLETE, 2)


def test_another_retrieval_keeps_nothing_of_this_one(clinic):
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(3)
    clinic.run(clinic.images(1, 2, 3))
    assert clinic.run(clinic.images(1, 2), retrieval_id="r-2").outcome is Outcome.COMPLETE


def test_a_patients_retrieval_is_compared_too(clinic):
    request = RetrievalRequest(level=Level.PATIENT, keys={"PatientID": "QA_TB_WL"})
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(3)
    clinic.run(request)
    list_nothing(clinic)
    result = clinic.run(request)
    assert (result.outcome, states(result)[uid(3)]) == (Outcome.PARTIAL, "missing")


def test_with_a_limit_a_retry_brings_what_is_missing_and_no_others(clinic):
    clinic.archive.delivers = lambda level, uid_: uid_ != uid(2)
    clinic.run(clinic.images(1, 2, limit=2, limited=True))
    clinic.archive.sent.clear()
    result = clinic.run(clinic.images(1, 3, limit=2, limited=True))
    assert (result.outcome, clinic.archive.sent) == (Outcome.PARTIAL, [])
    assert states(result) == {uid(1): "verified", uid(2): "missing"}
    clinic.archive.delivers = lambda level, uid_: True
    result = clinic.run(clinic.images(1, limit=2))
    assert (result.outcome, clinic.archive.sent) == (Outcome.LIMITED, [uid(2)])
    assert result.manifest.warnings == []


# What is held


def spoil(clinic):
    """Change a file of image 1 without changing its size."""
    (path,) = [path for path in filed(clinic) if path.name.endswith(f"{uid(1)}.dcm")]
    path.write_bytes(path.read_bytes()[:-2] + b"!!")


@pytest.mark.parametrize("outcome", [Outcome.PENDING, Outcome.PARTIAL])
@pytest.mark.parametrize(("verify", "noticed"), [(None, True), ("hash", True), ("path", False)])
def test_a_retry_after_an_unfinished_try_verifies_by_hash_unless_told_otherwise(clinic, outcome, verify, noticed):
    clinic.run(clinic.images(1, 2))
    manifest = load_manifest(Destination(clinic.root), "r-1")
    manifest.outcome = outcome
    manifest.write(Destination(clinic.root))
    spoil(clinic)
    result = clinic.run(clinic.images(1, 2), verify=verify)
    assert (result.counts["held"], result.counts["conflict"]) == ((1, 1) if noticed else (2, 0))


def killed_before_it_said_so(clinic):
    """Let the manifest be as a killed try leaves it whose last objects came after it was written."""
    manifest = load_manifest(Destination(clinic.root), "r-1")
    manifest.outcome = Outcome.PENDING
    manifest.ledger.entries = {name: entry.anew() for name, entry in manifest.ledger.entries.items()}
    manifest.write(Destination(clinic.root))


def test_what_a_killed_try_published_and_did_not_write_down_is_inspected_and_hashed(clinic):
    first = clinic.run(clinic.images(1, 2)).manifest.ledger.entries
    killed_before_it_said_so(clinic)
    clinic.archive.sent.clear()
    result = clinic.run(clinic.images(1, 2))
    assert (result.outcome, result.counts["held"], clinic.archive.sent) == (Outcome.COMPLETE, 2, [])
    for name, entry in result.manifest.ledger.entries.items():
        told = (entry.sha256, entry.sha256_data_set, entry.transfer_syntax_uid, entry.bytes)
        assert told == (first[name].sha256, first[name].sha256_data_set, "1.2.840.10008.1.2", first[name].bytes)


@pytest.mark.parametrize("damage", ["cut", "another object"])
def test_what_no_manifest_has_hashed_is_held_on_a_resume_only_if_it_is_whole(clinic, damage):
    clinic.run(clinic.images(1, 2))
    killed_before_it_said_so(clinic)
    one, two = (next(path for path in filed(clinic) if path.name.endswith(f"{uid(n)}.dcm")) for n in (1, 2))
    one.write_bytes(one.read_bytes()[:-10] if damage == "cut" else two.read_bytes())
    clinic.archive.sent.clear()
    result = clinic.run(clinic.images(1, 2))
    assert (result.outcome, result.counts["held"], clinic.archive.sent) == (Outcome.PARTIAL, 1, [uid(1)])
    # What lies there is nobody's to remove: both are kept, and named.
    assert result.manifest.ledger.entries[uid(1)].state is State.CONFLICT


@pytest.mark.parametrize(("verify", "noticed"), [(None, False), ("hash", True), ("path", False)])
def test_a_rerun_of_a_finished_try_looks_at_paths_unless_told_otherwise(clinic, verify, noticed):
    clinic.run(clinic.images(1, 2))
    spoil(clinic)
    result = clinic.run(clinic.images(1, 2), verify=verify)
    assert (result.counts["held"], result.counts["conflict"]) == ((1, 1) if noticed else (2, 0))


# What lies in the spool


def leave(clinic, ds):
    """Leave an object unclaimed in the spool, as an earlier receiver did."""
    with SpoolSink(Spool(clinic.spool)) as sink:
        receive(sink, ds)


def old(number, **attributes):
    return rt_image(number, PixelData=b"\7" * 512, **attributes)


def unclaimed(clinic):
    return [item.sop_instance_uid for item in Spool(clinic.spool).unclaimed()]


def earlier_try(clinic, *entries, outcome=Outcome.PENDING):
    request = clinic.images(1).summary()
    Manifest(id="r-1", request=request, ledger=Ledger(entries), outcome=outcome).write(Destination(clinic.root))


def test_a_first_try_takes_nothing_that_lies_unclaimed(clinic):
    leave(clinic, old(1))
    result = clinic.run(clinic.images(1))
    assert (result.outcome, clinic.archive.sent) == (Outcome.COMPLETE, [uid(1)])
    (path,) = filed(clinic)
    assert pydicom.dcmread(path).PixelData == bytes([1]) * 512
    assert unclaimed(clinic) == [uid(1)]


@pytest.mark.parametrize("outcome", [Outcome.PENDING, Outcome.PARTIAL])
def test_a_retry_takes_what_came_too_late_for_the_earlier_try(clinic, outcome):
    leave(clinic, rt_image(1))
    earlier_try(clinic, Entry(sop_instance_uid=uid(1), state=State.MISSING), outcome=outcome)
    result = clinic.run(clinic.images(1))
    assert (result.outcome, clinic.archive.requests) == (Outcome.COMPLETE, [])
    assert unclaimed(clinic) == []


def test_a_retry_leaves_what_the_earlier_try_did_not_miss(clinic):
    leave(clinic, old(1))
    leave(clinic, old(2))
    earlier_try(clinic, Entry(sop_instance_uid=uid(1), state=State.VERIFIED, path="gone.dcm"))
    result = clinic.run(clinic.images(1, 2))
    assert (result.outcome, sorted(clinic.archive.sent)) == (Outcome.COMPLETE, [uid(1), uid(2)])
    assert sorted(unclaimed(clinic)) == [uid(1), uid(2)]


def test_an_old_plan_is_never_taken_for_todays(clinic):
    plan = rt_image(1, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN")
    clinic.archive.instances = {uid(1): plan}
    leave(clinic, old(1, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN"))
    earlier_try(clinic, Entry(sop_instance_uid=uid(1), state=State.MISSING))
    result = clinic.run(clinic.images(1))
    assert (result.outcome, clinic.archive.sent) == (Outcome.COMPLETE, [uid(1)])
    (path,) = filed(clinic)
    assert pydicom.dcmread(path).PixelData == plan.PixelData
    assert unclaimed(clinic) == [uid(1)]


@pytest.mark.parametrize(
    ("sop_class_uid", "taken"),
    [
        (uids.RT_PLAN, False),
        (uids.RT_ION_PLAN, False),
        (uids.RT_STRUCTURE_SET, False),
        (uids.RT_DOSE, False),
        (uids.VARIAN_HALCYON_RT_PLAN, False),
        (uids.RT_IMAGE, True),
        (uids.CT_IMAGE, True),
        (uids.RT_BEAMS_TREATMENT_RECORD, True),
    ],
)
def test_objects_that_may_change_are_not_taken_unclaimed(clinic, sop_class_uid, taken):
    leave(clinic, rt_image(1, SOPClassUID=sop_class_uid))
    with SpoolSink(Spool(clinic.spool)) as sink:
        earlier = Ledger([Entry(sop_instance_uid=uid(1))])
        claims = Claims(sink.spool, retrieval_id="r", owner=sink.owner, peer=clinic.peer, earlier=earlier)
        wanted = claims.asked_before({uid(1), uid(2)})
        assert wanted == {uid(1)}
        assert [item.sop_instance_uid for item in claims.unclaimed(wanted)] == [uid(1)] * taken
    assert unclaimed(clinic) == [uid(1)] * (not taken)


def test_what_does_not_say_what_it_is_stays_unclaimed(clinic):
    leave(clinic, rt_image(1))
    (item,) = Spool(clinic.spool).unclaimed()
    item.path.write_bytes(b"no receipt")
    earlier_try(clinic, Entry(sop_instance_uid=uid(1)))
    assert clinic.run(clinic.images(1)).outcome is Outcome.COMPLETE
    assert item.path.read_bytes() == b"no receipt"


# Cancelled


@pytest.fixture
def getting(clinic):
    """Plans, which a retry takes from the spool only if they were claimed, and a C-GET, after which all are there."""
    plans = [rt_image(number, SOPClassUID=uids.RT_PLAN, Modality="RTPLAN") for number in (1, 2, 3)]
    with Archive(plans, get=True) as running:
        clinic.archive = running
        clinic.peer = running.peer(retrieve_method="get")
        yield clinic


@pytest.fixture
def cancelled_by_first_object(monkeypatch):
    """Return a cancellation that comes while the first object is inspected, all being here, and not in a retry."""
    cancellation = Cancellation()
    inspect = intake.inspect

    def cancelling(path, *keywords):
        cancellation.cancel()
        return inspect(path, *keywords)

    monkeypatch.setattr(intake.Intake, "take_meanwhile", lambda intake: False)
    monkeypatch.setattr(intake, "inspect", cancelling)
    return cancellation


def claimed(clinic):
    return [item.sop_instance_uid for item in Spool(clinic.spool).claimed("r-1")]


def test_a_cancellation_ends_the_intake_between_two_objects_and_the_retry_takes_the_rest(
    getting, cancelled_by_first_object
):
    with pytest.raises(CancelledError):
        getting.run(cancellation=cancelled_by_first_object)
    (first,) = [path.name.removeprefix("RTPLAN.").removesuffix(".dcm") for path in filed(getting)]
    assert sorted([first, *claimed(getting)]) == [uid(1), uid(2), uid(3)]
    assert unclaimed(getting) == []
    assert load_manifest(Destination(getting.root), "r-1").outcome is Outcome.PENDING
    asked = len(getting.archive.requests)
    result = getting.run()
    assert (result.outcome, len(getting.archive.requests)) == (Outcome.COMPLETE, asked)
    assert claimed(getting) == []


def test_what_arrived_before_a_cancellation_is_claimed_for_the_retry(getting, monkeypatch):
    cancellation = Cancellation()
    prepared = []

    def cancel_at_the_second(ds):
        prepared.append(ds)
        if len(prepared) == 2:
            cancellation.cancel()
        return ds

    getting.archive.prepare = cancel_at_the_second
    monkeypatch.setattr(intake.Intake, "take_meanwhile", lambda intake: False)
    with pytest.raises(CancelledError):
        getting.run(cancellation=cancellation)
    assert filed(getting) == []
    assert unclaimed(getting) == []
    before = claimed(getting)
    assert uid(1) in before
    getting.archive.sent.clear()
    assert getting.run().outcome is Outcome.COMPLETE
    assert not set(before) & set(getting.archive.sent)


def test_a_cancellation_among_leftovers_leaves_them_claimed(getting, cancelled_by_first_object):
    for ds in getting.archive.instances.values():
        leave(getting, ds)
    Spool(getting.spool).claim("r-1", list(getting.archive.instances))
    with pytest.raises(CancelledError):
        getting.run(cancellation=cancelled_by_first_object)
    (first,) = [path.name.removeprefix("RTPLAN.").removesuffix(".dcm") for path in filed(getting)]
    assert sorted([first, *claimed(getting)]) == [uid(1), uid(2), uid(3)]
    assert getting.run().outcome is Outcome.COMPLETE
    assert getting.archive.requests == []


def test_a_cancellation_ends_the_look_at_what_is_held(clinic, monkeypatch):
    clinic.run()
    cancellation = Cancellation()
    hashed = []

    def hash_and_cancel(path):
        hashed.append(path)
        cancellation.cancel()
        return ""

    monkeypatch.setattr(held, "sha256_of", hash_and_cancel)
    with pytest.raises(CancelledError):
        clinic.run(verify="hash", cancellation=cancellation)
    assert len(set(hashed)) == 1
    assert manifest_of(clinic)["outcome"] == "pending"
