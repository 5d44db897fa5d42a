from __future__ import annotations

import pytest

from airflow_provider_varian.errors import QueryError
from airflow_provider_varian.query.level import Level, deepest_level


@pytest.mark.parametrize("text", ["IMAGE", "image", " Image "])
def test_a_level_is_read_as_people_type_it(text):
    assert Level.parse(text) is Level.IMAGE


@pytest.mark.parametrize("missing", [None, "", "  "])
def test_a_missing_level_is_refused_with_the_choices(missing):
    with pytest.raises(QueryError, match=r"missing.*PATIENT, STUDY, SERIES, IMAGE"):
        Level.parse(missing)


def test_an_odd_level_is_refused_with_the_nearest():
    with pytest.raises(QueryError, match=r"'serie'.*Did you mean SERIES"):
        Level.parse("serie")


def test_the_deepest_unique_key_gives_the_level():
    assert deepest_level(["PatientID", "SeriesInstanceUID", "StudyInstanceUID"]) is Level.SERIES
    assert deepest_level(["Modality"]) is None
