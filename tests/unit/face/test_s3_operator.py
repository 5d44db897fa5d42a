"""Retrieving as a task into S3, by the path type of Airflow and a connection of its own."""

from __future__ import annotations

import json

import pytest
from airflow.sdk.io import attach
from airflow.sdk.io import store as airflow_store
from support import s3

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError
from airflow_provider_varian.operators.manifest_xcom import MANIFEST_KEY
from airflow_provider_varian.operators.retrieve import DicomRetrieveOperator

PLANS = {"PatientID": "QA_TB_WL", "Modality": "RTPLAN"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with s3.store(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def bucket(store, monkeypatch):
    """A bucket that Airflow reaches by the connection ``archive``, as the Amazon provider would make it so."""
    monkeypatch.setattr(airflow_store, "_STORE_CACHE", {})
    with store.bucket() as made:
        attach("s3", "archive", fs=made.fs)
        yield made


def retrieve_into(bucket, aria, context):
    destination = f"s3://archive@{bucket.name}/qa"
    return DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, destination=destination).execute(context)


def test_a_task_retrieves_into_a_bucket_and_its_rerun_moves_nothing(bucket, aria, context, daemon, storage):
    at = context()
    told = retrieve_into(bucket, aria, at)
    assert told["outcome"] == "complete"
    contents = bucket.contents()
    name = told["manifest"].rpartition("/qa/")[2]
    assert told["manifest"].startswith("s3://")
    assert name.startswith(".dicom/")
    manifest = json.loads(contents[name])
    assert {entry["path"]: entry["bytes"] for entry in manifest["instances"]} == {
        key: len(content) for key, content in contents.items() if not key.startswith(".dicom/")
    }
    assert at["ti"].xcoms(MANIFEST_KEY)[-1]["uri"] == told["manifest"]
    assert not storage.exists()
    moves = daemon.counts["C-MOVE"]
    assert retrieve_into(bucket, aria, context())["counts"]["held"] == told["counts"]["verified"] > 0
    assert daemon.counts["C-MOVE"] == moves


def test_a_store_that_denies_fails_the_task_before_anything_is_moved(bucket, aria, context, daemon):
    bucket.door.before = lambda request: 403
    with pytest.raises(DestinationWriteError, match="credentials have to list, read, write and remove"):
        retrieve_into(bucket, aria, context())
    assert daemon.counts["C-MOVE"] == 0


def test_a_store_that_no_provider_knows_says_what_to_install(aria, context, daemon, monkeypatch):
    monkeypatch.setattr(airflow_store, "_STORE_CACHE", {})
    monkeypatch.setattr("airflow.sdk.io.fs._register_filesystems", dict)
    operator = DicomRetrieveOperator(task_id="r", dicom_conn_id=aria, keys=PLANS, destination="s3://archive@bucket/qa")
    with pytest.raises(Exception, match="apache-airflow-providers-amazon") as caught:
        operator.execute(context())
    assert isinstance(caught.value, ConfigurationError) or isinstance(caught.value.__cause__, ConfigurationError)
    assert daemon.counts["C-MOVE"] == 0
