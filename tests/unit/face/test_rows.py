"""Rows on storage: found by opaque keys, private, and never another row's."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from airflow_provider_varian.errors import ConfigurationError, DestinationWriteError, NotFoundError
from airflow_provider_varian.hooks.settings import destination_path
from airflow_provider_varian.operators.rows import read_row, read_rows, write_rows

_ROWS = [{"PatientID": "A^1"}, {"PatientID": "Müller"}]


def test_rows_come_back_by_their_keys_and_in_order(tmp_path):
    written = write_rows(destination_path(tmp_path / "deep" / "rows.json"), _ROWS)
    assert [read_row(written.uri, key) for key in written.keys] == _ROWS
    assert list(read_rows(written.uri).values()) == _ROWS


def test_keys_tell_nothing_of_the_row(tmp_path):
    first = write_rows(destination_path(tmp_path / "a.json"), _ROWS)
    second = write_rows(destination_path(tmp_path / "b.json"), _ROWS)
    # A hash or a count would repeat itself.
    assert not set(first.keys) & set(second.keys)


def test_a_key_of_an_older_file_finds_nothing_rather_than_another_row(tmp_path):
    path = destination_path(tmp_path / "rows.json")
    old = write_rows(path, _ROWS)
    write_rows(path, list(reversed(_ROWS)))
    with pytest.raises(NotFoundError, match="clear the tasks after it"):
        read_row(old.uri, old.keys[0])


def test_the_file_is_for_its_owner_alone_and_leaves_no_fragment(tmp_path):
    written = write_rows(destination_path(tmp_path / "rows" / "rows.json"), _ROWS)
    path = Path(destination_path(written.uri).path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["rows.json"]


def test_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(NotFoundError, match="Run the task that writes it"):
        read_rows(str(tmp_path / "none.json"))


@pytest.mark.parametrize("content", ["", "[]", '{"rows": []}', '{"schema_version": 9, "rows": []}', "\x00"])
def test_what_is_not_a_rows_file_is_named(tmp_path, content):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"rows\.json"):
        read_rows(str(tmp_path / "rows.json"))


def test_storage_that_refuses_is_worth_a_retry(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DestinationWriteError) as caught:
        write_rows(destination_path(tmp_path / "file" / "rows.json"), _ROWS)
    assert caught.value.transient


def test_the_file_is_plain_json(tmp_path):
    written = write_rows(destination_path(tmp_path / "rows.json"), _ROWS)
    content = json.loads(Path(destination_path(written.uri).path).read_text())
    assert content["schema_version"] == 1
    assert [entry["row"] for entry in content["rows"]] == _ROWS
