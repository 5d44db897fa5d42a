"""Late objects of a C-MOVE to a standing receiver: the triggerer waits for them, and the operator goes on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from support.deferring import deferred, fired, going_on
from support.identifiers import forms_of, found_in
from support.quiet import AFTER, BEFORE, QUIET, WITHIN, Clock
from support.spooled import receive
from support.third_party import FilingStation

from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.manifest_xcom import MANIFEST_KEY
from airflow_provider_varian.operators.retrieve import DicomRetrieveOperator
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.spool_sink import SpoolSink
from airflow_provider_varian.retrieval import settling
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.waiting import Try, Waiting

PATIENT = "QA_TB_WL"
PLANS = {"PatientID": PATIENT, "Modality": "RTPLAN"}
COUNT = 6
#: Longer than a busy machine takes to come to the wait.
SETTLE = 5.0


@pytest.fixture
def post(daemon):
    """Who takes what the daemon sends to AIRFLOW, and keeps it back: it comes to the receiver when a test says so."""
    with FilingStation(ae_title="AIRFLOW") as station:
        station.kept = []
        station.on_store = station.kept.append
        host, port = station.address
        daemon.trust([TrustedEntity(ae_title="AIRFLOW", host=host, port=port)])
        yield station


@pytest.fixture
def sink(tmp_path, monkeypatch):
    """The spool of a standing receiver that runs."""
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", json.dumps({"night": str(tmp_path / "standing")}))
    made = SpoolSink(Spool(tmp_path / "standing"), standing=True)
    yield made
    made.close()


@pytest.fixture
def standing(daemon, post, sink, connect, monkeypatch):
    """A connection with a standing receiver, where each wait is long enough to be left to the triggerer."""
    monkeypatch.setattr(settling, "WORTH_SECONDS", 0.1)
    return connect(
        "standing",
        port=daemon.address[1],
        receiver="night",
        profile_overrides={"settle_seconds": SETTLE, "stable_interval_seconds": 0.01},
        **QUIET,
    )


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    return Clock(monkeypatch, BEFORE)


@pytest.fixture
def made(standing):
    def make(**settings):
        about = {"task_id": "r", "dicom_conn_id": standing, "keys": PLANS, "deferrable": True, "on_partial": "accept"}
        return DicomRetrieveOperator(**about | settings)

    return make


@pytest.fixture
def series(standing):
    """The keys of a series of images, and how many those are."""
    hook = DicomHook(standing)
    answers = hook.find("IMAGE", {"PatientID": PATIENT, "Modality": "RTIMAGE"}).answers
    counts = Counter(str(answer["SeriesInstanceUID"]) for answer in answers)
    uid = min((uid for uid, count in counts.items() if count > 1), key=lambda uid: counts[uid])
    return {"SeriesInstanceUID": uid}, counts[uid]


def come(sink, post, count=None):
    """Let objects come to the receiver that the daemon has sent."""
    for _ in range(len(post.kept) if count is None else count):
        receive(sink, post.kept.pop(0))


def waited(put_off):
    """Run the trigger, quickly."""
    put_off.arguments |= {"poke_interval": 0.1, "quiet_seconds": 0.3}
    return fired(put_off.trigger)


def manifest_of(at):
    return json.loads(Path(at["ti"].xcoms(MANIFEST_KEY)[-1]["uri"].removeprefix("file://")).read_text())


def moves(manifest):
    return [(request["level"], request["asked"]) for request in manifest["requests"]]


def test_what_comes_late_is_taken_and_nothing_is_asked_for_again(made, context, daemon, post, sink):
    """Plans: of what may change under its UID only what came since it was asked for counts."""
    at = context()
    put_off = deferred(lambda: made().execute(at))
    manifest = manifest_of(at)
    assert (manifest["outcome"], manifest["counts"]["verified"]) == ("pending", 0)
    assert "6 objects have been asked for and may come late" in manifest["message"]
    assert daemon.counts["C-MOVE"] == COUNT
    come(sink, post)
    event = waited(put_off)
    assert event["facts"] == {"count": COUNT, "waited_out": False}
    told = going_on(put_off, made(), at, event)()
    assert (told["outcome"], told["counts"]["verified"], told["counts"]["held"]) == ("complete", COUNT, 0)
    assert (daemon.counts["C-MOVE"], len(post.got)) == (COUNT, COUNT)
    manifest = manifest_of(at)
    assert (manifest["attempts"], moves(manifest)) == (1, [("IMAGE", 1)] * COUNT)
    assert not manifest["warnings"]
    assert list(sink.spool.unclaimed()) == []


def test_what_airflow_keeps_meanwhile_names_nobody(made, context, post, sink, storage):
    at = context()
    put_off = deferred(lambda: made().execute(at))
    assert (put_off.kind, put_off.method) == ("DicomLateTrigger", "execute_complete")
    keys = json.loads(put_off.arguments["keys"])
    assert sorted(keys["SOPInstanceUID"]) == sorted(each["sop_instance_uid"] for each in manifest_of(at)["instances"])
    assert (put_off.arguments["at_least"], put_off.arguments["quiet_seconds"]) == (COUNT, SETTLE)
    manifest = manifest_of(at)
    assert (put_off.kwargs, manifest["waiting"]["try"]) == ({"retrieval_id": manifest["id"]}, at["ti"].id)
    kept = json.dumps([put_off.arguments, put_off.kwargs, repr(put_off.trigger), waited(put_off)])
    assert not found_in(kept.encode(), set(forms_of(PATIENT, PATIENT)))


def test_many_are_told_by_their_series():
    entries = [Entry(sop_instance_uid=f"1.{n}", series_instance_uid="2.1", study_instance_uid="3") for n in range(101)]
    assert settling._keys(entries[:2]) == {"SOPInstanceUID": ["1.0", "1.1"]}
    assert settling._keys(entries) == {"SeriesInstanceUID": ["2.1"]}
    for number, entry in enumerate(entries):
        entry.series_instance_uid = f"2.{number}"
    assert settling._keys(entries) == {"StudyInstanceUID": ["3"]}
    for entry in entries:
        entry.study_instance_uid = ""
    assert settling._keys(entries) == {}


def test_what_never_comes_is_asked_for_more_narrowly_and_then_is_missing(made, context, daemon, post, sink, series):
    keys, count = series
    at = context()
    put_off = deferred(lambda: made(keys=keys, level="SERIES").execute(at))
    assert moves(manifest_of(at)) == [("SERIES", count)]
    event = waited(put_off)
    assert event["facts"] == {"count": 0, "waited_out": True}
    again = deferred(going_on(put_off, made(keys=keys, level="SERIES"), at, event))
    assert moves(manifest_of(at)) == [("SERIES", count)] + [("IMAGE", 1)] * count
    # It goes on once more, and there is nothing narrower to ask for.
    told = going_on(again, made(keys=keys, level="SERIES"), at, waited(again))()
    assert (told["outcome"], told["counts"]["missing"]) == ("partial", count)
    manifest = manifest_of(at)
    assert moves(manifest) == [("SERIES", count)] + [("IMAGE", 1)] * count
    assert (manifest["attempts"], {each["attempts"] for each in manifest["instances"]}) == (1, {2})
    assert [words for words in manifest["warnings"] if "nothing arrived at" in words]
    assert "waiting" not in manifest


def test_what_is_left_after_some_came_is_asked_for_by_name(made, context, post, sink, series):
    keys, count = series
    at = context()
    put_off = deferred(lambda: made(keys=keys, level="SERIES").execute(at))
    come(sink, post, count - 1)
    post.kept.clear()
    event = waited(put_off)
    assert event["facts"] == {"count": count - 1, "waited_out": True}
    again = deferred(going_on(put_off, made(keys=keys, level="SERIES"), at, event))
    assert moves(manifest_of(at)) == [("SERIES", count), ("IMAGE", 1)]
    come(sink, post)
    told = going_on(again, made(keys=keys, level="SERIES"), at, waited(again))()
    assert (told["outcome"], told["counts"]["held"], len(post.got)) == ("complete", 0, count + 1)
    assert not manifest_of(at)["warnings"]


def test_it_is_not_waited_twice(made, context, post, sink, monkeypatch):
    at = context()
    put_off = deferred(lambda: made().execute(at))
    event = waited(put_off)
    monkeypatch.setattr(settling, "_LOOK_SECONDS", None)  # who waits in the task fails
    assert going_on(put_off, made(), at, event)()["outcome"] == "partial"


def test_an_older_version_ends_the_wait_and_is_not_taken(made, context, daemon, post, sink):
    """The triggerer cannot tell whose a copy is: the task looks again, and waits itself."""
    deferred(lambda: made(task_id="before").execute(context(task_id="before")))
    come(sink, post)
    at = context()
    put_off = deferred(lambda: made().execute(at))
    post.kept.clear()
    event = waited(put_off)
    assert event["facts"]["waited_out"] is False
    told = going_on(put_off, made(), at, event)()
    assert (told["outcome"], told["counts"]["verified"]) == ("partial", 0)
    assert len(list(sink.spool.unclaimed())) == COUNT


def test_to_others_it_is_as_if_it_was_killed(made, context, post, sink):
    at = context()
    put_off = deferred(lambda: made().execute(at))
    (path,) = (each for each in Path(sink.spool.wanted).iterdir() if each.suffix == ".json")
    said = json.loads(path.read_text())
    assert (said["ended"], len(said["waits"])) == (False, COUNT)
    come(sink, post)
    going_on(put_off, made(), at, waited(put_off))()
    assert json.loads(path.read_text())["ended"] is True


def test_quiet_hours_may_come_between(made, context, daemon, post, sink, series, clock):
    keys, count = series
    at = context()
    put_off = deferred(lambda: made(keys=keys, level="SERIES").execute(at))
    event = waited(put_off)
    clock.now = WITHIN
    paused = deferred(going_on(put_off, made(keys=keys, level="SERIES"), at, event))
    assert paused.kind == "DicomQuietHoursTrigger"
    assert manifest_of(at)["waiting"]["asked"]["C-MOVE"]["AS_ASKED"]
    clock.now = AFTER
    come(sink, post)
    told = going_on(paused, made(keys=keys, level="SERIES"), at, fired(paused.trigger))()
    assert (told["outcome"], moves(manifest_of(at))) == ("complete", [("SERIES", count)])


@pytest.mark.parametrize("transient", [True, False])
def test_where_the_triggerer_cannot_wait_the_task_does(made, context, daemon, post, sink, transient, caplog):
    at = context()
    put_off = deferred(lambda: made().execute(at))
    come(sink, post)
    event = {"status": "error", "message": "the spool is not there", "transient": transient}
    assert going_on(put_off, made(), at, event)()["outcome"] == "complete"
    assert daemon.counts["C-MOVE"] == COUNT
    assert "so this task does: the spool is not there" in caplog.text


def test_a_cleared_task_is_another_try(made, context, daemon, post, sink):
    """What the next try asks for is not what this one asked for."""
    at = context()
    deferred(lambda: made().execute(at))
    at["ti"].begin_try()
    # As after a kill, what the try before has asked for may come first (semantics 11).
    again = deferred(lambda: made().execute(at))
    assert (manifest_of(at)["attempts"], daemon.counts["C-MOVE"]) == (2, COUNT)
    deferred(going_on(again, made(), at, waited(again)))
    manifest = manifest_of(at)
    assert (manifest["attempts"], daemon.counts["C-MOVE"]) == (2, 2 * COUNT)
    assert {each["attempts"] for each in manifest["instances"]} == {2}


def test_what_another_try_has_left_is_not_gone_on_with(made, context, daemon, post, sink, series, clock):
    """A cleared task that meets quiet hours before it has written anything down, too."""
    at, plans = context(), made()
    deferred(lambda: plans.execute(at))
    at["ti"].begin_try()
    clock.now = WITHIN
    paused = deferred(lambda: made().execute(at))  # in the query that finds the plans
    assert paused.kind == "DicomQuietHoursTrigger"
    clock.now = AFTER
    again = deferred(going_on(paused, made(), at, fired(paused.trigger)))
    going_on(again, made(), at, waited(again))
    manifest = manifest_of(at)
    assert (manifest["attempts"], manifest["waiting"]["try"]) == (2, at["ti"].id)


def test_nothing_is_waited_for_that_was_not_asked_for(made, context, daemon, post, series, clock):
    """Quiet hours came before the list of a series."""
    keys, count = series
    at = context()
    clock.now = WITHIN
    paused = deferred(lambda: made(keys=keys, level="SERIES").execute(at))
    assert (paused.kind, daemon.counts["C-MOVE"]) == ("DicomQuietHoursTrigger", 0)
    clock.now = AFTER
    late = deferred(going_on(paused, made(keys=keys, level="SERIES"), at, fired(paused.trigger)))
    assert (late.kind, daemon.counts["C-MOVE"]) == ("DicomLateTrigger", 1)
    assert moves(manifest_of(at)) == [("SERIES", count)]


def test_what_was_judged_in_the_same_try_stands(standing, daemon, post, context, tmp_path):
    """A task of several retrievals goes on with the first one, too."""
    trying, other = (
        DicomHook(standing, deferring=True, task_try=Try(id=each, waited_out="retrieval")) for each in ("one", "other")
    )
    request = trying.select("IMAGE", PLANS)

    def retrieved(hook):
        return hook.retrieve(request, retrieval_id="retrieval", destination=str(tmp_path / "here"))

    with pytest.raises(Waiting):
        retrieved(trying)
    first = retrieved(trying)
    asked = daemon.counts["C-MOVE"]
    assert (str(first.outcome), first.manifest.attempts) == ("partial", 1)
    again = retrieved(trying)
    assert (again.outcome, again.counts, daemon.counts["C-MOVE"]) == (first.outcome, first.counts, asked)
    with pytest.raises(Waiting):
        retrieved(other)
    assert daemon.counts["C-MOVE"] > asked


def test_a_receiver_inside_the_task_is_not_left(aria, daemon, context, monkeypatch):
    """It ends with the task, and nobody would listen."""
    monkeypatch.setattr(settling, "WORTH_SECONDS", 0.1)
    lost = []
    daemon.holdings.broken = lambda uid: uid == lost[0] if lost else not lost.append(uid)
    operator = DicomRetrieveOperator(
        task_id="r", dicom_conn_id=aria, keys=PLANS, method="move", deferrable=True, on_partial="accept"
    )
    assert operator.execute(context())["counts"]["missing"] == 1


def test_without_it_the_task_waits_itself(made, context, post, sink):
    told = made(deferrable=False).execute(context())
    assert told["outcome"] == "partial"
