"""Operators with a connection that names a standing receiver: its spool on this host, or its store elsewhere."""

from __future__ import annotations

import json
import threading

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_varian.errors import ReceiverUnavailableError
from airflow_provider_varian.hooks.dicom import DicomHook
from airflow_provider_varian.operators.retrieve import DicomGetOperator, DicomMoveOperator, DicomRetrieveOperator
from airflow_provider_varian.receiver.admission import Entry
from airflow_provider_varian.receiver.publishing import Publisher
from airflow_provider_varian.receiver.spool import Spool
from airflow_provider_varian.receiver.standing import ReceiverSettings, StandingReceiver
from airflow_provider_varian.retrieval.destination import Destination
from airflow_provider_varian.retrieval.store_place import StorePlace
from airflow_provider_varian.simulator.daemon.behaviour import Behaviour

PLANS = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}
COUNT = 6


@pytest.fixture
def receiver(tmp_path, receiver_port, monkeypatch):
    """A standing receiver at the trusted entity's port, named ``night``."""
    settings = ReceiverSettings(
        spool=tmp_path / "standing",
        entries=(Entry(ae_title="AIRFLOW", networks=()),),
        host="127.0.0.1",
        port=receiver_port,
    )
    with StandingReceiver(settings) as running:
        monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", json.dumps({"night": str(settings.spool)}))
        yield running


@pytest.fixture
def standing(daemon, connect):
    """A connection without a port of ours."""
    return connect(
        "standing",
        port=daemon.address[1],
        receiver="night",
        timezone="Europe/Zurich",
        profile_overrides={"settle_seconds": 0.2, "stable_interval_seconds": 0.01},
    )


def filed(storage):
    return [path for path in storage.rglob("*.dcm") if ".dicom" not in path.parts]


@pytest.mark.parametrize("operator", [DicomRetrieveOperator, DicomMoveOperator])
def test_objects_come_through_the_spool_on_this_host(standing, receiver, context, storage, tmp_path, operator):
    told = operator(task_id="r", dicom_conn_id=standing, keys=PLANS).execute(context())
    assert (told["outcome"], told["counts"]["verified"], len(filed(storage))) == ("complete", COUNT, COUNT)
    assert list(receiver.spool.unclaimed()) == []
    assert not (tmp_path / "spool").exists()


def test_objects_come_through_the_store_of_a_receiver_elsewhere(
    standing, receiver, context, storage, tmp_path, monkeypatch
):
    monkeypatch.setattr(StorePlace, "skew_seconds", 0.1)
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", json.dumps({"night": f"file://{tmp_path}/published"}))
    publisher, over = Publisher(receiver.spool, Destination(f"{tmp_path}/published")), threading.Event()

    def keep_publishing():
        while not over.wait(0.05):
            publisher.run_once()

    thread = threading.Thread(target=keep_publishing)
    thread.start()
    try:
        told = DicomRetrieveOperator(task_id="r", dicom_conn_id=standing, keys=PLANS).execute(context())
    finally:
        over.set()
        thread.join()
    assert (told["outcome"], told["counts"]["verified"], len(filed(storage))) == ("complete", COUNT, COUNT)
    assert told["counts"]["duplicate"] == 0
    # The local spool is where they were on their way.
    assert list(Spool(tmp_path / "spool").unclaimed()) == []


def test_a_name_that_nobody_knows_fails_at_once_and_lists_those_that_there_are(standing, context, daemon, monkeypatch):
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", '{"day": "/srv/day", "nihgt": "/srv/night"}')
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=standing, keys=PLANS)
    with pytest.raises(AirflowFailException, match=r"no standing receiver 'night'.* knows day, nihgt"):
        operator.execute(context())
    assert not daemon.counts["C-MOVE"]


def test_a_receiver_that_does_not_run_is_worth_a_retry(standing, receiver, context, daemon):
    receiver.stop()
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=standing, keys=PLANS, port_wait_seconds=0.0)
    with pytest.raises(ReceiverUnavailableError, match="no receiver is running"):
        operator.execute(context())
    assert not daemon.counts["C-MOVE"]


def test_get_does_not_need_it(standing, context, daemon, storage, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", json.dumps({"night": str(tmp_path / "nowhere")}))
    daemon.behaviour = Behaviour(get=True)
    told = DicomGetOperator(task_id="r", dicom_conn_id=standing, keys=PLANS).execute(context())
    assert (told["outcome"], len(filed(storage))) == ("complete", COUNT)


def test_the_hook_uses_it_too(standing, receiver):
    hook = DicomHook(standing)
    result = hook.retrieve(hook.select("IMAGE", PLANS), retrieval_id="00000000-0000-5000-8000-000000000004")
    assert str(result.outcome) == "complete"
