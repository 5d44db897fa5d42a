"""Sensors: three ways to wait for the same, which errors are waited on, and what is kept and told."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import runpy
import stat

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred
from support.identifiers import forms_of, found_in
from support.ports import free_port
from support.quiet import QUIET, WITHIN, Clock
from support.scripted_peer import PENDING, UNTIL_CANCELLED, ScriptedPeer, dataset

from airflow_provider_varian.errors import (
    AssociationBudgetError,
    CancelledError,
    OutOfResourcesError,
    PeerUnreachableError,
    QuietHoursError,
    ReceiverUnavailableError,
    TransientDicomError,
)
from airflow_provider_varian.sensors.base import DicomSensor
from airflow_provider_varian.sensors.dicom import DicomEchoSensor, DicomFindSensor, DicomReceivedSensor
from airflow_provider_varian.triggers.criteria import Borne

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # Airflow 3.1
    from airflow.exceptions import AirflowRescheduleException

NAME, PATIENT = "Sommer^Anna", "ZH-4711-Sommer"
KEYS = {"PatientID": "{{ patient }}", "StudyDescription": ""}


@pytest.fixture
def scripted():
    peer = ScriptedPeer()
    peer.serve([dataset(StudyInstanceUID=f"1.2.{number}", PatientID=PATIENT, PatientName=NAME) for number in (1, 2)])
    yield peer
    peer.stop()


@pytest.fixture
def clinic(scripted, connect):
    return connect("clinic", port=scripted.port)


@pytest.fixture
def rescheduling(context, monkeypatch):
    """A context of a task in mode ``reschedule``."""
    made = context(task_id="wait")
    instance = made["ti"]
    monkeypatch.setattr(instance, "try_number", 1, raising=False)
    monkeypatch.setattr(instance, "get_first_reschedule_date", lambda _: None, raising=False)
    return made


def find(conn, patient=PATIENT, **settings):
    settings = {"poke_interval": 0.05, "timeout": 30, "deferrable": False} | settings
    sensor = DicomFindSensor(task_id="wait", dicom_conn_id=conn, level="STUDY", keys=dict(KEYS), **settings)
    sensor.render_template_fields({"patient": patient})
    return sensor


def appearing(scripted, after):
    """Let the answers be there from a poll on."""
    rows = iter(range(1000))

    def script(request):
        if next(rows) >= after:
            yield PENDING, dataset(StudyInstanceUID="1.2.1", PatientID=PATIENT)

    scripted.script = script


def deferred(sensor, context):
    with pytest.raises(TaskDeferred) as raised:
        sensor.execute(context)
    return raised.value


def resumed(sensor, context):
    """Defer, let the trigger fire as the triggerer would, and go on."""
    deferral = deferred(sensor, context)
    _, kwargs = deferral.trigger.serialize()
    trigger = type(deferral.trigger)(**json.loads(json.dumps(kwargs)))

    async def fired():
        async with asyncio.timeout(60):
            return (await anext(trigger.run())).payload

    event = asyncio.run(fired())
    return sensor.resume_execution(deferral.method_name, {"event": json.loads(json.dumps(event))}, context)


# ---------------------------------------------------------------------------------------------------------- the modes


def test_poking_waits_for_the_answers_and_tells_how_many(scripted, clinic, context):
    appearing(scripted, 2)
    assert find(clinic).execute(context()) == {"count": 1, "whole": True}
    assert len(scripted.requests) == 3


def test_deferred_it_comes_to_the_same(scripted, clinic, context):
    appearing(scripted, 2)
    assert resumed(find(clinic, deferrable=True), context()) == {"count": 1, "whole": True}
    assert len(scripted.requests) == 3


def test_deferring_asks_nobody_and_carries_the_timeout(scripted, clinic, context):
    deferral = deferred(find(clinic, deferrable=True, timeout=77), context())
    assert deferral.timeout.total_seconds() == 77
    assert (deferral.trigger.poke_interval, deferral.trigger.dicom_conn_id) == (0.05, "clinic")
    assert scripted.associations == 0


def test_rescheduled_each_poke_is_a_process_of_its_own(scripted, clinic, rescheduling):
    appearing(scripted, 1)
    with pytest.raises(AirflowRescheduleException):
        find(clinic, mode="reschedule").execute(rescheduling)
    assert find(clinic, mode="reschedule").execute(rescheduling) == {"count": 1, "whole": True}


def test_rescheduled_it_remembers_what_was_answered_in_a_private_file(scripted, clinic, rescheduling, storage):
    def poke():
        return find(clinic, mode="reschedule", stable_polls=3).execute(rescheduling)

    for _ in range(2):
        with pytest.raises(AirflowRescheduleException):
            poke()
    (memory,) = (storage / ".dicom" / "waiting").iterdir()
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600
    assert not found_in(memory.read_bytes(), set(forms_of(PATIENT, NAME)))
    assert poke() == {"count": 2, "whole": True}
    assert not memory.exists()


def test_rescheduled_a_new_try_begins_anew(scripted, clinic, rescheduling):
    for number in (1, 2):
        rescheduling["ti"].try_number = number
        with pytest.raises(AirflowRescheduleException):
            find(clinic, mode="reschedule", stable_polls=2).execute(rescheduling)


def test_rescheduled_errors_in_a_row_are_counted_over_the_pokes(connect, rescheduling, storage):
    conn = connect("dead", port=free_port())

    def poke():
        DicomEchoSensor(
            task_id="wait", dicom_conn_id=conn, mode="reschedule", deferrable=False, max_transient_failures=2
        ).execute(rescheduling)

    for _ in range(2):
        with pytest.raises(AirflowRescheduleException):
            poke()
    with pytest.raises(PeerUnreachableError):
        poke()
    assert list((storage / ".dicom" / "waiting").iterdir()) == []


def test_the_default_is_airflows(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    read_again = runpy.run_path(inspect.getfile(DicomSensor))["DicomSensor"]
    assert inspect.signature(read_again.__init__).parameters["deferrable"].default is True
    assert DicomEchoSensor(task_id="t").deferrable is False


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("query", [False, True])
def test_echo_waits_for_any_answer(scripted, clinic, context, deferrable, query):
    sensor = DicomEchoSensor(task_id="wait", dicom_conn_id=clinic, query=query, deferrable=deferrable)
    told = resumed(sensor, context()) if deferrable else sensor.execute(context())
    assert list(told) == ["seconds"]
    assert (scripted.associations, scripted.echoes, len(scripted.requests)) == (1, 1, int(query))


# --------------------------------------------------------------------------------------------------------- its fields


@pytest.mark.parametrize(
    ("sensor", "fields"),
    [
        (DicomEchoSensor, {"dicom_conn_id": "{{ x }}"}),
        (DicomFindSensor, {"dicom_conn_id": "{{ x }}", "level": "{{ x }}", "keys": {"PatientID": "{{ x }}"}}),
        (DicomReceivedSensor, {"dicom_conn_id": "{{ x }}", "receiver": "{{ x }}", "keys": {"Modality": "{{ x }}"}}),
    ],
)
def test_fields_are_templated_and_nothing_is_looked_at_before(sensor, fields):
    assert set(sensor.template_fields) == set(fields)
    made = sensor(task_id="wait", **fields)
    made.render_template_fields({"x": "rendered"})
    assert made.dicom_conn_id == "rendered"
    assert "{{" not in str([getattr(made, field) for field in fields])
    assert issubclass(sensor, DicomSensor)


# ---------------------------------------------------------------------------------------------------------- its errors


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_wrong_query_fails_at_once_and_asks_nobody(scripted, clinic, context, deferrable):
    sensor = DicomFindSensor(
        task_id="wait", dicom_conn_id=clinic, level="STUDY", keys={"PatientId": PATIENT}, deferrable=deferrable
    )
    with pytest.raises(AirflowFailException, match="Did you mean PatientID") as raised:
        sensor.execute(context())
    assert PATIENT not in str(raised.value)
    assert scripted.associations == 0


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"at_least": 0}, "at_least"), ({"stable_polls": 0}, "stable"), ({"undecided": "x"}, "undecided")],
)
def test_a_wrong_argument_fails_at_once(scripted, clinic, context, deferrable, wrong, says):
    with pytest.raises(AirflowFailException, match=says):
        find(clinic, deferrable=deferrable, **wrong).execute(context())
    assert scripted.associations == 0


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_connection_that_does_not_exist_fails_at_once(context, deferrable):
    with pytest.raises(AirflowFailException, match="no connection 'nowhere'"):
        find("nowhere", deferrable=deferrable).execute(context())


def test_an_identifier_that_cannot_be_encrypted_is_not_deferred(scripted, clinic, context, monkeypatch):
    from types import SimpleNamespace

    from airflow.models import crypto

    monkeypatch.setattr(crypto, "get_fernet", lambda: SimpleNamespace(is_encrypted=False))
    with pytest.raises(AirflowFailException, match="deferrable=False"):
        find(clinic, deferrable=True).execute(context())
    assert find(clinic).execute(context())["count"] == 1


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_refusal_of_the_peer_for_good_fails_at_once(scripted, clinic, context, deferrable):
    scripted.script = lambda request: iter([(0x0122, None)])
    sensor = find(clinic, deferrable=deferrable)
    with pytest.raises(AirflowFailException, match="0x0122"):
        resumed(sensor, context()) if deferrable else sensor.execute(context())
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("deferrable", [False, True])
def test_transient_errors_are_waited_on_so_many_times(scripted, clinic, context, deferrable, caplog):
    scripted.script = lambda request: iter([(0xA700, None)])
    sensor = find(clinic, deferrable=deferrable, max_transient_failures=2)
    # Deferred, its class has gone through the database; that a retry is worth it has not.
    with pytest.raises(TransientDicomError if deferrable else OutOfResourcesError, match="0xA700"):
        resumed(sensor, context()) if deferrable else sensor.execute(context())
    assert len(scripted.requests) == 3
    if not deferrable:
        assert caplog.text.count("Not yet: C-FIND with VMSDBD") == 2


@pytest.mark.parametrize("deferrable", [False, True])
def test_what_fails_for_good_is_skipped_where_the_task_says_so(scripted, clinic, context, deferrable):
    scripted.script = lambda request: iter([(0x0122, None)])
    sensor = find(clinic, deferrable=deferrable, soft_fail=True)
    with pytest.raises(AirflowSkipException):
        resumed(sensor, context()) if deferrable else sensor.execute(context())


def test_what_is_wrong_before_it_is_deferred_is_skipped_too(context):
    with pytest.raises(AirflowSkipException):
        find("nowhere", deferrable=True, soft_fail=True).execute(context())


@pytest.mark.parametrize("error", [QuietHoursError("quiet"), AssociationBudgetError("others work")])
def test_what_is_nobodys_fault_is_not_counted(error):
    borne = Borne(1)
    assert [borne.bears(error) for _ in range(5)] == [True] * 5
    busy = PeerUnreachableError("gone")
    assert [borne.bears(busy), borne.bears(error), borne.bears(busy)] == [True, True, False]


def test_quiet_hours_are_no_answer_yet_and_no_error(scripted, connect, context, monkeypatch):
    clock = Clock(monkeypatch, WITHIN)
    clock.over_after(3)
    sensor = find(connect("quiet", port=scripted.port, **QUIET), max_transient_failures=0)
    assert sensor.execute(context())["count"] == 1
    assert scripted.associations == 1


def test_a_killed_task_ends_its_query(scripted, clinic, context):
    sensor = find(clinic)

    def script(request):
        sensor.on_kill()
        yield UNTIL_CANCELLED, None

    scripted.script = script
    with pytest.raises(CancelledError):
        sensor.execute(context())
    assert scripted.cancelled.wait(10)


@pytest.mark.parametrize("deferrable", [False, True])
def test_nobody_is_named_in_result_or_log(clinic, context, deferrable, caplog):
    caplog.set_level(logging.DEBUG)
    sensor = find(clinic, deferrable=deferrable, at_least=2)
    sensor.keys["PatientName"] = ""
    told = resumed(sensor, context()) if deferrable else sensor.execute(context())
    assert told == {"count": 2, "whole": True}
    assert "C-FIND" in caplog.text
    assert not found_in((json.dumps(told) + caplog.text).encode(), set(forms_of(PATIENT, NAME)))


# ------------------------------------------------------------------------------------------------- received objects


@pytest.fixture
def spool(tmp_path, monkeypatch):
    """The spool of a standing receiver, named ``night``."""
    from airflow_provider_varian.receiver.spool import Spool
    from airflow_provider_varian.receiver.spool_sink import SpoolSink

    made = Spool(tmp_path / "standing")
    sink = SpoolSink(made, standing=True)
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", json.dumps({"night": str(made.root)}))
    yield sink
    sink.close()


def received(**settings):
    settings = {"poke_interval": 0.05, "timeout": 30, "deferrable": False} | settings
    return DicomReceivedSensor(task_id="wait", **settings)


def put(sink, *numbers, **values):
    from support.archive import rt_image
    from support.spooled import receive

    for number in numbers:
        receive(sink, rt_image(number, **values))


@pytest.mark.parametrize("deferrable", [False, True])
def test_it_waits_until_so_many_objects_lie_there_and_leaves_them(spool, context, deferrable):
    put(spool, 1, 2)
    put(spool, 3, Modality="RTPLAN")
    sensor = received(receiver="night", keys={"Modality": "RTIMAGE"}, at_least=2, deferrable=deferrable)
    told = resumed(sensor, context()) if deferrable else sensor.execute(context())
    assert told == {"count": 2, "studies": 1, "series": 1}
    assert len(list(spool.spool.unclaimed())) == 3


def test_an_object_that_was_sent_twice_is_one(spool, context):
    put(spool, 1, 1)
    with pytest.raises(Exception, match="timed out"):
        received(receiver="night", at_least=2, timeout=0.2).execute(context())


@pytest.mark.parametrize(("destination", "counts"), [("AIRFLOW", True), ("OTHER", False)])
def test_with_a_connection_only_what_was_sent_to_it_counts(spool, context, connect, destination, counts):
    put(spool, 1)
    conn = connect("clinic", receiver="night", move_destination=destination)
    sensor = received(dicom_conn_id=conn, timeout=0.2)
    if counts:
        assert sensor.execute(context())["count"] == 1
    else:
        with pytest.raises(Exception, match="timed out"):
            sensor.execute(context())


def test_it_waits_until_nothing_more_comes(spool, context):
    import time

    put(spool, 1)
    began = time.time()
    assert received(receiver="night", quiet_seconds=1.0).execute(context())["count"] == 1
    assert time.time() - began > 0.9


def test_fifty_triggers_look_at_a_spool_once_a_round(spool, monkeypatch):
    from airflow_provider_varian.retrieval.unclaimed import SpoolLook

    looks, look = [], SpoolLook.look

    def counted(self):
        looks.append(self)
        return look(self)

    monkeypatch.setattr(SpoolLook, "look", counted)
    monkeypatch.setattr("airflow_provider_varian.triggers.dicom.next_due", lambda interval: 0.0)  # all at once
    put(spool, 1)

    async def scene():
        triggers = [received(receiver="night", deferrable=True).trigger() for _ in range(50)]
        async with asyncio.timeout(30):
            return await asyncio.gather(*(anext(trigger.run()) for trigger in triggers))

    assert {event.payload["status"] for event in asyncio.run(scene())} == {"success"}
    assert len(looks) == 1


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"keys": {"PatientID": PATIENT}}, "Choose from StudyInstanceUID"),
        ({"receiver": "day"}, "no standing receiver 'day'"),
        ({"receiver": "", "dicom_conn_id": "bare"}, "names a standing receiver"),
        ({"at_least": 0}, "at_least"),
    ],
)
def test_what_cannot_be_waited_for_fails_at_once(spool, context, connect, deferrable, wrong, says):
    connect("bare")
    with pytest.raises(AirflowFailException, match=says) as raised:
        received(**{"receiver": "night", "deferrable": deferrable} | wrong).execute(context())
    assert PATIENT not in str(raised.value)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_receiver_that_is_not_running_is_an_error_worth_a_retry(spool, context, deferrable):
    spool.close()
    sensor = received(receiver="night", deferrable=deferrable, max_transient_failures=1)
    with pytest.raises(TransientDicomError if deferrable else ReceiverUnavailableError, match="no receiver is running"):
        resumed(sensor, context()) if deferrable else sensor.execute(context())


def test_what_a_receiver_left_is_enough_although_it_is_not_running(spool, context):
    put(spool, 1)
    spool.close()
    assert received(receiver="night").execute(context())["count"] == 1
