"""Triggers: many wait for one peer in one round, nothing blocks the loop, and nobody's name is kept."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from support.audit_schema import checked, event, participant
from support.identifiers import forms_of, found_in
from support.kept_triggers import made_again
from support.ports import free_port, wait_until
from support.quiet import AFTER, QUIET, WITHIN, Clock
from support.scripted_peer import PENDING, UNTIL_CANCELLED, ScriptedPeer, dataset

from airflow_provider_varian.errors import ConfigurationError, QueryError
from airflow_provider_varian.triggers import sealing
from airflow_provider_varian.triggers.dicom import (
    DicomEchoTrigger,
    DicomFindTrigger,
    DicomReceivedTrigger,
    DicomTrigger,
)
from airflow_provider_varian.triggers.keys_text import keys_of, text_of

NAME = "Sommer^Anna"
PATIENT = "ZH-4711-Sommer"


@pytest.fixture
def scripted():
    peer = ScriptedPeer()
    yield peer
    peer.stop()


@pytest.fixture
def clinic(scripted, connect):
    """A connection to a peer that holds two studies of one patient."""
    scripted.serve(
        [dataset(StudyInstanceUID=f"1.2.{number}", PatientID=PATIENT, PatientName=NAME) for number in (1, 2)]
    )
    return connect("clinic", port=scripted.port)


def find(conn, patient=PATIENT, **settings):
    settings = {"poke_interval": 0.2, "level": "STUDY", "keys": {"PatientID": patient}} | settings
    return DicomFindTrigger(dicom_conn_id=conn, **settings)


@pytest.fixture
def together(monkeypatch):
    """Let those who begin together ask together, however busy the machine is: each poll is due at once."""
    monkeypatch.setattr("airflow_provider_varian.triggers.dicom.next_due", lambda interval: 0.0)


@pytest.fixture
def log(caplog, monkeypatch):
    """What triggers log as well, which in Airflow goes another way."""
    monkeypatch.setattr(DicomTrigger, "log", logging.getLogger("trigger"))
    caplog.set_level(logging.DEBUG)
    return caplog


async def fired(trigger):
    """Return the payload of the first event."""
    return (await anext(trigger.run())).payload


def run(coroutine):
    async def bounded():
        async with asyncio.timeout(60):
            return await coroutine

    return asyncio.run(bounded())


def run_all(*triggers):
    async def scene():
        return await asyncio.gather(*(fired(trigger) for trigger in triggers))

    return run(scene())


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def dicom_threads():
    """What runs for an association: pynetdicom's threads at either end, and ours that stop them; no pool's."""
    names = ("dicom-cancellation", "dicom-stop", "AcceptorThread", "RequestorThread", "Thread-")
    return {thread for thread in threading.enumerate() if thread.name.startswith(names)}


# -------------------------------------------------------------------------------------------------- what Airflow keeps


@pytest.mark.parametrize(
    "trigger",
    [
        DicomEchoTrigger(dicom_conn_id="c", poke_interval=7.5, max_transient_failures=3, query=True),
        DicomFindTrigger(
            dicom_conn_id="c",
            level="STUDY",
            keys={"PatientID": PATIENT},
            at_least=2,
            stable_polls=3,
            stable_seconds=4.0,
        ),
        DicomReceivedTrigger(
            dicom_conn_id="c", receiver="night", keys=text_of({"Modality": "CT"}), at_least=5, quiet_seconds=30.0
        ),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_a_trigger_is_made_again_from_what_airflow_keeps(trigger):
    again = made_again(trigger)
    if isinstance(trigger, DicomFindTrigger):
        assert keys_of(sealing.unseal(again.serialize()[1]["keys"])) == {"PatientID": PATIENT}


def test_no_identifier_is_in_what_airflow_keeps_or_prints():
    trigger = find("c", keys={"PatientID": PATIENT, "PatientName": NAME})
    kept = json.dumps(trigger.serialize()) + repr(trigger)
    forms = set(forms_of(PATIENT, NAME))
    assert found_in(
        text_of({"PatientID": PATIENT, "PatientName": NAME}).encode(), forms
    )  # the search finds what is there
    assert not found_in(kept.encode(), forms)


def test_dates_and_sequences_come_through():
    from datetime import UTC, date, datetime

    keys = {
        "StudyDate": [date(2026, 11, 20), None],
        "AcquisitionDateTime": datetime(2026, 11, 20, 7, tzinfo=UTC),
        "ReferencedRTPlanSequence": {"ReferencedSOPInstanceUID": "1.2"},
        "Modality": None,
        "InstanceNumber": 3,
    }
    assert keys_of(sealing.unseal(sealing.seal(text_of(keys)))) == keys


def test_a_value_that_cannot_be_kept_is_named_by_its_keyword():
    with pytest.raises(QueryError, match="PatientID is a object") as raised:
        find("c", keys={"PatientID": object()})
    assert "object at" not in str(raised.value)


def test_a_query_that_was_encrypted_with_another_key_says_so(clinic, monkeypatch):
    from cryptography.fernet import Fernet

    other = Fernet(Fernet.generate_key()).encrypt(text_of({"PatientID": PATIENT}).encode()).decode()
    told = run(fired(find(clinic, keys=other)))
    assert (told["status"], told["transient"]) == ("error", False)
    assert "same [core] fernet_key" in told["message"]


def test_without_a_key_nothing_is_kept_in_clear(monkeypatch):
    from airflow.models import crypto

    monkeypatch.setattr(crypto, "get_fernet", lambda: SimpleNamespace(is_encrypted=False))
    with pytest.raises(ConfigurationError, match="fernet_key is empty"):
        find("c").serialize()


# --------------------------------------------------------------------------------------------------------- the rounds


def test_fifty_on_one_peer_are_one_association_a_round_and_equal_queries_are_put_once(scripted, clinic, together):
    patients = [PATIENT, *(f"P{number}" for number in range(4))]

    def script(request):
        # As of the third round every query has an answer.
        if scripted.associations >= 3:
            yield PENDING, dataset(StudyInstanceUID="1.2.1", PatientID=request.value("PatientID"))

    scripted.script = script
    triggers = [find(clinic, patients[number % 5]) for number in range(50)]
    told = run_all(*triggers)
    assert [each["facts"]["count"] for each in told] == [1] * 50
    assert scripted.associations == 3
    assert scripted.most_open == 1
    asked = [request.value("PatientID") for request in scripted.requests]
    assert sorted(asked) == sorted(patients * 3)


def test_echo_and_queries_of_one_peer_share_the_round(scripted, clinic, together):
    told = run_all(
        DicomEchoTrigger(dicom_conn_id=clinic, poke_interval=0.2),
        DicomEchoTrigger(dicom_conn_id=clinic, poke_interval=0.2, query=True),
        find(clinic),
    )
    assert [each["status"] for each in told] == ["success"] * 3
    assert scripted.associations == 1


@pytest.mark.parametrize(("waiting", "step"), [("echo", "C-ECHO"), ("find", "C-FIND"), ("both", "C-ECHO and C-FIND")])
def test_a_peer_that_cannot_be_reached_is_told_with_what_was_to_be_asked(connect, together, waiting, step):
    conn = connect("gone", port=free_port())
    echo = DicomEchoTrigger(dicom_conn_id=conn, poke_interval=0.2, max_transient_failures=0)
    triggers = {"echo": [echo], "find": [find(conn, max_transient_failures=0)]}
    for told in run_all(*triggers.get(waiting, [*triggers["echo"], *triggers["find"]])):
        assert told["message"].startswith(f"{step} with VMSDBD@127.0.0.1"), told["message"]


def test_two_connections_with_the_same_settings_are_one_peer(scripted, clinic, connect):
    release = threading.Event()

    def script(request):
        release.wait(30)
        yield PENDING, dataset(StudyInstanceUID="1.2.1", PatientID=PATIENT)

    scripted.script = script
    connect("twin", port=scripted.port)
    twin = find("twin")

    async def scene():
        first = asyncio.create_task(fired(find(clinic)))
        await until(lambda: scripted.requests)
        second = asyncio.create_task(fired(twin))
        await until(lambda: twin._waiter is not None)
        await asyncio.sleep(1.0)  # it is due by now
        assert scripted.associations == 1
        release.set()
        await asyncio.gather(first, second)

    run(scene())
    assert scripted.most_open == 1


def test_the_connection_is_looked_up_once_and_never_in_the_loop(scripted, clinic, monkeypatch):
    from airflow_provider_varian.hooks.dicom import DicomHook

    looked_up, look_up = [], DicomHook.aget_connection

    async def counted(conn_id):
        looked_up.append(conn_id)
        return await look_up(conn_id)

    monkeypatch.setattr(DicomHook, "aget_connection", staticmethod(counted))
    monkeypatch.setattr(DicomHook, "get_connection", lambda *_: pytest.fail("a synchronous look-up"))
    run_all(*(find(clinic) for _ in range(20)))
    assert looked_up == [clinic]


def test_a_look_up_that_hangs_holds_up_no_other_and_is_begun_again_after_it_failed(
    scripted, clinic, connect, monkeypatch
):
    from airflow_provider_varian.hooks.dicom import DicomHook

    look_up, may_answer, tried = DicomHook.aget_connection, asyncio.Event(), []

    async def hanging(conn_id):
        if conn_id == "late":
            tried.append(conn_id)
            await may_answer.wait()
            if len(tried) == 1:
                raise AirflowNotFoundException("not yet")
        return await look_up(conn_id)

    monkeypatch.setattr(DicomHook, "aget_connection", staticmethod(hanging))
    connect("late", port=scripted.port)

    async def scene():
        waiting = [asyncio.create_task(fired(find("late", max_transient_failures=0))) for _ in range(3)]
        assert (await fired(find(clinic)))["status"] == "success"
        waiting.pop().cancel()  # takes the look-up from nobody
        may_answer.set()
        assert [told["status"] for told in await asyncio.gather(*waiting)] == ["error"] * 2
        assert tried == ["late"]
        return await fired(find("late"))

    assert run(scene())["status"] == "success"


def test_a_connection_that_airflow_does_not_give_is_asked_for_again_and_not_for_ever():
    told = run(fired(find("nowhere", poke_interval=0.1, max_transient_failures=2)))
    assert (told["status"], told["transient"]) == ("error", True)
    assert "no connection 'nowhere'" in told["message"]
    assert "Airflow's API" in told["message"]


def test_an_api_that_does_not_answer_for_a_while_ends_nobodys_wait(scripted, clinic, monkeypatch):
    from airflow_provider_varian.hooks.dicom import DicomHook

    look_up, asked = DicomHook.aget_connection, []

    async def away(conn_id):
        asked.append(conn_id)
        if len(asked) < 3:
            raise AirflowNotFoundException("as Airflow says it")
        return await look_up(conn_id)

    monkeypatch.setattr(DicomHook, "aget_connection", staticmethod(away))
    told = run_all(find(clinic), find(clinic))
    assert [each["status"] for each in told] == ["success"] * 2
    assert asked == ["clinic"] * 3


def test_the_budget_is_kept_while_others_work_with_the_peer(scripted, connect):
    from airflow_provider_varian.hooks.dicom import DicomHook

    scripted.serve([dataset(StudyInstanceUID="1.2.1", PatientID=PATIENT)])
    conn = connect("small", port=scripted.port, max_associations=1)

    async def scene():
        task = asyncio.create_task(fired(find(conn)))
        with DicomHook(conn).find_session():
            await asyncio.sleep(0.8)
            assert not task.done()
            assert scripted.associations == 1
        return await task

    assert run(scene())["status"] == "success"
    assert scripted.most_open == 1


def test_a_slow_peer_and_a_dead_one_delay_no_other(scripted, clinic, connect):
    slow, release = ScriptedPeer(), threading.Event()

    def script(request):
        release.wait(30)
        yield from ()

    slow.script = script
    connect("slow", port=slow.port)
    connect("dead", port=free_port())

    async def scene():
        waiting = [asyncio.create_task(fired(find(conn))) for conn in ("slow", "dead")]
        await until(lambda: slow.requests)
        assert (await fired(find(clinic)))["status"] == "success"
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        release.set()

    try:
        run(scene())
    finally:
        release.set()
        slow.stop()


def test_a_query_on_which_the_daemon_hangs_up_keeps_nobody_waiting_for_ever(scripted, clinic, together):
    def script(request):
        if request.value("PatientID") == "BAD":
            scripted.abort_all()
        yield PENDING, dataset(StudyInstanceUID="1.2.1", PatientID=request.value("PatientID"))

    scripted.script = script

    async def scene():
        bad = asyncio.create_task(fired(find(clinic, "BAD", max_transient_failures=2)))
        await asyncio.sleep(0)
        # The first time they are behind it, and never again.
        good = [asyncio.create_task(fired(find(clinic, f"P{number}", max_transient_failures=1))) for number in range(5)]
        return await asyncio.gather(bad, *good)

    bad, *good = run(scene())
    assert [each["status"] for each in good] == ["success"] * 5
    assert (bad["status"], bad["transient"]) == ("error", True)


# ------------------------------------------------------------------------------------------------------ what is told


def test_an_event_has_counts_and_names_nobody(clinic, log):
    told = run(fired(find(clinic, keys={"PatientID": PATIENT, "PatientName": ""}, at_least=2)))
    assert told == {"status": "success", "message": "2 answers", "facts": {"count": 2, "whole": True}}
    forms = set(forms_of(PATIENT, NAME))
    assert "C-FIND" in log.text
    assert not found_in((json.dumps(told) + log.text).encode(), forms)


def test_fewer_answers_than_are_waited_for_are_not_enough(scripted, clinic):
    polls = iter([1, 1, 2])

    def script(request):
        for number in range(next(polls)):
            yield PENDING, dataset(StudyInstanceUID=f"1.2.{number}", PatientID=PATIENT)

    scripted.script = script
    assert run(fired(find(clinic, at_least=2)))["facts"] == {"count": 2, "whole": True}
    assert len(scripted.requests) == 3


def test_no_more_answers_are_asked_for_than_are_waited_for(scripted, clinic):
    def script(request):
        for number in range(1, 5):
            yield PENDING, dataset(StudyInstanceUID=f"1.2.{number}", PatientID=PATIENT)
        yield UNTIL_CANCELLED, None

    scripted.script = script
    assert run(fired(find(clinic, at_least=3)))["facts"] == {"count": 3, "whole": False}
    assert scripted.cancelled.wait(10)


def test_answers_have_to_stay_the_same_value_by_value(scripted, clinic):
    series = iter([1, 2, 3, 3, 3, 3])

    def script(request):
        yield PENDING, dataset(StudyInstanceUID="1.2.1", PatientID=PATIENT, NumberOfStudyRelatedSeries=next(series))

    scripted.script = script
    keys = {"PatientID": PATIENT, "NumberOfStudyRelatedSeries": ""}
    told = run(fired(find(clinic, keys=keys, stable_polls=3)))
    assert told["facts"] == {"count": 1, "whole": True}
    assert len(scripted.requests) == 5


def test_answers_have_to_stay_the_same_for_a_while(scripted, clinic):
    began = time.monotonic()
    run(fired(find(clinic, stable_seconds=1.0)))
    assert time.monotonic() - began >= 1.0
    assert scripted.associations >= 2


def test_a_permanent_error_ends_it_at_once(clinic, scripted):
    told = run(fired(find(clinic, keys={"PatientId": "X"})))
    assert (told["status"], told["transient"]) == ("error", False)
    assert "Did you mean PatientID" in told["message"]
    assert len(scripted.requests) == 0


@pytest.mark.parametrize(
    ("wrong", "says"), [({"at_least": 0}, "at_least is 0"), ({"stable_polls": 1.5}, "stable_polls")]
)
def test_a_wrong_number_ends_it_at_once(clinic, scripted, wrong, says):
    told = run(fired(find(clinic, **wrong)))
    assert (told["status"], told["transient"]) == ("error", False)
    assert says in told["message"]
    assert scripted.associations == 0


def test_transient_errors_are_borne_so_many_in_a_row_and_no_more(scripted, clinic):
    # Two errors, an answer, three errors: the third in a row is too many.
    polls = iter([False, False, True, False, False, False])

    def script(request):
        if not next(polls):
            yield 0xA700, None

    scripted.script = script
    told = run(fired(find(clinic, max_transient_failures=2)))
    assert (told["status"], told["transient"]) == ("error", True)
    assert "0xA700" in told["message"]
    assert len(scripted.requests) == 6


def test_the_log_says_what_is_new_and_what_to_do(scripted, clinic, log):
    polls = iter([0, 0, 0, 1, 1, 2])

    def script(request):
        count = next(polls)
        if not count:
            yield 0xA700, None
        for number in range(count):
            yield PENDING, dataset(StudyInstanceUID=f"1.2.{number}", PatientID=PATIENT)

    scripted.script = script
    run(fired(find(clinic, at_least=2)))
    told = [(each.levelname, each.getMessage()) for each in log.records if "not yet" in each.getMessage()]
    (warned, error), (informed, seen) = told
    assert (warned, informed, seen) == ("WARNING", "INFO", "not yet: 1 of 2 answers")
    assert "0xA700" in error
    assert error.count(". ") >= 1  # a hint follows


def test_quiet_hours_cost_neither_an_association_nor_an_error(scripted, connect, monkeypatch):
    clock = Clock(monkeypatch, WITHIN)
    scripted.serve([dataset(StudyInstanceUID="1.2.1", PatientID=PATIENT)])
    conn = connect("quiet", port=scripted.port, **QUIET)

    async def scene():
        task = asyncio.create_task(fired(find(conn, max_transient_failures=0)))
        await until(lambda: clock.looks > 5)
        assert not task.done()
        assert scripted.associations == 0
        clock.now = AFTER
        return await task

    assert run(scene())["status"] == "success"
    assert scripted.associations == 1


def test_the_audit_trail_is_told_once_of_each_trigger_and_for_its_task(
    scripted, clinic, together, tmp_path, monkeypatch
):
    folder = tmp_path / "audit"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("AIRFLOW__VARIAN__AUDIT", str(folder / "audit.xml"))
    polls = iter(range(3))

    def script(request):
        if next(polls) == 2:
            yield PENDING, dataset(StudyInstanceUID="1.2.1", PatientID=PATIENT)

    scripted.script = script
    triggers = [find(clinic), find(clinic)]
    for number, trigger in enumerate(triggers):
        # As the triggerer sets it.
        trigger.task_instance = SimpleNamespace(
            dag_id="dag", run_id="run", task_id=f"wait_{number}", map_index=-1, try_number=1
        )
    run_all(*triggers)
    messages = [checked(line) for line in (folder / "audit.xml").read_text(encoding="utf-8").splitlines()]
    assert [event(each) for each in messages] == ["110112", "110112"]
    assert sorted(participant(each, "110151")["UserID"] for each in messages) == [
        f"dag_id=dag, run_id=run, task_id=wait_{number}, try_number=1" for number in (0, 1)
    ]


# ------------------------------------------------------------------------------------------------------------ leaving


@pytest.fixture
def hanging(scripted, clinic):
    """A peer that answers only when it is cancelled."""

    def script(request):
        yield UNTIL_CANCELLED, None

    scripted.script = script
    return clinic


def _gone(scripted, before):
    wait_until(lambda: not scripted.open, what="the end of the association")
    wait_until(lambda: dicom_threads() <= before, what="the end of its threads")


@pytest.mark.parametrize("how", ["cancel", "on_kill", "cleanup"])
def test_with_the_last_who_leaves_the_peer_is_let_go_of(scripted, hanging, how):
    before = dicom_threads()
    triggers = [find(hanging, f"P{number}") for number in range(3)]

    async def scene():
        tasks = [asyncio.create_task(fired(trigger)) for trigger in triggers]
        await until(lambda: scripted.requests)
        for task, trigger in zip(tasks, triggers, strict=True):
            if how == "cancel":
                task.cancel()
            else:
                await getattr(trigger, how)()
                await getattr(trigger, how)()  # twice does no harm
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

    run(scene())
    assert scripted.cancelled.wait(10)
    _gone(scripted, before)


def test_one_who_leaves_does_not_disturb_the_others(scripted, clinic):
    release = threading.Event()

    def script(request):
        release.wait(30)
        yield PENDING, dataset(StudyInstanceUID="1.2.1", PatientID=PATIENT)

    scripted.script = script

    async def scene():
        stays, leaves = asyncio.create_task(fired(find(clinic))), asyncio.create_task(fired(find(clinic)))
        await until(lambda: scripted.requests)
        leaves.cancel()
        await asyncio.wait([leaves])
        release.set()
        return await stays

    assert run(scene())["status"] == "success"
    assert scripted.associations == 1


def test_the_end_of_the_triggerer_lets_go_of_the_peer(scripted, hanging):
    before = dicom_threads()

    async def scene():
        task = asyncio.create_task(fired(find(hanging)))
        await until(lambda: scripted.requests)
        assert not task.done()  # the loop ends with it

    run(scene())
    _gone(scripted, before)


def test_an_iterator_that_is_dropped_leaves(scripted, hanging):
    before = dicom_threads()

    async def scene():
        events = find(hanging).run()
        task = asyncio.create_task(anext(events))
        await until(lambda: scripted.requests)
        task.cancel()
        await asyncio.wait([task])
        await events.aclose()

    run(scene())
    _gone(scripted, before)


# ----------------------------------------------------------------------------------------------------------- the loop


def test_nothing_blocks_the_loop(scripted, connect, caplog):
    """A peer that takes five seconds for everything; asyncio tells of each step of the loop that takes three."""

    def script(request):
        time.sleep(5)
        yield PENDING, dataset(StudyInstanceUID="1.2.1", PatientID=PATIENT)

    scripted.script = script
    conn = connect("slow", port=scripted.port)

    async def scene():
        asyncio.get_running_loop().slow_callback_duration = 3.0
        async with asyncio.timeout(60):
            return await asyncio.gather(*(fired(find(conn, keys=find(conn).serialize()[1]["keys"])) for _ in range(50)))

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        told = asyncio.run(scene(), debug=True)
    assert [each["status"] for each in told] == ["success"] * 50
    assert [record.getMessage() for record in caplog.records if "took" in record.getMessage()] == []
