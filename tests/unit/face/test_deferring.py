"""Operators that leave long waits to the triggerer: quiet hours of a connection, at the start and in the middle."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException
from support.deferring import deferred, fired, going_on
from support.dicom_files import image_file
from support.kept_triggers import made_again
from support.ports import free_port
from support.quiet import AFTER, BEFORE, QUIET, WITHIN, Clock
from support.storage_peer import StoragePeer

from airflow_provider_varian.dimse import quiet_hours
from airflow_provider_varian.errors import TransientDicomError
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.aria import AriaPatientListOperator, AriaPlanExportOperator, AriaQAImagesOperator
from airflow_provider_varian.operators.dicom import DicomEchoOperator, DicomFindOperator
from airflow_provider_varian.operators.manifest_xcom import MANIFEST_KEY
from airflow_provider_varian.operators.qa_report import SUMMARY_KEY
from airflow_provider_varian.operators.retrieve import DicomGetOperator, DicomMoveOperator, DicomRetrieveOperator
from airflow_provider_varian.operators.store import DicomStoreOperator
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour
from airflow_provider_varian.triggers import operators as triggers
from airflow_provider_varian.triggers.asking import FindAnswer, ReceivedAnswer
from airflow_provider_varian.triggers.criteria import LateCriterion, ListedCriterion
from airflow_provider_varian.triggers.operators import DicomLateTrigger, DicomListedTrigger, DicomQuietHoursTrigger
from airflow_provider_varian.waiting import LateObjects, Listed, ListedSeries

PLANS = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}
COUNT = 6
OVERRIDES = {"settle_seconds": 0.2, "stable_interval_seconds": 0.01}


@pytest.fixture
def quiet(daemon, receiver_port, connect):
    """A connection to the daemon with quiet hours."""
    return connect(
        "quiet",
        port=daemon.address[1],
        receiver_host="127.0.0.1",
        receiver_port=receiver_port,
        profile_overrides=OVERRIDES,
        **QUIET,
    )


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch, WITHIN)


def calls(daemon):
    """What the daemon was asked for at all."""
    return daemon.counts["C-ECHO"] + daemon.counts["C-FIND"] + daemon.counts["C-MOVE"] + daemon.counts["C-GET"]


def manifest_of(at):
    return json.loads(Path(at["ti"].xcoms(MANIFEST_KEY)[-1]["uri"].removeprefix("file://")).read_text())


# ------------------------------------------------------------------------------------------------------- at the start


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DicomEchoOperator, {}),
        (DicomFindOperator, {"level": "IMAGE", "keys": PLANS}),
        (DicomRetrieveOperator, {"keys": PLANS}),
        (DicomMoveOperator, {"keys": PLANS, "move_destination": "NOBODY"}),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else "",
)
def test_an_operator_gives_the_worker_back_and_calls_nobody_in_quiet_hours(
    quiet, daemon, context, clock, kind, settings
):
    put_off = deferred(lambda: kind(task_id="t", dicom_conn_id=quiet, deferrable=True, **settings).execute(context()))
    assert (put_off.kind, put_off.arguments, put_off.kwargs) == ("DicomQuietHoursTrigger", {"dicom_conn_id": quiet}, {})
    assert calls(daemon) == 0


def test_it_is_the_same_for_operators_on_arias_terms(quiet, daemon, morning, clock, storage):
    machine = {"name": "TB1", "patient_id": "QA_TB_WL", "plan_label": "WL", "dicom_conn_id": quiet}
    at = morning()
    put_off = deferred(lambda: AriaQAImagesOperator(task_id="q", machine=machine, deferrable=True).execute(at))
    assert put_off.arguments == {"dicom_conn_id": quiet}
    assert not at["ti"].xcoms(SUMMARY_KEY)  # nothing failed
    export = AriaPlanExportOperator(
        task_id="e", dicom_conn_id=quiet, plan={"patient_id": "QA_TB_WL", "plan_label": "WL"}, deferrable=True
    )
    assert deferred(lambda: export.execute(morning(task_id="e"))).kind == "DicomQuietHoursTrigger"
    listing = AriaPatientListOperator(task_id="l", dicom_conn_id=quiet, kind="treated", deferrable=True)
    assert deferred(lambda: listing.execute(morning(task_id="l"))).kind == "DicomQuietHoursTrigger"
    assert calls(daemon) == 0


def test_it_goes_on_when_they_are_over(quiet, daemon, context, clock, storage):
    def made():
        return DicomRetrieveOperator(task_id="r", dicom_conn_id=quiet, keys=PLANS, deferrable=True)

    at = context()
    put_off = deferred(lambda: made().execute(at))
    clock.over_after(5)
    event = fired(put_off.trigger)
    assert clock.now == AFTER
    assert calls(daemon) == 0  # the trigger asks nobody
    told = going_on(put_off, made(), at, event)()
    assert (told["outcome"], told["counts"]["verified"]) == ("complete", COUNT)
    assert manifest_of(at)["attempts"] == 1


def test_without_it_the_task_waits_itself(quiet, daemon, context, clock, storage):
    clock.over_after(5)
    told = DicomRetrieveOperator(task_id="r", dicom_conn_id=quiet, keys=PLANS, deferrable=False).execute(context())
    assert told["outcome"] == "complete"


def test_the_default_is_airflows(monkeypatch):
    assert not DicomEchoOperator(task_id="t").deferrable  # as [operators] default_deferrable is


def test_the_last_seconds_are_not_worth_a_deferral(quiet, daemon, context, clock, monkeypatch):
    clock.now = AFTER.replace(hour=3, minute=59, second=55)
    clock.over_after(5)
    assert DicomEchoOperator(task_id="t", dicom_conn_id=quiet, deferrable=True).execute(context())["seconds"] >= 0


def test_whose_quiet_hours_those_are_is_waited_for(aria, daemon, connect, context, clock):
    destination = connect("destination", port=free_port(), **QUIET)
    operator = DicomMoveOperator(
        task_id="m",
        dicom_conn_id=aria,
        keys=PLANS,
        move_destination="NOBODY",
        verify_dicom_conn_id=destination,
        deferrable=True,
    )
    at = context()
    put_off = deferred(lambda: operator.execute(at))
    assert put_off.arguments == {"dicom_conn_id": destination}
    assert not daemon.counts["C-MOVE"]  # what cannot be proven is not moved
    manifest = manifest_of(at)
    assert (manifest["outcome"], manifest["attempts"]) == ("pending", 1)
    assert "is left alone until 2026-11-21 04:00 (UTC)" in manifest["message"]


# ------------------------------------------------------------------------------------------------------ in the middle


@pytest.mark.parametrize("method", ["get", "move"])
def test_quiet_hours_in_the_middle_of_a_retrieval_end_it_for_now_and_nothing_comes_twice(
    quiet, daemon, context, clock, storage, method
):
    clock.now = BEFORE
    daemon.behaviour = Behaviour(get=True)
    fetched = []

    def begin_quiet_hours(uid):
        fetched.append(uid)
        if len(fetched) == 2:
            clock.now = WITHIN  # in the middle of the second request
        return False

    daemon.holdings.broken = begin_quiet_hours
    kind = {"get": DicomGetOperator, "move": DicomRetrieveOperator}[method]

    def made():
        return kind(task_id="r", dicom_conn_id=quiet, keys=PLANS, deferrable=True, **settings)

    settings = {} if method == "get" else {"method": "move"}
    at = context()
    put_off = deferred(lambda: made().execute(at))
    assert put_off.kind == "DicomQuietHoursTrigger"
    manifest = manifest_of(at)
    states = [each["state"] for each in manifest["instances"]]
    assert (manifest["outcome"], states.count("verified"), len(manifest["requests"])) == ("pending", 2, 2)
    assert "quiet hours" in manifest["message"]
    assert not any(entry.get("reason") for entry in manifest["instances"])
    clock.over_after(3)
    told = going_on(put_off, made(), at, fired(put_off.trigger))()
    assert (told["outcome"], told["counts"]["verified"], told["counts"]["held"]) == ("complete", COUNT, 0)
    assert len(fetched) == len(set(fetched)) == COUNT
    manifest = manifest_of(at)
    assert (manifest["attempts"], len(manifest["requests"])) == (1, COUNT)
    assert {request["attempt"] for request in manifest["requests"]} == {1}
    assert "waiting" not in manifest


def test_what_did_not_come_before_is_asked_for_more_narrowly_alone(quiet, daemon, context, clock, connect):
    """The series that brought nothing is not asked for as a series again."""
    clock.now = BEFORE

    def broken_until_quiet_hours_are_over(uid):
        clock.now = AFTER if clock.now == AFTER else WITHIN
        return clock.now == WITHIN

    daemon.holdings.broken = broken_until_quiet_hours_are_over
    found = series_of_two(quiet, clock)

    def made():
        return DicomRetrieveOperator(
            task_id="r",
            dicom_conn_id=quiet,
            keys={"SeriesInstanceUID": found},
            level="SERIES",
            method="move",
            deferrable=True,
            on_partial="accept",
        )

    at = context()
    put_off = deferred(lambda: made().execute(at))
    manifest = manifest_of(at)
    assert [request["level"] for request in manifest["requests"]] == ["SERIES"]
    clock.now = AFTER
    going_on(put_off, made(), at, fired(put_off.trigger))()
    manifest = manifest_of(at)
    levels = [request["level"] for request in manifest["requests"]]
    assert levels[:2] == ["SERIES", "SERIES"]  # each of them once
    assert set(levels[2:]) == {"IMAGE"}
    assert (manifest["outcome"], manifest["attempts"]) == ("complete", 1)


def series_of_two(conn, clock):
    from airflow_provider_varian.hooks.dicom import DicomHook

    hook = DicomHook(conn)
    answers = hook.find("SERIES", {"PatientID": "QA_TB_WL", "Modality": "RTIMAGE"}).answers
    return [str(answer["SeriesInstanceUID"]) for answer in answers][:2]


def test_files_that_are_sent_pause_between_two_of_them(tmp_path, connect, context, clock):
    clock.now = BEFORE
    for number in (1, 2, 3):
        image_file(tmp_path / "export", number)
    with StoragePeer() as peer:
        pacs = connect("pacs", port=peer.port, called_ae_title="STORAGE", allow_store=True, **QUIET)

        def made():
            return DicomStoreOperator(task_id="s", dicom_conn_id=pacs, files=str(tmp_path / "export"), deferrable=True)

        def begin_quiet_hours(uid):
            clock.now = WITHIN if clock.now == BEFORE else clock.now
            return 0x0000

        peer.answer = begin_quiet_hours
        at = context()
        put_off = deferred(lambda: made().execute(at))
        assert (len(peer.received), put_off.arguments) == (1, {"dicom_conn_id": pacs})
        clock.now = AFTER
        told = going_on(put_off, made(), at, fired(put_off.trigger))()
        assert (told["outcome"], len(peer.received)) == ("complete", 3)


# --------------------------------------------------------------------------------------------------------- the trigger


def test_quiet_hours_that_are_set_no_more_are_not_waited_for(quiet, connect, context, clock, daemon):
    put_off = deferred(lambda: DicomEchoOperator(task_id="t", dicom_conn_id=quiet, deferrable=True).execute(context()))
    connect("quiet", port=daemon.address[1])
    assert fired(put_off.trigger)["status"] == "success"


def test_the_loop_is_free_meanwhile_and_a_cancelled_trigger_leaves_nothing(quiet, context, clock):
    put_off = deferred(lambda: DicomEchoOperator(task_id="t", dicom_conn_id=quiet, deferrable=True).execute(context()))

    async def scene():
        waiting = asyncio.create_task(anext(put_off.trigger.run()))
        async with asyncio.timeout(30):
            while clock.looks < 5:
                await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(scene()) == []


def test_a_clock_that_is_set_meanwhile_is_followed(quiet, context, clock, monkeypatch):
    put_off = deferred(lambda: DicomEchoOperator(task_id="t", dicom_conn_id=quiet, deferrable=True).execute(context()))
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        clock.now = BEFORE if len(slept) == 1 else clock.now  # set back by more than the quiet time

    monkeypatch.setattr(quiet_hours, "_LOOK_SECONDS", 15.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert fired(put_off.trigger)["status"] == "success"
    assert slept == [15.0]


def test_what_was_held_before_its_quiet_hours_is_held_afterwards(quiet, aria, context, clock, storage):
    """They came before it had looked for anything."""

    def made():
        return DicomRetrieveOperator(
            task_id="r", dicom_conn_id=quiet, keys={"SeriesInstanceUID": series}, refresh="never", deferrable=True
        )

    clock.now = BEFORE
    series = DicomHook(aria).find("IMAGE", PLANS).answers[0]["SeriesInstanceUID"]
    at = context()
    assert made().execute(at)["counts"]["held"] == 0
    at["ti"].begin_try()
    clock.now = WITHIN
    paused = deferred(lambda: made().execute(at))
    clock.now = AFTER
    counts = going_on(paused, made(), at, fired(paused.trigger))()["counts"]
    assert counts["held"] == counts["verified"] > 0


def test_an_error_of_the_trigger_fails_the_task(context, quiet, clock, connect):
    operator = DicomEchoOperator(task_id="t", dicom_conn_id=quiet, deferrable=True)
    put_off = deferred(lambda: operator.execute(context()))
    put_off.arguments["dicom_conn_id"] = connect("wrong", port=1, colour="blue")
    event = fired(put_off.trigger)
    assert (event["status"], event["transient"]) == ("error", False)
    with pytest.raises(AirflowFailException, match="unknown connection field 'colour'"):
        going_on(put_off, operator, context(), event)()
    with pytest.raises(TransientDicomError, match="later"):
        going_on(put_off, operator, context(), {"status": "error", "message": "later", "transient": True})()


@pytest.mark.parametrize(("away", "status"), [(2, "success"), (3, "error")])
def test_a_connection_that_airflow_does_not_give_for_a_while_is_looked_up_again(
    context, quiet, clock, monkeypatch, away, status
):
    monkeypatch.setattr(triggers, "_MOST_SECONDS", 0.01)
    monkeypatch.setattr(triggers, "MAX_TRANSIENT_FAILURES", 2)
    operator = DicomEchoOperator(task_id="t", dicom_conn_id=quiet, deferrable=True)
    put_off = deferred(lambda: operator.execute(context()))
    look_up, asked = DicomHook.aget_connection, []

    async def now_and_then(conn_id):
        asked.append(conn_id)
        if len(asked) <= away:
            raise AirflowNotFoundException("as Airflow says it")
        return await look_up(conn_id)

    monkeypatch.setattr(DicomHook, "aget_connection", staticmethod(now_and_then))
    clock.now = AFTER
    event = fired(put_off.trigger)
    assert (event["status"], len(asked)) == (status, 3)
    if status == "error":
        with pytest.raises(TransientDicomError, match="Airflow's API"):
            going_on(put_off, operator, context(), event)()


@pytest.mark.parametrize(
    "trigger",
    [
        DicomQuietHoursTrigger(dicom_conn_id="c"),
        DicomLateTrigger.of(
            LateObjects(
                deferred_as="c",
                retrieval_id="r",
                keys={"SeriesInstanceUID": ["1.2"]},
                at_least=3,
                quiet_seconds=60.0,
                most_seconds=600.0,
            )
        ),
        DicomListedTrigger.of(
            Listed(
                deferred_as="c",
                retrieval_id="r",
                series=(ListedSeries(keys={"SeriesInstanceUID": "1.2"}, at_least=3),),
                quiet_seconds=60.0,
                most_seconds=600.0,
            )
        ),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_a_trigger_is_made_again_from_what_airflow_keeps(trigger):
    again = made_again(trigger)
    if hasattr(trigger, "criterion"):
        assert again.criterion() == trigger.criterion()


# ----------------------------------------------------------------------------------------------------- when it is over


class Ticking:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


def late_criterion(clock, **settings):
    about = {"at_least": 3, "quiet_seconds": 20.0, "most_seconds": 1000.0, "poll_seconds": 5.0}
    return LateCriterion(**about | settings, clock=clock)


def received(count, newest=0.0, arriving=False):
    return ReceivedAnswer(count=count, studies=1, series=1, newest=newest, is_arriving=arriving)


def polled(criterion, clock, *answers, every=5.0):
    """Return what each answer came to."""
    facts = []
    for answer in answers:
        clock.now += every
        facts.append(criterion.met(answer))
    return facts


def test_late_objects_are_waited_for_until_all_are_there_or_none_comes():
    clock = Ticking()
    facts = polled(late_criterion(clock), clock, received(1), received(3, arriving=True), received(3))
    assert facts == [None, None, {"count": 3, "waited_out": False}]
    # Each that comes begins the quiet time anew, also one in place of another.
    answers = [received(1), received(1), received(1), received(1, newest=1.0), *[received(1, newest=1.0)] * 4]
    facts = polled(late_criterion(clock), clock, *answers)
    assert facts == [None] * 7 + [{"count": 1, "waited_out": True}]


def test_what_arrives_at_this_moment_is_waited_for():
    clock = Ticking()
    facts = polled(late_criterion(clock), clock, *[received(1, arriving=True)] * 10, *[received(1)] * 4)
    assert facts == [None] * 13 + [{"count": 1, "waited_out": True}]


def test_while_nobody_could_look_it_is_not_known_to_be_quiet():
    clock = Ticking()
    assert polled(late_criterion(clock), clock, received(1), received(1), every=3600.0) == [None, None]


def test_the_wait_is_bounded_whatever_comes():
    clock = Ticking()
    criterion = late_criterion(clock, most_seconds=15.0)
    facts = polled(criterion, clock, *[received(1, newest=float(number)) for number in range(4)])
    assert facts == [None] * 3 + [{"count": 1, "waited_out": True}]


def test_a_destination_is_waited_for_until_each_series_is_whole():
    clock = Ticking()
    criterion = ListedCriterion(at_least=(2, 3), quiet_seconds=20.0, most_seconds=1000.0, poll_seconds=5.0, clock=clock)
    answers = [[FindAnswer(count, True) for count in counts] for counts in ((4, 1), (1, 3), (2, 2), (5, 3))]
    assert polled(criterion, clock, *answers) == [None] * 3 + [{"count": 5, "waited_out": False}]
