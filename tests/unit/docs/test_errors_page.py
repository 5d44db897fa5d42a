"""The page of errors has an entry for each error, under the right promise."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_provider_varian import errors

PAGE = Path(__file__).parents[3] / "docs" / "errors-and-fixes.md"


def leaves(kind):
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*map(leaves, below))


def documented(heading):
    page = PAGE.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", page, re.M | re.S)
    return dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^### |\Z)", section, re.M | re.S))


def test_each_transient_error_is_documented_as_worth_a_retry():
    assert set(documented("Worth a retry")) == {kind.__name__ for kind in leaves(errors.TransientDicomError)}


def test_each_permanent_error_is_documented_as_one_that_stays():
    assert set(documented("A retry would end the same way")) == {
        kind.__name__ for kind in leaves(errors.PermanentDicomError)
    }


def test_each_entry_says_more_than_the_name():
    entries = documented("Worth a retry") | documented("A retry would end the same way")
    assert all(len(text.split()) >= 15 for text in entries.values())
