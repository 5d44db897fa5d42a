"""The ``[varian]`` section: its defaults under AIRFLOW_HOME, its values, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_varian.errors import ConfigurationError
from airflow_provider_varian.hooks import settings


@pytest.fixture(autouse=True)
def _unset(monkeypatch):
    for option in ("STORAGE_ROOT", "SPOOL_ROOT", "RECEIVERS", "SPOOL_RETENTION_DAYS"):
        monkeypatch.delenv(f"AIRFLOW__VARIAN__{option}", raising=False)


def test_defaults_lie_under_airflow_home():
    home = Path(os.environ["AIRFLOW_HOME"]).resolve()
    assert Path(settings.storage_root().path) == home / "dicom"
    assert settings.spool_root() == home / "dicom-spool"
    assert settings.receivers() == {}


def test_values_are_taken_as_they_are(monkeypatch, tmp_path):
    folder = tmp_path / "a b $ü"  # blanks and umlauts must not become percent escapes
    monkeypatch.setenv("AIRFLOW__VARIAN__STORAGE_ROOT", str(folder))
    monkeypatch.setenv("AIRFLOW__VARIAN__SPOOL_ROOT", str(folder / "spool"))
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", '{"night": "/srv/spool"}')
    assert Path(settings.storage_root().path) == folder
    assert settings.spool_root() == folder / "spool"
    assert settings.receivers() == {"night": "/srv/spool"}


def test_storage_may_be_an_object_store(monkeypatch):
    monkeypatch.setenv("AIRFLOW__VARIAN__STORAGE_ROOT", "s3://store@bucket/aria")
    assert str(settings.storage_root()) == "s3://store@bucket/aria"


@pytest.mark.parametrize("spool", ["s3://bucket/spool", "spool"])
def test_spool_is_a_local_absolute_folder(monkeypatch, spool):
    monkeypatch.setenv("AIRFLOW__VARIAN__SPOOL_ROOT", spool)
    with pytest.raises(ConfigurationError, match="spool_root"):
        settings.spool_root()


@pytest.mark.parametrize("receivers", ["night", '["night"]', '{"night": 1}', '{"night": ""}'])
def test_receivers_are_a_json_object_of_texts(monkeypatch, receivers):
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", receivers)
    with pytest.raises(ConfigurationError, match="receivers"):
        settings.receivers()


def test_a_receiver_is_a_spool_of_this_host_or_a_store(monkeypatch):
    named = '{"night": "/srv/spool", "far": "s3://store@bucket/arrivals", "shared": "file:///mnt/arrivals"}'
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", named)
    night, far, shared = (settings.named_receiver(name) for name in ("night", "far", "shared"))
    assert (night.spool_root, night.store, night.name) == (Path("/srv/spool"), None, "night")
    assert (far.spool_root, str(far.store)) == (None, "s3://store@bucket/arrivals")
    assert (shared.spool_root, str(shared.store)) == (None, "file:///mnt/arrivals")


@pytest.mark.parametrize(("receivers", "known"), [('{"day": "/a", "night": "/b"}', "day, night"), ("", "none")])
def test_a_receiver_that_is_not_known_is_told_which_ones_are(monkeypatch, receivers, known):
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", receivers)
    with pytest.raises(ConfigurationError, match=rf"no standing receiver 'nihgt'; \[varian\] receivers knows {known}"):
        settings.named_receiver("nihgt")


def test_a_receiver_at_a_relative_path_is_refused(monkeypatch):
    monkeypatch.setenv("AIRFLOW__VARIAN__RECEIVERS", '{"night": "spool"}')
    with pytest.raises(ConfigurationError, match="relative path"):
        settings.named_receiver("night")


def test_a_destination_that_is_not_named_is_the_storage_root(monkeypatch):
    monkeypatch.setenv("AIRFLOW__VARIAN__STORAGE_ROOT", "s3://store@bucket/aria")
    assert str(settings.root_of("/data")) == "file:///data"
    for nothing in (None, ""):
        assert str(settings.root_of(nothing)) == "s3://store@bucket/aria"


def test_a_relative_destination_is_refused():
    with pytest.raises(ConfigurationError, match="relative"):
        settings.destination_path("out")


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("s3://store@bucket/aria", "s3://store@bucket/aria/.dicom/a.json"),
        ("/data/dicom/", "file:///data/dicom/.dicom/a.json"),
        ("file:///", "file:///.dicom/a.json"),
    ],
)
def test_what_lies_below_a_root_keeps_its_connection(root, path):
    assert str(settings.below(settings.destination_path(root), ".dicom", "a.json")) == path


def test_a_store_that_nobody_knows_is_a_wrong_setting():
    with pytest.raises(ConfigurationError, match="nosuchstore"):
        settings.destination_path("nosuchstore://bucket/key")


@pytest.mark.parametrize(("days", "seconds"), [("", 14 * 86400), ("30", 30 * 86400), ("0.5", 43200), ("0", 0)])
def test_what_nobody_claims_stays_in_the_spool_of_tasks_for_so_many_days(monkeypatch, days, seconds):
    if days:
        monkeypatch.setenv("AIRFLOW__VARIAN__SPOOL_RETENTION_DAYS", days)
    assert settings.spool_retention_seconds() == seconds


@pytest.mark.parametrize("days", ["-1", "two weeks", "inf", "nan"])
def test_a_retention_that_is_no_number_of_days_is_refused(monkeypatch, days):
    monkeypatch.setenv("AIRFLOW__VARIAN__SPOOL_RETENTION_DAYS", days)
    with pytest.raises(ConfigurationError, match=r"spool_retention_days is .* no number of days"):
        settings.spool_retention_seconds()


def test_the_retention_that_the_metadata_tells_is_the_one_that_holds(monkeypatch):
    from airflow_provider_varian.get_provider_info import get_provider_info

    told = get_provider_info()["config"]["varian"]["options"]["spool_retention_days"]["default"]
    assert settings.spool_retention_seconds() == float(told) * 86400
