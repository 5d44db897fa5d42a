"""A plan set in a folder of its own: whole or said not to be, transferred once, and touched only when it changes."""

from __future__ import annotations

import csv
import json
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk.io import attach
from airflow.sdk.io import store as airflow_store
from pydicom import dcmread
from support import plan_exports, s3
from support.deferring import deferred, fired, going_on
from support.faulty import Faulty
from support.identifiers import found_in
from support.plan_exports import (
    DANGLING,
    PLAIN,
    TWICE,
    exported,
    index_of,
    plan_uids,
    row_of,
    told_of,
    week_of,
    words_of,
)
from support.ports import wait_until
from support.quiet import BEFORE, QUIET, WITHIN, Clock
from support.third_party import FilingStation

from airflow_provider_varian.aria.plan_set import Standing
from airflow_provider_varian.aria.plan_set_resolver import PatientChart
from airflow_provider_varian.errors import DicomError, IncompleteRetrievalError, PeerUnreachableError
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.hooks.settings import storage_root
from airflow_provider_varian.operators.aria import AriaPlanExportOperator
from airflow_provider_varian.operators.manifest_xcom import MANIFEST_KEY
from airflow_provider_varian.operators.plan_pool import sweep_pools
from airflow_provider_varian.operators.plan_report import write_plan_index
from airflow_provider_varian.operators.plan_rows import PlanRow, parse_plan, write_plans
from airflow_provider_varian.reports.account import find_accounts
from airflow_provider_varian.reports.check import check_account
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity


@pytest.fixture(scope="module")
def clinic():
    return plan_exports.clinic()


@pytest.fixture(scope="module")
def words(clinic):
    return words_of(clinic)


@pytest.fixture
def station(tmp_path):
    """Another entity, which the daemon knows as VMSFD."""
    with FilingStation(tmp_path / "station") as running:
        yield running


@pytest.fixture
def daemon(clinic, receiver_port, station):
    trusted = [
        TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=receiver_port),
        TrustedEntity(ae_title="VMSFD", host=station.address[0], port=station.address[1]),
    ]
    with SimulatedDaemon(Faulty(clinic), trusted=trusted) as running:
        yield running


@pytest.fixture
def week(context):
    def make(**ti):
        return week_of(context, **{"task_id": "export", **ti})

    return make


def _transferred(daemon) -> int:
    return daemon.counts["sub-operations"]


def test_the_folder_holds_the_plan_set_and_says_that_it_is_whole(aria, week, clinic, storage, daemon):
    at = week()
    told = exported(aria, at, plan=row_of(clinic, PLAIN))
    (uid,) = plan_uids(clinic, PLAIN)
    assert (told["outcome"], told["plan_uid"], told["changed"]) == ("complete", uid, True)
    plan = clinic.case(PLAIN).plans[0]
    index = index_of(storage, uid)
    objects = {each["sop_instance_uid"]: each for each in index["objects"]}
    assert objects.keys() == {
        uid,
        plan.structure_set.sop_instance_uid,
        *plan.structure_set.images.instance_uids,
        *(dose.sop_instance_uid for dose in plan.doses),
        *(record.sop_instance_uid for record in plan.records),
    }
    files = {str(path.relative_to(storage / uid)) for path in (storage / uid).rglob("*.dcm")}
    assert files == {each["path"] for each in objects.values()}
    for name, each in objects.items():
        assert str(dcmread(storage / uid / each["path"], stop_before_pixels=True).SOPInstanceUID) == name
    assert told["transferred"] == _transferred(daemon) == len(objects)
    assert told["bytes"] == sum(each["bytes"] for each in objects.values())


def test_the_account_is_a_manifest_that_can_be_verified(aria, week, clinic, storage):
    at = week()
    told = exported(aria, at, plan=row_of(clinic, PLAIN))
    outcomes = [each["outcome"] for each in at["ti"].xcoms(MANIFEST_KEY)]
    assert (outcomes[0], outcomes[-1]) == ("pending", "complete")
    (account,) = find_accounts(storage)
    assert (account.path, account.problem) == (told["manifest"].removeprefix("file://"), "")
    assert check_account(account).is_well
    (image,) = list((storage / told["plan_uid"] / "CT").iterdir())[:1]
    image.write_bytes(image.read_bytes()[:-2] + b"xx")
    assert not check_account(account).is_well


def test_a_rerun_and_another_week_move_nothing_and_touch_nothing(aria, week, clinic, storage, daemon):
    exported(aria, week(), plan=row_of(clinic, PLAIN))
    moved = _transferred(daemon)
    before = {path: path.stat().st_mtime_ns for path in (storage / plan_uids(clinic, PLAIN)[0]).rglob("*")}
    for run in ("run", "next week"):
        told = exported(aria, week(run_id=run), plan=row_of(clinic, PLAIN))
        assert (told["outcome"], told["transferred"], told["changed"]) == ("complete", 0, False)
    assert _transferred(daemon) == moved
    assert {path: path.stat().st_mtime_ns for path in (storage / plan_uids(clinic, PLAIN)[0]).rglob("*")} == before


def test_the_next_week_brings_the_records_that_are_new(aria, week, clinic, storage, daemon):
    late = clinic.case(PLAIN).plans[0].records[-1].sop_instance_uid
    daemon.holdings.hidden = lambda uid: uid == late
    exported(aria, week(), plan=row_of(clinic, PLAIN))
    daemon.holdings.hidden = lambda uid: False
    told = exported(aria, week(run_id="next"), plan=row_of(clinic, PLAIN))
    assert (told["transferred"], told["changed"], told["counts"]["record"]) == (1, True, {"held": 2})
    assert (storage / told["plan_uid"] / "RTRECORD" / f"{late}.dcm").exists()


def test_the_next_week_does_not_read_again_what_is_never_exported(aria, week, clinic, storage, daemon):
    """To know whose a dose is, the patient's other plan is read."""
    exported(aria, week(), plan=row_of(clinic, TWICE))
    assert list(storage.glob(f".dicom/pool/*/*/{plan_uids(clinic, TWICE)[1]}.dcm"))
    moved = _transferred(daemon)
    exported(aria, week(run_id="next"), plan=row_of(clinic, TWICE))
    assert _transferred(daemon) == moved
    # Unless nobody has used the pools for so long that they may go any moment.
    for sign in storage.glob(".dicom/pool/*/pool.json"):
        sign.write_text(json.dumps({"used": (datetime.now(UTC) - timedelta(days=13.5)).isoformat()}))
    exported(aria, week(run_id="a fortnight later"), plan=row_of(clinic, TWICE))
    assert _transferred(daemon) == moved + 1


def test_two_plans_share_what_one_run_transferred(aria, week, clinic, storage, daemon):
    told = [exported(aria, week(map_index=n), plan=row_of(clinic, TWICE, n)) for n in (0, 1)]
    one, other = (storage / uid / "CT" for uid in plan_uids(clinic, TWICE))
    images = {path.name for path in one.iterdir()}
    assert images == {path.name for path in other.iterdir()}
    assert images
    assert [each["outcome"] for each in told] == ["complete", "complete"]
    distinct = {path.name for path in storage.glob("[0-9]*/*/*.dcm")}
    assert _transferred(daemon) == len(distinct)
    assert told[1]["transferred"] < told[0]["transferred"]
    assert all((one / name).samefile(other / name) for name in images)


def test_two_plans_at_the_same_time_transfer_what_they_share_once(aria, week, clinic, storage, daemon):
    told = []

    def export(number: int) -> None:
        told.append(exported(aria, week(map_index=number), plan=row_of(clinic, TWICE, number)))

    tasks = [threading.Thread(target=export, args=(number,)) for number in (0, 1)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert [each["outcome"] for each in told] == ["complete", "complete"]
    assert _transferred(daemon) == len({path.name for path in storage.glob("[0-9]*/*/*.dcm")})
    assert not list(storage.glob(".dicom/locks/*"))


def test_an_incomplete_set_fails_by_name_and_its_folder_says_so(aria, week, clinic, storage):
    at = week()
    (uid,) = plan_uids(clinic, DANGLING)
    operator = AriaPlanExportOperator(task_id="export", dicom_conn_id=aria, plan=row_of(clinic, DANGLING))
    with pytest.raises(IncompleteRetrievalError, match=rf"incomplete: plan {uid}: .*missing: 1 structure set \("):
        operator.execute(at)
    assert told_of(at)["outcome"] == index_of(storage, uid)["state"] == "incomplete"
    (missing,) = [each for each in index_of(storage, uid)["plan_set"]["members"] if each["standing"] == "missing"]
    assert missing["role"] == "structure_set"
    assert (storage / uid / "RTPLAN").exists()


@pytest.mark.parametrize(("listed_whole", "kind"), [(True, AirflowFailException), (False, IncompleteRetrievalError)])
def test_an_unclear_set_fails_at_once_and_one_of_a_short_list_is_tried_again(
    aria, week, clinic, monkeypatch, listed_whole, kind
):
    resolve = PatientChart.resolve

    def unclear(self, plan, **settings):
        found = resolve(self, plan, **settings)
        if not listed_whole:
            return replace(found, listed_whole=False)
        *others, last = found.members
        return replace(found, members=(*others, replace(last, standing=Standing.AMBIGUOUS, reason="two plans name it")))

    monkeypatch.setattr(PatientChart, "resolve", unclear)
    at = week()
    words = "two plans name it" if listed_whole else "counts more of the patient's objects than it lists"
    with pytest.raises(kind, match=f"ambiguous: .*{words}"):
        AriaPlanExportOperator(task_id="export", dicom_conn_id=aria, plan=row_of(clinic, PLAIN)).execute(at)
    assert told_of(at)["outcome"] == "ambiguous"


def test_an_object_that_is_not_exported_makes_the_set_incomplete_and_comes_with_a_retry(
    aria, week, clinic, storage, daemon
):
    (dose,) = (each.sop_instance_uid for each in clinic.case(PLAIN).plans[0].doses)
    daemon.holdings.broken = lambda uid: uid == dose
    at = week()
    with pytest.raises(IncompleteRetrievalError, match="did not come: 1 plan dose"):
        AriaPlanExportOperator(task_id="export", dicom_conn_id=aria, plan=row_of(clinic, PLAIN)).execute(at)
    (account,) = find_accounts(storage)
    assert (account.outcome, account.problem) == ("partial", "")
    daemon.holdings.broken = lambda uid: False
    told = exported(aria, week(), plan=row_of(clinic, PLAIN))
    assert (told["outcome"], told["transferred"]) == ("complete", 1)


def test_a_plan_that_cannot_be_exported_itself_is_told_as_such(aria, week, clinic, daemon):
    daemon.holdings.broken = lambda uid: uid in plan_uids(clinic, PLAIN)
    told = exported(aria, week(), plan=row_of(clinic, PLAIN))
    assert (told["outcome"], told["counts"]) == ("incomplete", {"plan": {"not_exportable": 1}})


def test_a_daemon_that_goes_away_amid_it_is_worth_a_retry_which_asks_for_the_rest(
    aria, week, clinic, storage, daemon, monkeypatch
):
    retrieve, gone = DicomHook.retrieve, []

    def going(self, request, **settings):
        if len(gone) == 2:
            gone.append(True)
            raise PeerUnreachableError("the daemon restarts", peer="VMSDBD")
        gone.append(True)
        return retrieve(self, request, **settings)

    monkeypatch.setattr(DicomHook, "retrieve", going)
    at = week()
    with pytest.raises(PeerUnreachableError):
        AriaPlanExportOperator(task_id="export", dicom_conn_id=aria, plan=row_of(clinic, PLAIN)).execute(at)
    assert told_of(at)["outcome"] == "failed"
    assert "the daemon restarts" in told_of(at)["message"]
    (account,) = find_accounts(storage)
    assert (account.path, account.outcome) == (told_of(at)["manifest"].removeprefix("file://"), "pending")
    told = exported(aria, week(), plan=row_of(clinic, PLAIN))
    assert told["outcome"] == "complete"
    assert _transferred(daemon) == len(index_of(storage, told["plan_uid"])["objects"])


def _wait_for(conn: str) -> None:
    def answers() -> bool:
        try:
            DicomHook(conn).echo()
        except DicomError:
            return False
        return True

    wait_until(answers, seconds=60, what="the daemon to be back", every=0.1)


def test_a_daemon_that_restarts_amid_the_images_costs_a_retry_and_nothing_else(aria, week, clinic, storage, daemon):
    images = clinic.case(PLAIN).plans[0].structure_set.images.instance_uids
    restarted = []

    def restart(uid: str) -> bool:
        if uid == images[2] and not restarted:
            restarted.append(time.monotonic())
            daemon.behaviour = replace(daemon.behaviour, restart_seconds=3.0, restart_refuses=True)
        return False

    daemon.holdings.broken = restart
    at = week()
    with pytest.raises(DicomError) as error:
        AriaPlanExportOperator(task_id="export", dicom_conn_id=aria, plan=row_of(clinic, PLAIN)).execute(at)
    assert error.value.transient
    assert told_of(at)["outcome"] == "failed"
    _wait_for(aria)
    told = exported(aria, week(), plan=row_of(clinic, PLAIN))
    assert (told["outcome"], index_of(storage, told["plan_uid"])["state"]) == ("complete", "complete")
    # What had come before stays: plan, structure set, dose and records, and the images before the restart.
    assert 0 < told["transferred"] <= len(images)


def test_a_plan_that_is_not_there_fails_at_once_or_as_it_is_told(aria, week, clinic):
    row = row_of(clinic, PLAIN) | {"plan_uid": "1.2.3"}
    at = week()
    with pytest.raises(AirflowFailException, match=r"the patient has no plan 1\.2\.3"):
        exported(aria, at, plan=row)
    assert told_of(at)["outcome"] == "not found"
    with pytest.raises(AirflowSkipException):
        exported(aria, week(), plan=row, on_empty="skip")
    assert exported(aria, week(), plan=row, on_empty="accept")["outcome"] == "not found"


def test_a_plan_can_be_named_by_label_and_course(aria, week, clinic, words):
    case = clinic.case(TWICE)
    row = {"patient_id": case.patient_id, "plan_label": case.plans[1].label, "course": case.plans[1].study.study_id}
    told = exported(aria, week(), plan=row, parts=["plan"])
    assert told["plan_uid"] == case.plans[1].sop_instance_uid
    at = week()
    with pytest.raises(AirflowFailException, match="2 plans bear the label"):
        exported(aria, at, plan=row | {"course": ""}, parts=["plan"])
    assert told_of(at)["outcome"] == "failed"
    at = week()
    with pytest.raises(AirflowFailException, match="none of the patient's 2 plans bears the label") as error:
        exported(aria, at, plan=row | {"plan_label": "Spine_20"}, parts=["plan"])
    assert told_of(at)["outcome"] == "not found"
    assert found_in((str(error.value) + json.dumps(told_of(at))).encode(), words) == []


def test_parts_are_what_is_exported(aria, week, clinic, storage):
    told = exported(aria, week(), plan=row_of(clinic, PLAIN), parts=("plan", "plan_dose"))
    assert {path.name for path in (storage / told["plan_uid"]).iterdir()} == {"RTPLAN", "RTDOSE", "plan-set.json"}


WRONG = {
    "a part that is none": ({"parts": ["ct"]}, "one of parts is 'ct'"),
    "parts as a text": ({"parts": "plan"}, "parts is a text"),
    "two plans": ({"row_key": "k", "rows_uri": "/x"}, "is told no plan, or two"),
    "two ways to send": ({"move_destination": "PACS", "store_conn_id": "x"}, "two ways to send"),
    "a third party that is none": ({"verify_path": "/x"}, "there is none"),
    "no such choice": ({"on_partial": "ignore"}, "on_partial is 'ignore'"),
    "no such way": ({"on_empty": "ignore"}, "on_empty is 'ignore'"),
}


@pytest.mark.parametrize("changes", WRONG)
def test_what_contradicts_itself_is_refused_before_anybody_is_asked(aria, week, clinic, daemon, changes):
    settings, words = WRONG[changes]
    with pytest.raises(AirflowFailException, match=words):
        exported(aria, week(), plan=row_of(clinic, PLAIN), **settings)
    assert not daemon.counts["association"]


ROWS = {
    "no mapping": ("x", "no mapping"),
    "a key that is unknown": ({"patient": "x"}, "a plan has no patient"),
    "no patient": ({"patient_id": " ", "plan_uid": "1.2"}, "no patient_id"),
    "a UID that is none": ({"patient_id": "x", "plan_uid": "../1"}, "no UID"),
    "no plan": ({"patient_id": "x"}, "neither plan_uid nor plan_label"),
    "days as a text": ({"patient_id": "x", "plan_uid": "1.2", "days": "x"}, "days of a plan is no list"),
    "a number as a text": ({"patient_id": "x", "plan_uid": "1.2", "records": "1"}, "records of a plan is no number"),
    "a label that is none": ({"patient_id": "x", "plan_label": 1}, "plan_label of a plan is no text"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_plan_that_is_wrong_is_refused_without_its_values(row):
    with pytest.raises(Exception, match=ROWS[row][1]):
        parse_plan(ROWS[row][0])


# --- a bucket, another AE ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with s3.store(tmp_path_factory.mktemp("moto")) as running:
        yield running


def test_into_a_bucket(aria, week, clinic, store, daemon, monkeypatch):
    monkeypatch.setattr(airflow_store, "_STORE_CACHE", {})
    with store.bucket() as bucket:
        attach("s3", "archive", fs=bucket.fs)
        destination = f"s3://archive@{bucket.name}/qa"
        more = {"parts": ["plan", "record"], "destination": destination}
        told = exported(aria, week(), plan=row_of(clinic, PLAIN), **more)
        moved = _transferred(daemon)
        folder = f"{told['plan_uid']}/"
        contents = {name: content for name, content in bucket.contents().items() if name.startswith(folder)}
        index = json.loads(contents.pop(f"{folder}plan-set.json"))
        assert contents.keys() == {f"{folder}{each['path']}" for each in index["objects"]}
        again = exported(aria, week(), plan=row_of(clinic, PLAIN), **more)
    assert (told["outcome"], index["state"], told["folder"]) == (
        "complete",
        "complete",
        f"{destination}/{told['plan_uid']}",
    )
    assert (again["transferred"], again["changed"], _transferred(daemon)) == (0, False, moved)


def test_the_peer_sends_a_plan_set_to_another_ae_once_per_revision(aria, week, clinic, storage, station, daemon):
    row = row_of(clinic, PLAIN)
    told = exported(aria, week(), plan=row, move_destination="VMSFD")
    (uid,) = plan_uids(clinic, PLAIN)
    assert (told["outcome"], told["folder"]) == ("reported", "")
    assert len(station.got) == len(set(station.got)) == sum(each["held"] for each in told["counts"].values())
    assert not (storage / uid).exists()
    sent = len(station.got)
    again = exported(aria, week(run_id="next"), plan=row, move_destination="VMSFD")
    assert (again["outcome"], again["transferred"], len(station.got)) == ("reported", 0, sent)
    assert again["manifest"] == told["manifest"]


def test_another_ae_is_sent_what_is_new_alone(aria, week, clinic, station, daemon):
    late = clinic.case(PLAIN).plans[0].records[-1].sop_instance_uid
    daemon.holdings.hidden = lambda uid: uid == late
    exported(aria, week(), plan=row_of(clinic, PLAIN), move_destination="VMSFD")
    sent = list(station.got)
    daemon.holdings.hidden = lambda uid: False
    told = exported(aria, week(run_id="next"), plan=row_of(clinic, PLAIN), move_destination="VMSFD")
    assert station.got == [*sent, late]
    assert (told["outcome"], told["transferred"], told["counts"]["record"]) == ("reported", 1, {"held": 2})
    # And then all of it has been sent.
    told = exported(aria, week(run_id="third"), plan=row_of(clinic, PLAIN), move_destination="VMSFD")
    assert (told["outcome"], told["transferred"], len(station.got)) == ("reported", 0, len(sent) + 1)


@pytest.mark.parametrize(("refresh", "again"), [("always", 3), ("never", 0)])
def test_plan_structure_set_and_doses_go_again_as_it_is_told(aria, week, clinic, station, daemon, refresh, again):
    exported(aria, week(), plan=row_of(clinic, PLAIN), move_destination="VMSFD")
    sent = len(station.got)
    settings = {"move_destination": "VMSFD", "refresh": refresh}
    told = exported(aria, week(run_id="next"), plan=row_of(clinic, PLAIN), **settings)
    plan = clinic.case(PLAIN).plans[0]
    changing = {plan.sop_instance_uid, plan.structure_set.sop_instance_uid, plan.doses[0].sop_instance_uid}
    assert set(station.got[sent:]) == (changing if again else set())
    assert (told["outcome"], told["transferred"]) == ("reported", again)


@pytest.mark.parametrize("part", ["plan_dose", "image"])
def test_what_another_ae_does_not_get_makes_the_set_incomplete(aria, week, clinic, station, daemon, part):
    """A dose is missed when it is to be read, a slice when it is to be sent."""
    (plan,) = clinic.case(PLAIN).plans
    lost = plan.doses[0].sop_instance_uid if part == "plan_dose" else plan.structure_set.images.instance_uids[1]
    daemon.holdings.broken = lambda uid: uid == lost
    sent = []
    for _ in ("a try", "another one, which asks for nothing else"):
        told = exported(aria, week(), plan=row_of(clinic, PLAIN), move_destination="VMSFD")
        assert (told["outcome"], told["counts"][part]["not_exportable"]) == ("incomplete", 1)
        assert f"did not come: 1 {part.replace('_', ' ')}" in told["message"]
        sent.append(len(station.got))
    assert sent[0] == sent[1] == len(set(station.got))
    daemon.holdings.broken = lambda uid: False
    assert exported(aria, week(), plan=row_of(clinic, PLAIN), move_destination="VMSFD")["outcome"] == "reported"
    assert station.got[sent[1] :] == [lost]


def test_a_folder_is_stored_at_a_peer_and_what_it_took_is_not_sent_again(aria, week, clinic, station, connect):
    host, port = station.address
    connect("research", host=host, port=port, called_ae_title="VMSFD", allow_store=True)
    row = row_of(clinic, PLAIN)
    told = exported(aria, week(), plan=row, store_conn_id="research")
    assert (told["outcome"], told["sent"]["outcome"]) == ("complete", "complete")
    sent = len(station.got)
    assert sent == len(set(station.got)) == sum(each["held"] for each in told["counts"].values())
    exported(aria, week(run_id="next"), plan=row, store_conn_id="research")
    assert len(station.got) == sent


def test_a_peer_is_stored_what_is_new_alone(aria, week, clinic, station, connect, daemon):
    host, port = station.address
    connect("research", host=host, port=port, called_ae_title="VMSFD", allow_store=True)
    late = clinic.case(PLAIN).plans[0].records[-1].sop_instance_uid
    daemon.holdings.hidden = lambda uid: uid == late
    # Also where each of plan, structure set and dose comes anew, with the time of another export in it.
    settings = {"store_conn_id": "research", "refresh": "always"}
    exported(aria, week(), plan=row_of(clinic, PLAIN), **settings)
    sent = list(station.got)
    daemon.holdings.hidden = lambda uid: False
    told = exported(aria, week(run_id="next"), plan=row_of(clinic, PLAIN), **settings)
    assert told["transferred"] == 4
    assert station.got == [*sent, late]


def test_a_peer_that_may_not_be_written_to_is_refused_before_anybody_is_asked(aria, week, clinic, connect, daemon):
    connect("research", port=1, called_ae_title="VMSFD")
    with pytest.raises(AirflowFailException, match="store"):
        exported(aria, week(), plan=row_of(clinic, PLAIN), store_conn_id="research")
    assert not daemon.counts["association"]


# --- the end of a run -------------------------------------------------------------------------------


@pytest.fixture
def run(aria, week, clinic):
    """Export the plans of some patients as a run does, and write its index."""

    def make(*numbers: int, identifying: bool = False, skip: tuple[str, ...] = (), **ti):
        plans = [
            PlanRow(**row_of(clinic, number, n), days=("2026-07-30",), records=1, machines=("TrueBeam1",))
            for number in numbers
            for n in range(len(plan_uids(clinic, number)))
        ]
        listing = week(task_id="plans", **ti)
        about = {"first_day": "2026-07-24", "last_day": "2026-07-31", "warnings": ["a list did not stand still"]}
        rows = write_plans(listing, storage_root(), plans, **about)
        results = [
            exported(aria, week(map_index=n, **ti), row_key=key, rows_uri=rows.uri)
            for n, key in enumerate(rows.keys)
            if plans[n].plan_uid not in skip
        ]
        written = write_plan_index(
            week(task_id="summary", **ti), rows.uri, results, dicom_conn_id=aria, identifying=identifying
        )
        return {name: Path(uri.removeprefix("file://")) for name, uri in written.to_json().items()}

    return make


def test_the_index_is_a_table_of_pseudonyms_for_machines_and_people(run, clinic, storage, words, caplog):
    files = run(DANGLING, TWICE)
    assert files["csv"] == storage / "index" / "weekly" / "2026-07-24_2026-07-31.csv"
    with files["csv"].open(newline="") as file:
        lines = {line["plan_uid"]: line for line in csv.DictReader(file)}
    one, other, dangling = (lines[uid] for uid in (*plan_uids(clinic, TWICE), *plan_uids(clinic, DANGLING)))
    assert one["patient"] == other["patient"] != dangling["patient"]
    assert (one["outcome"], one["images"], one["records_in_window"], one["machines"]) == (
        "complete",
        "4",
        "1",
        "TrueBeam1",
    )
    assert (dangling["outcome"], dangling["missing"], dangling["structure_sets"]) == ("incomplete", "1", "0")
    told = json.loads(files["json"].read_text())
    assert told["outcomes"] == {"complete": 2, "incomplete": 1}
    assert "3 plans of 2 patients, 2026-07-24 to 2026-07-31: 2 complete, 1 incomplete" in files["text"].read_text()
    assert "a list did not stand still" in files["text"].read_text()
    assert files["text"].read_text().strip() in caplog.text
    for file in files.values():
        assert found_in(file.read_bytes(), words) == []


def test_an_identifying_index_is_for_its_owner_alone_and_the_log_is_none(run, clinic, caplog, words):
    files = run(TWICE, identifying=True)
    assert clinic.case(TWICE).patient_id in files["csv"].read_text()
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o600}
    assert found_in(caplog.text.encode(), words) == []


def test_a_plan_whose_task_told_nothing_is_in_the_index(run, clinic):
    (uid,) = plan_uids(clinic, PLAIN)
    (line,) = json.loads(run(PLAIN, skip=(uid,))["json"].read_text())["plans"]
    assert (line["plan_uid"], line["outcome"]) == (uid, "no result")


def test_the_pool_keeps_nothing_that_the_plans_have(run, storage, clinic):
    run(TWICE)
    assert not list(storage.glob(".dicom/pool/*/*/*.dcm"))
    assert len(list(storage.glob("[0-9]*/*/*.dcm"))) > 8


def test_the_pool_stays_while_a_plan_is_not_exported(run, storage, daemon, aria, week, clinic):
    run(DANGLING)
    assert list(storage.glob(".dicom/pool/*/*/*.dcm"))


def test_pools_that_nobody_has_used_for_two_weeks_go_away(run, storage, week):
    run(DANGLING, run_id="old")
    (sign,) = storage.glob(".dicom/pool/*/pool.json")
    at = week(run_id="new")
    for days, there in ((13, True), (15, False)):
        sign.write_text(json.dumps({"used": (datetime.now(UTC) - timedelta(days=days)).isoformat()}))
        sweep_pools(at, storage_root())
        assert sign.parent.exists() is there


def test_nothing_that_leaves_the_storage_names_a_patient(aria, week, clinic, storage, words, caplog):
    """XCom, logs, errors, paths, indexes and manifests; the search finds what is where it belongs."""
    pushed = []
    for number in (DANGLING, TWICE):
        at = week(map_index=number)
        exported(aria, at, plan=row_of(clinic, number))
        pushed += at["ti"].pushed
    at = week()
    with pytest.raises(AirflowFailException) as error:
        exported(aria, at, plan=row_of(clinic, PLAIN) | {"plan_uid": "1.2.3"})
    pushed += at["ti"].pushed
    assert found_in(json.dumps(pushed).encode(), words) == []
    assert found_in((caplog.text + str(error.value)).encode(), words) == []
    for path in [*storage.glob(".dicom/*.json"), *storage.glob("*/plan-set.json")]:
        assert found_in(path.read_bytes(), words) == []
    assert found_in("\n".join(map(str, storage.rglob("*"))).encode(), words) == []
    (image, *_) = storage.glob("[0-9]*/CT/*.dcm")
    assert found_in(image.read_bytes(), words)


def test_with_label_the_plans_own_index_tells_it(aria, week, clinic, storage):
    told = exported(aria, week(), plan=row_of(clinic, PLAIN), parts=["plan"], with_label=True)
    assert index_of(storage, told["plan_uid"])["plan_set"]["label"] == clinic.case(PLAIN).plans[0].label


def test_quiet_hours_in_the_middle_of_an_export_give_the_worker_back(
    daemon, receiver_port, connect, week, clinic, storage, monkeypatch
):
    clock = Clock(monkeypatch, BEFORE)
    conn = connect(
        "quiet",
        port=daemon.address[1],
        receiver_host="127.0.0.1",
        receiver_port=receiver_port,
        profile_overrides={"settle_seconds": 0.2, "stable_interval_seconds": 0.01},
        **QUIET,
    )

    def begin_quiet_hours(uid):
        clock.now = WITHIN if clock.now == BEFORE else clock.now
        return False

    daemon.holdings.broken = begin_quiet_hours
    at = week()
    settings = {"task_id": "export", "dicom_conn_id": conn, "plan": row_of(clinic, PLAIN), "deferrable": True}
    put_off = deferred(lambda: AriaPlanExportOperator(**settings).execute(at))
    left = at["ti"].xcoms(MANIFEST_KEY)[-1]
    assert (left["outcome"], put_off.arguments) == ("pending", {"dicom_conn_id": conn})
    assert not at["ti"].xcoms("plan_export")  # nothing has failed
    clock.over_after(3)
    told = going_on(put_off, AriaPlanExportOperator(**settings), at, fired(put_off.trigger))()
    (uid,) = plan_uids(clinic, PLAIN)
    assert (told["outcome"], _transferred(daemon)) == ("complete", len(index_of(storage, uid)["objects"]))
    assert json.loads(Path(told["manifest"].removeprefix("file://")).read_text())["attempts"] == 1
