"""Folders of a destination: listed, and removed when they are empty, where a store has any."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from support import s3
from support.stores import InPlace, NumberedErrors, Remembering, Root

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError
from airflow_provider_varian.retrieval.destination import Destination

CLAIMS = PurePosixPath("claims")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with s3.store(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture(params=["local", "in place", "numbered errors", "remembering", "s3"])
def place(request, tmp_path):
    root = tmp_path / "out"
    match request.param:
        case "local":
            yield Destination(root)
        case "s3":
            with request.getfixturevalue("store").bucket() as bucket:
                yield Destination(bucket.root)
        case kind:
            kinds = {"in place": InPlace, "numbered errors": NumberedErrors, "remembering": Remembering}
            yield Destination(Root(kinds[kind](), root))


def test_folders_are_listed_by_name_and_files_are_not(place):
    assert place.folders_in(CLAIMS) == []
    for name in ("b/1", "a/1", "a/2", "file"):
        place.write_text(CLAIMS / name, "x")
    assert place.folders_in(CLAIMS) == ["a", "b"]
    assert place.folders_in(CLAIMS / "a") == []


def test_an_empty_folder_is_removed_and_a_full_one_is_not(place):
    place.write_text(CLAIMS / "a" / "1", "")
    place.drop_folder(CLAIMS / "a")
    place.drop_folder(CLAIMS / "nothing")
    assert place.read_text(CLAIMS / "a" / "1") == ""
    place.remove(CLAIMS / "a" / "1", sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    place.drop_folder(CLAIMS / "a")
    assert place.folders_in(CLAIMS) == []


def test_all_folders_of_a_bucket_are_listed_however_many_there_are(store):
    with store.bucket() as bucket:
        names = [f"{number:03}" for number in range(2 * s3.PAGE + 5)]
        bucket.fs.pipe({f"{bucket.name}/qa/claims/{name}/r-1": b"" for name in names})
        assert Destination(bucket.root).folders_in(CLAIMS) == names


def test_a_path_out_of_the_destination_is_refused(place):
    with pytest.raises(ConfigurationError, match="leads out"):
        place.folders_in(PurePosixPath(".."))
    with pytest.raises(ConfigurationError, match="leads out"):
        place.drop_folder(PurePosixPath("../x"))


def test_a_store_that_is_down_is_an_error_of_ours(store):
    with store.bucket() as bucket:
        bucket.door.before = lambda request: 500
        with pytest.raises(DestinationWriteError, match="cannot be used"):
            Destination(bucket.root).folders_in(CLAIMS)
