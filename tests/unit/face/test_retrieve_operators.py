"""Retrieving as a task: complete or said to be incomplete, what is missing on a retry, nothing twice."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from pydicom import dcmread
from support.changing_plan import ChangingPlan

from airflow_provider_varian.errors import (
    CancelledError,
    CroppedAnswerError,
    EmptyResultError,
    IncompleteRetrievalError,
    PeerUnreachableError,
    PermanentRejectionError,
    RefusedByPeerError,
)
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.manifest_xcom import MANIFEST_KEY
from airflow_provider_varian.operators.retrieve import DicomGetOperator, DicomMoveOperator, DicomRetrieveOperator
from airflow_provider_varian.simulator.clinic.linacs import TRUEBEAM1
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour

PLANS = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}
#: How many those are.
COUNT = sum(len(course.plans) for course in TRUEBEAM1.courses)
ALL_BUT_ONE = f"{COUNT - 1} of {COUNT}"


def _files(storage: Path) -> list[Path]:
    return sorted(storage.rglob("*.dcm"))


def test_objects_come_and_the_manifest_is_told_from_the_start(aria, context, storage):
    at = context()
    told = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(at)
    assert told["outcome"] == "complete"
    assert len(_files(storage)) == told["counts"]["verified"] == COUNT
    manifests = at["ti"].xcoms(MANIFEST_KEY)
    assert manifests[0]["outcome"] == "pending"
    assert manifests[-1] == {"uri": told["manifest"], "outcome": "complete", "counts": told["counts"]}
    assert json.loads(Path(told["manifest"].removeprefix("file://")).read_text())["outcome"] == "complete"


def test_keys_destination_and_layout_are_templated(aria, context, tmp_path):
    operator = DicomRetrieveOperator(
        task_id="r",
        dicom_conn_id="{{ conn }}",
        keys={"PatientID": "{{ patient }}", "Modality": "RTPLAN"},
        level="{{ level }}",
        destination="{{ folder }}",
        layout="plans/{Modality}.{SOPInstanceUID}.dcm",
    )
    operator.render_template_fields(
        {"conn": aria, "patient": "QA_TB_WL", "level": "image", "folder": str(tmp_path / "out")}
    )
    operator.execute(context())
    assert len(list((tmp_path / "out" / "plans").glob("RTPLAN.*.dcm"))) == COUNT


def test_a_rerun_moves_nothing(aria, context, daemon, storage):
    DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(context())
    moves = daemon.counts["C-MOVE"]
    told = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(context())
    assert daemon.counts["C-MOVE"] == moves
    assert told["counts"]["held"] == COUNT


def test_partial_fails_and_the_retry_asks_for_the_missing_alone(aria, context, daemon, storage):
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS)
    broken = {operator.hook.find("IMAGE", PLANS).answers[0]["SOPInstanceUID"]}
    daemon.holdings.broken = lambda uid: uid in broken
    with pytest.raises(IncompleteRetrievalError, match=ALL_BUT_ONE):
        operator.execute(context())
    assert len(_files(storage)) == COUNT - 1
    broken.clear()
    before = daemon.counts["C-MOVE"]
    told = operator.execute(context())
    assert daemon.counts["C-MOVE"] == before + 1
    assert (told["outcome"], told["counts"]["held"]) == ("complete", COUNT - 1)


def test_a_kill_ends_the_task_in_time_and_the_retry_completes_it(aria, context, daemon, storage):
    sending, let_go = threading.Event(), threading.Event()

    def hang(uid):
        sending.set()
        let_go.wait(30)
        return False

    daemon.holdings.broken = hang
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS)
    at = context()
    killed = []

    def kill():
        if sending.wait(30):
            killed.append(time.monotonic())
            operator.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(CancelledError):
        operator.execute(at)
    ended = time.monotonic()
    killer.join()
    assert ended - killed[0] < 5  # then SIGKILL would follow
    assert at["ti"].xcoms(MANIFEST_KEY)[-1]["outcome"] == "pending"
    let_go.set()
    daemon.holdings.broken = lambda uid: False
    told = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(context())
    assert told["outcome"] == "complete"
    assert len(_files(storage)) == COUNT


def test_partial_may_be_accepted(aria, context, daemon):
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, on_partial="accept")
    lost = operator.hook.find("IMAGE", PLANS).answers[0]["SOPInstanceUID"]
    daemon.holdings.broken = lambda uid: uid == lost
    told = operator.execute(context())
    assert told["outcome"] == "partial"
    assert told["counts"]["missing"] == 1


def test_fewer_than_the_minimum_are_short(aria, context):
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, minimum=COUNT + 1)
    with pytest.raises(IncompleteRetrievalError, match="short"):
        operator.execute(context())


@pytest.mark.parametrize(("on_empty", "error"), [("skip", AirflowSkipException), ("fail", EmptyResultError)])
def test_nothing_found_skips_or_fails(aria, context, on_empty, error):
    operator = DicomRetrieveOperator(
        task_id="r", dicom_conn_id=aria, keys={"PatientID": "NOBODY", "Modality": "RTPLAN"}, on_empty=on_empty
    )
    with pytest.raises(error, match="nothing was found"):
        operator.execute(context())


@pytest.mark.parametrize(
    "keys",
    [{"PatientID": "NOBODY", "Modality": "RTPLAN"}, {"SeriesInstanceUID": "1.2.3"}, {"StudyDescription": "nothing"}],
)
def test_nothing_found_may_be_accepted_and_has_a_manifest(aria, context, keys):
    at = context()
    level = "STUDY" if "StudyDescription" in keys else None
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=keys, level=level, on_empty="accept")
    told = operator.execute(at)
    assert told["outcome"] == "empty"
    assert at["ti"].xcoms(MANIFEST_KEY)[-1] == {"uri": told["manifest"], "outcome": "empty", "counts": told["counts"]}
    assert json.loads(Path(told["manifest"].removeprefix("file://")).read_text())["outcome"] == "empty"


@pytest.mark.parametrize("keys", [{"PatientID": "NOBODY", "Modality": "RTPLAN"}, {"SeriesInstanceUID": "1.2.3"}])
def test_nothing_where_a_minimum_should_be_is_short_and_fails(aria, context, keys):
    at = context()
    with pytest.raises(IncompleteRetrievalError, match=f"short: nothing was found; at least {COUNT + 1} are expected"):
        DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=keys, minimum=COUNT + 1).execute(at)
    assert at["ti"].xcoms(MANIFEST_KEY)[-1]["outcome"] == "short"
    accepted = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=keys, minimum=COUNT + 1, on_partial="accept")
    assert accepted.execute(context())["outcome"] == "short"


def test_a_third_party_move_of_nothing_moves_nothing(aria, context, daemon):
    def move(**kwargs):
        keys = {"PatientID": "NOBODY", "Modality": "RTPLAN"}
        DicomMoveOperator(task_id="r", dicom_conn_id=aria, keys=keys, move_destination="NOBODY", **kwargs).execute(
            context()
        )

    with pytest.raises(AirflowSkipException, match="nothing was found"):
        move()
    with pytest.raises(IncompleteRetrievalError, match="short: nothing was found"):
        move(minimum=COUNT + 1)
    assert daemon.counts["C-MOVE"] == 0


def test_skipping_is_the_default_and_holds_for_a_series_that_is_not_there(aria, context):
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys={"SeriesInstanceUID": "1.2.3"})
    with pytest.raises(AirflowSkipException):
        operator.execute(context())


def test_get_brings_the_same_without_a_receiver(aria, context, daemon, storage):
    daemon.behaviour = Behaviour(get=True)
    told = DicomGetOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(context())
    assert told["outcome"] == "complete"
    assert daemon.counts["C-MOVE"] == 0
    assert len(_files(storage)) == COUNT


def test_get_from_a_daemon_without_it_fails_at_once(aria, context):
    with pytest.raises(AirflowFailException, match="C-GET"):
        DicomGetOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(context())


def test_move_does_not_use_get(aria, context, daemon):
    daemon.behaviour = Behaviour(get=True)
    DicomMoveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(context())
    assert daemon.counts["C-GET"] == 0
    assert daemon.counts["C-MOVE"] > 0


def test_a_third_party_move_to_an_unknown_destination_fails_at_once(aria, context):
    operator = DicomMoveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, move_destination="STRANGER")
    with pytest.raises(AirflowFailException, match="move destination unknown"):
        operator.execute(context())


@pytest.mark.parametrize(
    "choice", [{"on_partial": "ignore"}, {"on_empty": "ignore"}, {"refresh": "ignore"}, {"verify": "ignore"}]
)
def test_an_unknown_choice_is_refused_before_any_network(aria, context, daemon, choice):
    with pytest.raises(AirflowFailException, match="ignore"):
        DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, **choice).execute(context())
    assert not daemon.counts


@pytest.mark.parametrize(
    ("refresh", "label", "versions"), [("if_changed", "B", 1), ("always", "B", 1), ("never", "A", 0)]
)
def test_a_plan_that_was_approved_since_is_fetched_again_and_the_old_one_kept(
    aria, context, daemon, storage, tmp_path, refresh, label, versions
):
    plan = ChangingPlan(daemon, tmp_path / "served")

    def run(run_id):
        operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, refresh=refresh)
        return operator.execute(context(run_id=run_id))

    run("monday")
    plan.write(ApprovalStatus="APPROVED", ReviewDate="20260102", RTPlanLabel="B")
    told = run("tuesday")
    assert (told["outcome"], told["counts"]["verified"]) == ("complete", 1)
    (path,) = [path for path in _files(storage) if ".dicom" not in path.parts]
    assert dcmread(path).RTPlanLabel == label
    assert len(list((storage / ".dicom" / "versions").rglob("*.dcm"))) == versions
    moves = daemon.counts["C-MOVE"]
    assert run("wednesday")["outcome"] == "complete"
    assert daemon.counts["C-MOVE"] - moves == (refresh == "always")


def test_how_long_to_wait_for_the_peer_may_be_said(aria, context, monkeypatch):
    given = {"stable_counts": 2, "stable_interval_seconds": 0.0, "settle_seconds": 0.1, "recheck_rounds": 0}
    seen = {}
    select, retrieve = DicomHook.select, DicomHook.retrieve

    def selecting(self, *args, **kwargs):
        seen["select"] = kwargs
        return select(self, *args, **kwargs)

    def retrieving(self, *args, **kwargs):
        seen["retrieve"] = kwargs
        return retrieve(self, *args, **kwargs)

    monkeypatch.setattr(DicomHook, "select", selecting)
    monkeypatch.setattr(DicomHook, "retrieve", retrieving)
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, verify="hash", **given)
    assert operator.execute(context())["outcome"] == "complete"
    assert seen["retrieve"] | given | {"verify": "hash", "refresh": "if_changed"} == seen["retrieve"]
    assert seen["select"] | {"stable_counts": 2, "stable_interval_seconds": 0.0} == seen["select"]


@pytest.mark.parametrize(("rounds", "lists"), [(None, 6), (1, 6), (0, 3)])
def test_the_list_is_asked_for_again_after_the_transfer(aria, context, daemon, rounds, lists):
    DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, recheck_rounds=rounds).execute(context())
    assert daemon.counts["C-FIND"] == lists


@pytest.mark.parametrize(("counts", "lists"), [(None, 3), (1, 1), (5, 5)])
def test_a_list_is_stable_after_as_many_as_are_said(aria, context, daemon, counts, lists):
    operator = DicomRetrieveOperator(
        task_id="r", dicom_conn_id=aria, keys=PLANS, recheck_rounds=0, stable_counts=counts
    )
    operator.execute(context())
    assert daemon.counts["C-FIND"] == lists


def _lose_one(operator, daemon) -> None:
    lost = operator.hook.find("IMAGE", PLANS).answers[0]["SOPInstanceUID"]
    daemon.holdings.broken = lambda uid: uid == lost


def test_a_destination_that_is_unknown_by_now_fails_at_once_although_some_objects_are_here(
    aria, context, daemon, connect, receiver_port
):
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS)
    _lose_one(operator, daemon)
    with pytest.raises(IncompleteRetrievalError, match=ALL_BUT_ONE):
        operator.execute(context())
    stranger = connect(
        "stranger", port=daemon.address[1], receiver_port=receiver_port, timezone="UTC", move_destination="STRANGER"
    )
    again = DicomRetrieveOperator(task_id="r", dicom_conn_id=stranger, keys=PLANS)
    with pytest.raises(
        AirflowFailException, match=rf"partial: {ALL_BUT_ONE} .*move destination unknown .*Trusted.*see file:"
    ):
        again.execute(context())
    accepting = DicomRetrieveOperator(task_id="r", dicom_conn_id=stranger, keys=PLANS, on_partial="accept")
    assert accepting.execute(context())["outcome"] == "partial"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (PermanentRejectionError("rejected"), AirflowFailException),
        (RefusedByPeerError("not authorised", status=0x0124), AirflowFailException),
        (RefusedByPeerError("these keys are not taken", status=0xA900), IncompleteRetrievalError),
        (CroppedAnswerError("ended early", status=0xFE00), IncompleteRetrievalError),
        (PeerUnreachableError("refused"), IncompleteRetrievalError),
        (None, IncompleteRetrievalError),
    ],
    ids=lambda value: getattr(value, "what", None),
)
def test_partial_is_retried_unless_what_went_wrong_would_meet_the_retry_too(
    aria, context, daemon, monkeypatch, error, raised
):
    retrieve = DicomHook.retrieve
    monkeypatch.setattr(DicomHook, "retrieve", lambda *args, **kwargs: replace(retrieve(*args, **kwargs), error=error))
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS)
    _lose_one(operator, daemon)
    with pytest.raises(raised, match=f"partial: {ALL_BUT_ONE}"):
        operator.execute(context())


def test_short_is_retried_whatever_went_wrong_on_the_way(aria, context, monkeypatch):
    retrieve, error = DicomHook.retrieve, PermanentRejectionError("rejected")
    monkeypatch.setattr(DicomHook, "retrieve", lambda *args, **kwargs: replace(retrieve(*args, **kwargs), error=error))
    with pytest.raises(IncompleteRetrievalError, match="short"):
        DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, minimum=COUNT + 1).execute(context())


@pytest.mark.parametrize(("days", "kept"), [(None, False), ("30", True), ("0", True)])
def test_the_retention_of_the_spool_is_the_configured_one(aria, context, tmp_path, monkeypatch, days, kept):
    left = tmp_path / "spool" / "new" / "00" / f"1.2.3.{'0' * 36}.dcm"
    left.parent.mkdir(parents=True)
    left.touch()
    os.utime(left, (0, time.time() - 20 * 86400))
    if days is not None:
        monkeypatch.setenv("AIRFLOW__VARIAN__SPOOL_RETENTION_DAYS", days)
    monkeypatch.setattr("airflow_provider_varian.receiver.sweep.INTERVAL_SECONDS", 0.0)
    DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS).execute(context())
    assert left.exists() is kept
