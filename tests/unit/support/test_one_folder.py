"""Tests that share an Airflow are given to one process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.one_folder import TOGETHER, pytest_xdist_make_scheduler, scope_of


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        (f"{TOGETHER}/test_kills.py::test_one[killed-a/b::c]", TOGETHER),
        (f"{TOGETHER}/test_privacy.py::test_two", TOGETHER),
        (f"{TOGETHER}_more/test_three.py::test_three", f"{TOGETHER}_more/test_three.py"),
        ("tests/unit/test_four.py::TestFour::test_four", "tests/unit/test_four.py"),
    ],
)
def test_a_file_stays_in_one_process_and_so_does_the_folder(nodeid, scope):
    assert scope_of(nodeid) == scope


def test_the_folder_is_there(request):
    assert list((request.config.rootpath / TOGETHER).glob("test_*.py"))


def test_other_ways_to_spread_are_left_alone():
    assert pytest_xdist_make_scheduler(SimpleNamespace(getoption=lambda name: "load"), None) is None
