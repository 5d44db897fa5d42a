"""A third-party move that the destination lists late: the triggerer asks it, and the operator goes on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from support.archive import Archive
from support.deferring import deferred, fired, going_on
from support.identifiers import forms_of, found_in
from support.quiet import AFTER, BEFORE, QUIET, WITHIN, Clock
from support.third_party import FilingStation

from airflow_provider_varian.errors import PeerUnreachableError
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.manifest_xcom import MANIFEST_KEY
from airflow_provider_varian.operators.retrieve import DicomMoveOperator
from airflow_provider_varian.retrieval import third_party_proof
from airflow_provider_varian.retrieval.ledger import Entry
from airflow_provider_varian.retrieval.third_party_proof import ListedAtPeer
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.triggers import sealing
from airflow_provider_varian.triggers.rounds import registry

PATIENT = "QA_TB_WL"
PLANS = {"PatientID": PATIENT, "Modality": "RTPLAN"}


@pytest.fixture
def third(daemon):
    """A research archive: what the daemon sends to it, it lists when a test says so."""
    with FilingStation(ae_title="THIRD") as station, Archive([]) as archive:
        station.kept = []
        station.on_store = station.kept.append
        station.archive = archive
        host, port = station.address
        trusted = {"AIRFLOW": ("127.0.0.1", 1), "THIRD": (host, port)}
        daemon.trust([TrustedEntity(ae_title=name, host=host, port=port) for name, (host, port) in trusted.items()])
        yield station


def lists(third, count=None):
    for _ in range(len(third.kept) if count is None else count):
        ds = third.kept.pop(0)
        third.archive.instances[str(ds.SOPInstanceUID)] = ds


@pytest.fixture
def keys(aria):
    """The keys of a series of images, the smallest of several."""
    answers = DicomHook(aria).find("IMAGE", {"PatientID": PATIENT, "Modality": "RTIMAGE"}).answers
    counts = Counter(str(answer["SeriesInstanceUID"]) for answer in answers)
    uid = min((uid for uid, count in counts.items() if count > 1), key=lambda uid: counts[uid])
    return {"SeriesInstanceUID": uid, "PatientID": PATIENT}


@pytest.fixture
def made(aria, connect, third, keys, monkeypatch):
    monkeypatch.setattr(third_party_proof, "WORTH_SECONDS", 0.1)
    about = {"profile": "generic", "information_model": "patient_root"}
    connect("research", port=third.archive.port, profile_overrides={"relational_queries": True}, **about)

    def make(**settings):
        about = {
            "task_id": "m",
            "dicom_conn_id": aria,
            "keys": keys,
            "level": "SERIES",
            "move_destination": "THIRD",
            "verify_dicom_conn_id": "research",
            "on_partial": "accept",
            "deferrable": True,
        }
        return DicomMoveOperator(**about | settings)

    return make


def waited(put_off):
    """Run the trigger, quickly."""
    put_off.arguments["poke_interval"] = 0.1
    return fired(put_off.trigger)


def manifest_of(at):
    return json.loads(Path(at["ti"].xcoms(MANIFEST_KEY)[-1]["uri"].removeprefix("file://")).read_text())


def moves(manifest):
    return [request["level"] for request in manifest["requests"]]


def test_what_is_listed_late_is_not_sent_twice(made, context, third):
    at = context()
    put_off = deferred(lambda: made().execute(at))
    count, manifest = len(third.got), manifest_of(at)
    assert (manifest["outcome"], manifest["counts"]["reported"], moves(manifest)) == ("pending", count, ["SERIES"])
    assert f"{count} instances are not listed by" in manifest["message"]
    lists(third)
    event = waited(put_off)
    assert event["facts"] == {"count": count, "waited_out": False}
    told = going_on(put_off, made(), at, event)()
    assert (told["outcome"], told["counts"]["listed"], told["counts"]["held"]) == ("complete", count, 0)
    manifest = manifest_of(at)
    assert (len(third.got), moves(manifest), manifest["attempts"]) == (count, ["SERIES"], 1)
    assert "waiting" not in manifest


def test_what_is_never_listed_is_sent_more_narrowly_and_then_is_missing(made, context, third):
    at = context()
    put_off = deferred(lambda: made().execute(at))
    count = len(third.got)
    lists(third, count - 1)
    lost = str(third.kept.pop().SOPInstanceUID)
    event = waited(put_off)
    assert event["facts"] == {"count": count - 1, "waited_out": True}
    looks = third.archive.finds
    again = deferred(going_on(put_off, made(), at, event))
    assert third.archive.finds == looks + 2  # one before it asks, without a further wait, and one afterwards
    assert third.got[count:] == [lost]  # that one alone
    assert moves(manifest_of(at)) == ["SERIES", "IMAGE"]
    told = going_on(again, made(), at, waited(again))()
    assert (told["outcome"], told["counts"]["listed"], told["counts"]["missing"]) == ("partial", count - 1, 1)
    manifest = manifest_of(at)
    assert (len(third.got), manifest["attempts"]) == (count + 1, 1)
    assert {each["attempts"] for each in manifest["instances"] if each["sop_instance_uid"] == lost} == {2}


def test_what_airflow_keeps_meanwhile_names_nobody(made, context, third, keys):
    at = context()
    put_off = deferred(lambda: made().execute(at))
    manifest = manifest_of(at)
    assert put_off.kind == "DicomListedTrigger"
    assert (put_off.kwargs, manifest["waiting"]["try"]) == ({"retrieval_id": manifest["id"]}, at["ti"].id)
    kept = json.dumps([put_off.path, put_off.arguments, put_off.kwargs, repr(put_off.trigger), waited(put_off)])
    words = set(forms_of(PATIENT, PATIENT))
    opened = sealing.unseal(put_off.arguments["series"])
    assert found_in(opened.encode(), words)  # a peer of the Patient Root model needs it
    assert not found_in(kept.encode(), words)


def test_it_is_kept_of_some_series_alone():
    proof = ListedAtPeer(
        DicomHook("x")._peer_of(_Connection()), profile=third_party_proof.Profile(name="generic"), patients={}
    )
    assert proof.left_to_others("id", [Entry(sop_instance_uid="1.1", series_instance_uid="2")], 60.0, 600.0) is None
    object.__setattr__(proof._peer, "deferred_as", "x")
    entries = [
        Entry(sop_instance_uid=f"1.{n}", study_instance_uid="3", series_instance_uid=f"2.{n}") for n in range(99)
    ]
    waiting = proof.left_to_others("id", entries, 60.0, 600.0)
    assert (len(waiting.awaited.series), waiting.awaited.series[0].at_least) == (50, 1)
    nowhere = [Entry(sop_instance_uid="1.1", study_instance_uid="3")]
    assert proof.left_to_others("id", nowhere, 60.0, 600.0) is None  # it would be asked for by its own UID


class _Connection:
    conn_type, host, port, login, password = "dicom", "127.0.0.1", 104, None, None
    extra_dejson = {"called_ae_title": "RESEARCH"}  # noqa: RUF012 - as Airflow's has it


def test_the_destinations_quiet_hours_are_waited_out_by_the_trigger(made, context, third, connect, monkeypatch):
    at = context()
    put_off = deferred(lambda: made().execute(at))
    clock = Clock(monkeypatch, WITHIN)
    about = {"profile": "generic", "information_model": "patient_root"}
    connect("research", port=third.archive.port, profile_overrides={"relational_queries": True}, **about, **QUIET)
    lists(third)
    clock.over_after(5)
    assert waited(put_off)["facts"]["waited_out"] is False
    assert clock.now == AFTER


def test_a_destination_that_is_gone_is_the_tasks_to_judge(made, context, third, connect):
    at = context()
    put_off = deferred(lambda: made().execute(at))
    third.archive.__exit__(None, None, None)
    put_off.arguments["max_transient_failures"] = 0
    event = waited(put_off)
    assert (event["status"], event["transient"]) == ("error", True)
    with pytest.raises(PeerUnreachableError):
        going_on(put_off, made(), at, event)()
    assert manifest_of(at)["outcome"] == "pending"


def test_a_folder_is_looked_at_in_the_task(made, context, third, tmp_path):
    third.folder = tmp_path / "filed"
    third.folder.mkdir()
    told = made(verify_dicom_conn_id=None, verify_path=str(third.folder)).execute(context())
    assert told["outcome"] == "complete"


def test_quiet_hours_between_two_moves_and_nothing_is_sent_twice(
    made, context, third, daemon, aria, connect, monkeypatch
):
    clock = Clock(monkeypatch, BEFORE)
    source = {"profile_overrides": {"stable_interval_seconds": 0.01}, **QUIET}
    conn = connect("source", port=daemon.address[1], **source)

    def begin_quiet_hours(ds):
        clock.now = WITHIN if clock.now == BEFORE else clock.now

    third.on_store = begin_quiet_hours
    settings = {"dicom_conn_id": conn, "keys": PLANS, "level": None, "verify_dicom_conn_id": None}
    at = context()
    put_off = deferred(lambda: made(**settings).execute(at))
    manifest = manifest_of(at)
    assert (put_off.arguments, manifest["outcome"], len(third.got)) == ({"dicom_conn_id": conn}, "pending", 1)
    assert manifest["counts"]["reported"] == 1
    clock.now = AFTER
    told = going_on(put_off, made(**settings), at, fired(put_off.trigger))()
    assert (told["outcome"], told["counts"]["held"]) == ("reported", 0)
    assert len(third.got) == len(set(third.got)) == told["counts"]["found"]
    assert manifest_of(at)["attempts"] == 1


def test_a_cancelled_trigger_leaves_the_rounds(made, context):
    put_off = deferred(lambda: made().execute(context()))
    put_off.arguments["poke_interval"] = 0.1

    async def scene():
        trigger = put_off.trigger
        waiting = asyncio.create_task(anext(trigger.run()))
        async with asyncio.timeout(30):
            while not any(rounds._waiting for _, rounds in registry()._rounds):
                await asyncio.sleep(0.001)
        ((_, rounds),) = registry()._rounds
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await trigger.cleanup()
        return [*rounds._waiting, *rounds._asked]

    assert asyncio.run(scene()) == []
